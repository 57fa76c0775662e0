"""A path that leads to no file of ours, or to one that may not be written: typed errors."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentsession import Event, SessionKey, SessionService
from agentsession.errors import BackendUnavailableError, CodecError
from agentsession.sqlite import SQLiteSessionService
from sqlite.programs.processes import acted
from sqlite.test_full_disks import DONE, mounting

KEY = SessionKey("app", "user", "session")


async def fill(path: Path, events: int = 50) -> None:
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        await service.append_events(
            KEY, [Event(author="a", content="x" * 2000) for _ in range(events)]
        )


def execute(path: Path, *statements: str) -> None:
    """Do what another program does to a file."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


async def refused(
    service: SessionService, error: type[BackendUnavailableError | CodecError], match: str
) -> None:
    """Check that whoever reads and whoever writes is told so, again and again."""
    for _ in range(2):
        with pytest.raises(error, match=match):
            await service.get_session(KEY)
        with pytest.raises(error, match=match):
            await service.append_event(KEY, Event(author="a"))


# -- what cannot be written to


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Let nobody change a file or a folder, not even root; skip where that cannot be had."""
    if subprocess.run(["chattr", "+i", path]).returncode:
        pytest.skip("files cannot be made immutable here")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


@pytest.mark.parametrize("how", ["bound", "immutable", "nobody"])
async def test_a_disk_that_may_only_be_read(how: str, tmp_path: Path) -> None:
    """Neither a file that is there can be used, nor one be made."""
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    await fill(folder / "sessions.db")
    if how == "bound":
        mount = f"mount --bind {folder} {folder}; mount -o remount,ro,bind {folder}"
        assert acted("limited", "read_only", folder, before=mounting(mount)) == DONE
    elif how == "nobody":
        # The programs of the test have to be readable for everybody; so must the folder be.
        for each in (tmp_path, *list(tmp_path.parents)[:2]):
            each.chmod(0o755)
        assert acted("limited", "as_nobody", folder) == DONE
    else:
        with immutable(folder), immutable(folder / "sessions.db"):
            async with SQLiteSessionService(folder / "sessions.db") as service:
                await refused(service, BackendUnavailableError, "sessions.db.*nothing was written")
    async with SQLiteSessionService(folder / "sessions.db") as service:
        assert (await service.append_event(KEY, Event(author="a"))).seq == 51


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """It is not made; once it is there the same service works."""
    path = tmp_path / "missing" / "sessions.db"
    async with SQLiteSessionService(path) as service:
        await refused(service, BackendUnavailableError, "check that the folder is there")
        assert not path.parent.exists()
        path.parent.mkdir()
        await service.create_session(KEY)


async def test_a_path_that_becomes_a_folder(tmp_path: Path) -> None:
    """It is refused at once if it is one already, and when it is used if it becomes one."""
    path = tmp_path / "sessions.db"
    async with SQLiteSessionService(path) as service:
        path.mkdir()
        await refused(service, BackendUnavailableError, "cannot be opened")
        with pytest.raises(ValueError, match="must name a file"):
            SQLiteSessionService(path)


# -- what is not ours


def _text(path: Path) -> None:
    path.write_text("Dear diary,\n" * 1000)


def _noise(path: Path) -> None:
    path.write_bytes(random.Random(7).randbytes(20_000))


def _start(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


def _table(path: Path) -> None:
    execute(path, "CREATE TABLE theirs (x)", "INSERT INTO theirs VALUES (1)")


def _named(path: Path) -> None:
    execute(path, "PRAGMA application_id = 7")


def _newer(path: Path) -> None:
    execute(path, "PRAGMA user_version = 2", "PRAGMA application_id = 0x61677365")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (_text, "no database of SQLite"),
        (_noise, "no database of SQLite"),
        (_start, "no database of SQLite"),
        (_table, "another program"),
        (_named, "another program"),
        (_newer, "version 2.*use a newer agentsession"),
    ],
)
async def test_what_is_not_ours_is_refused_and_left_alone(
    make: Callable[[Path], None], match: str, tmp_path: Path
) -> None:
    """Not one byte of it changes."""
    path = tmp_path / "sessions.db"
    make(path)
    before = path.read_bytes()
    async with SQLiteSessionService(path) as service:
        await refused(service, CodecError, match)
    assert path.read_bytes() == before
    assert {*os.listdir(tmp_path)} <= {path.name, f"{path.name}-gate"}


@pytest.mark.parametrize("how", ["newer", "another"])
async def test_a_file_that_becomes_newer_while_it_is_open(how: str, tmp_path: Path) -> None:
    """Neither reads nor writes mistake it for one of theirs; when it is back they go on."""
    path = tmp_path / "sessions.db"
    await fill(path)
    async with SQLiteSessionService(path) as service, SQLiteSessionService(path) as reader:
        assert await service.get_session(KEY)
        assert await reader.get_session(KEY)
        if how == "newer":
            execute(path, "PRAGMA user_version = 2")
            match = "version 2"
        else:
            execute(path, "PRAGMA application_id = 7")
            match = "another program"
        await refused(service, CodecError, match)
        with pytest.raises(CodecError, match=match):
            await reader.get_events(KEY)
        execute(path, "PRAGMA user_version = 1", "PRAGMA application_id = 0x61677365")
        assert (await service.append_event(KEY, Event(author="a"))).seq == 51
        assert len(await reader.get_events(KEY)) == 51


# -- what was damaged


@pytest.mark.parametrize("size", [50, 100, 4096, 20_000, 60_000])
async def test_a_file_that_was_cut_short(size: int, tmp_path: Path) -> None:
    """It is refused as damaged, by whoever comes upon that, and a copy of it may take its place."""
    path = tmp_path / "sessions.db"
    await fill(path)
    whole = shutil.copyfile(path, tmp_path / "copy.db")
    with path.open("r+b") as file:
        file.truncate(size)
    async with SQLiteSessionService(path) as service:
        with pytest.raises(CodecError, match=r"sessions.db: .*damaged. Restore a copy"):
            await service.get_session(KEY)
        with pytest.raises(CodecError, match="damaged"):
            await service.append_event(KEY, Event(author="a"))
        shutil.copyfile(whole, path)
        assert (await service.append_event(KEY, Event(author="a"))).seq == 51
        found = await service.get_session(KEY)
        assert found is not None
        assert len(found.events) == 51


async def test_a_file_that_is_cut_short_while_it_is_open(tmp_path: Path) -> None:
    """Whatever is told of it is a typed error; put right in place, the same service works."""
    path = tmp_path / "sessions.db"
    await fill(path)
    async with SQLiteSessionService(path) as service:
        assert await service.get_session(KEY)
        whole = path.read_bytes()
        with path.open("r+b") as file:
            file.truncate(8192)
        with pytest.raises(CodecError, match="damaged"):
            await service.get_session(KEY)
        path.write_bytes(whole)
        found = await service.get_session(KEY)
        assert found is not None
        assert len(found.events) == 50
