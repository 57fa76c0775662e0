"""trpc-agent-py: ``RedisSessionService``, asynchronous and decoding, which are not its defaults.

It writes the whole session for each event, and its list reads every session. The callers of a
session share one session object, since of two objects' appends one would be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis
from trpc_agent_sdk import types
from trpc_agent_sdk.events import Event
from trpc_agent_sdk.sessions import RedisSessionService, Session, SessionServiceConfig

from benchmarks.cases import Case, Setup
from benchmarks.driver import APP, LAST, PAGE, USER, Contestant, NotMeasuredError, main
from benchmarks.messages import Message, words

_LONGEST = 10_000
# It cannot be given a pool that waits, so there are enough connections for all callers.
_CONNECTIONS = 300
# Its default time to live, in seconds.
_LIFE = 86_400


class TrpcAgent(Contestant):
    """``RedisSessionService``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._service = self._opened(SessionServiceConfig())
        # How many events a session is read with is an option of the service.
        self._reading = self._opened(SessionServiceConfig(num_recent_events=LAST))
        self._sessions: dict[str, Session] = {}
        self._client = Redis.from_url(url)

    def _opened(self, config: SessionServiceConfig) -> RedisSessionService:
        return RedisSessionService(
            self.url,
            session_config=config,
            is_async=True,
            decode_responses=True,
            max_connections=_CONNECTIONS,
        )

    @classmethod
    def check(cls, case: Case) -> None:
        super().check(case)
        if case.batch > 1:
            msg = "appends one event at a time"
            raise NotMeasuredError(msg)
        if case.setup.history > _LONGEST:
            msg = "would move over 130 MB for each operation"
            raise NotMeasuredError(msg)

    async def seed(self, sessions: Sequence[str]) -> None:
        # What its appends would have written in the end is written at once.
        model = await self._service.create_session(app_name=APP, user_id=USER)
        await self._service.delete_session(app_name=APP, user_id=USER, session_id=model.id)
        event = _event(words(self.setup.size))
        events = [event.model_copy(update={"id": str(uuid4())}) for _ in range(self.setup.history)]
        text = model.model_copy(update={"events": events}).model_dump_json()
        for session in sessions:
            stored = text.replace(model.id, session)
            await self._client.set(f"session:{APP}:{USER}:{session}", stored, ex=_LIFE)
            self._sessions[session] = model.model_copy(
                update={"id": session, "events": list(events)}
            )

    async def create(self, session: str) -> None:
        self._sessions[session] = await self._service.create_session(
            app_name=APP, user_id=USER, session_id=session
        )

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        held = self._sessions[session]
        for message in messages:
            await self._service.append_event(held, _event(message))

    async def get_last(self, session: str) -> int:
        found = await self._reading.get_session(app_name=APP, user_id=USER, session_id=session)
        return 0 if found is None else len(found.events)

    async def list_page(self) -> int:
        found = await self._service.list_sessions(app_name=APP, user_id=USER)
        return len(found.sessions[-PAGE:])

    async def turn(self, session: str, messages: Sequence[Message]) -> None:
        # What was read with a limit would replace the whole history when appended to, so a turn
        # reads all.
        found = await self._service.get_session(app_name=APP, user_id=USER, session_id=session)
        assert found is not None
        self._sessions[session] = found
        for message in messages:
            await self.append(session, (message,))

    async def aclose(self) -> None:
        await self._service.close()
        await self._reading.close()
        await self._client.aclose()


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
    main({"server": TrpcAgent})
