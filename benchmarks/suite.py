"""Runs the cases: prepares, lets the contestants take turns, and keeps what they measure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from benchmarks.cases import Case, Group, Setup
from benchmarks.processes import ContestantError, ContestantProcess
from benchmarks.results import Results
from benchmarks.roster import Entrant
from benchmarks.server import DATABASES, Usage

__all__ = ["FULL", "QUICK", "Pace", "Place", "Suite", "running"]

_FOOTPRINT_SESSIONS = 200
_FOOTPRINT_HISTORIES = (0, 10)


@dataclass(frozen=True)
class Pace:
    """How long it may take.

    Attributes:
        seconds: Of a round.
        rounds: Of each case and contestant.
        warm_up: Seconds before the first round, which do not count.
        watched: Rounds in which the event loop is watched; they count for nothing else.
        watch_peers: Whether peers have such rounds too.
        patience: Seconds that a warm-up may take. A contestant that takes longer for what others
            do in microseconds needs no finer figure, so its warm-up is its only round.
    """

    seconds: float
    rounds: int
    warm_up: float
    watched: int
    watch_peers: bool
    patience: float


FULL = Pace(seconds=0.4, rounds=5, warm_up=0.3, watched=2, watch_peers=True, patience=3.0)
QUICK = Pace(seconds=0.12, rounds=3, warm_up=0.05, watched=1, watch_peers=False, patience=0.4)


class Place(Protocol):
    """Where the contestants store: a server, or a disk."""

    def url(self, database: int) -> str:
        """Return where one contestant's setup is to be."""

    def clear(self, database: int | None = None) -> None:
        """Delete what is in one database, or all."""

    def memory(self) -> int:
        """Return the bytes of the server in use."""

    def begin(self) -> None:
        """Start to count."""

    def end(self, elapsed: float) -> Usage:
        """Return what was used since :meth:`begin`, of which *elapsed* seconds were busy."""


class Suite:
    """A run.

    Args:
        server: Where those that are not in memory store.
        processes: The contestants.
        pace: How long it may take.
        results: Where figures go.
        progress: Called with what is being done, and whether it is a round's next case.
    """

    def __init__(
        self,
        server: Place,
        processes: Sequence[ContestantProcess],
        pace: Pace,
        results: Results,
        progress: Callable[[str, int], None],
    ) -> None:
        self._server = server
        self._processes = processes
        self._pace = pace
        self._results = results
        self._progress = progress
        self._slow: set[tuple[str, str]] = set()

    async def run(self, groups: Sequence[Group]) -> None:
        """Run all groups."""
        for group in groups:
            self._results.cases.update({case.name: case for case in group.cases})
            await self._prepare_all(group)
            for number in range(self._pace.rounds + self._pace.watched):
                for case in group.cases:
                    self._progress(f"{group.title}: {case.name}", 1)
                    for process in self._processes:
                        await self._round(process, group, case, number)
            await self._clear()

    async def _prepare_all(self, group: Group) -> None:
        for process in self._processes:
            for case in group.cases:
                try:
                    _check_entry(process.entrant, case)
                    await process.ask(do="check", case=case.to_dict())
                except ContestantError as exc:
                    self._miss(process, case, exc)
            taken = [case for case in group.cases if not self._missed(process, case)]
            for setup, case in {case.setup: case for case in taken}.items():
                self._progress(f"{group.title}: filling for {process.entrant.label}", 0)
                try:
                    await self._prepare(process, group, case)
                except ContestantError as exc:
                    for each in taken:
                        if each.setup == setup:
                            self._miss(process, each, exc)

    async def _prepare(self, process: ContestantProcess, group: Group, case: Case) -> None:
        database = self._database(process, group, case.setup)
        if process.entrant.store == "server":
            self._server.clear(database)
        await process.ask(
            do="prepare",
            setup=repr(case.setup),
            case=case.to_dict(),
            url=self._server.url(database),
        )

    def _database(self, process: ContestantProcess, group: Group, setup: Setup) -> int:
        """Find a database that no other contestant and setup share: some peers scan all of one."""
        setups = list(dict.fromkeys(case.setup for case in group.cases))
        number = 1 + self._processes.index(process) * len(setups) + setups.index(setup)
        assert number < DATABASES
        return number

    async def _round(
        self, process: ContestantProcess, group: Group, case: Case, number: int
    ) -> None:
        pace = self._pace
        watch = number >= pace.rounds
        done_with = (process.entrant.label, case.name) in self._slow
        if self._missed(process, case) or done_with:
            return
        if watch and process.entrant.peer is not None and not pace.watch_peers:
            return
        try:
            if not number:
                figures = await self._count(process, case, pace.warm_up, watch=False)
                if figures["elapsed"] > pace.patience:
                    self._slow.add((process.entrant.label, case.name))
                    return
                self._results.forget(process.entrant, case)
            if case.setup.fresh:
                await self._prepare(process, group, case)
            await self._count(process, case, pace.seconds, watch=watch)
        except ContestantError as exc:
            self._miss(process, case, exc)

    async def _count(
        self, process: ContestantProcess, case: Case, seconds: float, *, watch: bool
    ) -> dict[str, float]:
        """Run a round, and keep what it and the server say of it."""
        self._server.begin()
        figures: dict[str, float] = await process.ask(
            do="run", setup=repr(case.setup), case=case.to_dict(), seconds=seconds, watch=watch
        )
        usage = self._server.end(figures["elapsed"])
        self._results.note(process.entrant, case, figures, usage)
        return figures

    def _missed(self, process: ContestantProcess, case: Case) -> bool:
        return (process.entrant.label, case.name) in self._results.reasons

    def _miss(self, process: ContestantProcess, case: Case, exc: ContestantError) -> None:
        self._results.reasons[process.entrant.label, case.name] = str(exc)

    async def _clear(self) -> None:
        for process in self._processes:
            if not process.failure:
                await process.ask(do="clear")
        self._server.clear()

    async def measure_footprints(self) -> None:
        """Find out what a session takes, with and without events."""
        for history in _FOOTPRINT_HISTORIES:
            setup = Setup(_FOOTPRINT_SESSIONS, history)
            case = Case("footprint", "append", setup)
            for process in self._processes:
                self._progress(f"memory per session: {process.entrant.label}", 0)
                in_memory = process.entrant.store == "memory"
                before = self._server.memory()
                try:
                    answer = await process.ask(
                        do="prepare",
                        setup="footprint",
                        case=case.to_dict(),
                        url=self._server.url(0),
                        trace=in_memory,
                    )
                except ContestantError:
                    continue
                size = answer["bytes"] if in_memory else self._server.memory() - before
                self._results.footprints[process.entrant.label, history] = size / setup.sessions
                await process.ask(do="clear")
                self._server.clear()


def _check_entry(entrant: Entrant, case: Case) -> None:
    if case.alone and entrant.peer is not None:
        msg = "only shows what ours costs"
        raise ContestantError(msg)


@asynccontextmanager
async def running(
    processes: Sequence[ContestantProcess],
) -> AsyncIterator[Sequence[ContestantProcess]]:
    """Run the contestants' processes, and end them all."""
    async with AsyncExitStack() as stack:
        for process in processes:
            await process.start()
            stack.push_async_callback(process.aclose)
        yield processes
