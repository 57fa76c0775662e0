"""No call holds the event loop for long, however much it reads, writes or frees.

Measured is the processor time of this thread between two turns of a task that always wants one: the
longest step that anybody else took. A machine that is busy with other things does not lengthen it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentsession import (
    Event,
    InMemorySessionService,
    RedisSessionService,
    SessionKey,
    SessionService,
    SQLiteSessionService,
    UserKey,
)
from agentsession.errors import ClosedError, SessionNotFoundError, StateValueError
from agentsession.events import Data, ToolCall, ToolResult, new_id
from agentsession.memory import MemoryBackend
from agentsession.state import DELETE, NO_CHANGES, Changes
from agentsession.testing import ManualClock
from harness.steps import check_short, measured

KEY = SessionKey("app", "user", "session")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """As in production: asyncio's debug mode takes as long as what is measured."""
    return "asyncio", {"debug": False}


def rows(size: int) -> list[dict[str, object]]:
    """Make JSON of about so many bytes, in small values, as a database's answer has."""
    return [{"row": n, "text": "x" * 60, "price": n * 1.5} for n in range(size // 100)]


def heavy(count: int, size: int) -> list[Event]:
    return [Event(author="a", content=[ToolResult(f"c{n}", rows(size))]) for n in range(count)]


def names(count: int) -> dict[str, object]:
    return {f"name {n}": {"a": [n, 2, 3], "t": "x" * 30} for n in range(count)}


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def service(
    request: pytest.FixtureRequest, valkey_url: str, tmp_path: Path
) -> AsyncIterator[SessionService]:
    if request.param == "memory":
        made: SessionService = InMemorySessionService()
    elif request.param == "sqlite":
        made = SQLiteSessionService(tmp_path / "sessions.db", timeout=60)
    else:
        made = RedisSessionService.from_url(valkey_url, key_prefix="stalls:", timeout=60)
    async with made:
        yield made
        await made.delete_user(KEY.user)
        await made.update_app_state("app", dict.fromkeys(await made.get_app_state("app"), DELETE))


async def test_a_large_batch_is_written_and_read_in_steps(service: SessionService) -> None:
    """Its encoding, its way into a session at hand, and each way to read it."""
    events = heavy(150, 100_000)
    held = await service.create_session(KEY)
    await check_short(lambda: service.append_events(held, events))
    assert await check_short(lambda: service.get_session(KEY)) == held
    await check_short(lambda: service.get_or_create_session(KEY))
    assert await check_short(lambda: service.get_events(KEY, limit=1000)) == held.events
    found = await check_short(lambda: service.get_events(KEY, author="a", limit=1000))
    assert found == held.events
    around = await check_short(lambda: service.get_events(KEY, around=75, limit=1000))
    assert around == held.events


async def test_a_long_history_is_made_in_steps() -> None:
    """It is read, cut into turns and paired; by itself the reading is short here."""
    service = InMemorySessionService(session_event_limit=None)
    await service.create_session(KEY)
    turn = [
        Event(author="user", content="go"),
        Event(author="a", content=[ToolCall("c", "t")]),
        Event(author="tool", content=[ToolResult("c", 1)]),
    ]
    for _ in range(60):
        await service.append_events(
            KEY, [msgspec.structs.replace(event, id=new_id()) for event in turn * 300]
        )
    history = await check_short(lambda: service.get_history(KEY))
    assert len(history) == 60 * 900
    assert len(await service.get_history(KEY, max_turns=5000)) == 15_000
    await service.aclose()


async def test_deltas_reach_a_session_at_hand_in_steps(service: SessionService) -> None:
    """A batch of many changes to state, and what one lacks of others' writes."""
    events = [
        Event(author="a", state_delta={f"{part} {n}": n for n in range(150)}) for part in range(300)
    ]
    held, behind = await service.create_session(KEY), await service.get_session(KEY)
    assert behind is not None
    await check_short(lambda: service.append_events(held, events))
    assert len(held.state) == 45_000
    await check_short(lambda: service.append_event(behind, Event(author="b")))
    assert behind.state == held.state


async def test_large_state_is_written_and_read_in_steps(service: SessionService) -> None:
    """Tens of thousands of names in every scope."""
    state = names(60_000)
    first = await check_short(lambda: service.create_session(KEY, state))
    assert first.state == state
    await check_short(lambda: service.update_session_state(KEY, state))
    await check_short(lambda: service.update_user_state(KEY.user, state))
    await check_short(lambda: service.update_app_state("app", state))
    assert await check_short(lambda: service.get_user_state(KEY.user)) == state
    assert await check_short(lambda: service.get_app_state("app")) == state
    session = await check_short(lambda: service.get_session(KEY))
    assert len(session.state) == 180_000


async def test_few_large_values_are_written_and_read_in_steps(service: SessionService) -> None:
    """What counts is how much it is, not how many."""
    state: dict[str, object] = {f"name {n}": rows(100_000) for n in range(200)}
    await check_short(lambda: service.create_session(KEY, state))
    await check_short(lambda: service.update_user_state(KEY.user, state))
    assert await check_short(lambda: service.get_user_state(KEY.user)) == state
    await check_short(lambda: service.get_session(KEY))


async def test_a_page_of_sessions_is_read_in_steps(service: SessionService) -> None:
    """A thousand sessions with state, each of which has that of its user too."""
    for n in range(1000):
        await service.create_session(SessionKey("app", "user", f"s{n}"), names(50))
    await service.update_user_state(KEY.user, names(1000))
    page = await check_short(lambda: service.list_sessions(KEY.user, limit=1000))
    assert len(page.sessions) == 1000
    assert all(len(session.state) == 1050 for session in page.sessions)


async def test_a_page_of_large_sessions_is_taken_in_one_short_step() -> None:
    """The memory backend lists what is of one moment, so it copies no state."""
    async with InMemorySessionService() as service:
        for n in range(100):
            key = SessionKey("app", "user", f"s{n}")
            await service.backend.create(
                key, Changes(session=dict.fromkeys(map(str, range(20_000)), b"1")), token=""
            )
        async with measured() as steps:
            found = await service.backend.list_sessions(KEY.user, 100, None)
        assert sum(len(each.session) for each in found.sessions) == 2_000_000
        assert steps.longest < steps.bound / 4


def backend_of(service: SessionService) -> MemoryBackend:
    assert isinstance(service.backend, MemoryBackend)
    return service.backend


async def test_a_sweep_is_done_in_steps() -> None:
    """Of many users, with sessions and without, and of many applications; alive, then expired."""
    clock, ttl = ManualClock(), 10
    async with InMemorySessionService(
        session_ttl=ttl, user_state_ttl=ttl, app_state_ttl=ttl, cleanup_interval=1e6, clock=clock
    ) as service:
        backend = backend_of(service)
        for n in range(60_000):
            await backend.update_user_state(UserKey("app", f"u{n}"), {"a": b"1"})
            await backend.update_app_state(f"app {n}", {"a": b"1"})
        for n in range(30_000):
            await backend.create(SessionKey("app", f"s{n}", "s"), NO_CHANGES, token="")
            await backend.create(SessionKey("app", "many", f"s{n}"), NO_CHANGES, token="")
        await check_short(backend.sweep)
        assert "apps=60000 users=90001 sessions=60000" in repr(backend)
        clock.advance(ttl)
        await check_short(backend.sweep)
        assert "apps=0 users=0 sessions=0" in repr(backend)


async def test_a_large_user_is_erased_in_steps() -> None:
    """It is gone at once for everybody, and its memory is freed bit by bit."""
    user = UserKey("app", "user")
    async with InMemorySessionService() as service:
        for n in range(100_000):
            key = SessionKey("app", "user", f"s{n}")
            await service.backend.create(key, NO_CHANGES, token="")
        turn = backend_of(service)._users.get_or_add(user).sessions["s0"].lock
        await turn.acquire()
        waiting = asyncio.create_task(
            service.append_event(SessionKey("app", "user", "s0"), Event(author="a"))
        )
        await asyncio.sleep(0)
        async with measured() as steps:
            erasing = asyncio.create_task(service.delete_user(user))
            await asyncio.sleep(0)
            turn.release()
            with pytest.raises(SessionNotFoundError):
                await waiting
            assert not erasing.done()
            assert (await service.list_sessions(user)).sessions == []
            await service.create_session(KEY)
            await erasing
        assert steps.longest < steps.bound
        assert [each.id for each in (await service.list_sessions(user)).sessions] == ["session"]


async def test_usual_calls_are_one_step() -> None:
    """They never pause, so that what a task does to a session in memory is not interleaved.

    Unless the process itself was stopped for longer than a step takes, so there are some tries.
    """
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def turns_of_others(service: SessionService) -> int:
        held = await service.create_session(KEY, {"a": 1, "user:b": 2})
        await asyncio.sleep(0)
        before = turns
        await service.append_event(held, Event(author="a", state_delta={"a": 2}))
        await service.append_events(held, [Event(author="a", content=str(n)) for n in range(9)])
        await service.update_session_state(KEY, {"c": b"x"})
        await service.get_session(KEY)
        await service.get_events(KEY)
        await service.list_sessions(KEY.user)
        await service.delete_user(KEY.user)
        return turns - before

    async with InMemorySessionService() as memory:
        counting = asyncio.create_task(count())
        assert 0 in [await turns_of_others(memory) for _ in range(20)]
        counting.cancel()


# -- what others do meanwhile


async def started(call: Awaitable[Any], turns: int = 3) -> asyncio.Future[Any]:
    """Let a call that takes many steps take a few."""
    task = asyncio.ensure_future(call)
    for _ in range(turns):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_a_batch_that_is_cancelled_while_it_is_encoded_stores_nothing() -> None:
    """Neither its events nor what they do to state."""
    events = [msgspec.structs.replace(each, state_delta={"a": 1}) for each in heavy(50, 100_000)]
    async with InMemorySessionService() as service:
        before = await service.create_session(KEY)
        for call in (
            service.append_events(KEY, events),
            service.update_session_state(KEY, names(100_000)),
        ):
            task = await started(call)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert await service.get_session(KEY) == before


async def test_a_batch_with_one_bad_event_at_its_end_stores_nothing() -> None:
    """Also if it took many steps to come to that event, and others wrote meanwhile."""
    bad = Event(author="a", state_delta={"n": object()})
    async with InMemorySessionService() as service:
        await service.create_session(KEY)
        task = await started(service.append_events(KEY, [*heavy(50, 100_000), bad]))
        await service.append_event(KEY, Event(author="b", content="meanwhile"))
        with pytest.raises(StateValueError):
            await task
        assert [event.content for event in await service.get_events(KEY)] == ["meanwhile"]


async def test_what_changes_while_it_is_encoded_is_stored_as_it_was_at_one_moment() -> None:
    """An event or a value is never half old and half new, and no names come or go."""
    events = heavy(50, 100_000)
    part = [0, 0]
    events.append(Event(author="a", content=[Data(part)], state_delta={"part": part}))
    state: dict[str, object] = names(50_000) | {"part": part}
    async with InMemorySessionService() as service:
        await service.create_session(KEY)
        writing = await started(service.append_events(KEY, events))
        updating = await started(service.update_user_state(KEY.user, state))
        while not (writing.done() and updating.done()):
            part[:] = [part[0] + 1, part[0] + 1]
            state[f"new {part[0]}"] = 1
            await asyncio.sleep(0)
        stored = writing.result()[-1]
        assert stored == (await service.get_events(KEY, newest_first=True, limit=1))[0]
        first, second = stored.state_delta["part"]
        assert first == second > 0
        assert stored.content == [Data([first, second])]
        await updating
        user = await service.get_user_state(KEY.user)
        assert len(user) == 50_001
        assert user["part"][0] == user["part"][1] > first


async def test_two_batches_for_one_session_at_hand() -> None:
    """Each brings it up to date in one step, in whatever order their long ways end."""
    async with InMemorySessionService() as service:
        held = await service.create_session(KEY)

        async def append(writer: int) -> None:
            delta = {f"{writer} {n}": writer for n in range(100)} | {"gone": DELETE, "x": writer}
            events = [Event(author="a", state_delta=delta) for _ in range(150)]
            await service.append_events(held, events)

        async with asyncio.TaskGroup() as group:
            for writer in range(3):
                group.create_task(append(writer))
        assert held == await service.get_session(KEY)
        assert [event.seq for event in held.events] == list(range(1, 451))


async def test_a_service_that_is_closed_meanwhile_stores_nothing() -> None:
    """A call that comes to its end after that is refused, as one that begins then."""
    async with InMemorySessionService(session_ttl=60) as service:
        before = await service.create_session(KEY)
        other = SessionService(service.backend)
        tasks = [
            await started(service.append_events(KEY, heavy(50, 100_000))),
            await started(service.update_session_state(KEY, names(100_000))),
            await started(service.update_user_state(KEY.user, names(100_000))),
        ]
        await service.aclose()
        for task in tasks:
            with pytest.raises(ClosedError):
                await task
        assert await other.get_session(KEY) == before
        await other.aclose()
