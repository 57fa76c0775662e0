"""The benchmarks of the stores in a file run, and judge each of their goals."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from documents.markdown import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TIMING = dict.fromkeys(("rate", "mean", "p50", "p95", "p99", "elapsed", "cpu"), 1.0)


def benchmarks(module: str) -> Any:
    """Import one of the modules, which are not part of the package."""
    return importlib.import_module(f"benchmarks.{module}")


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let them be found."""
    monkeypatch.syspath_prepend(ROOT)


def rows() -> list[Any]:
    """Return all rows."""
    return [case for group in benchmarks("files.cases").GROUPS for case in group.cases]


@pytest.mark.parametrize(("name", "synchronous"), [("Full", "FULL"), ("Normal", "NORMAL")])
async def test_every_row_runs(name: str, synchronous: str, tmp_path: Path) -> None:
    """Each caller of each row does what it is to do, once, in a file of the durability it has."""
    contestant = getattr(benchmarks("contestants.files.ours"), name)
    driver = benchmarks("driver").Driver({"it": contestant})
    try:
        for number, case in enumerate(rows()):
            setup = replace(
                case.setup,
                sessions=min(case.setup.sessions, 70),
                history=min(case.setup.history, 150),
            )
            words = {"contestant": "it", "setup": case.name, "url": str(tmp_path / str(number))}
            words["case"] = replace(case, setup=setup).to_dict()
            await driver.obey({**words, "do": "check"})
            await driver.obey({**words, "do": "prepare"})
            figures = await driver.obey({**words, "do": "run", "seconds": 0.0, "watch": False})
            assert figures["operations"] >= case.callers, case.name
            answer = await driver.obey({**words, "do": "durability"})
            assert answer == {"durability": f"WAL, {synchronous}"}
    finally:
        await driver.obey({"do": "clear"})


async def test_a_row_that_is_not_for_a_file_is_refused() -> None:
    """It is told by name, and not run on a store that has no word for it."""
    case = replace(rows()[0], operation="turn")
    with pytest.raises(benchmarks("driver").NotMeasuredError, match="not measured in a file"):
        benchmarks("contestants.files.ours").Full.check(case)


async def measured_beyond(tmp_path: Path) -> Any:
    """Measure, on the smallest scale, what is no row."""
    beyond, roster = benchmarks("files.beyond"), benchmarks("files.roster")
    processes = benchmarks("processes")
    extent = beyond.Extent(
        events=300,
        processes=2,
        callers=2,
        seconds=0.05,
        rounds=1,
        many=20,
        looks=1,
        look_seconds=0.02,
    )
    found = beyond.Found()
    ours = [
        processes.ContestantProcess(entrant, sys.executable, tmp_path / f"{number}.txt")
        for number, entrant in enumerate((roster.FULL, roster.NORMAL))
    ]
    with benchmarks("files.disk").disk(tmp_path / "files") as disk:
        async with benchmarks("suite").running(ours):
            await beyond.Beyond(disk, extent, found, lambda *_: None).measure(ours)
    return found


async def test_what_is_no_row_is_measured(tmp_path: Path) -> None:
    """How durable a write is, what an event takes, two processes on a file, and a longer file."""
    roster = benchmarks("files.roster")
    found = await measured_beyond(tmp_path)
    labels = [roster.FULL.label, roster.NORMAL.label]
    assert found.reasons == {}
    assert [found.durability[label] for label in labels] == ["WAL, FULL", "WAL, NORMAL"]
    assert [found.counted[label] for label in labels] == [300, 300]
    assert all(250 < found.sizes[label] < 1000 for label in labels)
    assert all(0 < found.together[label].least <= 0.5 for label in labels)
    for label in labels:
        short, long = found.long[label]
        assert (short.events, long.events) == (64 * 16, 64 * 20)
        assert short.size <= long.size
    assert list((tmp_path / "files").iterdir()) == []
    assert found.to_dict()["sizes"] == found.sizes


def test_every_goal_is_judged_by_rows_that_there_are() -> None:
    """A row that is renamed takes its goal along."""
    beyond, roster = benchmarks("files.beyond"), benchmarks("files.roster")
    results = benchmarks("results").Results(
        machine={},
        cases={case.name: case for case in rows()},
        entrants={entrant.label: entrant for entrant in roster.ROSTER},
    )
    usage = benchmarks("server").Usage(0.0, 0, 0.0, 0, 0, 0)
    for case in rows():
        for entrant in roster.ROSTER:
            results.note(entrant, case, {**TIMING, "operations": 1}, usage)
    file = beyond.LongFile(1024, 1.0, 1024, 1.0, 1.0, 1.0)
    ours = (roster.FULL.label, roster.NORMAL.label)
    durability = dict.fromkeys(results.entrants, "WAL, FULL")
    found = beyond.Found(durability, long={label: [file, file] for label in ours})
    verdicts = benchmarks("files.goals").judge_files(results, found)
    assert [verdict.case for verdict in verdicts if verdict.figure is None] == []
    tables = list(benchmarks("files.report").file_tables(results, found))
    assert tables[0].row_count == len(roster.ROSTER)


def test_only_peers_as_durable_are_those_to_beat() -> None:
    """One that syncs less, or has another journal, is faster or slower for that reason."""
    beyond, roster = benchmarks("files.beyond"), benchmarks("files.roster")
    goals = benchmarks("files.goals")
    case = benchmarks("files.cases").CROWD
    results = benchmarks("results").Results(
        machine={},
        cases={case.name: case},
        entrants={entrant.label: entrant for entrant in roster.ROSTER},
    )
    usage = benchmarks("server").Usage(0.0, 0, 0.0, 0, 0, 0)
    rates = {roster.FULL: 100.0, roster.OPENAI: 400.0}
    for entrant in roster.ROSTER:
        figures = {**TIMING, "rate": rates.get(entrant, 1000.0), "operations": 1}
        results.note(entrant, case, figures, usage)
    durability = dict.fromkeys(results.entrants, "DELETE, FULL")
    durability |= {roster.FULL.label: "WAL, FULL", roster.OPENAI.label: "WAL, FULL"}
    verdicts = goals.judge_files(results, beyond.Found(durability))
    beside = [each.figure for each in verdicts if each.case.startswith(f"{case.name}: x")]
    assert beside == [0.25, None]


def test_every_contestant_has_its_note() -> None:
    """What its default is, and what an append is there, is said."""
    roster = benchmarks("files.roster")
    assert list(roster.NOTES) == [entrant.label for entrant in roster.ROSTER]


async def test_the_floor_only_writes(tmp_path: Path) -> None:
    """Its file has its length from the first, and it takes part in nothing else."""
    floor, cases = benchmarks("contestants.files.floor").Floor, benchmarks("files.cases")
    contestant = floor(cases.ALONE.setup, str(tmp_path))
    floor.check(cases.CROWD)
    for _ in range(2):
        await contestant.append("any", ())
    await contestant.aclose()
    assert contestant.file.stat().st_size == 1000 * 4096
    with pytest.raises(benchmarks("driver").NotMeasuredError):
        floor.check(cases.LONG)
