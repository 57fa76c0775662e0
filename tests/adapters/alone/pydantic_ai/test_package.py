"""Loops and threads, and how the package presents itself."""

from __future__ import annotations

import asyncio
import re

import pytest

pytest.importorskip("pydantic_ai")


from adapters.alone.pydantic_ai.conversing import KEY, said_in, saved, store_of
from agentsession import InMemorySessionService, blocking
from agentsession.adapters.pydantic_ai import ConversationStore


def test_loops_and_threads_share_a_store(store_url: str, store_prefix: str) -> None:
    """With a blocking service, whichever loop a call is made on."""
    with blocking.open_service(store_url, key_prefix=store_prefix) as service:
        store = store_of(service)
        asyncio.run(saved_and_discarded(store))
        assert asyncio.run(said_in(store)) == ["a", "b"]
        assert [event.text for event in service.get_events(KEY)] == ["a", "b"]


async def saved_and_discarded(store: ConversationStore) -> None:
    await saved(store, "chat", "a", "b")


def test_something_else_than_a_service_is_refused() -> None:
    """At once, and not at the first call."""
    with pytest.raises(TypeError, match="an adapter takes a SessionService"):
        ConversationStore("redis://", app_name="app", user_id="user")  # type: ignore[arg-type]


def test_it_says_whose_conversations_it_keeps() -> None:
    """Where it is printed."""
    store = ConversationStore(InMemorySessionService(), app_name="app", user_id="user")
    assert re.fullmatch(r"<ConversationStore of .*app.*user.*>", repr(store))
