"""A proxy between a client and a server that counts round trips and breaks things on demand.

Every byte is passed on once and in order, or not at all: what reaches the server twice was sent
twice. What the proxy does by chance follows its seed.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from heapq import heappop, heappush
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import hiredis

from harness.servers import LOOPBACK, Node

_CHUNK = 1 << 16
# Bytes that come late do so within so many round trips of others, most of them within a few, or at
# once when all is calm. They are taken when the server has answered all of them, which takes
# seconds at most.
_LATEST = 2000
_TAKEN = 5.0

_INCOMPLETE: Final = object()


class Hold:
    """Keeps what clients send on its way to the server, to deliver it when told to.

    The client is cut off at once, so that it comes again over a new connection; the old one stays
    open towards the server.

    Args:
        after: So many pieces of what clients send pass first, then one is kept and all others pass;
            ``None`` keeps all.

    Attributes:
        kept: How many pieces were kept.
    """

    def __init__(self, after: int | None = None) -> None:
        self._after = after
        self._seen = 0
        self.kept = 0
        self._under_way = 0
        self._due = asyncio.Event()
        self._taken = asyncio.Event()

    def keeps(self) -> bool:
        """Decide whether the piece at hand is kept."""
        if self._due.is_set():
            return False
        kept = self._after is None or self._seen == self._after
        self._seen += 1
        self.kept += kept
        self._under_way += kept
        return kept

    async def deliver(self) -> None:
        """Give the servers what was kept, and wait until they have taken it; keep no more."""
        self._due.set()
        if self._under_way:
            async with asyncio.timeout(2 * _TAKEN):
                await self._taken.wait()

    async def due(self) -> None:
        await self._due.wait()

    def took(self) -> None:
        """Note that a piece was taken."""
        self._under_way -= 1
        if not self._under_way:
            self._taken.set()


class Counter:
    """Counts the messages of the protocol in a stream of bytes, commands or replies."""

    def __init__(self) -> None:
        self.count = 0
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)

    def feed(self, data: bytes) -> int:
        """Count those that are complete with this piece; return how many there were so far."""
        self._reader.feed(data)
        try:
            while self._reader.gets() is not _INCOMPLETE:
                self.count += 1
        except hiredis.ProtocolError:
            # It began amid a message, whose first part was for somebody else to read.
            self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
            self.count += 1
        return self.count


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
        holding: What keeps back what clients send, if anything does.
        rate: Bytes a second that pass at most, in each direction; 0 for any number.
        passed: How many have passed in each, "up" to the server and "down" from it.
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
        self.holding: Hold | None = None
        self.rate = 0
        self.passed = {"up": 0, "down": 0}
        self.delay = 0.0
        self.random = random.Random(seed)
        self.spoke = False
        self.calmed = False
        self._target = target
        self.hung = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._late_ones: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._left: dict[str, int] = {}
        self._free = {"up": 0.0, "down": 0.0}
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
        self._wake_who_waits()

    def begin_round_trip(self) -> None:
        """Note that a client speaks after the server has."""
        self.round_trips += 1
        self.spoke = True
        self._wake_who_waits()

    async def others_have_spoken(self) -> None:
        """Wait for some round trips; how many is chance."""
        due = self.round_trips + round(_LATEST ** self.random.random())
        waiting = asyncio.get_running_loop().create_future()
        heappush(self._late_ones, (due, next(self._numbers), waiting))
        self._wake_who_waits()
        await waiting

    def _wake_who_waits(self) -> None:
        while self._late_ones and (self.calmed or self._late_ones[0][0] <= self.round_trips):
            _, _, waiting = heappop(self._late_ones)
            if not waiting.done():
                waiting.set_result(None)

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

    async def travel(self, way: str, size: int) -> None:
        """Wait as long as so many bytes take at the rate that is set, behind those before them."""
        if self.rate:
            now = asyncio.get_running_loop().time()
            self._free[way] = max(now, self._free[way]) + size / self.rate
            await asyncio.sleep(self._free[way] - now)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.spoke = False
        try:
            # asyncio logs a handler that is cancelled as if it had failed.
            with suppress(OSError, asyncio.CancelledError):
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
        self._hold: Hold | None = None

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
                    proxy.begin_round_trip()
                if proxy.holding is not None and proxy.holding.keeps():
                    self._late, self._hold = data, proxy.holding
                    return
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
        await self._proxy.travel(way, len(data))
        passing = self._proxy.share(way, data)
        writer.write(passing)
        await writer.drain()
        self._proxy.passed[way] += len(passing)
        return len(passing) == len(data)

    async def _deliver_late(self) -> None:
        """Give the server what the client holds for lost, once it has come again."""
        if self._hold is None:
            await self._proxy.others_have_spoken()
            await self._deliver()
            return
        try:
            await self._hold.due()
            await self._deliver()
        finally:
            self._hold.took()

    async def _deliver(self) -> None:
        """Write it, and read an answer to each command, unless the server has hung up by now."""
        commands, replies = Counter().feed(self._late), Counter()
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_TAKEN):
                self._to_server.write(self._late)
                await self._to_server.drain()
                self._proxy.late_arrivals += 1
                while replies.count < commands and (data := await self._from_server.read(_CHUNK)):
                    replies.feed(data)


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


@asynccontextmanager
async def proxied_nodes(nodes: Sequence[Node], *, seed: int = 0) -> AsyncIterator[list[Proxy]]:
    """A proxy before each node, where the nodes tell clients to come."""
    async with AsyncExitStack() as stack:
        proxies = []
        for number, node in enumerate(nodes):
            proxy = Proxy(f"redis://{LOOPBACK}:{node.public_port}", node.url, seed + number)
            await proxy.start()
            stack.push_async_callback(proxy.stop)
            proxies.append(proxy)
        yield proxies
