"""A file that is deleted or replaced under a running service."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from agentsession import Event, SessionKey
from agentsession.errors import (
    AgentSessionError,
    BackendUnavailableError,
    OutcomeUnknownError,
    SessionNotFoundError,
)
from agentsession.sqlite import SQLiteSessionService

KEY = SessionKey("app", "user", "session")
SUFFIXES = ("", "-wal", "-shm")


def stored(path: Path) -> set[str]:
    """Return the ids of all events in a file, as another program sees them."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not connection.execute("SELECT * FROM sqlite_master").fetchall():
            return set()  # It was lost before it had tables.
        return {event_id for (event_id,) in connection.execute("SELECT id FROM events")}
    finally:
        connection.close()


def delete(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink(missing_ok=True)


@pytest.mark.parametrize("left", [(), ("-wal", "-shm"), ("-gate",)])
@pytest.mark.parametrize("first", ["read", "write"])
async def test_a_file_that_was_deleted(first: str, left: tuple[str, ...], tmp_path: Path) -> None:
    """Who reads is told so; the file is made anew, and nobody finds what was in the old one."""
    path = tmp_path / "sessions.db"
    async with SQLiteSessionService(path) as service, SQLiteSessionService(path) as other:
        for each in (service, other):
            await each.get_or_create_session(KEY)
            await each.append_event(KEY, Event(author="a"))
        # Both threads that read have the old file open.
        for _ in range(8):
            async with asyncio.TaskGroup() as group:
                for each in (service, other):
                    for _ in range(20):
                        group.create_task(each.get_session(KEY))
        delete(path, tuple({*SUFFIXES, "-gate"} - {*left}))
        if first == "read":
            with pytest.raises(BackendUnavailableError, match="deleted or replaced"):
                await service.get_session(KEY)
        with pytest.raises(SessionNotFoundError):
            await service.append_event(KEY, Event(author="a"))
        await service.create_session(KEY)
        event = await service.append_event(KEY, Event(author="a"))
        for each in (service, other):
            for _ in range(8):
                async with asyncio.TaskGroup() as group:
                    calls = [group.create_task(each.get_events(KEY)) for _ in range(20)]
                assert all([found.id for found in call.result()] == [event.id] for call in calls)
        assert (await other.append_event(KEY, Event(author="a"))).seq == 2
        assert len(stored(path)) == 2
    assert len(stored(path)) == 2


async def test_a_file_that_was_replaced(tmp_path: Path) -> None:
    """The service goes on with the one that is there now, whatever it remembers of the other."""
    path, backup = tmp_path / "sessions.db", tmp_path / "backup.db"
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        await service.append_event(KEY, Event(id="1", author="a"))
    shutil.copyfile(path, backup)
    async with SQLiteSessionService(path) as service:
        for number in (2, 3):
            await service.append_event(KEY, Event(id=f"{number}", author="a"))
        assert len(await service.get_events(KEY)) == 3
        delete(path)
        backup.rename(path)
        assert [event.id for event in await service.get_events(KEY)] == ["1"]
        assert (await service.append_event(KEY, Event(id="4", author="a"))).seq == 2
        assert [event.id for event in await service.get_events(KEY)] == ["1", "4"]
        assert stored(path) == {"1", "4"}
    assert stored(path) == {"1", "4"}


async def test_files_that_are_replaced_again_and_again(tmp_path: Path) -> None:
    """Each event that was acknowledged is in the file that was there, or in one moved away since.

    None is in a file that nobody can find any more: those that were moved away keep their logs.
    """
    folder = tmp_path / "now"
    folder.mkdir()
    path = folder / "sessions.db"
    ends = threading.Event()

    def move() -> None:
        for number in itertools.count():
            ends.wait(0.02)
            # In one step with what belongs to it.
            folder.rename(tmp_path / f"old-{number}")
            folder.mkdir()
            if ends.is_set():
                return

    acknowledged: set[str] = set()
    problems: set[type[BaseException]] = set()

    async def write(service: SQLiteSessionService, writer: int) -> None:
        for number in range(150):
            event = Event(id=f"{writer}-{number}", author="a")
            try:
                await service.get_or_create_session(KEY)
                await service.append_event(KEY, event)
            except AgentSessionError as error:
                problems.add(type(error))
            else:
                acknowledged.add(event.id)

    mover = threading.Thread(target=move)
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        mover.start()
        async with asyncio.TaskGroup() as group:
            for writer in range(4):
                group.create_task(write(service, writer))
        ends.set()
        await asyncio.to_thread(mover.join)
    found = set[str]()
    for name in os.listdir(tmp_path):
        if (tmp_path / name / "sessions.db").exists():
            found |= stored(tmp_path / name / "sessions.db")
    assert problems <= {OutcomeUnknownError, BackendUnavailableError, SessionNotFoundError}
    assert acknowledged
    assert acknowledged <= found
