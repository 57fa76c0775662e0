"""Named Redis instances: configure once, use in many components."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct

from agentsession._journal import Journal
from agentsession.redis._addresses import read_url
from agentsession.redis._core.errors import NotSentError
from agentsession.redis._links.link import Link
from agentsession.redis._links.notices import new_journal
from agentsession.redis._targets.making import (
    LinkOptions,
    Target,
    check_client,
    check_options,
    link_to,
)

if TYPE_CHECKING:
    from agentsession.observers import Observer
    from agentsession.redis._links.inbox import Channels, Inbox
    from agentsession.redis._links.link import Rest, Room
    from agentsession.redis._scripts import Argument, Script

__all__ = [
    "Instance",
    "SharedLink",
    "instance_named",
    "register_redis_instance",
    "unregister_redis_instance",
]


class _Opened(Struct):
    """A link that is shared, its journal, and by how many."""

    link: Link
    journal: Journal
    users: int = 0


class Instance(Struct, frozen=True, kw_only=True):
    """What a name stands for, and the links that are open to it now.

    There is one on each event loop for all services that want the same of it.
    """

    target: Target
    client_options: Mapping[str, Any]
    opened: dict[_Place, _Opened] = {}

    def __repr__(self) -> str:
        # Not the options, which may hold a password.
        return f"<{type(self).__name__} {self.target!r}>"


_Place: TypeAlias = tuple[asyncio.AbstractEventLoop, LinkOptions]

_instances: dict[str, Instance] = {}


def register_redis_instance(
    name: str,
    *,
    url: str | None = None,
    client: Any = None,
    client_options: Mapping[str, Any] | None = None,
) -> None:
    """Give a name to a Redis server, for ``RedisSessionService(instance=name)`` in any component.

    All services of one event loop that use the name with equal options of the connection share one,
    which the last of them to close lets go. Nothing is connected before a service is used.

    Args:
        name: Not empty.
        url: The server or servers, in any form that ``RedisSessionService.from_url`` takes.
        client: Or a ``redis.asyncio.Redis`` or ``RedisCluster``, which stays open.
        client_options: What redis-py takes for a connection besides *url*, which wins.

    Raises:
        TypeError: *client* is not an asyncio client of redis-py, or *client_options* no mapping.
        ValueError: The name is empty or stands for something else already; the URL is wrong; not
            exactly one of *url* and *client* was given; or a *client* with *client_options*.
    """
    if not name:
        msg = "a Redis instance needs a name"
        raise ValueError(msg)
    if (url is None) == (client is None):
        msg = f"the Redis instance {name!r} needs either a url or a client"
        raise ValueError(msg)
    if url is None and client_options:
        msg = f"the Redis instance {name!r} is a client, which has its own client_options"
        raise ValueError(msg)
    target = client if url is None else read_url(url)
    if target is client:
        check_client(client)
    new = Instance(target=target, client_options=dict(check_options(client_options)))
    old = _instances.get(name)
    if old is None:
        _instances[name] = new
    elif (old.target, old.client_options) != (new.target, new.client_options):
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
        options: What the service wants of the link, which is made when the first one needs it.
        observers: The service's, which are told of what happens to the link until it closes.
    """

    def __init__(
        self, instance: Instance, options: LinkOptions, observers: Sequence[Observer] = ()
    ) -> None:
        self._instance = instance
        self._options = options
        self._observers = observers
        self._place: _Place | None = None
        self._closed = False

    def __repr__(self) -> str:
        opened = self._instance.opened.get(self._place) if self._place is not None else None
        return (
            f"<{type(self).__name__} {opened.link!r} users={opened.users}>"
            if opened
            else f"<{type(self).__name__} unused>"
        )

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        *,
        room: Room | None = None,
        rest: Rest | None = None,
    ) -> list[Any]:
        return await self._link().run(script, keys, args, room=room, rest=rest)

    def _link(self) -> Link:
        """Return the link on this loop; the first call opens it."""
        opened = self._instance.opened
        if self._closed:
            # The next step of a call that was under way; a link opened now would never be closed.
            msg = "the connection is closed"
            raise NotSentError(msg)
        if self._place is None:
            place = asyncio.get_running_loop(), self._options
            if place not in opened:
                journal = new_journal()
                opened[place] = _Opened(self._connect(journal), journal)
            opened[place].users += 1
            opened[place].journal.join(self, self._observers)
            self._place = place
        return opened[self._place].link

    @property
    def inbox(self) -> Inbox:
        return self._link().inbox

    @property
    def news(self) -> Channels:
        return self._link().news

    @property
    def layout(self) -> object:
        return self._link().layout

    @property
    def crowded(self) -> bool:
        return self._place is not None and self._instance.opened[self._place].link.crowded

    async def room(self, *, in_steps: bool = False) -> Room:
        return await self._link().room(in_steps=in_steps)

    def _connect(self, journal: Journal) -> Link:
        instance = self._instance
        return link_to(instance.target, instance.client_options, self._options, journal)

    async def aclose(self) -> None:
        self._closed = True
        place, self._place = self._place, None
        if place is None:
            return
        opened = self._instance.opened[place]
        opened.users -= 1
        try:
            if not opened.users:
                del self._instance.opened[place]
                await opened.link.aclose()
        finally:
            opened.journal.leave(self)
