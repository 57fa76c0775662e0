"""A process that appends; it reads orders from standard input and answers, both JSON, one a line.

::

    {"do": "open", "url": ""}                                               -> {}
    {"do": "append", "sessions": [["", ""]], "seconds": 1.0, "rest": 0.0}  -> figures

It is run as a file, so that it can be of another version of the package than the benchmarks are:
the one that ``PYTHONPATH`` names. So it imports nothing of theirs, and uses what both have.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from agentsession import Event, RedisSessionService, SessionKey

__all__ = ["APP", "Order", "answer", "append_for", "text"]

APP = "bench"

Order: TypeAlias = dict[str, Any]


def text() -> str:
    """Return what each event says, of 200 letters."""
    return ("The flight to Boston leaves at seven, and the seat by the window is free. " * 3)[:200]


async def append_for(
    service: RedisSessionService, sessions: list[list[str]], seconds: float, rest: float
) -> Order:
    """Append to these sessions, by one caller each, who rests so many seconds between two."""
    times: list[float] = []
    begun = time.perf_counter()
    until = begun + seconds

    async def call(user: str, session: str) -> None:
        key = SessionKey(APP, user, session)
        while (before := time.perf_counter()) < until:
            await service.append_event(key, Event(author="agent", content=text()))
            times.append(time.perf_counter() - before)
            if rest:
                await asyncio.sleep(rest)

    async with asyncio.TaskGroup() as group:
        for user, session in sessions:
            group.create_task(call(user, session))
    elapsed = time.perf_counter() - begun
    return {"p50": statistics.median(times), "number": len(times), "elapsed": elapsed}


class _Writer:
    def __init__(self) -> None:
        self._service: RedisSessionService

    async def obey(self, order: Order) -> Order:
        match order.pop("do"):
            case "open":
                self._service = RedisSessionService.from_url(order["url"], session_event_limit=None)
                await self._service.__aenter__()
                return {}
            case _:
                return await append_for(self._service, **order)


async def answer(obey: Callable[[Order], Awaitable[Order]]) -> None:
    """Obey the orders until there are no more."""
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(answer(_Writer().obey))
