"""The mistakes of a newcomer about the file: what each says, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from agentsession import Event, SessionKey, SQLiteSessionService
from agentsession.errors import (
    BackendUnavailableError,
    ClosedError,
    CodecError,
    EventLoopError,
)

KEY = SessionKey("shop", "ann", "s1")


class WrongFile(NamedTuple):
    """A path that does not lead to sessions; made in a folder that is empty."""

    what: str
    make: Callable[[Path], Path]
    error: type[Exception]
    says: str


def missing_folder(folder: Path) -> Path:
    return folder / "data" / "sessions.db"


def file_for_a_folder(folder: Path) -> Path:
    (folder / "data").write_text("It is a file.")
    return folder / "data" / "sessions.db"


def another_programs(folder: Path) -> Path:
    connection = sqlite3.connect(folder / "shop.db")
    connection.execute("CREATE TABLE orders (number INTEGER)")
    connection.close()
    return folder / "shop.db"


def no_database(folder: Path) -> Path:
    (folder / "notes.txt").write_text("Buy milk. " * 100)
    return folder / "notes.txt"


FILES = [
    WrongFile(
        "a folder that is not there",
        missing_folder,
        BackendUnavailableError,
        "nothing was written: check that the folder is there",
    ),
    WrongFile(
        "a file where the folder is to be",
        file_for_a_folder,
        BackendUnavailableError,
        "nothing was written: check that the folder is there",
    ),
    WrongFile(
        "another program's database",
        another_programs,
        CodecError,
        "it is a database of another program; choose another path",
    ),
    WrongFile(
        "a file of another kind",
        no_database,
        CodecError,
        "it is no database of SQLite, or was damaged. Restore a copy, or move it away",
    ),
]


def contents(folder: Path) -> dict[Path, bytes]:
    """Return what is in a folder."""
    return {each: each.read_bytes() if each.is_file() else b"" for each in folder.rglob("*")}


@pytest.mark.parametrize("wrong", FILES, ids=lambda wrong: wrong.what)
async def test_a_wrong_file_says_what_to_do(wrong: WrongFile, tmp_path: Path) -> None:
    """Also to who only reads; it names the file, makes nothing beside it, and leaves it alone."""
    path = wrong.make(tmp_path)
    before = contents(tmp_path)
    async with SQLiteSessionService(path) as service:
        for call in (service.get_or_create_session(KEY), service.get_session(KEY)):
            with pytest.raises(wrong.error) as raised:
                await call
            assert type(raised.value) is wrong.error
            assert f"{path}: " in str(raised.value)
            assert wrong.says in str(raised.value)
    assert contents(tmp_path) == before


def test_a_second_loop_needs_a_service_of_its_own(tmp_path: Path) -> None:
    """The message says so; what the first one wrote is there for the second."""
    service = SQLiteSessionService(tmp_path / "sessions.db")
    asyncio.run(_create(service))
    with pytest.raises(EventLoopError, match="make one service for each loop"):
        asyncio.run(_append(service))

    async def anew() -> int:
        async with SQLiteSessionService(tmp_path / "sessions.db") as second:
            return (await second.append_event(KEY, Event(author="user"))).seq

    assert asyncio.run(anew()) == 1


async def _create(service: SQLiteSessionService) -> None:
    await service.create_session(KEY)


async def _append(service: SQLiteSessionService) -> None:
    await service.append_event(KEY, Event(author="user"))


async def test_a_closed_service_says_so(tmp_path: Path) -> None:
    """And that a new one is to be made, which finds all that was written."""
    service = SQLiteSessionService(tmp_path / "sessions.db")
    await service.create_session(KEY)
    await service.aclose()
    with pytest.raises(ClosedError, match="the session service is closed; make a new one"):
        await service.get_session(KEY)
    async with SQLiteSessionService(tmp_path / "sessions.db") as service:
        assert await service.get_session(KEY) is not None


async def test_a_call_without_await_writes_nothing(tmp_path: Path) -> None:
    """Python warns of it by itself."""
    async with SQLiteSessionService(tmp_path / "sessions.db") as service:
        await service.create_session(KEY)
        with pytest.warns(RuntimeWarning, match="'.*append_event' was never awaited"):
            service.append_event(KEY, Event(author="user"))  # type: ignore[unused-coroutine]
        assert await service.get_events(KEY) == []
