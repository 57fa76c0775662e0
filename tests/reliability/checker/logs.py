"""Checks of events and their positions. Each takes the ledger and the event limit, 0 for none."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from agentsession import SessionKey
from reliability.checker.ledger import Ledger, Log, Written
from reliability.history import Sent, View, words_of
from reliability.workers.plan import is_mortal


def positions_are_unique(ledger: Ledger, _: int) -> Iterator[str]:
    """No event is at two positions, whoever says so."""
    for key, log in ledger.all_logs():
        for event_id, seqs in log.seqs.items():
            if len(seqs) > 1:
                yield f"twice: {event_id} of {key} is at {sorted(seqs)}"


def readers_see_one_log(ledger: Ledger, _: int) -> Iterator[str]:
    """All readers, and those who were told of a position, agree on what stands there."""
    for key, log in ledger.all_logs():
        for seq, ids in log.ids.items():
            if len(ids) > 1:
                yield f"disagreement: position {seq} of {key} is said to hold {sorted(ids)}"


def acknowledged_events_are_there(ledger: Ledger, _: int) -> Iterator[str]:
    """A read shows every position that was acknowledged before it began, and the last one all."""
    for key, log in ledger.logs.items():
        for operation, view in log.reads:
            known = log.acknowledged_by(operation.started)
            if view.last_seq < known:
                yield (
                    f"lost: {operation.worker} reads {key} up to {view.last_seq}, "
                    f"though {known} had been acknowledged"
                )
    for written in ledger.acknowledged():
        log = ledger.logs[written.key]
        if log.final is not None and not _may_be_absent(written.sent.id, log, log.final):
            yield f"lost: {written.sent.id} of {written.key}, which was acknowledged"


def _may_be_absent(event_id: str, log: Log, view: View) -> bool:
    if any(seen.id == event_id for seen in view.events):
        return True
    first = view.events[0].seq if view.events else view.last_seq + 1
    return max(log.seqs[event_id]) < first


def only_what_was_sent_is_there(ledger: Ledger, _: int) -> Iterator[str]:
    """Events are as they were sent, to this session, and by an attempt that may have succeeded."""
    for key, log in ledger.all_logs():
        for operation, view in log.reads:
            for seen in view.events:
                if seen.words != words_of(seen.id, key):
                    yield f"foreign: {operation.worker} finds {seen.words!r} in {key}"
        for event_id in log.seqs:
            yield from _unsent(ledger, key, event_id)


def _unsent(ledger: Ledger, key: SessionKey, event_id: str) -> Iterator[str]:
    written = ledger.written.get(event_id)
    if written is None:
        yield f"ghost: {event_id} of {key} was never sent"
    elif written.key != key:
        yield f"foreign: {event_id} of {key} was sent to {written.key}"
    elif written.refused:
        yield f"ghost: {event_id} of {key} is stored, though every attempt was refused"


def pages_are_full_and_bounded(ledger: Ledger, limit: int) -> Iterator[str]:
    """A read returns a run without gaps at the end of the log, as long as asked for and allowed."""
    for key, log in ledger.all_logs():
        for operation, view in log.reads:
            where = f"{operation.worker} reads {key}"
            seqs = [seen.seq for seen in view.events]
            held = min(limit, view.last_seq) if limit else view.last_seq
            asked = _asked(operation.step.kind, operation.step.limit, held)
            if limit and len(seqs) > limit:
                yield f"limit: {where} and gets {len(seqs)} events, with a limit of {limit}"
            elif seqs != list(range(view.last_seq - len(seqs) + 1, view.last_seq + 1)):
                yield f"disagreement: {where} up to {view.last_seq} and gets positions {seqs}"
            elif len(seqs) != min(asked, held):
                yield f"limit: {where} and gets {len(seqs)} of {min(asked, held)} events"


def _asked(kind: str, limit: int, held: int) -> int:
    return {"whole": held, "create": 0}.get(kind, limit)


def order_is_that_of_the_calls(ledger: Ledger, _: int) -> Iterator[str]:
    """What was sent after another event had been answered or given up stands after it.

    Whoever sent it.
    """
    for key, log in ledger.all_logs():
        earliest: float = math.inf
        by: Written | None = None
        for seq in sorted(log.ids, reverse=True):
            event = ledger.written.get(log.event_at(seq) or "")
            if event is None:
                continue
            if by is not None and event.started > earliest:
                late = is_mortal(key) or by.acknowledged == math.inf
                kind = "late" if late else "order"
                yield (
                    f"{kind}: {event.sent.id} at {seq} of {key} was sent after {by.sent.id}, "
                    f"which stands behind it, had been answered or given up ({by})"
                )
            if event.over < earliest:
                earliest, by = event.over, event


def batches_are_whole(ledger: Ledger, _: int) -> Iterator[str]:
    """Of the events of a batch all are there, side by side, or none."""
    batches: dict[SessionKey, list[list[Sent]]] = defaultdict(list)
    for operation in ledger.operations:
        if operation.step.kind == "batch":
            batches[operation.step.key].append(operation.step.sent)
    for key, log in ledger.all_logs():
        for sent in batches[key]:
            if log.final is not None and not _whole(sent, log):
                ids = [each.id for each in sent]
                yield f"half: of {ids} of {key} a part is stored, or scattered"


def _whole(sent: list[Sent], log: Log) -> bool:
    """Tell whether a batch is whole as far as is known: what was trimmed nobody may have seen."""
    placed = [
        (min(log.seqs[each.id]), number) for number, each in enumerate(sent) if each.id in log.seqs
    ]
    if not placed:
        return True
    seq, number = placed[0]
    first = seq - number
    last_seq = max(view.last_seq for _, view in log.reads)
    return first + len(sent) - 1 <= last_seq and all(
        log.ids.get(first + number, {each.id}) == {each.id} for number, each in enumerate(sent)
    )


def nothing_comes_before_who_insists(ledger: Ledger, _: int) -> Iterator[str]:
    """Who insists on a revision and succeeds stands right behind what was read with it."""
    for operation in ledger.operations:
        view = operation.view
        if operation.step.kind != "expect" or view is None or not operation.acknowledged:
            continue
        if is_mortal(operation.step.key):
            continue  # Another life may have had the same revision.
        event_id, (seq,) = operation.step.sent[0].id, operation.seqs
        # A repeat is answered as the first attempt was, whatever the revision is by now.
        if ledger.written[event_id].attempts == 1 and seq != view.last_seq + 1:
            yield (
                f"order: {event_id} insisted on revision {view.revision} of {operation.step.key}, "
                f"whose last event is {view.last_seq}, and is at {seq}"
            )
