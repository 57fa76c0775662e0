"""A proxy between a client and a server that counts round trips and breaks things on demand."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Proxy:
    """Passes bytes on, on a Unix socket of its own.

    Attributes:
        url: Where clients connect.
        round_trips: How often the client spoke after the server had; pipelined calls share one.
        connections: How many connections were made.
        lose_replies: This many of the next replies are swallowed, each with its connection.
    """

    def __init__(self, socket: Path, target: str) -> None:
        self.url = f"unix://{socket}"
        self.round_trips = 0
        self.connections = 0
        self.lose_replies = 0
        self._socket = socket
        self._target = target
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def freeze(self) -> None:
        """Hold all bytes back, in both directions, with the connections open."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let everything flow again."""
        self._flowing.set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._socket)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # noqa: TID251 - all are done

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        to_server = await asyncio.open_unix_connection(self._target)
        self._spoke = False
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(self._up(reader, to_server[1]))
                down = group.create_task(self._down(to_server[0], writer))
                await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
                up.cancel()
                down.cancel()
        finally:
            for each in (writer, to_server[1]):
                with suppress(Exception):
                    each.close()
            self._tasks.discard(task)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                await self._flowing.wait()
                if not self._spoke:
                    self.round_trips += 1
                    self._spoke = True
                writer.write(data)
                await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                await self._flowing.wait()
                self._spoke = False
                if self.lose_replies:
                    self.lose_replies -= 1
                    return
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    with tempfile.TemporaryDirectory(prefix="agentsession-") as folder:
        proxy = Proxy(Path(folder) / "p", url.removeprefix("unix://"))
        await proxy.start()
        try:
            yield proxy
        finally:
            await proxy.stop()
