"""The command: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.cases import Group, selected
from benchmarks.environments import InstallationError, interpreter
from benchmarks.goals import IMPORT, judge
from benchmarks.machine import describe_load, describe_machine, import_time
from benchmarks.plots import draw_plots
from benchmarks.processes import ContestantError, ContestantProcess, own_interpreter
from benchmarks.report import print_report
from benchmarks.results import Results
from benchmarks.roster import ROSTER
from benchmarks.server import Server, running_server
from benchmarks.suite import FULL, QUICK, Pace, Suite, running

_FOLDER = Path(__file__).resolve().parent
_RESULTS = _FOLDER / "results"
# Beside what nox keeps, where neither git nor the spelling checker looks.
_ENVIRONMENTS = _FOLDER.parent / ".nox" / "bench-peers"
_CONVERSATIONS = _FOLDER.parent.parent / "shared" / "data" / "airline_conversations.jsonl"
# A table is no use with its columns folded, wherever it is printed to.
_WIDTH = 190


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure agentsession beside its peers, on a server that is started for it.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases and shorter rounds")
    parser.add_argument(
        "--json", type=Path, default=_RESULTS / "results.json", metavar="FILE", help="all figures"
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
    conversations = options.conversations.resolve()
    groups = selected(
        quick=options.quick,
        words=options.cases,
        conversations=str(conversations) if conversations.is_file() else "",
    )
    results = Results(describe_machine())
    options.json.parent.mkdir(parents=True, exist_ok=True)
    logs = options.environments.resolve() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    processes = _enter(console, results, options, logs)
    pace = QUICK if options.quick else FULL
    with running_server() as server:
        results.versions["server"] = server.version
        asyncio.run(_measure(console, results, server, processes, groups, pace))
    results.machine["load after"] = describe_load()
    _time_imports(results, 3 if options.quick else 9)
    verdicts = judge(results)
    print_report(console, results, verdicts)
    goals = [
        {"case": each.case, "goal": each.goal, "bound": each.bound, "figure": each.figure,
         "unit": each.unit, "met": each.met, "detail": each.detail}
        for each in verdicts
    ]  # fmt: skip
    words = json.dumps({**results.to_dict(), "goals": goals}, indent=1)
    options.json.write_text(words + "\n", encoding="utf-8")
    written = [options.json, *draw_plots(results, options.plots)]
    console.print("Written:", ", ".join(str(file) for file in written), soft_wrap=True)


def _enter(
    console: Console, results: Results, options: argparse.Namespace, logs: Path
) -> list[ContestantProcess]:
    """Make the environments of the peers, and note which cannot be made."""
    processes: list[ContestantProcess] = []
    for number, entrant in enumerate(ROSTER):
        if entrant.peer is not None and options.no_peers:
            continue
        results.entrants[entrant.label] = entrant
        python = own_interpreter()
        if entrant.peer is not None:
            console.print(f"installing {entrant.peer.name}, if it is not yet", style="dim")
            try:
                python = interpreter(entrant.peer, options.environments)
            except InstallationError as exc:
                results.absent[entrant.label] = f"could not be installed: {exc}"
                continue
        processes.append(ContestantProcess(entrant, python, logs / f"{number}.txt"))
    return processes


async def _measure(
    console: Console,
    results: Results,
    server: Server,
    processes: Sequence[ContestantProcess],
    groups: Sequence[Group],
    pace: Pace,
) -> None:
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
            # First, while the server has freed nothing yet that it could use again.
            await suite.measure_footprints()
            await suite.run(groups)


async def _introduced(results: Results, process: ContestantProcess) -> bool:
    """Ask a contestant for its versions, which shows whether it can run at all."""
    entrant = process.entrant
    try:
        versions = await process.ask(do="versions", packages=entrant.packages)
    except ContestantError as exc:
        results.absent[entrant.label] = f"could not be run: {exc}"
        return False
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
