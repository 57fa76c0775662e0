"""Keys of tRPC-Agent-Go, in both of its layouts.

====================================================== ====== ====================================
key                                                    type   holds
====================================================== ====== ====================================
``appstate:{app}``                                     hash   state, of both layouts
``userstate:{app}:user``                               hash   state
``sess:{app}:user``                                    hash   sessions of a user, with their state
``event:{app}:user:session``                           zset   events, by nanoseconds
``hashidx:userstate:app:{user}``                       hash   state
``hashidx:meta:app:{user}:session``                    string a session, with its state
``hashidx:evtdata:app:{user}:session``                 hash   events, by id
``hashidx:evtidx:time:app:{user}:session``             zset   ids of events, by nanoseconds
``hashidx:sessidx:app:{user}``                         hash   ids of sessions, for its lists
====================================================== ====== ====================================

A prefix and a colon may stand before all of them. The framework itself looks for a session in the
newer layout, ``hashidx``, first; one that is there hides one of the same id in the older layout.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from agentsession._wording import brief, described
from agentsession.sessions import SessionKey, UserKey
from agentsession.transfer.importers._account import UNREADABLE, decoded
from agentsession.transfer.importers._found import AppFound, SessionFound, UserFound
from agentsession.transfer.importers._redis import connected, literal
from agentsession.transfer.importers._sources.trpc_agent_go_events import (
    event_of,
    moment_of,
    nanoseconds_of,
    state_of,
    value_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
    from datetime import datetime

    from agentsession.events import Event
    from agentsession.transfer.importers._account import Account
    from agentsession.transfer.importers._found import Sessions
    from agentsession.transfer.importers._redis import Keys, Server

__all__ = ["in_redis"]

# What the families of keys hold that are not imported.
_OTHERS: Final = {
    "sesssum": "summaries of sessions",
    "track": "tracks of sessions",
    "trkdata": "tracks of sessions",
    "trkidx:time": "indexes of tracks",
}
# Where one of these is followed by more, an application's name begins; and ``sessidx``, which is
# there to list sessions, tells nothing that they do not tell themselves.
_KNOWN: Final = frozenset({"meta", "evtdata", "userstate", "sessidx"})
# So many events are asked for in one call.
_PAGE: Final = 200


async def in_redis(
    account: Account, server: Server, app_name: str, *, key_prefix: str, json_state: bool
) -> Sessions:
    """Yield what a server holds of an application.

    Args:
        account: Counts.
        server: The server.
        app_name: The application.
        key_prefix: With what its keys begin, without the colon behind it.
        json_state: Whether values of state that are JSON are read as such.
    """
    read = partial(value_of, is_json=json_state)
    async with connected(server) as keys:
        names = _Names(app_name, key_prefix)
        state = {name: read(value) async for name, value in keys.fields(names.app_state)}
        if state:
            account.note_expiry(await keys.time_to_live(names.app_state))
            yield AppFound(app_name, state)
        for layout in (_Newer(account, keys, names, read), _Older(account, keys, names, read)):
            async for found in layout.found():
                yield found


class _Names:
    """The keys of an application.

    Args:
        app_name: The application.
        prefix: With what they begin.
    """

    def __init__(self, app_name: str, prefix: str) -> None:
        self.app_name = app_name
        self.prefix = f"{prefix}:" if prefix else ""
        self.app_state = f"{self.prefix}appstate:{{{app_name}}}"

    def newer(self, family: str, user_id: str, session_id: str = "") -> str:
        """Return a key of the newer layout."""
        ending = f":{session_id}" if session_id else ""
        return f"{self.prefix}hashidx:{family}:{self.app_name}:{{{user_id}}}{ending}"

    def older(self, family: str, user_id: str, session_id: str = "") -> str:
        """Return a key of the older layout."""
        ending = f":{session_id}" if session_id else ""
        return f"{self.prefix}{family}:{{{self.app_name}}}:{user_id}{ending}"


class _Layout:
    """What both layouts have in common.

    Args:
        account: Counts.
        keys: Those of the server.
        names: Those of the application.
        read: Makes a value of state of its bytes.
    """

    def __init__(
        self, account: Account, keys: Keys, names: _Names, read: Callable[[bytes], Any]
    ) -> None:
        self._account = account
        self._keys = keys
        self._names = names
        self._read = read

    def _session(
        self, key: SessionKey, data: bytes, events: AsyncGenerator[Event, None]
    ) -> SessionFound:
        """Read a session.

        Raises:
            ValueError: It is none.
        """
        told = decoded(data)
        state = state_of(told.get("state"), self._read)
        return SessionFound(
            key=key, events=events, state=state, created_at=_created_at(told.get("createdAt"))
        )

    async def _events(
        self, key: SessionKey, payloads: AsyncIterator[tuple[str, bytes]]
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of a session, each id once."""
        seen: set[str] = set()
        async for place, data in payloads:
            try:
                told = decoded(data)
                if told.get("is_partial"):
                    self._account.note_unmapped("chunks of a stream", place, key)
                    continue
                event, lost = event_of(told, self._read)
            except UNREADABLE as exc:
                self._account.leave_out(place, exc, key)
                continue
            for kind in lost:
                self._account.note_unmapped(kind, place, key)
            if event.id in seen:
                self._account.note_unmapped("events under the id of an earlier one", place, key)
                continue
            seen.add(event.id)
            yield event

    async def _user(self, user_id: str, hashes: list[str]) -> UserFound | None:
        """Read a user's state from hashes, of which those that come first win."""
        try:
            user = UserKey(self._names.app_name, user_id)
        except UNREADABLE as exc:
            self._account.leave_out(f"key {brief(hashes[0])}", exc)
            return None
        state: dict[str, Any] = {}
        for each in hashes:
            self._account.note_expiry(await self._keys.time_to_live(each))
            async for name, value in self._keys.fields(each):
                if state.setdefault(name, self._read(value)) != self._read(value):
                    what = "values of state that are others in the older layout"
                    self._account.note_unmapped(what, brief(name), user)
        return UserFound(user, state)

    def _note_other(self, family: str, key: str) -> None:
        """Name a key that is not imported."""
        kind = _OTHERS.get(family, f"keys of the kind {brief(family)}")
        self._account.note_unmapped(kind, f"key {brief(key)}")


