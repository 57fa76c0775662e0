"""Compares what was recorded with what the service promises. Pure; no I/O.

Each check yields a sentence for everything that it finds wrong. The sentence begins with a word for
the kind, which reports count by:

=============== ===================================================================================
lost            acknowledged, and not there
twice           one event at two positions
ghost           there, though nobody sent it, or though it was refused
foreign         an answer with data that belong elsewhere
disagreement    readers who see different logs
order           positions that contradict the order in which calls were made
half            a part of what has to be stored in one step
state           state that is not the fold of the log's deltas, or of the updates
limit           more events than allowed, or fewer than there should be
late            a copy of a call has taken effect after the call was answered or given up
expiry          keys of one session that do not expire together, or never
left over       a connection, a task or a key that nobody needs any more
two holders     turns of one session at the same time
token           a lease whose token is not larger than that of an earlier one
fenced          what a turn was refused, and is stored
no end          a turn without an outcome, or with several
wrong           an error that no fault excuses
gave up         a call that failed before its time was over
=============== ===================================================================================

An unknown outcome may be there or not; but it may not come late: what a client has given up can
still be under way, and has no effect any more. What was cancelled may have until its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from reliability.checker import logs, sessions, state, turns
from reliability.checker.ledger import Ledger
from reliability.history import Operation

CHECKS: tuple[Callable[[Ledger, int], Iterator[str]], ...] = (
    logs.positions_are_unique,
    logs.readers_see_one_log,
    logs.acknowledged_events_are_there,
    logs.only_what_was_sent_is_there,
    logs.pages_are_full_and_bounded,
    logs.order_is_that_of_the_calls,
    logs.batches_are_whole,
    logs.nothing_comes_before_who_insists,
    state.state_is_the_fold,
    state.updates_are_kept,
    state.names_belong_here,
    sessions.errors_are_excused,
    sessions.sessions_live_and_die,
    sessions.listings_are_complete,
    sessions.lives_follow_each_other,
    sessions.mortals_keep_what_they_live_with,
    turns.one_turn_at_a_time,
    turns.tokens_grow,
    turns.what_is_fenced_off_is_not_there,
    turns.turns_are_whole_and_end,
)


def violations(
    operations: Iterable[Operation], *, limit: int | None = None, apart: bool = False
) -> list[str]:
    """Say everything that is wrong with a run.

    Args:
        operations: What was recorded; it ends with a read of every session as a whole.
        limit: The service's ``session_event_limit``.
        apart: Whether application state is written in a step of its own, as on a cluster.
    """
    ledger = Ledger(operations, apart=apart)
    return [found for check in CHECKS for found in check(ledger, limit or 0)]


def kind_of(violation: str) -> str:
    """Return the word that a violation is counted by."""
    return violation.partition(":")[0]
