"""Connections on which servers tell this process of what happens there.

What a script publishes on a channel is for those who listen for a name there: it is the length of
the name in bytes, a space, the name, and the news. A server keeps none of it, so what it says while
there is no connection is lost. Whenever there is one again everybody is told so, and those who
listen look for themselves now and then in any case.
"""

from __future__ import annotations

import asyncio
import os
import random
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import hiredis
from msgspec import Struct

from agentsession._alarms import Alarms
from agentsession.redis._core.clock import ServerClock
from agentsession.redis._core.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from agentsession.redis._links.connection import Connection
    from agentsession.redis._links.endpoint import Endpoint

__all__ = ["Channels", "Inbox", "Line", "Message"]

# In seconds. A server that hangs, or is cut off by the network, is noticed after two of them.
_BETWEEN_PINGS: Final = 5.0
# Between two attempts to connect, up to the second figure; what is missed meanwhile only comes
# later.
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 5.0
# A server that denies what it is asked to tell may have other rights for this user by then.
_BEFORE_ASKING_AGAIN: Final = 30.0


class Message(Struct, frozen=True):
    """What a script has published.

    Attributes:
        name: Whom it is for.
        news: The news.
    """

    name: str
    news: bytes


class Channels(ABC):
    """Who listens on which channels, and for what."""

    def __init__(self) -> None:
        self._alarms: dict[bytes, Alarms[Message]] = {}

    @contextmanager
    def listen(
        self, channel: str, name: str, on_news: Callable[[Message | None], None]
    ) -> Generator[None]:
        """Have a function called with all news for a name on the channel, until the block ends.

        Args:
            channel: The channel.
            name: The name; ``""`` for every name.
            on_news: Called with each message, or with ``None`` when some may have been missed:
                among others once the server has begun to tell.
        """
        place = channel.encode()
        alarms = self._alarms.get(place)
        if alarms is None:
            alarms = self._alarms[place] = Alarms()
            self._add(place)
        try:
            with alarms.listen(name, on_news):
                yield
        finally:
            if not alarms:
                del self._alarms[place]
                self._remove(place)

    @property
    def listeners(self) -> int:
        """How many listen."""
        return sum(map(len, self._alarms.values()))

    @abstractmethod
    def _add(self, channel: bytes) -> None:
        """Have a server tell of a channel."""

    @abstractmethod
    def _remove(self, channel: bytes) -> None:
        """Have it tell no more."""

    def on_begun(self, channel: bytes) -> None:
        """Note that a server tells of a channel from now on; of what came before it did not."""
        if channel in self._alarms:
            alarms = self._alarms[channel]
            for name in alarms.names:
                alarms.tell(name)

    def on_message(self, channel: bytes, content: bytes) -> None:
        """Hand on what was published."""
        alarms = self._alarms.get(channel)
        if alarms is not None:
            message = _read(content)
            # At once: nobody is in the middle of anything when a message is read, and a step of
            # its own for each listener would take a good part of a message's way.
            alarms.tell(message.name, message)
            alarms.tell("", message)

    def on_denied(self, line: Line) -> None:
        """Note that a server will not tell this user: who listens has to look."""
        for channel in line.subscribed:
            self.on_begun(channel)

    def on_refused(self, line: Line, channel: bytes | None, error: ServerError | None) -> None:  # noqa: B027 - most have nothing to do
        """Note that a server does not tell of a channel any more, or not of some, and why."""


