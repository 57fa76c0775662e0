"""What has expired, or was deleted, leaves the file, and nobody waits for it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from agentsession import DELETE, Event, SessionKey, SQLiteSessionService, UserKey
from agentsession.observers import Notice, Observer, Swept
from agentsession.subscriptions import Ended
from agentsession.testing import ManualClock

SOON = 30.0
TABLES = (
    *("sessions", "events", "session_state", "state_before", "taken_back", "deleted"),
    *("users", "user_state", "apps", "app_state"),
)


class Notices(Observer):
    def __init__(self) -> None:
        self.told: list[Notice] = []

    def on_notice(self, notice: Notice, /) -> None:
        self.told.append(notice)


def rows(path: Path) -> dict[str, int]:
    """Count the rows of each table that has any."""
    with closing(sqlite3.connect(path)) as connection:
        counted = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in TABLES
        }
    return {table: count for table, count in counted.items() if count}


async def become(path: Path, wanted: dict[str, int]) -> None:
    """Wait until the file holds so much and no more."""
    async with asyncio.timeout(SOON):
        while rows(path) != wanted:
            await asyncio.sleep(0.005)


async def fill(service: SQLiteSessionService, key: SessionKey) -> None:
    """Leave something in every table."""
    await service.create_session(key, {"a": 1, "user:b": 2, "app:c": 3})
    for number in range(5):
        event = Event(author="user", content="x", state_delta={"n": number})
        await service.append_event(key, event)
    await service.rewind(key, to_seq=2)


async def test_the_sweeper_empties_the_file(tmp_path: Path) -> None:
    """Sessions and state of all scopes, once each has expired; followers and observers are told."""
    path, clock, notices = tmp_path / "s.db", ManualClock(), Notices()
    async with SQLiteSessionService(
        path,
        session_ttl=10,
        user_state_ttl=20,
        app_state_ttl=30,
        cleanup_interval=0.01,
        clock=clock,
        observers=[notices],
    ) as service:
        keys = [SessionKey("app", "user", f"s{number}") for number in range(250)]
        for key in keys[1:]:
            await service.create_session(key)
        await fill(service, keys[0])
        async with service.subscribe(keys[0], after_seq=6) as items:
            clock.advance(11)
            async with asyncio.timeout(SOON):
                assert await anext(items) == Ended("expired")
        await become(path, {"users": 1, "user_state": 1, "apps": 1, "app_state": 1})
        swept = [each.sessions for each in notices.told if isinstance(each, Swept)]
        assert sum(swept) == 250
        clock.advance(10)
        await become(path, {"apps": 1, "app_state": 1})
        clock.advance(10)
        await become(path, {})


async def test_what_was_deleted_leaves_bit_by_bit(tmp_path: Path) -> None:
    """Nothing of it is found from the first moment; its rows go when nobody writes."""
    path = tmp_path / "s.db"
    async with SQLiteSessionService(path, session_event_limit=None) as service:
        keys = [SessionKey("app", "user", f"s{number}") for number in range(3)]
        for key in keys:
            await fill(service, key)
        for _ in range(5):
            await service.append_events(
                keys[0], [Event(author="user", content="x") for _ in range(1000)]
            )
        await service.delete_session(keys[0])
        assert await service.get_session(keys[0]) is None
        await fill(service, keys[0])
        found = await service.get_session(keys[0])
        assert found is not None
        assert found.last_seq == 6
        await service.delete_user(UserKey("app", "user"))
        await become(path, {"apps": 1, "app_state": 1})


async def test_what_another_process_left_deleted_is_removed(tmp_path: Path) -> None:
    """By whoever opens the file next, and writes."""
    path = tmp_path / "s.db"
    async with SQLiteSessionService(path) as service:
        await fill(service, SessionKey("app", "user", "s"))
    with closing(sqlite3.connect(path)) as connection, connection:
        # As it stands there when a process dies right after the deletion.
        connection.execute("INSERT INTO deleted SELECT number FROM sessions")
        connection.execute("DELETE FROM sessions")
    async with SQLiteSessionService(path) as service:
        await service.update_app_state("app", {"c": DELETE})
        await become(path, {"users": 1, "user_state": 1})
