"""Plots of a run, each readable at a glance: one line a contestant, ours the thick ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt

from benchmarks.cases import Case
from benchmarks.results import Figures, Results
from benchmarks.roster import FLOOR, OURS, OURS_IN_MEMORY, Entrant

__all__ = ["draw_plots"]

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_COLOURS = ("#D55E00", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9")
_OURS_COLOURS = {OURS.label: "#009E73", OURS_IN_MEMORY.label: "#000000", FLOOR.label: "#999999"}

Value = Callable[[Figures], float]
Position = Callable[[Case], int]


def draw_plots(results: Results, folder: Path) -> list[Path]:
    """Draw what there are figures for, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = (
        ("throughput.svg", _callers, ("append, history 0,", "last 10, history 1,000,")),
        ("latency.svg", _latencies, ("append, history 0,",)),
        ("history.svg", _history, ("append, history ", "last 10, history ")),
        ("sessions.svg", _sessions, ("page of 50 of ",)),
    )
    return [
        draw(results, folder / name)
        for name, draw, cases in drawings
        if any(_chosen(results, cases))
    ]


def _callers(results: Results, file: Path) -> Path:
    figure, axes = _panels("Appends and reads a second, by number of callers", 2)
    for axis, title, names in (
        (axes[0], "append, history 0", ("append, history 0,",)),
        (axes[1], "get the last 10 of 1,000", ("last 10, history 1,000,",)),
    ):
        _lines(results, axis, names, lambda case: case.callers, lambda each: each.rate)
        _label(axis, title, "callers", "operations a second; more is better")
    return _save(figure, axes, file)


def _latencies(results: Results, file: Path) -> Path:
    """Draw a bar from p50 to p99, with a mark at p95, for each number of callers."""
    cases = list(_chosen(results, ("append, history 0,",)))
    figure, axes = _panels("How long an append takes: p50 (dot), p95 (line), p99 (end)", len(cases))
    for axis, case in zip(axes, cases, strict=True):
        rows = [
            (entrant, figures)
            for entrant in results.entrants.values()
            if (figures := results.figures(entrant, case.name)) is not None
        ]
        for height, (entrant, figures) in enumerate(reversed(rows)):
            colour = _colour(results, entrant)
            p50, p95, p99 = (each * 1e3 for each in (figures.p50, figures.p95, figures.p99))
            axis.plot([p50, p99], [height, height], color=colour, linewidth=5, alpha=0.6)
            axis.plot(p50, height, "o", color=colour, markersize=8)
            axis.plot(p95, height, "|", color="black", markersize=12)
        axis.set_yticks(range(len(rows)), [entrant.label for entrant, _ in reversed(rows)])
        axis.set_xscale("log")
        _label(axis, case.name, "milliseconds; less is better", "")
        if axis is not axes[0]:
            axis.tick_params(labelleft=False)
    return _save(figure, (), file)


def _history(results: Results, file: Path) -> Path:
    figure, axes = _panels("Cost against the length of the history, 1 caller", 2)
    for axis, title, names in (
        (axes[0], "append", ("append, history ",)),
        (axes[1], "get the last 10", ("last 10, history ",)),
    ):
        _lines(
            results,
            axis,
            names,
            lambda case: case.setup.history,
            lambda each: each.p50 * 1e3,
            wanted=lambda case: case.callers == 1 and case.setup.history > 0,
        )
        _label(axis, title, "events in the session", "milliseconds (p50); less is better")
    return _save(figure, axes, file)


def _sessions(results: Results, file: Path) -> Path:
    figure, axes = _panels("A page of 50 sessions, by how many the user has", 1)
    _lines(
        results,
        axes[0],
        ("page of 50 of ",),
        lambda case: case.setup.sessions,
        lambda each: each.p50 * 1e3,
    )
    _label(axes[0], "", "sessions of the user", "milliseconds (p50); less is better")
    return _save(figure, axes, file)


def _panels(title: str, count: int) -> tuple[Any, Sequence[Any]]:
    width = 6.0 * count if count < 3 else 4.5 * count + 2
    figure, axes = plt.subplots(
        1, max(count, 1), figsize=(width, 4.8), squeeze=False, layout="constrained"
    )
    figure.suptitle(title, fontweight="bold")
    return figure, list(axes[0][:count])


def _lines(
    results: Results,
    axis: Any,
    names: tuple[str, ...],
    position: Position,
    value: Value,
    wanted: Callable[[Case], bool] = lambda _: True,
) -> None:
    cases = [case for case in _chosen(results, names) if wanted(case)]
    for entrant in results.entrants.values():
        points = sorted(
            (position(case), value(figures))
            for case in cases
            if (figures := results.figures(entrant, case.name)) is not None
        )
        if points:
            ours = entrant in (OURS, OURS_IN_MEMORY)
            axis.plot(
                [place for place, _ in points],
                [height for _, height in points],
                marker="o",
                label=entrant.label,
                color=_colour(results, entrant),
                linewidth=3.5 if ours else 1.8,
                linestyle="--" if entrant.store == "memory" else "-",
                zorder=3 if ours else 2,
            )
    axis.set_xscale("log")
    axis.set_yscale("log")
    places = sorted({position(case) for case in cases})
    axis.set_xticks(places, [f"{place:,}" for place in places])
    axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)


def _chosen(results: Results, names: tuple[str, ...]) -> Iterable[Case]:
    return (case for case in results.cases.values() if case.name.startswith(names))


def _colour(results: Results, entrant: Entrant) -> str:
    others = [label for label in results.entrants if label not in _OURS_COLOURS]
    if entrant.label in _OURS_COLOURS:
        return _OURS_COLOURS[entrant.label]
    return _COLOURS[others.index(entrant.label) % len(_COLOURS)]


def _label(axis: Any, title: str, across: str, up: str) -> None:
    axis.set_title(title, fontsize="medium")
    axis.set_xlabel(across)
    axis.set_ylabel(up)
    axis.grid(visible=True, alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, axes: Sequence[Any], file: Path) -> Path:
    entries: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    if entries:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside lower center",
            ncols=3 if len(axes) > 1 else 2,
            frameon=False,
        )
    figure.savefig(file)
    plt.close(figure)
    return file
