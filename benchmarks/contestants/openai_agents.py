"""openai-agents: ``RedisSession``, one object for each session over one client.

It keeps items, without users, lists of sessions or state.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agents.extensions.memory import RedisSession
from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.cases import Case, Setup
from benchmarks.driver import LAST, Contestant, NotMeasuredError, main
from benchmarks.messages import Message, words

# redis-py's default pool raises an error when its 100 connections are in use; this one waits.
_CONNECTIONS = 64


class OpenAIAgents(Contestant):
    """``RedisSession``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        pool = BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS, timeout=None)
        self._client = Redis.from_pool(pool)
        self._sessions: dict[str, RedisSession] = {}

    @classmethod
    def check(cls, case: Case) -> None:
        super().check(case)
        if case.operation == "list":
            msg = "has no list of sessions"
            raise NotMeasuredError(msg)

    async def seed(self, sessions: Sequence[str]) -> None:
        message = words(self.setup.size)
        batch = max(1, min(1000, 1_000_000 // self.setup.size))
        for session in sessions:
            await self.create(session)
            for begin in range(0, self.setup.history, batch):
                count = min(batch, self.setup.history - begin)
                await self.append(session, (message,) * count)

    async def create(self, session: str) -> None:
        self._sessions[session] = RedisSession(session, redis_client=self._client)

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        await self._sessions[session].add_items([_item(message) for message in messages])

    async def get_last(self, session: str) -> int:
        return len(await self._sessions[session].get_items(LAST))

    async def aclose(self) -> None:
        await self._client.aclose()


def _item(message: Message) -> Any:
    if message.kind == "call":
        return {
            "type": "function_call",
            "call_id": message.call_id,
            "name": message.name,
            "arguments": json.dumps(message.arguments),
        }
    if message.kind == "result":
        return {
            "type": "function_call_output",
            "call_id": message.call_id,
            "output": message.text,
        }
    return {"role": "user" if message.author == "user" else "assistant", "content": message.text}


if __name__ == "__main__":
    main({"server": OpenAIAgents})
