"""A process that runs turns, one for each line that it reads, and tells how far it has come.

It is told ``{"session": ..., "message": ..., "options": {...}, "stops": n}`` and answers with lines
of JSON: ``{"at": n}`` when the agent comes to the step *n* at which it stops until it reads another
line, and in the end ``{"ended": outcome, "asked": how often it has asked for its lease}`` or
``{"error": class, "outcome": outcome}``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from agentsession import (
    AgentContext,
    Event,
    Runner,
    SessionService,
    Text,
    ToolCall,
    ToolResult,
    open_service,
)
from agentsession._service.leasing import ServiceLease
from agentsession.errors import AgentSessionError

APP, USER = "app", "user"


def plan() -> list[Event]:
    """Make what a turn with three calls of tools says, two of them side by side."""
    first, second, third = (ToolCall(f"c{n}", "tool", {"n": n}) for n in (1, 2, 3))
    return [
        Event(author="agent", content=[Text("One."), first]),
        Event(author="tool", content=[ToolResult("c1", 1)]),
        Event(author="agent", content="Let me", partial=True),
        Event(author="agent", content=[second, third]),
        Event(author="tool", content=[ToolResult("c3", 3)]),
        Event(author="tool", content=[ToolResult("c2", 2)]),
        Event(author="agent", content="Done."),
    ]


class Planned:
    """An agent that says what is planned, and stops before one step."""

    def __init__(self, wait: asyncio.Queue[str], stops: int | None) -> None:
        self._wait = wait
        self._stops = stops

    async def run(self, context: AgentContext, /) -> AsyncIterator[Event]:
        for step, event in enumerate([*plan(), None]):
            if step == self._stops:
                tell({"at": step})
                await self._wait.get()
            if event is not None:
                yield event


def tell(answer: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


async def turn(service: SessionService, lines: asyncio.Queue[str], order: dict[str, Any]) -> None:
    agent = Planned(lines, order["stops"])
    run = Runner(APP, agent, service, **order["options"]).run(
        USER, order["session"], Event(author="user", content="Go.", id=order["message"])
    )
    try:
        await run.result()
    except AgentSessionError as exc:
        tell({"error": type(exc).__name__, "outcome": run.outcome})
    else:
        lease = run._turn._lease if run._turn is not None else None
        asked = lease._attempt if isinstance(lease, ServiceLease) else 0
        tell({"ended": run.outcome, "asked": asked})


async def main(url: str) -> None:
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        lines.put_nowait(sys.stdin.readline())

    loop.add_reader(sys.stdin, read)
    async with open_service(url) as service:
        tell({"ready": True})
        while line := await lines.get():
            await turn(service, lines, json.loads(line))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
