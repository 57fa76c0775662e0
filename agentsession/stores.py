"""A service by the URL of its store, so that a program's store is one line of its environment."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict
from urllib.parse import unquote

from agentsession.memory import InMemorySessionService

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Unpack

    from agentsession.clock import Clock
    from agentsession.observers import Observer
    from agentsession.retention import Duration
    from agentsession.service import SessionService

__all__ = ["SCHEMES", "ServiceOptions", "open_service"]


class ServiceOptions(TypedDict, total=False):
    """The options of all stores; each is described by the class that takes it.

    Attributes:
        session_event_limit: Of every store, as are those up to ``observers``.
        session_ttl: See above.
        app_state_ttl: See above.
        user_state_ttl: See above.
        refresh_ttl_on_read: See above.
        max_event_size: See above.
        max_value_size: See above.
        max_read_size: See above.
        observers: See above.
        cleanup_interval: Of memory and :class:`~agentsession.SQLiteSessionService`, as is
            ``clock``.
        clock: See above.
        timeout: Of :class:`~agentsession.RedisSessionService` and SQLite.
        synchronous: Of :class:`~agentsession.SQLiteSessionService` alone.
        key_prefix: Of :class:`~agentsession.RedisSessionService` alone, as are those that follow.
        client_options: See above.
        connections: See above.
        ack_replicas: See above.
        ack_fsync: See above.
    """

    session_event_limit: int | None
    session_ttl: Duration
    app_state_ttl: Duration
    user_state_ttl: Duration
    refresh_ttl_on_read: bool
    max_event_size: int
    max_value_size: int
    max_read_size: int | None
    observers: Sequence[Observer]
    cleanup_interval: Duration
    clock: Clock
    timeout: Duration
    synchronous: Literal["full", "normal"]
    key_prefix: str
    client_options: Mapping[str, Any] | None
    connections: int
    ack_replicas: int
    ack_fsync: bool


def open_service(url: str, **options: Unpack[ServiceOptions]) -> SessionService:
    """Make the service of the store at *url*; close it with ``aclose``, or use ``async with``.

    Nothing is connected before the first call.

    Args:
        url: ``memory://`` for this process's memory; ``sqlite:///sessions.db`` for a file in the
            present folder, and ``sqlite:////var/lib/bot/sessions.db``, with four slashes, for one
            by its whole path, in which ``%20`` may stand for a space, and so on; or a URL in a form
            that :meth:`RedisSessionService.from_url
            <agentsession.RedisSessionService.from_url>` takes.
        **options: Options of the service. An option that only another kind of store has is ignored,
            so that the same call works with ``memory://`` in a test and ``redis://`` in production.

    Raises:
        TypeError: An option has the wrong type, or no store has it.
        ValueError: No store has such a URL; an option is out of its range.
    """
    if not isinstance(url, str):
        advice = "; is the environment variable set that it comes from?" if url is None else ""
        msg = f"the URL of a store must be a str, not {type(url).__qualname__}: {url!r:.80}{advice}"
        raise TypeError(msg)
    for name in options:
        if name not in ServiceOptions.__annotations__:
            raise TypeError(_no_option(name))
    scheme = url.partition("://")[0].lower()
    make = _STORES.get(scheme)
    if make is None or "://" not in url:
        msg = (
            f"no store has a URL like this; it must begin with one of {', '.join(_FORMS)}, "
            "as in redis://localhost:6379/0 or sqlite:///sessions.db"
        )
        raise ValueError(msg)
    return make(url, options)


def _no_option(name: str) -> str:
    near = difflib.get_close_matches(name, ServiceOptions.__annotations__, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_OPTIONS)}"
    return f"no store has an option {name!r}; {advice}"


def _taken(by: Callable[..., SessionService], options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the options that another store has."""
    names = inspect.signature(by).parameters
    return {name: value for name, value in options.items() if name in names}


def _in_memory(url: str, options: Mapping[str, Any]) -> SessionService:
    if url.partition("://")[2].strip("/"):
        msg = "the URL of this process's memory is memory:// and nothing more"
        raise ValueError(msg)
    return InMemorySessionService(**_taken(InMemorySessionService, options))


def _in_a_file(url: str, options: Mapping[str, Any]) -> SessionService:
    # sqlite3 is not part of every Python.
    from agentsession.sqlite import SQLiteSessionService  # noqa: PLC0415

    host, _, path = url.partition("://")[2].partition("/")
    problem = ""
    if host:
        problem = "a file has no host: three slashes stand before its path"
    elif not path:
        problem = "the path is missing"
    elif "?" in path or "#" in path:
        problem = (
            "it has no part after a ? or #: options are arguments of open_service(), and in the "
            "name of a file they are %3F and %23"
        )
    if problem:
        msg = (
            "the URL of a file is sqlite:/// and its path, as in sqlite:///sessions.db, or "
            f"sqlite:////var/lib/bot/sessions.db for a whole path; {problem}"
        )
        raise ValueError(msg)
    path = unquote(path, errors="surrogateescape")
    return SQLiteSessionService(path, **_taken(SQLiteSessionService, options))


def _on_redis(url: str, options: Mapping[str, Any]) -> SessionService:
    # redis-py takes longer to import than all the rest, and programs in memory never need it.
    from agentsession.redis import RedisSessionService  # noqa: PLC0415

    return RedisSessionService.from_url(url, **_taken(RedisSessionService.from_url, options))


_OPTIONS: Final = tuple(ServiceOptions.__annotations__)
_STORES: Final[Mapping[str, Callable[[str, Mapping[str, Any]], SessionService]]] = {
    "memory": _in_memory,
    "sqlite": _in_a_file,
    "redis": _on_redis,
    "rediss": _on_redis,
    "unix": _on_redis,
    "redis+sentinel": _on_redis,
    "rediss+sentinel": _on_redis,
    "redis+cluster": _on_redis,
    "rediss+cluster": _on_redis,
}
SCHEMES: Final = tuple(_STORES)
"""What the URL of a store may begin with."""

_FORMS: Final = tuple(f"{scheme}://" for scheme in SCHEMES)
