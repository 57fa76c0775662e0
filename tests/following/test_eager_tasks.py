"""Following where tasks run at once when they are made, as Python 3.12 can have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentsession import Event
from agentsession.testing import Subject

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


async def test_all_is_told(subject: Subject) -> None:
    """What is stored, and the first chunk as well as the second."""
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    async with other.subscribe(subject.key) as items, asyncio.timeout(20):
        stored = await service.append_event(subject.key, Event(author="user", content="x"))
        assert await anext(items) == stored
        for _ in range(3):
            chunk = Event(author="agent", content="x", partial=True)
            await service.append_event(subject.key, chunk)
            assert await anext(items) == chunk
