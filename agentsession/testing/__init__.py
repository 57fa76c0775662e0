"""The conformance checks: what every backend must do, as functions that any test runner can run.

To test a backend of yours, write a :class:`Subject` for it and run every check on a fresh one::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_conformance(check):
        async with MySubject() as subject:
            await check(subject)

Under pytest, ``pytest.register_assert_rewrite("agentsession.testing")`` in a ``conftest.py`` makes
failures say what differs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from agentsession.testing._checks import (
    expiry,
    following,
    hostile,
    incarnations,
    limits,
    log,
    repeats,
    scopes,
    sessions,
    unreadable,
    users,
)
from agentsession.testing._checks.turns import endings, forks, history, leases, past, rewinds
from agentsession.testing._subject import ManualClock, MemorySubject, Subject

__all__ = ["CHECKS", "Check", "ManualClock", "MemorySubject", "Subject"]

Check: TypeAlias = Callable[[Subject], Awaitable[None]]
"""Returns if a backend keeps one promise, and raises :exc:`AssertionError` if it does not."""

CHECKS: Final[tuple[Check, ...]] = tuple(
    function
    for module in (
        log,
        repeats,
        scopes,
        sessions,
        users,
        incarnations,
        limits,
        hostile,
        unreadable,
        expiry,
        history,
        leases,
        endings,
        rewinds,
        forks,
        past,
        following,
    )
    for name, function in vars(module).items()
    if name.startswith("check_")
)
"""Every check, in the order of the promises."""
