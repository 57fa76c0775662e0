"""Runs turns of an agent of Google ADK, one for each line read; ``url prefix session`` it gets.

A turn asks a tool for the weather. The tool says ``{"at": "tool"}`` and goes on at the next line.
In the end ``{"said": ...}`` is printed: the answer, with how many contents the model was shown.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from google.adk.runners import Runner
from google.genai.types import Content, Part

from adapters.programs.adk_agent import agent_of
from agentsession import open_service
from agentsession.adapters.google_adk import SessionService


def tell(**words: Any) -> None:
    print(json.dumps(words), flush=True)  # noqa: T201 - the test reads it


async def weather(city: str, day: str | None = None) -> str:
    """Tell the weather of a city."""
    tell(at="tool")
    await asyncio.to_thread(sys.stdin.readline)
    return f"It rains in {city}."


async def main(url: str, prefix: str, session_id: str) -> None:
    async with open_service(url, key_prefix=prefix, session_event_limit=None) as service:
        runner = Runner(
            app_name="app",
            agent=agent_of(weather),
            session_service=SessionService(service),
            auto_create_session=True,
        )
        tell(ready=True)
        while asked := (await asyncio.to_thread(sys.stdin.readline)).strip():
            said = ""
            async for event in runner.run_async(
                user_id="user",
                session_id=session_id,
                new_message=Content(role="user", parts=[Part(text=asked)]),
            ):
                if event.is_final_response() and event.content and event.content.parts:
                    said = event.content.parts[0].text or ""
            tell(said=said)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
