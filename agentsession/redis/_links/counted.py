"""What all links do that count what is under way: a call waits for room, then for its reply."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from agentsession.redis._links.link import Link
from agentsession.redis._links.request import Request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from agentsession.redis._links.backlog import Backlog
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
        deadline: float | None = None,
    ) -> list[Any]:
        loop = asyncio.get_running_loop()
        if deadline is None:
            deadline = loop.time() + self._timeout
            if not self._backlog.free:
                async with self._backlog.place(deadline):
                    return await self.run(script, keys, args, deadline=deadline)
        future: asyncio.Future[list[Any]] = loop.create_future()
        request = Request(script, keys, args, future, deadline)
        self._submit(request)
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

    @asynccontextmanager
    async def room(self) -> AsyncGenerator[float]:
        deadline = asyncio.get_running_loop().time() + self._timeout
        async with self._backlog.place(deadline):
            yield deadline
