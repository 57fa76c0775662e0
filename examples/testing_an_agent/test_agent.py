"""Tests of an agent: each runs in memory, and on a real server that pytest starts by itself.

    pip install 'agentsession[embedded]' pytest
    pytest -v
    pytest -v --agentsession-redis-url=redis://localhost:6379/0

Every test begins with an empty store, also on a server of yours, whose data it neither sees nor
changes. With pytest-asyncio the marker is pytest.mark.asyncio, and conftest.py needs no
anyio_backend.
"""

from __future__ import annotations

import pytest
from agent import shopping_list

from agentsession import Runner, SessionKey, SessionService, UserKey
from agentsession.stores import ServiceOptions
from agentsession.testing import ManualClock

pytestmark = pytest.mark.anyio


async def answers(service: SessionService, chat: str, *messages: str) -> list[str]:
    runner = Runner("shop", shopping_list, service)
    return [e.text for each in messages for e in [e async for e in runner.run("ada", chat, each)]]


async def test_the_list_grows(session_service: SessionService) -> None:
    """Each message is one thing more."""
    assert await answers(session_service, "c1", "tea", "milk") == [
        "1 on your list.",
        "2 on your list.",
    ]


async def test_all_chats_of_a_user_share_the_list(session_service: SessionService) -> None:
    """What was said in one chat is known in another, and gone when it is done."""
    await answers(session_service, "c1", "tea")
    assert await answers(session_service, "c2", "milk", "done") == [
        "2 on your list.",
        "You wanted tea, milk.",
    ]
    assert await session_service.get_user_state(UserKey("shop", "ada")) == {}


async def test_the_conversation_is_stored(session_service: SessionService) -> None:
    """Questions and answers are in the log, in order."""
    await answers(session_service, "c1", "tea")
    session = await session_service.get_session(SessionKey("shop", "ada", "c1"))
    assert session is not None
    assert [event.author for event in session.events] == ["user", "agent"]


class TestExpiry:
    """A manual clock lets a day pass at once; it goes with the store in memory."""

    @pytest.fixture
    def session_service_options(self) -> ServiceOptions:
        return {"session_ttl": 24 * 3600}

    async def test_a_chat_is_forgotten_after_a_day(
        self, memory_session_service: SessionService, session_clock: ManualClock
    ) -> None:
        """The chat is gone; the list, which is the user's, is not."""
        await answers(memory_session_service, "c1", "tea")
        session_clock.advance(24 * 3600)
        assert await memory_session_service.get_session(SessionKey("shop", "ada", "c1")) is None
        assert await answers(memory_session_service, "c2", "milk") == ["2 on your list."]
