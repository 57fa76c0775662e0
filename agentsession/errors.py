"""Every exception that agentsession raises on its own account.

::

    AgentSessionError
    ├── SessionNotFoundError (LookupError)   not there: never made, deleted, expired, or replaced
    ├── SessionExistsError                   create_session() met an id that is in use
    ├── EventNotFoundError (LookupError)     the log does not hold that event, or not any more
    ├── EventGoneError                       a message that left the log is not answered again
    ├── EventExistsError                     a message has the id of another event
    ├── RewindError                          the log cannot go back to there; nothing was stored
    ├── RevisionConflictError                another writer came first; nothing was stored
    ├── SessionBusyError                     another turn has the session; nothing was stored
    ├── LeaseLostError                       this turn has it no more; nothing was stored
    ├── RunNotFoundError (LookupError)       that run is over, or never was
    ├── CallNotOpenError (LookupError)       no turn waits for a result of this call
    ├── EventTooLargeError (ValueError)      the encoded event is over the size limit
    ├── ReadTooLargeError (ValueError)       more events asked for than one read may return
    ├── StateValueError (ValueError)         a value that cannot be stored; names its path
    │   └── StateValueTooLargeError          a state value is over the size limit
    ├── CodecError                           stored bytes not ours, or of a newer format
    ├── ClosedError (RuntimeError)           the service was closed
    ├── EventLoopError (RuntimeError)        the service belongs to another event loop
    └── BackendError                         the server refused; __cause__ says why
        ├── BackendUnavailableError          nothing was written; the call may be repeated
        └── OutcomeUnknownError              perhaps written; repeat it with the same event id

A caller's mistake in an argument is a plain :exc:`ValueError` or :exc:`TypeError`.

Each class takes its data as positional arguments and words its message in ``__str__``, so that
errors keep their attributes when they are pickled, as they are on their way between processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

from agentsession._wording import brief, described, dotted

if TYPE_CHECKING:
    from datetime import datetime

    from agentsession.sessions import SessionKey, UserKey

__all__ = [
    "AgentSessionError",
    "BackendError",
    "BackendUnavailableError",
    "CallNotOpenError",
    "ClosedError",
    "CodecError",
    "EventExistsError",
    "EventGoneError",
    "EventLoopError",
    "EventNotFoundError",
    "EventTooLargeError",
    "LeaseLostError",
    "OutcomeUnknownError",
    "ReadTooLargeError",
    "RevisionConflictError",
    "RewindError",
    "RunNotFoundError",
    "SessionBusyError",
    "SessionExistsError",
    "SessionNotFoundError",
    "StateValueError",
    "StateValueTooLargeError",
]


class AgentSessionError(Exception):
    """The base of every error of this library."""


class SessionNotFoundError(AgentSessionError, LookupError):
    """The session does not exist: never created, deleted, or expired. Nothing was stored.

    Attributes:
        key: The session that was asked for.
        replaced: Whether another session has its id now: the one that was meant was deleted, or
            has expired, and was made anew since it was read.
    """

    def __init__(self, key: SessionKey, replaced: bool = False) -> None:  # noqa: FBT001, FBT002 - errors are pickled by their positional arguments
        super().__init__(key, replaced)
        self.key = key
        self.replaced = replaced

    def __str__(self) -> str:
        if self.replaced:
            return (
                f"{described(self.key)}: it was deleted, or has expired, and was made anew since "
                "it was read; nothing of the new one was read or changed. Load it again"
            )
        return (
            f"{described(self.key)}: not found; it was never created, was deleted or has expired. "
            "get_or_create_session() makes it"
        )


class SessionExistsError(AgentSessionError):
    """A session with this id exists; it was left as it is.

    Attributes:
        key: The session that exists.
    """

    def __init__(self, key: SessionKey) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return (
            f"{described(self.key)}: exists already and was left as it is. "
            "Use get_or_create_session(), or leave the id empty to get a new one"
        )


class EventNotFoundError(AgentSessionError, LookupError):
    """The log does not hold this event: it was never stored, was trimmed, or was taken back.

    Attributes:
        key: The session whose log was read.
        event: The event's id, or its ``seq``.
    """

    def __init__(self, key: SessionKey, event: str | int) -> None:
        super().__init__(key, event)
        self.key = key
        self.event = event

    def __str__(self) -> str:
        what = "id" if isinstance(self.event, str) else "seq"
        return (
            f"{described(self.key)}: no event with {what} {brief(self.event)} in the log; "
            "it was never stored, was taken back, or the event limit has trimmed it"
        )


class RevisionConflictError(AgentSessionError):
    """The session moved on since the caller read it; nothing was stored.

    Attributes:
        key: The session.
        expected: The revision that the caller had seen.
        actual: The revision that the session has.
    """

    def __init__(self, key: SessionKey, expected: int, actual: int) -> None:
        super().__init__(key, expected, actual)
        self.key = key
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        return (
            f"{described(self.key)}: expected revision {self.expected}, found {self.actual}; "
            "nothing was stored. Load the session again, decide anew, and repeat"
        )


_BusyProblem: TypeAlias = Literal["busy", "waited", "full", "superseded", "exclusive"]

_BUSY: Final[dict[_BusyProblem, str]] = {
    "busy": "wait for it with when_busy='queue', or repeat the call later",
    "waited": (
        "this one has waited for as long as it may; repeat the call later, or raise the option wait"
    ),
    "full": "so many wait for their turn that no more may; repeat the call later",
    "superseded": "it came later, and interrupts too; let it run",
    "exclusive": (
        "while it runs, nobody else may write to the session, for its lease is exclusive; repeat "
        "the call later"
    ),
}


class SessionBusyError(AgentSessionError):
    """Another turn has the session, or will have it before this one; nothing was stored.

    Attributes:
        key: The session.
        run_id: The other turn; ``""`` if it is not known.
        ends_at: When the other turn's lease ends if it is not renewed, on the store's clock;
            ``None`` if the turn waits for somebody, or has not begun.
        problem: Whether this one was refused since the session was ``"busy"``, had ``"waited"`` for
            too long, found the line ``"full"``, was ``"superseded"`` by a later one that interrupts
            as well, or writes where the other one's lease is ``"exclusive"``.
    """

    def __init__(
        self,
        key: SessionKey,
        run_id: str,
        ends_at: datetime | None = None,
        problem: _BusyProblem = "busy",
    ) -> None:
        super().__init__(key, run_id, ends_at, problem)
        self.key = key
        self.run_id = run_id
        self.ends_at = ends_at
        self.problem: _BusyProblem = problem

    @property
    def waits(self) -> bool:
        """Whether the other turn waits for results of its calls, or has not begun."""
        return bool(self.run_id) and self.ends_at is None and self.problem in ("busy", "waited")

    def __str__(self) -> str:
        other = f"run {brief(self.run_id)}" if self.run_id else "another run"
        if self.waits:
            return (
                f"{described(self.key)}: {other} has it, and waits for results of its calls unless "
                "it is about to begin; nothing was stored. Bring them with resume(), or end that "
                "run with when_busy='interrupt' or rewind()"
            )
        lease = "" if self.ends_at is None else f", with a lease until {self.ends_at.isoformat()}"
        return (
            f"{described(self.key)}: busy with {other}{lease}; nothing was stored. "
            f"{_BUSY[self.problem].capitalize()}"
        )


class LeaseLostError(AgentSessionError):
    """The lease with which this was to be written is not held any more; nothing was stored.

    Its time ran out before it was renewed, it was given back, or another turn has taken over. What
    the turn has stored stays, and whoever comes next to the session closes it.

    Attributes:
        key: The session.
        has_begun: Whether the message of the turn is stored all the same: the turn has begun, and
            another one has taken the session over before the answer to that came.
    """

    def __init__(self, key: SessionKey, has_begun: bool = False) -> None:  # noqa: FBT001, FBT002 - as of SessionNotFoundError
        super().__init__(key, has_begun)
        self.key = key
        self.has_begun = has_begun

    def __str__(self) -> str:
        if self.has_begun:
            return (
                f"{described(self.key)}: this turn has begun and its message is stored, but "
                "another turn has taken the session over since. Read the log for how this one "
                "ended, or begin another one with a new message"
            )
        return (
            f"{described(self.key)}: this turn's lease ran out, was given back or was taken over; "
            "nothing was stored. End the turn here, and begin another one if it should go on. A "
            "lease runs out if the loop stands still: call what blocks by asyncio.to_thread()"
        )


class EventGoneError(AgentSessionError):
    """A turn was to begin with a message that was stored before, and has left the log since.

    It was taken back, or the event limit has trimmed it. Nothing was changed.

    Attributes:
        key: The session.
        event_id: The message.
    """

    def __init__(self, key: SessionKey, event_id: str) -> None:
        super().__init__(key, event_id)
        self.key = key
        self.event_id = event_id

    def __str__(self) -> str:
        return (
            f"{described(self.key)}: message {brief(self.event_id)} was stored before, and has "
            "been taken back or trimmed since, so nothing answers it; send it with a new id to ask "
            "again"
        )


class EventExistsError(AgentSessionError):
    """A turn was to begin with a message whose id another event has; nothing was stored.

    Attributes:
        key: The session.
        event_id: The id.
    """

    def __init__(self, key: SessionKey, event_id: str) -> None:
        super().__init__(key, event_id)
        self.key = key
        self.event_id = event_id

    def __str__(self) -> str:
        return (
            f"{described(self.key)}: {brief(self.event_id)} is the id of another event, which is "
            "no message of this turn; nothing was stored. Give the message an id of its own"
        )


_RewindProblem: TypeAlias = Literal[
    "trimmed", "state_trimmed", "taken_back", "ahead", "half_turn", "running", "stored"
]

_REWIND: Final[dict[_RewindProblem, str]] = {
    "trimmed": "the event limit has trimmed this event; go back to a later one, or to 0",
    "state_trimmed": (
        "the event limit has trimmed events, and with them what state was at the beginning; go "
        "back to an event that the log holds, or pass restore_state=False"
    ),
    "taken_back": "this event was taken back; load the session, and go back to one that it has",
    "ahead": "the log has no such event yet; load the session, and go back to one that it has",
    "half_turn": (
        "this event is in the middle of a turn; go back to the end of a turn, which is the event "
        "before a message"
    ),
    "running": (
        "this event belongs to a turn that has not ended; go back to the event before it began, "
        "or end it first: with stop_run() if it runs, close_turn() if its process has died, and "
        "resume_turn() if it waits for an answer"
    ),
    "stored": (
        "an event of these was stored before, and an id is stored once, also if its event was "
        "taken back; give the copy a new id"
    ),
}


class RewindError(AgentSessionError):
    """The log cannot go back to there; nothing was stored.

    Attributes:
        key: The session.
        seq: The position that was asked for.
        problem: The event limit has ``"trimmed"`` that event, or what state was then
            (``"state_trimmed"``); it was ``"taken_back"``, or is ``"ahead"`` of the log; it is in
            the middle of a turn that is over (``"half_turn"``) or is not (``"running"``); or what
            was to come in place of what is taken back was ``"stored"`` before.
    """

    def __init__(self, key: SessionKey, seq: int, problem: _RewindProblem) -> None:
        super().__init__(key, seq, problem)
        self.key = key
        self.seq = seq
        self.problem: _RewindProblem = problem

    def __str__(self) -> str:
        return (
            f"{described(self.key)}: cannot go back to event {self.seq}; nothing was stored: "
            f"{_REWIND[self.problem]}"
        )


class RunNotFoundError(AgentSessionError, LookupError):
    """This run does not have the session: it is over, or never began. Nothing was changed.

    Attributes:
        key: The session.
        run_id: The run that was asked for.
    """

    def __init__(self, key: SessionKey, run_id: str) -> None:
        super().__init__(key, run_id)
        self.key = key
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"{described(self.key)}: run {brief(self.run_id)} does not run here; it is over, or "
            "never began. There is nothing to stop"
        )


class CallNotOpenError(AgentSessionError, LookupError):
    """No turn waits for a result of this call; nothing was stored.

    Attributes:
        key: The session.
        call_id: The call that the result was for.
        answered: Whether such a call was answered: in the turn that waits, or by one of the newest
            events.
    """

    def __init__(self, key: SessionKey, call_id: str, answered: bool = False) -> None:  # noqa: FBT001, FBT002 - as above
        super().__init__(key, call_id, answered)
        self.key = key
        self.call_id = call_id
        self.answered = answered

    def __str__(self) -> str:
        why = "was answered before" if self.answered else "is not one that a turn waits for"
        return (
            f"{described(self.key)}: call {brief(self.call_id)} {why}; nothing was stored. Load "
            "the session, and see whether its last turn waits, and for which calls: it does if its "
            "last event has outcome='waiting'"
        )


class EventTooLargeError(AgentSessionError, ValueError):
    """An encoded event is larger than the service allows; nothing was stored.

    Attributes:
        key: The session.
        event_id: The event.
        size: Its encoded size in bytes.
        limit: The service's ``max_event_size`` in bytes.
    """

    def __init__(self, key: SessionKey, event_id: str, size: int, limit: int) -> None:
        super().__init__(key, event_id, size, limit)
        self.key = key
        self.event_id = event_id
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"{described(self.key)}: event {brief(self.event_id)} takes {self.size:,} bytes, "
            f"over the limit of {self.limit:,}; nothing was stored. Store large content elsewhere "
            "and put a reference in the event, or raise max_event_size"
        )


class ReadTooLargeError(AgentSessionError, ValueError):
    """A read would return more than the service allows; nothing was returned, and nothing changed.

    Attributes:
        key: The session.
        events: How many events it would have returned, as far as it went.
        size: Their encoded size in bytes, or more: counting ends where the limit is passed.
        limit: The service's ``max_read_size`` in bytes.
    """

    def __init__(self, key: SessionKey, events: int, size: int, limit: int) -> None:
        super().__init__(key, events, size, limit)
        self.key = key
        self.events = events
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"{described(self.key)}: {self.events:,} events take {self.size:,} bytes or more, over "
            f"the limit of {self.limit:,} for one read; nothing was returned. Ask for fewer with "
            "num_recent_events or after_seq, read pages with get_events(), or raise max_read_size"
        )


class StateValueError(AgentSessionError, ValueError):
    """A value that cannot be stored and come back equal; nothing was stored.

    Attributes:
        path: Where the value is: names and indices from the outside in.
        reason: What is wrong with it.
    """

    def __init__(self, path: tuple[str | int, ...], reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.reason}; nothing was stored"


class StateValueTooLargeError(StateValueError):
    """One encoded state value is larger than the service allows; nothing was stored.

    Attributes:
        path: The value's name.
        size: Its encoded size in bytes.
        limit: The service's ``max_value_size`` in bytes.
    """

    def __init__(self, path: tuple[str | int, ...], size: int, limit: int) -> None:
        super().__init__(
            path,
            f"takes {size:,} bytes, over the limit of {limit:,}; keep large content elsewhere and "
            "a reference here, or raise max_value_size",
        )
        self.size = size
        self.limit = limit

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[str | int, ...], int, int]]:
        return type(self), (self.path, self.size, self.limit)


class CodecError(AgentSessionError):
    """Stored bytes that this version cannot read: not ours, damaged, or of a newer format.

    Attributes:
        subject: Whose data it is.
        reason: What could not be read.
    """

    def __init__(self, subject: SessionKey | UserKey | str, reason: str) -> None:
        super().__init__(subject, reason)
        self.subject = subject
        self.reason = reason

    def __str__(self) -> str:
        return f"{described(self.subject)}: {self.reason}"


class ClosedError(AgentSessionError, RuntimeError):
    """The service was closed, or is closing; nothing was written."""

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        return (
            "the session service is closed; make a new one, and close it last, when nothing uses "
            "it any more ('async with' closes it at the end of the block)"
        )


_LoopProblem: TypeAlias = Literal["another", "blocked", "ended", "forked", "none"]

_MAKE_IT: Final = (
    "make one service for each loop, and close it there: in the coroutine that asyncio.run() runs, "
    "in a test fixture that lives as long as the loop, or in the lifespan of an application"
)
_AWAIT: Final = "await the same method of the service's any_loop"
_LOOP_PROBLEMS: Final[dict[_LoopProblem, str]] = {
    "another": (
        f"the session service belongs to another event loop; {_MAKE_IT}. "
        "For several loops and threads there is agentsession.blocking"
    ),
    "blocked": (
        "a call that blocks would stop the event loop that runs in this thread; {}, or make the "
        "call in a thread, by asyncio.to_thread()"
    ),
    "ended": (
        f"the session service belongs to another event loop, which has ended; {_MAKE_IT} "
        "(with FastAPI's TestClient: 'with TestClient(app) as client', or each request has a loop "
        "of its own)"
    ),
    "forked": (
        "the session service was used before this process was forked, and belongs to the process "
        "that it was forked from; make one service in each process, after the fork, for example "
        "in the lifespan of an application"
    ),
    "none": (
        "agentsession runs on asyncio, and no event loop of asyncio runs here; start the program "
        "with asyncio.run(main()) and not with trio.run(), or with anyio.run(main) on its default "
        "backend"
    ),
}


class EventLoopError(AgentSessionError, RuntimeError):
    """The service was called where its event loop does not run; nothing was written.

    A service belongs to the event loop that it is first used on.

    Attributes:
        problem: ``"another"`` loop runs; one would be ``"blocked"`` by a method of
            :class:`~agentsession.blocking.BlockingSessionService`; the service's own has
            ``"ended"``; this process was ``"forked"`` since the service was first used; or
            ``"none"`` of asyncio runs.
        instead: What to do in place of a call that would block, where that is not simply to await
            the same method.
    """

    def __init__(self, problem: _LoopProblem = "another", instead: str = "") -> None:
        super().__init__(problem, instead)
        self.problem: _LoopProblem = problem
        self.instead: str = instead

    def __str__(self) -> str:
        return _LOOP_PROBLEMS[self.problem].format(self.instead or _AWAIT)


class BackendError(AgentSessionError):
    """The server refused the operation; nothing was written. ``__cause__`` says what it answered.

    Attributes:
        subject: Whose data it was about.
        reason: What went wrong, with advice.
    """

    def __init__(self, subject: SessionKey | UserKey | str, reason: str) -> None:
        super().__init__(subject, reason)
        self.subject = subject
        self.reason = reason

    def __str__(self) -> str:
        return f"{described(self.subject)}: {self.reason}"


class BackendUnavailableError(BackendError):
    """The server could not be reached, or could not serve; nothing was written."""


class OutcomeUnknownError(BackendError):
    """The operation was sent and no answer came: it took effect whole, or not at all.

    Repeating an append with the same event id is safe: it is stored once.
    """
