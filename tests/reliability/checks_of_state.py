"""Checks of state in its three scopes. Each takes the ledger and the event limit."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from typing import TypeAlias

from agentsession import SessionKey
from reliability.history import Operation, View
from reliability.ledger import Ledger, Log

Owner: TypeAlias = tuple[str, ...]
"""Whose state it is: an application, a user with it, or a session with both."""

UPDATES = ("update", "update_user", "update_app")


def owner_of(name: str, key: SessionKey) -> Owner:
    """Return whose state a prefixed name belongs to, as seen from a session."""
    if name.startswith("app:"):
        return (key.app_name,)
    if name.startswith("user:"):
        return (key.app_name, key.user_id)
    return (key.app_name, key.user_id, key.session_id)


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
        events = (each.sent for each in ledger.written.values() if each.key == key)
        self._state: dict[str, int | None] = {name: None for each in events for name in each.delta}

    def advance(self, seq: int) -> None:
        while self._seq < seq:
            self._seq += 1
            event = self._ledger.written.get(self._log.event_at(self._seq) or "")
            if event is None:
                self._state.clear()
            else:
                self._state.update(event.sent.delta)

    def differences(self, operation: Operation, state: dict[str, object]) -> Iterator[str]:
        for name, value in self._state.items():
            if state.get(name) != value:
                yield (
                    f"state: {operation.worker} finds {name!r} = {state.get(name)!r} in "
                    f"{self._key} at {self._seq}, and the log says {value!r}"
                )


class _Register:
    """A name that one worker sets to ever higher values, without events."""

    def __init__(self) -> None:
        self._possible: set[int] = set()
        self._doubtful: set[int] = set()
        self._moments: list[tuple[int, int]] = []

    def note(self, operation: Operation, value: int) -> None:
        if operation.outcome != "failed":
            self._possible.add(value)
        if operation.outcome == "unknown":
            self._doubtful.add(value)
        if operation.acknowledged and operation.ended is not None:
            self._moments.append((operation.ended, value))

    def problem(self, value: int | None, moment: int) -> str | None:
        """Say what is wrong with a value that a read shows which began at some moment."""
        if value is not None and value not in self._possible:
            return "which nobody wrote"
        earlier = self._moments[: bisect_left(self._moments, (moment, 0))]
        newest = max((written for _, written in earlier), default=-math.inf)
        if value is None:
            return None if newest == -math.inf else f"though {newest} was acknowledged"
        # An attempt whose outcome is unknown may come late, and then it is the newer one.
        if value < newest and value not in self._doubtful:
            return f"though {newest}, which came later, was acknowledged"
        return None


def updates_are_kept(ledger: Ledger, _: int) -> Iterator[str]:
    """An update that was acknowledged is seen by who reads afterwards, until the next one."""
    registers: dict[tuple[Owner, str], _Register] = defaultdict(_Register)
    for operation in ledger.operations:
        if operation.step.kind in UPDATES:
            for name, value in operation.step.values.items():
                registers[owner_of(name, operation.step.key), name].note(operation, value)
    for key, operation, view in _with_state(ledger):
        for (owner, name), register in registers.items():
            if owner == owner_of(name, key):
                value = (view.state or {}).get(name)
                problem = register.problem(value, operation.started)
                if problem:
                    yield f"state: {operation.worker} finds {name!r} = {value} in {key}, {problem}"


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
    for key, log in ledger.logs.items():
        for operation, view in log.reads:
            if view.state is not None:
                yield key, operation, view
    for operation in ledger.operations:
        if operation.acknowledged:
            user = operation.step.key
            for session_id, state in (operation.listed or {}).items():
                key = SessionKey(user.app_name, user.user_id, session_id)
                yield key, operation, View(events=[], state=state)
