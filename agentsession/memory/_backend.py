"""A backend in this process's memory.

Rules of this file:

- It stores the same bytes as Redis does, so that no caller can change what is stored by changing an
  object, and a value that one backend refuses is refused by the other.
- A session's lock is held for all of a write to it: writers of one session take turns in the order
  in which they came, writers of different sessions do not wait for each other. A write checks
  everything first and contains no ``await`` after its first change, so that a cancellation finds it
  whole or not begun.
- The moments by which a user's sessions are listed only grow, whatever the clock does; when they
  expire is decided by the clock at each access. The sweeper only frees memory.
- Every operation is one step of the event loop, short however much is stored: readers get no copies
  of state, what many changes come to is found bit by bit before, and what was deleted is freed so
  afterwards (:class:`~agentsession._pace.Pace`).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Literal

from agentsession._alarms import Alarms
from agentsession._journal import Journal
from agentsession._pace import Pace
from agentsession.backend import (
    ANYTHING,
    NEW,
    NO_EVENTS,
    NO_REPEATS,
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
from agentsession.backend.turns import Turns
from agentsession.clock import Clock, system_clock
from agentsession.concerns import Concern
from agentsession.errors import (
    LeaseLostError,
    RevisionConflictError,
    RewindError,
    SessionExistsError,
    SessionNotFoundError,
)
from agentsession.events import new_id
from agentsession.memory._records import Log, Place, Scope, Staged, StoredSession, User, seqs_of
from agentsession.memory._users import Users
from agentsession.observers import Swept
from agentsession.sessions import SessionKey, UserKey
from agentsession.state import NO_CHANGES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from agentsession.events import Rewind
    from agentsession.observers import Observer
    from agentsession.retention import Retention
    from agentsession.state import Changes, ScopeChanges

__all__ = ["MemoryBackend"]

_IN_THIS_PROCESS: Final = Concern(
    "process_memory",
    "warning",
    "sessions are in this process's memory: they are gone when it ends, and no other process sees "
    "them; use RedisSessionService for data that matters",
)

# The sweeper looks at so many sessions of a user in one go, which takes it under a millisecond.
_SWEEP_STRIDE: Final = 1000


# So many users are looked at in one go when they are listed, of whom some may have expired.
_LIST_STRIDE: Final = 200

# What so many changes of state in one call are together is found before they are made; without
# that, 100,000 of them are a step of tens of milliseconds.
_STAGED_FROM: Final = 2000

# Where a user has more sessions than that, followers are only told to look when they are deleted:
# one by one it would take over a millisecond.
_TOLD_AT_ONCE: Final = 1000


class MemoryBackend(Backend):
    """A :class:`~agentsession.backend.Backend` in memory, by this module's rules.

    Args:
        retention: What to keep and for how long.
        cleanup_interval: Seconds between two sweeps of what has expired; ``None`` for no sweeper.
        clock: The backend's present, in microseconds.
        observers: Objects that are told of what is swept; see :mod:`agentsession.observers`.
    """

    def __init__(
        self,
        retention: Retention,
        *,
        cleanup_interval: float | None = None,
        clock: Clock = system_clock,
        observers: Sequence[Observer] = (),
    ) -> None:
        super().__init__(retention)
        self._cleanup_interval = cleanup_interval
        self._clock = clock
        self._journal = Journal("agentsession.memory", observers)
        # In the order in which the sweeper comes to them.
        self._apps: OrderedDict[str, Scope] = OrderedDict()
        self._users = Users()
        self._sweeper: asyncio.Task[None] | None = None
        self._alarms: Alarms[None] = Alarms()
        self._followers: Alarms[News] = Alarms()

    def __repr__(self) -> str:
        sessions = sum(len(user.sessions) for user in self._users)
        counts = f"apps={len(self._apps)} users={len(self._users)} sessions={sessions}"
        return f"<{type(self).__name__} {counts}>"

    @property
    def is_local(self) -> bool:
        return True

    # -- sessions

    async def create(
        self, key: SessionKey, changes: Changes, *, token: str, beginning: Beginning = NEW
    ) -> Snapshot:
        now = self._begin()
        session = self._find(key, now)
        if session is None:
            session = self._make(key, changes, token, now)
            session.begin(beginning)
        elif session.incarnation != token:
            raise SessionExistsError(key)
        return self._snapshot(key, session, NO_EVENTS, now)

    async def fork(
        self,
        key: SessionKey,
        new_key: SessionKey,
        at_seq: int | None,
        *,
        token: str,
        expected: Expected = ANYTHING,
    ) -> Snapshot:
        now = self._begin()
        session = self._find(new_key, now)
        if session is None:
            origin = self._need(key, now, expected)
            if at_seq is not None:
                origin.check_place(key, at_seq, restores_state=True)
                if origin.turns is not None:
                    origin.turns.check_rewind(key, "", at_seq)
            session = self._make(new_key, NO_CHANGES, token, now)
            session.copy(origin, at_seq, now, self._alarms.ring)
        elif session.incarnation != token:
            raise SessionExistsError(new_key)
        return self._snapshot(new_key, session, NO_EVENTS, now)

    async def get_or_create(self, key: SessionKey, changes: Changes, window: Window) -> Snapshot:
        now = self._begin()
        session = self._find(key, now)
        if session is None:
            session = self._make(key, changes, new_id(), now)
            return self._snapshot(key, session, window, now)
        snapshot = self._snapshot(key, session, window, now)
        self._refresh(session, now)
        return snapshot

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        now = self._begin()
        session = self._find(key, now)
        if session is None:
            return None
        snapshot = self._snapshot(key, session, window, now)
        self._refresh(session, now)
        return snapshot

    async def list_sessions(
        self, user: UserKey, limit: int, before: Position | None
    ) -> SessionSlice:
        now = self._begin()
        stored = self._users.get(user)
        if stored is None:
            return SessionSlice([], None)
        activity = stored.activity
        end = (
            len(activity)
            if before is None
            else bisect_left(activity, (before.updated, before.session_id))
        )
        found: list[Snapshot] = []
        app, own = self._app_values(user.app_name, now), _user_values(stored, now)
        for index in range(end - 1, -1, -1):
            session = stored.sessions[activity[index][1]]
            if session.alive(now):
                if len(found) == limit:
                    return SessionSlice(found, Position(found[-1].updated, found[-1].session_id))
                found.append(_snapshot(session, app, own))
        return SessionSlice(found, None)

    async def list_users(self, app_name: str, limit: int, after: str) -> UserSlice:
        self._begin()
        pace = Pace()
        found: list[str] = []
        while ids := self._users.ids_after(app_name, after, _LIST_STRIDE):
            for user_id in ids:
                user = self._users.get(UserKey(app_name, user_id))
                if user is not None and user.alive(self._clock()):
                    if len(found) == limit:
                        return UserSlice(found, found[-1])
                    found.append(user_id)
            after = ids[-1]
            if pace.due():
                await pace.rest()
        return UserSlice(found, None)

    async def delete(self, key: SessionKey, *, expected: Expected = ANYTHING) -> None:
        session = self._find(key, self._begin())
        if session is not None and _is_expected(session, expected):
            async with session.lock:
                self._remove(session)

    async def delete_user(self, user: UserKey) -> None:
        self._begin()
        erased = self._users.get(user)
        if erased is None:
            return
        self._users.remove(erased)
        # At once, since writers that wait for their turn look there.
        sessions, erased.sessions = erased.sessions, {}
        places, erased.activity = erased.activity, []
        # Before anybody can make one of them anew.
        if len(sessions) > _TOLD_AT_ONCE:
            self._followers.ring_all()
        else:
            for session in sessions.values():
                self._told(session, "deleted")
        pace = Pace()
        while sessions:
            if pace.due():
                await pace.rest()
            sessions.popitem()
            places.pop()

    # -- the log

    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        while True:
            session, now = await self._locked(key, expected)
            try:
                staged = None
                if len(entries) > 1:
                    staged = await self._staged(session, entries)
                    now = self._clock()
                if session.stored and session.alive(now):  # Deletions of users wait for no lock.
                    return self._append(key, session, entries, staged, expected, then, now)
            finally:
                session.lock.release()

    async def _staged(self, session: StoredSession, entries: Sequence[Entry]) -> Staged | None:
        """Find in steps what many changes of state are together, while nobody else may write.

        Return nothing if they are few, or if they come after a rewind, which changes state itself.
        """
        if entries[0].rewind is not None or sum(map(_names, entries)) < _STAGED_FROM:
            return None
        pace, staged = Pace(), Staged()
        known = session.log.ids
        for entry in entries:
            if pace.due():
                await pace.rest()
            if entry.event_id not in known:
                staged.add(entry, session.state)
        return staged

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
        now = self._begin()
        session = self._need(key, now, expected)
        log = session.log
        is_held = log.oldest_seq <= after_seq <= log.count
        if after_id and is_held and log.ids.get(after_id) != after_seq:
            raise SessionNotFoundError(key, replaced=True)
        last = log.count if before_seq is None else before_seq - 1
        runs = log.runs(after_seq + 1, last, limit, newest_first=newest_first, raw=raw)
        events = log.read(runs)
        if read_limit is not None:
            read_limit.check(key, events)
        if refresh and self.retention.refresh_on_read:
            session.touch(now, self.retention.session_ttl)  # Its scopes were not read.
        taken = log.taken
        return EventSlice(
            seqs_of(runs),
            events,
            session.incarnation,
            taken.first_seq,
            taken.newest_mark,
            log.count,
        )

    async def locate(
        self, key: SessionKey, event_id: str, *, expected: Expected = ANYTHING
    ) -> int | None:
        now = self._begin()
        session = self._need(key, now, expected)
        seq = session.log.ids.get(event_id)
        return seq if seq is not None and seq >= session.log.oldest_seq else None

    # -- what was

    async def read_past(
        self, key: SessionKey, *, after: float, limit: int, expected: Expected = ANYTHING
    ) -> PastSlice:
        now = self._begin()
        session = self._need(key, now, expected)
        earlier, more = session.before.read(after, limit)
        turns = session.turns
        return PastSlice(
            earlier=earlier,
            more=more,
            turn=None if turns is None else turns.left(session.log.count, now),
            revision=session.revision,
            incarnation=session.incarnation,
        )

    async def note_past(
        self, key: SessionKey, earlier: Sequence[Before], *, expected: Expected = ANYTHING
    ) -> None:
        session, now = await self._locked(key, expected)
        try:
            if session.before.add(earlier):
                self._written(session, now)
        finally:
            session.lock.release()

    # -- state

    async def update_state(
        self, key: SessionKey, changes: Changes, *, expected: Expected = ANYTHING
    ) -> Receipt:
        session, now = await self._locked(key, expected)
        try:
            self._check_lease(key, session, expected, now)
            if changes:
                self._apply(session, changes, now, session.log.count + 0.5)
                self._written(session, now)
                self._told(session, "written")
            return _receipt(session, [], NO_REPEATS)
        finally:
            session.lock.release()

    async def update_app_state(self, app_name: str, changes: ScopeChanges) -> None:
        self._change_app(app_name, changes, self._begin())

    async def update_user_state(self, user: UserKey, changes: ScopeChanges) -> None:
        self._change_user(self._users.get_or_add(user), changes, self._begin())

    async def get_app_state(self, app_name: str) -> dict[str, bytes]:
        now = self._begin()
        if self.retention.refresh_on_read:
            self._change_app(app_name, {}, now)
        return self._app_values(app_name, now)

    async def get_user_state(self, user: UserKey) -> dict[str, bytes]:
        now = self._begin()
        if self.retention.refresh_on_read:
            self._change_user(self._users.get_or_add(user), {}, now)
        return _user_values(self._users.get(user), now)

    # -- leases

    async def acquire(
        self,
        key: SessionKey,
        claim: Claim,
        attempt: int,  # noqa: ARG002 - as in release()
        *,
        expected: Expected = ANYTHING,
    ) -> Standing:
        session, now = await self._locked(key, expected)
        try:
            if session.turns is None:
                session.turns = Turns(self._alarms.ring)
            life, newest = session.incarnation, session.turns.newest_token
            standing = session.turns.acquire(
                claim, now=now, last_seq=session.log.count, incarnation=life
            )
            if session.turns.newest_token != newest:
                self._told(session, "began", standing.run_id)
            if standing.state == "held":
                session.prolong(now, self.retention.session_ttl)
            return standing
        finally:
            session.lock.release()

    async def renew(self, key: SessionKey, owner: str, ttl: int) -> Standing:
        now = self._begin()
        session = self._need(key, now)
        standing = None
        if session.turns is not None:
            life = session.incarnation
            standing = session.turns.renew(owner, ttl, now=now, incarnation=life)
        if standing is None:
            raise LeaseLostError(key)
        session.prolong(now, self.retention.session_ttl)
        return standing

    async def release(
        self,
        key: SessionKey,
        owner: str,
        attempt: int,  # noqa: ARG002 - no copy of a call comes late
    ) -> None:
        now = self._begin()
        session = self._find(key, now)
        if session is not None and session.turns is not None:
            ended = session.turns.release(owner, now)
            if ended:
                self._told(session, "ended", ended)

    async def stop(self, key: SessionKey, run_id: str | None) -> str | None:
        now = self._begin()
        turns = self._need(key, now).turns
        return None if turns is None else turns.stop(run_id, now)

    def listen(
        self, key: SessionKey, owner: str, on_news: Callable[[], None]
    ) -> AbstractContextManager[None]:
        del key  # No two owners have the same name.
        return self._alarms.listen(owner, lambda _: on_news())

    # -- following

    def follow(
        self, subject: SessionKey | UserKey, on_news: Callable[[News | None], None]
    ) -> AbstractContextManager[None]:
        return self._followers.listen(subject, on_news)

    async def tell(self, key: SessionKey, chunk: bytes) -> bool:
        self._begin()
        news = News(key.session_id, "chunk", chunk=chunk)
        self._followers.ring(key, news)
        self._followers.ring(key.user, news)
        return bool(self._followers)

    def _told(
        self,
        session: StoredSession,
        what: Literal["made", "written", "began", "ended", "deleted"],
        run_id: str = "",
    ) -> None:
        """Tell those who follow."""
        if self._followers:
            news = News(session.session_id, what, run_id)
            self._followers.ring(_key_of(session), news)
            self._followers.ring(session.owner.key, news)

    # -- expiry

    async def check(self) -> list[Concern]:
        return [_IN_THIS_PROCESS]

    async def aclose(self) -> None:
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            sweeper.cancel()
            # To await the task itself would mix up its cancellation with that of the caller.
            await asyncio.wait([sweeper])

    async def sweep(self) -> None:
        """Free all that has expired, letting other tasks run in between."""
        pace = Pace()
        freed = 0
        # Each user that was swept goes to the end of the order. So all that were there at the
        # beginning have their turn, whatever other tasks add or remove meanwhile.
        for _ in range(len(self._users)):
            if pace.due():
                await pace.rest()
            user = self._users.next_to_sweep()
            if user is not None:
                freed += await self._sweep_user(user, pace)
        for _ in range(len(self._apps)):
            if pace.due():
                await pace.rest()
            if self._apps:
                name, scope = self._apps.popitem(last=False)
                if scope.alive(self._clock()):
                    self._apps[name] = scope
        if freed:
            self._journal.note(Swept(sessions=freed))

    async def _sweep_user(self, user: User, pace: Pace) -> int:
        """Free what a user has that has expired; return how many sessions it was."""
        place: Place | None = None
        freed = 0
        while True:
            dropped, place = user.drop_expired(place, _SWEEP_STRIDE, self._clock())
            freed += len(dropped)
            while dropped:
                # Which frees it; a session may be large.
                expired = dropped.pop()
                if self._followers:
                    self._followers.ring(_key_of(expired))
                if pace.due():
                    await pace.rest()
            if place is None:
                break
            if pace.due():
                await pace.rest()
        self._drop_if_empty(user, self._clock())
        return freed

    def unexpiring(self) -> list[str]:
        """Name everything that is held and would never expire; the conformance checks ask."""
        names = [f"app {name!r}" for name, scope in self._apps.items() if scope.expires_at is None]
        for user in self._users:
            if user.scope is not None and user.scope.expires_at is None:
                names.append(f"{user.key}")
            names += [
                f"{user.key} {session.session_id!r}"
                for session in user.sessions.values()
                if session.expires_at is None
            ]
        return names

    async def _sweep_for_ever(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            await self.sweep()

    def _begin(self) -> int:
        """Start the sweeper on first use, when a loop is surely running, and return the present."""
        if self._sweeper is None and self._cleanup_interval is not None:
            self._sweeper = asyncio.create_task(
                self._sweep_for_ever(self._cleanup_interval), name="agentsession-sweeper"
            )
        return self._clock()

    # -- finding and changing; none of these awaits

    def _find(self, key: SessionKey, now: int) -> StoredSession | None:
        user = self._users.get(key.user)
        session = None if user is None else user.sessions.get(key.session_id)
        return session if session is not None and session.alive(now) else None

    def _need(self, key: SessionKey, now: int, expected: Expected = ANYTHING) -> StoredSession:
        session = self._find(key, now)
        if session is None:
            raise SessionNotFoundError(key)
        if not _is_expected(session, expected):
            raise SessionNotFoundError(key, replaced=True)
        return session

    async def _locked(self, key: SessionKey, expected: Expected) -> tuple[StoredSession, int]:
        """Wait for the lock of a session, to write to it; the caller releases it.

        While waiting, the session may have been deleted, and even made anew; the lock is that of
        the one that is stored, if any may be expected.
        """
        session = self._need(key, self._begin(), expected)
        while True:
            await session.lock.acquire()
            now = self._clock()
            if session.stored and session.alive(now):
                return session, now
            session.lock.release()
            session = self._need(key, now, expected)

    def _append(
        self,
        key: SessionKey,
        session: StoredSession,
        entries: Sequence[Entry],
        staged: Staged | None,
        expected: Expected,
        then: Then,
        now: int,
    ) -> Receipt:
        log = session.log
        new = _new(log, entries)
        newest = log.count
        if new or not entries:
            self._check_lease(key, session, expected, now, then)
            if expected.revision is not None and expected.revision != session.revision:
                raise RevisionConflictError(key, expected.revision, session.revision)
        if new:
            if entries[0].rewind is not None:
                self._check_rewind(key, session, entries[0].rewind, entries, new, expected)
            for entry in new.values():
                self._add(session, entry, expected, now, staged)
            if staged is not None:
                self._apply(session, staged.changes, now, None)
        # Before trimming, which may forget the id of a repeat in this very batch.
        seqs = [log.ids[entry.event_id] for entry in entries]
        repeats = NO_REPEATS if len(new) == len(seqs) else _repeats(log, seqs, newest)
        if new:
            if self.retention.event_limit:
                session.trim(self.retention.event_limit)
            self._written(session, now)
        ended = ""
        if then != "keep" and session.turns is not None:
            ended = session.turns.written(expected.lease, then, now, seqs)
        if new or ended:
            self._told(session, "ended" if ended else "written", ended)
        return _receipt(session, seqs, repeats)

    def _check_lease(
        self,
        key: SessionKey,
        session: StoredSession,
        expected: Expected,
        now: int,
        then: Then = "keep",
    ) -> None:
        if session.turns is not None:
            session.turns.check(key, expected.lease, then, now)
        elif expected.lease:
            raise LeaseLostError(key)

    def _check_rewind(
        self,
        key: SessionKey,
        session: StoredSession,
        rewind: Rewind,
        entries: Sequence[Entry],
        new: Mapping[str, Entry],
        expected: Expected,
    ) -> None:
        """Refuse to add entries if the mark that they begin with is new, and asks for too much."""
        if entries[0].event_id not in new:
            return
        to_seq = rewind.to_seq
        if not (entries[0].is_copy and to_seq < session.log.oldest_seq):
            session.check_place(key, to_seq, restores_state=rewind.restores_state)
        if session.turns is not None:
            session.turns.check_rewind(key, expected.lease, to_seq)
        if any(entry.event_id not in new for entry in entries):
            raise RewindError(key, to_seq, "stored")

    def _add(
        self,
        session: StoredSession,
        entry: Entry,
        expected: Expected,
        now: int,
        staged: Staged | None,
    ) -> None:
        """Add an entry to the log, and do what it asks for; its changes only if not staged."""
        session.log.add(entry, now)
        if entry.rewind is not None:
            session.rewind(entry.rewind, is_copy=entry.is_copy)
            if session.turns is not None:
                session.turns.rewind(expected.lease)
        if staged is not None:
            session.before.keep(session.log.count, staged.before[entry.event_id])
        elif entry.changes:
            self._apply(session, entry.changes, now, session.log.count)

    def _make(self, key: SessionKey, changes: Changes, incarnation: str, now: int) -> StoredSession:
        user = self._users.get_or_add(key.user)
        expired = user.sessions.get(key.session_id)
        if expired is not None:
            user.remove_activity((expired.updated, expired.session_id))
        session = StoredSession(user, key.session_id, incarnation, user.moment(now))
        user.add(session)
        session.touch(now, self.retention.session_ttl)
        self._apply(session, changes, now, None)
        self._told(session, "made")
        return session

    def _apply(self, session: StoredSession, changes: Changes, now: int, at: float | None) -> None:
        """Apply changes, and note what was before; at ``None`` nothing was."""
        owner = session.owner
        if changes.session and at is not None:
            session.before.note(at, session.state, changes.session)
        session.state.change(changes.session)
        if changes.user:
            self._change_user(owner, changes.user, now)
        if changes.app:
            self._change_app(owner.key.app_name, changes.app, now)

    def _written(self, session: StoredSession, now: int) -> None:
        session.revision += 1
        session.owner.move(session, now)
        session.touch(now, self.retention.session_ttl)

    def _refresh(self, session: StoredSession, now: int) -> None:
        if self.retention.refresh_on_read:
            session.touch(now, self.retention.session_ttl)
            self._change_user(session.owner, {}, now)
            self._change_app(session.owner.key.app_name, {}, now)

    def _change_app(self, app_name: str, changes: ScopeChanges, now: int) -> None:
        scope = self._changed(
            self._apps.pop(app_name, None), changes, now, self.retention.app_state_ttl
        )
        if scope is not None:
            self._apps[app_name] = scope

    def _change_user(self, user: User, changes: ScopeChanges, now: int) -> None:
        user.scope = self._changed(user.scope, changes, now, self.retention.user_state_ttl)
        self._drop_if_empty(user, now)

    @staticmethod
    def _changed(scope: Scope | None, changes: ScopeChanges, now: int, ttl: int) -> Scope | None:
        """Apply changes to a scope that may be absent or expired; an empty one is given up."""
        if scope is None or not scope.alive(now):
            scope = Scope()
        scope.values.change(changes)
        scope.touch(now, ttl)
        return scope if scope.values else None

    def _app_values(self, app_name: str, now: int) -> dict[str, bytes]:
        scope = self._apps.get(app_name)
        return scope.values.read() if scope is not None and scope.alive(now) else {}

    def _remove(self, session: StoredSession) -> None:
        if session.stored:
            del session.owner.sessions[session.session_id]
            session.owner.remove_activity((session.updated, session.session_id))
            self._drop_if_empty(session.owner, self._clock())
            self._told(session, "deleted")

    def _drop_if_empty(self, user: User, now: int) -> None:
        if user.scope is not None and not user.scope.alive(now):
            user.scope = None
        if not user.sessions and user.scope is None:
            self._users.remove(user)

    def _snapshot(
        self, key: SessionKey, session: StoredSession, window: Window, now: int
    ) -> Snapshot:
        log = session.log
        first = window.after_seq + 1
        if window.since is not None:
            first = max(first, log.first_since(window.since))
        most = log.count if window.last is None else window.last
        runs = log.runs(first, log.count, most, newest_first=True)
        app = self._app_values(key.app_name, now)
        user = _user_values(session.owner, now)
        events = log.read(runs)
        if window.read_limit is not None:
            window.read_limit.check(key, events)
        return _snapshot(session, app, user, events, runs, window.after_seq)


def _key_of(session: StoredSession) -> SessionKey:
    user = session.owner.key
    return SessionKey(user.app_name, user.user_id, session.session_id)


def _user_values(user: User | None, now: int) -> dict[str, bytes]:
    scope = None if user is None else user.scope
    return scope.values.read() if scope is not None and scope.alive(now) else {}


def _is_expected(session: StoredSession, expected: Expected) -> bool:
    return expected.incarnation in ("", session.incarnation)


def _names(entry: Entry) -> int:
    changes = entry.changes
    return len(changes.session) + len(changes.user) + len(changes.app)


def _new(log: Log, entries: Sequence[Entry]) -> dict[str, Entry]:
    """Return by their ids the entries that are to be added, in their order."""
    new: dict[str, Entry] = {}
    for entry in entries:
        if entry.event_id not in log.ids:
            new.setdefault(entry.event_id, entry)
    return new


def _repeats(log: Log, seqs: Sequence[int], newest: int) -> dict[int, bytes]:
    """Return what is stored of each entry that was not added after *newest*, in its turn."""
    repeats: dict[int, bytes] = {}
    for index, seq in enumerate(seqs):
        if seq > newest:
            newest = seq
        else:
            repeats[index] = log.at(seq)
    return repeats


def _receipt(session: StoredSession, seqs: Sequence[int], repeats: Mapping[int, bytes]) -> Receipt:
    return Receipt(
        seqs,
        session.revision,
        session.log.count,
        session.updated,
        session.incarnation,
        repeats,
        session.log.oldest_seq if session.log.oldest_seq > 1 else 0,
    )


def _snapshot(
    session: StoredSession,
    app: dict[str, bytes],
    user: dict[str, bytes],
    events: Sequence[bytes] = (),
    runs: Sequence[range] = (),
    after_seq: int = 0,
) -> Snapshot:
    return Snapshot(
        session_id=session.session_id,
        incarnation=session.incarnation,
        created=session.created,
        updated=session.updated,
        revision=session.revision,
        last_seq=session.log.count,
        app=app,
        user=user,
        session=session.state.read(),
        events=events,
        seqs=seqs_of(runs),
        first_seq=session.log.taken.first_seq,
        oldest_seq=session.log.oldest_seq,
        kept_to=session.log.taken.kept_to(after_seq),
    )
