"""Runs turns of an agent of Pydantic AI, one for each line read; ``url prefix id`` it gets.

A turn asks a tool for the weather. The tool says ``{"at": "tool"}`` and goes on at the next line.
In the end ``{"said": ..., "conflicts": ...}`` is printed: the answer, and how often the turn was
run again since somebody else had saved the conversation meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from agentsession import open_service
from agentsession.adapters.pydantic_ai import ConversationStore


def tell(**words: Any) -> None:
    print(json.dumps(words), flush=True)  # noqa: T201 - the test reads it


def model(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    """Call the tool, and then say what was asked last and how many messages there are."""
    last = messages[-1]
    assert isinstance(last, ModelRequest)
    if any(isinstance(part, UserPromptPart) for part in last.parts):
        return ModelResponse([ToolCallPart("weather", {"city": "Oslo"}, f"call {len(messages)}")])
    parts = [part for message in messages for part in message.parts]
    prompts = [part.content for part in parts if isinstance(part, UserPromptPart)]
    return ModelResponse([TextPart(f"{prompts[-1]}: {len(messages)}")])


agent = Agent(FunctionModel(model))


@agent.tool_plain
async def weather(city: str) -> str:
    """Tell the weather of a city."""
    tell(at="tool")
    await asyncio.to_thread(sys.stdin.readline)
    return f"It rains in {city}."


async def turn(store: ConversationStore, conversation_id: str, asked: str) -> str:
    conversation = await store.load(conversation_id)
    conversation = conversation or Conversation(conversation_id=conversation_id)
    result = await agent.run(asked, conversation=conversation)
    await store.save(result)
    return result.output


async def main(url: str, prefix: str, conversation_id: str) -> None:
    async with open_service(url, key_prefix=prefix, session_event_limit=None) as service:
        store = ConversationStore(service, app_name="app", user_id="user")
        tell(ready=True)
        while asked := (await asyncio.to_thread(sys.stdin.readline)).strip():
            conflicts = 0
            while True:
                try:
                    said = await turn(store, conversation_id, asked)
                except ConversationConflict:
                    conflicts += 1
                else:
                    break
            tell(said=said, conflicts=conflicts)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
