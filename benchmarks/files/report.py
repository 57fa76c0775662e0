"""Tables of the stores in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.table import Table

from benchmarks.cases import Case
from benchmarks.files.beyond import Found
from benchmarks.files.cases import ALONE, CROWD, LONG, PAGE, SHORT
from benchmarks.files.roster import FULL, NOTES
from benchmarks.report import make_table, short
from benchmarks.results import Figures, Results

__all__ = ["file_tables"]


def file_tables(results: Results, found: Found) -> Iterator[Table]:
    """Yield a table of the contestants, notes about them, and what was measured beyond."""
    yield _contestants(results, found)
    yield _notes(results)
    if found.together:
        yield _together(found)
    if found.long:
        yield _long(found)
    if found.reasons:
        yield _reasons(found)


def _contestants(results: Results, found: Found) -> Table:
    title = (
        "In a file: appends a second, times in ms (p50, 1 caller), bytes that an event adds, of "
        "how many; x: how many times as fast agentsession, full, is"
    )
    table = make_table(
        title, "contestant", "journal, synchronous", "append, 1", "x", "append, 64", "x",
        "last 10 of 10", "x", "of 100,000", "x", "50 of 10,000", "x", "bytes", "of",
        words=2,
    )  # fmt: skip
    for label in results.entrants:
        durability = found.durability.get(label, "-")
        table.add_row(label, durability, *_figures(results, label), *_size(found, label))
    return table


def _figures(results: Results, label: str) -> Iterator[str]:
    for case in (ALONE, CROWD):
        yield from _beside(results, label, case, lambda each: each.rate, lambda each: each.rate)
    for case in (SHORT, LONG, PAGE):
        yield from _beside(
            results, label, case, lambda each: each.p50 * 1e3, lambda each: 1 / each.p50
        )


def _beside(
    results: Results,
    label: str,
    case: Case,
    shown: Callable[[Figures], float],
    speed: Callable[[Figures], float],
) -> Iterator[str]:
    """Show a figure, and how many times as fast ours is."""
    ours = results.figures(FULL, case.name)
    figures = results.figures(results.entrants[label], case.name)
    yield "-" if figures is None else short(shown(figures))
    if figures is None or ours is None or label == FULL.label:
        yield ""
    else:
        yield short(speed(ours) / speed(figures))


def _size(found: Found, label: str) -> tuple[str, str]:
    if label not in found.sizes:
        return "-", ""
    return f"{found.sizes[label]:,.0f}", f"{found.counted[label]:,}"


def _notes(results: Results) -> Table:
    table = make_table("What is to be known of them", "contestant", "", words=2)
    table.columns[-1].no_wrap = False
    for label in results.entrants:
        table.add_row(label, NOTES[label])
    return table


def _together(found: Found) -> Table:
    table = make_table(
        "4 processes on one file, 16 callers each: appends a second",
        "contestant", "1 process", "4 together", "x", "share of the slowest (of 25 %)",
    )  # fmt: skip
    for label, each in found.together.items():
        times, share = short(each.rate / each.alone), f"{each.least:.1%}"
        table.add_row(label, f"{each.alone:,.0f}", f"{each.rate:,.0f}", times, share)
    return table


def _long(found: Found) -> Table:
    table = make_table(
        "One file of 64 sessions, written in batches of 100 by 64 callers; times in ms (p50)",
        "contestant", "events", "written in s", "events/s", "MB", "bytes each",
        "to open", "append", "last 10",
    )  # fmt: skip
    for label, files in found.long.items():
        for each in files:
            table.add_row(
                label,
                f"{each.events:,}",
                f"{each.written:.2f}",
                f"{each.events / each.written:,.0f}",
                f"{each.size / 1e6:,.1f}",
                f"{each.size / each.events:,.0f}",
                *(f"{time * 1e3:.3f}" for time in (each.opening, each.append, each.last)),
            )
    return table


def _reasons(found: Found) -> Table:
    table = make_table("Not measured beyond the cases", "contestant", "what", "why", words=3)
    table.columns[-1].no_wrap = False
    for (label, what), why in found.reasons.items():
        table.add_row(label, what, why)
    return table
