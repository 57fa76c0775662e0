"""What one process writes to a file, as another one learns of it."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from agentsession import Event, SessionKey, SQLiteSessionService

KEY = SessionKey("app", "user", "session")
FOLLOWER = Path(__file__).parent / "programs" / "follower.py"
SOON = 30.0


@asynccontextmanager
async def follower(path: Path) -> AsyncIterator[Process]:
    """Run a process that follows the session, from when it does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(FOLLOWER), str(path), stdout=PIPE
    )
    try:
        assert await line(process) == "follows"
        yield process
    finally:
        process.kill()
        await process.wait()


async def line(process: Process) -> str:
    """Return the next line that it prints."""
    assert process.stdout is not None
    async with asyncio.timeout(SOON):
        return (await process.stdout.readline()).decode().rstrip("\n")


def say(words: str) -> Event:
    return Event(author="user", content=words)


def followers(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM followers").fetchone()
    return int(count)


async def follows(path: Path) -> None:
    """Wait until a process has asked to be told."""
    async with asyncio.timeout(SOON):
        while not followers(path):
            await asyncio.sleep(0.005)


async def test_a_session_is_followed_from_another_process(tmp_path: Path) -> None:
    """Its events in order and once, chunks as they come, what a rewind does, and its end."""
    path = tmp_path / "s.db"
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        await service.append_event(KEY, say("before"))
        async with follower(path) as process:
            assert await line(process) == "1 before"
            await follows(path)
            for number in range(50):
                await service.append_event(KEY, say(f"{number}"))
            assert [await line(process) for _ in range(50)] == [f"{n + 2} {n}" for n in range(50)]
            chunk = Event(author="agent", content="a chunk", partial=True, stream_id="s")
            await service.append_event(KEY, chunk)
            assert await line(process) == "0 a chunk"
            await service.append_event(KEY, say("x" * 20_000))
            assert await line(process) == f"52 {'x' * 20_000}"
            await service.rewind(KEY, to_seq=1)
            assert await line(process) == "Rewound"
            await service.delete_session(KEY)
            assert await line(process) == "Ended"


async def test_nothing_is_told_where_nobody_follows(tmp_path: Path) -> None:
    """No row is written for followers, until there are some, and of another process."""
    path = tmp_path / "s.db"

    def news() -> int:
        with closing(sqlite3.connect(path)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM news").fetchone()
        return int(count)

    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        async with service.subscribe(KEY) as items:
            stored = await service.append_event(KEY, say("here"))
            assert await anext(items) == stored
            await follows(path)
            await service.append_event(KEY, say("still here"))
            assert news() == 0
            async with follower(path) as process:
                assert [await line(process) for _ in range(2)] == ["1 here", "2 still here"]
                async with asyncio.timeout(SOON):
                    while followers(path) < 2:
                        await asyncio.sleep(0.005)
                await service.append_event(KEY, say("there"))
                assert await line(process) == "3 there"
                assert news() > 0


async def test_a_lease_is_waited_for_in_another_process(tmp_path: Path) -> None:
    """Whoever waits has it soon after it was given back, and no sooner."""
    path = tmp_path / "s.db"
    async with SQLiteSessionService(path) as one, SQLiteSessionService(path) as other:
        await one.create_session(KEY)
        first, second = one.lease(KEY, ttl=600), other.lease(KEY, ttl=600)
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        async with asyncio.timeout(SOON):
            while not followers(path):
                await asyncio.sleep(0.005)
        assert not waiting.done()
        await first.release()
        async with asyncio.timeout(5):
            await waiting
        await second.release()
