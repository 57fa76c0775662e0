"""Measuring: callers that repeat an operation for a while, and a watch over the event loop.

Needs nothing but Python, so that all contestants are measured by the same code.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Timing", "Watch", "repeat"]

Call = Callable[[], Awaitable[object]]

_TICK = 0.001


@dataclass
class Timing:
    """A round: how long each operation took, and all of them together.

    Attributes:
        latencies: Seconds, one for each operation.
        elapsed: Seconds from the first operation's start to the last one's end.
        cpu: Seconds of processor time that this process used meanwhile.
    """

    latencies: array[float] = field(default_factory=lambda: array("d"))
    elapsed: float = 0.0
    cpu: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Sum up, in seconds."""
        ordered = sorted(self.latencies)
        last = len(ordered) - 1
        return {
            "operations": len(ordered),
            "rate": len(ordered) / self.elapsed,
            "mean": sum(ordered) / len(ordered),
            "p50": ordered[round(last * 0.5)],
            "p95": ordered[round(last * 0.95)],
            "p99": ordered[round(last * 0.99)],
            "elapsed": self.elapsed,
            "cpu": self.cpu,
        }


async def repeat(calls: Sequence[Call], seconds: float, *, most: int, yielding: bool) -> Timing:
    """Let one caller for each of *calls* repeat it until the time is up; each does it once.

    Args:
        calls: What each caller does.
        seconds: When to stop beginning anew.
        most: The most operations in all; 0 for no limit.
        yielding: Let other tasks run after each operation. What never waits, as a store in memory,
            would keep them from running at all.
    """
    timing = Timing()
    note = timing.latencies.append
    clock = time.perf_counter
    limit = most or float("inf")

    async def caller(call: Call) -> None:
        while True:
            start = clock()
            await call()
            now = clock()
            note(now - start)
            if now >= end or len(timing.latencies) >= limit:
                return
            if yielding:
                await asyncio.sleep(0)

    cpu, begin = time.process_time(), clock()
    end = begin + seconds
    async with asyncio.TaskGroup() as tasks:
        for call in calls:
            tasks.create_task(caller(call))
    timing.elapsed = clock() - begin
    timing.cpu = time.process_time() - cpu
    return timing


class Watch:
    """Notes how long the event loop keeps a timer waiting.

    On a shared machine the kernel takes the processor away for longer than any program stalls its
    loop, so the processor time between two ticks is noted as well: that much is the program's own.

    Attributes:
        longest: The longest time that a tick was late, in seconds.
        longest_own: The most processor time between two ticks, in seconds.
        longest_step: The most processor time of one callback, in seconds. Where many tasks are
            ready at once, a tick waits for all of them, though each is short.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.longest_own = 0.0
        self.longest_step = 0.0
        self._run = asyncio.Handle._run  # noqa: SLF001 - the loop has no other place to look in
        asyncio.Handle._run = self._timed()  # type: ignore[assignment]  # noqa: SLF001 - as above
        self._loop = asyncio.get_running_loop()
        self._own = time.thread_time()
        self._due = self._loop.time() + _TICK
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        now, own = self._loop.time(), time.thread_time()
        self.longest = max(self.longest, now - self._due)
        self.longest_own = max(self.longest_own, own - self._own)
        self._own = own
        self._due = now + _TICK
        self._timer = self._loop.call_at(self._due, self._tick)

    def _timed(self) -> Callable[[asyncio.Handle], None]:
        clock, run = time.thread_time, self._run

        def timed(handle: asyncio.Handle) -> None:
            start = clock()
            run(handle)
            self.longest_step = max(self.longest_step, clock() - start)

        return timed

    def stop(self) -> None:
        """Note the time since the last tick, and tick no more."""
        asyncio.Handle._run = self._run  # type: ignore[method-assign]  # noqa: SLF001
        self._timer.cancel()
        self.longest = max(self.longest, self._loop.time() - self._due)
        self.longest_own = max(self.longest_own, time.thread_time() - self._own)
