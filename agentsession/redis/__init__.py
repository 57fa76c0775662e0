"""Sessions on Redis 6.2 or newer, or Valkey: for production, and any number of processes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import redis.asyncio
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from agentsession.redis.backend import RedisBackend
from agentsession.redis.cluster import ClusterBackend, ClusterLink
from agentsession.redis.connection import MultiplexedLink, Pool
from agentsession.redis.instances import (
    Instance,
    SharedLink,
    instance_named,
    register_redis_instance,
    unregister_redis_instance,
)
from agentsession.redis.spread import SpreadLink
from agentsession.retention import (
    DEFAULT_EVENT_LIMIT,
    DEFAULT_READ_SIZE,
    MEBIBYTE,
    Duration,
    Retention,
    positive,
    seconds,
)
from agentsession.service import SessionService

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentsession.redis.link import Link

__all__ = ["RedisSessionService", "register_redis_instance", "unregister_redis_instance"]

_DEFAULT_TIMEOUT = 10.0


class RedisSessionService(SessionService):
    """Sessions on Redis 6.2 or newer, or Valkey: for production, and any number of processes.

    Give exactly one of *client*, *url* and *instance*; where both *url* and *instance* are given,
    the URL wins. Nothing is connected before the first call. All calls share one connection,
    pipelined; a cancelled caller abandons its reply and nothing else, and a lost connection is
    replaced.

    Args:
        client: A ``redis.asyncio.Redis`` or ``redis.asyncio.RedisCluster`` of yours; it is never
            closed here. One connection of its pool is held while the service is open.
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads it.
        instance: A name given to :func:`register_redis_instance`.
        key_prefix: Stands in front of every key, as it is: ``"prod:"``. Deployments with different
            prefixes share a database without meeting.
        client_options: What redis-py's connection pool takes besides the URL: ``{"ssl_ca_certs":
            ...}``.
        timeout: Seconds (or a timedelta) that an operation may take, with all retries, before it
            fails.
        session_event_limit: The most events a session keeps, 1 or more; the oldest leave first.
            ``None`` for no limit.
        session_ttl: Seconds (or a timedelta) that a session lives after the last write to it;
            ``None`` or 0 for ever.
        app_state_ttl: The same for an application's state.
        user_state_ttl: The same for a user's state.
        refresh_ttl_on_read: Whether reading moves expiry as well.
        max_event_size: The largest encoded event, in bytes.
        max_value_size: The largest encoded state value, in bytes.
        max_read_size: The most events that one read returns, in encoded bytes in all; ``None`` for
            any amount.

    Raises:
        TypeError: An option has the wrong type; *client* is not an asyncio client of redis-py.
        ValueError: An option is out of its range; no server was named, or more than one.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | RedisCluster | None = None,
        *,
        url: str | None = None,
        instance: str | None = None,
        key_prefix: str = "",
        client_options: Mapping[str, Any] | None = None,
        timeout: Duration = _DEFAULT_TIMEOUT,
        connections: int = 1,
        session_event_limit: int | None = DEFAULT_EVENT_LIMIT,
        session_ttl: Duration = None,
        app_state_ttl: Duration = None,
        user_state_ttl: Duration = None,
        refresh_ttl_on_read: bool = False,
        max_event_size: int = MEBIBYTE,
        max_value_size: int = MEBIBYTE,
        max_read_size: int | None = DEFAULT_READ_SIZE,
    ) -> None:
        retention = Retention.of(
            session_event_limit=session_event_limit,
            session_ttl=session_ttl,
            app_state_ttl=app_state_ttl,
            user_state_ttl=user_state_ttl,
            refresh_ttl_on_read=refresh_ttl_on_read,
        )
        deadline = seconds("timeout", timeout)
        if deadline is None:
            msg = "timeout must be more than 0; without one a hung server would hang its callers"
            raise ValueError(msg)
        positive("connections", connections)
        if client is not None and (url is not None or instance is not None):
            msg = "give a client, or a url, or an instance; not a client and another"
            raise ValueError(msg)
        link: Link
        if client is not None:
            link = _link_to_client(client, deadline, connections)
        elif url is not None:
            link = _link_to_url(url, client_options or {}, deadline, connections)
        elif instance is not None:
            named = instance_named(instance)
            client = named.client
            link = SharedLink(named, lambda: _link_to_instance(named, deadline, connections))
        else:
            msg = 'no server; try RedisSessionService.from_url("redis://localhost:6379/0")'
            raise ValueError(msg)
        kind = ClusterBackend if isinstance(client, RedisCluster) else RedisBackend
        backend = kind(retention, link, key_prefix=key_prefix)
        super().__init__(
            backend,
            max_event_size=max_event_size,
            max_value_size=max_value_size,
            max_read_size=max_read_size,
        )

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        key_prefix: str = "",
        client_options: Mapping[str, Any] | None = None,
        timeout: Duration = _DEFAULT_TIMEOUT,
        connections: int = 1,
        session_event_limit: int | None = DEFAULT_EVENT_LIMIT,
        session_ttl: Duration = None,
        app_state_ttl: Duration = None,
        user_state_ttl: Duration = None,
        refresh_ttl_on_read: bool = False,
        max_event_size: int = MEBIBYTE,
        max_value_size: int = MEBIBYTE,
        max_read_size: int | None = DEFAULT_READ_SIZE,
    ) -> Self:
        """Make a service on the server at *url*, with a connection of its own.

        The options are those of the class.

        Raises:
            TypeError: An option has the wrong type.
            ValueError: The URL is none that redis-py knows, or an option is out of its range.
        """
        return cls(
            url=url,
            key_prefix=key_prefix,
            client_options=client_options,
            timeout=timeout,
            connections=connections,
            session_event_limit=session_event_limit,
            session_ttl=session_ttl,
            app_state_ttl=app_state_ttl,
            user_state_ttl=user_state_ttl,
            refresh_ttl_on_read=refresh_ttl_on_read,
            max_event_size=max_event_size,
            max_value_size=max_value_size,
            max_read_size=max_read_size,
        )


