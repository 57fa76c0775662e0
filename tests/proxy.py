"""A proxy between a client and a server that counts round trips and breaks things on demand.

Every byte is passed on once and in order, or not at all: what reaches the server twice was sent
twice. What the proxy does by chance follows its seed.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

_CHUNK = 1 << 16
# Bytes that come late do so within so many round trips of others, of which it takes a client some
# to connect again, or at once when all is calm. They are taken when the server answers them, which
# takes seconds at most.
_LATEST = 100
_TAKEN = 5.0


class Proxy:
    """Passes bytes on, from a Unix socket or a port of its own.

    Attributes:
        url: Where clients connect.
        round_trips: How often the client spoke after the server had; pipelined calls share one.
        connections: How many connections were made.
        lose_replies: This many of the next replies are swallowed, each with its connection.
        lost_replies: How many were, by count or by chance.
        losing: How likely any reply is to be swallowed with its connection.
        lateness: How likely what a client sends is to cost its connection and yet reach the server,
            after the client has come again: what a network does that is slow and not dead.
        late_arrivals: How often it did.
        delay: Seconds that each piece waits at most; how long is chance.
        hung: This many connections, the oldest, pass nothing on any more, and are not closed.
    """

    def __init__(self, url: str, target: str, seed: int = 0) -> None:
        self.url = url
        self.round_trips = 0
        self.connections = 0
        self.lose_replies = 0
        self.lost_replies = 0
        self.losing = 0.0
        self.lateness = 0.0
        self.late_arrivals = 0
        self.delay = 0.0
        self.random = random.Random(seed)
        self.spoke = False
        self.calmed = False
        self._target = target
        self.hung = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._left: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def freeze(self) -> None:
        """Hold all bytes back, in both directions, with the connections open."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let everything flow again."""
        self._flowing.set()

    def cut_after(self, *, up: int | None = None, down: int | None = None) -> None:
        """Cut the connection that passes on so many bytes first, to the server or from it."""
        self._left = {way: left for way, left in (("up", up), ("down", down)) if left is not None}

    def calm(self) -> None:
        """Do no more harm, and deliver what is late."""
        self.calmed = True
        self.losing = self.lateness = self.delay = 0.0
        self.lose_replies = 0
        self._left = {}
        self.thaw()

    async def start(self) -> None:
        """Listen; a port of 0 in the URL becomes the one that was free."""
        place = urlsplit(self.url)
        if place.scheme == "unix":
            self._server = await asyncio.start_unix_server(self._serve, place.path)
        else:
            self._server = await asyncio.start_server(self._serve, place.hostname, place.port)
            self.url = f"redis://{place.hostname}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # noqa: TID251 - all are done

    def loses(self) -> bool:
        """Decide whether the reply at hand is swallowed."""
        lost = self.lose_replies > 0 or self.random.random() < self.losing
        if lost:
            self.lose_replies = max(0, self.lose_replies - 1)
            self.lost_replies += 1
        return lost

    def share(self, way: str, data: bytes) -> bytes:
        """Return what may pass of a piece; if that is not all, the connection is cut."""
        if way not in self._left:
            return data
        passing = data[: self._left[way]]
        self._left[way] -= len(passing)
        if len(passing) < len(data):
            del self._left[way]
        return passing

    async def dally(self) -> None:
        """Wait as long as a piece has to."""
        await self._flowing.wait()
        if self.delay:
            await asyncio.sleep(self.delay * self.random.random())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.spoke = False
        try:
            with suppress(OSError):
                number = self.connections
                server = await self._reach_the_server()
                await _Connection(self, number, (reader, writer), server).serve()
        finally:
            with suppress(Exception):
                writer.close()
            self._tasks.discard(task)

    async def _reach_the_server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        place = urlsplit(self._target)
        if place.scheme == "unix":
            return await asyncio.open_unix_connection(place.path)
        return await asyncio.open_connection(place.hostname, place.port)


class _Connection:
    """One client's connection, passed on to the server."""

    def __init__(
        self,
        proxy: Proxy,
        number: int,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._number = number
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._late = b""

    async def serve(self) -> None:
        """Pass on until one side has ended, or is cut off."""
        try:
            async with asyncio.TaskGroup() as group:
                ways = [group.create_task(self._up()), group.create_task(self._down())]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
            self._to_client.close()
            if self._late:
                await self._deliver_late()
        finally:
            for writer in (self._to_client, self._to_server):
                with suppress(Exception):
                    writer.close()

    async def _up(self) -> None:
        proxy = self._proxy
        with suppress(ConnectionError):
            while data := await self._from_client.read(_CHUNK):
                await proxy.dally()
                if not proxy.spoke:
                    proxy.round_trips += 1
                    proxy.spoke = True
                if proxy.random.random() < proxy.lateness:
                    self._late = data
                    return
                if not await self._passed("up", data, self._to_server):
                    return

    async def _down(self) -> None:
        proxy = self._proxy
        with suppress(ConnectionError):
            while data := await self._from_server.read(_CHUNK):
                await proxy.dally()
                proxy.spoke = False
                if proxy.loses() or not await self._passed("down", data, self._to_client):
                    return

    async def _passed(self, way: str, data: bytes, writer: asyncio.StreamWriter) -> bool:
        """Pass a piece on; tell whether it was all of it."""
        if self._number <= self._proxy.hung:
            await asyncio.Event().wait()
        passing = self._proxy.share(way, data)
        writer.write(passing)
        await writer.drain()
        return len(passing) == len(data)

    async def _deliver_late(self) -> None:
        """Give the server what the client holds for lost, once it has come again."""
        proxy = self._proxy
        due = proxy.round_trips + proxy.random.randint(1, _LATEST)
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_TAKEN):
                while proxy.round_trips < due and not proxy.calmed:
                    await asyncio.sleep(0.001)
                self._to_server.write(self._late)
                await self._to_server.drain()
                proxy.late_arrivals += 1
                await self._from_server.read(_CHUNK)


@asynccontextmanager
async def proxied(url: str, *, tcp: bool = False, seed: int = 0) -> AsyncIterator[Proxy]:
    """A proxy before the server at *url*, on a Unix socket, or on loopback with *tcp*."""
    with tempfile.TemporaryDirectory(prefix="agentsession-") as folder:
        place = "redis://127.0.0.1:0" if tcp else f"unix://{Path(folder) / 'p'}"
        proxy = Proxy(place, url, seed)
        await proxy.start()
        try:
            yield proxy
        finally:
            await proxy.stop()
