"""Back-pressure: how much may be under way, so that a hung server cannot fill the memory."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from agentsession.redis._links.link import NotSentError

if TYPE_CHECKING:
    from agentsession.redis._links.link import Room

__all__ = ["Backlog"]

# Enough for the burst of a busy process; beyond it callers wait, in the order in which they came.
_MOST_CALLS: Final = 10_000
_MOST_BYTES: Final = 64 << 20


class Backlog:
    """Counts what is under way by number and bytes; beyond a bound callers wait in line.

    Whoever finds it :attr:`free` enters before anything else can run. Whoever waited has a place
    that nobody else takes; since it is not known how large a call will be, they are let in one by
    one. One call may go over the bound of bytes, and one more that is encoded in steps: of these
    one at a time is between its first step and its call.

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
        # Of the one who encodes in steps.
        self._turn = asyncio.Lock()

    @property
    def free(self) -> bool:
        """Whether there is room, and nobody waits for it."""
        return not self._line and self._let_in is None and self._has_room()

    def _has_room(self) -> bool:
        return self._count < self._most and self._bytes < self._most_bytes

    async def room(self, deadline: float, *, in_steps: bool = False) -> Room:
        """Wait in line, until *deadline*; what is returned is to be left.

        Args:
            deadline: The loop's time.
            in_steps: Whether others run before the call is made. They are not held up by it, but
                for those who encode in steps themselves.

        Raises:
            NotSentError: There was no room in time, or all was closed meanwhile.
        """
        room = _Room(self, deadline)
        if not self.free or (in_steps and self._turn.locked()):
            await self._wait(room, in_steps=in_steps)
        elif in_steps:
            await self._turn.acquire()
            room.has_turn = True
        return room

    async def _wait(self, room: _Room, *, in_steps: bool) -> None:
        try:
            async with asyncio.timeout_at(room.deadline):
                if in_steps:
                    await self._turn.acquire()
                    room.has_turn = True
                if not self.free:
                    room.waiter = asyncio.get_running_loop().create_future()
                    self._line.append(room.waiter)
                    self._let_next_in()
                    await room.waiter
        except TimeoutError:
            room.leave()
            msg = "too many calls are waiting for the server"
            raise NotSentError(msg) from None
        except BaseException:
            room.leave()
            raise
        if in_steps:
            self._pass_on(room)

    def _pass_on(self, room: _Room) -> None:
        """Let the next one in, if it is this one who was let in."""
        if room.waiter is not None and self._let_in is room.waiter:
            self._let_in = None
            self._let_next_in()

    def left(self, room: _Room) -> None:
        """Let those in who waited for this one."""
        if room.has_turn:
            room.has_turn = False
            self._turn.release()
        if room.waiter is not None:
            room.waiter.cancel()
            self._pass_on(room)

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


class _Room:
    """A :class:`~agentsession.redis._links.link.Room` in a backlog."""

    __slots__ = ("_backlog", "deadline", "has_turn", "waiter")

    def __init__(self, backlog: Backlog, deadline: float) -> None:
        self._backlog = backlog
        self.deadline = deadline
        self.has_turn = False
        self.waiter: asyncio.Future[None] | None = None

    def leave(self) -> None:
        self._backlog.left(self)
