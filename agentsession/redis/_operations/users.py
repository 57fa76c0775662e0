"""The users of an application: a list that is kept with their data, and read in pages.

On a cluster the list is in a slot of its own. There a user is put on it before anything of theirs
is made, so that whoever has anything is on it, whatever fails in between. Whoever is on it and has
nothing is not shown, and is taken out when that is noticed.

What was stored before there was a list is found by its keys, when the list is first asked for, and
when it has expired or was evicted. That is the one place that looks through a server's keys, a
thousand at a time.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from agentsession._concurrently import concurrently
from agentsession._wording import described_app
from agentsession.backend import UserSlice
from agentsession.events import new_id
from agentsession.redis._operations.replies import read_text
from agentsession.redis._scripts import load
from agentsession.redis._scripts.words import number
from agentsession.sessions import UserKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.redis._keys import Keyspace
    from agentsession.redis._operations.calls import Calls
    from agentsession.retention import Retention

__all__ = ["Users"]

_DROP: Final = load("drop_users")
_ENLIST: Final = load("enlist")
_LIST: Final = load("list_users")
_LOOK: Final = load("look_for_users")
_SCAN: Final = load("scan")

# Of those on the list some have nothing any more, so that more are read than are wanted.
_AT_LEAST: Final = 64
_AT_ONCE: Final = 500


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

    async def page(self, app_name: str, limit: int, after: str) -> UserSlice:
        """Read up to *limit* users who have anything, from after this one on."""
        _, complete, _ = await self._read(app_name, after, 1)
        if not complete:
            await self._find_all(app_name)
        found: list[str] = []
        while len(found) <= limit:
            wanted = max(limit + 1 - len(found), _AT_LEAST)
            now, _, ids = await self._read(app_name, after, wanted)
            found += await self._with_anything(app_name, ids, now)
            if len(ids) < wanted:
                break
            after = ids[-1]
        return UserSlice(found[:limit], found[limit - 1] if len(found) > limit else None)

    async def _read(self, app_name: str, after: str, limit: int) -> tuple[int, bool, list[str]]:
        """Read a run of the list; with the server's time, and whether the list is complete."""
        subject = described_app(app_name)
        words = _LIST.words(after=after, limit=number(limit))
        reply = await self._calls.run(subject, _LIST, [self._keyspace.users(app_name)], words)
        _, _, now, complete, ids = reply
        return now, bool(complete), [read_text(subject, each) for each in ids]

    # -- who comes

    async def enlist(self, user: UserKey, *, session: bool, state: bool) -> list[bytes]:
        """Put a user on the list who is about to have a session, state, or both.

        Returns:
            Some users, now and then, of whom it should be seen whether they have anything.
        """
        ttls = [self._session_ttl] * session + [self._user_ttl] * state
        return await self._enlist(user.app_name, [user.user_id], ttls[0], ttls[-1], found="")

    async def _enlist(
        self, app_name: str, ids: Sequence[str], session_ttl: str, user_ttl: str, *, found: str
    ) -> list[bytes]:
        words = _ENLIST.words(id=new_id(), session_ttl=session_ttl, user_ttl=user_ttl, found=found)
        keys = [self._keyspace.users(app_name), self._keyspace.app_calls(app_name)]
        reply = await self._calls.run(described_app(app_name), _ENLIST, keys, [*words, *ids])
        some: list[bytes] = reply[3]
        return some

    async def _find_all(self, app_name: str) -> None:
        """Find everybody by their keys, and put them on the list.

        The list is complete then, unless data may have moved between servers meanwhile: in that
        case the next one who asks looks again.
        """
        before = self._calls.layout
        ids: set[str] = set()
        for tag in self._calls.tags:
            ids |= await self._find(app_name, tag)
        certain = self._calls.layout == before
        listed = sorted(ids)
        for start in range(0, len(listed) or 1, _AT_ONCE):
            run = listed[start : start + _AT_ONCE]
            last = certain and start + _AT_ONCE >= len(listed)
            found = "all" if last else "some"
            await self._enlist(app_name, run, self._session_ttl, self._user_ttl, found=found)

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
        named = [read_text(subject, each) for each in ids if each]
        await self._with_anything(app_name, named, now)

    async def drop(self, user: UserKey) -> None:
        """Take a user off the list whose data were deleted, if nothing was made since."""
        now, _, _ = await self._read(user.app_name, "", 1)
        await self._with_anything(user.app_name, [user.user_id], now)

    async def _with_anything(self, app_name: str, ids: Sequence[str], now: int) -> list[str]:
        """Keep those users who have a session or state, and take the others off the list.

        Args:
            app_name: The application.
            ids: The users.
            now: A moment of the list's server, before this call.
        """
        if not ids:
            return []
        keys = [self._keys(app_name, each) for each in ids]
        if self._clustered:
            looks = await concurrently(self._look(app_name, [each]) for each in keys)
            there = [each for (each,) in looks]
        else:
            there = await self._look(app_name, keys)
        gone = [index for index, each in enumerate(there) if not each]
        if gone:
            beside = [] if self._clustered else [key for index in gone for key in keys[index]]
            names = [self._keyspace.users(app_name), self._keyspace.app_calls(app_name), *beside]
            words = [*_DROP.words(since=str(now)), *(ids[index] for index in gone)]
            await self._calls.run(described_app(app_name), _DROP, names, words)
        return [each for each, is_there in zip(ids, there, strict=True) if is_there]

    def _keys(self, app_name: str, user_id: str) -> tuple[str, str]:
        user = UserKey(app_name, user_id)
        return self._keyspace.index(user), self._keyspace.user(user)

    async def _look(self, app_name: str, keys: Sequence[tuple[str, str]]) -> list[Any]:
        names = [name for pair in keys for name in pair]
        reply = await self._calls.run(described_app(app_name), _LOOK, names, [])
        there: list[Any] = reply[2:]
        return there
