"""Several connections to one server, where one is not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

import anyio

from agentsession.redis._links.link import Link

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from agentsession.redis._links.inbox import Inbox
    from agentsession.redis._links.link import Rest, Room
    from agentsession.redis._scripts import Argument, Script

__all__ = ["SeveralLinks"]


class SeveralLinks(Link):
    """Spreads calls over several links, by the user or application whose data they are about.

    A user's calls all take the same link, in their order. It helps where replies are large: on one
    connection a small reply waits behind a large one.

    Args:
        links: At least one, with one backlog; closed with this one.
        closed: Awaited after the last of them has closed.
    """

    def __init__(
        self, links: Sequence[Link], closed: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._links = list(links)
        self._when_closed = closed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._links!r}>"

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        *,
        room: Room | None = None,
        rest: Rest | None = None,
    ) -> list[Any]:
        # The hash tag of a key names the user, or the application.
        tag = keys[0].partition("{")[2].partition("}")[0]
        link = self._links[crc32(tag.encode()) % len(self._links)]
        return await link.run(script, keys, args, room=room, rest=rest)

    @property
    def inbox(self) -> Inbox:
        return self._links[0].inbox

    @property
    def layout(self) -> object:
        return [link.layout for link in self._links]

    @property
    def crowded(self) -> bool:
        return self._links[0].crowded

    async def room(self, *, in_steps: bool = False) -> Room:
        return await self._links[0].room(in_steps=in_steps)

    async def aclose(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                for link in self._links:
                    group.start_soon(link.aclose)
        finally:
            if self._when_closed is not None:
                with anyio.CancelScope(shield=True):
                    await self._when_closed()
