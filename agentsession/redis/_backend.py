"""A backend on Redis or Valkey: one script an operation, so that each is one step."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from agentsession.backend import (
    ANYTHING,
    NEW,
    NO_EVENTS,
    Backend,
    Before,
    Beginning,
    Claim,
    Entry,
    EventSlice,
    Expected,
    News,
    PastSlice,
    Position,
    ReadLimit,
    Receipt,
    SessionSlice,
    Snapshot,
    Standing,
    Then,
    UserSlice,
    Window,
)
from agentsession.errors import AgentSessionError, SessionExistsError, SessionNotFoundError
from agentsession.events import new_id
from agentsession.redis._keys import Keyspace
from agentsession.redis._links.link import Rest
from agentsession.redis._operations.appending import Appending, add_scopes, scopes_of
from agentsession.redis._operations.calls import Calls
from agentsession.redis._operations.diagnosis import diagnose
from agentsession.redis._operations.erasing import Erasing
from agentsession.redis._operations.failures import after_the_first
from agentsession.redis._operations.following import Following
from agentsession.redis._operations.leases import Leases
from agentsession.redis._operations.listing import Listing
from agentsession.redis._operations.replies import (
    check_appended,
    check_back,
    check_found,
    check_size,
    read_past,
    read_past_slice,
    read_receipt,
    read_seqs,
    read_snapshot,
    read_text,
    read_updated,
    was_made,
)
from agentsession.redis._operations.scopes import Scopes
from agentsession.redis._operations.users import Users
from agentsession.redis._scripts import load
from agentsession.redis._scripts.words import (
    before_words,
    beginning_word,
    change_words,
    flag,
    life_words,
    limit_words,
    number,
    size_of,
    window_words,
)
from agentsession.sessions import SessionKey
from agentsession.state import NO_CHANGES, Changes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from agentsession.concerns import Concern
    from agentsession.redis._links.link import Link
    from agentsession.redis._operations.failures import Subject
    from agentsession.redis._scripts import Argument
    from agentsession.retention import Retention
    from agentsession.sessions import UserKey
    from agentsession.state import ScopeChanges

__all__ = ["NO_ORIGIN", "Origin", "RedisBackend"]

_CREATE: Final = load("create")
_GET: Final = load("get")
_LOCATE: Final = load("locate")
_NOTE_PAST: Final = load("note_past")
_READ: Final = load("read")
_READ_PAST: Final = load("read_past")
_UPDATE: Final = load("update")

_MADE: Final = "the session was made, and deleted since; the rest failed ({}); repeat it"


class Origin(Struct, frozen=True):
    """What a session is made of.

    Attributes:
        key: The session to copy; ``None`` for none.
        incarnation: Which life of it; ``""`` for any.
        at_seq: The position with which the copy ends; ``None`` for all of it.
        beginning: How it begins, if it was kept elsewhere before.
    """

    key: SessionKey | None = None
    incarnation: str = ""
    at_seq: int | None = None
    beginning: Beginning = NEW


NO_ORIGIN: Final = Origin()


class RedisBackend(Backend):
    """A :class:`~agentsession.backend.Backend` on Redis 6.2 or newer, or Valkey.

    :mod:`agentsession.redis._keys` says what it holds there.

    Args:
        retention: What to keep and for how long.
        link: Runs the scripts; closed with the backend.
        key_prefix: Stands in front of every key.
        clustered: Whether an application's state is in another slot than its sessions.
    """

    def __init__(
        self, retention: Retention, link: Link, *, key_prefix: str = "", clustered: bool = False
    ) -> None:
        super().__init__(retention)
        self._calls = Calls(link)
        self._keyspace = Keyspace(key_prefix, clustered=clustered)
        self._listing = Listing(self._calls, self._keyspace)
        self._users = Users(self._calls, self._keyspace, retention, clustered=clustered)
        self._erasing = Erasing(self._calls, self._keyspace, self._listing, self._users)
        self._scopes = Scopes(self._calls, self._keyspace, retention)
        self._lives = life_words(retention)
        self._refresh: dict[str, Argument] = {"refresh": flag(retention.refresh_on_read)}
        self._appending = Appending(self._calls, self._keyspace, retention)
        self._leases = Leases(self._calls, self._keyspace, retention)
        self._following = Following(self._calls, self._keyspace)
        # Most reads have one of a few windows, whose arguments take as long to build as to read an
        # event.
        self._get_words = lru_cache(maxsize=64)(self._words_of_get)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} prefix={self._keyspace.prefix!r} {self._calls!r}>"

    @property
    def crowded(self) -> bool:
        return self._calls.crowded

    def room(
        self, subject: Subject, *, in_steps: bool = False
    ) -> AbstractAsyncContextManager[None]:
        return self._calls.room(subject, in_steps=in_steps)

    async def aclose(self) -> None:
        await self._calls.aclose()

    # -- sessions

    async def create(
        self, key: SessionKey, changes: Changes, *, token: str, beginning: Beginning = NEW
    ) -> Snapshot:
        origin = NO_ORIGIN if beginning == NEW else Origin(beginning=beginning)
        _, snapshot = await self._make(key, changes, NO_EVENTS, token, take=False, origin=origin)
        if snapshot is None:
            raise SessionNotFoundError(key)
        return snapshot

    async def fork(
        self,
        key: SessionKey,
        new_key: SessionKey,
        at_seq: int | None,
        *,
        token: str,
        expected: Expected = ANYTHING,
    ) -> Snapshot:
        origin = Origin(key, expected.incarnation, at_seq)
        _, snapshot = await self._make(
            new_key, NO_CHANGES, NO_EVENTS, token, take=False, origin=origin
        )
        if snapshot is None:
            raise SessionNotFoundError(new_key)
        return snapshot

    async def get_or_create(self, key: SessionKey, changes: Changes, window: Window) -> Snapshot:
        # An existing session is only read, so that a late copy of the call cannot write. The state
        # for a new one stays in memory meanwhile and is counted with the read.
        size = size_of(changes.app, changes.user, changes.session)
        held = Rest(size) if size else None
        snapshot, written = await self._get(key, window, held), False
        while snapshot is None:
            with after_the_first(key, _MADE) if written else nullcontext():
                made, snapshot = await self._make(key, changes, window, new_id(), take=True)
            if made and snapshot is None:
                # It was made and deleted; it is made again, but the state of user and application,
                # which others may have changed since, is not written twice.
                written, changes = True, Changes(session=changes.session)
        return snapshot

    async def _make(
        self,
        key: SessionKey,
        changes: Changes,
        window: Window,
        token: str,
        *,
        take: bool,
        origin: Origin = NO_ORIGIN,
    ) -> tuple[bool, Snapshot | None]:
        """Make a session, or take one that is there; tell whether this call has made it.

        Without a snapshot, somebody has deleted it since.
        """
        reply = await self._call_make(key, changes, window, token, take=take, origin=origin)
        if reply[1] == b"exists":
            raise SessionExistsError(key)
        if reply[1] == b"gone":
            return was_made(reply), None
        if origin.key is not None:
            check_back(origin.key, origin.at_seq or 0, reply)
        check_found(origin.key or key, reply)
        check_size(key, reply, window.read_limit)
        if reply[4] or reply[5]:
            await self._tidy_up(key.user, reply[4], reply[5])
        return was_made(reply), await read_snapshot(key, reply[3])

    async def _call_make(
        self,
        key: SessionKey,
        changes: Changes,
        window: Window,
        token: str,
        *,
        take: bool,
        origin: Origin = NO_ORIGIN,
        rest: Rest | None = None,
    ) -> list[Any]:
        names = self._keyspace.session(key)
        reply: list[Any] = await self._calls.run(
            key,
            _CREATE,
            [
                *(names.session, names.events, names.ids, names.index, names.user, names.calls),
                *self._keyspace.app_beside(key.app_name),
                *self._keyspace.users_beside(key.app_name),
            ],
            [
                *_CREATE.words(
                    id=token,
                    user_id=key.user_id,
                    session_id=key.session_id,
                    take=flag(take),
                    origin="" if origin.key is None else origin.key.session_id,
                    origin_life=origin.incarnation,
                    origin_at=number(origin.at_seq),
                    beginning=beginning_word(origin.beginning),
                    news=self._keyspace.news,
                    **self._lives,
                    **self._refresh,
                    **window_words(window),
                ),
                *change_words(changes),
            ],
            rest,
        )
        return reply

    async def _tidy_up(
        self, user: UserKey, sessions: Sequence[bytes], users: Sequence[bytes]
    ) -> None:
        """Take out of the lists what has expired of these."""
        # Housekeeping must not make an error of a session that was made; a later creation does what
        # this one could not.
        with suppress(AgentSessionError):
            if sessions:
                await self._listing.prune(user, sessions)
            if users:
                await self._users.look_after(user.app_name, users)

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        return await self._get(key, window)

    async def _get(
        self, key: SessionKey, window: Window, rest: Rest | None = None
    ) -> Snapshot | None:
        names = self._keyspace.session(key)
        reply = await self._calls.run(
            key,
            _GET,
            [
                *(names.session, names.events, names.ids, names.index, names.user),
                *self._keyspace.app_beside(key.app_name),
            ],
            self._get_words(window),
            rest,
        )
        if reply[1] == b"missing":
            return None
        check_size(key, reply, window.read_limit)
        return await read_snapshot(key, reply[2])

    def _words_of_get(self, window: Window) -> Sequence[Argument]:
        return tuple(_GET.words(**window_words(window), **self._refresh, **self._lives))

    async def list_sessions(
        self, user: UserKey, limit: int, before: Position | None
    ) -> SessionSlice:
        return await self._listing.page(user, limit, before)

    async def list_users(self, app_name: str, limit: int, after: str) -> UserSlice:
        return await self._users.page(app_name, limit, after)

    async def delete(self, key: SessionKey, *, expected: Expected = ANYTHING) -> None:
        await self._erasing.session(key, expected.incarnation)

    async def delete_user(self, user: UserKey) -> None:
        await self._erasing.user(user)

    # -- the log

    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        reply = await self._appending.call(key, entries, expected, then)
        check_appended(key, expected, reply, entries[0].rewind if entries else None)
        return read_receipt(key, reply)[0]

    async def read(
        self,
        key: SessionKey,
        *,
        after_seq: int,
        before_seq: int | None,
        limit: int,
        newest_first: bool,
        raw: bool = False,
        read_limit: ReadLimit | None = None,
        refresh: bool = True,
        after_id: str = "",
        expected: Expected = ANYTHING,
    ) -> EventSlice:
        names = self._keyspace.session(key)
        reply = await self._calls.run(
            key,
            _READ,
            [names.session, names.events, names.ids, names.index],
            _READ.words(
                incarnation=expected.incarnation,
                after=number(after_seq),
                after_id=after_id,
                before=number(before_seq),
                limit=number(limit),
                newest_first=flag(newest_first),
                raw=flag(raw),
                session_ttl=self._lives["session_ttl"],
                refresh=flag(refresh and self.retention.refresh_on_read),
                **limit_words(read_limit, limit),
            ),
        )
        check_found(key, reply)
        check_size(key, reply, read_limit)
        _, _, place, events, life, past, last_seq = reply
        first_seq, rewound_at = read_past(key, past)
        seqs = read_seqs(place, len(events))
        return EventSlice(seqs, events, read_text(key, life), first_seq, rewound_at, last_seq)

    async def locate(
        self, key: SessionKey, event_id: str, *, expected: Expected = ANYTHING
    ) -> int | None:
        names = self._keyspace.session(key)
        words = _LOCATE.words(incarnation=expected.incarnation, event_id=event_id)
        keys = [names.session, names.events, names.ids]
        reply = await self._calls.run(key, _LOCATE, keys, words)
        check_found(key, reply)
        return reply[2] if reply[1] == b"found" else None

    # -- what was

    async def read_past(
        self, key: SessionKey, *, after: float, limit: int, expected: Expected = ANYTHING
    ) -> PastSlice:
        names = self._keyspace.session(key)
        words = _READ_PAST.words(
            incarnation=expected.incarnation, after=str(after), limit=str(limit)
        )
        reply = await self._calls.run(key, _READ_PAST, [names.session, names.events], words)
        check_found(key, reply)
        return read_past_slice(key, reply)

    async def note_past(
        self, key: SessionKey, earlier: Sequence[Before], *, expected: Expected = ANYTHING
    ) -> None:
        names = self._keyspace.session(key)
        words = _NOTE_PAST.words(
            id=new_id(),
            incarnation=expected.incarnation,
            session_id=key.session_id,
            session_ttl=self._lives["session_ttl"],
        )
        keys = [names.session, names.events, names.ids, names.index, names.calls]
        reply = await self._calls.run(key, _NOTE_PAST, keys, words + before_words(earlier))
        read_updated(key, reply)

    # -- state

    async def update_state(
        self, key: SessionKey, changes: Changes, *, expected: Expected = ANYTHING
    ) -> Receipt:
        words, scopes = change_words(changes), scopes_of(changes)
        return read_updated(key, await self._call_update(key, words, scopes, new_id(), expected))

    async def _call_update(
        self,
        key: SessionKey,
        changes: list[Argument],
        touched: str,
        call_id: str,
        expected: Expected,
        rest: Rest | None = None,
    ) -> list[Any]:
        names = self._keyspace.session(key)
        keys = [names.session, names.events, names.ids, names.index, names.calls]
        words = _UPDATE.words(
            id=call_id,
            incarnation=expected.incarnation,
            session_id=key.session_id,
            scopes=add_scopes(keys, self._keyspace, key, touched),
            lease=expected.lease,
            news=self._keyspace.news,
            **self._lives,
        )
        reply: list[Any] = await self._calls.run(key, _UPDATE, keys, words + changes, rest)
        return reply

    async def update_app_state(self, app_name: str, changes: ScopeChanges) -> None:
        await self._scopes.update_app(app_name, changes, new_id())

    async def update_user_state(self, user: UserKey, changes: ScopeChanges) -> None:
        if not await self._scopes.update_user(user, changes, new_id()):
            with suppress(AgentSessionError):  # The state is written; others will look as well.
                await self._users.drop(user)

    async def get_app_state(self, app_name: str) -> dict[str, bytes]:
        return await self._scopes.get_app(app_name, refresh=self.retention.refresh_on_read)

    async def get_user_state(self, user: UserKey) -> dict[str, bytes]:
        return await self._scopes.get_user(user, refresh=self.retention.refresh_on_read)

    # -- leases

    async def acquire(
        self, key: SessionKey, claim: Claim, attempt: int, *, expected: Expected = ANYTHING
    ) -> Standing:
        return await self._leases.acquire(key, claim, attempt, expected.incarnation)

    async def renew(self, key: SessionKey, owner: str, ttl: int) -> Standing:
        return await self._leases.renew(key, owner, ttl)

    async def release(self, key: SessionKey, owner: str, attempt: int) -> None:
        await self._leases.release(key, owner, attempt)

    async def stop(self, key: SessionKey, run_id: str | None) -> str | None:
        return await self._leases.stop(key, run_id)

    def new_owner(self) -> str:
        return f"{self._calls.inbox.name}.{new_id()}"

    def listen(
        self, key: SessionKey, owner: str, on_news: Callable[[], None]
    ) -> AbstractContextManager[None]:
        del key  # An inbox is for all sessions.
        inbox = self._calls.inbox
        return inbox.listen(self._keyspace.inbox(inbox.name), owner, lambda _: on_news())

    # -- following

    def follow(
        self, subject: SessionKey | UserKey, on_news: Callable[[News | None], None]
    ) -> AbstractContextManager[None]:
        return self._following.follow(subject, on_news)

    async def tell(self, key: SessionKey, chunk: bytes) -> bool:
        return await self._following.tell(key, chunk)

    # -- what endangers it

    async def check(self) -> list[Concern]:
        return await diagnose(self._calls, self._keyspace, self.retention)
