"""What goes into a backend and comes out of it: plain records of encoded data.

All of them can be imported from :mod:`agentsession.backend` as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

from agentsession.errors import ReadTooLargeError
from agentsession.events import Rewind
from agentsession.sessions import UnreadableSession
from agentsession.state import NO_CHANGES, Changes, ScopeChanges

if TYPE_CHECKING:
    from agentsession.sessions import SessionKey

__all__ = [
    "ALL_EVENTS",
    "ANYTHING",
    "LONGEST_LINE",
    "NEW",
    "NO_EVENTS",
    "NO_REPEATS",
    "PLACE_KEPT",
    "REMEMBERED_IDS",
    "SMALLEST_EVENT",
    "Before",
    "Beginning",
    "Claim",
    "Entry",
    "EventSlice",
    "Expected",
    "News",
    "PastSlice",
    "Position",
    "ReadLimit",
    "Receipt",
    "SessionSlice",
    "Snapshot",
    "Standing",
    "State",
    "Stop",
    "Then",
    "UnendedTurn",
    "UserSlice",
    "WhenBusy",
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
        rewind: What it takes back; only the first entry of an append may do so, and it changes no
            state besides.
        is_copy: Whether it was stored elsewhere before, and is copied together with the state that
            came of it. Then a rewind leaves state as it is, whatever it says.
    """

    event_id: str
    time: int
    payload: bytes
    changes: Changes = NO_CHANGES
    rewind: Rewind | None = None
    is_copy: bool = False


class Expected(Struct, frozen=True):
    """What a caller expects of a session; if it is not so, the operation changes nothing.

    Attributes:
        incarnation: The :attr:`Snapshot.incarnation` of the session, which tells it from a later
            session with the same id; ``""`` for any.
        revision: The revision of the session, which shows that nobody has written to it since;
            ``None`` for any. Only appends check it.
        lease: The :attr:`Claim.owner` who holds the session's lease; ``""`` if the write is no part
            of a turn. Only appends and updates check it.
    """

    incarnation: str = ""
    revision: int | None = None
    lease: str = ""


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
    """Which events of a log a reader wants: those that satisfy all three, and were not taken back.

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
        seqs: The position of each of these.
        first_seq: Where the log begins: 1, or the position after the newest rewind to its beginning
            (to 0). If the log holds no event at it, that one was trimmed, or is to come.
        oldest_seq: The position of the oldest event that is held, or of the next one to come.
        kept_to: Of the events up to the window's ``after_seq``, which the reader may have, those
            after this position have been taken back since.
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
    seqs: Sequence[int] = ()
    first_seq: int = 1
    oldest_seq: int = 1
    kept_to: int = 0


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
        oldest_seq: If the limit has trimmed events, the position of the oldest one that is left;
            else 0.
    """

    seqs: Sequence[int]
    revision: int
    last_seq: int
    updated: int
    incarnation: str
    repeats: Mapping[int, bytes] = NO_REPEATS
    oldest_seq: int = 0


class EventSlice(Struct, frozen=True):
    """Some events of a log, in the order of the log.

    Attributes:
        seqs: The position of each.
        events: The encoded events.
        incarnation: Which session they are of; see :class:`Snapshot`.
        first_seq: Where the log begins; see :class:`Snapshot`.
        rewound_at: The position of the newest mark of a rewind; 0 if there is none. If it is
            another one in the next slice, the two are not of one log.
        last_seq: How many events the log has had in all.
    """

    seqs: Sequence[int]
    events: Sequence[bytes]
    incarnation: str
    first_seq: int = 1
    rewound_at: int = 0
    last_seq: int = 0


class News(Struct, frozen=True):
    """What is told to those who follow a session, or all of a user's.

    Attributes:
        session_id: The session.
        what: What has happened to it. ``"written"`` is any write to its log or its state. A lease
            was taken, and a turn *run_id* ``"began"``; it was given back, or closed by somebody
            else, or waits: the turn has ``"ended"``, mostly by a write. A ``"chunk"`` is bytes that
            are handed on and kept nowhere. ``"events"`` are those of an append of which was told
            just before.
        run_id: That turn; else ``""``.
        chunk: The bytes.
        incarnation: Which session the events are of; see :class:`Snapshot`.
        first_seq: The position of the first of them; the others are the next ones.
        events: The encoded events, as they are stored.
    """

    session_id: str
    what: Literal["made", "written", "began", "ended", "deleted", "chunk", "events"]
    run_id: str = ""
    chunk: bytes = b""
    incarnation: str = ""
    first_seq: int = 0
    events: tuple[bytes, ...] = ()


class Beginning(Struct, frozen=True):
    """How a session begins that was kept elsewhere before.

    Attributes:
        created: When it was created; 0 for now.
        after_seq: Its log begins after this position, as if all up to it had been trimmed.
        first_seq: As :attr:`Snapshot.first_seq`.
        taken_to: All events up to this position were taken back, by a rewind to one that is
            trimmed; 0 if there was none. They are appended as other events are, marks too.
    """

    created: int = 0
    after_seq: int = 0
    first_seq: int = 1
    taken_to: int = 0


