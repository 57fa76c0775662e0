"""The benchmarks run, and each of their goals is judged by rows that there are."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import pytest

from documents.markdown import ROOT

# Of this project's contestants, the operations that each takes part in.
EVERYTHING = {"append", "get", "history", "list", "turn", "leased", "unleased", "rewind", "fork"}
OPERATIONS = {
    ("ours", "InMemory"): EVERYTHING,
    ("ours", "OnServer"): EVERYTHING,
    ("floor", "Floor"): {"append", "get", "baseline"},
}

OPERATIONS_KEPT = {"append", "read"}


def benchmarks(module: str) -> Any:
    """Import one of the modules, which are not part of the package."""
    return importlib.import_module(f"benchmarks.{module}")


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let them be found."""
    monkeypatch.syspath_prepend(ROOT)


def rows() -> list[Any]:
    """Return all rows but those of conversations, which need a file."""
    groups = benchmarks("cases").GROUPS
    cases = [case for group in groups for case in group.cases]
    return [case for case in cases if case.operation != "conversation"]


def small(case: Any) -> Any:
    """Make a row that takes its time one that is done in a moment."""
    setup = replace(
        case.setup,
        sessions=min(case.setup.sessions, 4),
        history=min(case.setup.history, 10),
        rewinds=min(case.setup.rewinds, 2),
        size=min(case.setup.size, 200),
    )
    return replace(case, setup=setup)


async def operations_run(driver: Any, url: str) -> set[str]:
    """Run each row, on a small scale, and name the operations that are for the contestant."""
    found = set()
    for case in map(small, rows()):
        words = {"contestant": "it", "case": case.to_dict(), "setup": case.name, "url": url}
        try:
            await driver.obey({**words, "do": "check"})
        except benchmarks("driver").NotMeasuredError:
            continue
        await driver.obey({**words, "do": "prepare"})
        figures = await driver.obey({**words, "do": "run", "seconds": 0.0, "watch": False})
        assert figures["operations"] >= case.callers, case.name
        found.add(case.operation)
    return found


@pytest.mark.parametrize(("module", "name"), OPERATIONS)
async def test_every_row_runs(module: str, name: str) -> None:
    """Each caller of each row does what it is to do, once."""
    contestant = getattr(benchmarks(f"contestants.{module}"), name)
    driver = benchmarks("driver").Driver({"it": contestant})
    with benchmarks("server").running_server() as server:
        try:
            found = await operations_run(driver, server.url(1))
        finally:
            await driver.obey({"do": "clear"})
    assert found == OPERATIONS[module, name]


async def test_a_turn_with_its_lease_gives_it_back() -> None:
    """Else the next turn of the session would wait for it, and that would be measured."""
    contestant = benchmarks("contestants.ours").InMemory(benchmarks("cases").Setup(), "")
    messages = benchmarks("messages").exchange(10)
    await contestant.seed(["one"])
    await contestant.leased_turn("one", messages)
    await contestant.unleased_turn("one", messages)
    service = contestant.service
    key = (await service.list_sessions("bench")).sessions[0].key
    lease = service.lease(key, when_busy="reject")
    async with lease:
        events = await service.get_events(key)
    await contestant.aclose()
    assert [event.outcome for event in events] == ["", "", "completed", "", "", ""]
    assert [event.author for event in events] == ["user", "agent", "agent"] * 2


async def test_a_row_of_rewinds_takes_back_what_the_one_before_has_appended() -> None:
    """The log that readers see is as long after any number of them."""
    setup = benchmarks("cases").Setup(sessions=1, history=10, rewinds=3)
    contestant = benchmarks("contestants.ours").InMemory(setup, "")
    await contestant.seed(["one"])
    await contestant.rewind("one", benchmarks("messages").exchange(10)[:2])
    service = contestant.service
    key = (await service.list_sessions("bench")).sessions[0].key
    seen, stored = await service.get_events(key), await service.get_events(key, raw=True)
    await contestant.aclose()
    assert [event.seq for event in seen] == [*range(1, 11), 21, 22]
    assert len(stored) == 10 + 4 * 3


TIMING = dict.fromkeys(("rate", "mean", "p50", "p95", "p99", "elapsed", "cpu"), 1.0)


def measured(cases: Any, entrants: Any) -> Any:
    """Make the results of a run in which everybody took part in everything."""
    results = benchmarks("results").Results(
        machine={},
        cases={case.name: case for case in cases},
        entrants={entrant.label: entrant for entrant in entrants},
        imports={benchmarks("goals").IMPORT: 0.1},
    )
    usage = benchmarks("server").Usage(1.0, 1, 1.0, 1, 1, 1)
    for case in cases:
        for entrant in entrants:
            results.note(entrant, case, {**TIMING, "operations": 1}, usage)
    return results


def test_every_goal_is_judged_by_rows_that_there_are() -> None:
    """A row that is renamed takes its goal along."""
    verdicts = benchmarks("goals").judge(measured(rows(), benchmarks("roster").ROSTER))
    assert [verdict.case for verdict in verdicts if verdict.figure is None] == []


def test_every_goal_of_the_adapters_is_judged_by_rows_that_there_are() -> None:
    """A row that is renamed takes its goal along."""
    frameworks = benchmarks("frameworks").FRAMEWORKS
    cases = [case for framework in frameworks for case in framework.group().cases]
    entrants = [entrant for framework in frameworks for entrant in framework.entrants()]
    results = measured(cases, entrants)
    assert len(results.cases) == len(cases)
    assert len(results.entrants) == len(entrants)
    verdicts = benchmarks("overhead").judge_adapters(results, frameworks)
    assert [verdict.case for verdict in verdicts if verdict.figure is None] == []


def test_conversion_is_no_part_of_what_an_adapter_adds() -> None:
    """Two microseconds, of which one is the conversion, are once the bare service's one."""
    (framework, *_) = benchmarks("frameworks").FRAMEWORKS
    results = measured(framework.group().cases, ())
    usage = benchmarks("server").Usage(1.0, 1, 1.0, 1, 1, 1)
    for place in benchmarks("frameworks").PLACES:
        for entrant in (framework.adapter(place), framework.bare(place)):
            for case in results.cases.values():
                is_twice = entrant == framework.adapter(place) and case.operation in OPERATIONS_KEPT
                figures = {**TIMING, "p50": 2.0, "rate": 0.5, "cpu": 2.0} if is_twice else TIMING
                results.note(entrant, case, {**figures, "operations": 1}, usage)
    verdicts = benchmarks("overhead").judge_adapters(results, [framework])
    assert {each.figure for each in verdicts if each.bound == "most"} == {1.0}


def test_every_adapter_is_measured() -> None:
    """A new adapter is not left out."""
    folder = ROOT / "agentsession" / "adapters"
    modules = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    assert {each.module for each in benchmarks("frameworks").FRAMEWORKS} == modules
