"""A contestant's process: it reads orders from standard input and answers, both JSON, one a line.

::

    {"do": "versions", "packages": ["redis"]}               -> {"redis": "8.1.0"}
    {"do": "check", "case": {}}                             -> {}
    {"do": "prepare", "setup": "", "case": {}, "url": ""}   -> {"bytes": 0, "seconds": 0.1}
    {"do": "run", "setup": "", "case": {}, "seconds": 1.0, "watch": false}  -> figures
    {"do": "durability", "setup": ""}                       -> {"durability": ""}
    {"do": "reopen", "setup": "", "times": 5}               -> {"seconds": 0.1}
    {"do": "clear"}                                         -> {}

Each names the ``contestant`` too, one of the module's; ``prepare`` may say how the sessions'
names begin, for processes that share a file. The answer to an order that fails is
``{"error": "..."}``. The end of the input ends the process. Needs nothing but Python; a contestant
is a module that calls :func:`main` with its classes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import sys
import time
import traceback
import tracemalloc
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, Setup
from benchmarks.measure import Call, Watch, repeat
from benchmarks.messages import TURN, Message, exchange, read_turns, words

__all__ = ["LAST", "PAGE", "TURNS", "Contestant", "NotMeasuredError", "main"]

APP = "bench"
USER = "ada"
LAST = 10
TURNS = 2
PAGE = 50


class NotMeasuredError(Exception):
    """A case that a contestant cannot take part in, and why."""


class Contestant(ABC):
    """A store of sessions, in the words of the suite.

    Args:
        setup: What it will hold.
        url: The server, with a database of this contestant's own, or a folder; empty for one in
            memory.
    """

    on_server = True

    def __init__(self, setup: Setup, url: str) -> None:
        self.setup = setup
        self.url = url

    @classmethod
    def check(cls, case: Case) -> None:
        """Raise :exc:`NotMeasuredError` if *case* is not for this contestant."""
        if case.operation == "baseline":
            msg = "for the floor only"
            raise NotMeasuredError(msg)

    @abstractmethod
    async def seed(self, sessions: Sequence[str]) -> None:
        """Make these sessions, each with the setup's history, by the fastest way there is."""

    @abstractmethod
    async def append(self, session: str, messages: Sequence[Message]) -> None:
        """Store messages; what it takes to make events of them is part of the cost."""

    @abstractmethod
    async def get_last(self, session: str) -> int:
        """Read the session with its last 10 events, and return how many came."""

    async def get_history(self, session: str) -> int:
        """Read what a model may be shown of the last 2 turns, and return how many events came."""
        raise NotImplementedError

    async def read(self, session: str) -> int:
        """Read the whole session, and return how many of what was appended came."""
        raise NotImplementedError

    async def convert(self, session: str) -> None:
        """Make events of what an append of a framework is given, and store nothing."""
        raise NotImplementedError

    async def restore(self, session: str) -> None:
        """Make what a framework reads of stored events, and read nothing."""
        raise NotImplementedError

    async def list_page(self) -> int:
        """Read a page of 50 of the user's sessions, and return how many came."""
        raise NotImplementedError

    async def turn(self, session: str, messages: Sequence[Message]) -> None:
        """Do what a turn of an agent does: load, and append message by message as they come."""
        await self.get_last(session)
        for message in messages:
            await self.append(session, (message,))

    async def leased_turn(self, session: str, messages: Sequence[Message]) -> None:
        """Take the session for a turn, load it, append these messages, and give it back."""
        raise NotImplementedError

    async def unleased_turn(self, session: str, messages: Sequence[Message]) -> None:
        """Load the session and append these messages one by one, with the same calls."""
        raise NotImplementedError

    async def rewind(self, session: str, messages: Sequence[Message]) -> None:
        """Take back what came after the setup's history, and append these messages instead."""
        raise NotImplementedError

    async def fork(self, session: str) -> None:
        """Make a new session that begins with all of this one."""
        raise NotImplementedError

    async def create(self, session: str) -> None:  # noqa: B027 - not all have to
        """Make a session before its first turn, where a turn does not."""

    async def baseline(self, session: str) -> None:
        """Run the four commands that the server's cost is compared with."""
        raise NotImplementedError

    async def durability(self) -> str:
        """Say how far a write has gone when it returns, in SQLite's words."""
        raise NotImplementedError

    async def reopen(self) -> None:
        """Open what :meth:`aclose` has closed, as far as it is before the first call."""
        raise NotImplementedError

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of connections."""


class Driver:
    """Carries out orders on the setups that it has prepared."""

    def __init__(self, contestants: Mapping[str, type[Contestant]]) -> None:
        self._contestants = contestants
        self._prepared: dict[str, Contestant] = {}
        self._sessions: dict[str, list[str]] = {}
        self._generation = itertools.count(1)

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order."""
        match order["do"]:
            case "versions":
                return {name: _version(name) for name in order["packages"]}
            case "check":
                self._contestants[order["contestant"]].check(Case.from_dict(order["case"]))
                return {}
            case "prepare":
                return await self._prepare(order)
            case "run":
                return await self._run(order)
            case "durability":
                return {"durability": await self._prepared[order["setup"]].durability()}
            case "reopen":
                return await self._reopen(order)
            case _:
                return await self._clear()

    async def _clear(self) -> dict[str, Any]:
        for contestant in self._prepared.values():
            await contestant.aclose()
        self._prepared.clear()
        self._sessions.clear()
        return {}

    async def _prepare(self, order: dict[str, Any]) -> dict[str, Any]:
        """Make the sessions of a setup; again where it exists, so that they are new."""
        name, case = order["setup"], Case.from_dict(order["case"])
        contestant = self._prepared.get(name)
        # Connections are kept, since making 256 of them is not what is measured.
        kept = contestant is not None and contestant.on_server and contestant.url == order["url"]
        if contestant is None or not kept:
            if contestant is not None:
                await contestant.aclose()
            kind = self._contestants[order["contestant"]]
            contestant = self._prepared[name] = kind(case.setup, order["url"])
        generation = next(self._generation)
        begin = order.get("names", "s")
        sessions = [f"{begin}{generation}-{number}" for number in range(case.setup.sessions)]
        tracing = order.get("trace", False)
        if tracing:
            tracemalloc.start()
        start = time.perf_counter()
        await contestant.seed(sessions)
        seconds = time.perf_counter() - start
        self._sessions[name] = sessions
        footprint = tracemalloc.get_traced_memory()[0] if tracing else 0
        tracemalloc.stop()
        return {"bytes": footprint, "seconds": seconds}

    async def _reopen(self, order: dict[str, Any]) -> dict[str, Any]:
        """Close and open, as often as is wanted, and read a session after each."""
        contestant = self._prepared[order["setup"]]
        session = self._sessions[order["setup"]][0]
        times: list[float] = []
        for _ in range(order["times"]):
            await contestant.aclose()
            start = time.perf_counter()
            await contestant.reopen()
            await contestant.get_last(session)
            times.append(time.perf_counter() - start)
        return {"seconds": statistics.median(times)}

    async def _run(self, order: dict[str, Any]) -> dict[str, Any]:
        name, case = order["setup"], Case.from_dict(order["case"])
        contestant = self._prepared[name]
        calls = _calls(contestant, case, self._sessions[name], next(self._generation))
        watch = Watch() if order["watch"] else None
        yielding = not contestant.on_server and (case.callers > 1 or watch is not None)
        timing = await repeat(calls, order["seconds"], most=case.most, yielding=yielding)
        figures: dict[str, Any] = timing.to_dict()
        if watch is not None:
            watch.stop()
            figures.update(
                stall=watch.longest, own_stall=watch.longest_own, step=watch.longest_step
            )
        return figures