class Line:
    """A connection to one server, kept up from the first channel on.

    Args:
        endpoint: Says where to connect, at each attempt.
        timeout: Seconds that connecting may take.
        channels: Is told of what comes.
        sharded: Whether the channels are of the slots of a cluster's node.
        on_failure: Called when it cannot connect, has lost the connection, or cannot tell whether
            this is the right server.
    """

    def __init__(
        self,
        endpoint: Callable[[], Endpoint],
        timeout: float,
        channels: Channels,
        *,
        sharded: bool = False,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.subscribed: set[bytes] = set()
        self._endpoint = endpoint
        self._timeout = timeout
        self._channels = channels
        self._of_shards = sharded
        self._on_failure = on_failure
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        # Whether anything has come at all, and since it was asked for a sign of life the last time.
        self._answered = self._heard = False
        # Whether this server has channels of slots.
        self._sharded = sharded
        # Of such channels, how many answers that it tells no more are still to come.
        self._leaving: Counter[bytes] = Counter()
        # When to ask again for what was denied.
        self._ask_again_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def add(self, channel: bytes) -> None:
        """Be told of a channel."""
        self.subscribed.add(channel)
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._stay_connected(), name="agentsession-inbox")
        if self._connection is not None:
            self._subscribe(self._connection, channel)

    def remove(self, channel: bytes) -> None:
        """Be told of a channel no more."""
        self.subscribed.discard(channel)
        if self._connection is not None and self._sharded:
            self._leaving[channel] += 1
            _send(self._connection, b"SUNSUBSCRIBE", channel)
        elif self._connection is not None:
            _send(self._connection, b"UNSUBSCRIBE", channel)

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
            self._answered = False
            with suppress(Exception):  # Finding an address may raise anything.
                connection = await self._endpoint().open(self._timeout, ServerClock())
                try:
                    await self._receive(connection)
                finally:
                    self._connection = None
                    connection.close(ConnectionError("not wanted any more"))
            self._on_failure()
            # Also where it was lost at once: a server that is in trouble gets no storm.
            delay = _FIRST_DELAY if self._answered else min(2 * delay, _LONGEST_DELAY)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - no secret

    async def _receive(self, connection: Connection) -> None:
        """Take what comes until the connection is lost, or nothing comes for too long."""
        lost = asyncio.Event()
        connection.on_reply = self._received
        connection.on_lost = lambda _: lost.set()
        if connection.closed:
            return
        self._connection = connection
        self._sharded, self._ask_again_at = self._of_shards, None
        self._leaving.clear()
        self._subscribe(connection, *self.subscribed)
        self._heard = True
        loop = asyncio.get_running_loop()
        while self._heard:
            self._heard = False
            _send(connection, b"PING")
            if self._ask_again_at is not None and loop.time() >= self._ask_again_at:
                self._ask_again_at = None
                self._subscribe(connection, *self.subscribed)
            with suppress(TimeoutError):
                async with asyncio.timeout(_BETWEEN_PINGS):
                    await lost.wait()
                    return

    def _subscribe(self, connection: Connection, *channels: bytes) -> None:
        if not self._sharded and channels:
            _send(connection, b"SUBSCRIBE", *channels)
        elif self._sharded:
            for channel in channels:  # One by one, since they are of many slots.
                _send(connection, b"SSUBSCRIBE", channel)

    def _received(self, reply: Any, _now: float) -> bool:
        self._answered = self._heard = True
        if isinstance(reply, ServerError):
            self._refused(reply)
            return True
        # A list, or of a connection that speaks RESP3 one that is marked as pushed.
        words: list[Any] = reply if _is_list(reply) else []
        match words:
            case [b"subscribe" | b"ssubscribe", channel, _]:
                self._channels.on_begun(channel)
            case [b"message" | b"smessage", channel, content]:
                self._channels.on_message(channel, content)
            case [b"sunsubscribe", channel, _] if self._leaving[channel]:
                self._leaving[channel] -= 1
            case [b"sunsubscribe", channel, _] if channel in self.subscribed:
                # The slot has another owner now.
                self._channels.on_refused(self, channel, None)
            case _:
                pass  # An answer to a sign of life, or to what is not wanted any more.
        return True

    def _refused(self, error: ServerError) -> None:
        if self._sharded and "unknown command" in str(error).lower():
            # Before version 7: what is published at one node is told at all of them, though what
            # goes from one to another may be lost. It does not say that a slot is not its own.
            self._sharded = False
            if self._connection is not None:
                self._subscribe(self._connection, *self.subscribed)
            self._on_failure()
        elif _denies_telling(error):
            if self._ask_again_at is None:
                now = asyncio.get_running_loop().time()
                self._ask_again_at = now + _BEFORE_ASKING_AGAIN
                self._channels.on_denied(self)
        else:
            self._channels.on_refused(self, None, error)


class Inbox(Channels):
    """Where a process is told of what happens on a server, or anywhere in a cluster.

    It connects when it is first needed.

    Args:
        endpoint: Says where to connect, at each attempt.
        timeout: Seconds that connecting may take.

    Attributes:
        name: Unique among all inboxes of all processes.
    """

    def __init__(self, endpoint: Callable[[], Endpoint], timeout: float) -> None:
        super().__init__()
        self.name = os.urandom(16).hex()
        self._line = Line(endpoint, timeout, self)

    def __repr__(self) -> str:
        state = "open" if self._line.is_open else "closed"
        return f"<{type(self).__name__} {state} listeners={self.listeners}>"

    def reconnect(self) -> None:
        """Give the connection up: the server has another address now."""
        self._line.reconnect()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._line.aclose()

    def _add(self, channel: bytes) -> None:
        self._line.add(channel)

    def _remove(self, channel: bytes) -> None:
        self._line.remove(channel)


def _is_list(reply: object) -> bool:
    return isinstance(reply, list)


def _read(content: bytes) -> Message:
    size, _, rest = content.partition(b" ")
    end = int(size) if size.isdigit() else 0
    return Message(rest[:end].decode(errors="replace"), rest[end:])


def _denies_telling(error: ServerError) -> bool:
    """Tell whether a user may not subscribe; that he may not unsubscribe, or ping, is no matter."""
    about = str(error).lower()
    words = ("'subscribe'", "'ssubscribe'", "channel")
    return error.code == "NOPERM" and any(word in about for word in words)


def _send(connection: Connection, *words: bytes) -> None:
    connection.send(hiredis.pack_command(words))  # type: ignore[arg-type]  # typed for one word
