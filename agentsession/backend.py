"""What the author of a backend implements: a few atomic operations on bytes.

A backend keeps what :class:`~agentsession.SessionService` gives it and decides what only the keeper
of the data can decide: whether a session exists, which position an event gets, whether an id was
seen before, what the limit trims and when things expire. It neither encodes nor decodes; it trusts
its arguments.

Rules for every operation:

- It takes effect in one step: no reader and no other writer sees half of it, and nor does anyone
  after a cancellation, a lost reply or a crash. Where application state lives on another node than
  the session, and only there, its part of the operation may be a second step, after the first one.
- It may be repeated: a backend that is not sure about an outcome repeats the operation itself, and
  what the repeat finds done it does not do again, so that it undoes nothing written since.
- Positions (``seq``) count from 1 without gaps, in the order in which appends took effect.
- A session, application state and user state each expire when their time to live
  (:class:`~agentsession.retention.Retention`) has passed since the last write to them, as a whole
  and at once: from that moment no operation finds them.
- A session that is deleted, or expires, and is made anew under its id is another session: another
  *incarnation*. An operation that expects one incarnation does nothing to any other.
- Points in time are microseconds since the epoch on the backend's own clock. They tell no two
  sessions apart, since clocks stand still and go back.

``agentsession.testing`` has a check for each sentence; a backend that passes them is a backend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from agentsession.errors import ReadTooLargeError
from agentsession.sessions import UnreadableSession
from agentsession.state import NO_CHANGES, Changes, ScopeChanges

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from agentsession.concerns import Concern
    from agentsession.retention import Retention
    from agentsession.sessions import SessionKey, UserKey

__all__ = [
    "ALL_EVENTS",
    "ANYTHING",
    "NO_EVENTS",
    "NO_REPEATS",
    "REMEMBERED_IDS",
    "SMALLEST_EVENT",
    "Backend",
    "Entry",
    "EventSlice",
    "Expected",
    "Position",
    "ReadLimit",
    "Receipt",
    "SessionSlice",
    "Snapshot",
    "UserSlice",
    "Window",
]

REMEMBERED_IDS: Final = 1000
"""How many trimmed events' ids a log remembers, so that a late repeat is recognised still.

A retry comes within seconds and a busy session appends some events a second, so a thousand is
minutes of margin; at 100 bytes each they cost 100 kB, and only for a session that reached its
limit.
"""


SMALLEST_EVENT: Final = 100
"""How many bytes an event counts as at least, when a read is measured.

The shortest one with a generated id and a timestamp takes 102. So a log that is far too long is
known to be by its length alone.
"""


class Entry(Struct, frozen=True):
    """One event on its way into a log.

    Attributes:
        event_id: Unique within the session.
        time: The event's own timestamp, in microseconds, 1 or more.
        payload: The encoded event.
        changes: What it does to state.
    """

    event_id: str
    time: int
    payload: bytes
    changes: Changes = NO_CHANGES


class Expected(Struct, frozen=True):
    """What a caller expects of a session; if it is not so, the operation changes nothing.

    Attributes:
        incarnation: The :attr:`Snapshot.incarnation` of the session, which tells it from a later
            session with the same id; ``""`` for any.
        revision: The revision of the session, which shows that nobody has written to it since;
            ``None`` for any. Only appends check it.
    """

    incarnation: str = ""
    revision: int | None = None


ANYTHING: Final = Expected()
"""Whatever session has the id, however far it is."""


class ReadLimit(Struct, frozen=True):
    """How much one read may return.

    Attributes:
        size: The limit, in bytes of encoded events in all; each event counts as at least
            :data:`SMALLEST_EVENT`.
        harmless: A number of events that can never exceed *size*, since the size of each event is
            limited too. Reads of this many or fewer, which most are, need not be measured.
    """

    size: int
    harmless: int

    def check(self, key: SessionKey, events: Sequence[bytes]) -> None:
        """Check how large encoded events of a session are in all, if there are enough to matter.

        Raises:
            ReadTooLargeError: They are more than one read may return.
        """
        if len(events) > self.harmless:
            size = max(sum(map(len, events)), len(events) * SMALLEST_EVENT)
            if size > self.size:
                raise ReadTooLargeError(key, len(events), size, self.size)


class Window(Struct, frozen=True, kw_only=True):
    """Which events of a log a reader wants: those that satisfy all three.

    Attributes:
        after_seq: Those after this position.
        since: Those whose time in the log is this or later, in microseconds. An event's time in the
            log is its own timestamp, but not later than the backend's present, and always later
            than that of the event before it. So the events since a time are always the newest ones.
        last: This many at the end; ``None`` for all.
        read_limit: How much that may be; ``None`` for any amount.
    """

    after_seq: int = 0
    since: int | None = None
    last: int | None = None
    read_limit: ReadLimit | None = None


ALL_EVENTS: Final = Window()
"""Every event that the log holds."""

NO_EVENTS: Final = Window(last=0)
"""No event at all."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """A session as it was at one moment.

    Attributes:
        session_id: The session's id.
        incarnation: Tells the session from every other one that ever had its id; not empty. The
            backend gives it when the session is made, from random bits, and it never changes.
        created: When it was created.
        updated: When it was last written to.
        revision: Counts the writes to it, from 1 for its creation.
        last_seq: The position of the newest event ever stored; 0 before the first.
        app: The application's state, encoded.
        user: The user's state, encoded.
        session: The session's own state, encoded.
        events: The encoded events that were asked for, in order.
        first_seq: The position of ``events[0]``.
    """

    session_id: str
    incarnation: str
    created: int
    updated: int
    revision: int
    last_seq: int
    app: dict[str, bytes] = {}
    user: dict[str, bytes] = {}
    session: dict[str, bytes] = {}
    events: Sequence[bytes] = ()
    first_seq: int = 0


NO_REPEATS: Final[Mapping[int, bytes]] = MappingProxyType({})
"""An empty mapping, for the usual write that repeats nothing."""


class Receipt(Struct, frozen=True):
    """What a write to a session did.

    Attributes:
        seqs: The position of each entry, also of one that had been stored before.
        revision: The session's revision now.
        last_seq: The position of its newest event now.
        updated: When it was last written to.
        incarnation: Which session was written to; see :class:`Snapshot`.
        repeats: The index of each entry that had been stored before, by an earlier call or earlier
            in this one, and the payload that was stored then; ``b""`` if the limit had trimmed that
            event before this call, and only its id was remembered.
    """

    seqs: Sequence[int]
    revision: int
    last_seq: int
    updated: int
    incarnation: str
    repeats: Mapping[int, bytes] = NO_REPEATS


class EventSlice(Struct, frozen=True):
    """A run of a log, in the order of the log.

    Attributes:
        first_seq: The position of ``events[0]``.
        events: The encoded events.
        incarnation: Which session they are of; see :class:`Snapshot`.
    """

    first_seq: int
    events: Sequence[bytes]
    incarnation: str


class Position(Struct, frozen=True, array_like=True):
    """A place in a user's list of sessions, which is ordered by (updated, session id)."""

    updated: int
    session_id: str


