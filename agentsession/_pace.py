"""Splits long computations into short steps, so that other tasks can run in between."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

# In seconds: a step ends with the piece of work that passes it, so that it stays far below the
# 20 milliseconds that a loop may be held, and is long enough that nobody notices what a turn costs.
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
