"""What a run measured: rounds, their medians, and why something was not measured."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from benchmarks.cases import Case
from benchmarks.roster import Entrant
from benchmarks.server import Usage

__all__ = ["Figures", "Results"]


@dataclass(frozen=True)
class Figures:
    """The medians of a case's rounds; times in seconds, the rest for each operation.

    Attributes:
        rate: Operations a second, all callers together.
        mean: The mean time of an operation.
        p50: The time that half of the operations took at most.
        p95: The same for 95 of 100.
        p99: The same for 99 of 100.
        client_cpu: Processor time of the client.
        server_cpu: The share of a processor that the server used.
        script_time: The server's time in a script.
        calls: Commands sent.
        received: Bytes that the server received.
        sent: Bytes that the server sent.
        stall: The longest that the event loop stood still: the most processor time between two
            ticks in any round, or the median over the rounds of the latest tick, whichever is
            more. The latest tick of a single round may be another process's doing.
        latest_tick: The latest tick in any round.
        step: The most processor time that one callback took.
    """

    rate: float
    mean: float
    p50: float
    p95: float
    p99: float
    client_cpu: float
    server_cpu: float
    script_time: float
    calls: float
    received: float
    sent: float
    stall: float
    latest_tick: float
    step: float


_MEDIANS = [
    name for name in Figures.__annotations__ if name not in {"stall", "latest_tick", "step"}
]


@dataclass
class Results:
    """All of a run.

    Attributes:
        machine: What it ran on.
        versions: By entrant, of packages.
        cases: In the order in which they ran.
        entrants: Who took part or should have.
        absent: By entrant, why it took no part.
        reasons: By entrant and case, why there is no figure.
        imports: Seconds, by what was imported.
        footprints: Bytes a session takes, by entrant and history.
    """

    machine: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)
    cases: dict[str, Case] = field(default_factory=dict)
    entrants: dict[str, Entrant] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)
    imports: dict[str, float] = field(default_factory=dict)
    footprints: dict[tuple[str, int], float] = field(default_factory=dict)
    _rounds: dict[tuple[str, str], list[dict[str, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _watched: dict[tuple[str, str], list[dict[str, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def note(self, entrant: Entrant, case: Case, figures: dict[str, Any], usage: Usage) -> None:
        """Keep a round."""
        count = figures["operations"]
        measured = {
            **figures,
            "client_cpu": figures["cpu"] / count,
            "server_cpu": usage.cpu,
            "script_time": usage.script_time,
            "calls": usage.calls / count,
            "received": usage.received / count,
            "sent": usage.sent / count,
        }
        kept = self._watched if "stall" in figures else self._rounds
        kept[entrant.label, case.name].append(measured)

    def forget(self, entrant: Entrant, case: Case) -> None:
        """Drop the rounds so far."""
        self._rounds.pop((entrant.label, case.name), None)

    def figures(self, entrant: Entrant, case: str) -> Figures | None:
        """Return the medians, or ``None`` if there is nothing to take them of."""
        rounds = self._rounds.get((entrant.label, case))
        if not rounds:
            return None
        watched = self._watched.get((entrant.label, case), [])
        own = max((each["own_stall"] for each in watched), default=0.0)
        ticks = [each["stall"] for each in watched] or [0.0]
        step = max((each["step"] for each in watched), default=0.0)
        medians = {name: statistics.median(each[name] for each in rounds) for name in _MEDIANS}
        return Figures(
            **medians, stall=max(own, statistics.median(ticks)), latest_tick=max(ticks), step=step
        )

    def peers(self, case: str, store: str) -> dict[str, Figures]:
        """Return the figures of all peers of a store."""
        found: dict[str, Figures] = {}
        for label, entrant in self.entrants.items():
            if entrant.peer is not None and entrant.store == store:
                figures = self.figures(entrant, case)
                if figures is not None:
                    found[label] = figures
        return found

    def to_dict(self) -> dict[str, Any]:
        """Word all of it for a file."""
        return {
            "machine": self.machine,
            "versions": self.versions,
            "absent": self.absent,
            "imports": self.imports,
            "footprints": [
                {"entrant": entrant, "history": history, "bytes": size}
                for (entrant, history), size in self.footprints.items()
            ],
            "cases": [
                {**case.to_dict(), "entrants": self._entrants_of(name)}
                for name, case in self.cases.items()
            ],
        }

    def _entrants_of(self, case: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for label, entrant in self.entrants.items():
            figures = self.figures(entrant, case)
            if figures is not None:
                medians = {name: getattr(figures, name) for name in Figures.__annotations__}
                found[label] = {**medians, "rounds": self._rounds[label, case]}
            elif (label, case) in self.reasons:
                found[label] = {"reason": self.reasons[label, case]}
        return found
