"""Sentinel: connections to whichever server is the primary now.

The sentinels are asked whenever a connection is made. That is enough where a failover breaks the
connection, and not where it does not: a primary that hangs, or that the network has cut off, keeps
its clients waiting, and one that is alive on the wrong side of a partition even answers them and
will lose what they write. So the sentinels are asked now and then while a connection is open, and
when they name another primary, all connections are given up.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from agentsession.observers import PrimaryChanged
from agentsession.redis._addresses import described
from agentsession.redis._core.errors import ServerError
from agentsession.redis._links.endpoint import Endpoint, PrimaryAbsentError
from agentsession.redis._links.notices import new_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from redis.asyncio.connection import AbstractConnection

    from agentsession._journal import Journal
    from agentsession.redis._addresses import Address, Host
    from agentsession.redis._core.clock import ServerClock
    from agentsession.redis._links.connection import Connection

__all__ = ["SentinelEndpoint"]

# A failover takes the sentinels seconds, so that asking once a second adds little to it, and costs
# next to nothing.
_INTERVAL: Final = 1.0
_RETRY: Final = 0.01


class _Sentinels(Sentinel):
    """Asks the sentinels for one caller at a time.

    redis-py puts the sentinel that answered at the head of its list; where two callers do that at
    once (8.1.0), one sentinel is in the list twice, and another one is lost and never closed.
    """

    def __init__(self, hosts: Iterable[Host], options: Mapping[str, Any]) -> None:
        # redis-py has no types for this, nor for what the method below returns.
        super().__init__(hosts, sentinel_kwargs=dict(options))  # type: ignore[no-untyped-call]
        self._one_at_a_time = asyncio.Lock()

    async def discover_master(self, service_name: str) -> Any:
        async with self._one_at_a_time:
            return await super().discover_master(service_name)  # pyright: ignore[reportUnknownVariableType] - as above


class SentinelEndpoint(Endpoint):
    """Opens connections to the primary of a service.

    Args:
        settings: A connection of redis-py's, which stays unconnected.
        address: The sentinels, and the name of the service.
        sentinel_options: What redis-py takes for a connection to a sentinel.
        journal: Is told of another primary.

    Attributes:
        on_move: Called when the sentinels name another primary.
    """

    def __init__(
        self,
        settings: AbstractConnection,
        address: Address,
        sentinel_options: Mapping[str, Any],
        journal: Journal | None = None,
    ) -> None:
        super().__init__(settings, self._primary, f"the service {address.service!r}")
        self.on_move: list[Callable[[], None]] = []
        self._service = address.service
        self._where = described(address.hosts)
        self._sentinel: Any = _Sentinels(address.hosts, sentinel_options)
        self._journal = new_journal() if journal is None else journal
        self._connected_to: Host | None = None
        self._named: Host | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._service} {self._where}>"

    async def open(self, patience: float, clock: ServerClock) -> Connection:
        """Return a connection to the primary.

        Raises:
            PrimaryAbsentError: The sentinels know the service and its primary does not answer: they
                will replace it, or it is back soon.
            OSError: No sentinel answers, or none knows the service.
            ServerError: The server refuses the credentials or the database, or a sentinel does.
        """
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="agentsession-sentinel")
        self._connected_to = None
        self.server = f"the service {self._service!r}"
        try:
            return await super().open(patience, clock)
        except OSError as exc:
            if self._connected_to is None or isinstance(exc, PrimaryAbsentError):
                raise
            msg = f"the primary that the sentinels name does not answer: {exc}"
            raise PrimaryAbsentError(msg) from exc

    async def _primary(self) -> Host:
        try:
            self._connected_to = await self._sentinel.discover_master(self._service)
        except MasterNotFoundError as exc:
            raise await self._why_there_is_none() from exc
        except (AuthenticationError, AuthorizationError):
            raise
        except ResponseError as exc:
            if "unknown command" in str(exc):
                msg = f"ERR what answers at {self._where} is no sentinel ({exc})"
                raise ServerError(msg) from exc
            raise ServerError(str(exc)) from exc
        assert self._connected_to is not None  # noqa: S101 - for the type checker
        self._note(self._connected_to)
        return self._connected_to

    def _note(self, primary: Host) -> None:
        """Tell of a failover, if the sentinels name another primary than the last time."""
        was, self._named = self._named, primary
        if was is not None and was != primary:
            self._journal.note(
                PrimaryChanged(
                    service=self._service, server=described((primary,)), was=described((was,))
                )
            )

    async def aclose(self) -> None:
        """Close the connections to the sentinels."""
        watcher, self._watcher = self._watcher, None
        while watcher is not None and not watcher.done():
            # More than once, since asyncio.wait_for(), which redis-py uses, loses a cancellation
            # now and then on Python 3.11.
            watcher.cancel()
            await asyncio.wait([watcher], timeout=_RETRY)
        await self._sentinel.aclose()

    async def _why_there_is_none(self) -> Exception:
        """Tell a failover from a wrong name of the service and from wrong addresses."""
        answered = False
        for client in list(self._sentinel.sentinels):
            try:
                known = await client.sentinel_masters()
            except (AuthenticationError, AuthorizationError) as exc:
                return exc
            except RedisError:
                continue
            if self._service in known:
                return PrimaryAbsentError(f"the service {self._service!r} has no primary just now")
            answered = True
        if answered:
            msg = f"the sentinels at {self._where} know no service {self._service!r}"
            return RedisConnectionError(msg)
        return RedisConnectionError(f"no sentinel answers at {self._where}")

    async def _watch(self) -> None:
        """Watch the sentinels, and call ``on_move`` when the primary is another one."""
        known = None
        while True:
            # redis-py lets raw errors out (its issue 4287), and sentinels come and go.
            with suppress(Exception):
                current = await self._sentinel.discover_master(self._service)
                self._note(current)
                # What was found when a connection was made is not enough: one may be made anew
                # while another stays where it was.
                others = {known, self._connected_to} - {None, current}
                known = current
                if others:
                    for move in self.on_move:
                        move()
            await asyncio.sleep(_INTERVAL)