class SessionSlice(Struct, frozen=True):
    """A run of a user's list of sessions, newest activity first.

    Attributes:
        sessions: The sessions, without events.
        next: Where the list goes on; ``None`` at its end.
        unreadable: The sessions of this run whose record is not in the backend's format.
    """

    sessions: Sequence[Snapshot]
    next: Position | None
    unreadable: Sequence[UnreadableSession] = ()


class UserSlice(Struct, frozen=True):
    """A run of the list of an application's users.

    Attributes:
        user_ids: The users, in the order of their ids' code points.
        next: The id after which the list goes on; ``None`` at its end.
    """

    user_ids: Sequence[str]
    next: str | None


class Backend(ABC):
    """Keeps sessions, their logs and state in three scopes, by the rules of this module.

    Every method may raise :exc:`~agentsession.errors.BackendUnavailableError` if it could not serve
    and nothing was written, and each that writes :exc:`~agentsession.errors.OutcomeUnknownError` if
    it may have been, and :exc:`~agentsession.errors.CodecError` if it finds data that is not in its
    format.

    Args:
        retention: What to keep and for how long.
    """

    def __init__(self, retention: Retention) -> None:
        self.retention = retention

    @property
    def crowded(self) -> bool:
        """Whether so many calls are in progress that a writer has to wait in :meth:`room`.

        Always false for a backend whose calls do not wait in memory.
        """
        return False

    def room(
        self,
        subject: SessionKey | UserKey | str,  # noqa: ARG002 - there always is
        *,
        in_steps: bool = False,  # noqa: ARG002
    ) -> AbstractAsyncContextManager[None]:
        """Wait for room for one write, which is made within the block.

        The service waits here before it encodes, so that a waiting write takes no memory. It does
        so if the backend is :attr:`crowded`, and always if it encodes in several steps, between
        which other tasks run; only one such write at a time is between its first step and its call.

        Args:
            subject: Whose data it is about, for the error.
            in_steps: Whether it encodes in several steps.

        Raises:
            BackendUnavailableError: There was no room in time; nothing was written.
        """
        return nullcontext()

    @abstractmethod
    async def create(self, key: SessionKey, changes: Changes, *, token: str) -> Snapshot:
        """Make a session with an empty log and this state.

        Args:
            key: The session, with an id.
            changes: The first state, and changes to the other scopes.
            token: Unique to this call, from random bits, so that it may serve as the session's
                incarnation. A repeat with the same token finds its own session, and succeeds.

        Raises:
            SessionExistsError: The session exists; nothing was changed in any scope.
            SessionNotFoundError: This call made it, and somebody deleted it before the call was
                known to have succeeded.
        """

    @abstractmethod
    async def get_or_create(self, key: SessionKey, changes: Changes, window: Window) -> Snapshot:
        """Return the session if it exists, and make it with this state if it does not.

        Of any number of concurrent calls, one makes it and applies its *changes*; the others'
        changes are dropped.

        Raises:
            ReadTooLargeError: As :meth:`get`.
        """

    @abstractmethod
    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        """Return the session with its scopes and the events in *window*, all of one moment.

        The cost grows with what is returned, not with the log.

        Raises:
            ReadTooLargeError: The events are more than the window's ``read_limit``; nothing was
                returned, and nothing sent to where it could have been.
        """

    @abstractmethod
    async def list_sessions(
        self, user: UserKey, limit: int, before: Position | None
    ) -> SessionSlice:
        """Return up to *limit* of a user's sessions, newest activity first, from *before* on.

        The session at *before* itself is not among them. Fewer than *limit* come only at the end.
        Sessions that are unreadable count, and hide no others.
        The cost grows with the slice, not with the user's sessions. Never counts as a read for
        ``refresh_on_read``.
        """

    @abstractmethod
    async def list_users(self, app_name: str, limit: int, after: str) -> UserSlice:
        """Return up to *limit* of an application's users, those that come after this id.

        A user of the application is whoever has a session or state that has not expired. All come
        in the order of their ids' code points, so that a run of slices has each of them once who is
        there all the while. Fewer than *limit* come only at the end. Whoever was there before the
        backend kept a list is found too. The cost grows with the slice, not with the number of
        users, except where the list is made for the first time, or anew.
        Never counts as a read for ``refresh_on_read``.
        """

    @abstractmethod
    async def delete(self, key: SessionKey, *, expected: Expected = ANYTHING) -> None:
        """Delete the session, its log and its place in the list; an absent one is no error.

        Nor is another incarnation than the expected one, which is left alone: what the caller
        meant is gone.
        """

    @abstractmethod
    async def delete_user(self, user: UserKey) -> None:
        """Delete all sessions of a user and the user's state; each session in one step."""

    @abstractmethod
    async def append(
        self, key: SessionKey, entries: Sequence[Entry], *, expected: Expected = ANYTHING
    ) -> Receipt:
        """Add entries to the end of the log and apply their changes to state; all of it or nothing.

        An entry whose id is in the log, or among the last
        :data:`~agentsession.backend.REMEMBERED_IDS` trimmed from it, was stored before, and so was
        one whose id came earlier in *entries*: whatever its content, it adds nothing and changes
        nothing, and the receipt tells what is stored. If all were
        stored before, nothing changes at all, whatever revision is expected. Otherwise the revision
        grows by one, every expiry of the session moves, and the oldest events beyond
        ``event_limit`` leave.

        Raises:
            SessionNotFoundError: The session does not exist, or is another incarnation than the
                expected one; nothing was written.
            RevisionConflictError: Its revision is not the expected one; nothing was written.
        """

    @abstractmethod
    async def read(
        self,
        key: SessionKey,
        *,
        after_seq: int,
        before_seq: int | None,
        limit: int,
        newest_first: bool,
        read_limit: ReadLimit | None = None,
        expected: Expected = ANYTHING,
    ) -> EventSlice:
        """Return up to *limit* events between two positions, both exclusive.

        They come from the lower end of that range, or from its upper end if *newest_first*; always
        in the log's order. The cost grows with *limit*, not with the log.

        Raises:
            SessionNotFoundError: The session does not exist, or is another incarnation than the
                expected one; nothing was returned, and nothing changed.
            ReadTooLargeError: The events are more than *read_limit*; nothing was returned.
        """

    @abstractmethod
    async def locate(
        self, key: SessionKey, event_id: str, *, expected: Expected = ANYTHING
    ) -> int | None:
        """Return the position of a stored event, or ``None`` if the log does not hold it now.

        Never counts as a read for ``refresh_on_read``; reading the event does.

        Raises:
            SessionNotFoundError: The session does not exist, or is another incarnation than the
                expected one.
        """

    @abstractmethod
    async def update_state(
        self, key: SessionKey, changes: Changes, *, expected: Expected = ANYTHING
    ) -> Receipt:
        """Apply changes to state without an event.

        The revision grows by one and every expiry of the session moves; without any changes
        nothing happens.

        Raises:
            SessionNotFoundError: The session does not exist, or is another incarnation than the
                expected one; no scope was changed.
        """

    @abstractmethod
    async def update_app_state(self, app_name: str, changes: ScopeChanges) -> None:
        """Apply changes to an application's state."""

    @abstractmethod
    async def update_user_state(self, user: UserKey, changes: ScopeChanges) -> None:
        """Apply changes to a user's state."""

    @abstractmethod
    async def get_app_state(self, app_name: str) -> dict[str, bytes]:
        """Return an application's state, empty if there is none."""

    @abstractmethod
    async def get_user_state(self, user: UserKey) -> dict[str, bytes]:
        """Return a user's state, empty if there is none."""

    async def check(self) -> list[Concern]:
        """Look for what endangers the data; an empty list if there is nothing to report.

        It changes nothing and leaves nothing behind. A backend that knows of no dangers needs no
        such method.

        Raises:
            BackendUnavailableError: The data's keeper cannot be reached, so nothing is known.
        """
        return []

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of connections and tasks; may be called again. Data on a server stays."""
