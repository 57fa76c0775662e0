"""The goals, each with the figure that it is judged by. Ratios of medians of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.cases import Case
from benchmarks.results import Figures, Results
from benchmarks.roster import FLOOR, OURS, OURS_IN_MEMORY, Entrant

__all__ = ["IMPORT", "Verdict", "judge"]

IMPORT = "agentsession"
_HISTORIES = "append, history ", "last 10, history ", "2 turns, history "
# What one of our operations may cost, as a multiple of another.
_MULTIPLES = (
    ("turn with its lease, 1 caller", "turn without a lease, 1 caller", 2),
    ("turn with its lease, 64 callers", "turn without a lease, 64 callers", 2),
    ("rewind, 10,000 events", "rewind, 10 events", 1.2),
    ("rewind, 10 events, after 1,000 rewinds", "rewind, 10 events", 1.2),
    # It copies ten times as many events.
    ("fork of 1,000 events", "fork of 100 events", 10),
)


@dataclass(frozen=True)
class Verdict:
    """A goal and what came of it.

    Attributes:
        case: What it is about.
        bound: The figure has to be at least, or at most, that.
        goal: That.
        figure: What was measured; ``None`` if something was not.
        unit: What both are in.
        detail: What stands behind the figure.
    """

    case: str
    bound: Literal["least", "most"]
    goal: float
    figure: float | None
    unit: str
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it is met; ``None`` if that is not known."""
        if self.figure is None:
            return None
        return self.figure >= self.goal if self.bound == "least" else self.figure <= self.goal

    @property
    def margin(self) -> float | None:
        """How far it is met, as a ratio: 1 just so, below 1 not."""
        if not self.figure:
            return None
        return self.figure / self.goal if self.bound == "least" else self.goal / self.figure


def judge(results: Results) -> list[Verdict]:
    """Judge all goals."""
    return [
        *_append_on_server(results),
        *_cost_on_server(results),
        *_history(results),
        *_multiples(results),
        *_last_on_server(results),
        *_page(results),
        *_in_memory(results),
        *_stalls(results),
        _import(results),
    ]


Ratio = tuple[float, str]


def _time_ratio(results: Results, ours: Entrant, case: str) -> Ratio | None:
    """How many times as long the fastest peer takes as we do."""
    return _against_fastest(results, ours, case, lambda figures: 1 / figures.p50)


def _rate_ratio(results: Results, ours: Entrant, case: str) -> Ratio | None:
    """How many times the fastest peer's operations a second we do."""
    return _against_fastest(results, ours, case, lambda figures: figures.rate)


def _against_fastest(
    results: Results, ours: Entrant, case: str, speed: Callable[[Figures], float]
) -> Ratio | None:
    figures = results.figures(ours, case)
    peers = results.peers(case, ours.store)
    if figures is None or not peers:
        return None
    fastest = max(peers, key=lambda label: speed(peers[label]))
    return speed(figures) / speed(peers[fastest]), f"{fastest}; {case}"


def _worst(case: str, goal: float, unit: str, ratios: Iterable[Ratio | None]) -> Verdict:
    known = [ratio for ratio in ratios if ratio is not None]
    figure, detail = min(known, default=(None, ""))
    return Verdict(case, "least", goal, figure, unit, detail)


def _named(results: Results, beginning: str, callers: int) -> Iterator[Case]:
    for case in results.cases.values():
        if case.name.startswith(beginning) and case.callers == callers:
            yield case


def _append_on_server(results: Results) -> Iterator[Verdict]:
    alone = list(_named(results, "append, history ", 1))
    yield _worst(
        "append on the server, 1 caller, any history: the fastest peer's time",
        8,
        "x ours",
        (_time_ratio(results, OURS, case.name) for case in alone),
    )
    yield _most_of_floor(results, alone)
    crowd = "append, history 0, 256 callers"
    yield _worst(
        "append on the server, 256 callers: operations a second",
        40,
        "x the fastest peer",
        [_rate_ratio(results, OURS, crowd)],
    )
    figures = results.figures(OURS, crowd)
    busy = None if figures is None else figures.server_cpu * 100
    yield Verdict("append on the server, 256 callers: its CPU", "least", 85, busy, "%", crowd)


def _most_of_floor(results: Results, cases: Iterable[Case]) -> Verdict:
    ratios: list[Ratio] = []
    for case in cases:
        ours, floor = results.figures(OURS, case.name), results.figures(FLOOR, case.name)
        if ours is not None and floor is not None:
            ratios.append((ours.p50 / floor.p50, case.name))
    figure, detail = max(ratios, default=(None, ""))
    name = "append on the server, 1 caller, any history: our time"
    return Verdict(name, "most", 1.5, figure, "x the floor's", detail)


