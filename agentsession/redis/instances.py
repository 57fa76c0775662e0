"""Named Redis instances: configure once, use in many components."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from agentsession.redis.link import Argument, Link

if TYPE_CHECKING:
    from agentsession.redis.scripts import Script

__all__ = [
    "Instance",
    "SharedLink",
    "instance_named",
    "register_redis_instance",
    "unregister_redis_instance",
]


class _Opened(Struct):
    """A link that is shared on one event loop, and by how many."""

    link: Link
    users: int = 0


class Instance(Struct, frozen=True, kw_only=True):
    """What a name stands for, and the links that are open to it now: one on each event loop."""

    url: str | None
    client: Any
    client_options: Mapping[str, Any]
    opened: dict[asyncio.AbstractEventLoop, _Opened] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # The URL and the options may hold a password.


_instances: dict[str, Instance] = {}


def register_redis_instance(
    name: str,
    *,
    url: str | None = None,
    client: Any = None,
    client_options: Mapping[str, Any] | None = None,
) -> None:
    """Give a name to a Redis server, for ``RedisSessionService(instance=name)`` in any component.

    All services of one event loop that use the name share one connection, which the last of them to
    close lets go. Nothing is connected before a service is used.

    Args:
        name: Not empty.
        url: The server, ``redis://``, ``rediss://`` or ``unix://``.
        client: Or a ``redis.asyncio.Redis`` or ``RedisCluster``, which stays open.
        client_options: What redis-py's connection pool takes besides the URL.

    Raises:
        ValueError: The name is empty or stands for something else already; or not exactly one of
            *url* and *client* was given.
    """
    if not name:
        msg = "a Redis instance needs a name"
        raise ValueError(msg)
    if (url is None) == (client is None):
        msg = f"the Redis instance {name!r} needs either a url or a client"
        raise ValueError(msg)
    new = Instance(url=url, client=client, client_options=dict(client_options or {}))
    old = _instances.get(name)
    if old is None:
        _instances[name] = new
    elif (old.url, old.client, old.client_options) != (new.url, new.client, new.client_options):
        msg = (
            f"the Redis instance {name!r} is registered with other settings; "
            "call unregister_redis_instance() first"
        )
        raise ValueError(msg)


def unregister_redis_instance(name: str) -> None:
    """Forget a name; services that use it go on. An unknown name is no error."""
    _instances.pop(name, None)


def instance_named(name: str) -> Instance:
    """Look a name up.

    Raises:
        ValueError: It was never registered.
    """
    try:
        return _instances[name]
    except KeyError:
        known = ", ".join(map(repr, sorted(_instances))) or "none"
        msg = (
            f"no Redis instance named {name!r}; registered: {known}. "
            "Call register_redis_instance() first"
        )
        raise ValueError(msg) from None


class SharedLink(Link):
    """One service's part of a link that a named instance shares.

    Args:
        instance: The instance.
        connect: Makes the link when the first service of a loop needs it.
    """

    def __init__(self, instance: Instance, connect: Callable[[], Link]) -> None:
        self._instance = instance
        self._connect = connect
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        opened = self._instance.opened.get(self._loop) if self._loop is not None else None
        return (
            f"<{type(self).__name__} {opened.link!r} users={opened.users}>"
            if opened
            else f"<{type(self).__name__} unused>"
        )

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> list[Any]:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._instance.opened.setdefault(self._loop, _Opened(self._connect())).users += 1
        return await self._instance.opened[self._loop].link.run(script, keys, args)

    async def aclose(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None:
            return
        opened = self._instance.opened[loop]
        opened.users -= 1
        if not opened.users:
            del self._instance.opened[loop]
            await opened.link.aclose()
