"""How long the steps are that a call takes on the event loop.

Measured is the processor time of this thread between two turns of a task that always wants one: the
longest step that anybody else took. A machine that is busy with other things does not lengthen it.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

# What one step may take, in seconds of processor time, and what it takes here to make and to free a
# dict of strings. A machine that is slower at that, or just now, is given more.
BOUND = 0.02
REFERENCE = 0.015
# Coverage traces each line, which costs lines of Python more than what they call.
TRACED = 3


def work() -> None:
    """Take as long as the machine and what watches the interpreter make it: coverage, for one."""
    found: dict[str, list[str]] = {}
    for number in range(50_000):
        name = str(number)
        found[name] = []
        found[name].append(name)


class Steps:
    """What others did between the turns of a task.

    Attributes:
        longest: The longest step, in seconds of processor time.
        total: All steps.
        bound: What the longest may take.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.total = 0.0
        self.bound = 0.0

    def compare_the_machine(self) -> None:
        """Allow for how fast it is now, which changes on a shared one.

        Before and after, and right after a step that seems too long: whoever shares the processor
        may have come at that step alone.
        """
        taken = 0.0
        for _ in range(3):  # Whoever shares the processor does not do so all the time.
            before = time.thread_time()
            work()
            taken = max(taken, time.thread_time() - before)
        bound = BOUND * max(1.0, taken / REFERENCE)
        if sys.gettrace() is not None:
            bound *= TRACED
        self.bound = max(self.bound, bound)

    async def measure(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            step = time.thread_time() - before
            self.longest = max(self.longest, step)
            self.total += step
            if step >= self.bound:
                self.compare_the_machine()
            before = time.thread_time()


@asynccontextmanager
async def measured() -> AsyncIterator[Steps]:
    """Measure the steps of what runs in the block, without those of the garbage collector."""
    gc.collect()
    gc.disable()
    steps = Steps()
    steps.compare_the_machine()
    measuring = asyncio.create_task(steps.measure())
    try:
        await asyncio.sleep(0)
        yield steps
        await asyncio.sleep(0)
    finally:
        measuring.cancel()
        steps.compare_the_machine()
        gc.enable()


async def check_short(call: Callable[[], Awaitable[Any]]) -> Any:
    """Check that a call, which takes long as a whole, is done in short steps."""
    async with measured() as steps:
        result = await call()
    assert steps.longest < steps.bound, f"one step took {steps.longest * 1000:.0f} ms"
    assert steps.total > BOUND, "too little to do: this would pass in one step"
    return result
