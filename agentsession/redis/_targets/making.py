"""How a client, or a URL, becomes a link."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import redis.asyncio
from msgspec import Struct
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from agentsession.redis._addresses import Address
from agentsession.redis._core.acknowledgement import SERVER_MEMORY, Acknowledgement
from agentsession.redis._links.backlog import Backlog
from agentsession.redis._links.cluster import ClusterLink
from agentsession.redis._links.endpoint import Endpoint
from agentsession.redis._links.notices import new_journal
from agentsession.redis._links.sentinel import SentinelEndpoint
from agentsession.redis._links.server import ServerLink
from agentsession.redis._links.several import SeveralLinks

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsession._journal import Journal
    from agentsession.redis._links.link import Link

__all__ = [
    "Client",
    "LinkOptions",
    "Target",
    "check_client",
    "check_options",
    "is_cluster",
    "link_to",
]

_T = TypeVar("_T")

# What redis-py would choose by how a client is constructed, and what its other uses of a connection
# (to ask a sentinel) must not do in the way of ours.
_DEFAULTS: Final[dict[str, Any]] = {
    "socket_timeout": None,
    "retry": Retry(NoBackoff(), 0),
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
}

Client: TypeAlias = redis.asyncio.Redis | RedisCluster
"""A client that a user made, and closes."""

Target: TypeAlias = Client | Address
"""What a link can lead to."""


class LinkOptions(Struct, frozen=True, kw_only=True):
    """What a service wants of its link.

    Attributes:
        timeout: Seconds that a call may take, retries included.
        connections: How many connections to spread calls over; to a cluster there is one a node.
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
    msg = (
        f"the client must be a redis.asyncio.Redis or redis.asyncio.RedisCluster, not {kind}; "
        "or give the URL: RedisSessionService.from_url(url)"
    )
    raise TypeError(msg)


def check_options(client_options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what redis-py is to take for a connection.

    Raises:
        TypeError: It is no mapping. It is not quoted, since it may hold a password.
    """
    if client_options is None:
        return {}
    if isinstance(client_options, Mapping):
        return client_options
    msg = (
        "client_options must be a dict of what redis-py takes for a connection, such as "
        f"{{'ssl_ca_certs': 'ca.pem'}}, not {type(client_options).__qualname__}"
    )
    raise TypeError(msg)


def is_cluster(target: Target) -> bool:
    """Tell whether keys are spread over nodes there."""
    if isinstance(target, Address):
        return target.kind == "cluster"
    return isinstance(target, RedisCluster)


def link_to(
    target: Target,
    settings: Mapping[str, Any],
    options: LinkOptions,
    journal: Journal | None = None,
) -> Link:
    """Make a link; it connects when it is first used.

    Args:
        target: A client, whose settings are taken and whose connections are not, or an address.
        settings: What redis-py takes besides what the address says, which wins.
        options: What the link is to do.
        journal: Is told of what happens to its connections; without it they are only logged.

    Raises:
        TypeError: The client opens its connections in a way of its own.
        ValueError: redis-py does not take an option.
    """
    journal = new_journal() if journal is None else journal
    if isinstance(target, RedisCluster):
        return _to_cluster(target, options, journal)
    if isinstance(target, redis.asyncio.Redis):
        return _to_server(_endpoint_of(target.connection_pool), options, journal)
    match target.kind:
        case "server":
            return _to_server(_endpoint_of(_pool(target, settings)), options, journal)
        case "sentinel":
            endpoint = _sentinel(target, settings, options.timeout, journal)
            return _to_server(endpoint, options, journal)
        case "cluster":
            return _to_cluster(_cluster(target, settings, options.timeout), options, journal)


def _to_server(endpoint: Endpoint, options: LinkOptions, journal: Journal) -> Link:
    backlog = Backlog()
    alone = options.connections == 1
    sentinel = endpoint if isinstance(endpoint, SentinelEndpoint) else None
    closed = None if sentinel is None else sentinel.aclose
    links = [
        ServerLink(
            endpoint,
            timeout=options.timeout,
            acknowledgement=options.acknowledgement,
            backlog=backlog,
            closed=closed if alone else None,
            journal=journal,
        )
        for _ in range(options.connections)
    ]
    if sentinel is not None:
        sentinel.on_move += [link.reconnect for link in links]
    return links[0] if alone else SeveralLinks(links, closed)


def _to_cluster(client: RedisCluster, options: LinkOptions, journal: Journal) -> Link:
    """Take from a cluster's client where its nodes are and how to connect; it is never used."""
    nodes = [*client.startup_nodes, *client.get_nodes()]
    hosts = list(dict.fromkeys((str(node.host), int(node.port)) for node in nodes))
    kind, settings = nodes[0].connection_class, nodes[0].connection_kwargs
    return ClusterLink(
        Endpoint(kind(**settings)),
        hosts,
        timeout=options.timeout,
        acknowledgement=options.acknowledgement,
        journal=journal,
    )


def _endpoint_of(pool: redis.asyncio.ConnectionPool) -> Endpoint:
    settings = pool.connection_class(**pool.connection_kwargs)
    if isinstance(pool, SentinelConnectionPool):
        return Endpoint(settings, pool.get_master_address)
    return Endpoint(settings)


def _pool(address: Address, options: Mapping[str, Any]) -> redis.asyncio.ConnectionPool:
    pool = _taken(
        lambda: redis.asyncio.ConnectionPool(**(_DEFAULTS | dict(options) | address.options)),
        options,
    )
    # A pool checks no options; without this the first call would report a wrong one.
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


def _sentinel(
    address: Address, options: Mapping[str, Any], timeout: float, journal: Journal
) -> SentinelEndpoint:
    """Make an endpoint that leaves time for a failover within the deadline of a call."""
    given = {**options, **address.options}
    settings: dict[str, Any] = _DEFAULTS | {
        "socket_connect_timeout": min(timeout / 4, 5.0),
        **given,
    }
    # The sentinels are asked one after the other until one answers, all before the time is up that
    # a connection may take.
    patience = min(timeout / 10, 1.0, timeout / 4 / (len(address.hosts) + 1))
    sentinel_settings = {
        **_DEFAULTS,
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        # A certificate of a private authority is one for the sentinels too.
        **{name: value for name, value in given.items() if name.startswith("ssl_")},
        **address.sentinel_options,
        **({"ssl": True} if address.tls else {}),
    }
    kind = SSLConnection if address.tls else Connection
    connection = _taken(lambda: kind(**settings), options)
    return SentinelEndpoint(connection, address, sentinel_settings, journal)


def _cluster(address: Address, options: Mapping[str, Any], timeout: float) -> RedisCluster:
    """Make a cluster's client, which reads the options and is never connected."""
    settings: dict[str, Any] = {
        "socket_connect_timeout": min(timeout / 4, 5.0),
        "startup_nodes": [ClusterNode(name, port) for name, port in address.hosts],
        **options,
        **address.options,
        **({"ssl": True} if address.tls else {}),
    }
    return _taken(lambda: RedisCluster(**(_DEFAULTS | settings)), options)
