"""What follows from a history: which events were sent, and where each one is. Pure; no I/O."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator

from agentsession import SessionKey
from reliability.history import Operation, Sent, View

APPENDS = ("append", "batch", "expect")
READS = ("recent", "whole", "page", "open", "create")


class Written:
    """An event with all attempts to store it.

    Attributes:
        sent: The event.
        key: The session that it was sent to.
        started: When the first attempt began.
        acknowledged: When the first attempt that succeeded ended, or infinity.
        refused: Whether every attempt ended with the promise that nothing was written.
        attempts: How many there were.
    """

    def __init__(self, sent: Sent, key: SessionKey) -> None:
        self.sent = sent
        self.key = key
        self.started = math.inf
        self.acknowledged = math.inf
        self.refused = True
        self.attempts = 0

    def note(self, operation: Operation) -> None:
        self.attempts += 1
        self.started = min(self.started, operation.started)
        if operation.acknowledged and operation.ended is not None:
            self.acknowledged = min(self.acknowledged, operation.ended)
        self.refused = self.refused and operation.outcome == "failed"


class Log:
    """A session's log as far as anybody knows it.

    Attributes:
        ids: Event ids by position, from acknowledgements and from reads.
        seqs: The positions that were reported of each event; more than one is a fault.
        reads: The reads that succeeded and found the session, before anybody deleted it.
        final: What the last reader of them found, who came when all was over.
        afterlife: What a reader found after a deletion: the session as a creation made it that came
            late. Whether there was one, the checks of sessions know; none of its past is in it.
    """

    def __init__(self) -> None:
        self.ids: dict[int, set[str]] = defaultdict(set)
        self.seqs: dict[str, set[int]] = defaultdict(set)
        self.reads: list[tuple[Operation, View]] = []
        self.final: View | None = None
        self.afterlife: View | None = None
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


class Ledger:
    """A history, put into order.

    Attributes:
        operations: All of it.
        written: Every event that was sent, by id.
        logs: What is known of each session's log.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.operations = sorted(operations, key=lambda operation: operation.started)
        self.written: dict[str, Written] = {}
        self.logs: dict[SessionKey, Log] = defaultdict(Log)
        self._deleted: set[SessionKey] = set()
        for operation in self.operations:
            if operation.step.kind == "delete":
                self._deleted.add(operation.step.key)
            if operation.step.kind in APPENDS:
                self._note_append(operation)
            if operation.view is not None and operation.acknowledged:
                self._note_read(operation, operation.view)

    def _note_append(self, operation: Operation) -> None:
        step = operation.step
        for sent in step.sent:
            written = self.written.setdefault(sent.id, Written(sent, step.key))
            written.note(operation)
        if operation.acknowledged and operation.ended is not None:
            for sent, seq in zip(step.sent, operation.seqs, strict=True):
                self.logs[step.key].acknowledge(sent.id, seq, operation.ended)

    def _note_read(self, operation: Operation, view: View) -> None:
        log = self.logs[operation.step.key]
        if operation.step.key in self._deleted:
            log.afterlife = view
            return
        if operation.step.kind == "page":
            view.last_seq = view.events[-1].seq if view.events else 0
        for seen in view.events:
            log.place(seen.id, seen.seq)
        log.reads.append((operation, view))
        if operation.step.kind == "whole":
            log.final = view

    def acknowledged(self) -> Iterator[Written]:
        """Yield the events of which somebody was told that they are stored."""
        return (each for each in self.written.values() if each.acknowledged < math.inf)
