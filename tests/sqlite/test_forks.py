"""``fork()`` after a service was used: neither process harms the other's locks or data."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlite.programs.processes import acted


@pytest.mark.parametrize("how", ["anew", "outlived", "busy"])
def test_a_process_that_forks(how: str, tmp_path: Path) -> None:
    """The child is refused the parent's service, and may make its own; both lose nothing."""
    path = tmp_path / "sessions.db"
    assert acted("forking", how, path) == ["as it should be"]
    assert {each.name for each in tmp_path.iterdir()} == {path.name, f"{path.name}-gate"}
