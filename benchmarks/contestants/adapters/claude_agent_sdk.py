"""claude-agent-sdk: ``SessionStore`` beside ``InMemorySessionStore``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from claude_agent_sdk import InMemorySessionStore

from agentsession import Event, Session, SessionKey
from agentsession.adapters import claude_agent_sdk
from benchmarks.cases import Setup
from benchmarks.contestants.adapters import base
from benchmarks.contestants.adapters.base import Adapter, Store, serve
from benchmarks.driver import APP
from benchmarks.messages import Message

_PROJECT = "-home-ada-shop"


class Transcripts(Store):
    """A session store."""

    transcripts: Any

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        entries = [_entry(message, session) for message in messages]
        await self.transcripts.append(_key(session), entries)

    async def read(self, session: str) -> int:
        return len(await self.transcripts.load(_key(session)))


class Ours(Adapter, Transcripts):
    """``SessionStore`` of this project."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.transcripts = claude_agent_sdk.SessionStore(self.service, app_name=APP)

    def key(self, session: str) -> SessionKey:
        return SessionKey(APP, _PROJECT, session)

    async def create(self, session: str) -> None:
        await self.service.create_session(self.key(session))

    def to_events(self, message: Message) -> object:
        entry = _entry(message, "session")
        return claude_agent_sdk._event(entry, entry["uuid"])  # noqa: SLF001

    def from_events(self, stored: Sequence[Event]) -> object:
        now = datetime.now(UTC)
        session = Session(
            key=self.key("session"),
            incarnation="",
            revision=1,
            created_at=now,
            updated_at=now,
            events=list(stored),
        )
        return claude_agent_sdk._entries(session)  # noqa: SLF001


class InMemory(base.InMemory, Transcripts):
    """``InMemorySessionStore``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.transcripts = InMemorySessionStore()


def _key(session: str) -> Any:
    return {"project_key": _PROJECT, "session_id": session}


def _entry(message: Message, session: str) -> Any:
    return {
        "type": "user",
        "uuid": str(uuid4()),
        "parentUuid": None,
        "sessionId": session,
        "timestamp": "2026-01-02T03:04:05.678Z",
        "message": {"role": "user", "content": message.text},
    }


if __name__ == "__main__":
    serve(Ours, {"InMemorySessionStore": InMemory})
