"""openai-agents: ``AgentSession`` beside ``RedisSession`` and ``SQLiteSession``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from agents.extensions.memory import RedisSession
from agents.memory import SQLiteSession
from redis.asyncio import BlockingConnectionPool, Redis

from agentsession import Event
from agentsession.adapters._items.openai import events_of, items_of
from agentsession.adapters.openai_agents import AgentSession
from benchmarks.cases import Setup
from benchmarks.contestants.adapters.base import Adapter, OnFile, Store, serve
from benchmarks.messages import Message

# redis-py's default pool raises an error when its 100 connections are in use; this one waits.
_CONNECTIONS = 64


class Sessions(Store):
    """One object for each session."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.sessions: dict[str, Any] = {}

    @abstractmethod
    def opened(self, session: str) -> Any:
        """Make the object of a session."""

    async def create(self, session: str) -> None:
        self.sessions[session] = self.opened(session)

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        await self.sessions[session].add_items([_item(message) for message in messages])

    async def read(self, session: str) -> int:
        return len(await self.sessions[session].get_items())


class Ours(Adapter, Sessions):
    """``AgentSession``."""

    def opened(self, session: str) -> Any:
        return AgentSession(self.service, self.key(session))

    def to_events(self, message: Message) -> object:
        return events_of([_item(message)], "assistant")

    def from_events(self, stored: Sequence[Event]) -> object:
        return [item for event in stored for item in items_of(event)]


class OnRedis(Sessions):
    """``RedisSession``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        pool = BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS, timeout=None)
        self._client = Redis.from_pool(pool)

    def opened(self, session: str) -> Any:
        return RedisSession(session, redis_client=self._client)

    async def aclose(self) -> None:
        await self._client.aclose()


class OnSQLite(OnFile, Sessions):
    """``SQLiteSession``, all sessions in one file."""

    def opened(self, session: str) -> Any:
        return SQLiteSession(session, self.file)

    async def aclose(self) -> None:
        for session in self.sessions.values():
            session.close()
        await super().aclose()


def _item(message: Message) -> Any:
    return {"role": message.author, "content": message.text}


if __name__ == "__main__":
    serve(Ours, {"RedisSession": OnRedis, "SQLiteSession": OnSQLite})
