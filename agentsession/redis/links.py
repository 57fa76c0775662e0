"""How a client, or a URL, becomes a link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import redis.asyncio
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from agentsession.redis.addresses import Address
from agentsession.redis.cluster_link import ClusterLink
from agentsession.redis.connection import MultiplexedLink, Pool
from agentsession.redis.sentinel import SentinelPool
from agentsession.redis.spread import SpreadLink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentsession.redis.link import Link

__all__ = ["Client", "Target", "check_client", "is_cluster", "link_to"]

Client: TypeAlias = redis.asyncio.Redis | RedisCluster
"""A client that a user made, and closes."""

Target: TypeAlias = Client | Address
"""What a link can lead to."""


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


def link_to(
    target: Target, options: Mapping[str, Any], *, timeout: float, connections: int
) -> Link:
    """Make a link; it connects when it is first used.

    Args:
        target: A client, which stays open, or an address.
        options: What redis-py takes besides what the address says, which wins.
        timeout: Seconds that a call may take.
        connections: How many connections to spread calls over; a cluster's client has its own.

    Raises:
        ValueError: redis-py does not take an option.
    """
    if isinstance(target, RedisCluster):
        return ClusterLink(target, owned=False, timeout=timeout)
    if isinstance(target, redis.asyncio.Redis):
        return _spread(target.connection_pool, timeout, connections, owned=False)
    if target.kind == "cluster":
        return ClusterLink(_cluster(target, options, timeout), owned=True, timeout=timeout)
    if target.kind == "sentinel":
        return _spread(_sentinel(target, options, timeout), timeout, connections, owned=True)
    return _spread(_server(target, options, timeout), timeout, connections, owned=True)


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


def _spread(pool: Pool, timeout: float, connections: int, *, owned: bool) -> Link:
    links = [MultiplexedLink(pool, owned=owned, timeout=timeout) for _ in range(connections)]
    return links[0] if connections == 1 else SpreadLink(links)


def _server(address: Address, options: Mapping[str, Any], timeout: float) -> Pool:
    settings: dict[str, Any] = {"socket_connect_timeout": min(timeout, 5.0), **options}
    return redis.asyncio.ConnectionPool(**(_defaults() | settings | address.options))


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
    try:
        return RedisCluster(**(_defaults() | settings))
    except TypeError as exc:
        msg = f"redis-py's cluster client takes no such option: {exc}"
        raise ValueError(msg) from exc
