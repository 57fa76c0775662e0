"""The goals of the store in a file, each with the figure that it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from benchmarks.cases import Case
from benchmarks.files.beyond import Found, LongFile
from benchmarks.files.cases import ALONE, CROWD, LONG, ONE_PAGE, PAGE, SHORT
from benchmarks.files.roster import FLOOR, FULL, LANGGRAPH, NORMAL
from benchmarks.goals import Verdict
from benchmarks.results import Results

__all__ = ["judge_files"]

_RATES = ((ALONE, 1_000), (CROWD, 15_000))
_TIMES_THE_FASTEST = 10
# What should not depend on a length may seem to by so much, by chance.
_SAME = 1.2


def judge_files(results: Results, found: Found) -> list[Verdict]:
    """Judge all goals."""
    return [*_rates(results), *_beside_peers(results, found), *_lengths(results), *_long(found)]


def _rates(results: Results) -> Iterator[Verdict]:
    for case, goal in _RATES:
        figures = results.figures(FULL, case.name)
        rate = None if figures is None else figures.rate
        floor = results.figures(FLOOR, case.name)
        detail = "" if floor is None else f"the floor of one caller meanwhile: {floor.rate:,.0f}"
        yield Verdict(f"{case.name}, each synced", "least", goal, rate, "a second", detail)


def _beside_peers(results: Results, found: Found) -> Iterator[Verdict]:
    """Judge beside peers as durable as we are; one that stores no events is judged by itself."""
    ours = found.durability.get(FULL.label)
    equals = [
        label
        for label in results.peers(CROWD.name, "file")
        if ours is not None and found.durability.get(label) == ours
    ]
    of_events = [label for label in equals if label != LANGGRAPH.label]
    of_checkpoints = [label for label in equals if label == LANGGRAPH.label]
    yield _beside(results, "the fastest peer of that durability", of_events)
    yield _beside(results, "checkpoints of one message", of_checkpoints)


def _beside(results: Results, what: str, labels: Iterable[str]) -> Verdict:
    ours, peers = results.figures(FULL, CROWD.name), results.peers(CROWD.name, "file")
    fastest = max(labels, key=lambda label: peers[label].rate, default=None)
    figure, detail = None, ""
    if ours is not None and fastest is not None:
        theirs = peers[fastest].rate
        figure = ours.rate / theirs
        detail = f"{ours.rate:,.0f} a second against {theirs:,.0f}: {fastest}"
    return Verdict(f"{CROWD.name}: x {what}", "least", _TIMES_THE_FASTEST, figure, "x", detail)


def _lengths(results: Results) -> Iterator[Verdict]:
    for long, short in ((LONG, SHORT), (PAGE, ONE_PAGE)):
        yield _multiple(
            f"{long.name}, against {short.name}",
            _median_of(results, long),
            _median_of(results, short),
        )


def _median_of(results: Results, case: Case) -> float | None:
    figures = results.figures(FULL, case.name)
    return None if figures is None else figures.p50


_TIMES: dict[str, Callable[[LongFile], float]] = {
    "to open": lambda file: file.opening,
    "append": lambda file: file.append,
    "last 10": lambda file: file.last,
}


def _long(found: Found) -> Iterator[Verdict]:
    """Judge both of ours: of one, a busy disk is most of an append; of the other, nothing."""
    for label in (FULL.label, NORMAL.label):
        files = found.long.get(label)
        for what, time in _TIMES.items():
            short, long = (time(each) for each in files) if files else (None, None)
            yield _multiple(f"{what}, long file against short: {label}", long, short)


def _multiple(name: str, long: float | None, short: float | None) -> Verdict:
    figure, detail = None, ""
    if long is not None and short is not None:
        figure = long / short
        detail = f"{long * 1e6:,.0f} us against {short * 1e6:,.0f} us"
    return Verdict(name, "most", _SAME, figure, "x", detail)
