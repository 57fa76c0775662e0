"""Backends that have no way to tell of what happens."""

from __future__ import annotations

import asyncio

from agentsession import Event, SessionKey, SessionService
from agentsession.backend import Backend
from agentsession.memory import MemoryBackend
from agentsession.retention import Retention

KEY = SessionKey("app", "user", "session")


class QuietBackend(MemoryBackend):
    """One that tells nothing, as a backend may that does not define these."""

    listen = Backend.listen
    follow = Backend.follow
    tell = Backend.tell


async def test_followers_look_for_themselves() -> None:
    """Sooner than a session can expire; chunks do not come."""
    backend = QuietBackend(Retention(session_ttl=4_000))
    async with SessionService(backend) as service:
        await service.create_session(KEY)
        async with asyncio.timeout(30), service.subscribe(KEY) as items:
            await service.append_event(KEY, Event(author="agent", content="x", partial=True))
            stored = await service.append_event(KEY, Event(author="user", content="hi"))
            assert await anext(items) == stored
            async with service.lease(KEY):
                pass
