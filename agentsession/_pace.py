"""Splits long computations into short steps, so that other tasks can run in between."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from time import monotonic
from typing import Final, TypeAlias, TypeVar

_T = TypeVar("_T")

Steps: TypeAlias = Generator[None, None, _T]
"""A computation that yields between its steps, each far shorter than a millisecond."""

# How long a step takes, in seconds: far less than the 20 milliseconds for which a loop may be held,
# and long enough that the pauses between steps cost little.
_STEP: Final = 0.003


class Pace:
    """Tells a computation when to let others run. It begins with a step of its own.

    Most computations end within the first step and never pause::

        pace = Pace()
        for each in many:
            if pace.due():
                await pace.rest()
            ...
    """

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = monotonic() + _STEP

    def due(self) -> bool:
        """Tell whether the step has been long enough."""
        return monotonic() > self._end

    async def rest(self) -> None:
        """Let every other task that can run have a turn, and begin a new step."""
        await asyncio.sleep(0)
        self._end = monotonic() + _STEP

    async def through(self, steps: Steps[_T]) -> _T:
        """Go through a computation, letting others run whenever that is due."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: _T = end.value
                return result
            if self.due():
                await self.rest()


def drained(steps: Steps[_T]) -> _T:
    """Go through a computation in one go."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
