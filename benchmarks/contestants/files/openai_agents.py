"""openai-agents: ``SQLiteSession`` and ``AsyncSQLiteSession``, one object for each session."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from agents.extensions.memory import AsyncSQLiteSession
from agents.memory import SQLiteSession

from benchmarks.cases import Setup
from benchmarks.contestants.files.base import OnFile
from benchmarks.driver import LAST, main
from benchmarks.messages import Message, words

_BATCH = 1000


class OpenAIAgents(OnFile):
    """What both share."""

    without = {"list": "has no list of sessions"}  # noqa: RUF012 - a constant
    # How often each session is read before a round, so that its connections are open then.
    reads = 1

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.sessions: dict[str, Any] = {}

    @abstractmethod
    def opened(self, session: str) -> Any:
        """Make the object of a session."""

    async def seed(self, sessions: Sequence[str]) -> None:
        message = words(self.setup.size)
        for session in sessions:
            self.sessions[session] = self.opened(session)
            for begin in range(0, self.setup.history, _BATCH):
                count = min(_BATCH, self.setup.history - begin)
                await self.append(session, (message,) * count)
        async with asyncio.TaskGroup() as tasks:
            for session in list(sessions) * self.reads:
                tasks.create_task(self.get_last(session))

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        items = [{"role": "user", "content": message.text} for message in messages]
        await self.sessions[session].add_items(items)

    async def get_last(self, session: str) -> int:
        return len(await self.sessions[session].get_items(LAST))


class Threads(OpenAIAgents):
    """``SQLiteSession``: each session has a connection for each thread of asyncio's pool."""

    reads = 12

    def opened(self, session: str) -> Any:
        return SQLiteSession(session, self.file)

    async def pragma(self, name: str) -> Any:
        (session, *_) = self.sessions.values()
        (found,) = session._get_connection().execute(f"PRAGMA {name}").fetchone()  # noqa: SLF001
        return found

    async def aclose(self) -> None:
        for session in self.sessions.values():
            session.close()
        self.sessions.clear()


class Async(OpenAIAgents):
    """``AsyncSQLiteSession``: each session has a connection, and a thread."""

    def opened(self, session: str) -> Any:
        return AsyncSQLiteSession(session, self.file)

    async def pragma(self, name: str) -> Any:
        (session, *_) = self.sessions.values()
        connection = await session._get_connection()  # noqa: SLF001 - the one that it writes with
        async with connection.execute(f"PRAGMA {name}") as cursor:
            (found,) = await cursor.fetchone()
        return found

    async def aclose(self) -> None:
        for session in self.sessions.values():
            await session.close()
        self.sessions.clear()


if __name__ == "__main__":
    main({"SQLiteSession": Threads, "AsyncSQLiteSession": Async})
