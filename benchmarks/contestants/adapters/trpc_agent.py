"""trpc-agent-py: ``SessionService`` beside ``RedisSessionService``.

Each appends to a session object that the caller holds. The framework's own is asynchronous and
decoding, which are not its defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trpc_agent_sdk import types
from trpc_agent_sdk.events import Event
from trpc_agent_sdk.sessions import RedisSessionService

import agentsession
from agentsession.adapters._items.gemini import Restorer, to_event
from agentsession.adapters.trpc_agent import SessionService
from benchmarks.cases import Setup
from benchmarks.contestants.adapters.base import Adapter, Store, serve
from benchmarks.driver import APP, USER
from benchmarks.messages import Message

# It cannot be given a pool that waits, so there are enough connections for all callers.
_CONNECTIONS = 300


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
        return to_event(_event(message), "trpc_agent")

    def from_events(self, stored: Sequence[agentsession.Event]) -> object:
        return Restorer("trpc_agent", Event, "").events(stored)


class OnRedis(Sessions):
    """``RedisSessionService``, which writes the whole session for each event."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.sessions = RedisSessionService(
            url, is_async=True, decode_responses=True, max_connections=_CONNECTIONS
        )

    async def aclose(self) -> None:
        await self.sessions.close()


def _event(message: Message) -> Event:
    content = types.Content(role="user", parts=[types.Part(text=message.text)])
    return Event(author=message.author, invocation_id="turn", content=content)


if __name__ == "__main__":
    serve(Ours, {"RedisSessionService": OnRedis})
