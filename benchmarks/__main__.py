"""The command: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.cases import Group, selected
from benchmarks.environments import InstallationError, interpreter
from benchmarks.files import beyond, cases, disk
from benchmarks.files.goals import judge_files
from benchmarks.files.report import file_tables
from benchmarks.files.roster import ROSTER as FILES
from benchmarks.frameworks import FRAMEWORKS, Framework
from benchmarks.goals import IMPORT, Verdict, judge
from benchmarks.machine import describe_load, describe_machine, import_time
from benchmarks.overhead import adapter_tables, forget_conversions, judge_adapters
from benchmarks.plots import draw_plots
from benchmarks.processes import LONGEST, ContestantError, ContestantProcess, own_interpreter
from benchmarks.report import print_report
from benchmarks.results import Results
from benchmarks.roster import ROSTER, Entrant, Peer
from benchmarks.server import Server, running_server
from benchmarks.suite import FULL, QUICK, Place, Suite, running

_FOLDER = Path(__file__).resolve().parent
_RESULTS = _FOLDER / "results"
# Beside what nox keeps, where neither git nor the spelling checker looks.
_ENVIRONMENTS = _FOLDER.parent / ".nox" / "bench-peers"
_CONVERSATIONS = _FOLDER.parent.parent / "shared" / "data" / "airline_conversations.jsonl"
_FEW_SYNCS, _SYNCS = 100, 1000
_SECONDS_IN_A_FILE = 1.5
# A table is no use with its columns folded, wherever it is printed to.
_WIDTH = 190


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure agentsession beside its peers, on a server that is started for it.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases and shorter rounds")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--adapters",
        nargs="*",
        choices=[framework.name for framework in FRAMEWORKS],
        metavar="NAME",
        help="measure the adapters instead, all or those of these frameworks, without plots",
    )
    instead.add_argument(
        "--files",
        action="store_true",
        help="measure the stores in one file instead, ours and the frameworks', without plots",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=_RESULTS,
        metavar="DIR",
        help="where --files makes its files, on the disk that is to be measured",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="all figures", default=_RESULTS / "results.json"
    )
    parser.add_argument("--plots", type=Path, default=_RESULTS, metavar="DIR", help="SVG files")
    parser.add_argument(
        "--cases", nargs="+", default=[], metavar="WORDS", help="only cases with one in their name"
    )
    parser.add_argument("--no-peers", action="store_true", help="only agentsession and the floor")
    parser.add_argument(
        "--environments",
        type=Path,
        default=_ENVIRONMENTS,
        metavar="DIR",
        help="where the peers are installed, and kept",
    )
    parser.add_argument(
        "--python",
        type=Path,
        metavar="FILE",
        help="an interpreter that has the peers, instead of installing them",
    )
    parser.add_argument(
        "--conversations",
        type=Path,
        default=_CONVERSATIONS,
        metavar="FILE",
        help="real conversations, in the OpenAI chat format, one a line",
    )
    return parser.parse_args()


def main() -> None:
    """Run the suite as the command line says."""
    options = _arguments()
    console = Console(width=_WIDTH)
    results = Results(describe_machine())
    options.json.parent.mkdir(parents=True, exist_ok=True)
    if options.files:
        _measure_files(console, results, options)
    elif options.adapters is None:
        _measure_service(console, results, options)
    else:
        _measure_adapters(console, results, options)


def _measure_service(console: Console, results: Results, options: argparse.Namespace) -> None:
    """Measure the service beside other libraries."""
    conversations = options.conversations.resolve()
    groups = selected(
        quick=options.quick,
        words=options.cases,
        conversations=str(conversations) if conversations.is_file() else "",
    )
    console.print("installing peers that are not yet", style="dim")
    processes = _enter(results, options, ROSTER)
    with _server(results) as server:
        asyncio.run(_measure(console, results, server, processes, groups, options, whole=True))
    results.machine["load after"] = describe_load()
    _time_imports(results, 3 if options.quick else 9)
    verdicts = judge(results)
    print_report(console, results, verdicts)
    written = [_written(results, verdicts, options.json), *draw_plots(results, options.plots)]
    console.print("Written:", ", ".join(str(file) for file in written), soft_wrap=True)


def _measure_adapters(console: Console, results: Results, options: argparse.Namespace) -> None:
    """Measure the adapters, one framework after the other."""
    names = options.adapters
    frameworks = [each for each in FRAMEWORKS if not names or each.name in names]
    with _server(results) as server:
        for framework in frameworks:
            console.print(f"{framework.name}, which is installed if it is not yet", style="dim")
            processes = _enter(results, options, [*framework.entrants()], framework)
            groups = [_chosen(framework.group(), options.cases)]
            asyncio.run(_measure(console, results, server, processes, groups, options, whole=False))
    results.machine["load after"] = describe_load()
    forget_conversions(results)
    verdicts = judge_adapters(results, frameworks)
    print_report(console, results, verdicts, adapter_tables(results, frameworks))
    file = _written(results, verdicts, options.json)
    console.print("Written:", str(file), soft_wrap=True)


def _measure_files(console: Console, results: Results, options: argparse.Namespace) -> None:
    """Measure what stores in a file."""
    console.print("installing peers that are not yet", style="dim")
    processes = _enter(results, options, FILES, longest=beyond.LONGEST)
    groups = cases.selected(options.cases)
    found = beyond.Found()
    with disk.disk(options.folder.resolve()) as where:
        syncs = _FEW_SYNCS if options.quick else _SYNCS
        results.machine["files on"] = disk.describe_disk(where.folder)
        results.machine["fdatasync of 4 KiB"] = disk.describe_syncs(where.folder, syncs)
        results.machine["sqlite"] = sqlite3.sqlite_version
        extent = beyond.QUICK if options.quick else beyond.WHOLE

        async def measure_beyond(
            present: Sequence[ContestantProcess], show: Callable[[str, int], None]
        ) -> None:
            await beyond.Beyond(where, extent, found, show).measure(present)

        # Some cases are chosen where nothing beyond them is wanted.
        also = None if options.cases else measure_beyond
        asyncio.run(
            _measure(console, results, where, processes, groups, options, whole=False, also=also)
        )
        results.machine["fdatasync after"] = disk.describe_syncs(where.folder, syncs)
    results.machine["load after"] = describe_load()
    verdicts = judge_files(results, found)
    print_report(console, results, verdicts, file_tables(results, found))
    file = _written(results, verdicts, options.json, files=found.to_dict())
    console.print("Written:", str(file), soft_wrap=True)


def _chosen(group: Group, words: Sequence[str]) -> Group:
    cases = (case for case in group.cases if not words or any(word in case.name for word in words))
    return Group(group.title, tuple(cases))


@contextmanager
def _server(results: Results) -> Iterator[Server]:
    with running_server() as server:
        results.versions["server"] = server.version
        yield server


def _written(results: Results, verdicts: Sequence[Verdict], file: Path, **also: Any) -> Path:
    goals = [
        {"case": each.case, "goal": each.goal, "bound": each.bound, "figure": each.figure,
         "unit": each.unit, "met": each.met, "detail": each.detail}
        for each in verdicts
    ]  # fmt: skip
    words = json.dumps({**results.to_dict(), **also, "goals": goals}, indent=1)
    file.write_text(words + "\n", encoding="utf-8")
    return file


def _enter(
    results: Results,
    options: argparse.Namespace,
    entrants: Sequence[Entrant],
    framework: Framework | None = None,
    *,
    longest: float = LONGEST,
) -> list[ContestantProcess]:
    """Make the environments that are needed, and note which cannot be made.

    Those of a framework share one, for its adapter needs the framework too.
    """
    logs = options.environments.resolve() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    processes: list[ContestantProcess] = []
    for number, entrant in enumerate(entrants):
        if entrant.peer is not None and options.no_peers:
            continue
        results.entrants[entrant.label] = entrant
        needed = entrant.peer if framework is None else framework.peer
        try:
            python = _python_of(needed, options)
        except InstallationError as exc:
            results.absent[entrant.label] = f"could not be installed: {exc}"
            continue
        log = logs / f"{entrant.module}-{number}.txt"
        processes.append(ContestantProcess(entrant, python, log, longest=longest))
    return processes


def _python_of(needed: Peer | None, options: argparse.Namespace) -> Path:
    """Return the interpreter that has a peer; this one if none is needed.

    Raises:
        InstallationError: It could not be installed.
    """
    if needed is None:
        return own_interpreter()
    if options.python is not None:
        return Path(options.python)
    return interpreter(needed, options.environments)


# Measures more of the contestants that are running, and tells what it does.
Also = Callable[[Sequence[ContestantProcess], Callable[[str, int], None]], Awaitable[None]]


async def _measure(
    console: Console,
    results: Results,
    server: Place,
    processes: Sequence[ContestantProcess],
    groups: Sequence[Group],
    options: argparse.Namespace,
    *,
    whole: bool,
    also: Also | None = None,
) -> None:
    pace = QUICK if options.quick else FULL
    if not whole:
        pace = replace(pace, watched=0)
    if options.files and not options.quick:
        # Each round begins with a new file, whose log grows at first, which costs more.
        pace = replace(pace, seconds=_SECONDS_IN_A_FILE)
    columns = (TextColumn("{task.description:70}"), BarColumn(), TimeElapsedColumn())
    # Without refreshing by itself: a thread that draws would take time from what is measured.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        rounds = pace.rounds + pace.watched
        total = sum(len(group.cases) * rounds for group in groups)
        task = progress.add_task("starting", total=total)

        def show(what: str, done: int) -> None:
            progress.update(task, description=what, advance=done)
            progress.refresh()

        async with running(processes):
            present = [process for process in processes if await _introduced(results, process)]
            suite = Suite(server, present, pace, results, show)
            if whole:
                # First, while the server has freed nothing yet that it could use again.
                await suite.measure_footprints()
            await suite.run(groups)
            if also is not None:
                await also(present, show)


async def _introduced(results: Results, process: ContestantProcess) -> bool:
    """Ask a contestant for its versions, which shows whether it can run at all."""
    entrant = process.entrant
    try:
        versions = await process.ask(do="versions", packages=entrant.packages)
    except ContestantError as exc:
        results.absent[entrant.label] = f"could not be run: {exc}"
        return False
    if versions:
        results.versions[entrant.label] = ", ".join(f"{name} {versions[name]}" for name in versions)
    return True


def _time_imports(results: Results, rounds: int) -> None:
    before = "import msgspec, anyio"
    results.imports = {
        IMPORT: import_time("import agentsession", before=before, rounds=rounds),
        "agentsession.RedisSessionService": import_time(
            "from agentsession import RedisSessionService", before=before, rounds=rounds
        ),
        "redis.asyncio alone": import_time("import redis.asyncio", before=before, rounds=rounds),
    }


if __name__ == "__main__":
    main()
