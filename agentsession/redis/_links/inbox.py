"""A connection on which the server tells this process of what happens there.

Whoever listens here is told by name: a script publishes the name on the channel of this process.
Such a word is not kept by the server, so it is lost while there is no connection. Whenever there is
one again, everybody is told, and those who listen look for themselves now and then in any case.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import hiredis

from agentsession._alarms import Alarms
from agentsession.redis._core.clock import ServerClock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from agentsession.redis._links.connection import Connection
    from agentsession.redis._links.endpoint import Endpoint

__all__ = ["Inbox"]

# In seconds. A server that hangs, or is cut off by the network, is noticed after two of them.
_BETWEEN_PINGS: Final = 5.0
# Between two attempts to connect, up to the second figure; what is missed meanwhile only comes
# later.
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 5.0


class Inbox:
    """Where a process is told of what happens on the server; it connects when it is first needed.

    Args:
        endpoint: Says where to connect, at each attempt.
        timeout: Seconds that connecting may take.

    Attributes:
        name: Unique among all inboxes of all processes.
    """

    def __init__(self, endpoint: Callable[[], Endpoint], timeout: float) -> None:
        self.name = os.urandom(16).hex()
        self._endpoint = endpoint
        self._timeout = timeout
        self._alarms = Alarms()
        self._channels: set[str] = set()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        # Whether anything has come since the last time it was asked for a sign of life.
        self._heard = False

    def __repr__(self) -> str:
        state = "open" if self._connection is not None else "closed"
        return f"<{type(self).__name__} {state} listeners={len(self._alarms)}>"

    @contextmanager
    def listen(self, channel: str, name: str, on_news: Callable[[], None]) -> Generator[None]:
        """Have a function called whenever this name comes on the channel, until the block ends."""
        with self._alarms.listen(name, on_news):
            if self._task is None and not self._closed:
                self._task = asyncio.create_task(self._stay_connected(), name="agentsession-inbox")
            if channel not in self._channels:
                self._channels.add(channel)
                if self._connection is not None:
                    _send(self._connection, "SUBSCRIBE", channel)
            yield

    def reconnect(self) -> None:
        """Give the connection up: the server has another address now."""
        if self._connection is not None:
            self._connection.close(ConnectionError("the server has another address now"))

    async def aclose(self) -> None:
        """Close the connection."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _stay_connected(self) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                connection = await self._endpoint().open(self._timeout, ServerClock())
            except Exception:  # noqa: BLE001 - finding an address may raise anything
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                delay = min(2 * delay, _LONGEST_DELAY)
                continue
            delay = _FIRST_DELAY
            try:
                await self._receive(connection)
            finally:
                self._connection = None
                connection.close(ConnectionError("not wanted any more"))

    async def _receive(self, connection: Connection) -> None:
        """Take what comes until the connection is lost, or nothing comes for too long."""
        lost = asyncio.Event()
        connection.on_reply = self._received
        connection.on_lost = lambda _: lost.set()
        if connection.closed:
            return
        self._connection = connection
        _send(connection, "SUBSCRIBE", *sorted(self._channels))
        self._heard = True
        while self._heard:
            self._heard = False
            _send(connection, "PING")
            with suppress(TimeoutError):
                async with asyncio.timeout(_BETWEEN_PINGS):
                    await lost.wait()
                    return

    def _received(self, reply: Any, _now: float) -> bool:
        self._heard = True
        # A list, or of a connection that speaks RESP3 one that is marked as pushed.
        words: list[Any] = reply if _is_list(reply) else []
        if words and words[0] == b"subscribe":
            self._alarms.ring_all()  # Of what came before nobody was told.
        elif words and words[0] == b"message":
            name: bytes = words[2]
            self._alarms.ring(name.decode("ascii", "replace"))
        return True


def _is_list(reply: object) -> bool:
    return isinstance(reply, list)


def _send(connection: Connection, *words: str) -> None:
    connection.send(hiredis.pack_command(words))  # type: ignore[arg-type]  # typed for one word