def _calls(
    contestant: Contestant, case: Case, sessions: Sequence[str], generation: int
) -> list[Call]:
    """Make what each caller repeats; the callers share the sessions out among themselves."""
    if case.operation == "conversation":
        return [
            _replay(contestant, Path(case.file), f"c{generation}-{caller}")
            for caller in range(case.callers)
        ]
    one = _operation(contestant, case)
    return [
        _rotating(one, sessions[caller % len(sessions) :: case.callers])
        for caller in range(case.callers)
    ]


def _operation(contestant: Contestant, case: Case) -> Callable[[str], Awaitable[object]]:
    setup = case.setup
    match case.operation:
        case "append":
            return partial(contestant.append, messages=(words(setup.size),) * case.batch)
        case "turn":
            return partial(contestant.turn, messages=TURN)
        case "leased":
            return partial(contestant.leased_turn, messages=exchange(setup.size))
        case "unleased":
            return partial(contestant.unleased_turn, messages=exchange(setup.size))
        case "rewind":
            return partial(contestant.rewind, messages=exchange(setup.size)[:2])
        case "get":
            return _counted(contestant.get_last, min(LAST, setup.history))
        case "read":
            return _counted(contestant.read, setup.history)
        case "history":
            return _counted(contestant.get_history, TURNS)
        case "list":
            return _counted(lambda _: contestant.list_page(), min(PAGE, setup.sessions))
        case _:
            named: Callable[[str], Awaitable[object]] = getattr(contestant, case.operation)
            return named


def _rotating(one: Callable[[str], Awaitable[object]], sessions: Sequence[str]) -> Call:
    rotation = itertools.cycle(sessions)
    return lambda: one(next(rotation))


def _counted(read: Callable[[str], Awaitable[int]], expected: int) -> Callable[..., Awaitable[int]]:
    """Check what a read returns, so that no contestant is fast by returning less."""

    async def checked(session: str) -> int:
        found = await read(session)
        if found < expected:
            msg = f"read {found} where {expected} were stored"
            raise RuntimeError(msg)
        return found

    return checked


def _replay(contestant: Contestant, file: Path, prefix: str) -> Call:
    """Make a call that does the next turn of the conversations, each in a session of its own."""

    def endless() -> Iterator[tuple[str, list[Message]]]:
        for time_around in itertools.count():
            for number, turn in turns:
                yield f"{prefix}-{time_around}-{number}", turn

    turns = read_turns(file)
    replay = endless()
    last = ""

    async def next_turn() -> None:
        nonlocal last
        session, messages = next(replay)
        if session != last:
            await contestant.create(session)
            last = session
        await contestant.turn(session, messages)

    return next_turn


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from the checkout"


def main(contestants: Mapping[str, type[Contestant]]) -> None:
    """Obey until the input ends."""
    # What a framework prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asyncio.run(_serve(Driver(contestants), answers))


async def _serve(driver: Driver, answers: Any) -> None:
    # Reading blocks the loop between orders, when nothing else has to run; no thread can disturb a
    # measurement then.
    for line in sys.stdin:
        try:
            answer = await driver.obey(json.loads(line))
        except NotMeasuredError as exc:
            answer = {"error": str(exc), "not_measured": True}
        except Exception as exc:  # noqa: BLE001 - it is reported, and the next case may do better
            traceback.print_exc()
            first = exc.exceptions[0] if isinstance(exc, ExceptionGroup) else exc
            answer = {"error": f"{type(first).__name__}: {first}"}
        print(json.dumps(answer), file=answers, flush=True)
    await driver.obey({"do": "clear"})
