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
  sessions apart, since clocks stand still and go back. Where the clock goes back, no lease outlives
  its holder for longer than twice its time to live.

``agentsession.testing`` has a check for each sentence; a backend that passes them is a backend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING

from agentsession.backend.records import (
    ALL_EVENTS,
    ANYTHING,
    LONGEST_LINE,
    NEW,
    NO_EVENTS,
    NO_REPEATS,
    PLACE_KEPT,
    REMEMBERED_IDS,
    SMALLEST_EVENT,
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
    State,
    Stop,
    Then,
    UnendedTurn,
    UserSlice,
    WhenBusy,
    Window,
)
from agentsession.backend.trimming import TRIM_LOOK, next_turn
from agentsession.events import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from agentsession.concerns import Concern
    from agentsession.retention import Retention
    from agentsession.sessions import SessionKey, UserKey
    from agentsession.state import Changes, ScopeChanges

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
    "TRIM_LOOK",
    "Backend",
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
    "next_turn",
]


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

    @property
    def is_local(self) -> bool:
        """Whether calls wait for nothing outside of this process.

        Then there is nothing to gain from several at the same time.
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
    async def create(
        self, key: SessionKey, changes: Changes, *, token: str, beginning: Beginning = NEW
    ) -> Snapshot:
        """Make a session with an empty log and this state.

        Args:
            key: The session, with an id.
            changes: The first state, and changes to the other scopes.
            token: Unique to this call, from random bits, so that it may serve as the session's
                incarnation. A repeat with the same token finds its own session, and succeeds.
            beginning: Where its log begins, and since when it has been there, if it was kept
                elsewhere before.

        Raises:
            SessionExistsError: The session exists; nothing was changed in any scope.
            SessionNotFoundError: This call made it, and somebody deleted it before the call was
                known to have succeeded.
        """

    @abstractmethod
    async def fork(
        self,
        key: SessionKey,
        new_key: SessionKey,
        at_seq: int | None,
        *,
        token: str,
        expected: Expected = ANYTHING,
    ) -> Snapshot:
        """Make a session that is another one as it was right after an event.

        It has the same log up to there, with the same positions, what was taken back included; the
        same state; and what is known of earlier state. It has none of the lease, except that a turn
        which has not ended, if the copy has all of the log, is to be closed in the copy, or waits
        in both.

        Args:
            key: The session.
            new_key: The new one, with an id; of the same user.
            at_seq: The event; ``None`` for all of the log, and state as it is.
            token: As for :meth:`create`.
            expected: Only its incarnation counts, that of the other session.

        Returns:
            The new session, without events.

        Raises:
            SessionExistsError: The new session exists.
            SessionNotFoundError: The other session does not exist, or is another incarnation than
                the expected one; or this call made the new one, and somebody deleted it before the
                call was known to have succeeded.
            RewindError: As for :meth:`append`, with state.
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
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        """Add entries to the end of the log and apply their changes to state; all of it or nothing.

        An entry whose id is in the log, or among the last
        :data:`~agentsession.backend.REMEMBERED_IDS` trimmed from it, was stored before, and so was
        one whose id came earlier in *entries*: whatever its content, it adds nothing and changes
        nothing, and the receipt tells what is stored. If all were
        stored before, nothing changes at all, whatever revision is expected. Otherwise the revision
        grows by one, every expiry of the session moves, and the oldest events beyond
        ``event_limit`` leave; where they cut a turn, its rest leaves with them
        (:func:`~agentsession.backend.trimming.next_turn`) if it is shorter than
        :data:`~agentsession.backend.trimming.TRIM_LOOK`, and than half of the limit.

        What *then* says of the expected lease happens in the same step, also if all were stored
        before, as long as it is held. Without entries only that happens.

        An entry that is the mark of a rewind takes back what comes after the position to which it
        goes back: those events, and the mark itself, stay in the log, and no reader sees them who
        does not read it raw. If it *restores* state, the session's own state is again as it was
        right after the event at that position. So what was in that state is kept for every event
        that is held, and for none that was taken back. Whoever has the lease, or waits for an
        answer, loses it then, unless it is the expected one; and a turn that was to be closed, and
        was taken back, is not.

        The mark of a copy may also go back to an event that was trimmed, or to the beginning of a
        log that was: then it takes back all that is held. State stays as it is, and what was known
        of it after that position is forgotten; :meth:`note_past` tells it anew.

        Raises:
            SessionNotFoundError: The session does not exist, or is another incarnation than the
                expected one; nothing was written.
            RevisionConflictError: Its revision is not the expected one; nothing was written.
            LeaseLostError: The expected lease is not held, or there is a turn to close, and *then*
                is not ``"close"``; nothing was written.
            SessionBusyError: No lease is expected, and another turn has an exclusive one; nothing
                was written.
            RewindError: The event to go back to was trimmed, or taken back, or is not there yet, or
                belongs to a turn that has not ended and is not the expected one's; or it is the
                beginning, with state, and something was trimmed; or one of the other entries was
                stored before. What was trimmed does not matter to a copy. Nothing was written.
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
        raw: bool = False,
        read_limit: ReadLimit | None = None,
        refresh: bool = True,
        after_id: str = "",
        expected: Expected = ANYTHING,
    ) -> EventSlice:
        """Return up to *limit* events between two positions, both exclusive.

        They come from the lower end of that range, or from its upper end if *newest_first*; always
        in the log's order. What was taken back is not among them, unless they are read *raw*. The
        cost grows with *limit*, not with the log, nor with what was taken back.

        Without *refresh* it never counts as a read for ``refresh_on_read``. With *after_id*, the id
        that the event at *after_seq* has as far as the caller knows, it finds out where a failover
        has lost events, and others have taken their positions; it may let that pass if the event is
        trimmed.

        Raises:
            SessionNotFoundError: The session does not exist, or is another incarnation than the
                expected one, or has another event than *after_id* at *after_seq*; nothing was
                returned, and nothing changed.
            ReadTooLargeError: The events are more than *read_limit*; nothing was returned.
        """

    @abstractmethod
    async def locate(
        self, key: SessionKey, event_id: str, *, expected: Expected = ANYTHING
    ) -> int | None:
        """Return the position of a stored event, or ``None`` if the log does not hold it now.

        It may have been taken back.

        Never counts as a read for ``refresh_on_read``; reading the event does.

        Raises:
            SessionNotFoundError: The session does not exist, or is another incarnation than the
                expected one.
        """

    @abstractmethod
    async def read_past(
        self, key: SessionKey, *, after: float, limit: int, expected: Expected = ANYTHING
    ) -> PastSlice:
        """Return what a copy of the session needs besides its log and its state.

        That is the turn that has not ended, and what state was before each change that can be
        undone: those after a place, up to *limit* names, of whole places. If one place alone has
        more names, it is returned by itself. The cost grows with what is returned.

        Never counts as a read for ``refresh_on_read``.

        Raises:
            SessionNotFoundError: The session does not exist, or is another incarnation than the
                expected one.
        """

    @abstractmethod
    async def note_past(
        self, key: SessionKey, earlier: Sequence[Before], *, expected: Expected = ANYTHING
    ) -> None:
        """Note what state was before changes that another backend has seen, as it told them.

        They are in the order of their places. What is not after the newest place of which the
        backend knows changes anything no more. If something is noted the revision grows by one and
        every expiry of the session moves.

        Raises:
            SessionNotFoundError: The session does not exist, or is another incarnation than the
                expected one; nothing was written.
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
            LeaseLostError: As :meth:`append`.
            SessionBusyError: As :meth:`append`.
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

    # -- leases

    @abstractmethod
    async def acquire(
        self, key: SessionKey, claim: Claim, attempt: int, *, expected: Expected = ANYTHING
    ) -> Standing:
        """Ask for a session's lease, and tell where the claim stands.

        A lease is free if nobody has it, or if its time to live has passed since it was taken or
        renewed. Then the claim that is first in line has it, or the one that asks if there is no
        line; else one that queues gets a place at the end of the line. One that interrupts has the
        holder told to stop, and stands before those that queue, in the place of another that
        interrupts and waits, which is superseded. When its grace is over since the holder was told,
        or the holder waits, it has the lease.

        Whoever is in line asks again, before :data:`~agentsession.backend.PLACE_KEPT` has passed,
        or loses the place.

        A lease that is taken over from a turn which has stored something, but has not given it
        back, is given together with that turn, which is to be closed: until then nothing can be
        written with the lease but its end.

        A turn that waits may have its lease again by a claim that resumes it. If that one stores
        nothing until its time has passed, the turn waits again.

        Nothing of the session changes but its lease: not its revision, and an expiry only where the
        lease is given, as :meth:`renew` moves it.

        Args:
            key: The session.
            claim: The claim.
            attempt: Counts the calls for this claim, from 1.
            expected: Only its incarnation counts.

        Raises:
            SessionNotFoundError: The session does not exist, or is another incarnation than the
                expected one.
        """

    @abstractmethod
    async def renew(self, key: SessionKey, owner: str, ttl: int) -> Standing:
        """Begin the time to live of a lease anew, and tell where the claim stands.

        It lives *ttl* milliseconds from now, or longer if it would have. Every expiry of the
        session moves too, as a write moves it, so that no session expires in the middle of a turn.

        Raises:
            LeaseLostError: It is not held: its time ran out, it was given back, or taken over.
            SessionNotFoundError: The session does not exist.
        """

    @abstractmethod
    async def release(self, key: SessionKey, owner: str, attempt: int) -> None:
        """Give a lease back, or leave the line; whoever has neither, or a lost one, is no error.

        No copy of a call of :meth:`acquire` up to this attempt takes anything afterwards. Nor is it
        an error if the session does not exist.
        """

    @abstractmethod
    async def stop(self, key: SessionKey, run_id: str | None) -> str | None:
        """Have the turn that holds the lease told to stop.

        Args:
            key: The session.
            run_id: The turn; ``None`` for whichever it is.

        Returns:
            The turn; ``None`` if nobody holds the lease, or another one does. ``""`` if one was
            told that *run_id* does not name, and it was over before a lost answer came again.

        Raises:
            SessionNotFoundError: The session does not exist.
        """

    def new_owner(self) -> str:
        """Make the name of a new claim."""
        return new_id()

    def listen(
        self,
        key: SessionKey,  # noqa: ARG002 - there always is
        owner: str,  # noqa: ARG002
        on_news: Callable[[], None],  # noqa: ARG002
    ) -> AbstractContextManager[None]:
        """Within the block, have it called when there may be news for a claim, on the event loop.

        There are when it may have the lease, or is superseded, and for one that holds it when it is
        to stop, or was taken over. News may be lost, and there may be none: whoever listens asks
        again now and then in any case. A backend that has no way to tell need not.
        """
        return nullcontext()

    # -- following

    def follow(
        self,
        subject: SessionKey | UserKey,  # noqa: ARG002 - there always is
        on_news: Callable[[News | None], None],  # noqa: ARG002
    ) -> AbstractContextManager[None]:
        """Within the block, have it called soon after something was written, on the event loop.

        It is called for each write to the session, or to any session of the user, whichever process
        has made it, and with the chunks that are told of them; in the order in which they took
        effect. News may be lost. Where some may have been it is called with ``None``, among others
        once it has begun to be told. Whoever follows looks at the log now and then in any case. A
        backend that has no way to tell need not.

        After it has told of an append, a backend may tell of the events themselves, all of that
        append, with their positions: it saves whoever has all before them a read. It need not, and
        does well not to where they are large; a follower has them all the same.
        """
        return nullcontext()

    async def tell(self, key: SessionKey, chunk: bytes) -> bool:  # noqa: ARG002 - as above
        """Hand bytes on to all who follow the session now, or its user; they are kept nowhere.

        They are told in the order of the calls, and before what is written later; some may get them
        twice. That the session exists is not checked.

        Returns:
            Whether anybody may have got them.
        """
        return False

    # -- what endangers it

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
