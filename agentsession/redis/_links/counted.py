"""What all links do that count what is under way: a call waits for room, then for its reply."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from agentsession.redis._links.link import Link
from agentsession.redis._links.request import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.redis._links.backlog import Backlog
    from agentsession.redis._links.link import Room
    from agentsession.redis._scripts import Argument, Script

__all__ = ["CountedLink"]


class CountedLink(Link):
    """A :class:`~agentsession.redis._links.link.Link` with a backlog.

    Args:
        timeout: Seconds that a call may take, retries included.
        backlog: Counts what is under way, also for others that share it.
    """

    def __init__(self, timeout: float, backlog: Backlog) -> None:
        self._timeout = timeout
        self._backlog = backlog

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        *,
        room: Room | None = None,
    ) -> list[Any]:
        loop = asyncio.get_running_loop()
        if room is not None:
            deadline = room.deadline
        else:
            deadline = loop.time() + self._timeout
            if not self._backlog.free:
                room = await self._backlog.room(deadline)
                try:
                    return await self.run(script, keys, args, room=room)
                finally:
                    room.leave()
        future: asyncio.Future[list[Any]] = loop.create_future()
        request = Request(script, keys, args, future, deadline)
        self._submit(request)
        if room is not None:
            room.leave()
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                # It will not be sent again; what it holds is given up now, its turn when it comes.
                self._backlog.shrink(request.size)
                request.forget()
            raise

    @abstractmethod
    def _submit(self, request: Request) -> None:
        """Take a new call, and count it in.

        Raises:
            NotSentError: The link is closed.
        """

    @property
    def crowded(self) -> bool:
        return not self._backlog.free

    async def room(self, *, in_steps: bool = False) -> Room:
        deadline = asyncio.get_running_loop().time() + self._timeout
        return await self._backlog.room(deadline, in_steps=in_steps)
