"""Large operations on a file hold up neither the event loop nor, once done, those that follow."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from agentsession import Event, SessionKey
from agentsession.errors import AgentSessionError
from agentsession.events import new_id
from agentsession.sqlite import SQLiteSessionService
from harness.steps import check_short, measured

KEY = SessionKey("app", "user", "session")
COPY = SessionKey("app", "user", "copy")
OTHER = SessionKey("app", "user", "other")
EVENTS, AT_ONCE = 50_000, 1000


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """As in production: asyncio's debug mode takes as long as what is measured."""
    return "asyncio", {"debug": False}


async def test_a_long_log_is_read_copied_and_deleted_in_steps(tmp_path: Path) -> None:
    """Also where its rows are removed, which goes on when the call has returned."""
    path = tmp_path / "sessions.db"
    async with SQLiteSessionService(
        path, session_event_limit=None, max_read_size=None, synchronous="normal"
    ) as service:
        await service.create_session(KEY)
        await service.create_session(OTHER)
        event = Event(author="a", content="x" * 50)
        for _ in range(EVENTS // AT_ONCE):
            await service.append_events(
                KEY, [msgspec.structs.replace(event, id=new_id()) for _ in range(AT_ONCE)]
            )
        found = await check_short(lambda: service.get_session(KEY))
        assert len(found.events) == EVENTS
        copy = await check_short(lambda: service.fork(KEY, COPY))
        assert len(copy.events) == EVENTS
        async with measured() as steps:
            await service.delete_session(KEY)
            # While its rows are removed, others write and read.
            for _ in range(20):
                await service.append_event(OTHER, Event(author="a"))
                await service.get_events(OTHER)
            await service.delete_user(COPY.user)
        assert steps.longest < steps.bound
        await service.create_session(KEY)
        assert await service.get_events(KEY) == []


async def test_many_names_of_state_are_written_and_read_in_steps(tmp_path: Path) -> None:
    """In each scope, alone and with an event."""
    state: dict[str, object] = {f"name {number}": {"n": [number]} for number in range(100_000)}
    events = [
        Event(author="a", state_delta={f"name {n}": n for n in range(start, start + 200)})
        for start in range(0, 60_000, 200)
    ]
    async with SQLiteSessionService(tmp_path / "sessions.db", synchronous="normal") as service:
        await check_short(lambda: service.create_session(KEY, state))
        await check_short(lambda: service.update_user_state(KEY.user, state))
        await check_short(lambda: service.update_app_state("app", state))
        await check_short(lambda: service.append_events(KEY, events))
        found = await check_short(lambda: service.get_session(KEY))
        assert len(found.state) == 300_000
        await check_short(lambda: service.fork(KEY, COPY))


async def test_many_calls_at_once_are_answered_in_steps(tmp_path: Path) -> None:
    """Whether they are done, or refused together by a folder that is not there."""
    for path in (tmp_path / "sessions.db", tmp_path / "missing" / "sessions.db"):
        async with SQLiteSessionService(path, timeout=1) as service, measured() as steps:
            calls = []
            for number in range(3000):
                key = SessionKey("app", "user", f"s{number}")
                calls.append(asyncio.create_task(service.get_or_create_session(key)))
                if number % 50 == 0:
                    await asyncio.sleep(0)
            await asyncio.wait(calls)
            refused = [isinstance(call.exception(), AgentSessionError) for call in calls]
            assert len({*refused}) == 1, {str(call.exception()) for call in calls}
        assert steps.longest < steps.bound
