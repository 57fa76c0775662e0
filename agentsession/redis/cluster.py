"""A cluster, through redis-py's own client, which knows the slots and follows their moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
from redis.exceptions import NoScriptError

from agentsession.redis.link import Argument, Link, NoReplyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio.cluster import RedisCluster

    from agentsession.redis.scripts import Script

__all__ = ["ClusterLink"]


class ClusterLink(Link):
    """A :class:`~agentsession.redis.link.Link` to a cluster.

    Each call runs in a task of its own: redis-py's client drops a connection when its caller is
    cancelled, and here a cancelled caller abandons the task and nothing else.

    Args:
        client: A client for the cluster; it stays open.
        timeout: Seconds that a call may take, retries included.
    """

    spans_slots = False

    def __init__(self, client: RedisCluster, *, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._calls: set[asyncio.Task[list[Any]]] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in_flight={len(self._calls)}>"

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> list[Any]:
        call = asyncio.create_task(self._call(script, keys, args))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await asyncio.shield(call)

    async def _call(
        self, script: Script, keys: Sequence[str], args: Sequence[Argument]
    ) -> list[Any]:
        try:
            async with asyncio.timeout(self._timeout):
                reply: list[Any]
                words = (len(keys), *keys, *args)
                try:
                    reply = await self._client.execute_command("EVALSHA", script.sha, *words)
                except NoScriptError:
                    reply = await self._client.execute_command("EVAL", script.text, *words)
                return reply
        except TimeoutError:
            msg = "no reply in time"
            raise NoReplyError(msg) from None

    async def aclose(self) -> None:
        if self._calls:
            with anyio.move_on_after(self._timeout):
                await asyncio.wait(self._calls)
        for call in self._calls:
            call.cancel()
