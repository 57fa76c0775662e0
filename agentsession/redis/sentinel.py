"""Sentinel: connections to whichever server is the primary now.

redis-py asks the sentinels whenever it connects. That is enough where a failover breaks the
connection, and not where it does not: a primary that hangs, or that the network has cut off, keeps
its clients waiting, and one that is alive on the wrong side of a partition even answers them and
will lose what they write. So the sentinels are asked now and then while a connection is open, and
when they name another primary, all connections are given up.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from agentsession.redis.addresses import described

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agentsession.redis.addresses import Address, Host

__all__ = ["SentinelPool"]

# A failover takes the sentinels seconds, so that asking once a second adds little to it, and costs
# next to nothing.
_INTERVAL: Final = 1.0


class _Sentinels(Sentinel):
    """Asks the sentinels for one caller at a time.

    redis-py puts the sentinel that answered at the head of its list; where two callers do that at
    once (8.1.0), one sentinel is in the list twice, and another one is lost and never closed.
    """

    def __init__(self, hosts: Iterable[Host], options: Mapping[str, Any]) -> None:
        # redis-py has no types for this.
        super().__init__(hosts, sentinel_kwargs=dict(options))  # type: ignore[no-untyped-call]
        self._one_at_a_time = asyncio.Lock()

    async def discover_master(self, service_name: str) -> Any:
        async with self._one_at_a_time:
            return await super().discover_master(service_name)  # pyright: ignore[reportUnknownVariableType]


class SentinelPool:
    """A :class:`~agentsession.redis.wire.Pool` of connections to the primary of a service.

    Args:
        address: The sentinels, and the name of the service.
        options: What redis-py takes for a connection to a server.
        sentinel_options: What it takes for one to a sentinel.
    """

    def __init__(
        self, address: Address, options: Mapping[str, Any], sentinel_options: Mapping[str, Any]
    ) -> None:
        self._service = address.service
        self._where = described(address.hosts)
        self._sentinel: Any = _Sentinels(address.hosts, sentinel_options)
        self._pool: Any = SentinelConnectionPool(  # type: ignore[no-untyped-call]
            address.service, self._sentinel, **options
        )
        self._watcher: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._service} {self._where}>"

    async def get_connection(self) -> Any:
        """Return a connection to the primary.

        Raises:
            redis.exceptions.BusyLoadingError: The sentinels know the service and its primary does
                not answer: they will replace it, or it is back soon.
            redis.exceptions.ConnectionError: No sentinel answers, or none knows the service.
            redis.exceptions.ResponseError: A sentinel refuses.
        """
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="agentsession-sentinel")
        try:
            return await self._pool.get_connection()
        except (AuthenticationError, AuthorizationError, BusyLoadingError):
            raise
        except MasterNotFoundError as exc:
            raise await self._why_there_is_none() from exc
        except ResponseError as exc:
            if "unknown command" not in str(exc):
                raise
            msg = f"what answers at {self._where} is no sentinel ({exc})"
            raise ResponseError(msg) from exc
        except (RedisConnectionError, RedisTimeoutError) as exc:
            msg = f"the primary that the sentinels name does not answer: {exc}"
            raise BusyLoadingError(msg) from exc

    async def release(self, connection: Any) -> None:
        """Take a connection back."""
        await self._pool.release(connection)

    async def aclose(self) -> None:
        """Close all connections, to the sentinels too."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        try:
            await self._pool.aclose()
        finally:
            await self._sentinel.aclose()

    async def _why_there_is_none(self) -> RedisError:
        """Tell a service that is failing over from a wrong name and from wrong addresses."""
        answered = False
        for client in list(self._sentinel.sentinels):
            try:
                known = await client.sentinel_masters()
            except (AuthenticationError, AuthorizationError) as exc:
                return exc
            except RedisError:
                continue
            if self._service in known:
                return BusyLoadingError(f"the service {self._service!r} has no primary just now")
            answered = True
        if answered:
            msg = f"the sentinels at {self._where} know no service {self._service!r}"
            return RedisConnectionError(msg)
        return RedisConnectionError(f"no sentinel answers at {self._where}")

    async def _watch(self) -> None:
        """Give up all connections, also those being made, when the primary is another one."""
        known = None
        while True:
            # redis-py lets raw errors out (its issue 4287), and sentinels come and go.
            with suppress(Exception):
                current = await self._sentinel.discover_master(self._service)
                # What redis-py noted when it connected is not enough: one connection may be made
                # anew while another stays where it was.
                others = {known, self._pool.master_address} - {None, current}
                known = current
                if others:
                    await self._pool.disconnect()
            await asyncio.sleep(_INTERVAL)
