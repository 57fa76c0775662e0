"""What is measured beyond the cases: durability, sizes, several processes, and a million events."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.cases import SESSIONS, Case, Operation, Setup
from benchmarks.files.disk import Disk, size_of
from benchmarks.files.roster import FLOOR, FULL, NORMAL, OPENAI
from benchmarks.processes import ContestantError, ContestantProcess
from benchmarks.suite import running

__all__ = ["LONGEST", "QUICK", "WHOLE", "Beyond", "Extent", "Found", "LongFile", "Together"]

# Seconds that one answer may take: a million events are written meanwhile.
LONGEST = 1800.0
# With fewer events than these a file's empty pages would be much of it.
_FEWEST = 250
# Of each of 64 sessions in the short file: some 1,000 events.
_SHORT = 16
# How often a file is opened in a round.
_OPENINGS = 5
_LOOKS: tuple[Operation, ...] = ("get", "append")
_OURS = (FULL, NORMAL)
_TOGETHER = (*_OURS, OPENAI)
_NAME = "beyond"


@dataclass(frozen=True)
class Extent:
    """How much is done.

    Attributes:
        events: Of a file whose size is looked at, at most.
        patience: Seconds that these may take.
        processes: How many share a file.
        callers: Of each of them.
        seconds: That they append.
        rounds: How often.
        many: Events of each session in the long file.
        looks: Rounds there.
        look_seconds: Of each operation in such a round.
    """

    events: int = 10_000
    patience: float = 30.0
    processes: int = 4
    callers: int = 16
    seconds: float = 2.0
    rounds: int = 5
    many: int = 15_625
    looks: int = 15
    look_seconds: float = 0.3


WHOLE = Extent()
QUICK = Extent(
    events=2000, patience=8.0, seconds=0.5, rounds=3, many=1_563, looks=5, look_seconds=0.1
)


@dataclass(frozen=True)
class Together:
    """Several processes that append to one file.

    Attributes:
        rate: Appends a second of all together; the median of rounds.
        alone: The same, of one process.
        least: The share that the slowest one has of them, in the worst round.
    """

    rate: float
    alone: float
    least: float


@dataclass(frozen=True)
class LongFile:
    """A file of so many events, and what it takes there; times in seconds.

    Attributes:
        events: In all sessions.
        written: To write them, 64 callers in batches of 100.
        size: Of the file, in bytes.
        opening: To open it and read a session, median.
        append: Of one caller, median.
        last: To read the last 10, median.
    """

    events: int
    written: float
    size: int
    opening: float
    append: float
    last: float


@dataclass
class Found:
    """What came of it, by label.

    Attributes:
        durability: Journal mode and synchronous, as SQLite says them.
        sizes: Bytes per event.
        counted: Of how many events.
        together: Several processes on one file.
        long: The short file and the long one, of ours.
        reasons: What was not measured, and why.
    """

    durability: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    together: dict[str, Together] = field(default_factory=dict)
    long: dict[str, list[LongFile]] = field(default_factory=dict)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Word all of it for a file."""
        words = asdict(self)
        words["reasons"] = [[*about, why] for about, why in self.reasons.items()]
        return words


@dataclass(frozen=True)
class _Filling:
    """A file that is being looked at.

    Attributes:
        url: Where it is; what it is called, too.
        setup: What is in it.
        written: Seconds that it took to write that.
        size: Its bytes.
        times: Of each round, by what was done.
    """

    url: str
    setup: Setup
    written: float
    size: int
    times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def summed_up(self) -> LongFile:
        """Take the medians."""
        opening, append, last = (_median(self.times[what]) for what in ("open", "append", "get"))
        events = self.setup.sessions * self.setup.history
        return LongFile(events, self.written, self.size, opening, append, last)