def _link_to_client(
    client: redis.asyncio.Redis | RedisCluster, timeout: float, connections: int
) -> Link:
    if isinstance(client, RedisCluster):
        return ClusterLink(client, timeout=timeout)
    if isinstance(client, redis.asyncio.Redis):
        return _link_to_pool(client.connection_pool, timeout, connections, owned=False)
    if isinstance(client, str):
        msg = "a URL goes to RedisSessionService.from_url(url), or to url="
        raise TypeError(msg)
    kind = f"{type(client).__module__}.{type(client).__qualname__}"
    msg = f"the client must be a redis.asyncio.Redis or redis.asyncio.RedisCluster, not {kind}"
    raise TypeError(msg)


def _link_to_url(url: str, options: Mapping[str, Any], timeout: float, connections: int) -> Link:
    settings: dict[str, Any] = {
        # Deadlines and retries are the link's; redis-py's own depend on how a client was
        # constructed, and its retries would wait in the way of ours.
        "socket_timeout": None,
        "socket_connect_timeout": min(timeout, 5.0),
        "retry": Retry(NoBackoff(), 0),
        **options,
    }
    if not isinstance(url, str):
        msg = f"a URL must be a string, not {type(url).__name__}"
        raise TypeError(msg)
    # Its text quotes what it took for a port, which may be the rest of a password.
    with suppress(ValueError):
        # redis-py types no options of from_url.
        pool = redis.asyncio.ConnectionPool.from_url(url, **settings)  # pyright: ignore[reportUnknownMemberType]
        return _link_to_pool(pool, timeout, connections, owned=True)
    msg = (
        "the URL cannot be read; its scheme must be redis, rediss or unix, as in "
        "redis://user:password@host:6379/0, and what means something in a URL must be "
        "percent-encoded: '/' in a password is %2F"
    )
    raise ValueError(msg)


def _link_to_pool(pool: Pool, timeout: float, connections: int, *, owned: bool) -> Link:
    links = [MultiplexedLink(pool, owned=owned, timeout=timeout) for _ in range(connections)]
    return links[0] if connections == 1 else SpreadLink(links)


def _link_to_instance(instance: Instance, timeout: float, connections: int) -> Link:
    if instance.url is None:
        return _link_to_client(instance.client, timeout, connections)
    return _link_to_url(instance.url, instance.client_options, timeout, connections)
