"""What the adapters cost: their goals, and tables that say what stands behind these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.table import Table

from benchmarks.frameworks import CROWD, PLACES, Framework, Place, case_name
from benchmarks.goals import Verdict
from benchmarks.report import make_table, short
from benchmarks.results import Results
from benchmarks.roster import Entrant

__all__ = ["adapter_tables", "forget_conversions", "judge_adapters"]

_MOST = 2
_LEAST = 3
# What each operation converts.
_CONVERSIONS = {"append": "convert", "read": "restore"}


@dataclass(frozen=True)
class _Cost:
    """What one operation takes, in seconds.

    Of one caller its median; of many their share of a second, in memory of processor time.

    Attributes:
        adapter: With the adapter.
        conversion: Of that, what the framework's objects take.
        bare: With the service alone.
    """

    adapter: float
    conversion: float
    bare: float

    @property
    def ratio(self) -> float:
        """How many times the bare service's time the adapter takes, conversion apart."""
        return (self.adapter - self.conversion) / self.bare

    @property
    def words(self) -> str:
        """What stands behind it."""
        adapter, conversion, bare = (
            each * 1e6 for each in (self.adapter, self.conversion, self.bare)
        )
        return f"({adapter:,.0f} - {conversion:,.0f}) us against {bare:,.0f} us"


def judge_adapters(results: Results, frameworks: Iterable[Framework]) -> list[Verdict]:
    """Judge the goals of these adapters."""
    return [
        verdict
        for framework in frameworks
        for judged in (_overhead, _beside_peers)
        for verdict in judged(results, framework)
    ]


def _overhead(results: Results, framework: Framework) -> Iterator[Verdict]:
    for place in PLACES:
        for operation in _CONVERSIONS:
            for callers in (1, CROWD):
                cost = _cost(results, framework, place, operation, callers)
                name = f"{case_name(framework, operation, callers)}, {place}"
                figure, detail = (None, "") if cost is None else (cost.ratio, cost.words)
                yield Verdict(name, "most", _MOST, figure, "x the bare service", detail)


def _beside_peers(results: Results, framework: Framework) -> Iterator[Verdict]:
    """Judge the adapter beside what keeps sessions for longer than a process lives, as it does."""
    for peer in framework.peers():
        if peer.store == "memory":
            continue
        for operation in _CONVERSIONS:
            case = case_name(framework, operation, CROWD)
            ours, theirs = (
                _rate(results, framework.adapter(peer.store), case),
                _rate(results, peer, case),
            )
            figure = None if ours is None or theirs is None else ours / theirs
            detail = results.reasons.get((peer.label, case), "")
            if figure is not None:
                detail = f"{ours:,.0f} a second against {theirs:,.0f}"
            name = f"{case}, {peer.store}"
            unit = f"x {peer.label.removeprefix(f'{framework.name}: ')}"
            yield Verdict(name, "least", _LEAST, figure, unit, detail)


def _rate(results: Results, entrant: Entrant, case: str) -> float | None:
    figures = results.figures(entrant, case)
    return None if figures is None else figures.rate


def _cost(
    results: Results, framework: Framework, place: Place, operation: str, callers: int
) -> _Cost | None:
    case = case_name(framework, operation, callers)
    conversion = case_name(framework, _CONVERSIONS[operation], 1)
    adapter = framework.adapter(place)
    costs = (
        _time(results, adapter, case, callers),
        _time(results, adapter, conversion, callers),
        _time(results, framework.bare(place), case, callers),
    )
    known = [each for each in costs if each is not None]
    return _Cost(*known) if len(known) == len(costs) else None


def _time(results: Results, entrant: Entrant, case: str, callers: int) -> float | None:
    figures = results.figures(entrant, case)
    if figures is None:
        return None
    if callers == 1:
        return figures.p50
    # What never waits takes processor time and nothing else; the rest is other processes' doing.
    return figures.client_cpu if entrant.store == "memory" else 1 / figures.rate


def forget_conversions(results: Results) -> None:
    """Forget that nobody but an adapter converts, which is no news in a report."""
    for label, case in list(results.reasons):
        if results.cases[case].operation in _CONVERSIONS.values():
            del results.reasons[label, case]


def adapter_tables(results: Results, frameworks: Iterable[Framework]) -> Iterator[Table]:
    """Yield a table of what the adapters add to the service, and one of the frameworks' stores."""
    known = list(frameworks)
    yield _overheads(results, known)
    yield _peers(results, known)


def _overheads(results: Results, frameworks: Iterable[Framework]) -> Table:
    title = (
        "Adapters: an operation's time in us (1 caller: p50; more: its share of a second, in "
        "memory of processor time), and how many times the bare service's, conversion apart"
    )
    columns = ("bare", "adapter", "conversion", "x bare")
    many = (f"{CROWD} callers: bare", "adapter", "x bare")
    made = make_table(title, "case", *columns, *many)
    for framework in frameworks:
        for operation in _CONVERSIONS:
            for place in PLACES:
                alone = _cost(results, framework, place, operation, 1)
                crowd = _cost(results, framework, place, operation, CROWD)
                name = f"{framework.name}: {operation}, {place}"
                made.add_row(name, *_alone(alone), *_crowd(crowd))
    return made


def _alone(cost: _Cost | None) -> list[str]:
    if cost is None:
        return ["-"] * 4
    return [*_microseconds(cost.bare, cost.adapter, cost.conversion), short(cost.ratio)]


def _crowd(cost: _Cost | None) -> list[str]:
    if cost is None:
        return ["-"] * 3
    return [*_microseconds(cost.bare, cost.adapter), short(cost.ratio)]


def _microseconds(*seconds: float) -> list[str]:
    return [f"{each * 1e6:,.0f}" for each in seconds]


def _peers(results: Results, frameworks: Iterable[Framework]) -> Table:
    title = (
        "Frameworks' own stores: operations a second, and how many times as many the adapter does "
        "in the same kind of place"
    )
    columns = [
        f"{operation}, {callers}{what}"
        for operation in _CONVERSIONS
        for callers in (1, CROWD)
        for what in ("", ": x")
    ]
    made = make_table(title, "store", *columns)
    for framework in frameworks:
        for peer in framework.peers():
            ours = framework.adapter(peer.store)
            made.add_row(peer.label, *_beside(results, framework, ours, peer))
    return made


def _beside(results: Results, framework: Framework, ours: Entrant, peer: Entrant) -> Iterator[str]:
    for operation in _CONVERSIONS:
        for callers in (1, CROWD):
            case = case_name(framework, operation, callers)
            own, other = _rate(results, ours, case), _rate(results, peer, case)
            yield "-" if other is None else f"{other:,.0f}"
            yield "-" if own is None or other is None else short(own / other)
