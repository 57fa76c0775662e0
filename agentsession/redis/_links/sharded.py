"""Where a process is told of what happens to the slots of a cluster, by the nodes that own them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from agentsession.redis._core.slots import slot_of
from agentsession.redis._links.inbox import Channels, Line

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsession.redis._addresses import Host
    from agentsession.redis._core.errors import ServerError
    from agentsession.redis._links.endpoint import Endpoint

__all__ = ["ShardedInbox"]


class ShardedInbox(Channels):
    """Channels that are each in a slot, with one connection to each node that owns any of these.

    Args:
        owner: Tells which node owns a slot, as far as is known.
        endpoint: Says how to connect to a node.
        timeout: Seconds that connecting may take.
        read_the_map: Has the owners looked up soon, and :meth:`rearrange` called then.
    """

    def __init__(
        self,
        owner: Callable[[int], Host | None],
        endpoint: Callable[[Host], Endpoint],
        timeout: float,
        read_the_map: Callable[[], None],
    ) -> None:
        super().__init__()
        self._owner = owner
        self._endpoint = endpoint
        self._timeout = timeout
        self._read_the_map = read_the_map
        self._lines: dict[Host, Line] = {}
        # Channels that no node is known to tell of.
        self._homeless: set[bytes] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        is_open = sum(line.is_open for line in self._lines.values())
        return f"<{type(self).__name__} open={is_open} listeners={self.listeners}>"

    @property
    def has_homeless(self) -> bool:
        """Whether there are channels for which the owner has to be looked up."""
        return bool(self._homeless)

    def rearrange(self) -> None:
        """Have each channel told of by the node that owns its slot now."""
        if self._closed:
            return
        homeless, self._homeless = self._homeless, set()
        for host, line in [*self._lines.items()]:
            for channel in [*line.subscribed]:
                if self._owner(_slot(channel)) != host:
                    line.remove(channel)
                    homeless.add(channel)
        for channel in homeless:
            self._place(channel)
        for host, line in [*self._lines.items()]:
            if not line.subscribed:
                self._let_go(self._lines.pop(host))

    async def aclose(self) -> None:
        """Close the connections."""
        self._closed = True
        while self._lines:
            self._let_go(self._lines.popitem()[1])
        if self._closing:
            await asyncio.wait([*self._closing])

    def _let_go(self, line: Line) -> None:
        task = asyncio.create_task(line.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _add(self, channel: bytes) -> None:
        if not self._closed:
            self._place(channel)
            if self._homeless:
                self._read_the_map()

    def _remove(self, channel: bytes) -> None:
        self._homeless.discard(channel)
        for line in self._lines.values():
            if channel in line.subscribed:
                line.remove(channel)

    def _place(self, channel: bytes) -> None:
        host = self._owner(_slot(channel))
        if host is None:
            self._homeless.add(channel)
            return
        line = self._lines.get(host)
        if line is None:
            line = self._lines[host] = Line(
                partial(self._endpoint, host),
                self._timeout,
                self,
                sharded=True,
                on_failure=self._read_the_map,
            )
        line.add(channel)

    def on_refused(self, line: Line, channel: bytes | None, error: ServerError | None) -> None:
        """Look up who owns a slot that a node does not own, or not any more."""
        if channel is not None:
            lost = {channel}
        elif error is not None and error.code == "MOVED":
            slot = int(str(error).split(" ")[1])
            lost = {each for each in line.subscribed if _slot(each) == slot}
        elif error is not None and error.code == "CLUSTERDOWN":
            lost = line.subscribed.copy()
        else:
            return
        line.subscribed -= lost
        self._homeless |= lost
        self._read_the_map()


def _slot(channel: bytes) -> int:
    return slot_of(channel.decode())
