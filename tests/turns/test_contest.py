"""Processes that want one session at once: a little of what ``turns.contest`` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentsession.backend import WhenBusy
from turns.contest import contest

PROCESSES, ROUNDS = 5, 4


@pytest.mark.parametrize(
    ("policy", "outcomes"),
    [
        ("queue", {"completed": PROCESSES * ROUNDS}),
        ("reject", {"completed": ROUNDS, "SessionBusyError": (PROCESSES - 1) * ROUNDS}),
        ("interrupt", {"completed": ROUNDS}),
    ],
)
@pytest.mark.parametrize("store", ["sqlite", "valkey"])
def test_processes_take_turns(
    store: str,
    policy: WhenBusy,
    outcomes: dict[str, int],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """No two turns interleave, each has its end, and hardly anybody is woken in vain."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    if store == "valkey":
        url = request.getfixturevalue("valkey_url")
    score = contest(url, policy, PROCESSES, ROUNDS)
    assert sum(score.outcomes.values()) == PROCESSES * ROUNDS
    if policy == "interrupt":
        others = set(score.outcomes) - {"completed"}
        assert others <= {"interrupted", "SessionBusyError", "cancelled"}
        assert score.outcomes["completed"] >= ROUNDS
    else:
        assert score.outcomes == outcomes
    assert max(score.asked) <= 6
