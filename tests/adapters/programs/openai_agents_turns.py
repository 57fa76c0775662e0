"""Runs turns of an agent of OpenAI Agents, one for each line read; ``url prefix session`` it gets.

A turn asks a tool for the weather. The tool says ``{"at": "tool"}`` and goes on at the next line.
In the end ``{"said": ..., "saw": ...}`` is printed: the answer, and how many items the model saw.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from agents import Agent, RunConfig, Runner, function_tool
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message, function_call

from agentsession import SessionKey, open_service
from agentsession.adapters.openai_agents import AgentSession


def tell(**words: Any) -> None:
    print(json.dumps(words), flush=True)  # noqa: T201 - the test reads it


@function_tool
async def weather(city: str) -> str:
    """Tell the weather of a city."""
    tell(at="tool")
    await asyncio.to_thread(sys.stdin.readline)
    return f"It rains in {city}."


def answer(call: ModelCall) -> list[Any]:
    """Say what was asked last, and how many items there are."""
    asked = [item["content"] for item in call.input if item.get("role") == "user"][-1]
    return [assistant_message(f"{asked}: {len(call.input)}")]


async def main(url: str, prefix: str, session_id: str) -> None:
    async with open_service(url, key_prefix=prefix, session_event_limit=None) as service:
        session = AgentSession(service, SessionKey("app", "user", session_id))
        tell(ready=True)
        while asked := (await asyncio.to_thread(sys.stdin.readline)).strip():
            call = function_call("weather", {"city": "Oslo"}, call_id=f"call {asked}")
            model = ScriptedModel([[call], ModelStep.respond(answer)])
            result = await Runner.run(
                Agent(name="helper", model=model, tools=[weather]),
                asked,
                session=session,
                run_config=RunConfig(tracing_disabled=True),
            )
            tell(said=result.final_output)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
