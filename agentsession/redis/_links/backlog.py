"""Back-pressure: how much may be under way, so that a hung server cannot fill the memory."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from agentsession.redis._links.link import NotSentError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Backlog"]

# Enough for the burst of a busy process; beyond it callers wait, in the order in which they came.
_MOST_CALLS: Final = 10_000
_MOST_BYTES: Final = 64 << 20


class Backlog:
    """Counts what is under way by number and bytes; beyond a bound callers wait in line.

    Whoever finds it :attr:`free` enters before anything else can run. Whoever waited has a place
    that nobody else takes; since it is not known how large a call will be, they are let in one by
    one. One call may go over the bound of bytes.

    Args:
        most: The most calls at once.
        most_bytes: When so many bytes are under way, nobody else enters.
    """

    def __init__(self, most: int = _MOST_CALLS, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._count = 0
        self._bytes = 0
        self._line: deque[asyncio.Future[None]] = deque()
        # Who was let in, and has neither entered nor gone away.
        self._let_in: asyncio.Future[None] | None = None

    @property
    def free(self) -> bool:
        """Whether there is room, and nobody waits for it."""
        return not self._line and self._let_in is None and self._has_room()

    def _has_room(self) -> bool:
        return self._count < self._most and self._bytes < self._most_bytes

    @asynccontextmanager
    async def place(self, deadline: float) -> AsyncGenerator[None]:
        """Wait in line; within the block, the next one to :meth:`enter` is the one that waited.

        Raises:
            NotSentError: There was no room until *deadline*, or all was closed meanwhile.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._line.append(waiter)
        self._let_next_in()
        try:
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except TimeoutError:
                msg = "too many calls are waiting for the server"
                raise NotSentError(msg) from None
            yield
        finally:
            # Also if it did not come to a call: another one may have the place.
            waiter.cancel()
            if self._let_in is waiter:
                self._let_in = None
                self._let_next_in()

    def _let_next_in(self) -> None:
        """Let in who waits the longest, if there is room."""
        while self._line and self._let_in is None and self._has_room():
            waiter = self._line.popleft()
            if not waiter.done():
                self._let_in = waiter
                waiter.set_result(None)

    def enter(self, size: int) -> None:
        """Count a call of so many bytes in."""
        self._count += 1
        self._bytes += size
        if self._let_in is not None:
            self._let_in = None
            self._let_next_in()

    def leave(self, size: int) -> None:
        """Count a call out, and let others in."""
        self._count -= 1
        self._bytes -= size
        if self._line:
            self._let_next_in()

    def shrink(self, size: int) -> None:
        """Count so many bytes of a call out, which stays."""
        self._bytes -= size
        self._let_next_in()

    def close(self) -> None:
        """Turn away who waits."""
        while self._line:
            waiter = self._line.popleft()
            if not waiter.done():
                waiter.set_exception(NotSentError("the connection is closed"))
