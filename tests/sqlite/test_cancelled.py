"""Cancelled at any moment, a call has taken effect whole or not at all, and all goes on."""

from __future__ import annotations

import asyncio
import gc
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentsession import Event, SessionKey
from agentsession.backend import ALL_EVENTS, Claim
from agentsession.errors import LeaseLostError
from agentsession.sqlite import SQLiteBackend, SQLiteSessionService
from reliability.checker import violations
from reliability.history import STYLES, Cancel, History, Style
from reliability.test_cancellation import CALLS, attempt

TURNS = range(31)
Call = Callable[[SQLiteSessionService, SessionKey], Awaitable[Any]]


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SQLiteSessionService]:
    """Open a service that leaves nothing behind: no complaint, no call that nobody waits for."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with asyncio.timeout(60), SQLiteSessionService(path, **options) as service:
        yield service
        # Whatever was cancelled before this is done by then.
        await service.append_event(
            await service.get_or_create_session(SessionKey("app", "user", "last")),
            Event(author="last"),
        )
        assert isinstance(service.backend, SQLiteBackend)
        assert not service.backend._writer.is_behind
        assert not service.backend._readers.is_behind
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", CALLS)
async def test_a_cancelled_call_is_whole_or_nothing(
    kind: str, style: Style, tmp_path: Path
) -> None:
    """After so many turns of the loop; what it did is seen at once, and it may be repeated."""
    history = History()
    async with opened(tmp_path / "sessions.db") as service:
        for turns in TURNS:
            await attempt(service, history, kind, Cancel(style, turns))
    assert violations(history) == []


# -- at any time, for calls that leave traces in several tables


async def fill(service: SQLiteSessionService, key: SessionKey) -> None:
    await service.create_session(key, {"a": 1})
    await service.append_events(key, [Event(author="a", state_delta={"n": n}) for n in range(5)])


async def fork(service: SQLiteSessionService, key: SessionKey) -> None:
    await service.fork(key, SessionKey("app", "user", f"copy {key.session_id}"))


async def acquire(service: SQLiteSessionService, key: SessionKey) -> None:
    claim = Claim(owner=f"owner-{key.session_id}", run_id="run", ttl=60_000)
    await service.backend.acquire(key, claim, 1)


async def create(service: SQLiteSessionService, key: SessionKey) -> None:
    state = {"a": 1, f"user:{key.session_id}": 1, f"app:{key.session_id}": 1}
    await service.create_session(SessionKey("app", "user", f"new {key.session_id}"), state)


async def append(service: SQLiteSessionService, key: SessionKey) -> None:
    name = key.session_id
    delta = {"n": "new", f"user:{name}": 1, f"app:{name}": 1}
    events = [Event(id=f"{name} {n}", author="a", state_delta=delta) for n in range(3)]
    await service.append_events(key, events)


async def delete(service: SQLiteSessionService, key: SessionKey) -> None:
    await service.delete_session(key)


async def is_done(service: SQLiteSessionService, call: Call, key: SessionKey) -> bool:
    """Tell whether a call has taken effect; each of its traces says the same."""
    backend = service.backend
    found = await backend.get(key, ALL_EVENTS)
    if call is delete:
        return found is None
    assert found is not None
    assert list(found.seqs) == list(range(1, found.last_seq + 1))
    name = key.session_id
    if call is append:
        marks = [name in scope for scope in (found.app, found.user)]
        marks += [found.session["n"] == b'"new"', found.last_seq == 8, len(found.events) == 8]
    elif call is create:
        new = await backend.get(SessionKey("app", "user", f"new {name}"), ALL_EVENTS)
        marks = [new is not None, name in found.app, name in found.user]
    elif call is fork:
        copy = await backend.get(SessionKey("app", "user", f"copy {name}"), ALL_EVENTS)
        marks = [copy is not None]
        if copy is not None:
            marks += [copy.session == found.session, len(copy.events) == 5]
    else:
        try:
            await backend.renew(key, f"owner-{name}", 60_000)
        except LeaseLostError:
            marks = [False]
        else:
            marks = [True]
    assert len({*marks}) == 1, marks
    return marks[0]


@pytest.mark.parametrize("call", [acquire, append, create, delete, fork])
async def test_a_call_that_is_cancelled_at_any_time(call: Call, tmp_path: Path) -> None:
    """Before it is on its way, while it is on disk, and when it is answered."""
    outcomes: set[tuple[bool, bool]] = set()
    path = tmp_path / "sessions.db"
    async with opened(path) as service, SQLiteSessionService(path) as other:
        for number in range(120):
            key = SessionKey("app", "user", f"s{number}")
            await fill(service, key)
            task = asyncio.ensure_future(call(service, key))
            if number % 2:
                await asyncio.wait([task], timeout=random.random() * 0.004)
            else:
                for _ in range(number // 2):
                    await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            was_done = await is_done(service, call, key)
            # It does not happen later; and other services see the same.
            assert await is_done(other, call, key) == was_done
            assert was_done or task.cancelled()
            outcomes.add((task.cancelled(), was_done))
    assert (True, False) in outcomes


async def test_many_that_are_cancelled_spoil_nothing_for_the_others(tmp_path: Path) -> None:
    """Those of one transaction are each answered, or were each given up."""
    async with opened(tmp_path / "sessions.db") as service:
        keys = [SessionKey("app", "user", f"s{number}") for number in range(20)]
        for key in keys:
            await service.create_session(key)
        for round_ in range(20):
            tasks = [
                asyncio.create_task(service.append_event(key, Event(id=f"{round_}", author="a")))
                for key in keys
            ]
            for _ in range(round_ % 7):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.wait(tasks)
            for key, task in zip(keys, tasks, strict=True):
                found = [event.id for event in await service.get_events(key)]
                assert task.cancelled() or f"{round_}" in found
            assert not any(task.cancelled() for task in tasks[1::2])


async def test_a_call_that_is_cancelled_when_it_was_answered(tmp_path: Path) -> None:
    """Nobody waits for what is done already, so reads stay with the threads that read."""
    async with opened(tmp_path / "sessions.db") as service:
        await fill(service, key := SessionKey("app", "user", "s"))
        assert isinstance(service.backend, SQLiteBackend)
        writer = service.backend._writer

        async def first() -> None:
            call = writer._put(lambda _: None, key, 5)
            call.future.add_done_callback(lambda _: second.cancel())

        # Asked for in one step of the loop, the two are answered in one step too.
        asking = asyncio.create_task(first())
        second = asyncio.create_task(service.backend.renew(key, "nobody", 1000))
        await asking
        await asyncio.wait([second])
        assert second.cancelled()
        assert not writer.is_behind


async def test_closing_that_is_cancelled(tmp_path: Path) -> None:
    """What was asked for before is done, and closing may be repeated."""
    for turns in range(10):
        path = tmp_path / f"{turns}.db"
        service = SQLiteSessionService(path)
        await service.create_session(key := SessionKey("app", "user", "s"))
        appending = asyncio.create_task(service.append_event(key, Event(author="a")))
        await asyncio.sleep(0)
        closing = asyncio.create_task(service.aclose())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing, appending])
        await service.aclose()
        async with SQLiteSessionService(path) as again:
            found = await again.get_events(key)
        assert len(found) == 1
        assert appending.result().seq == 1


async def test_whoever_waits_for_a_lock_may_be_cancelled(tmp_path: Path) -> None:
    """At once, and it does not take effect afterwards."""
    path = tmp_path / "sessions.db"
    async with opened(path, timeout=20) as service:
        await fill(service, key := SessionKey("app", "user", "s"))
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(service.append_event(key, Event(author="a")))
        waiting = asyncio.create_task(service.append_event(key, Event(author="b")))
        await asyncio.wait([task], timeout=0.1)
        late = asyncio.create_task(service.append_event(key, Event(author="c")))
        await asyncio.wait([late], timeout=0.01)
        begin = time.monotonic()
        for each in (task, late):
            each.cancel()
        await asyncio.wait([task, late])
        assert time.monotonic() - begin < 5
        connection.close()
        await waiting
        authors = [event.author for event in await service.get_events(key)]
        assert authors[:5] == ["a"] * 5
        assert "c" not in authors
        assert authors.count("b") == 1
