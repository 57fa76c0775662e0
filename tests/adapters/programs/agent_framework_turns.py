"""Runs turns of an agent of Agent Framework, one for each line; ``url prefix session`` it gets.

A turn asks a tool for the weather. The tool says ``{"at": "tool"}`` and goes on at the next line.
In the end ``{"said": ..., "saw": ...}`` is printed: the answer, and what the model saw.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from agent_framework import Agent, Content, Message

from adapters.frameworks.agent_framework import ScriptedClient, calls
from agentsession import open_service
from agentsession.adapters.agent_framework import HistoryProvider


def tell(**words: Any) -> None:
    print(json.dumps(words), flush=True)  # noqa: T201 - the test reads it


async def weather(city: str) -> str:
    """Tell the weather of a city."""
    tell(at="tool")
    await asyncio.to_thread(sys.stdin.readline)
    return f"It rains in {city}."


def answer(messages: Sequence[Message]) -> list[Content]:
    """Say what was asked last, and how many messages there are."""
    asked = [message.text for message in messages if message.role == "user"][-1]
    return [Content.from_text(f"{asked}: {len(messages)}")]


async def main(url: str, prefix: str, session_id: str) -> None:
    async with open_service(url, key_prefix=prefix, session_event_limit=None) as service:
        history = HistoryProvider(service, app_name="app", user_id="user")
        client = ScriptedClient()
        agent = Agent(client, tools=[weather], context_providers=[history])
        tell(ready=True)
        while asked := (await asyncio.to_thread(sys.stdin.readline)).strip():
            client.answers = [calls(f"call {asked}", "weather", city="Oslo"), answer]
            session = agent.create_session(session_id=session_id)
            result = await agent.run(asked, session=session)
            tell(said=result.text, saw=len(client.saw[-1]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
