"""Several connections to one server, where one is not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

import anyio

from agentsession.redis.link import Argument, Link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.redis.scripts import Script
    from agentsession.redis.wire import Pool

__all__ = ["SpreadLink"]


class SpreadLink(Link):
    """Spreads calls over links by whose data they are about.

    A user's calls all take the same link, in their order. It helps where replies are large: on one
    connection a small reply waits behind a large one.

    Args:
        links: At least one; closed with this one.
        pool: What the links share, if it is to be closed in the end: not before the last of them,
            on which replies may be under way.
    """

    def __init__(self, links: Sequence[Link], pool: Pool | None = None) -> None:
        self._links = list(links)
        self._pool = pool

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._links!r}>"

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> list[Any]:
        # The hash tag of a key names the user, or the application.
        tag = keys[0].partition("{")[2].partition("}")[0]
        link = self._links[crc32(tag.encode()) % len(self._links)]
        return await link.run(script, keys, args)

    async def aclose(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                for link in self._links:
                    group.start_soon(link.aclose)
        finally:
            if self._pool is not None:
                with anyio.CancelScope(shield=True):
                    await self._pool.aclose()
