"""This package in a file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from agentsession import SQLiteSessionService
from agentsession.sqlite._file.opening import File
from benchmarks.cases import SESSIONS, Setup
from benchmarks.contestants.files.base import OnFile
from benchmarks.contestants.ours import Ours
from benchmarks.driver import main


class Full(OnFile, Ours):
    """``SQLiteSessionService``, every write synced."""

    synchronous: Literal["full", "normal"] = "full"
    most_at_once = 100

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.service = self._opened()

    def _opened(self) -> SQLiteSessionService:
        return SQLiteSessionService(
            self.file,
            synchronous=self.synchronous,
            session_event_limit=self.setup.limit or None,
            session_ttl=self.setup.ttl or None,
        )

    async def seed(self, sessions: Sequence[str]) -> None:
        # Many callers, since those that write at the same time share a wait for the disk.
        async with asyncio.TaskGroup() as tasks:
            for number in range(min(SESSIONS, len(sessions))):
                tasks.create_task(super().seed(sessions[number::SESSIONS]))

    async def pragma(self, name: str) -> Any:
        # The writer's own connection is its thread's; this one is opened by the same code.
        connection = File(self.file, self.synchronous.upper()).writer("pragma")
        try:
            (found,) = connection.execute(f"PRAGMA {name}").fetchone()
            return found
        finally:
            connection.close()

    async def reopen(self) -> None:
        self.service = self._opened()


class Normal(Full):
    """The same, synced from time to time."""

    synchronous: Literal["full", "normal"] = "normal"


if __name__ == "__main__":
    main({"full": Full, "normal": Normal})
