"""One run: workers, faults, and the verdict."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from agentsession import SessionService
from reliability.checker import violations
from reliability.checker.keys import key_violations
from reliability.checker.ledger import Ledger
from reliability.checker.sessions import who_has_time_gets_an_answer
from reliability.faults import FAULTS
from reliability.file import FILE_FAULTS, FileSite, file_violations, opened_file
from reliability.history import History, Sent, Step
from reliability.site import DURABLE, Site, Terms, opened, opened_cluster, tasks_left
from reliability.workers.plan import shared_sessions, turned_sessions
from reliability.workers.process import Orders, work
from reliability.workers.worker import Worker

_TESTS = Path(__file__).parent.parent
# A service that gives up soon, so that outcomes stay unknown and servers are unavailable.
_HASTY = 0.3
# The others have time for any fault to pass.
_PATIENT = 30.0
# A run that takes longer than a slow machine needs has come to a stop: seconds, and operations a
# second.
_LONGEST = 60.0
_SLOWEST = 10.0
_WORKERS_OF_A_SERVICE = 3
# A record has all that a reader has found, in a line of so many bytes at most.
_LONGEST_LINE = 1 << 25


Place: TypeAlias = Literal["server", "cluster", "file"]


class Trial(Struct, frozen=True, kw_only=True):
    """What a run is like; its seed decides the rest.

    Attributes:
        name: For people.
        seed: Decides every step and every fault, not when they meet.
        operations: About how many calls are made, by all workers together.
        faults: What befalls the site, in turn; see ``faults.FAULTS`` and ``file.FILE_FAULTS``.
        strikes: How many of them, spread over the operations.
        cancelling: How likely a call is to be cancelled.
        losing: How likely a reply is to be lost with its connection.
        lateness: How likely what a client sends is to arrive after the client has given up.
        limit: The most events of a session.
        place: Where it takes place.
        services: How many services there are in this process; the last one is hasty.
        processes: How many other processes take part; one of several is killed on the way. In a
            file there are always as many, and another one comes in the place of each that a fault
            has killed.
    """

    name: str
    seed: int
    operations: int
    faults: tuple[str, ...] = ()
    strikes: int = 0
    cancelling: float = 0.0
    losing: float = 0.0
    lateness: float = 0.0
    limit: int | None = None
    place: Place = "server"
    services: int = 3
    processes: int = 0

    @property
    def operations_of_a_worker(self) -> int:
        return self.operations // (_WORKERS_OF_A_SERVICE * (self.services + self.processes)) + 1

    @property
    def hasty_team(self) -> str:
        return f"s{self.services - 1}"

    @property
    def apart(self) -> bool:
        """Whether application state is written in a step of its own."""
        return self.place == "cluster"


class Verdict(Struct, kw_only=True):
    """What came of a run.

    Attributes:
        violations: Everything that was wrong.
        outcomes: How many operations were ok, failed, unknown or wrong.
        acknowledged: How many events somebody was told are stored.
        strikes: How many faults there were.
        lost_replies: How many replies were lost.
        late_arrivals: How often what a client sent came late.
    """

    trial: Trial
    violations: list[str]
    outcomes: Counter[str]
    acknowledged: int
    strikes: int
    lost_replies: int
    late_arrivals: int


async def run(trial: Trial, binary: str = "") -> Verdict:
    """Run a trial on a server, or a cluster, or in a file, of its own."""
    before = asyncio.all_tasks()
    history = History()
    async with _opened(trial, binary) as site:
        await site.begin()
        async with Terms(limit=trial.limit).open(site.aside) as service:
            await visit(service, history, "the first", "open")
        async with asyncio.timeout(_LONGEST + trial.operations / _SLOWEST):
            strikes = await _attack(site, trial, history)
        site.calm()
        left = await site.left()
        async with Terms(limit=trial.limit).open(site.aside) as service:
            await settle(service, history)
            await visit(service, history, "the last", "whole", "list")
        ledger = Ledger(history, apart=trial.apart)
        left += await site.left()
        wrong = [*await _wrong_in(site, ledger)]
    left += await tasks_left(before)
    return Verdict(
        trial=trial,
        violations=[
            *violations(history, limit=trial.limit, apart=trial.apart),
            *wrong,
            *who_has_time_gets_an_answer(ledger, trial.hasty_team),
            *left,
        ],
        outcomes=Counter(operation.outcome for operation in history),
        acknowledged=sum(1 for _ in ledger.acknowledged()),
        strikes=strikes,
        lost_replies=site.lost_replies,
        late_arrivals=site.late_arrivals,
    )


def _opened(trial: Trial, binary: str) -> AbstractAsyncContextManager[Site | FileSite]:
    if trial.place == "file":
        return opened_file()
    options = DURABLE if "kill_and_restart" in trial.faults else ()
    place = opened_cluster if trial.place == "cluster" else opened
    return place(binary, *options, seed=trial.seed)


async def _wrong_in(site: Site | FileSite, ledger: Ledger) -> Iterator[str]:
    """Look at what is kept, without the library."""
    if isinstance(site, FileSite):
        return file_violations(ledger, site.path)
    return key_violations(ledger, await site.look(), site.strangers)


async def visit(service: SessionService, history: History, who: str, *kinds: str) -> None:
    """Make some calls on every session that anybody knows of, before or after everything."""
    keys = dict.fromkeys([*shared_sessions(), *(each.step.key for each in history)])
    visitor = Worker(who, service, history.record)
    await visitor.work(Step(kind=kind, key=key) for key in keys for kind in kinds)


async def settle(service: SessionService, history: History) -> None:
    """End every turn that is left, when all is over, and read the logs."""
    visitor = Worker("the last of all", service, history.record)
    for number, key in enumerate(turned_sessions()):
        await visitor.make(Step(kind="settle", key=key, sent=[Sent(f"settled {number}")]))
        await visitor.make(Step(kind="entries", key=key))


async def _attack(site: Site | FileSite, trial: Trial, history: History) -> int:
    """Let everybody work while the faults befall the site; return how many did."""
    if isinstance(site, Site):
        for proxy in site.proxies:
            proxy.losing, proxy.lateness = trial.losing, trial.lateness
    async with asyncio.TaskGroup() as group:
        striking = group.create_task(_strike(site, trial, history))
        for number in range(trial.services):
            group.create_task(work(_orders(site, trial, f"s{number}"), history.record))
        for number in range(trial.processes):
            if isinstance(site, FileSite):
                group.create_task(_keep_at_work(site, trial, number, history, striking))
            else:
                orders = _orders(site, trial, f"p{number}")
                group.create_task(_employ(orders, history, killed=number > 0))
    return striking.result()


async def _keep_at_work(
    site: FileSite, trial: Trial, number: int, history: History, striking: asyncio.Task[int]
) -> None:
    """Let a process work, and another one in its place whenever it was killed."""
    times = 0
    while not times or not striking.done():
        times += 1
        orders = _orders(site, trial, f"p{number}t{times}")
        process = await _started(orders)
        site.processes.append(process)
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                history.read([line])
            assert await process.wait() in (0, -9)
        finally:
            site.processes.remove(process)
            if process.returncode is None:
                process.kill()  # The trial has failed, and nobody waits for it any more.


def _orders(site: Site | FileSite, trial: Trial, team: str) -> Orders:
    timeout = _HASTY if team == trial.hasty_team else _PATIENT
    return Orders(
        url=site.url,
        terms=Terms(limit=trial.limit, timeout=timeout),
        seed=trial.seed,
        workers=[f"{team}w{number}" for number in range(_WORKERS_OF_A_SERVICE)],
        operations=trial.operations_of_a_worker,
        cancelling=trial.cancelling,
    )


async def _employ(orders: Orders, history: History, *, killed: bool) -> None:
    """Let another process work, and record what it prints; or kill it when it is half done."""
    process = await _started(orders)
    assert process.stdout is not None
    half = orders.operations * len(orders.workers)
    lines = 0
    async for line in process.stdout:
        history.read([line])
        lines += 1
        if killed and lines == half:
            process.kill()
    assert await process.wait() == (-9 if killed else 0)


async def _started(orders: Orders) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "reliability.workers.process", msgspec.json.encode(orders).decode(),
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(_TESTS)},
        limit=_LONGEST_LINE,
    )  # fmt: skip


async def _strike(site: Site | FileSite, trial: Trial, history: History) -> int:
    """Let faults befall the site, one whenever another part of the operations is done."""
    random = Random(trial.seed)
    for number in range(trial.strikes):
        # Of a process that is killed, half is never done; by then all of them have come.
        due = (number + 1) * trial.operations * 4 // (5 * (trial.strikes + 1))
        while history.finished < due:
            await asyncio.sleep(0.001)
        name = trial.faults[number % len(trial.faults)]
        if isinstance(site, FileSite):
            await FILE_FAULTS[name](site, random)
        else:
            await FAULTS[name](site, random)
    return trial.strikes