NEW: Final = Beginning()
"""How a session begins that was nowhere before."""


class Before(Struct, frozen=True):
    """What names of a session's own state held before the changes at one place.

    Attributes:
        at: The place: the position of the event that brought the changes, or half a step after that
            of the event before them.
        was: The names and what they held, encoded; ``None`` for nothing.
    """

    at: float
    was: ScopeChanges


class PastSlice(Struct, frozen=True, kw_only=True):
    """What a session has besides its log and its state, so that it can go back and go on.

    Attributes:
        earlier: What its state was, in the order of the places.
        more: Whether there is more of that after these.
        turn: The turn that has not ended; one that runs is told of as if it had been left now.
        revision: The session's revision.
        incarnation: Which session it is of; see :class:`Snapshot`.
    """

    earlier: Sequence[Before]
    more: bool
    turn: UnendedTurn | None
    revision: int
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


# -- leases

WhenBusy: TypeAlias = Literal["queue", "reject", "interrupt"]
"""What a claim does while another turn has the lease.

It waits for its own in the order of arrival, is refused, or has the other turn stopped."""

Stop: TypeAlias = Literal["", "cancelled", "interrupted"]
"""Why a turn is to stop.

Somebody asked for it, or another turn takes its place; ``""`` if it may go on."""

State: TypeAlias = Literal["held", "in_line", "busy", "full", "superseded", "refused", "gone"]
"""Where a claim stands; see :class:`Standing`."""

Then: TypeAlias = Literal["keep", "begin", "end", "wait", "close"]
"""What becomes of the lease with which events are appended.

It is kept; it is kept, and its turn's events begin with the first of these, also if that was stored
before; it is given back, since they end the turn; it waits, with nobody who holds it, until
somebody goes on with the turn; or it is kept, and what an earlier turn left is closed."""

LONGEST_LINE: Final = 100
"""How many claims may wait for one session's lease."""

PLACE_KEPT: Final = 10_000
"""How long a place in line is kept for a claim that does not ask again, in milliseconds."""


class Claim(Struct, frozen=True, kw_only=True):
    """A wish to write a turn to a session, alone.

    Attributes:
        owner: Unique to this claim, so that it is known before the lease is had; of
            :meth:`Backend.new_owner <agentsession.backend.Backend.new_owner>`. It has no spaces or
            commas.
        run_id: The turn.
        ttl: How long the lease lives without being renewed, in milliseconds.
        when_busy: What to do while another turn has it.
        grace: With ``"interrupt"``, how long the other turn may take to end, in milliseconds; then
            the lease is taken from it.
        exclusive: Whether writes that name no lease are refused meanwhile.
        resumes: Whether to go on with the turn of this *run_id*, which waits; ``""`` for whichever.
        joins: Whether to be refused where a turn of the same *run_id* has the lease, whatever
            *when_busy* says.
    """

    owner: str
    run_id: str
    ttl: int
    when_busy: WhenBusy = "queue"
    grace: int = 0
    exclusive: bool = False
    resumes: bool = False
    joins: bool = False


class UnendedTurn(Struct, frozen=True):
    """A turn whose lease was lost before it ended.

    Attributes:
        run_id: The turn.
        after_seq: Its events come after this position.
        stop: Why it was to stop; ``""`` if it was not, and its process has died or stood still.
        waits: Whether it is not to be closed, but waits for somebody to go on with it.
    """

    run_id: str
    after_seq: int
    stop: Stop
    waits: bool = False


class Standing(Struct, frozen=True, kw_only=True):
    """Where a claim stands.

    Attributes:
        state: ``"held"``: it has the lease. ``"in_line"``: it waits. ``"busy"``: it is refused,
            and so it is if it is ``"full"``: too many wait; ``"superseded"``: a later one that
            interrupts came before it. If this call was carried out before, ``"refused"``: it was
            not given the lease, and why is not known any more; ask again. ``"gone"``: it had the
            lease, or a place in line, and has lost it by now.
        incarnation: Which session it is about; see :class:`Snapshot`.
        now: The backend's present.
        token: If it is held, the lease's number, which is larger than that of every earlier lease
            of this id.
        stop: If it is held, why the turn is to stop.
        unended: If it is held, the turn that is to be closed before anything else is written.
        run_id: The turn that has the lease, or is next to have it; ``""`` if none is known.
        after_seq: If it is held, the turn's events come after this position.
        ends_at: When the lease ends, if it is not renewed; 0 if nobody has it, or its turn waits.
        ask_at: If it is in line, when to ask again at the latest, since something may have changed
            of which there is no news; 0 if nothing is known to change.
    """

    state: State
    incarnation: str
    now: int
    token: int = 0
    stop: Stop = ""
    unended: UnendedTurn | None = None
    after_seq: int = 0
    run_id: str = ""
    ends_at: int = 0
    ask_at: int = 0
