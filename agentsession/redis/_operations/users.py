"""The users of an application: a list that is kept with their data, and read in pages.

On a cluster the list is in a slot of its own. There a user is put on it before anything of theirs
is made, so that whoever has anything is on it, whatever fails in between. Whoever is on it and has
nothing is not shown, and is taken off when that is noticed.

What was stored before there was a list is found by its keys, when the list is first asked for.
That a list is complete is taken for granted for an hour at most, and only as long as the list is
there: then everybody is looked for again, since a failover or an eviction may have cost some of it.
That is the one place that looks through a server's keys, a thousand at a time.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final

from agentsession._concurrently import concurrently
from agentsession._wording import described_app
from agentsession.backend import UserSlice
from agentsession.errors import AgentSessionError, BackendUnavailableError
from agentsession.events import new_id
from agentsession.redis._operations.nodes import Nodes, nodes_of
from agentsession.redis._operations.replies import read_text
from agentsession.redis._scripts import load
from agentsession.redis._scripts.words import number
from agentsession.sessions import UserKey

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from agentsession.redis._keys import Keyspace
    from agentsession.redis._links.link import Rest
    from agentsession.redis._operations.calls import Calls
    from agentsession.retention import Retention

__all__ = ["Users"]

_DROP: Final = load("drop_users")
_ENLIST: Final = load("enlist")
_FOUND: Final = load("found_users")
_LIST: Final = load("list_users")
_LOOK: Final = load("look_for_users")
_SCAN: Final = load("scan")

# Where those on the list have nothing any more, each round reads more of them, up to so many.
_MORE: Final = 8
_MOST: Final = 500
_AT_ONCE: Final = 500
_THE_ONLY_NODE: Final = Nodes(("",), (), settled=True)
# So often everybody is looked for, before a list that does not become complete is an error.
_TRIES: Final = 3
_INCOMPLETE: Final = (
    "the list of users does not become complete while a slot is on its way between nodes of the "
    "cluster; ask again when it has moved"
)


class Users:
    """Keeps and reads the list of users.

    Args:
        calls: Runs the scripts.
        keyspace: Names the keys.
        retention: How long their data are kept.
        clustered: Whether the list is in another slot than the users' data.
    """

    def __init__(
        self, calls: Calls, keyspace: Keyspace, retention: Retention, *, clustered: bool
    ) -> None:
        self._calls = calls
        self._keyspace = keyspace
        self._clustered = clustered
        self._session_ttl = number(retention.session_ttl)
        self._user_ttl = number(retention.user_state_ttl)
        # Of each application whose users are being looked for.
        self._looking: dict[str, asyncio.Lock] = {}

    async def page(self, app_name: str, limit: int, after: str) -> UserSlice:
        """Read up to *limit* users who have anything, from after this one on."""
        found: list[str] = []
        at, tries, least = after, 0, 1
        while len(found) <= limit:
            wanted = max(limit + 1 - len(found), least)
            least = min(least * _MORE, _MOST)
            now, complete, ids = await self._read(app_name, at, wanted)
            if not complete:
                tries += 1
                if tries > _TRIES:
                    raise BackendUnavailableError(described_app(app_name), _INCOMPLETE)
                await self._find_all(app_name)
                found, at = [], after
                continue
            found += await self._with_anything(app_name, ids, now)
            if len(ids) < wanted:
                break
            at = ids[-1]
        return UserSlice(found[:limit], found[limit - 1] if len(found) > limit else None)

    async def _read(self, app_name: str, after: str, limit: int) -> tuple[int, bool, list[str]]:
        """Read a run of the list; with the server's time, and whether the list is complete."""
        subject = described_app(app_name)
        words = _LIST.words(after=after, limit=number(limit))
        reply = await self._calls.run(subject, _LIST, self._keys(app_name), words)
        _, _, now, complete, ids = reply
        return now, bool(complete), [read_text(subject, each) for each in ids]

    def _keys(self, app_name: str) -> list[str]:
        return [self._keyspace.users(app_name), self._keyspace.app_calls(app_name)]

    # -- who comes

    async def enlist(
        self, user: UserKey, *, session: bool, state: bool, rest: Rest | None
    ) -> list[bytes]:
        """Put a user on the list who is about to have a session, state, or both.

        Args:
            user: The user.
            session: Whether it is a session.
            state: Whether it is state.
            rest: What is to follow the call.

        Returns:
            Some users, now and then, of whom it should be seen whether they have anything.
        """
        ttls = [self._session_ttl] * session + [self._user_ttl] * state
        words = _ENLIST.words(id=new_id(), session_ttl=ttls[0], user_ttl=ttls[-1])
        keys = self._keys(user.app_name)
        reply = await self._calls.run(user, _ENLIST, keys, [*words, user.user_id], rest)
        some: list[bytes] = reply[3]
        return some

    # -- who was there before

    async def _find_all(self, app_name: str) -> None:
        """Find everybody by their keys, and put them on the list.

        The list is complete then, unless data may have moved between servers meanwhile.
        """
        looking = self._looking.setdefault(app_name, asyncio.Lock())
        try:
            async with looking:
                _, complete, _ = await self._read(app_name, "", 1)
                if not complete:  # Nobody else has looked while this one waited.
                    await self._look_everywhere(app_name)
        finally:
            if not looking.locked():
                self._looking.pop(app_name, None)

    async def _look_everywhere(self, app_name: str) -> None:
        layout, nodes = self._calls.layout, await self._nodes(app_name)
        ids: set[str] = set()
        for tag in nodes.tags:
            ids |= await self._find(app_name, tag)
        certain = nodes.settled and nodes == await self._nodes(app_name)
        certain = certain and self._calls.layout == layout
        found = list(ids)
        for start in range(0, len(found) or 1, _AT_ONCE):
            last = certain and start + _AT_ONCE >= len(found)
            words = _FOUND.words(id=new_id(), count=number(len(found)) if last else "")
            run = found[start : start + _AT_ONCE]
            keys = self._keys(app_name)
            await self._calls.run(described_app(app_name), _FOUND, keys, [*words, *run])

    async def _nodes(self, app_name: str) -> Nodes:
        if not self._clustered:
            return _THE_ONLY_NODE
        return await nodes_of(self._calls, self._keyspace, described_app(app_name))

    async def _find(self, app_name: str, tag: str) -> set[str]:
        """Find users on the server that a key with this hash tag leads to."""
        subject = described_app(app_name)
        near, pattern = self._keyspace.near(tag), self._keyspace.of_users(app_name)
        ids: set[str] = set()
        cursor = "0"
        while True:
            words = _SCAN.words(cursor=cursor, pattern=pattern)
            _, _, following, names = await self._calls.run(subject, _SCAN, [near], words)
            for name in names:
                with suppress(UnicodeDecodeError):  # It is somebody else's.
                    user_id = self._keyspace.user_of(app_name, name.decode())
                    if user_id:
                        ids.add(user_id)
            cursor = following.decode()
            if cursor == "0":
                return ids

    # -- who goes

    async def look_after(self, app_name: str, ids: Sequence[bytes]) -> None:
        """Take those of these users off the list who have nothing any more."""
        subject = described_app(app_name)
        now, _, _ = await self._read(app_name, "", 1)
        await self._with_anything(app_name, [read_text(subject, each) for each in ids], now)

    async def drop(self, user: UserKey, *, erased: bool = False) -> None:
        """Take a user off the list who has nothing any more.

        Args:
            user: The user.
            erased: Whether it is to be done though something of theirs may be on its way: then that
                is on the list within an hour again.
        """
        now, _, _ = await self._read(user.app_name, "", 1)
        await self._with_anything(user.app_name, [user.user_id], None if erased else now)

    async def _with_anything(self, app_name: str, ids: Sequence[str], now: int | None) -> list[str]:
        """Keep those users who have a session or state, and take the others off the list.

        Args:
            app_name: The application.
            ids: The users.
            now: A moment of the list's server, before this call; ``None`` for those who were
                erased.
        """
        pairs = {each: self._keys_of(UserKey(app_name, each)) for each in ids}
        there = await self._there(app_name, pairs)
        gone = [each for each in ids if each not in there]
        if gone:
            beside = [] if self._clustered else [key for each in gone for key in pairs[each]]
            words = [*_DROP.words(id=new_id(), since=number(now)), *gone]
            keys = [*self._keys(app_name), *beside]
            # Whoever has nothing is not shown in any case; whom one erases is to be off the list.
            with nullcontext() if now is None else suppress(AgentSessionError):
                await self._calls.run(described_app(app_name), _DROP, keys, words)
        return [each for each in ids if each in there]

    def _keys_of(self, user: UserKey) -> tuple[str, str]:
        return self._keyspace.index(user), self._keyspace.user(user)

    async def _there(self, app_name: str, pairs: dict[str, tuple[str, str]]) -> Collection[str]:
        """Tell which users have either of their keys."""
        if not self._clustered:
            found = await self._look(app_name, [key for pair in pairs.values() for key in pair])
            either = zip(found[::2], found[1::2], strict=True)
            return {each for each, any_of in zip(pairs, either, strict=True) if any(any_of)}
        # One key a call: of two, one may be on its way to another node, and the other absent.
        there: set[str] = set()
        for which in range(2):
            missing = [each for each in pairs if each not in there]
            looks = await concurrently(
                self._look(app_name, [pairs[each][which]]) for each in missing
            )
            there |= {each for each, (found,) in zip(missing, looks, strict=True) if found}
        return there

    async def _look(self, app_name: str, keys: Sequence[str]) -> list[Any]:
        if not keys:
            return []
        reply = await self._calls.run(described_app(app_name), _LOOK, keys, [])
        there: list[Any] = reply[2:]
        return there