class _Newer(_Layout):
    """Sessions of the newer layout, and the state of their users."""

    async def found(self) -> Sessions:
        """Yield users and sessions."""
        start = f"{self._names.prefix}hashidx:"
        middle = f":{self._names.app_name}:{{"
        pattern = re.compile(
            f"{re.escape(start)}([a-z_-]+(?::[a-z_-]+)?){re.escape(middle)}(.*)", re.DOTALL
        )
        async for key in self._keys.scan(f"{literal(start)}*{literal(middle)}*"):
            found = pattern.fullmatch(key)
            if found is None:
                continue  # Of another application, whose name ends with the name of this one.
            family, rest = found[1], found[2]
            if family == "userstate":
                user_id = rest.removesuffix("}")
                if user := await self._user(user_id, await self._hashes(key, user_id)):
                    yield user
            elif family == "meta":
                if session := await self._found_session(key):
                    yield session
            elif family in ("evtdata", "evtidx:time"):
                await self._look_for_owner(key, rest)
            elif family.partition(":")[0] not in _KNOWN:
                self._note_other(family, key)

    async def _hashes(self, key: str, user_id: str) -> list[str]:
        """Return the hashes that hold a user's state, of which the newer one wins."""
        older = self._names.older("userstate", user_id)
        return [key, *([older] if await self._keys.exists(older) else [])]

    async def _look_for_owner(self, key: str, rest: str) -> None:
        """Name the events of a session that is gone; its ids may hold what stands between them."""
        for found in re.finditer("}:", rest):
            user_id, session_id = rest[: found.start()], rest[found.end() :]
            if await self._keys.exists(self._names.newer("meta", user_id, session_id)):
                return
        self._account.note_unmapped("events of sessions that are gone", f"key {brief(key)}")

    async def _found_session(self, key: str) -> SessionFound | None:
        data = await self._keys.get(key)
        if data is None:
            return None  # It has expired a moment ago.
        try:
            told = decoded(data)
            session = SessionKey(self._names.app_name, str(told.get("userID")), str(told.get("id")))
            if self._names.newer("meta", session.user_id, session.session_id) != key:
                msg = f"it tells of {described(session)}, whose key is another one"
                raise ValueError(msg)
            found = self._session(session, data, self._events(session, self._payloads(session)))
        except UNREADABLE as exc:
            self._account.leave_out(f"key {brief(key)}", exc)
            return None
        self._account.note_expiry(await self._keys.time_to_live(key))
        return found

    async def _payloads(self, key: SessionKey) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the events of a session, and their places."""
        index = self._names.newer("evtidx:time", key.user_id, key.session_id)
        hash_key = self._names.newer("evtdata", key.user_id, key.session_id)
        count = 0
        async for page in _pages(self._keys.members(index)):
            count += len(page)
            values = await self._keys.values(hash_key, [event_id for event_id, _ in page])
            told: list[_Payload] = []
            for (event_id, score), data in zip(page, values, strict=True):
                place = f"event {brief(event_id)} of key {brief(hash_key)}"
                if data is None:
                    self._account.leave_out(place, "it is in the index alone", key)
                else:
                    told.append(_Payload(place, data, score))
            for each in _in_time(told):
                yield each.place, each.data
        if (more := await self._keys.count_fields(hash_key) - count) > 0:
            what = "events that are in no index"
            self._account.note_unmapped(what, f"key {brief(hash_key)}", key, count=more)


class _Older(_Layout):
    """Sessions of the older layout, and the state of users who are not in the newer one."""

    async def found(self) -> Sessions:
        """Yield users and sessions."""
        start, middle = self._names.prefix, f":{{{self._names.app_name}}}:"
        pattern = re.compile(f"{re.escape(start)}([a-z]+){re.escape(middle)}(.*)", re.DOTALL)
        async for key in self._keys.scan(f"{literal(start)}*{literal(middle)}*"):
            found = pattern.fullmatch(key)
            if found is None:
                continue  # Of another prefix.
            family, rest = found[1], found[2]
            if family == "userstate":
                if await self._keys.exists(self._names.newer("userstate", rest)):
                    continue
                if user := await self._user(rest, [key]):
                    yield user
            elif family == "sess":
                async for session in self._found_sessions(key, rest):
                    yield session
            elif family == "event":
                await self._look_for_owner(key, rest)
            else:
                self._note_other(family, key)

    async def _found_sessions(self, key: str, user_id: str) -> AsyncIterator[SessionFound]:
        expiry = await self._keys.time_to_live(key)
        async for session_id, data in self._keys.fields(key):
            try:
                session = SessionKey(self._names.app_name, user_id, session_id)
                if not session_id:
                    msg = "the session has no id"
                    raise ValueError(msg)
                found = self._session(session, data, self._events(session, self._payloads(session)))
            except UNREADABLE as exc:
                self._account.leave_out(f"field {brief(session_id)} of key {brief(key)}", exc)
                continue
            if await self._keys.exists(self._names.newer("meta", user_id, session_id)):
                await self._note_hidden(session)
                continue
            self._account.note_expiry(expiry)
            yield found

    async def _note_hidden(self, key: SessionKey) -> None:
        """Name a session that the newer layout hides, and events that it alone has."""
        self._account.note_unmapped(
            "sessions of the older layout that the newer one has too", described(key), key
        )
        hash_key = self._names.newer("evtdata", key.user_id, key.session_id)
        async for place, data in self._payloads(key):
            try:
                event_id = str(decoded(data).get("id", ""))
            except ValueError as exc:
                self._account.leave_out(place, exc, key)
                continue
            if await self._keys.values(hash_key, [event_id]) == [None]:
                what = "events of the older layout that the newer one does not have"
                self._account.note_unmapped(what, place, key)

    async def _payloads(self, key: SessionKey) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the events of a session, and their places."""
        zset = self._names.older("event", key.user_id, key.session_id)
        rank = 0
        async for page in _pages(self._keys.members(zset)):
            told: list[_Payload] = []
            for member, score in page:
                rank += 1
                place = f"member {rank:,} of key {brief(zset)}"
                told.append(_Payload(place, member.encode(errors="surrogateescape"), score))
            for each in _in_time(told):
                yield each.place, each.data

    async def _look_for_owner(self, key: str, rest: str) -> None:
        """Name the events of a session that is gone; a colon may be in the ids of both."""
        for place in [n for n, each in enumerate(rest) if each == ":"]:
            hash_key = self._names.older("sess", rest[:place])
            if await self._keys.values(hash_key, [rest[place + 1 :]]) != [None]:
                return
        self._account.note_unmapped("events of sessions that are gone", f"key {brief(key)}")


class _Payload(Struct, frozen=True):
    """An event as it was read."""

    place: str
    data: bytes
    score: float


async def _pages(
    members: AsyncIterator[tuple[str, float]],
) -> AsyncIterator[list[tuple[str, float]]]:
    """Yield members in pages, none of which ends among those of one score."""
    page: list[tuple[str, float]] = []
    async for member, score in members:
        if len(page) >= _PAGE and score != page[-1][1]:
            yield page
            page = []
        page.append((member, score))
    if page:
        yield page


def _in_time(page: list[_Payload]) -> Iterator[_Payload]:
    """Yield events in their order: those of one score by their own times.

    A score is a double, which tells nanoseconds of today no better than to 256 of them.
    """
    for _, group in groupby(page, key=attrgetter("score")):
        same = list(group)
        if len(same) > 1:
            same.sort(key=lambda each: nanoseconds_of(each.data))
        yield from same


def _created_at(text: Any) -> datetime | None:
    """Read when a session was made; Go's zero time is none."""
    if text is None or (found := moment_of(text)).year < 1970:
        return None
    return found
