"""Links that limit the calls in progress: a call waits for room, then for its reply."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import anyio

from agentsession.redis._core.errors import NoReplyError, NotSentError
from agentsession.redis._core.request import Command, Request
from agentsession.redis._links.link import Link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.redis._links.backlog import Backlog
    from agentsession.redis._links.link import Rest, Room
    from agentsession.redis._scripts import Argument, Script

__all__ = ["CountedLink"]


class CountedLink(Link):
    """A :class:`~agentsession.redis._links.link.Link` with a backlog.

    Args:
        timeout: Seconds that a call may take, retries included.
        backlog: Counts the calls in progress; several links may share it.
    """

    def __init__(self, timeout: float, backlog: Backlog) -> None:
        self._timeout = timeout
        self._backlog = backlog
        self._closed = False

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        *,
        room: Room | None = None,
        rest: Rest | None = None,
    ) -> list[Any]:
        loop = asyncio.get_running_loop()
        if room is not None:
            deadline = room.deadline
            if deadline <= loop.time():
                msg = "no time was left to send it"
                raise NotSentError(msg)
        else:
            deadline = loop.time() + self._timeout
            if not self._backlog.free:
                room = await self._backlog.room(deadline)
                try:
                    return await self.run(script, keys, args, room=room, rest=rest)
                finally:
                    room.leave()
        future: asyncio.Future[list[Any]] = loop.create_future()
        request = Request(script, keys, args, future, deadline)
        go_on = None if rest is None else rest.go_on
        if rest is not None:
            request.size += rest.size
            rest.request = request
        self.submit(request)
        if room is not None:
            room.leave()
        try:
            return await (future if go_on is None else asyncio.shield(future))
        except asyncio.CancelledError:
            if go_on is not None and request.was_sent:
                go_on(future)
            else:
                future.cancel()
            if future.cancelled():
                # It will not be sent again: its memory is freed now, its place when its turn comes.
                self._backlog.shrink(request.size)
                request.forget()
            raise
        except (NotSentError, NoReplyError) as exc:
            exc.timeout, exc.waited = self._timeout, loop.time() - deadline + self._timeout
            raise

    def submit(self, command: Command) -> None:
        """Take a command that is new, and count it in.

        Raises:
            NotSentError: The link is closed.
        """
        if self._closed:
            msg = "the connection is closed"
            raise NotSentError(msg)
        self._backlog.enter(command.size)
        self.take(command)

    @abstractmethod
    def take(self, command: Command) -> None:
        """Take a command that is counted already."""

    @property
    def crowded(self) -> bool:
        return not self._backlog.free

    async def room(self, *, in_steps: bool = False) -> Room:
        deadline = asyncio.get_running_loop().time() + self._timeout
        return await self._backlog.room(deadline, in_steps=in_steps)

    # -- the end

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._backlog.close()
        try:
            with anyio.move_on_after(self._timeout):
                await self.drain()
        finally:
            # Also if the one who closes is cancelled while waiting.
            with anyio.CancelScope(shield=True):
                await self.let_go()

    @abstractmethod
    async def drain(self) -> None:
        """Refuse new calls and wait until those in progress have ended; each has a deadline."""

    @abstractmethod
    async def let_go(self) -> None:
        """Fail the calls that still wait, and close all connections, at once."""
