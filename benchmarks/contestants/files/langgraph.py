"""langgraph: ``AsyncSqliteSaver``, which keeps checkpoints and no events.

An append is one checkpoint of a thread whose only channel holds one message: the least that a step
of a graph stores. One of a conversation holds the whole list, and is stored again at each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiosqlite
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from benchmarks.cases import Setup
from benchmarks.contestants.files.base import OnFile
from benchmarks.driver import main
from benchmarks.messages import Message

_METADATA: Any = {"source": "loop", "step": 1, "parents": {}}


class Saver(OnFile):
    """``AsyncSqliteSaver``."""

    without = {  # noqa: RUF012 - a constant
        "get": "keeps checkpoints: the last of them holds all there is, or nothing of it",
        "list": "has no list of threads",
    }

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._connection = aiosqlite.connect(self.file)
        self.saver = AsyncSqliteSaver(self._connection)
        self._configs: dict[str, Any] = {}
        self._versions: dict[str, Any] = {}

    async def seed(self, sessions: Sequence[str]) -> None:
        await self.saver.setup()
        for session in sessions:
            self._configs[session] = {"configurable": {"thread_id": session, "checkpoint_ns": ""}}

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        before = self._versions.get(session)
        version = self._versions[session] = self.saver.get_next_version(before, None)
        checkpoint: Any = {
            **empty_checkpoint(),
            "channel_values": {"messages": [HumanMessage(messages[0].text, id="1")]},
            "channel_versions": {"messages": version},
        }
        self._configs[session] = await self.saver.aput(
            self._configs[session], checkpoint, _METADATA, {"messages": version}
        )

    async def get_last(self, session: str) -> int:
        raise NotImplementedError

    async def pragma(self, name: str) -> Any:
        async with self._connection.execute(f"PRAGMA {name}") as cursor:
            (found,) = await cursor.fetchone()
        return found

    async def aclose(self) -> None:
        await self._connection.close()


if __name__ == "__main__":
    main({"AsyncSqliteSaver": Saver})
