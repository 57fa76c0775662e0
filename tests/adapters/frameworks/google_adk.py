"""Google ADK, for the conversations that move between frameworks."""

from __future__ import annotations

from typing import Any

from google.adk.events import Event

from adapters.canonical import Said
from adapters.frameworks import gemini_events
from adapters.frameworks.gemini_events import marks, told
from agentsession import SessionKey
from agentsession.adapters._sessions.logs import Service
from agentsession.adapters.google_adk import SessionService

__all__ = ["OBJECTS", "marks", "objects", "read", "store", "told", "write"]

OBJECTS = gemini_events.own_objects(Event)


async def write(service: Service, key: SessionKey, messages: list[dict[str, Any]]) -> None:
    """Store messages as the framework's runner does, each as the event that it makes of one."""
    await gemini_events.write(SessionService(service), Event, key, messages)


async def store(service: Service, key: SessionKey, event: Any) -> None:
    """Store an event as it is."""
    await gemini_events.store(SessionService(service), key, event)


async def objects(service: Service, key: SessionKey) -> list[Any]:
    """Read what a runner would show its model."""
    return await gemini_events.objects(SessionService(service), key)


async def read(service: Service, key: SessionKey) -> list[Said]:
    """Read what a runner would show its model."""
    return await gemini_events.read(SessionService(service), key)
