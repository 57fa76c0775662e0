"""Where tasks run at once when they are made, as Python 3.12 can have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.errors import BackendUnavailableError
from harness import servers

KEY = SessionKey("app", "user", "session")

pytestmark = pytest.mark.skipif(
    not hasattr(asyncio, "eager_task_factory"), reason="Python 3.11 has no eager tasks"
)


@pytest.fixture(autouse=True)
async def eager() -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
    yield
    loop.set_task_factory(before)


async def test_a_connection_that_failed_at_once_is_made_anew(tmp_path: Path) -> None:
    """A socket that is not there is known before the task that connects is known."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = servers.Server(servers.binaries()["valkey"], folder)
    async with RedisSessionService.from_url(server.url, timeout=2) as service:
        with pytest.raises(BackendUnavailableError):
            await service.create_session(KEY)
        server.start()
        try:
            session = await service.create_session(KEY)
            assert (await service.append_event(session, Event(author="user"))).seq == 1
        finally:
            server.stop()
