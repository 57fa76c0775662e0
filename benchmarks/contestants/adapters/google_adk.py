"""google-adk: ``SessionService`` beside ``DatabaseSessionService`` on SQLite.

Each appends to a session object that the caller holds, as its runner does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.adk.events import Event
from google.adk.sessions import InMemorySessionService
from google.genai import types

import agentsession
from agentsession.adapters._items.gemini import Restorer, to_event
from agentsession.adapters.google_adk import SessionService
from benchmarks.cases import Setup
from benchmarks.contestants.adapters import base
from benchmarks.contestants.adapters.base import Adapter, OnFile, Store, serve
from benchmarks.driver import APP, USER
from benchmarks.messages import Message


class Sessions(Store):
    """A session service."""

    sessions: Any

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._held: dict[str, Any] = {}

    async def create(self, session: str) -> None:
        self._held[session] = await self.sessions.create_session(
            app_name=APP, user_id=USER, session_id=session
        )

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        for message in messages:
            await self.sessions.append_event(self._held[session], _event(message))

    async def read(self, session: str) -> int:
        found = await self.sessions.get_session(app_name=APP, user_id=USER, session_id=session)
        return len(found.events)


class Ours(Adapter, Sessions):
    """``SessionService`` of this project."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.sessions = SessionService(self.service)

    def to_events(self, message: Message) -> object:
        return to_event(_event(message), "google_adk")

    def from_events(self, stored: Sequence[agentsession.Event]) -> object:
        return Restorer("google_adk", Event, "").events(stored)


class OnSQLite(OnFile, Sessions):
    """``DatabaseSessionService``."""

    def __init__(self, setup: Setup, url: str) -> None:
        from google.adk.sessions import DatabaseSessionService  # noqa: PLC0415 - only it needs this

        super().__init__(setup, url)
        self.sessions = DatabaseSessionService(f"sqlite+aiosqlite:///{self.file}")

    async def aclose(self) -> None:
        await self.sessions.close()
        await super().aclose()


class InMemory(base.InMemory, Sessions):
    """``InMemorySessionService``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.sessions = InMemorySessionService()


def _event(message: Message) -> Event:
    content = types.Content(role="user", parts=[types.Part(text=message.text)])
    return Event(author=message.author, invocation_id="turn", content=content)


if __name__ == "__main__":
    serve(Ours, {"DatabaseSessionService": OnSQLite, "InMemorySessionService": InMemory})
