"""Sessions on Redis 6.2 or newer, or Valkey: for production, and any number of processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from agentsession.redis._addresses import read_url
from agentsession.redis._backend import RedisBackend
from agentsession.redis._cluster import ClusterBackend
from agentsession.redis._links.acknowledgement import Acknowledgement
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
    from collections.abc import Mapping

    import redis.asyncio
    from redis.asyncio.cluster import RedisCluster

    from agentsession.redis._links.link import Link

__all__ = ["RedisSessionService", "register_redis_instance", "unregister_redis_instance"]

_DEFAULT_TIMEOUT = 10.0


class RedisSessionService(SessionService):
    """Sessions on Redis 6.2 or newer, or Valkey: for production, and any number of processes.

    Give exactly one of *client*, *url* and *instance*; where both *url* and *instance* are given,
    the URL wins. Nothing is connected before the first call. All calls share one connection to the
    server, or to each node of a cluster, pipelined. A cancelled caller abandons its reply and
    nothing else. A connection is replaced when it is lost, or owes a reply and nothing flows for a
    quarter of *timeout*. When 10,000 calls or 64 MiB are under way, further callers wait, within
    *timeout*, before what they write is encoded.

    Args:
        client: A ``redis.asyncio.Redis`` or ``redis.asyncio.RedisCluster`` of yours, which gives
            its address, credentials, TLS, database and name. Its connections are not used, and it
            is never closed here.
        url: The server or servers, in a form that :meth:`from_url` takes.
        instance: A name given to :func:`~agentsession.redis.register_redis_instance`.
        key_prefix: Stands in front of every key, as it is: ``"prod:"``. Deployments with different
            prefixes share a database without meeting.
        client_options: What redis-py takes for a connection besides *url*, which wins:
            ``{"ssl_ca_certs": ...}``. Not for a *client* or an *instance*, which have their own.
        timeout: Seconds (or a timedelta) that each round trip of an operation may take, with all
            retries, before it fails. No copy of a write has an effect later than that.
        connections: How many connections to spread users over, 1 or more; a cluster has one to each
            node, whatever this is.
        ack_replicas: A write returns when so many replicas have it too (``WAIT``), 0 or more.
        ack_fsync: A write returns when it is on disk (``WAITAOF``, which needs Redis 7.2 or Valkey,
            and ``appendonly yes``), on the server and on the replicas of *ack_replicas*.
        session_event_limit: The most events a session keeps, 1 or more; the oldest leave first.
            ``None`` for no limit.
        session_ttl: Seconds (or a timedelta) that a session lives after the last write to it;
            ``None`` or 0 for ever.
        app_state_ttl: The same for an application's state.
        user_state_ttl: The same for a user's state.
        refresh_ttl_on_read: Whether reading moves expiry as well, ahead only: what has none gets
            none.
        max_event_size: The largest encoded event, in bytes.
        max_value_size: The largest encoded state value, in bytes.
        max_read_size: The most events that one read returns, in encoded bytes in all; ``None`` for
            any amount.

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
        link: Link
        if client is not None:
            check_client(client)
            target, link = client, link_to(client, {}, options)
        elif url is not None:
            target = read_url(url)
            link = link_to(target, client_options or {}, options)
        elif instance is not None:
            named = instance_named(instance)
            target, link = named.target, SharedLink(named, options)
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
        )
