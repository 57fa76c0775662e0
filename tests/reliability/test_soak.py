"""The command that runs many trials: what it prints and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from agentsession.redis._operations import appending
from reliability import __main__ as command
from reliability.footprint import Footprint

TESTS = Path(__file__).parent.parent


@pytest.mark.parametrize("place", command.PLACES)
def test_a_short_soak_finds_nothing(place: str) -> None:
    """The seed is printed first, then rounds and counts; all is well, and the exit code is 0."""
    done = subprocess.run(
        [sys.executable, "-m", "reliability", "--minutes=0.03", "--round=200", "--seed=7",
         f"--only={place}"],
        env={**os.environ, "PYTHONPATH": str(TESTS)}, capture_output=True, text=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, lines[-1]) == (0, "", "all well"), done.stdout
    assert lines[0] == "seed 7, valkey"
    assert lines[1].startswith("round 1: ")
    assert lines[-2].startswith(f"everything, {place}")


def test_a_proof_names_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was lost is counted in its column, and the exit code is 1."""
    unsound = appending._APPEND.text.replace("ARGV[at]) == 1 then", "ARGV[at]) >= 0 then")
    monkeypatch.setattr(
        appending, "_APPEND", structs.replace(appending._APPEND, text=unsound, sha="0" * 40)
    )
    monkeypatch.setattr(command, "proofs", lambda *_: [command.everything(7, 300)])
    assert command.main(["--operations=300", "--seed=7", "--only=server"]) == 1
    printed = capsys.readouterr().out
    assert "violations with seed 7" in printed
    assert "twice: " in printed
    assert printed.endswith("something is wrong; again with --seed 7\n")


def test_what_grows_is_named() -> None:
    """Memory may differ a little, open files may not."""
    warm = Footprint(100_000, 10)
    assert warm.grown_since(warm) == []
    assert Footprint(110_000, 9).grown_since(warm) == []
    assert len(Footprint(120_000, 11).grown_since(warm)) == 2
    assert Footprint.now().memory > 1000
