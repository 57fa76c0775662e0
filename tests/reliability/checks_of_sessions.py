"""Checks of whole sessions, and of errors. Each takes the ledger and the event limit, but one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from agentsession import SessionKey
from reliability.history import Operation
from reliability.ledger import READS, Ledger

_MISSING = "SessionNotFoundError"
_EXISTS = "SessionExistsError"
_GIVING_UP = ("BackendUnavailableError", "OutcomeUnknownError")
_MAKING = ("create", "open")


class _Life:
    """When a session was surely there, and when it surely was not. None is made a second time."""

    def __init__(self) -> None:
        self.tried = math.inf
        self.made = math.inf
        self.ending = math.inf
        self.ended = math.inf
        self._doubtful = False

    def note(self, operation: Operation) -> None:
        kind, ended = operation.step.kind, operation.ended or math.inf
        if kind in _MAKING:
            self.tried = min(self.tried, operation.started)
            self._doubtful = self._doubtful or operation.outcome == "unknown"
            if operation.acknowledged:
                self.made = min(self.made, ended)
        elif kind == "delete":
            self.ending = min(self.ending, operation.started)
            if operation.acknowledged:
                self.ended = min(self.ended, ended)

    def surely_lives(self, operation: Operation) -> bool:
        return self.made < operation.started and (operation.ended or math.inf) < self.ending

    def surely_gone(self, operation: Operation) -> bool:
        # An attempt to make it of which nothing is known may come late.
        return not self._doubtful and self.ended < operation.started


def _lives(ledger: Ledger) -> dict[SessionKey, _Life]:
    lives: dict[SessionKey, _Life] = defaultdict(_Life)
    for operation in ledger.operations:
        lives[operation.step.key].note(operation)
    return lives


def errors_are_excused(ledger: Ledger, _: int) -> Iterator[str]:
    """Nothing is raised but what the contract names."""
    lives = _lives(ledger)
    for operation in ledger.operations:
        where = f"{operation.worker} calls {operation.step.kind} on {operation.step.key}"
        if operation.outcome == "wrong":
            yield f"wrong: {where}: {operation.error}"
        elif operation.error == _EXISTS and lives[operation.step.key].tried == operation.started:
            yield f"wrong: {where}, which is said to exist though nobody had made it"


def sessions_live_and_die(ledger: Ledger, _: int) -> Iterator[str]:
    """A session is found from its creation to its deletion, and not afterwards."""
    lives = _lives(ledger)
    for operation in ledger.operations:
        life, key = lives[operation.step.key], operation.step.key
        missing = operation.error == _MISSING or (
            operation.step.kind in READS and operation.acknowledged and operation.view is None
        )
        if missing and life.surely_lives(operation):
            yield f"lost: {operation.worker} does not find {key}"
        if operation.view is not None and operation.acknowledged and life.surely_gone(operation):
            yield f"ghost: {operation.worker} finds {key}, which was deleted"


def listings_are_complete(ledger: Ledger, _: int) -> Iterator[str]:
    """A listing holds every session of its user that is surely there, and none that is not."""
    lives = _lives(ledger)
    for operation in ledger.operations:
        if operation.listed is None or not operation.acknowledged:
            continue
        user = operation.step.key.user
        for key, life in lives.items():
            listed = key.user == user and key.session_id in operation.listed
            if key.user == user and not listed and life.surely_lives(operation):
                yield f"lost: {operation.worker} does not find {key} in the list"
            if listed and life.surely_gone(operation):
                yield f"ghost: {operation.worker} finds {key} in the list, which was deleted"
        known = {key.session_id for key in lives if key.user == user}
        for session_id in operation.listed.keys() - known:
            yield f"foreign: {operation.worker} finds {session_id!r} in the list of {user}"


def who_has_time_gets_an_answer(ledger: Ledger, hasty: str) -> Iterator[str]:
    """Faults that pass within the time that a call has cost it no more than time.

    Args:
        ledger: What was done.
        hasty: How the names of workers begin that gave their calls no time.
    """
    for operation in ledger.operations:
        if operation.error in _GIVING_UP and not operation.worker.startswith(hasty):
            where = f"{operation.worker} calls {operation.step.kind} on {operation.step.key}"
            yield f"gave up: {where}: {operation.error}"
