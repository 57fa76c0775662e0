"""Checks of state in its three scopes. Each takes the ledger and the event limit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from agentsession import SessionKey
from reliability.checker.ledger import Effort, Ledger, Log
from reliability.checker.timeline import Timeline
from reliability.history import Operation, Value, View
from reliability.workers.plan import MADE, is_mortal

Owner: TypeAlias = tuple[str, ...]
"""Whose state it is: an application, a user with it, or a session with both."""


def owner_of(name: str, key: SessionKey) -> Owner:
    """Return whose state a prefixed name belongs to, as seen from a session."""
    if name.startswith("app:"):
        return (key.app_name,)
    if name.startswith("user:"):
        return (key.app_name, key.user_id)
    return (key.app_name, key.user_id, key.session_id)


def owners_of(key: SessionKey) -> tuple[Owner, ...]:
    """Return those whose state a session shows."""
    return tuple(owner_of(scope, key) for scope in ("app:", "user:", ""))


def state_is_the_fold(ledger: Ledger, _: int) -> Iterator[str]:
    """Whatever a read shows as the last position, its state is the fold of the deltas so far.

    So no reader sees an event without its delta, nor a delta without its event.
    """
    for key, log in ledger.logs.items():
        fold = _Fold(ledger, key, log)
        for operation, view in sorted(log.reads, key=lambda read: read[1].last_seq):
            if view.state is not None:
                fold.advance(view.last_seq)
                yield from fold.differences(operation, view.state)


class _Fold:
    """The state that a session's events make, as far as they are known.

    Where a position is unknown, because the limit has trimmed the event before anybody saw it, any
    name may have been changed; until it is changed again nothing is said about it.
    """

    def __init__(self, ledger: Ledger, key: SessionKey, log: Log) -> None:
        self._ledger = ledger
        self._key = key
        self._log = log
        self._seq = 0
        events = [each for each in ledger.written.values() if each.key == key]
        self._state: dict[str, Value] = {
            name: None for each in events for name in self._folded(each.sent.delta)
        }

    def advance(self, seq: int) -> None:
        while self._seq < seq:
            self._seq += 1
            event = self._ledger.written.get(self._log.event_at(self._seq) or "")
            if event is None:
                self._state.clear()
            else:
                self._state.update(self._folded(event.sent.delta))

    def _folded(self, delta: dict[str, Value]) -> dict[str, Value]:
        """Leave out what is written in a step of its own."""
        if not self._ledger.apart:
            return delta
        return {name: value for name, value in delta.items() if not name.startswith("app:")}

    def differences(self, operation: Operation, state: dict[str, object]) -> Iterator[str]:
        for name, value in self._state.items():
            if state.get(name) != value:
                yield (
                    f"state: {operation.worker} finds {name!r} = {state.get(name)!r} in "
                    f"{self._key} at {self._seq}, and the log says {value!r}"
                )


class _Cell:
    """A name of state of one owner, which any number of writers set; each value is of one writer.

    Attributes:
        writes: Who may have set it, by value.
    """

    def __init__(self) -> None:
        self.writes: dict[object, Effort] = defaultdict(Effort)
        # What surely set or deleted it, from when it had ended, by when it had begun.
        self._changes: Timeline[str] = Timeline()
        # What may have deleted it, from when it had begun, by when it was over.
        self._deletions: Timeline[str] = Timeline()
        self._readings: list[tuple[Operation, object]] = []

    def deleted_by(self, effort: Effort) -> None:
        if not effort.refused:
            self._deletions.add(effort.started, effort.over, str(effort))
            self._changes.add(effort.acknowledged, effort.started, str(effort))

    def read_by(self, operation: Operation, value: object) -> None:
        self._readings.append((operation, value))

    def problems(self) -> Iterator[tuple[Operation, object, str, str]]:
        """Yield readings that cannot be, each with its value, the kind of the problem and why."""
        for write in self.writes.values():
            self._changes.add(write.acknowledged, write.started, str(write))
        others = _Others(self._readings)
        for operation, value in sorted(self._readings, key=lambda reading: reading[0].started):
            other = others.seen_before(operation, value)
            found = (
                self._missing(operation, other)
                if value is None
                else self._stale(operation, value, other)
            )
            if found:
                yield operation, value, *found

    def _missing(self, operation: Operation, other: float) -> tuple[str, str] | None:
        change = self._changes.before(operation.started) or (-math.inf, "")
        there, why = max(change, (other, "")), "though it was read before"
        if there == change:
            why = f"though {change[1]} was acknowledged"
        deletion = self._deletions.before(operation.ended or math.inf)
        if there[0] == -math.inf or (deletion is not None and deletion[0] > there[0]):
            return None
        return (
            ("state", why) if deletion is None else ("late", f"{why} after {deletion[1]} was over")
        )

    def _stale(self, operation: Operation, value: object, other: float) -> tuple[str, str] | None:
        write = self.writes.get(value)
        if write is None or write.refused:
            return "state", "which nobody wrote"
        if other > write.over:
            return "late", f"which {write} wrote, and which others read had changed since"
        change = self._changes.before(operation.started)
        if change is not None and change[0] > write.over:
            return "state", f"which {write} wrote, though {change[1]} came later"
        return None


class _Others:
    """Tells when it was last read that a name had another value. Ask in the order of time."""

    def __init__(self, readings: Sequence[tuple[Operation, object]]) -> None:
        self._readings = sorted(readings, key=lambda each: each[0].ended or 0, reverse=True)
        # The latest moments of two different values.
        self._latest: list[tuple[float, object]] = []

    def seen_before(self, operation: Operation, value: object) -> float:
        """Return by when a reading began that ended before this one, and had another value."""
        while self._readings and (self._readings[-1][0].ended or 0) < operation.started:
            earlier, found = self._readings.pop()
            moment = max([earlier.started, *(m for m, v in self._latest if v == found)])
            others = [each for each in self._latest if each[1] != found]
            self._latest = sorted([*others, (moment, found)], key=lambda each: -each[0])[:2]
        return next((moment for moment, each in self._latest if each != value), -math.inf)


def updates_are_kept(ledger: Ledger, _: int) -> Iterator[str]:
    """What was set is seen by who reads afterwards, until the next change, and not again."""
    cells = _cells(ledger)
    for key, operation, view in _with_state(ledger):
        for owner in owners_of(key):
            for name, cell in cells[owner].items():
                cell.read_by(operation, (view.state or {}).get(name))
    for owner, named in cells.items():
        for name, cell in named.items():
            for operation, value, kind, why in cell.problems():
                yield f"{kind}: {operation} finds {name!r} = {value!r} of {owner}, {why}"


def _cells(ledger: Ledger) -> dict[Owner, dict[str, _Cell]]:
    """Gather who set and who deleted what, as far as it does not follow from a log."""
    cells: dict[Owner, dict[str, _Cell]] = defaultdict(lambda: defaultdict(_Cell))
    for operation in ledger.operations:
        step = operation.step
        for name, value in step.values.items():
            effort = cells[owner_of(name, step.key)][name].writes[value]
            effort.note(operation)
            if step.kind == "open" and (operation.view is None or _found(operation)):
                effort.acknowledged = math.inf  # It may have found what it did not make.
    for event in ledger.written.values():
        for name, value in event.sent.delta.items():
            if is_mortal(event.key) or (ledger.apart and name.startswith("app:")):
                cell = cells[owner_of(name, event.key)][name]
                if value is None:
                    cell.deleted_by(event)
                else:
                    cell.writes[value] = event
    for operation in ledger.operations:
        if operation.step.kind in ("delete", "erase"):
            effort = Effort()
            effort.note(operation)
            for owner, named in cells.items():
                if _deletes(operation, owner):
                    for cell in named.values():
                        cell.deleted_by(effort)
    return cells


def _found(operation: Operation) -> bool:
    state = operation.view.state if operation.view is not None else None
    return (state or {}).get(MADE) != operation.step.values.get(MADE)


def _deletes(operation: Operation, owner: Owner) -> bool:
    key = operation.step.key
    if operation.step.kind == "delete":
        return owner == (key.app_name, key.user_id, key.session_id)
    return owner[:2] == (key.app_name, key.user_id)


def names_belong_here(ledger: Ledger, _: int) -> Iterator[str]:
    """No session shows state of another session, another user or another application."""
    names: dict[Owner, set[str]] = defaultdict(set)
    for operation in ledger.operations:
        step = operation.step
        for name in {*step.values, *(name for sent in step.sent for name in sent.delta)}:
            names[owner_of(name, step.key)].add(name)
    for key, operation, view in _with_state(ledger):
        for name in view.state or ():
            if name not in names[owner_of(name, key)]:
                yield f"foreign: {operation.worker} finds {name!r} in {key}"


def _with_state(ledger: Ledger) -> Iterator[tuple[SessionKey, Operation, View]]:
    """Yield every reading of a session's state, from listings as well."""
    for key, log in ledger.all_logs():
        for operation, view in log.reads:
            if view.state is not None:
                yield key, operation, view
    for operation in ledger.operations:
        if operation.acknowledged:
            user = operation.step.key
            for session_id, state in (operation.listed or {}).items():
                key = SessionKey(user.app_name, user.user_id, session_id)
                yield key, operation, View(events=[], state=state)
