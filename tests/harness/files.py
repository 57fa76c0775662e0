"""The SQLite backend as the conformance checks want it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from agentsession.backend import Backend
from agentsession.retention import Retention
from agentsession.sqlite import SQLiteBackend
from agentsession.testing import ManualClock, Subject


async def told(subject: Subject) -> None:
    """Wait until whoever follows is told of all writes, which begins a moment later in a file.

    Until then a follower finds out by itself.
    """
    if isinstance(subject, SQLiteSubject):
        await followed(subject.path)


async def followed(path: Path) -> None:
    """Wait until a process has asked in a file to be told of what others write."""
    with closing(sqlite3.connect(path)) as connection:
        async with asyncio.timeout(30):
            while not connection.execute("SELECT count(*) FROM followers").fetchone()[0]:
                await asyncio.sleep(0.002)


class SQLiteSubject(Subject):
    """A file of its own, under a manual clock."""

    def __init__(self) -> None:
        super().__init__()
        self.clock: ManualClock = ManualClock()
        self._folder = TemporaryDirectory(prefix="agentsession-")
        self.path = Path(self._folder.name, "sessions.db")
        self._opened: list[SQLiteBackend] = []

    def open(self, retention: Retention) -> Backend:
        backend = SQLiteBackend(retention, self.path, clock=self.clock)
        self._opened.append(backend)
        return backend

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def set_clock_back(self, seconds: float) -> None:
        self.clock.advance(-seconds)

    async def unexpiring(self) -> list[str]:
        return await self._opened[0].unexpiring() if self._opened else []

    async def __aexit__(self, *exc_info: object) -> None:
        await super().__aexit__(*exc_info)
        for backend in self._opened:
            await backend.aclose()
        self._folder.cleanup()
