"""What was known when. Pure; no I/O."""

from __future__ import annotations

from bisect import bisect_left
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Timeline(Generic[_T]):
    """Facts, each of a moment and with a figure, to ask for the highest figure so far.

    Most questions about histories are of this form: of the reads that had ended when this one
    began, which had begun the latest?
    """

    def __init__(self) -> None:
        self._facts: list[tuple[float, float, _T]] = []
        self._moments: list[float] = []
        self._highest: list[tuple[float, _T]] = []

    def add(self, moment: float, figure: float, fact: _T) -> None:
        self._facts.append((moment, figure, fact))
        self._moments = []

    def before(self, moment: float) -> tuple[float, _T] | None:
        """Return the highest figure of the facts before a moment, with its fact."""
        if not self._moments:
            self._sort()
        place = bisect_left(self._moments, moment)
        return self._highest[place - 1] if place else None

    def _sort(self) -> None:
        self._facts.sort(key=lambda fact: fact[0])
        self._moments = [moment for moment, _, _ in self._facts]
        self._highest = []
        for _, figure, fact in self._facts:
            if not self._highest or figure > self._highest[-1][0]:
                self._highest.append((figure, fact))
            else:
                self._highest.append(self._highest[-1])
