"""No room: writes are refused, reads go on, and nothing that was acknowledged is lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sqlite.programs.processes import acted

DONE = ["as it should be"]


def mounting(command: str) -> list[str]:
    """Return what runs a program with a mount that only it sees; skip where that is forbidden."""
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True)
    if tried.returncode:
        pytest.skip("this process may not mount anything")
    return ["unshare", "-m", "sh", "-ec", f'{command}; exec "$@"', "sh"]


@pytest.mark.parametrize("how", ["file_size", "one_of_many"])
def test_a_limit_on_the_size_of_files(how: str, tmp_path: Path) -> None:
    """It is met by the log or by the file; when it is lifted the same service writes again."""
    assert acted("limited", how, tmp_path / "sessions.db") == DONE


@pytest.mark.parametrize("kilobytes", [1600, 2000, 4000])
def test_a_disk_that_is_full(kilobytes: int, tmp_path: Path) -> None:
    """Also one on which not even a few bytes beside the file have room."""
    before = mounting(f"mount -t tmpfs -o size={kilobytes}k none {tmp_path}")
    assert acted("limited", "small_disk", tmp_path / "sessions.db", before=before) == DONE
