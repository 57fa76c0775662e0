"""Tables: goals and ratios first, absolute figures after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.goals import Verdict
from benchmarks.results import Figures, Results
from benchmarks.roster import OURS, OURS_IN_MEMORY, Entrant

__all__ = ["make_table", "print_report", "short"]


def print_report(
    console: Console,
    results: Results,
    verdicts: Iterable[Verdict],
    ratios: Iterable[Table] | None = None,
) -> None:
    """Print all of it; *ratios* stand in the place of those to this project's own contestants."""
    console.print(_about(results))
    console.print(_goals(verdicts))
    for each in _own_ratios(results) if ratios is None else ratios:
        console.print(each)
    console.print(_absolute(results))
    if results.footprints:
        console.print(_footprints(results))
    if results.imports:
        console.print(_imports(results))
    for table in _missing(results):
        console.print(table)


def make_table(title: str, *columns: str, words: int = 1) -> Table:
    """Make a table whose columns but the first ones hold numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < words else "right", no_wrap=True)
    return table


def _about(results: Results) -> Table:
    table = make_table("Machine and versions", "", "", words=2)
    for name, value in {**results.machine, **results.versions}.items():
        table.add_row(name, value)
    return table


def _goals(verdicts: Iterable[Verdict]) -> Table:
    table = make_table("Goals", "case", "goal", "measured", "", "by", "in detail", words=1)
    table.columns[0].no_wrap = False
    table.columns[-1].justify = "left"
    table.columns[-1].no_wrap = False
    for each in verdicts:
        measured = "-" if each.figure is None else f"{short(each.figure)} {each.unit}"
        met = {True: "[green]met[/]", False: "[red]not met[/]", None: "not measured"}[each.met]
        margin = "" if each.margin is None else _margin(each.margin)
        goal = f"at {each.bound} {short(each.goal)} {each.unit}"
        table.add_row(each.case, goal, measured, met, margin, each.detail)
    return table


def _margin(margin: float) -> str:
    return f"{margin:.1f} x better" if margin >= 1 else f"{1 / margin:.2f} x short"


def _rivals(results: Results, ours: Entrant) -> list[Entrant]:
    return [each for each in results.entrants.values() if each.store == ours.store and each != ours]


def _own_ratios(results: Results) -> Iterable[Table]:
    for ours in (OURS, OURS_IN_MEMORY):
        if rivals := _rivals(results, ours):
            yield _ratios(results, ours, rivals)


def _ratios(results: Results, ours: Entrant, rivals: Sequence[Entrant]) -> Table:
    """Show how many times our time the others take, or our rate is theirs if many call."""
    title = (
        f"{ours.label}: how many times as fast as each other one "
        "(1 caller: its p50 by ours; more: our operations a second by its)"
    )
    table = make_table(title, "case", *(rival.label for rival in rivals))
    for case in results.cases.values():
        own = results.figures(ours, case.name)
        if own is not None:
            theirs = (results.figures(rival, case.name) for rival in rivals)
            table.add_row(case.name, *(_ratio(own, each, case.callers) for each in theirs))
    return table


def _ratio(own: Figures, other: Figures | None, callers: int) -> str:
    if other is None:
        return "-"
    return short(own.rate / other.rate if callers > 1 else other.p50 / own.p50)


def _absolute(results: Results) -> Table:
    table = make_table(
        "Absolute figures: medians of rounds; times of an operation, and what one costs",
        "contestant", "op/s", "p50 ms", "p95 ms", "p99 ms", "client us", "script us",
        "server CPU", "calls", "bytes in", "bytes out", "stall ms", "late ms", "step ms",
    )  # fmt: skip
    for case in results.cases.values():
        table.add_row(f"[bold]{case.name}[/]")
        for label, entrant in results.entrants.items():
            figures = results.figures(entrant, case.name)
            if figures is not None:
                table.add_row(f"  {label}", *_figures(figures, entrant))
        table.add_section()
    return table


def _figures(figures: Figures, entrant: Entrant) -> list[str]:
    times = [f"{each * 1e3:,.3f}" for each in (figures.p50, figures.p95, figures.p99)]
    server = ["", "", "", "", ""]
    if entrant.store == "server":
        script = f"{figures.script_time * 1e6:.1f}" if figures.script_time else ""
        server = [
            script,
            f"{figures.server_cpu:.0%}",
            f"{figures.calls:,.1f}",
            f"{figures.received:,.0f}",
            f"{figures.sent:,.0f}",
        ]
    stalls = ["", "", ""]
    if figures.latest_tick:
        stalls = [
            f"{each * 1e3:.1f}" for each in (figures.stall, figures.latest_tick, figures.step)
        ]
    rate = f"{figures.rate:,.0f}" if figures.rate >= 10 else f"{figures.rate:.2f}"
    return [rate, *times, f"{figures.client_cpu * 1e6:,.0f}", *server, *stalls]


def _footprints(results: Results) -> Table:
    histories = sorted({history for _, history in results.footprints})
    table = make_table(
        "Memory of a session, bytes", "contestant", *(f"{each} events" for each in histories)
    )
    for label in results.entrants:
        sizes = [results.footprints.get((label, history)) for history in histories]
        if any(size is not None for size in sizes):
            table.add_row(label, *("-" if size is None else f"{size:,.0f}" for size in sizes))
    return table


def _imports(results: Results) -> Table:
    table = make_table("Import", "module", "ms")
    for name, seconds in results.imports.items():
        table.add_row(name, f"{seconds * 1e3:.1f}")
    return table


def _missing(results: Results) -> Iterable[Table]:
    """Say who and what is not in the tables above, and why."""
    if results.absent:
        table = make_table("Did not take part", "contestant", "why", words=2)
        for label, reason in results.absent.items():
            table.add_row(label, reason)
        yield table
    reasons: dict[tuple[str, str], list[str]] = {}
    for (label, case), reason in results.reasons.items():
        reasons.setdefault((label, reason), []).append(case)
    if reasons:
        table = make_table("Not measured", "contestant", "why", "cases", words=3)
        table.columns[-1].no_wrap = False
        for (label, reason), cases in reasons.items():
            table.add_row(label, reason, "; ".join(cases))
        yield table


def short(number: float) -> str:
    """Word a number with three digits that count."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}".removesuffix(".00")
