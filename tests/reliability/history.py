"""What workers did and saw: plain records, which travel between processes as lines of JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from agentsession import SessionKey

Outcome: TypeAlias = Literal["ok", "failed", "unknown", "wrong"]
"""``failed`` promises that nothing was written; ``wrong`` is an answer that no fault excuses."""


Value: TypeAlias = int | str | None
"""What a name of state is set to; ``None`` deletes it."""


class Sent(Struct, frozen=True):
    """An event as a worker sends it, again and again perhaps.

    Attributes:
        id: Unique in the whole run.
        delta: What it does to state; ``None`` deletes a name. No other session's events, and of
            this session's only the same worker's, have these names; but on mortal sessions all
            share them, and each value is of one event.
    """

    id: str
    delta: dict[str, Value] = {}


Style: TypeAlias = Literal["asyncio", "anyio"]
STYLES: tuple[Style, ...] = ("asyncio", "anyio")


class Cancel(Struct, frozen=True):
    """When and how a call is cancelled: after so many turns of the event loop."""

    style: Style
    turns: int


WhenBusy: TypeAlias = Literal["queue", "reject", "interrupt"]


class Step(Struct, frozen=True, kw_only=True):
    """One call that a worker makes.

    Attributes:
        kind: Which call; a key of ``workers.CALLS``.
        key: The session that it is about.
        sent: The events to append.
        values: Names of state to set without an event, with prefixes, by a creation or an update;
            no two steps set one to the same value.
        limit: How many events to read.
        cancel: Whether and when to cancel it.
        again: Whether to make the call again if its outcome is unknown.
        when_busy: What a turn does while another one has the session.
        leaves_after: After how many of its events a turn is left without an end, as if its process
            had died; 0 for never.
    """

    kind: str
    key: SessionKey
    sent: list[Sent] = []
    values: dict[str, Value] = {}
    limit: int = 0
    cancel: Cancel | None = None
    again: bool = False
    when_busy: WhenBusy = "queue"
    leaves_after: int = 0


class Seen(Struct, frozen=True, array_like=True):
    """An event as a reader got it."""

    seq: int
    id: str
    words: str


class View(Struct, kw_only=True):
    """What a read returned: a session, or a page of its log, without state and incarnation."""

    events: list[Seen]
    state: dict[str, Any] | None = None
    incarnation: str = ""
    last_seq: int = 0
    revision: int = 0
    updated: int = 0


class Write(Struct, array_like=True):
    """An event that a turn has tried to store.

    Attributes:
        id: The event.
        started: When it was tried.
        seq: Where it is, as acknowledged; 0 if it was not.
        refused: Whether it was promised that it is not stored.
    """

    id: str
    started: int
    seq: int = 0
    refused: bool = False


class Turn(Struct):
    """What became of a turn.

    Attributes:
        token: That of its lease; 0 if it never had one.
        held_from: When it was told that it has the lease.
        writes: What it has tried to store.
    """

    token: int = 0
    held_from: int = 0
    writes: list[Write] = []


class Entry(Struct, frozen=True, array_like=True):
    """An event of a log of turns as a reader got it."""

    seq: int
    id: str
    run_id: str
    outcome: str


class Operation(Struct, kw_only=True):
    """A call with what became of it.

    Attributes:
        worker: Who made it.
        number: Counts the worker's calls.
        step: The call.
        started: When, on the machine's monotonic clock, which all its processes share.
        ended: When it returned, or ``None``: its process died before.
        outcome: ``unknown`` until more is known.
        error: What was raised.
        seqs: Where the events of an append are, as acknowledged.
        expected_revision: The revision that an append insisted on.
        view: What a read of one session returned, also the one before an append that insists on a
            revision; ``None`` if it is not there.
        listed: What a listing returned: state by session id.
        turn: What became of a turn.
        entries: What a read of a log of turns returned, all of it.
        grace: Nanoseconds after its cancellation in which a copy of it may take effect.
    """

    worker: str
    number: int
    step: Step
    started: int = 0
    ended: int | None = None
    outcome: Outcome = "unknown"
    error: str = ""
    seqs: list[int] = []
    expected_revision: int | None = None
    view: View | None = None
    listed: dict[str, dict[str, Any]] | None = None
    turn: Turn | None = None
    entries: list[Entry] | None = None
    grace: int = 0

    @property
    def acknowledged(self) -> bool:
        return self.outcome == "ok"

    @property
    def over(self) -> float:
        """From when on no copy of it may take effect: it was answered, or given up.

        What was cancelled may until its deadline, and of a process that died nobody knows.
        """
        if self.ended is None:
            return math.inf
        cancelled = self.outcome == "unknown" and not self.error
        return self.ended + self.grace if cancelled else self.ended

    def __str__(self) -> str:
        return f"the {self.step.kind} number {self.number} of {self.worker}"


class History:
    """All operations of a run, the latest record of each."""

    def __init__(self) -> None:
        self._operations: dict[tuple[str, int], Operation] = {}
        self.finished = 0

    def record(self, operation: Operation) -> None:
        self._operations[operation.worker, operation.number] = operation
        self.finished += operation.ended is not None

    def read(self, lines: Iterable[bytes]) -> None:
        """Record what a worker of another process wrote down."""
        for operation in decoded(lines):
            self.record(operation)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations.values())

    def __len__(self) -> int:
        return len(self._operations)


def words_of(event_id: str, key: SessionKey) -> str:
    """Return the content of an event, which says whose it is."""
    return f"{event_id} of {key.app_name}/{key.user_id}/{key.session_id}"


def encoded(operation: Operation) -> bytes:
    return msgspec.json.encode(operation) + b"\n"


def decoded(lines: Iterable[bytes]) -> Iterator[Operation]:
    """Decode lines; the last one of a process that was killed may be half a line."""
    for line in lines:
        if line.endswith(b"\n"):
            yield msgspec.json.decode(line, type=Operation)
