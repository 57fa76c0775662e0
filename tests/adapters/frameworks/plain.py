"""The service itself, for the conversations that move between frameworks."""

from __future__ import annotations

from typing import Any

from adapters.canonical import Said, said_in
from agentsession import SessionKey, SessionService
from agentsession.messages import openai_chat


async def write(service: SessionService, key: SessionKey, messages: list[dict[str, Any]]) -> None:
    """Append an event for each message."""
    await service.get_or_create_session(key, num_recent_events=0)
    for event in openai_chat.from_messages(messages):
        await service.append_event(key, event)


async def read(service: SessionService, key: SessionKey) -> list[Said]:
    """Read the log, as the messages of the format that it was recorded in."""
    session = await service.get_session(key)
    assert session is not None
    messages: list[Any] = [*openai_chat.to_messages(session.events)]
    return said_in(messages)
