"""What was acknowledged survives SIGKILL at any moment."""

from __future__ import annotations

import os
import random
from pathlib import Path

from sqlite.programs.kills import run


def test_processes_are_killed_while_they_append(tmp_path: Path) -> None:
    """Nothing acknowledged is lost, nothing is there twice, and the others go on."""
    kills = int(os.environ.get("AGENTSESSION_KILLS", "12"))
    counts = run(tmp_path / "sessions.db", kills, random.randrange(10**6))
    assert counts["kills"] >= kills
    assert counts["stored"] >= counts["acknowledged"] > 0
