"""Where the servers are: the forms of URLs, read. Pure; no I/O.

==================== ==============================================================================
one server           ``redis://[user:password@]host[:6379][/db]``, ``rediss://…`` with TLS
its Unix socket      ``unix://[user:password@]/path[?db=0]``
Sentinel             ``redis+sentinel://[user:password@]host[:26379][,…]/service[/db]``,
                     ``rediss+sentinel://…`` with TLS to the servers and to the sentinels
cluster              ``redis+cluster://[user:password@]host[:6379][,…]``, ``rediss+cluster://…``
==================== ==============================================================================

Each may end in options, ``?name=value&…``, as redis-py reads them. User and password are those of
the servers; the sentinels' own are the options ``sentinel_username`` and ``sentinel_password``.
What means something in a URL is percent-encoded: ``/`` in a password is ``%2F``. An IPv6 address
stands in brackets.

redis-py has a form for one server alone. Those for several are what the libraries around it share
(LangChain, RedisVL, Prefect, docket, limits and redis-sentinel-url), rather than Celery's list of
``sentinel://`` URLs, which has no place for the service, or Lettuce's ``redis-sentinel://…#name``.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NoReturn, TypeAlias
from urllib.parse import unquote

from msgspec import Struct
from redis.asyncio.connection import parse_url

__all__ = ["Address", "Host", "described", "read_url"]

Host: TypeAlias = tuple[str, int]
"""A name or an IP address, and a port."""

_EXAMPLES: Final = {
    "server": "redis://user:password@host:6379/0",
    "sentinel": "redis+sentinel://user:password@host:26379,host2:26379/mymaster/0",
    "cluster": "redis+cluster://user:password@host:6379,host2:6379",
}
_ENCODED: Final = "Percent-encode what means something in a URL: '/' in a password is %2F."

_host_and_port = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%25\w+)?\]|[^\[\]:@\s]+)(?::([0-9]{1,5}))?")


class Address(Struct, frozen=True, kw_only=True):
    """Where the servers are, and how to introduce oneself; its repr holds no secret.

    Attributes:
        kind: What is there.
        hosts: The sentinels, or nodes of the cluster, by which the others are found.
        service: The name under which the sentinels know the servers.
        tls: Whether all connections are encrypted.
        options: What redis-py takes for a connection to a server; for one server all that it needs.
        sentinel_options: What it takes besides for a connection to a sentinel.
    """

    kind: Literal["server", "sentinel", "cluster"]
    hosts: tuple[Host, ...] = ()
    service: str = ""
    tls: bool = False
    options: dict[str, Any]
    sentinel_options: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kind} {self.service} {described(self.hosts)}>"


def described(hosts: tuple[Host, ...]) -> str:
    """Word a list of hosts as it stands in a URL."""
    return ",".join(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name, port in hosts)


def read_url(url: str) -> Address:
    """Read a URL of one of this module's forms.

    Raises:
        TypeError: It is not a string.
        ValueError: It has none of these forms; the message says why, and holds no part of it that
            could be a password.
    """
    if not isinstance(url, str):
        msg = f"a URL must be a string, not {type(url).__name__}"
        raise TypeError(msg)
    scheme, separator, rest = url.partition("://")
    match scheme.lower() if separator else "":
        case "redis" | "rediss" | "unix":
            return _read_server(url)
        case "redis+sentinel" | "rediss+sentinel" as known:
            return _read_sentinel(rest, tls=known.startswith("rediss"))
        case "redis+cluster" | "rediss+cluster" as known:
            return _read_cluster(rest, tls=known.startswith("rediss"))
        case _:
            kind = next((each for each in _EXAMPLES if each in scheme.lower()), "server")
            msg = (
                "the URL's scheme must be redis, rediss, unix, redis+sentinel, rediss+sentinel, "
                f"redis+cluster or rediss+cluster: {_EXAMPLES[kind]}"
            )
            raise ValueError(msg)


def _read_server(url: str) -> Address:
    _read_options("", url.partition("?")[2], "server")
    options, problem = _parsed(url)
    if problem:
        problem = "its host and port cannot be read; several hosts need redis+cluster:// or redis+sentinel://"
        _refuse(problem, "server")
    if "path" not in options and "db" not in options and _path(url).strip("/"):
        _refuse("the database after the host must be a number", "server")  # redis-py takes 0
    return Address(kind="server", options=options)


def _path(url: str) -> str:
    return url.partition("://")[2].partition("?")[0].partition("/")[2]


def _read_sentinel(rest: str, *, tls: bool) -> Address:
    user, hosts, path, query = _split(rest, "sentinel", 26379)
    service, _, db = path.partition("/")
    if not service:
        _refuse("it names no service", "sentinel")
    if db and not db.isdecimal():
        _refuse("the database after the service must be a number", "sentinel")
    options = _read_options(user, query, "sentinel")
    if db:
        options.setdefault("db", int(db))
    sentinel_options = {
        name: options.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in options
    }
    return Address(
        kind="sentinel",
        hosts=hosts,
        service=unquote(service),
        tls=tls,
        options=options,
        sentinel_options=sentinel_options,
    )


def _read_cluster(rest: str, *, tls: bool) -> Address:
    user, hosts, path, query = _split(rest, "cluster", 6379)
    options = _read_options(user, query, "cluster")
    if path.strip("/0") or options.pop("db", 0):
        _refuse("a cluster has no database but 0", "cluster")
    return Address(kind="cluster", hosts=hosts, tls=tls, options=options)


def _split(rest: str, kind: str, port: int) -> tuple[str, tuple[Host, ...], str, str]:
    """Take apart what stands behind the scheme: user and password, hosts, path, options.

    The standard library's urlsplit() refuses a list of hosts with an IPv6 address in it.
    """
    if "#" in rest:
        _refuse("'#' must be written %23", kind)
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    if "@" in path:
        _refuse("there is an '@' behind the first '/'", kind)
    return user + at, _read_hosts(hosts, kind, port), path, query


def _read_hosts(text: str, kind: str, default_port: int) -> tuple[Host, ...]:
    found = [_host_and_port.fullmatch(each) for each in text.split(",")]
    hosts = tuple(
        (unquote(each[1].strip("[]")), int(each[2] or default_port))
        for each in found
        if each is not None
    )
    if len(hosts) < len(found) or not all(0 < port < 1 << 16 for _, port in hosts):
        _refuse("its hosts and ports cannot be read", kind)
    return hosts


def _read_options(user: str, query: str, kind: str) -> dict[str, Any]:
    """Read user, password and options as redis-py does."""
    options, problem = _parsed(f"redis://{user}?{query}")
    if problem:
        # redis-py names an option and does not quote its value; its other words may be a password.
        named = problem.startswith("Invalid value for '")
        _refuse(problem.rstrip(".") if named else "it cannot be read", kind)
    return options


def _parsed(url: str) -> tuple[dict[str, Any], str]:
    """Read a URL as redis-py does; return its options, or none and the problem.

    It raises nothing: an error would keep what it was raised in the handling of, and that quotes
    the URL, password included.
    """
    try:
        return dict(parse_url(url)), ""
    except ValueError as exc:
        return {}, str(exc) or "it cannot be read"


def _refuse(problem: str, kind: str) -> NoReturn:
    msg = f"the URL is wrong: {problem}. Write {_EXAMPLES[kind]}. {_ENCODED}"
    raise ValueError(msg)
