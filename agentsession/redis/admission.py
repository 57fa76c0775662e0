"""Back-pressure: how many calls may be under way, so that a hung server cannot fill the memory."""

from __future__ import annotations

import asyncio
from collections import deque

from agentsession.redis.link import NotSentError

__all__ = ["Admission"]


class Admission:
    """Counts what is under way by number and bytes; beyond a bound callers wait in line.

    Whoever finds it :attr:`free`, or has waited, enters before anything else can run.

    Args:
        most: The most calls at once.
        most_bytes: When so many bytes are under way, nobody else enters. One call may go over it.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._count = 0
        self._bytes = 0
        self._line: deque[asyncio.Future[None]] = deque()
        # Let in, and not run since: their places are taken.
        self._admitted = 0

    @property
    def free(self) -> bool:
        """Whether there is room, and nobody waits for it."""
        return not self._line and self._has_room()

    def _has_room(self) -> bool:
        return self._count + self._admitted < self._most and self._bytes < self._most_bytes

    async def wait(self, deadline: float) -> None:
        """Wait in line for room for one more.

        Raises:
            NotSentError: There was none until *deadline*, or all was closed meanwhile.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._line.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                await waiter
        except BaseException as exc:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._admitted -= 1
                self._admit()
            if isinstance(exc, TimeoutError):
                msg = "too many calls are waiting for the server"
                raise NotSentError(msg) from None
            raise
        self._admitted -= 1

    def _admit(self) -> None:
        """Let in who waits the longest, as far as there is room."""
        while self._line and self._has_room():
            waiter = self._line.popleft()
            if not waiter.done():
                self._admitted += 1
                waiter.set_result(None)

    def enter(self, size: int) -> None:
        """Count a call of so many bytes in."""
        self._count += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        """Count a call out, and let others in."""
        self._count -= 1
        self._bytes -= size
        self._admit()

    def close(self) -> None:
        """Turn away who waits."""
        while self._line:
            waiter = self._line.popleft()
            if not waiter.done():
                waiter.set_exception(NotSentError("the connection is closed"))