def _cost_on_server(results: Results) -> Iterator[Verdict]:
    # The floor sends both, so that only the scripts differ.
    ours = results.figures(FLOOR, "append, trimming at 1,000")
    least = results.figures(FLOOR, "four commands in a script")
    figure, detail = None, ""
    if ours is not None and least is not None:
        figure = ours.script_time / least.script_time
        detail = f"{ours.script_time * 1e6:.1f} us against {least.script_time * 1e6:.1f} us"
    name = "server cost of an append that trims"
    yield Verdict(name, "most", 1.5, figure, "x four commands", detail)


def _history(results: Results) -> Iterator[Verdict]:
    for entrant in (OURS, OURS_IN_MEMORY):
        for what, beginning in zip(("append", "last 10", "2 turns"), _HISTORIES, strict=True):
            long, short = f"{beginning}100,000, 1 caller", f"{what}, 1 session of 10"
            name = f"{what}, {entrant.store}: history 100,000 against 10"
            yield _multiple(results, entrant, name, 1.2, (long, short))


def _multiples(results: Results) -> Iterator[Verdict]:
    for entrant in (OURS, OURS_IN_MEMORY):
        for case, other, goal in _MULTIPLES:
            name = f"{entrant.store}: {case}, against {other}"
            yield _multiple(results, entrant, name, goal, (case, other))


def _multiple(
    results: Results, entrant: Entrant, name: str, goal: float, cases: tuple[str, str]
) -> Verdict:
    """Judge how many times as much the first case costs as the second one."""
    costs = [cost for case in cases if (cost := _cost(results, entrant, case)) is not None]
    figure, detail = None, ""
    if len(costs) == len(cases):
        figure = costs[0] / costs[1]
        detail = f"{costs[0] * 1e6:.1f} us against {costs[1] * 1e6:.1f} us"
    return Verdict(name, "most", goal, figure, "x", detail)


def _cost(results: Results, entrant: Entrant, case: str) -> float | None:
    """Tell the time of an operation: its median, or its share of a second if many call at once."""
    figures = results.figures(entrant, case)
    if figures is None:
        return None
    return 1 / figures.rate if results.cases[case].callers > 1 else figures.p50


def _last_on_server(results: Results) -> Iterator[Verdict]:
    yield _worst(
        "get the last 10 on the server, 1 caller: the fastest peer's time",
        3,
        "x ours",
        (_time_ratio(results, OURS, case.name) for case in _named(results, _HISTORIES[1], 1)),
    )
    yield _worst(
        "get the last 10 on the server, 64 callers: operations a second",
        10,
        "x the fastest peer",
        (_rate_ratio(results, OURS, case.name) for case in _named(results, _HISTORIES[1], 64)),
    )


def _page(results: Results) -> Iterator[Verdict]:
    few, many = "page of 50 of 50", "page of 50 of 10,000"
    short, long = results.figures(OURS, few), results.figures(OURS, many)
    trips = None if long is None else long.calls
    yield Verdict("page of 50 of 10,000 sessions", "most", 2, trips, "round trips")
    figure = None if short is None or long is None else long.p50 / short.p50
    yield Verdict("page of 50 of 10,000 sessions: time", "most", 1.2, figure, "x of 50")
    peers = results.peers(many, "server")
    google = next((each for label, each in peers.items() if label.startswith("google")), None)
    ratio = None if google is None or long is None else google.p50 / long.p50
    name = "page of 50 of 10,000 sessions: google-adk's time"
    yield Verdict(name, "least", 100, ratio, "x ours")


def _in_memory(results: Results) -> Iterator[Verdict]:
    for what, beginning, goal in zip(
        ("append", "get the last 10"), _HISTORIES[:2], (40, 15), strict=True
    ):
        yield _worst(
            f"{what} in memory, history 1,000: the fastest peer's time",
            goal,
            "x ours",
            [_time_ratio(results, OURS_IN_MEMORY, f"{beginning}1,000, 1 caller")],
        )


def _stalls(results: Results) -> Iterator[Verdict]:
    for size, goal, large in (("", 10, False), (", 1 MB events", 30, True)):
        measured = [
            (figures, f"{entrant.store}: {case.name}")
            for case in results.cases.values()
            for entrant in (OURS, OURS_IN_MEMORY)
            if large == (case.setup.size >= 1_000_000)
            and (figures := results.figures(entrant, case.name)) is not None
        ]
        for name, value in _STALLS.items():
            worst = max(
                ((value(figures) * 1e3, where) for figures, where in measured), default=None
            )
            figure, detail = worst or (None, "")
            yield Verdict(f"{name}{size}", "most", goal, figure, "ms", detail)


# A tick waits for every task that is ready, each of which may be short: both tell something.
_STALLS: dict[str, Callable[[Figures], float]] = {
    "longest stall of the event loop": lambda figures: figures.stall,
    "longest single step of the event loop": lambda figures: figures.step,
}


def _import(results: Results) -> Verdict:
    seconds = results.imports.get(IMPORT)
    figure = None if seconds is None else seconds * 1e3
    name = "import agentsession, beyond msgspec and anyio"
    return Verdict(name, "most", 100, figure, "ms")
