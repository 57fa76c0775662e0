"""A process that follows; it obeys as ``writer`` does.

::

    {"do": "open", "url": ""}                                     -> {}
    {"do": "follow", "sessions": [["", ""]]}                      -> {"seconds": 1.0}
    {"do": "unfollow"}                                            -> {}
    {"do": "listen", "how": "", "channel": ""}                    -> {}
    {"do": "arrivals"}                                            -> {"": [1]}
    {"do": "memory"}                                              -> {"bytes": 1}
    {"do": "append", "sessions": [["", ""]], "seconds": 1.0, "rest": 0.0}  -> as ``writer``

``follow`` opens a subscription of each session, with a task that takes what comes. ``listen`` hears
a channel without the library, by ``hiredis`` or by ``redis-py``. ``arrivals`` are the moments, in
nanoseconds, at which something came by ``follow`` or by those, since it was last asked; all
processes of a machine have the same clock.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis.asyncio

from agentsession import Event, RedisSessionService, SessionKey
from benchmarks.following.writer import APP, Order, answer, append_for

__all__: list[str] = []

# As many open at once as there may be callers, without waiting for room in the service's queue.
_AT_ONCE = 500


class _Bare(asyncio.Protocol):
    """Hears a channel with as little Python as can."""

    def __init__(self, channel: str, arrivals: list[int], begun: asyncio.Event) -> None:
        self._channel = channel
        self._arrivals = arrivals
        self._begun = begun
        self._reader = hiredis.Reader()

    def connection_made(self, transport: Any) -> None:
        transport.write(hiredis.pack_command(("SUBSCRIBE", self._channel)))  # type: ignore[arg-type]  # typed for one word

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if reply[0] != b"message":
                self._begun.set()
            elif not reply[2].endswith(b"written"):  # The message that says so much has no event.
                self._arrivals.append(time.perf_counter_ns())


class _Listener:
    def __init__(self) -> None:
        self._service: RedisSessionService
        self._url = ""
        self._arrivals: dict[str, list[int]] = defaultdict(list)
        self._tasks: list[asyncio.Task[None]] = []
        self._kept: list[object] = []

    async def obey(self, order: Order) -> Order:
        match order.pop("do"):
            case "open":
                await self._open(**order)
            case "follow":
                return await self._follow_all(**order)
            case "unfollow":
                await self._unfollow()
            case "listen":
                await self._listen(**order)
            case "arrivals":
                arrivals = {how: times.copy() for how, times in self._arrivals.items()}
                for times in self._arrivals.values():
                    times.clear()
                return arrivals
            case "memory":
                gc.collect()
                return {"bytes": _resident()}
            case _:
                return await append_for(self._service, **order)
        return {}

    async def _open(self, url: str) -> None:
        self._url = url
        self._service = RedisSessionService.from_url(url, session_event_limit=None)
        await self._service.__aenter__()

    async def _follow_all(self, sessions: list[list[str]]) -> Order:
        before = time.perf_counter()
        room = asyncio.Semaphore(_AT_ONCE)
        opened = [asyncio.Event() for _ in sessions]
        for (user, session), event in zip(sessions, opened, strict=True):
            key = SessionKey(APP, user, session)
            self._tasks.append(asyncio.create_task(self._follow(key, room, event)))
        for event in opened:
            await event.wait()
        return {"seconds": time.perf_counter() - before}

    async def _follow(
        self, key: SessionKey, room: asyncio.Semaphore, opened: asyncio.Event
    ) -> None:
        async with AsyncExitStack() as stack:
            async with room:
                session = await self._service.get_session(key, num_recent_events=0)
                assert session is not None
                items = self._service.subscribe(session, after_seq=session.last_seq)
                await stack.enter_async_context(items)
            opened.set()
            async for item in items:
                assert isinstance(item, Event)
                self._arrivals["follow"].append(time.perf_counter_ns())

    async def _unfollow(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()

    async def _listen(self, how: str, channel: str) -> None:
        begun = asyncio.Event()
        if how == "redis-py":
            task = asyncio.create_task(self._listen_with_redis_py(channel, begun))
            self._kept.append(task)
        else:
            place = urlsplit(self._url)
            made = await asyncio.get_running_loop().create_connection(
                lambda: _Bare(channel, self._arrivals[how], begun),
                place.hostname or "",
                place.port or 0,
            )
            self._kept.append(made)
        await begun.wait()

    async def _listen_with_redis_py(self, channel: str, begun: asyncio.Event) -> None:
        async with redis.asyncio.Redis.from_url(self._url) as client, client.pubsub() as pubsub:
            await pubsub.subscribe(channel)
            async for message in pubsub.listen():
                if message["type"] == "message":
                    self._arrivals["redis-py"].append(time.perf_counter_ns())
                else:
                    begun.set()


def _resident() -> int:
    """Return how many bytes of this process are in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    asyncio.run(answer(_Listener().obey))
