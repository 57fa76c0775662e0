"""Checks of turns: one at a time, and each with its end. Each takes the ledger and the limit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from agentsession import SessionKey
from reliability.checker.ledger import Ledger
from reliability.history import Entry, Operation, Turn


def _turns(ledger: Ledger) -> Iterator[tuple[SessionKey, list[tuple[Operation, Turn]]]]:
    """Yield all turns of each session that had the lease, in the order in which they got it."""
    found: dict[SessionKey, list[tuple[Operation, Turn]]] = defaultdict(list)
    for operation in ledger.operations:
        if operation.turn is not None and operation.turn.held_from:
            found[operation.step.key].append((operation, operation.turn))
    for key, turns in found.items():
        yield key, sorted(turns, key=lambda each: each[1].held_from)


def one_turn_at_a_time(ledger: Ledger, _: int) -> Iterator[str]:
    """Nobody gets the lease between two moments at which another turn surely has it.

    Which are when its beginning was answered, and when the last of its writes began that succeeded.
    Who has got it before by its token may learn of that at any time, if answers are lost.
    """
    for key, turns in _turns(ledger):
        for number, (operation, turn) in enumerate(turns):
            surely = max((each.started for each in turn.writes if each.seq), default=0)
            for other, later in turns[number + 1 :]:
                if later.held_from >= surely:
                    break
                if later.token >= turn.token:
                    yield f"two holders: {operation} and {other} both have the lease of {key}"


def tokens_grow(ledger: Ledger, _: int) -> Iterator[str]:
    """Who gets the lease after another turn had it gets a larger token."""
    for key, turns in _turns(ledger):
        highest, by = 0, None
        answered = iter(turns)
        pending = next(answered, None)
        for operation, turn in sorted(turns, key=lambda each: each[0].started):
            while pending is not None and pending[1].held_from < operation.started:
                if pending[1].token > highest:
                    highest, by = pending[1].token, pending[0]
                pending = next(answered, None)
            if turn.token <= highest:
                yield (
                    f"token: {operation} has token {turn.token} of {key}, after {by} had {highest}"
                )


def what_is_fenced_off_is_not_there(ledger: Ledger, _: int) -> Iterator[str]:
    """Nothing is stored that was refused, and all is that was acknowledged, at its place."""
    for key, log in _logs(ledger):
        places = {entry.id: entry.seq for entry in log}
        first = log[0].seq if log else 1
        for operation in ledger.operations:
            if operation.step.key != key or operation.turn is None:
                continue
            for write in operation.turn.writes:
                if write.refused and write.id in places:
                    yield f"fenced: {operation} was refused {write.id}, which is stored in {key}"
                elif write.seq >= first and places.get(write.id) != write.seq:
                    yield f"lost: {write.id} of {key}, which {operation} stored at {write.seq}"


def turns_are_whole_and_end(ledger: Ledger, _: int) -> Iterator[str]:
    """In the log one turn comes after the other, and the last event of each says how it ended.

    That they do so is known when all was over and somebody has come to the session since.
    """
    for key, log in _logs(ledger):
        runs: list[list[Entry]] = []
        for entry in log:
            if not runs or runs[-1][-1].run_id != entry.run_id:
                runs.append([])
            runs[-1].append(entry)
        seen: set[str] = set()
        for run in runs:
            if run[0].run_id in seen:
                yield f"two holders: turn {run[0].run_id} of {key} goes on behind another one"
            seen.add(run[0].run_id)
            outcomes = [entry.outcome for entry in run]
            if not outcomes[-1] or any(outcomes[:-1]):
                yield f"no end: the events of turn {run[0].run_id} of {key} say {outcomes}"


def _logs(ledger: Ledger) -> Iterator[tuple[SessionKey, list[Entry]]]:
    """Yield what the last reader found of each log."""
    found: dict[SessionKey, list[Entry]] = {}
    for operation in ledger.operations:
        if operation.acknowledged and operation.entries is not None:
            found[operation.step.key] = operation.entries
    yield from found.items()
