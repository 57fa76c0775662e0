"""What applications hold: the service, over any backend.

It checks and encodes what comes in, routes state to its scopes, and decodes and merges what goes
out; all decisions about stored data are the backend's. Nothing here waits for anything but the
backend, except that what takes long lets other tasks run in between (``agentsession._pace``).
"""

from __future__ import annotations

import asyncio
import os
from contextlib import nullcontext
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final, Self

from agentsession._misuse import AsyncContext
from agentsession._pace import Pace
from agentsession._service.arguments import (
    AppPosition,
    at_most,
    check_app,
    check_batch,
    check_event,
    check_flag,
    check_observers,
    check_results,
    check_session,
    check_state,
    check_user,
    check_write,
    decode_cursor,
    encode_cursor,
    natural,
    optional_natural,
    window,
)
from agentsession._service.assembly import (
    apply_temporary,
    as_stored,
    assemble,
    read_scope,
)
from agentsession._service.chunks import Chunks
from agentsession._service.following import Following
from agentsession._service.leasing import (
    check_lease,
    check_run_id,
    checked_claim,
    checked_wait,
)
from agentsession._service.listing import Found, sessions_of_app, sessions_of_user
from agentsession._service.loading import Loader
from agentsession._service.log import ContentType, LogReader, event_filter
from agentsession._service.observing import observe
from agentsession._service.rewinding import Rewinding, mark
from agentsession._service.turns import Turns, named_by, writing_with
from agentsession._service.writing import Writer
from agentsession._wording import described, described_app
from agentsession.backend import (
    ANYTHING,
    SMALLEST_EVENT,
    Backend,
    Expected,
    Position,
    ReadLimit,
)
from agentsession.errors import (
    ClosedError,
    EventLoopError,
)
from agentsession.events import Event, ToolResult, new_id
from agentsession.history import View
from agentsession.retention import DEFAULT_READ_SIZE, LARGEST, MEBIBYTE, Duration, positive
from agentsession.sessions import Session, SessionKey, SessionPage, UserKey, UserPage
from agentsession.state import (
    APP_PREFIX,
    DELETE,
    USER_PREFIX,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from agentsession.backend import Then, WhenBusy, Window
    from agentsession.concerns import Concern
    from agentsession.history import OpenCalls
    from agentsession.leases import Lease, TurnStart
    from agentsession.observers import Observer
    from agentsession.subscriptions import Subscription, UserSubscription

__all__ = ["ContentType", "SessionService"]

_MAX_BATCH: Final = 1000
_MAX_PAGE: Final = 1000
# The context of a write that need not wait.
_ROOM: Final = nullcontext()


class SessionService(AsyncContext):
    """Sessions of agents: for each conversation a log of events, and state in three scopes.

    Applications usually make an :class:`~agentsession.InMemorySessionService` or a
    :class:`~agentsession.RedisSessionService`; both are this class with a backend chosen. A service
    is used from one event loop, by any number of tasks, with or without ``async with``;
    :meth:`aclose` lets go of what it holds.

    Guarantees, the same on every backend:

    - Each write takes effect in one step or not at all, also if its caller is cancelled. A write
      that returns was stored.
    - Writers never lose each other's state; readers all see the same order of events, that of
      ``seq``.
    - No object that comes out or goes in is shared with the store.

    Every method may raise :exc:`~agentsession.errors.ClosedError`,
    :exc:`~agentsession.errors.EventLoopError`, :exc:`~agentsession.errors.CodecError` and
    :exc:`~agentsession.errors.BackendError`; see :mod:`agentsession.errors`.

    Args:
        backend: Keeps the data.
        max_event_size: The largest encoded event, in bytes.
        max_value_size: The largest encoded state value, in bytes.
        max_read_size: The most events that one read returns, in encoded bytes in all (at least 100
            for each event); ``None`` for any amount. State does not count, nor does what
            :meth:`append_event` brings a session up to date with.
        observers: Objects that are told of each operation; see :mod:`agentsession.observers`. A
            backend that tells of its own doings is given them as well.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_event_size: int = MEBIBYTE,
        max_value_size: int = MEBIBYTE,
        max_read_size: int | None = DEFAULT_READ_SIZE,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._backend = backend
        self._max_event_size = positive("max_event_size", max_event_size)
        self._max_value_size = positive("max_value_size", max_value_size)
        self._read_limit = _read_limit(max_read_size, self._max_event_size)
        self._writer = Writer(
            backend, self._max_event_size, self._max_value_size, self._check_usable
        )
        loader = Loader(backend, self._read_limit)
        self._turns = Turns(backend, self._writer, loader, self._read_limit)
        self._rewinding = Rewinding(backend, self._writer, loader, self._read_limit)
        self._following = Following(backend, self._read_limit, self._check_usable)
        self._chunks = Chunks(backend, self._max_event_size)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._closed = False
        if observers := check_observers(observers):
            observe(self, SessionService, observers)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{' closed' if self._closed else ''} {self._backend!r}>"

    @property
    def backend(self) -> Backend:
        """The backend; a second service over it sees the same data, as another process would."""
        return self._backend

    @property
    def max_event_size(self) -> int:
        """The largest encoded event, in bytes."""
        return self._max_event_size

    @property
    def max_value_size(self) -> int:
        """The largest encoded state value, in bytes."""
        return self._max_value_size

    @property
    def always_readable(self) -> int:
        """How many events one read always returns, whatever is in them; more may be too many."""
        return LARGEST if self._read_limit is None else self._read_limit.harmless

    async def __aenter__(self) -> Self:
        self._check_usable()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of connections and tasks; may be called again. Data on a server stays.

        Raises:
            EventLoopError: It was used on another event loop, and has to be closed on that one.
        """
        if self._loop is not None:
            self._check_loop()
        self._closed = True
        self._following.close()
        await self._turns.aclose()
        await self._chunks.aclose()
        await self._backend.aclose()
        self._loop = None  # Nothing is left that belongs to it.

    async def check(self) -> list[Concern]:
        """Look for what endangers the data; worth a call when a program starts.

        On Redis: a server that evicts, keeps no append-only file, fails to save, is a replica, is
        too old, or refuses scripts or their commands, and clocks that differ. Of a cluster one node
        is asked, since nodes are configured alike. In memory: that the data goes with the process.
        In a file: a network file system, a disk that is full, no right to write, a newer format,
        damage, and writes that a crash of the machine may lose; of a very large file the first part
        is looked at, for some three seconds.
        Nothing is changed and nothing is left behind.

        Returns:
            What there is to report, often nothing. :mod:`agentsession.concerns` lists the codes;
            whoever would rather not start than lose data looks at ``severity``.

        Raises:
            BackendUnavailableError: The server cannot be reached, or the file not be opened.
        """
        self._check_usable()
        return await self._backend.check()

    # -- sessions

    async def create_session(
        self, key: SessionKey, state: Mapping[str, Any] | None = None
    ) -> Session:
        """Make a new session.

        Args:
            key: Whose session; an empty ``session_id`` gets a generated one.
            state: Its first state. Names with the prefixes ``app:`` and ``user:`` go to those
                scopes; ``temp:`` names live in the returned object only.

        Returns:
            The new session, with the merged state of all scopes.

        Raises:
            SessionExistsError: The id is in use; nothing was changed.
            SessionNotFoundError: It was made, and somebody deleted it while the reply was lost.
            StateValueError: A value cannot be stored; nothing was changed.
        """
        key = self._identified(key)
        state = {} if state is None else state
        check_state(state)
        async with self._room(key, in_steps=bool(state)):
            changes = await self._writer.changes(state)
            snapshot = await self._backend.create(key, changes, token=new_id())
        session = await assemble(key, snapshot, Pace())
        apply_temporary(session, state)
        return session

    async def get_session(
        self,
        key: SessionKey,
        *,
        num_recent_events: int | None = None,
        since: datetime | None = None,
        after_seq: int | None = None,
    ) -> Session | None:
        """Return a session with its merged state and its events in order, all of one moment.

        The bounds on events add up; without any, all are returned. The cost grows with what is
        returned.

        Args:
            key: The session.
            num_recent_events: At most this many, the newest; 0 for none.
            since: Only events of this moment or later; aware. It compares with the event's
                timestamp, except that a timestamp ahead of the store's clock counts as the store's
                present, and one not after the event before it counts as just after that event.
            after_seq: Only events after this position.

        Returns:
            The session, or ``None`` if it does not exist or has expired.

        Raises:
            ReadTooLargeError: The events are over ``max_read_size``.
            TypeError: An argument has the wrong type.
            ValueError: *since* is naive, or a number is negative.
        """
        key = self._existing(key)
        bounds = window(num_recent_events, since, after_seq, self._read_limit)
        snapshot = await self._backend.get(key, bounds)
        return None if snapshot is None else await assemble(key, snapshot, Pace())

    async def get_or_create_session(
        self,
        key: SessionKey,
        state: Mapping[str, Any] | None = None,
        *,
        num_recent_events: int | None = None,
        since: datetime | None = None,
        after_seq: int | None = None,
    ) -> Session:
        """Return the session if it exists, and make it if it does not, in one step.

        Of any number of concurrent calls one makes it; *state* of the others is dropped, except
        ``temp:`` names.

        Args:
            key: Whose session; an empty ``session_id`` gets a generated one.
            state: The first state of a session that is made, as for :meth:`create_session`.
            num_recent_events: As for :meth:`get_session`.
            since: As for :meth:`get_session`.
            after_seq: As for :meth:`get_session`.

        Raises:
            ReadTooLargeError: The events are over ``max_read_size``.
            StateValueError: A value cannot be stored; nothing was changed.
            TypeError: An argument has the wrong type.
            ValueError: *since* is naive, or a number is negative.
        """
        key = self._identified(key)
        state = {} if state is None else state
        check_state(state)
        bounds = window(num_recent_events, since, after_seq, self._read_limit)
        async with self._room(key, in_steps=bool(state)):
            changes = await self._writer.changes(state)
            snapshot = await self._backend.get_or_create(key, changes, bounds)
        session = await assemble(key, snapshot, Pace())
        apply_temporary(session, state)
        return session

    async def list_sessions(
        self, owner: UserKey | str, *, limit: int = 50, cursor: str | None = None
    ) -> SessionPage:
        """Return a page of sessions, with merged state and without events.

        They are those of a user, or of all users of an application: then one user after the other,
        as :meth:`list_users` has them. Of each user the newest activity comes first; activity is
        any write to a session. A session that becomes active while pages are being read moves to
        the front, and shows again only if reading begins anew; the others are neither skipped nor
        shown twice. The cost grows with the page, not with the number of sessions.

        A session that cannot be read, of a newer format or damaged, is named in ``unreadable`` and
        counts for *limit*; the others are there.

        Args:
            owner: The user, or the name of an application; a
                :class:`~agentsession.SessionKey` is neither.
            limit: The size of the page, from 1 to 1,000.
            cursor: ``next_cursor`` of the page before.

        Raises:
            CodecError: State of the user or of the application cannot be read.
            TypeError: An argument has the wrong type.
            ValueError: *limit* is out of its range, or *cursor* is none of ours.
        """
        self._check_usable()
        at_most("limit", limit, _MAX_PAGE)
        found: Found
        following: Position | AppPosition | None
        if isinstance(owner, str):
            check_app(owner)
            after = None if cursor is None else decode_cursor(cursor, AppPosition, "SessionPage")
            found, following = await sessions_of_app(self._backend, owner, limit, after)
        else:
            check_user(owner)
            before = None if cursor is None else decode_cursor(cursor, Position, "SessionPage")
            found, following = await sessions_of_user(self._backend, owner, limit, before)
        return SessionPage(
            sessions=found.sessions,
            next_cursor=None if following is None else encode_cursor(following),
            unreadable=found.unreadable,
        )

    async def list_users(
        self, app_name: str, *, limit: int = 50, cursor: str | None = None
    ) -> UserPage:
        """Return a page of an application's users: all who have a session, or state.

        They come in the order of their ids, so that pages which are read one after the other have
        each user once who is there all the while. The cost grows with the page, not with the number
        of users.

        On Redis a page that is asked for looks through the names of the server's keys, a thousand
        in a round trip, if that was not done within the last hour, or if the list has expired or
        was evicted. So it also finds users whom a version without this list has stored, and what a
        failover may have cost.

        Args:
            app_name: The application.
            limit: The size of the page, from 1 to 1,000.
            cursor: ``next_cursor`` of the page before.

        Raises:
            BackendUnavailableError: Data moves between the nodes of a cluster, so that the list
                cannot be known to be complete; ask again later.
            TypeError: An argument has the wrong type.
            ValueError: *limit* is out of its range, or *cursor* is none of ours.
        """
        self._check_usable()
        check_app(app_name)
        at_most("limit", limit, _MAX_PAGE)
        after = "" if cursor is None else decode_cursor(cursor, str, "UserPage")
        found = await self._backend.list_users(app_name, limit, after)
        return UserPage(
            users=[UserKey(app_name, user_id) for user_id in found.user_ids],
            next_cursor=None if found.next is None else encode_cursor(found.next),
        )

    async def delete_session(self, session_or_key: Session | SessionKey) -> None:
        """Delete a session with its events and its state; an absent one is no error.

        The state of the application and of the user stays. Of a :class:`~agentsession.Session` the
        very session is deleted that it was read from: one that was made anew since stays, and that
        is no error either.
        """
        _, key, expected = self._target(session_or_key)
        await self._backend.delete(key, expected=expected)

    async def delete_user(self, user_key: UserKey) -> None:
        """Erase a user: every session with its events, and the user's state.

        An absent user is no error. Each session goes in one step, all of them in several; repeat
        the call if it fails midway.
        """
        self._check_usable()
        check_user(user_key)
        await self._backend.delete_user(user_key)

    # -- events

    async def append_event(
        self,
        session_or_key: Session | SessionKey,
        event: Event,
        *,
        expected_revision: int | None = None,
        lease: Lease | None = None,
    ) -> Event:
        """Add an event to the end of a session's log and apply its ``state_delta``, in one step.

        An event whose id is in the log already, also if it was taken back, is a repeat: it stores
        nothing, whatever its content, and the answer is the event that is stored. (The id of an
        event that the limit has trimmed is remembered for 1,000 events more.) A partial event is
        returned as it is and never stored; who follows the session (:meth:`subscribe`) may get it.

        Args:
            session_or_key: The session. A :class:`~agentsession.Session` must be of the session
                that is stored, not of one that was deleted and made anew since; it is brought up to
                date, as its class says. ``temp:`` names of the event's ``state_delta`` are set in
                it if the event is stored as it was given, be it by an earlier call.
            event: The event.
            expected_revision: Store only if the session's revision is still this one. A repeat is
                answered in any case.
            lease: Store only if the turn of this lease has the session still. An event without an
                ``invocation_id`` gets that of the lease; one with an ``outcome`` gives it back.

        Returns:
            The event as it is stored, with its ``seq``: for a repeat the first one. Only if the
            limit has trimmed that one, it is the given event with the position of the first.

        Raises:
            SessionNotFoundError: The session does not exist, was deleted, or has expired, or was
                made anew since the Session was read; nothing was stored.
            RevisionConflictError: The revision is another one; nothing was stored.
            LeaseLostError: The lease ran out, was given back or was taken over; nothing was stored.
            SessionBusyError: No lease was given, and another turn has an exclusive one; nothing was
                stored.
            EventTooLargeError: The event is over ``max_event_size``; nothing was stored.
            StateValueError: A value cannot be stored; nothing was stored.
            TypeError: *event* is no event.
            ValueError: A field of the event is wrong: a naive timestamp, an empty author.
        """
        session, key, expected = self._target(session_or_key, expected_revision)
        if _is_partial(event):
            self._chunks.send(key, event)
            return event
        self._chunks.overtake(key, (event,))
        if lease is not None:
            return await self._append_to_turn(session, key, event, expected, lease)
        if self._backend.crowded:
            async with self._backend.room(key):
                return await self._append(session, key, event, expected)
        return await self._append(session, key, event, expected)

    async def _append(
        self,
        session: Session | None,
        key: SessionKey,
        event: Event,
        expected: Expected,
        then: Then = "keep",
    ) -> Event:
        entry, prepared = self._writer.prepare(key, event)
        receipt = await self._backend.append(key, (entry,), expected=expected, then=then)
        stored = as_stored(receipt, 0, entry, prepared)
        if session is not None:
            await self._writer.update(session, receipt, (entry,), (stored,), (event,))
        return stored

    async def append_events(
        self,
        session_or_key: Session | SessionKey,
        events: Iterable[Event],
        *,
        expected_revision: int | None = None,
        lease: Lease | None = None,
        rewind_to: int | None = None,
        restore_state: bool = True,
    ) -> list[Event]:
        """Add several events in one step: all of them, in this order, or none.

        As :meth:`append_event` otherwise. The revision grows by one for the batch, if any of it is
        new. An id that comes twice is a repeat of its first event.

        With *rewind_to* the log goes back first, in the same step, as :meth:`rewind` does it: so an
        edited message, another answer or a compacted history takes the place of what came after
        that event. A repeat of all of it changes nothing.

        Args:
            session_or_key: The session; brought up to date if it is a
                :class:`~agentsession.Session`.
            events: Up to 1,000 events, of up to 64 MiB and 100,000 changes to state in all.
            expected_revision: Store only if the session's revision is still this one.
            lease: As for :meth:`append_event`. Only the last event may have an ``outcome``.
            rewind_to: The event to go back to, as *to_seq* of :meth:`rewind`.
            restore_state: As for :meth:`rewind`.

        Returns:
            The events as they are stored, with their ``seq``; partial ones as they were.

        Raises:
            RewindError: As for :meth:`rewind`; or one of the events was stored before, and others
                were not. Nothing was stored.
        """
        session, key, expected = self._target(session_or_key, expected_revision)
        given = check_batch(events, _MAX_BATCH)
        whole = [event for event in given if not _is_partial(event)]
        if rewind_to is not None:
            to_seq = natural("rewind_to", rewind_to)
            run_id = "" if lease is None else check_lease(lease).run_id
            check_flag("restore_state", restore_state)
            expected = await self._rewinding.check_place(
                key, to_seq, expected, run_id=run_id, instead=whole
            )
            whole.insert(0, mark(to_seq, whole, restores_state=restore_state, run_id=run_id))
        stored: list[Event] = []
        if whole:
            self._chunks.overtake(key, whole)
            if lease is None:
                stored = await self._append_each(session, key, whole, expected)
            else:
                stored = await self._append_each_to_turn(session, key, whole, expected, lease)
        # Of the chunks, those that no whole event of the batch has overtaken.
        last = [*takewhile(_is_partial, reversed(given))]
        for event in reversed(last):
            self._chunks.send(key, event)
        in_order = iter(stored if rewind_to is None else stored[1:])
        return [event if event.partial else next(in_order) for event in given]

    async def _append_each(
        self,
        session: Session | None,
        key: SessionKey,
        events: Sequence[Event],
        expected: Expected,
        then: Then = "keep",
    ) -> list[Event]:
        """Append whole events in one step."""
        async with self._room(key, in_steps=len(events) > 1):
            pairs, names = await self._writer.prepare_each(key, events)
            entries = [entry for entry, _ in pairs]
            check_write([entry.payload for entry in entries], names, self._max_event_size)
            receipt = await self._backend.append(key, entries, expected=expected, then=then)
        pace = Pace()
        stored: list[Event] = []
        for index, pair in enumerate(pairs):
            if pace.due():
                await pace.rest()
            stored.append(as_stored(receipt, index, *pair))
        if session is not None:
            await self._writer.update(session, receipt, entries, stored, events)
        return stored

    async def _append_to_turn(
        self,
        session: Session | None,
        key: SessionKey,
        event: Event,
        expected: Expected,
        lease: Lease,
    ) -> Event:
        """Append a whole event with a lease, and give it back if it ends the turn."""
        with writing_with(lease, key, [event], expected) as (naming, then):
            async with self._room(key, in_steps=False):
                return await self._append(session, key, named_by(lease, event), naming, then)

    async def _append_each_to_turn(
        self,
        session: Session | None,
        key: SessionKey,
        events: Sequence[Event],
        expected: Expected,
        lease: Lease,
    ) -> list[Event]:
        """Append whole events with a lease, and give it back if they end the turn."""
        with writing_with(lease, key, events, expected) as (naming, then):
            named = [named_by(lease, event) for event in events]
            return await self._append_each(session, key, named, naming, then)

    async def rewind(
        self,
        session_or_key: Session | SessionKey,
        *,
        to_seq: int,
        restore_state: bool = True,
        expected_revision: int | None = None,
        lease: Lease | None = None,
        num_recent_events: int | None = None,
    ) -> Session:
        """Take the end of a session back, so that it is again as it was right after an event.

        Nothing is deleted: what comes after that event is marked as taken back, in one step, by an
        event of its own. Readers do not see these events any more, and ``get_events(raw=True)``
        sees them all. The next event gets the next ``seq``, so those of the log have a gap there.

        The session's own state is again as it was right after that event; states of the user and
        of the application stay as they are, since other sessions share them. A turn that runs, or
        waits for an answer, loses the session and is taken back with the rest: whatever it still
        writes raises :exc:`~agentsession.errors.LeaseLostError`. A message that was taken back is
        not answered when it comes again (:exc:`~agentsession.errors.EventGoneError`); send it with
        a new id. What was taken back counts for the event limit as long as the log holds it.

        To put something in the place of what is taken back, use :meth:`append_events` with
        *rewind_to*.

        Args:
            session_or_key: The session; brought up to date if it is a
                :class:`~agentsession.Session`.
            to_seq: The event to go back to, which is the last one of a turn, or belongs to none; 0
                for the beginning.
            restore_state: Whether the session's state goes back too.
            expected_revision: Go back only if the session's revision is still this one.
            lease: As for :meth:`append_event`. Its turn may go back to an event of its own, and
                goes on.
            num_recent_events: Of a session that is named by its key, load at most this many events;
                of those that are more than ``max_read_size``, the newest are loaded.

        Returns:
            The session as it is now; the very object if one was given.

        Raises:
            RewindError: That event was trimmed, or taken back before, or is not stored yet; it is
                in the middle of a turn; or *to_seq* is 0, state is to be restored, and the limit
                has trimmed what it was. Nothing was stored.
            SessionNotFoundError: The session does not exist, or was made anew since the Session was
                read.
            RevisionConflictError: The revision is another one; nothing was stored.
            SessionBusyError: No lease was given, and another turn has an exclusive one; nothing was
                stored.
            LeaseLostError: As for :meth:`append_event`.
            OutcomeUnknownError: It went back, and could not be loaded afterwards, as the error
                says; or it is not known whether it did.
            TypeError: An argument has the wrong type.
            ValueError: A number is negative.
        """
        session, key, expected = self._target(session_or_key, expected_revision)
        to_seq = natural("to_seq", to_seq)
        bounds = window(num_recent_events, None, None, self._read_limit)
        run_id = "" if lease is None else check_lease(lease).run_id
        check_flag("restore_state", restore_state)
        expected = await self._rewinding.check_place(key, to_seq, expected, run_id=run_id)
        event = mark(to_seq, (), restores_state=restore_state, run_id=run_id)
        with writing_with(lease, key, [event], expected) as (naming, _):
            return await self._rewinding.go_back(session, key, event, naming, bounds)

    async def fork(
        self,
        session_or_key: Session | SessionKey,
        new_key: SessionKey,
        *,
        at_seq: int | None = None,
        num_recent_events: int | None = None,
    ) -> Session:
        """Make a new session that begins as another one was right after an event, in one step.

        It has the same events with the same ``seq``, also those that were taken back, and its state
        is what that of the other one was then; so it can be rewound, and forked, as the other one
        can. From there on the two have nothing to do with each other. Who forks the whole of a
        session in the middle of a turn gets it closed in the new one, by whoever comes next, as
        ``"interrupted"``, or ``"abandoned"`` if its process has died; a turn that waits for answers
        waits in both.

        Args:
            session_or_key: The session to begin with; it does not change. Of a
                :class:`~agentsession.Session` it is the one that is stored, as it is there now.
            new_key: The new session, of the same user; an empty ``session_id`` gets a generated
                one.
            at_seq: The event, which is the last one of a turn; 0 for none. By default all of the
                log, and state as it is.
            num_recent_events: As for :meth:`rewind`.

        Returns:
            The new session.

        Raises:
            SessionExistsError: The id is in use; nothing was changed.
            SessionNotFoundError: The session to begin with does not exist, or was made anew since
                the Session was read; or the new one was deleted at once.
            RewindError: As for :meth:`rewind`; nothing was changed.
            OutcomeUnknownError: As for :meth:`rewind`.
            TypeError: An argument has the wrong type.
            ValueError: The new session is another user's, or a number is negative.
        """
        _, key, expected = self._target(session_or_key)
        new_key = self._identified(new_key)
        if new_key.user != key.user:
            msg = f"a fork belongs to the same user: {described(new_key)} is not of {key.user}"
            raise ValueError(msg)
        seq = optional_natural("at_seq", at_seq)
        bounds = window(num_recent_events, None, None, self._read_limit)
        return await self._rewinding.fork(key, new_key, seq, expected, bounds)

    async def get_events(
        self,
        session_or_key: Session | SessionKey,
        *,
        after_seq: int = 0,
        before_seq: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
        author: str | Collection[str] | None = None,
        branch: str | None = None,
        content_type: ContentType | None = None,
        around: int | str | None = None,
        raw: bool = False,
    ) -> list[Event]:
        """Return a page of a session's log.

        For the next page, pass the last event's ``seq`` as *after_seq*, or as *before_seq* when
        reading *newest_first*. Without filters a page is one read; with them as many as it takes to
        fill the page.

        Args:
            session_or_key: The session. A :class:`~agentsession.Session` must be of the session
                that is stored, since positions that were read from one mean nothing in another; it
                does not change.
            after_seq: Only events after this position.
            before_seq: Only events before this position.
            limit: The most events to return, from 1 to 1,000.
            newest_first: Read from the end of that range, and return the newest first.
            author: Only events of this author, or of these.
            branch: Only events of this branch and of those below it, which begin with it and a dot.
            content_type: Only events with content of this type.
            around: The ``seq`` or the id of an event: return a window of up to *limit* events
                around it, half of the others before it, the filters applied to them. Goes with
                neither *after_seq* nor *before_seq*.
            raw: Whether to return what was taken back too, and the marks of rewinds, in the order
                in which all of it was stored.

        Raises:
            CodecError: The event of *around* cannot be read; elsewhere in the page another stands
                for such an event, see :class:`~agentsession.Event`.
            SessionNotFoundError: The session does not exist or has expired, or was made anew since
                the Session was read.
            EventNotFoundError: The log does not hold the event of *around*.
            ReadTooLargeError: The events are over ``max_read_size``; what a filter leaves out does
                not count.
            TypeError: An argument has the wrong type.
            ValueError: An argument is out of its range, or *around* is combined with a position.
        """
        _, key, expected = self._target(session_or_key)
        after_seq = natural("after_seq", after_seq)
        at_most("limit", limit, _MAX_PAGE)
        before_seq = optional_natural("before_seq", before_seq)
        wanted = event_filter(author, branch, content_type)
        reader = LogReader(self._backend, key, wanted, self._read_limit, expected, raw=raw)
        if around is None:
            return await reader.page(
                after_seq=after_seq, before_seq=before_seq, limit=limit, newest_first=newest_first
            )
        if after_seq or before_seq is not None:
            msg = "around gives its own positions; it goes with neither after_seq nor before_seq"
            raise ValueError(msg)
        found = await reader.around(around, limit=limit)
        return found[::-1] if newest_first else found

    async def get_history(
        self,
        session_or_key: Session | SessionKey,
        *,
        max_turns: int | None = None,
        max_tokens: int | None = None,
        count_tokens: Callable[[Event], int] | None = None,
        open_calls: OpenCalls = "close",
        from_user: bool = False,
    ) -> list[Event]:
        """Return what a model may be shown of a session: whole turns, every call with its result.

        :meth:`agentsession.history.View.of` has the rules. The log is read from its end, and no
        further back than it takes: of a long log, few turns cost as much as of a short one. Without
        *max_turns* and *max_tokens* all of it is read.

        Args:
            session_or_key: The session. A :class:`~agentsession.Session` must be of the session
                that is stored; it does not change.
            max_turns: At most this many turns, the newest ones; 1 or more.
            max_tokens: At most so many tokens, by *count_tokens*, but the newest turn in any case.
            count_tokens: Tells how many tokens an event takes. An event may be asked about more
                than once.
            open_calls: ``"close"`` to answer calls without a result by one that says so,
                ``"omit"`` to leave them out.
            from_user: Whether to leave out what comes before the first message of the user.

        Raises:
            SessionNotFoundError: The session does not exist or has expired, or was made anew since
                the Session was read.
            ReadTooLargeError: What has to be read is over ``max_read_size``.
            TypeError: An option has the wrong type.
            ValueError: An option is out of range, or only one of *max_tokens* and *count_tokens* is
                given.
        """
        _, key, expected = self._target(session_or_key)
        view = View(
            max_turns=max_turns,
            max_tokens=max_tokens,
            count_tokens=count_tokens,
            open_calls=open_calls,
            from_user=from_user,
        )
        return await LogReader(self._backend, key, None, self._read_limit, expected).history(view)

    # -- state

    async def update_session_state(
        self,
        session_or_key: Session | SessionKey,
        state: Mapping[str, Any],
        *,
        lease: Lease | None = None,
    ) -> None:
        """Merge these names into a session's state, in one step and without an event.

        Names with the prefixes ``app:`` and ``user:`` go to those scopes, ``temp:`` names nowhere;
        :data:`agentsession.state.DELETE` as a value deletes the name.

        Args:
            session_or_key: The session. A :class:`~agentsession.Session` must be of the session
                that is stored; it is brought up to date, as its class says.
            state: The names.
            lease: As for :meth:`append_event`.

        Raises:
            SessionNotFoundError: The session does not exist, or was made anew since the Session was
                read; nothing was stored in any scope.
            LeaseLostError: As for :meth:`append_event`.
            SessionBusyError: As for :meth:`append_event`.
            StateValueError: A value cannot be stored; nothing was stored.
        """
        session, key, expected = self._target(session_or_key)
        check_state(state)
        with writing_with(lease, key, [], expected) as (naming, _):
            async with self._room(key, in_steps=bool(state)):
                changes = await self._writer.changes(state)
                receipt = await self._backend.update_state(key, changes, expected=naming)
        if session is not None:
            await self._writer.update_state(session, receipt, changes)

    async def update_app_state(self, app_name: str, state: Mapping[str, Any]) -> None:
        """Merge these names into an application's state, in one step.

        Names may carry the prefix ``app:``, or not.

        Raises:
            StateValueError: A value cannot be stored, or a name belongs to another scope; nothing
                was stored.
        """
        self._check_usable()
        check_app(app_name)
        check_state(state)
        async with self._room(described_app(app_name), in_steps=bool(state)):
            changes = await self._writer.scope_changes(APP_PREFIX, state)
            await self._backend.update_app_state(app_name, changes)

    async def update_user_state(self, user_key: UserKey, state: Mapping[str, Any]) -> None:
        """Merge these names into a user's state, in one step.

        Names may carry the prefix ``user:``, or not.

        Raises:
            StateValueError: A value cannot be stored, or a name belongs to another scope; nothing
                was stored.
        """
        self._check_usable()
        check_user(user_key)
        check_state(state)
        async with self._room(user_key, in_steps=bool(state)):
            changes = await self._writer.scope_changes(USER_PREFIX, state)
            await self._backend.update_user_state(user_key, changes)

    async def get_app_state(self, app_name: str) -> dict[str, Any]:
        """Return an application's state, names without prefix; empty if there is none."""
        self._check_usable()
        check_app(app_name)
        scope = await self._backend.get_app_state(app_name)
        return await read_scope(scope, described_app(app_name), Pace())

    async def get_user_state(self, user_key: UserKey) -> dict[str, Any]:
        """Return a user's state, names without prefix; empty if there is none."""
        self._check_usable()
        check_user(user_key)
        return await read_scope(await self._backend.get_user_state(user_key), user_key, Pace())

    async def delete_app_state(self, app_name: str, key: str) -> None:
        """Delete one name of an application's state; an absent one is no error."""
        # By the class, since observers of this object are told of one operation and not of two.
        await type(self).update_app_state(self, app_name, {key: DELETE})

    async def delete_user_state(self, user_key: UserKey, key: str) -> None:
        """Delete one name of a user's state; an absent one is no error."""
        await type(self).update_user_state(self, user_key, {key: DELETE})  # As above.

    async def delete_session_state(self, session_or_key: Session | SessionKey, name: str) -> None:
        """Delete one name of a session's merged state; an absent name is no error.

        Raises:
            SessionNotFoundError: As for :meth:`update_session_state`.
        """
        await type(self).update_session_state(self, session_or_key, {name: DELETE})  # As above.

    # -- following

    def subscribe(
        self,
        session_or_key: Session | SessionKey,
        *,
        after_seq: int | None = None,
        partial: bool = True,
    ) -> Subscription:
        """Return the events of a session as they are stored, within ``async with``.

        First those that are stored already, after a position, then what comes, from any process:
        each exactly once and in the order of ``seq``, also where connections are lost meanwhile.
        Events that a rewind took back are among them, and :class:`Rewound
        <agentsession.subscriptions.Rewound>` tells of it in its turn, so that all followers see the
        same. What else may happen is told as well: see :mod:`agentsession.subscriptions`.

        An event arrives some milliseconds after it was stored. Where the store cannot tell of it,
        it is found when the log is looked at, every 30 seconds or, where sessions expire in less
        than two minutes, each quarter of that time. A slow follower reads on from the log when it
        is ready, and holds up nobody. Following does not count as reading for ``refresh_on_read``.

        Args:
            session_or_key: The session, which exists. A :class:`~agentsession.Session` must be of
                the session that is stored.
            after_seq: Only events after this position; ``None`` for all that the log holds. With
                ``session.last_seq`` of a loaded session it goes on where that ends.
            partial: Whether chunks of streams are wanted. Some may be lost; those of a stream whose
                whole event was handed out do not come any more.

        Raises:
            SessionNotFoundError: On entering: the session does not exist, or was made anew since
                the Session was read.
            TypeError: An argument has the wrong type.
            ValueError: *after_seq* is negative.
        """
        _, key, expected = self._target(session_or_key)
        after_seq = optional_natural("after_seq", after_seq)
        check_flag("partial", partial)
        return self._following.session(key, after_seq, expected.incarnation, partial=partial)

    def subscribe_user(self, user: UserKey) -> UserSubscription:
        """Return what happens to the sessions of a user from now on, within ``async with``.

        They are made, written to and deleted, and turns in them begin and end; by any process. For
        a list of sessions that is to stay up to date. Of a session that expires nothing is told.

        Args:
            user: The user, who need not have a session yet.

        Raises:
            TypeError: *user* is no :class:`~agentsession.UserKey`.
        """
        self._check_usable()
        check_user(user)
        return self._following.user(user)

    # -- turns

    def lease(
        self,
        session_or_key: Session | SessionKey,
        *,
        when_busy: WhenBusy = "queue",
        wait: Duration = 30.0,
        ttl: Duration = 15.0,
        grace: Duration = 5.0,
        exclusive: bool = False,
        run_id: str | None = None,
    ) -> Lease:
        """Return the right to write a turn to a session, which ``async with`` takes.

        At most one turn has a session's lease at any moment, across all processes. What a turn
        writes with ``lease=`` is checked in the step in which it is stored: when its lease has run
        out, or another turn has taken over, nothing is stored any more. Writes without ``lease=``,
        of tools and other writers, are let through unless the lease is *exclusive*.

        It is renewed by itself as long as the event loop runs. Taking and renewing it move the
        expiry of the session, so that no session expires in the middle of a turn. If its process
        dies, whoever comes next takes over when *ttl* has passed; what the dead turn left is closed
        then, as :meth:`close_turn` does.

        Args:
            session_or_key: The session, which exists. A :class:`~agentsession.Session` must be of
                the session that is stored.
            when_busy: What to do while another turn has the lease. ``"queue"``: stand in line, in
                the order of arrival, which all processes share; up to 100 may. ``"reject"``: raise
                :exc:`~agentsession.errors.SessionBusyError`. ``"interrupt"``: have the other turn
                told to stop, wait for its *grace*, and take the lease from it then; of several that
                interrupt the last one has it.
            wait: How long to stand in line, in seconds or as a timedelta, 0 or more.
            ttl: How long the lease lives without being renewed, from 1 to 3,600 seconds. So long it
                takes until others can go on where a process has died.
            grace: How long a turn that is interrupted may take to end, in seconds, 0 or more.
            exclusive: Whether all other writes to the session are refused meanwhile; to delete it
                is not.
            run_id: The turn, of up to 1,000 characters; a new id by default. Two leases may have
                the same one, when a turn is tried again.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is out of its range.
        """
        _, key, expected = self._target(session_or_key)
        claim = checked_claim(
            self._backend.new_owner(),
            when_busy=when_busy,
            ttl=ttl,
            grace=grace,
            exclusive=exclusive,
            run_id=run_id,
        )
        seconds = checked_wait(wait)
        return self._turns.lease(key, claim, wait=seconds, incarnation=expected.incarnation)

    async def begin_turn(
        self, lease: Lease, message: Event, *, num_recent_events: int | None = None
    ) -> TurnStart:
        """Take a lease, store the message that begins its turn, and load the session.

        All of it takes one round trip where the session exists and nobody else has its lease; the
        session is made if it does not exist. A turn that was left unended is closed first. Where
        another turn has the session and the lease waits, the message is stored afterwards.

        If the events to load are more than ``max_read_size``, the newest are loaded: at least half
        of those that would fit, and never fewer than :attr:`always_readable`.

        Args:
            lease: A lease of this service that was not taken yet.
            message: What the user says, or what else begins the turn.
            num_recent_events: Load at most this many events before the message, the newest.

        Raises:
            SessionBusyError: Another turn has the session, and the lease does not wait, or not any
                longer; or a turn of the same ``run_id`` has it, for which no lease waits. Nothing
                was stored.
            SessionNotFoundError: The session was deleted, or made anew, meanwhile.
            LeaseLostError: Another turn has taken the session over already: before anything was
                stored, or, if ``has_begun`` is true, after the message was, since the store's
                answer to that was lost.
            OutcomeUnknownError: No answer came; or the message may be stored, and the server
                failed, or the service was closed, before the turn had begun. Repeat it with the
                same message: it is stored once.
            EventGoneError: The message was stored before, and has been taken back or trimmed since.
            EventTooLargeError: As for :meth:`append_event`, and so are the other errors of a wrong
                event.
        """
        self._check_usable()
        bounds = self._with_one_more(num_recent_events)
        if _is_partial(message):
            msg = "a chunk of a stream begins no turn: the message is partial"
            raise ValueError(msg)
        if message.outcome:
            msg = f"a message begins a turn, and cannot end it: outcome is {message.outcome!r:.80}"
            raise ValueError(msg)
        return await self._turns.begin(check_lease(lease), message, bounds)

    def _with_one_more(self, num_recent_events: int | None) -> Window:
        """Tell which events to load at the beginning of a turn: its message counts extra."""
        most = optional_natural("num_recent_events", num_recent_events)
        return window(None if most is None else most + 1, None, None, self._read_limit)

    async def resume_turn(
        self,
        lease: Lease,
        results: Sequence[ToolResult],
        *,
        num_recent_events: int | None = None,
    ) -> TurnStart:
        """Take a lease to go on with the turn that waits, and store the results it waits for.

        A turn waits when it ended with the outcome ``"waiting"``. Any process may go on with it,
        once: of several that bring a result of the same call, one is let through. The lease gets
        the turn's ``run_id``. If other calls of the turn are open still, it waits on: then the
        lease is over when this returns, and the ``outcome`` of the message is ``"waiting"``.

        If no call of the turn is open any more, since another writer has answered all of them, or
        the event limit has trimmed them, the turn goes on with whatever results are brought.

        Args:
            lease: A lease of this service that was not taken yet. It does not wait.
            results: At least one, each for a call that the turn waits for.
            num_recent_events: As for :meth:`begin_turn`.

        Returns:
            The session, and as its message the event with the results.

        Raises:
            CallNotOpenError: No turn waits for a result of one of these calls: it was answered
                before, was never made, or the turn does not wait any more. Nothing was stored.
            SessionBusyError: Somebody else goes on with the turn at this moment.
            SessionNotFoundError: The session does not exist.
            TypeError: A result is none.
            ValueError: There is no result.
        """
        self._check_usable()
        bounds = self._with_one_more(num_recent_events)
        return await self._turns.resume(check_lease(lease), check_results(results), bounds)

    async def stop_run(
        self, session_or_key: Session | SessionKey, run_id: str | None = None
    ) -> bool:
        """Have whoever runs a turn on this session, in any process, told to stop.

        It is told within moments, and at the latest when its lease is renewed, which is after a
        third of its time to live. It ends its turn as ``"cancelled"``.

        Args:
            session_or_key: The session.
            run_id: The turn; ``None`` for whichever has the session.

        Returns:
            Whether there was one to tell.

        Raises:
            SessionNotFoundError: The session does not exist.
            RunNotFoundError: The turn of *run_id* does not have the session: it is over, or waits
                for its turn or for an answer.
        """
        _, key, _ = self._target(session_or_key)
        if run_id is not None:
            check_run_id(run_id)
        return await self._turns.stop(key, run_id)

    async def close_turn(self, session_or_key: Session | SessionKey) -> Event | None:
        """Close a turn whose process has died, if there is one.

        Whoever next takes the session's lease does so too; this is for those who cannot wait for
        that, such as a job that looks after sessions. Each call of a tool that has no result gets
        one which says that the tool may or may not have run, and the turn its end: ``"abandoned"``,
        or what it had been told to stop for.

        Returns:
            The event that ends the turn; ``None`` if there was nothing to close.

        Raises:
            SessionBusyError: A turn has the session, and its lease has not run out.
            SessionNotFoundError: The session does not exist.
        """
        _, key, expected = self._target(session_or_key)
        return await self._turns.close(key, expected.incarnation)

    # -- what comes in

    def _check_usable(self) -> None:
        """Refuse use after closing, and from another loop than the first one."""
        if self._closed:
            raise ClosedError
        self._check_loop()

    def _check_loop(self) -> None:
        """Take the running loop as the service's own, or refuse it if there is one already."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not None and self._loop is loop:
            return
        if loop is None or self._loop is not None:
            raise self._loop_error()
        self._loop, self._process = loop, os.getpid()

    def _loop_error(self) -> EventLoopError:
        """Tell why the service's own loop is not the one that runs."""
        if self._loop is None:
            return EventLoopError("none")
        if self._process != os.getpid():
            return EventLoopError("forked")
        return EventLoopError("ended" if self._loop.is_closed() else "another")

    def _room(
        self, subject: SessionKey | UserKey | str, *, in_steps: bool
    ) -> AbstractAsyncContextManager[None]:
        """Wait for room before a write is encoded, so that what waits takes no memory."""
        if in_steps:
            return self._backend.room(subject, in_steps=True)
        return self._backend.room(subject) if self._backend.crowded else _ROOM

    def _existing(self, key: SessionKey) -> SessionKey:
        """Check a key that must name a session."""
        self._check_usable()
        return check_session(key)

    def _identified(self, key: SessionKey) -> SessionKey:
        """Check a key for a session that may be new, and complete it."""
        if isinstance(key, SessionKey) and not key.session_id:
            key = SessionKey(key.app_name, key.user_id, new_id())
        return self._existing(key)

    def _target(
        self, session_or_key: Session | SessionKey, expected_revision: int | None = None
    ) -> tuple[Session | None, SessionKey, Expected]:
        """Check which session a call is for, and what it takes for granted of it."""
        session, incarnation = None, ""
        if isinstance(session_or_key, Session):
            session, incarnation = session_or_key, session_or_key.incarnation
            session_or_key = session.key
        key = self._existing(session_or_key)
        revision = optional_natural("expected_revision", expected_revision)
        if incarnation or revision is not None:
            return session, key, Expected(incarnation, revision)
        return session, key, ANYTHING


def _read_limit(size: int | None, max_event_size: int) -> ReadLimit | None:
    """Make a limit of the option, under which any single event can be read."""
    if size is None:
        return None
    size = positive("max_read_size", size)
    if size < max_event_size:
        msg = f"max_read_size must not be under max_event_size ({max_event_size:,}), as {size:,} is"
        raise ValueError(msg)
    return ReadLimit(size, harmless=max(1, size // max(max_event_size, SMALLEST_EVENT)))


def _is_partial(event: Event) -> bool:
    """Tell a chunk of a stream from a whole event, and refuse what is neither."""
    check_event(event)
    return event.partial is True
