"""When a process looks for what others have written, and what it does about what it has missed."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agentsession import Event, SessionKey, SQLiteSessionService, UserKey
from agentsession.sqlite import _watch, _work
from agentsession.subscriptions import Missed, SessionNews
from harness.files import followed

KEY = SessionKey("app", "user", "session")
SOON = 30.0


def say(words: str) -> Event:
    return Event(author="user", content=words)


async def test_nobody_looks_where_nobody_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread ends a while after the last follower, and begins again with the next."""
    monkeypatch.setattr(_watch, "_LINGER", 0.02)
    path = tmp_path / "s.db"
    async with SQLiteSessionService(path) as service, SQLiteSessionService(path) as other:
        await service.create_session(KEY)
        for number in range(1, 4):
            async with other.subscribe(KEY, after_seq=number - 1) as items:
                stored = await service.append_event(KEY, say(f"{number}"))
                async with asyncio.timeout(SOON):
                    assert await anext(items) == stored
            async with asyncio.timeout(SOON):
                while other.backend._watch._thread is not None:  # type: ignore[attr-defined]  # to look on
                    await asyncio.sleep(0.002)


async def test_a_follower_that_is_behind_is_told_so(tmp_path: Path) -> None:
    """Where news were removed before it has looked, or say no more than that it has to look."""
    path, user = tmp_path / "s.db", UserKey("app", "user")
    row = "INSERT INTO news VALUES (?, 'another', 'app', 'user', ?, ?, '', x'', '', 0, 0)"
    async with SQLiteSessionService(path) as service, service.subscribe_user(user) as news:
        await service.create_session(KEY)
        await followed(path)
        with closing(sqlite3.connect(path)) as connection:
            with connection:
                connection.execute(row, (1000, "session", "written"))
            async with asyncio.timeout(SOON):
                while await anext(news) != SessionNews(KEY, "written"):
                    pass
            with connection:
                connection.execute(row, (2000, "session", "look"))
            async with asyncio.timeout(SOON):
                assert await anext(news) == Missed()


async def test_a_file_that_was_replaced_is_looked_at(tmp_path: Path) -> None:
    """Whoever follows a session of the old file learns that it is gone."""
    path, kept = tmp_path / "s.db", tmp_path / "kept.db"
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        await service.backup(kept)
        async with service.subscribe(KEY) as items:
            await followed(path)
            await service.append_event(KEY, say("lost"))
            async with asyncio.timeout(SOON):
                assert (await anext(items)) is not None
            for each in tmp_path.glob("s.db*"):
                each.unlink()
            kept.rename(path)
            async with asyncio.timeout(SOON):
                await anext(items)


async def test_what_is_remembered_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows in memory, and of news in the file, where there are very many."""
    monkeypatch.setattr(_work, "_REMEMBERED", 3)
    monkeypatch.setattr(_work, "_NEWS_KEPT", 5)
    path = tmp_path / "s.db"
    async with SQLiteSessionService(path) as service, SQLiteSessionService(path) as other:
        await service.create_session(KEY)
        async with other.subscribe(KEY) as items:
            await followed(path)
            keys = [SessionKey("app", f"user {number}", "session") for number in range(20)]
            for _ in range(3):
                for key in keys:
                    await service.get_or_create_session(key)
                    await service.append_event(key, say("x"))
            stored = await service.append_event(KEY, say("seen"))
            async with asyncio.timeout(SOON):
                while await anext(items) != stored:
                    pass
        for key in keys:
            assert [event.seq for event in await service.get_events(key)] == [1, 2, 3]
        with closing(sqlite3.connect(path)) as connection:
            (news,) = connection.execute("SELECT count(*) FROM news").fetchone()
        assert 0 < news <= 12
