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
wrong           an error that no fault excuses
gave up         a call that failed before its time was over
=============== ===================================================================================

An unknown outcome may be there or not; but it may not come late: what a client has given up can
still be under way, and has no effect any more. What was cancelled may have until its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from reliability import checks_of_logs, checks_of_sessions, checks_of_state
from reliability.history import Operation
from reliability.ledger import Ledger

CHECKS: tuple[Callable[[Ledger, int], Iterator[str]], ...] = (
    checks_of_logs.positions_are_unique,
    checks_of_logs.readers_see_one_log,
    checks_of_logs.acknowledged_events_are_there,
    checks_of_logs.only_what_was_sent_is_there,
    checks_of_logs.pages_are_full_and_bounded,
    checks_of_logs.order_is_that_of_the_calls,
    checks_of_logs.batches_are_whole,
    checks_of_logs.nothing_comes_before_who_insists,
    checks_of_state.state_is_the_fold,
    checks_of_state.updates_are_kept,
    checks_of_state.names_belong_here,
    checks_of_sessions.errors_are_excused,
    checks_of_sessions.sessions_live_and_die,
    checks_of_sessions.listings_are_complete,
    checks_of_sessions.lives_follow_each_other,
    checks_of_sessions.mortals_keep_what_they_live_with,
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
