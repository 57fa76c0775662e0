"""A run in one file of SQLite's: where it takes place, what befalls it, and what is kept there."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from random import Random
from signal import Signals
from tempfile import TemporaryDirectory
from typing import TypeAlias

from reliability.checker.ledger import Ledger
from reliability.site import TTL

# How long something hangs: from a hiccup to longer than a hasty service waits.
_SHORTEST, _LONGEST = 0.01, 0.4
# Microseconds between the moment of a write in a user's list, which may be ahead, and the clock.
_TOLERANCE = 1_000_000


class FileSite:
    """A file, and the processes that work on it.

    Args:
        path: The file.
    """

    lost_replies = late_arrivals = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = self.aside = f"sqlite:///{path}"
        #: Those that run and may be killed, the oldest first.
        self.processes: list[asyncio.subprocess.Process] = []

    async def begin(self) -> None:
        """Get ready; there is nothing of others in a file."""

    def calm(self) -> None:
        """Let nothing more befall it: each fault has ended by itself."""

    async def left(self) -> list[str]:
        """Tell what should have gone with the last one that had it open."""
        beside = sorted(each.name for each in self.path.parent.iterdir())
        return [f"left over: {name}" for name in beside if name.endswith(("-wal", "-shm"))]


@asynccontextmanager
async def opened_file() -> AsyncIterator[FileSite]:
    """A new one, on a disk."""
    with TemporaryDirectory(prefix="agentsession-") as folder:
        yield FileSite(Path(folder, "sessions.db"))


# -- what befalls it

FileFault: TypeAlias = Callable[[FileSite, Random], Awaitable[None]]


async def _a_while(random: Random) -> None:
    await asyncio.sleep(random.uniform(_SHORTEST, _LONGEST))


async def _one_that_runs(site: FileSite, random: Random) -> asyncio.subprocess.Process:
    """Choose a process; one comes in the place of each that has ended."""
    while True:
        if running := [each for each in site.processes if each.returncode is None]:
            return random.choice(running)
        await asyncio.sleep(0.001)


def _send(process: asyncio.subprocess.Process, number: Signals) -> None:
    """Send a signal to a process that may end just now.

    Its own method would look whether it has ended, and take its exit code from who waits for it.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def kill(site: FileSite, random: Random) -> None:
    """A process is killed, whatever it is in the middle of; another one comes in its place."""
    _send(await _one_that_runs(site, random), Signals.SIGKILL)


async def stop_and_continue(site: FileSite, random: Random) -> None:
    """A process is stopped for a while, perhaps in the middle of a transaction."""
    process = await _one_that_runs(site, random)
    _send(process, Signals.SIGSTOP)
    try:
        await _a_while(random)
    finally:
        _send(process, Signals.SIGCONT)


async def lock(site: FileSite, random: Random) -> None:
    """Another program has the lock for writing for a while."""
    other = sqlite3.connect(site.path, isolation_level=None, timeout=10, check_same_thread=False)
    with closing(other) as connection:
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
        await _a_while(random)
        connection.execute("ROLLBACK")


async def read_long(site: FileSite, random: Random) -> None:
    """Another program reads for a while, so that the log cannot begin anew."""
    with closing(sqlite3.connect(site.path, isolation_level=None, timeout=10)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sessions").fetchone()
        await _a_while(random)


async def checkpoint(site: FileSite, random: Random) -> None:
    """Another program moves the log into the file, and cuts it off."""
    with closing(sqlite3.connect(site.path, isolation_level=None, timeout=0.2)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


FILE_FAULTS: dict[str, FileFault] = {
    fault.__name__: fault for fault in (kill, stop_and_continue, lock, read_long, checkpoint)
}


# -- what is kept


def file_violations(ledger: Ledger, path: Path) -> Iterator[str]:
    """Say everything that is wrong with the rows of the file, once nobody has it open."""
    with closing(sqlite3.connect(path)) as connection:
        for (what,) in connection.execute("PRAGMA integrity_check"):
            if what != "ok":
                yield f"damage: {what}"
        yield from _logs(ledger, connection)
        yield from _lives(connection)
        for table in ("events", "session_state", "state_before", "taken_back"):
            (count,) = connection.execute(
                f"SELECT count(*) FROM {table} WHERE session NOT IN (SELECT number FROM sessions) "
                "AND session NOT IN (SELECT session FROM deleted)"
            ).fetchone()
            if count:
                yield f"left over: {count} rows of no session in {table}"


def _logs(ledger: Ledger, connection: sqlite3.Connection) -> Iterator[str]:
    for key, view in ledger.finals.items():
        if not view:
            continue
        rows = connection.execute(
            "SELECT id FROM events JOIN sessions ON session = number WHERE app_name = ? "
            "AND user_id = ? AND session_id = ? AND seq >= oldest_seq ORDER BY seq",
            (key.app_name, key.user_id, key.session_id),
        )
        if [name for (name,) in rows] != [seen.id for seen in view.events]:
            yield f"disagreement: the file holds other events of {key} than a reader finds"


def _lives(connection: sqlite3.Connection) -> Iterator[str]:
    for table in ("sessions", "users", "apps"):
        (count,) = connection.execute(
            f"SELECT count(*) FROM {table} WHERE expires IS NULL"
        ).fetchone()
        if count:
            yield f"expiry: {count} rows of {table} never expire"
    for name, lives in connection.execute("SELECT session_id, expires - updated FROM sessions"):
        if abs(lives - TTL * 1_000_000) > _TOLERANCE:
            yield f"expiry: {name} lives {lives} microseconds after its last write"
