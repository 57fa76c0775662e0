"""Back-pressure: limits the calls in progress, so that a hung server cannot fill the memory."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from agentsession.redis._core.errors import NotSentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsession.redis._links.link import Room

__all__ = ["Backlog"]

# Enough for the burst of a busy process; beyond it callers wait, in the order in which they came.
_MOST_CALLS: Final = 10_000
_MOST_BYTES: Final = 64 << 20


class Backlog:
    """Counts the calls in progress, and their bytes; beyond a limit callers wait in line.

    A caller that finds it :attr:`free` enters at once, before another task can run. Those who wait
    are let in one by one, in order, since it is not known in advance how large a call will be. So
    one call may exceed the limit of bytes, and one more that is encoded in steps: only one such
    call at a time is between its first step and being sent.

    Args:
        most: The most calls at once.
        most_bytes: While this many bytes are in progress, no other call enters.
    """

    def __init__(self, most: int = _MOST_CALLS, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._count = 0
        self._bytes = 0
        self._places = _Line(self._has_room)
        self._turns = _Line(lambda: True)

    @property
    def free(self) -> bool:
        """Whether there is room, and nobody waits for it."""
        # As _has_room() says; each append asks twice.
        return self._count < self._most and self._bytes < self._most_bytes and self._places.empty

    def _has_room(self) -> bool:
        return self._count < self._most and self._bytes < self._most_bytes

    async def room(self, deadline: float, *, in_steps: bool = False) -> Room:
        """Wait in line, until *deadline*; the caller has to leave what is returned.

        Args:
            deadline: The loop's time.
            in_steps: Whether the call is encoded in steps, between which other tasks run. It holds
                up only those that are encoded in steps too.

        Raises:
            NotSentError: There was no room in time, or all was closed meanwhile.
        """
        room = _Room(self, deadline)
        if not self.free or (in_steps and not self._turns.empty):
            await self._wait(room, in_steps=in_steps)
        elif in_steps:
            room.turn = self._turns.join()
        return room

    async def _wait(self, room: _Room, *, in_steps: bool) -> None:
        try:
            async with asyncio.timeout_at(room.deadline):
                if in_steps:
                    room.turn = self._turns.join()
                    await room.turn
                if not self.free:
                    room.place = self._places.join()
                    await room.place
        except TimeoutError:
            self.left(room)
            msg = "too many calls are waiting for the server"
            raise NotSentError(msg) from None
        except BaseException:
            self.left(room)
            raise
        if in_steps and room.place is not None:
            self._places.leave(room.place)

    def left(self, room: _Room) -> None:
        """Let those in who waited for this one."""
        if room.turn is not None:
            self._turns.leave(room.turn)
        if room.place is not None:
            self._places.leave(room.place)

    def enter(self, size: int) -> None:
        """Count a call of so many bytes in."""
        self._count += 1
        self._bytes += size

    def leave(self, size: int) -> None:
        """Count a call out, and let others in."""
        self._count -= 1
        self._bytes -= size
        self._places.let_next_in()

    def shrink(self, size: int) -> None:
        """Count bytes out of a call that stays counted itself."""
        self._bytes -= size
        self._places.let_next_in()

    def close(self) -> None:
        """Turn away who waits."""
        self._turns.close()
        self._places.close()


class _Line:
    """Those who wait, in the order in which they came; one at a time is let in.

    A newcomer never overtakes, not even while the next in line is let in but has not run yet.

    Args:
        is_open: Tells whether the next one may be let in; whenever that may have changed,
            :meth:`let_next_in` is called.
    """

    def __init__(self, is_open: Callable[[], bool]) -> None:
        self._is_open = is_open
        self._waiting: deque[asyncio.Future[None]] = deque()
        # Who was let in, and has not left.
        self._let_in: asyncio.Future[None] | None = None

    @property
    def empty(self) -> bool:
        """Whether nobody waits, or is let in."""
        return not self._waiting and self._let_in is None

    def join(self) -> asyncio.Future[None]:
        """Wait behind the others; what is returned is done when one is let in, at once perhaps."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self.let_next_in()
        return waiter

    def let_next_in(self) -> None:
        """Let in who waits the longest, if that may be."""
        while self._waiting and self._let_in is None and self._is_open():
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._let_in = waiter
                waiter.set_result(None)

    def leave(self, waiter: asyncio.Future[None]) -> None:
        """Leave the line, or make place for the next one; later times do nothing."""
        waiter.cancel()
        if self._let_in is waiter:
            self._let_in = None
            self.let_next_in()

    def close(self) -> None:
        """Turn away who waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(NotSentError("the connection is closed"))


class _Room:
    """A :class:`~agentsession.redis._links.link.Room` in a backlog."""

    __slots__ = ("_backlog", "deadline", "place", "turn")

    def __init__(self, backlog: Backlog, deadline: float) -> None:
        self._backlog = backlog
        self.deadline = deadline
        self.turn: asyncio.Future[None] | None = None
        self.place: asyncio.Future[None] | None = None

    def leave(self) -> None:
        self._backlog.left(self)
