"""How a client, or a URL, becomes a link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import redis.asyncio
from msgspec import Struct
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from agentsession.redis.acknowledgement import SERVER_MEMORY, Acknowledgement
from agentsession.redis.addresses import Address
from agentsession.redis.cluster_link import ClusterLink
from agentsession.redis.connection import MultiplexedLink
from agentsession.redis.sentinel import SentinelPool
from agentsession.redis.spread import SpreadLink

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentsession.redis.link import Link
    from agentsession.redis.wire import Pool

__all__ = ["Client", "LinkOptions", "Target", "check_client", "is_cluster", "link_to"]

_T = TypeVar("_T")

Client: TypeAlias = redis.asyncio.Redis | RedisCluster
"""A client that a user made, and closes."""

Target: TypeAlias = Client | Address
"""What a link can lead to."""


class LinkOptions(Struct, frozen=True, kw_only=True):
    """What a service wants of its link.

    Attributes:
        timeout: Seconds that a call may take, retries included.
        connections: How many connections to spread calls over; a cluster's client has its own.
        acknowledgement: How far a write must have got before its call returns.
    """

    timeout: float
    connections: int = 1
    acknowledgement: Acknowledgement = SERVER_MEMORY


def check_client(client: object) -> None:
    """Refuse what is no asyncio client of redis-py.

    Raises:
        TypeError: The message says what to pass instead.
    """
    if isinstance(client, redis.asyncio.Redis | RedisCluster):
        return
    if isinstance(client, str):
        msg = "a URL goes to RedisSessionService.from_url(url), or to url="
        raise TypeError(msg)
    kind = f"{type(client).__module__}.{type(client).__qualname__}"
    msg = f"the client must be a redis.asyncio.Redis or redis.asyncio.RedisCluster, not {kind}"
    raise TypeError(msg)


def is_cluster(target: Target) -> bool:
    """Tell whether keys are spread over nodes there."""
    if isinstance(target, Address):
        return target.kind == "cluster"
    return isinstance(target, RedisCluster)


def link_to(target: Target, settings: Mapping[str, Any], options: LinkOptions) -> Link:
    """Make a link; it connects when it is first used.

    Args:
        target: A client, which stays open, or an address.
        settings: What redis-py takes besides what the address says, which wins.
        options: What the link is to do.

    Raises:
        ValueError: redis-py does not take an option.
    """
    owned = isinstance(target, Address)
    timeout, acknowledgement = options.timeout, options.acknowledgement
    source = _source(target, settings, timeout)
    if isinstance(source, RedisCluster):
        return ClusterLink(source, owned=owned, timeout=timeout, acknowledgement=acknowledgement)
    alone = options.connections == 1
    links = [
        MultiplexedLink(
            source, owned=owned and alone, timeout=timeout, acknowledgement=acknowledgement
        )
        for _ in range(options.connections)
    ]
    return links[0] if alone else SpreadLink(links, source if owned else None)


def _source(target: Target, settings: Mapping[str, Any], timeout: float) -> Pool | RedisCluster:
    """Find where connections come from."""
    if isinstance(target, RedisCluster):
        return target
    if isinstance(target, redis.asyncio.Redis):
        return target.connection_pool
    match target.kind:
        case "server":
            return _server(target, settings, timeout)
        case "sentinel":
            return _sentinel(target, settings, timeout)
        case "cluster":
            return _cluster(target, settings, timeout)


def _defaults() -> dict[str, Any]:
    """Name what redis-py would choose by how a client is constructed."""
    return {
        # Deadlines and retries are the link's; redis-py's retries would wait in the way of ours.
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        # While these are on, redis-py 8.1 does not notice a reply that nobody read (its issues 4252
        # and 4260), and they cost a round trip for each connection.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _server(address: Address, options: Mapping[str, Any], timeout: float) -> Pool:
    settings: dict[str, Any] = {"socket_connect_timeout": min(timeout, 5.0), **options}
    pool = _taken(
        lambda: redis.asyncio.ConnectionPool(**(_defaults() | settings | address.options)), options
    )
    # The pool looks at nothing; the first call would tell of an unreachable server.
    _taken(lambda: pool.connection_class(**pool.connection_kwargs), options)
    return pool


def _taken(make: Callable[[], _T], options: Mapping[str, Any]) -> _T:
    """Make something of redis-py's, and refuse what it does not take.

    Of the URL nothing is quoted: what looks like an option's name may be a part of a password. Nor
    would an error raised below ``except`` do, which keeps the one that it was raised in.
    """
    try:
        return make()
    except Exception as exc:  # noqa: BLE001 - a string where redis-py wants an object raises anything
        problem = str(exc) or repr(exc)
    quoted = any(f"'{name}'" in problem for name in options)
    where = problem if quoted else "see what stands behind the '?' of the URL"
    msg = f"redis-py's connections take no such option: {where}"
    raise ValueError(msg)


def _sentinel(address: Address, options: Mapping[str, Any], timeout: float) -> SentinelPool:
    """Make a pool that leaves time for a failover within the deadline of a call."""
    tls = {"ssl": True} if address.tls else {}
    given = {**options, **address.options}
    settings = {"socket_connect_timeout": min(timeout / 4, 5.0), **given, **tls}
    # The sentinels are asked one after the other until one answers.
    patience = min(timeout / 10, 1.0)
    sentinel_settings = {
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        # A certificate of a private authority is one for the sentinels too.
        **{name: value for name, value in given.items() if name.startswith("ssl_")},
        **address.sentinel_options,
        **tls,
    }
    return SentinelPool(address, _defaults() | settings, _defaults() | sentinel_settings)


def _cluster(address: Address, options: Mapping[str, Any], timeout: float) -> RedisCluster:
    """Make a cluster's client; which retries its link makes, and waits for, is the link's."""
    settings: dict[str, Any] = {
        "startup_nodes": [ClusterNode(name, port) for name, port in address.hosts],
        # A node that hangs is found out in time to ask the one that takes its place, twice.
        "socket_timeout": timeout / 5,
        "socket_connect_timeout": min(timeout / 4, 5.0),
        # Each answer MOVED corrects the map of the slots; redis-py's default is to close all
        # connections every fifth time, also those on which others wait.
        "reinitialize_steps": 0,
        **options,
        **address.options,
        **({"ssl": True} if address.tls else {}),
    }
    return _taken(lambda: RedisCluster(**(_defaults() | settings)), options)
