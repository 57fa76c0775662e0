"""uvloop: what uvicorn runs applications on, if it is installed."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.testing import CHECKS, Check
from harness import servers
from harness.subjects import RedisSubject


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"use_uvloop": True, "debug": True}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance_on_uvloop(check: Check, valkey_url: str) -> None:
    """Every promise is kept there too."""
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
    async with RedisSubject(valkey_url) as subject:
        await check(subject)


async def test_large_events_leave_in_pieces_on_uvloop() -> None:
    """Many callers with large events share a connection by TCP; each gets its own reply."""
    with servers.alone() as node:
        url = f"redis://127.0.0.1:{node.port}"
        async with RedisSessionService.from_url(url) as service:
            key = SessionKey("app", "user", "session")
            await service.create_session(key)
            async with asyncio.TaskGroup() as group:
                for number in range(20):
                    event = Event(author="a", content="x" * 900_000, id=str(number))
                    group.create_task(service.append_event(key, event))
            events = await service.get_events(key)
    assert sorted(int(event.id) for event in events) == list(range(20))
