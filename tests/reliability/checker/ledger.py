"""What follows from a history: which events were sent, and where each one is. Pure; no I/O."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator

from agentsession import SessionKey
from reliability.history import Operation, Sent, View
from reliability.workers.plan import MADE, is_mortal, is_turned

APPENDS = ("append", "batch", "expect")
CREATIONS = ("create", "open")
READS = ("recent", "whole", "page", "open", "create")


class Effort:
    """All attempts at one thing.

    Attributes:
        started: When the first attempt began.
        acknowledged: When the first attempt that succeeded ended, or infinity.
        over: From when on no attempt that was not refused may take effect.
        refused: Whether every attempt ended with the promise that nothing was written.
        attempts: How many there were.
        last: The latest of them.
    """

    def __init__(self) -> None:
        self.started = math.inf
        self.acknowledged = math.inf
        self.over = -math.inf
        self.refused = True
        self.attempts = 0
        self.last: Operation | None = None

    def note(self, operation: Operation) -> None:
        self.attempts += 1
        self.last = operation
        self.started = min(self.started, operation.started)
        if operation.acknowledged and operation.ended is not None:
            self.acknowledged = min(self.acknowledged, operation.ended)
        if operation.outcome != "failed":
            self.refused = False
            self.over = max(self.over, operation.over)

    def __str__(self) -> str:
        return str(self.last)


class Written(Effort):
    """An event with all attempts to store it.

    Attributes:
        sent: The event.
        key: The session that it was sent to.
    """

    def __init__(self, sent: Sent, key: SessionKey) -> None:
        super().__init__()
        self.sent = sent
        self.key = key

    def note(self, operation: Operation) -> None:
        super().note(operation)
        # What comes after an acknowledgement finds the event stored.
        self.over = min(self.over, self.acknowledged)


class Log:
    """A session's log as far as anybody knows it.

    Attributes:
        ids: Event ids by position, from acknowledgements and from reads.
        seqs: The positions that were reported of each event; more than one is a fault.
        reads: The reads that succeeded and found the session, before anybody deleted it.
        final: What the last reader of them found, who came when all was over.
    """

    def __init__(self) -> None:
        self.ids: dict[int, set[str]] = defaultdict(set)
        self.seqs: dict[str, set[int]] = defaultdict(set)
        self.reads: list[tuple[Operation, View]] = []
        self.final: View | None = None
        self._acknowledged: list[tuple[float, int]] = []

    def place(self, event_id: str, seq: int) -> None:
        self.ids[seq].add(event_id)
        self.seqs[event_id].add(seq)

    def acknowledge(self, event_id: str, seq: int, when: int) -> None:
        self.place(event_id, seq)
        insort(self._acknowledged, (when, seq))

    def acknowledged_by(self, moment: int) -> int:
        """Return the highest position that was acknowledged before some moment."""
        earlier = self._acknowledged[: bisect_left(self._acknowledged, (moment, 0))]
        return max((seq for _, seq in earlier), default=0)

    def event_at(self, seq: int) -> str | None:
        """Return the event at a position, if it is known, and beyond doubt."""
        ids = self.ids.get(seq, set())
        return next(iter(ids)) if len(ids) == 1 else None

    def note(self, operation: Operation, view: View) -> None:
        for seen in view.events:
            self.place(seen.id, seen.seq)
        self.reads.append((operation, view))
        if operation.step.kind == "whole":
            self.final = view


class Ledger:
    """A history, put into order.

    Args:
        operations: What was recorded.
        apart: Whether application state is written in a step of its own, as on a cluster.

    Attributes:
        operations: All of it.
        apart: As given.
        written: Every event that was sent, by id.
        logs: What is known of each session's log. What was found after a deletion is not among it:
            a creation that was late has made it, as the checks of sessions will say.
        lives: The same of mortal sessions, for each of their lives, which has the name of the
            creation that began it; one creation begins two if it is repeated after a deletion.
        finals: What the last reader found of each session, or ``None``.
    """

    def __init__(self, operations: Iterable[Operation], *, apart: bool = False) -> None:
        self.operations = sorted(operations, key=lambda operation: operation.started)
        self.apart = apart
        self.written: dict[str, Written] = {}
        self.logs: dict[SessionKey, Log] = defaultdict(Log)
        self.lives: dict[tuple[SessionKey, object, str], Log] = defaultdict(Log)
        self.finals: dict[SessionKey, View | None] = {}
        self._made: set[SessionKey] = set()
        self._deleted: set[SessionKey] = set()
        for operation in self.operations:
            kind, key = operation.step.kind, operation.step.key
            if kind in CREATIONS:
                self._made.add(key)
            if kind == "delete" and key in self._made:
                self._deleted.add(key)
            if kind in APPENDS:
                self._note_append(operation)
            if operation.acknowledged and kind == "whole":
                self.finals[key] = operation.view
            if operation.acknowledged and operation.view is not None:
                self._note_read(operation, operation.view)

    def _note_append(self, operation: Operation) -> None:
        step = operation.step
        for sent in step.sent:
            written = self.written.setdefault(sent.id, Written(sent, step.key))
            written.note(operation)
        # Of a mortal session it is not known which life the positions are of.
        if operation.acknowledged and operation.ended is not None and not is_mortal(step.key):
            for sent, seq in zip(step.sent, operation.seqs, strict=True):
                self.logs[step.key].acknowledge(sent.id, seq, operation.ended)

    def _note_read(self, operation: Operation, view: View) -> None:
        key = operation.step.key
        if is_turned(key):
            return  # Its log is another reader's.
        if operation.step.kind == "page":
            view.last_seq = view.events[-1].seq if view.events else 0
        if is_mortal(key):
            made = (view.state or {}).get(MADE)
            self.lives[key, made, view.incarnation].note(operation, view)
        elif key not in self._deleted:
            self.logs[key].note(operation, view)

    def all_logs(self) -> Iterator[tuple[SessionKey, Log]]:
        """Yield every log, those of mortal sessions life by life."""
        yield from self.logs.items()
        for (key, *_), log in self.lives.items():
            yield key, log

    def acknowledged(self) -> Iterator[Written]:
        """Yield the events of which somebody was told that they are stored."""
        return (each for each in self.written.values() if each.acknowledged < math.inf)
