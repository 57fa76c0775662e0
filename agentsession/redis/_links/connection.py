"""One socket: bytes out, replies in. Nothing is decided here."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

import hiredis

from agentsession.redis._core.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentsession.redis._scripts import Argument

__all__ = ["Connection"]

# After so many replies their callers run, whose next calls are then sent: so that the server works
# on these while the client works on the replies that are left.
_REPLIES_AT_ONCE: Final = 32
# The parser moves its whole buffer with each reply, so the buffer is kept small.
_PARSED_AT_ONCE: Final = 1 << 14
# The most bytes that wait in the transport, beyond one piece; the rest is not even packed yet.
_MOST_UNSENT: Final = 1 << 18


class Connection(asyncio.Protocol):
    """A connection to a server, made by :class:`~agentsession.redis._links.endpoint.Endpoint`.

    Attributes:
        on_reply: Called with each reply and the loop's time; an error of the server's is a
            ``ServerError``. Returns whether to go on.
        on_replies_read: Called when those that have come so far are read, or when not to go on.
        on_writable: Called when more can be sent again.
        on_lost: Called once, with the reason.
        closed: Whether it was lost, or given up.
        server: Where it leads, for people.
    """

    def __init__(self) -> None:
        self.on_reply: Callable[[Any, float], bool] = self._unasked
        self.on_replies_read: Callable[[], None] = _nothing
        self.on_writable: Callable[[], None] = _nothing
        self.on_lost: Callable[[Exception], None] = _ignore
        self.writable = True
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ServerError, notEnoughData=_NOT_YET)
        self._transport: asyncio.Transport
        # With TLS, the transport below it, which sends the encrypted bytes.
        self._below: asyncio.Transport | None = None
        self._unparsed: deque[bytes] = deque()
        self._received = 0
        self._sent = 0
        self._behind = False
        # What the server said last before it was asked anything, or while it is asked.
        self._said: Any = None
        self._reason: Exception | None = None
        self.server = ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self.closed else 'open'}>"

    @property
    def closed(self) -> bool:
        """Whether it was lost, or given up."""
        return self._reason is not None

    # -- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_MOST_UNSENT)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        self._unparsed.append(data)
        if not self._behind:
            self._read()

    def _read(self) -> None:
        """Hand on the replies that have come, some of them at a time."""
        self._behind = False
        if self._reason is not None:
            return
        now = self._loop.time()
        try:
            for _ in range(_REPLIES_AT_ONCE):
                reply = self._next_reply()
                if reply is _NOT_YET or not self.on_reply(reply, now):
                    break
            else:
                self._behind = True
                self._loop.call_soon(self._read)
        except hiredis.ProtocolError as exc:
            self.close(exc)
            return
        self.on_replies_read()

    def _next_reply(self) -> Any:
        """Parse up to the next reply; a piece is parsed whole only if the reply is longer."""
        reply = self._reader.gets()
        least = _PARSED_AT_ONCE
        while reply is _NOT_YET and self._unparsed:
            data = self._unparsed.popleft()
            if len(data) > least:
                self._unparsed.appendleft(data[least:])
                data = data[:least]
            self._reader.feed(data)
            reply = self._reader.gets()
            least = len(data) * 16
        return reply

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(exc or ConnectionError("the server closed the connection"))

    # -- what its owner calls

    def send(self, data: bytes) -> None:
        """Send bytes; may be called beyond :attr:`writable`, which costs memory."""
        self._sent += len(data)
        self._transport.write(data)

    def encrypt(self, transport: asyncio.Transport) -> None:
        """Go on by a transport that encrypts, over the one so far."""
        self._transport, self._below = transport, self._transport
        transport.set_write_buffer_limits(high=_MOST_UNSENT)

    @property
    def progress(self) -> int:
        """About how many bytes have come in or left; while it grows, the connection is alive."""
        unsent = self._transport.get_write_buffer_size()
        if self._below is not None:
            unsent += self._below.get_write_buffer_size()
        return self._received + self._sent - unsent

    def close(self, exc: Exception) -> None:
        """Give the socket up at once, whatever has not left yet; may be called again."""
        if self._reason is None:
            self._reason = exc
            self._transport.abort()
            self.on_lost(exc)

    async def ask(self, *commands: Sequence[Argument]) -> list[Any]:
        """Send commands and wait for all their replies, errors among them.

        Raises:
            OSError: The connection was lost, perhaps before; its cause is what the server said
                last, if that was an error.
        """
        if self._reason is not None:
            raise self._explained(self._reason)
        done: asyncio.Future[None] = self._loop.create_future()
        replies: list[Any] = []

        def take(reply: Any, _: float) -> bool:
            self._said = reply
            replies.append(reply)
            if len(replies) == len(commands) and not done.done():
                done.set_result(None)
            return True

        def fail(exc: Exception) -> None:
            if not done.done():
                done.set_exception(self._explained(exc))

        self.on_reply, self.on_lost = take, fail
        self.send(b"".join(hiredis.pack_command(tuple(words)) for words in commands))  # type: ignore[arg-type]  # typed for one word
        await done
        return replies

    def _unasked(self, reply: Any, _now: float) -> bool:
        self._said = reply
        return True

    def _explained(self, exc: Exception) -> Exception:
        """Add the server's last word to the reason for which the connection was lost."""
        if not isinstance(self._said, ServerError):
            return exc
        explained = ConnectionError(f"{exc}: {self._said}")
        explained.__cause__ = self._said
        return explained


_NOT_YET: Final = object()


def _ignore(_: Exception) -> None:
    pass


def _nothing() -> None:
    pass