class Beyond:
    """Measures it.

    Args:
        disk: Where files are made.
        extent: How much is done.
        found: Where figures go.
        say: Called with what is being done.
    """

    def __init__(
        self, disk: Disk, extent: Extent, found: Found, say: Callable[[str, int], None]
    ) -> None:
        self._disk = disk
        self._extent = extent
        self._found = found
        self._say = say

    async def measure(self, processes: Sequence[ContestantProcess]) -> None:
        """Measure all of it, of each contestant that it is for."""
        for what, measure in {
            "durability": self.durability,
            "bytes per event": self.size,
            "several processes": self.together,
            "many events": self.long_file,
        }.items():
            for process in processes:
                if process.entrant == FLOOR:
                    continue
                self._say(f"{what}: {process.entrant.label}", 0)
                try:
                    await measure(process)
                except* ContestantError as group:
                    self._found.reasons[process.entrant.label, what] = str(group.exceptions[0])
                if not process.failure:
                    await process.ask(do="clear")
            self._disk.clear()

    async def durability(self, process: ContestantProcess) -> None:
        """Ask how a contestant opens its file."""
        await self._prepare(process, Setup(1), self._disk.url(0))
        answer = await process.ask(do="durability", setup=_NAME)
        self._found.durability[process.entrant.label] = answer["durability"]
        await process.ask(do="clear")

    async def size(self, process: ContestantProcess) -> None:
        """Find out what an event adds to a file, if the next one is another session's.

        One caller appends them one by one: many would keep some stores from writing at all. The
        same sessions without events are taken off.
        """
        empty, full = self._disk.url(0), self._disk.url(0)
        await self._prepare(process, Setup(), empty)
        await process.ask(do="clear")
        await self._prepare(process, Setup(), full)
        case = Case(_NAME, "append", Setup(), most=self._extent.events)
        figures = await self._run(process, case, self._extent.patience)
        # The last connection that is closed puts what is in the -wal file into the file.
        await process.ask(do="clear")
        count = int(figures["operations"])
        if count < _FEWEST:
            msg = f"only {count} events in {self._extent.patience:.0f} s"
            raise ContestantError(msg)
        label = process.entrant.label
        self._found.sizes[label] = (size_of(full) - size_of(empty)) / count
        self._found.counted[label] = count

    async def together(self, process: ContestantProcess) -> None:
        """Have several processes append to one file."""
        if process.entrant not in _TOGETHER:
            return
        others = [process.another(number) for number in range(1, self._extent.processes)]
        async with running(others):
            crowd, rounds = [process, *others], range(self._extent.rounds)
            alone = [sum(await self._append_together([process])) for _ in rounds]
            together = [await self._append_together(crowd) for _ in rounds]
        self._found.together[process.entrant.label] = Together(
            _median([sum(rates) for rates in together]),
            _median(alone),
            min(min(rates) / sum(rates) for rates in together),
        )

    async def _append_together(self, crowd: Sequence[ContestantProcess]) -> list[float]:
        """Do a round on a file of its own, and return each one's appends a second."""
        url = self._disk.url(0)
        setup = Setup(self._extent.callers)
        case = Case(_NAME, "append", setup, self._extent.callers)
        for number, process in enumerate(crowd):
            await self._prepare(process, setup, url, names=f"p{number}-")
        async with asyncio.TaskGroup() as tasks:
            running_ones = [
                tasks.create_task(self._run(process, case, self._extent.seconds))
                for process in crowd
            ]
        for process in crowd:
            await process.ask(do="clear")
        return [task.result()["rate"] for task in running_ones]

    async def long_file(self, process: ContestantProcess) -> None:
        """Compare a file of a thousand events with one of a million, in as many sessions."""
        if process.entrant not in _OURS:
            return
        files = [await self._fill(process, history) for history in (_SHORT, self._extent.many)]
        # They take turns, so that a noisy minute meets both. The first round warms up.
        for number in range(self._extent.looks + 1):
            for file in files:
                await self._look_at(process, file, keep=number > 0)
        self._found.long[process.entrant.label] = [file.summed_up() for file in files]

    async def _fill(self, process: ContestantProcess, history: int) -> _Filling:
        """Make a file, and close it once, so that what is in its log is put into it."""
        url, setup = self._disk.url(0), Setup(SESSIONS, history)
        answer = await self._prepare(process, setup, url, name=url)
        await process.ask(do="reopen", setup=url, times=1)
        return _Filling(url, setup, answer["seconds"], size_of(url))

    async def _look_at(self, process: ContestantProcess, file: _Filling, *, keep: bool) -> None:
        seconds = self._extent.look_seconds
        answer = await process.ask(do="reopen", setup=file.url, times=_OPENINGS)
        times = {"open": answer["seconds"]}
        for operation in _LOOKS:
            case = Case(_NAME, operation, file.setup)
            figures = await self._run(process, case, seconds, name=file.url)
            times[operation] = figures["p50"]
        if keep:
            for what, time in times.items():
                file.times[what].append(time)

    async def _prepare(
        self,
        process: ContestantProcess,
        setup: Setup,
        url: str,
        *,
        name: str = _NAME,
        names: str = "s",
    ) -> dict[str, Any]:
        case = Case(_NAME, "append", setup)
        return await process.ask(
            do="prepare", setup=name, case=case.to_dict(), url=url, names=names
        )

    async def _run(
        self, process: ContestantProcess, case: Case, seconds: float, name: str = _NAME
    ) -> dict[str, Any]:
        return await process.ask(
            do="run", setup=name, case=case.to_dict(), seconds=seconds, watch=False
        )


def _median(numbers: Sequence[float]) -> float:
    ordered = sorted(numbers)
    return ordered[len(ordered) // 2]
