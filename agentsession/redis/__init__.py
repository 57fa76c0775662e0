"""Sessions on Redis 6.2 or newer, or Valkey: for production, and any number of processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

# Before all others, which would fail in words that say less.
from agentsession.redis import _driver  # noqa: F401  # pyright: ignore[reportUnusedImport]

# isort: split
from agentsession._service.arguments import check_observers
from agentsession.redis._addresses import read_url
from agentsession.redis._backend import RedisBackend
from agentsession.redis._cluster import ClusterBackend
from agentsession.redis._core.acknowledgement import Acknowledgement
from agentsession.redis._links.notices import new_journal
from agentsession.redis._targets.instances import (
    SharedLink,
    instance_named,
    register_redis_instance,
    unregister_redis_instance,
)
from agentsession.redis._targets.making import (
    LinkOptions,
    Target,
    check_client,
    check_options,
    is_cluster,
    link_to,
)
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
    from collections.abc import Mapping, Sequence

    import redis.asyncio
    from redis.asyncio.cluster import RedisCluster

    from agentsession.observers import Observer
    from agentsession.redis._links.link import Link

__all__ = ["RedisSessionService", "register_redis_instance", "unregister_redis_instance"]

_DEFAULT_TIMEOUT = 10.0


class RedisSessionService(SessionService):
    """Sessions on Redis 6.2 or newer, or Valkey: for production, and any number of processes.

    Give one of *client*, *url* and *instance*; if both *url* and *instance* are given, the URL is
    used. Nothing is connected before the first call. All calls share one pipelined connection to
    the server, or to each node of a cluster. A call that is cancelled does not disturb the others.
    A connection is replaced when it is lost, and also when a reply is due and no byte has come or
    gone for a quarter of *timeout*. While 10,000 calls, or 64 MiB of them, are in progress, further
    calls wait, for up to *timeout*, before they encode what they write.

    Args:
        client: A ``redis.asyncio.Redis`` or ``redis.asyncio.RedisCluster`` of yours, which gives
            its address, credentials, TLS, database and name. Its connections are not used, and it
            is never closed here.
        url: The server or servers, in a form that :meth:`from_url` takes.
        instance: A name given to :func:`~agentsession.redis.register_redis_instance`.
        key_prefix: A text that every key begins with, such as ``"prod:"``. Deployments with
            different prefixes can share a database.
        client_options: What redis-py takes for a connection besides *url*, which wins:
            ``{"ssl_ca_certs": ...}``. Not for a *client* or an *instance*, which have their own.
        timeout: How long each round trip of an operation may take, retries included, in seconds (or
            a timedelta), before it fails. A write never takes effect later than that.
        connections: How many connections the users are spread over, 1 or more. A cluster ignores
            it: there is one to each node.
        ack_replicas: A write returns when this many replicas have it too (``WAIT``), 0 or more.
        ack_fsync: A write returns when it is on disk (``WAITAOF``, which needs Redis 7.2 or Valkey,
            and ``appendonly yes``), on the server and on the replicas of *ack_replicas*.
        session_event_limit: How many events a session keeps, 1 or more; beyond that the oldest are
            dropped. ``None`` for no limit.
        session_ttl: Seconds (or a timedelta) that a session lives after the last write to it;
            ``None`` or 0 for ever.
        app_state_ttl: The same for an application's state.
        user_state_ttl: The same for a user's state.
        refresh_ttl_on_read: Whether reading extends the life of what is read, as writing does. It
            never shortens it, and what never expires stays so.
        max_event_size: The largest encoded event, in bytes.
        max_value_size: The largest encoded state value, in bytes.
        max_read_size: How much one read may return, in bytes of encoded events in all; ``None`` for
            any amount.
        observers: Objects that are told of each operation and of what happens on connections; see
            :mod:`agentsession.observers`.

    Raises:
        TypeError: An option has the wrong type; *client* is not an asyncio client of redis-py, or
            has a ``connection_class`` of your own or a ``redis_connect_func``, which would do
            nothing here (a ``credential_provider`` works).
        ValueError: An option is out of its range, or none that redis-py takes; the URL is wrong; no
            server was named, or more than one.
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
        ack_replicas: int = 0,
        ack_fsync: bool = False,
        session_event_limit: int | None = DEFAULT_EVENT_LIMIT,
        session_ttl: Duration = None,
        app_state_ttl: Duration = None,
        user_state_ttl: Duration = None,
        refresh_ttl_on_read: bool = False,
        max_event_size: int = MEBIBYTE,
        max_value_size: int = MEBIBYTE,
        max_read_size: int | None = DEFAULT_READ_SIZE,
        observers: Sequence[Observer] = (),
    ) -> None:
        retention = Retention.of(
            session_event_limit=session_event_limit,
            session_ttl=session_ttl,
            app_state_ttl=app_state_ttl,
            user_state_ttl=user_state_ttl,
            refresh_ttl_on_read=refresh_ttl_on_read,
        )
        target: Target
        deadline = seconds("timeout", timeout)
        if deadline is None:
            msg = "timeout must be more than 0; without one a hung server would hang its callers"
            raise ValueError(msg)
        if client is not None and (url is not None or instance is not None):
            msg = "give a client, or a url, or an instance; not a client and another"
            raise ValueError(msg)
        if client_options and url is None:
            msg = "client_options go with a url; a client, or an instance, has its own"
            raise ValueError(msg)
        options = LinkOptions(
            timeout=deadline,
            connections=positive("connections", connections),
            acknowledgement=Acknowledgement.of(ack_replicas=ack_replicas, ack_fsync=ack_fsync),
        )
        observers = check_observers(observers)
        journal = new_journal(observers)
        link: Link
        if client is not None:
            check_client(client)
            target, link = client, link_to(client, {}, options, journal)
        elif url is not None:
            target = read_url(url)
            link = link_to(target, check_options(client_options), options, journal)
        elif instance is not None:
            named = instance_named(instance)
            target, link = named.target, SharedLink(named, options, observers)
        else:
            msg = 'no server; try RedisSessionService.from_url("redis://localhost:6379/0")'
            raise ValueError(msg)
        kind = ClusterBackend if is_cluster(target) else RedisBackend
        backend = kind(retention, link, key_prefix=key_prefix)
        super().__init__(
            backend,
            max_event_size=max_event_size,
            max_value_size=max_value_size,
            max_read_size=max_read_size,
            observers=observers,
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
        ack_replicas: int = 0,
        ack_fsync: bool = False,
        session_event_limit: int | None = DEFAULT_EVENT_LIMIT,
        session_ttl: Duration = None,
        app_state_ttl: Duration = None,
        user_state_ttl: Duration = None,
        refresh_ttl_on_read: bool = False,
        max_event_size: int = MEBIBYTE,
        max_value_size: int = MEBIBYTE,
        max_read_size: int | None = DEFAULT_READ_SIZE,
        observers: Sequence[Observer] = (),
    ) -> Self:
        """Make a service on the server or servers at *url*, with connections of its own.

        The forms of *url*, each with ``rediss`` for TLS where it says ``redis``:

        - ``redis://user:password@host:6379/0``, or ``unix:///path/of/the/socket?db=0``
        - ``redis+sentinel://user:password@host:26379,host2:26379/mymaster/0``: whichever server is
          the primary of the service ``mymaster``, found by the sentinels. Their own user and
          password, if they have any, are ``?sentinel_username=…&sentinel_password=…``.
        - ``redis+cluster://user:password@host:6379,host2:6379``: a cluster, found by any of these
          nodes.

        What redis-py takes for a connection may follow as ``?name=value&…``. IPv6 addresses stand
        in brackets; special characters of a password are percent-encoded. The other options are
        those of the class.

        Raises:
            TypeError: An option has the wrong type, or is a ``redis_connect_func``.
            ValueError: The URL has none of these forms; an option is out of its range, or none that
                redis-py takes.
        """
        return cls(
            url=url,
            key_prefix=key_prefix,
            client_options=client_options,
            timeout=timeout,
            connections=connections,
            ack_replicas=ack_replicas,
            ack_fsync=ack_fsync,
            session_event_limit=session_event_limit,
            session_ttl=session_ttl,
            app_state_ttl=app_state_ttl,
            user_state_ttl=user_state_ttl,
            refresh_ttl_on_read=refresh_ttl_on_read,
            max_event_size=max_event_size,
            max_value_size=max_value_size,
            max_read_size=max_read_size,
            observers=observers,
        )
