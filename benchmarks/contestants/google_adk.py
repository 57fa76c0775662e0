"""google-adk: ``RedisSessionService`` and ``InMemorySessionService``.

Both append to a session object that the caller holds, as its runner does; the callers of a session
share one. Neither pages: a page is the list of all, cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from google.adk.events import Event
from google.adk.integrations.redis import RedisSessionService, RedisSessionServiceConfig
from google.adk.sessions import BaseSessionService, InMemorySessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types
from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.cases import Case, Setup
from benchmarks.driver import APP, LAST, PAGE, USER, Contestant, NotMeasuredError, main
from benchmarks.messages import Message, words

_CONNECTIONS = 64
_LONGEST = 10_000


class GoogleADK(Contestant):
    """What both services share."""

    service: BaseSessionService

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._sessions: dict[str, Session] = {}

    @classmethod
    def check(cls, case: Case) -> None:
        super().check(case)
        if case.batch > 1:
            msg = "appends one event at a time"
            raise NotMeasuredError(msg)

    async def create(self, session: str) -> None:
        self._sessions[session] = await self.service.create_session(
            app_name=APP, user_id=USER, session_id=session
        )

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        held = self._sessions[session]
        for message in messages:
            await self.service.append_event(held, _event(message))

    async def get_last(self, session: str) -> int:
        found = await self._load(session, LAST)
        return len(found.events)

    async def _load(self, session: str, number: int) -> Session:
        found = await self.service.get_session(
            app_name=APP,
            user_id=USER,
            session_id=session,
            config=GetSessionConfig(num_recent_events=number),
        )
        assert found is not None
        return found

    async def list_page(self) -> int:
        found = await self.service.list_sessions(app_name=APP, user_id=USER)
        return len(found.sessions[-PAGE:])

    async def turn(self, session: str, messages: Sequence[Message]) -> None:
        # Its runner appends to the session that it has loaded.
        self._sessions[session] = await self._load(session, LAST)
        for message in messages:
            await self.append(session, (message,))


class OnServer(GoogleADK):
    """``RedisSessionService``, which writes the whole session for each event."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        pool = BlockingConnectionPool.from_url(
            url, decode_responses=True, max_connections=_CONNECTIONS, timeout=None
        )
        self._client = Redis.from_pool(pool)
        self._config = RedisSessionServiceConfig()
        self.service = RedisSessionService(self._config, redis_client=self._client)

    @classmethod
    def check(cls, case: Case) -> None:
        super().check(case)
        if case.setup.history > _LONGEST:
            msg = "would move over 150 MB for each operation"
            raise NotMeasuredError(msg)

    async def seed(self, sessions: Sequence[str]) -> None:
        # Event by event it would write each session's history times over; what it would have
        # written in the end is written at once.
        model = await self.service.create_session(app_name=APP, user_id=USER)
        await self.service.delete_session(app_name=APP, user_id=USER, session_id=model.id)
        whole = model.model_copy(update={"events": _history(self.setup)})
        text = whole.model_dump_json()
        for session in sessions:
            name = f"{self._config.key_prefix}{APP}:{USER}:{session}"
            stored = text.replace(model.id, session)
            await self._client.set(name, stored, ex=self._config.ttl_seconds)
            # What an append sends does not depend on how much of it the caller holds.
            self._sessions[session] = model.model_copy(update={"id": session, "events": []})

    async def aclose(self) -> None:
        await self._client.aclose()


class InMemory(GoogleADK):
    """``InMemorySessionService``."""

    on_server = False

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.service = self._memory = InMemorySessionService()

    async def seed(self, sessions: Sequence[str]) -> None:
        for session in sessions:
            await self.create(session)
            # Each append looks through all events before it; what comes out is the same.
            stored = self._memory.sessions[APP][USER][session]
            stored.events.extend(_history(self.setup))
            self._sessions[session] = await self._load(session, 0)

    async def aclose(self) -> None:
        """Nothing to let go of."""


def _history(setup: Setup) -> list[Event]:
    """Make as many events as a session is to have; making each from the start takes ten times."""
    event = _event(words(setup.size))
    return [event.model_copy(update={"id": str(uuid4())}) for _ in range(setup.history)]


def _event(message: Message) -> Event:
    role = "user" if message.author == "user" else "model"
    return Event(
        author=message.author,
        invocation_id="turn",
        content=types.Content(role=role, parts=[_part(message)]),
    )


def _part(message: Message) -> Any:
    if message.kind == "call":
        call = types.FunctionCall(id=message.call_id, name=message.name, args=message.arguments)
        return types.Part(function_call=call)
    if message.kind == "result":
        result = types.FunctionResponse(
            id=message.call_id, name=message.name, response={"result": message.text}
        )
        return types.Part(function_response=result)
    return types.Part(text=message.text)


if __name__ == "__main__":
    main({"server": OnServer, "memory": InMemory})
