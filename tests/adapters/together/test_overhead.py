"""The benchmarks of the adapters run, and compare what is alike."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[3]
MODULES = {
    "agent_framework": "agent_framework",
    "claude_agent_sdk": "claude_agent_sdk",
    "google_adk": "google.adk",
    "langgraph": "langgraph.graph",
    "mcp": "mcp",
    "openai_agents": "agents",
    "pydantic_ai": "pydantic_ai",
    "strands": "strands",
    "trpc_agent": "trpc_agent_sdk",
}
# It keeps bytes in state, and no events.
OF_EVENTS = sorted(set(MODULES) - {"strands"})
PLACES = ("server", "memory")


def benchmarks(module: str) -> Any:
    """Import one of the modules, which are not part of the package."""
    return importlib.import_module(f"benchmarks.{module}")


def contestants(module: str) -> Any:
    """Return the contestants of an adapter, but for the framework's own stores."""
    pytest.importorskip(MODULES[module], reason="the framework is not installed")
    adapter = benchmarks(f"contestants.adapters.{module}").Ours
    return benchmarks("contestants.adapters.base").contestants(adapter, {})


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let them be found."""
    monkeypatch.syspath_prepend(str(ROOT))


@contextmanager
def url_of(place: str) -> Iterator[str]:
    """Run a server where there is to be one."""
    if place == "memory":
        yield ""
        return
    with benchmarks("server").running_server() as server:
        yield server.url(1)


def small(case: Any) -> Any:
    """Make a row that takes its time one that is done in a moment."""
    return replace(case, setup=replace(case.setup, sessions=4), callers=min(case.callers, 4))


async def operations_run(driver: Any, module: str, url: str) -> set[str]:
    """Run each row, on a small scale, and name the operations that are for the contestant."""
    (framework,) = (each for each in benchmarks("frameworks").FRAMEWORKS if each.module == module)
    found = set()
    for case in map(small, framework.group().cases):
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


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("module", MODULES)
async def test_every_row_runs(module: str, place: str) -> None:
    """Each caller of each row does what it is to do, once, and reads all that was appended."""
    found = {}
    for what, kind in contestants(module).items():
        if what.endswith(place):
            driver = benchmarks("driver").Driver({"it": kind})
            with url_of(place) as url:
                try:
                    found[what] = await operations_run(driver, module, url)
                finally:
                    await driver.obey({"do": "clear"})
    assert found == {
        f"adapter, {place}": {"append", "read", "convert", "restore"},
        f"bare, {place}": {"append", "read"},
    }


async def appended(kind: Any) -> list[Any]:
    """Append once, and return what is stored, but for what is another one in each event."""
    contestant = kind(benchmarks("cases").Setup(1, 1), "")
    await contestant.seed(["one"])
    adapter = getattr(contestant, "_adapter", contestant)
    before = await adapter.service.get_events(adapter.key("one"))
    await contestant.append("one", (benchmarks("messages").words(200),))
    stored = await adapter.service.get_events(adapter.key("one"))
    await contestant.aclose()
    return [event for event in stored if event.seq > before[-1].seq]


@pytest.mark.parametrize("module", OF_EVENTS)
async def test_the_bare_service_stores_what_the_adapter_stores(module: str) -> None:
    """Else less would be compared with more."""
    both = contestants(module)
    ours, bare = [await appended(both[f"{what}, memory"]) for what in ("adapter", "bare")]
    assert [_size(event) for event in ours] == pytest.approx(
        [_size(event) for event in bare], rel=0.05
    )
    assert [event.author for event in ours] == [event.author for event in bare]
    assert [[type(part) for part in event.content] for event in ours] == [
        [type(part) for part in event.content] for event in bare
    ]


def _size(event: Any) -> int:
    return len(msgspec.json.encode(event.to_dict()))
