"""Runs turns of an agent of Strands, one for each line read; ``url prefix session`` it gets.

A turn asks a tool for the weather. The tool says ``{"at": "tool"}`` and goes on at the next line.
In the end ``{"said": ...}`` is printed: what was asked, and how many messages the model saw.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from strands import Agent, tool
from strands.session import SnapshotSessionManager

from adapters.frameworks.strands import ScriptedModel, calls
from agentsession.adapters.strands import Storage
from agentsession.blocking import open_service


def tell(**words: Any) -> None:
    print(json.dumps(words), flush=True)  # noqa: T201 - the test reads it


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    tell(at="tool")
    sys.stdin.readline()
    return f"It rains in {city}."


def answer(messages: list[Any]) -> list[dict[str, Any]]:
    """Say what was asked last, and how many messages there are."""
    asked = [
        block["text"]
        for message in messages
        for block in message["content"]
        if (message["role"] == "user" and "text" in block)
    ][-1]
    return [{"text": f"{asked}: {len(messages)}"}]


def main(url: str, prefix: str, session_id: str) -> None:
    with open_service(url, key_prefix=prefix) as service:
        storage = Storage(service, app_name="app", user_id="user")
        model = ScriptedModel()
        manager = SnapshotSessionManager(session_id, storage=storage)
        agent = Agent(
            model, tools=[weather], agent_id="a", session_manager=manager, callback_handler=None
        )
        tell(ready=True)
        while asked := sys.stdin.readline().strip():
            model.answers = [calls(f"call-{asked}", "weather", city="Oslo"), answer]
            result = agent(asked)
            tell(said=result.message["content"][0]["text"])


if __name__ == "__main__":
    main(*sys.argv[1:])
