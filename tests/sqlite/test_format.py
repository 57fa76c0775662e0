"""The version of a file: it is brought up to date in one step, and a newer one is refused.

There is one version yet. So these tests make up a second, which has a table of notes.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from agentsession import Event, SessionKey, SQLiteSessionService
from agentsession.errors import BackendError, BackendUnavailableError, CodecError
from agentsession.events import UNREADABLE
from agentsession.sqlite import _schema

KEY = SessionKey("app", "user", "session")

NOTES = 200_000
# The second takes a while.
STEPS = (
    "CREATE TABLE notes (note TEXT)",
    f"""
    INSERT INTO notes
    WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {NOTES})
    SELECT printf('%0100d', n) FROM n
    """,
)

# A program of the next version of this library.
NEXT = f"""
import asyncio, sys
from agentsession import SessionKey, SQLiteSessionService
from agentsession.sqlite import _schema

_schema.FORMAT = 2
_schema.MIGRATIONS = {{1: {STEPS!r}}}

async def main():
    async with SQLiteSessionService(sys.argv[1]) as service:
        session = await service.get_session(SessionKey("app", "user", "session"))
        print([event.text for event in session.events])

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def copy_of(path: Path) -> Path:
    return path.with_name("sessions.db.v1")


async def written(path: Path, text: str = "hello") -> None:
    async with SQLiteSessionService(path) as service:
        await service.get_or_create_session(KEY)
        await service.append_event(KEY, Event(author="user", content=text))


async def texts(path: Path) -> list[str]:
    async with SQLiteSessionService(path) as service:
        return [event.text for event in await service.get_events(KEY)]


def version(path: Path) -> int:
    """Look at a file: it is whole, and all of it is of one version, which is returned."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        assert ("notes" in tables) == (found == 2)
        if found == 2:
            assert connection.execute("SELECT count(*) FROM notes").fetchone() == (NOTES,)
        assert isinstance(found, int)
        return found


def become(monkeypatch: pytest.MonkeyPatch, form: int, steps: Mapping[int, Sequence[str]]) -> None:
    """Be another version of this library."""
    monkeypatch.setattr(_schema, "FORMAT", form)
    monkeypatch.setattr(_schema, "MIGRATIONS", steps)


def start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", NEXT, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


async def test_a_file_says_what_it_is(path: Path) -> None:
    """To this library, and to ``file``."""
    await written(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("PRAGMA application_id").fetchone() == (0x61677365,)
    assert path.read_bytes()[68:72] == b"agse"


async def test_an_earlier_version_is_brought_up_to_date(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first call; a copy of what was there before is kept, and opens as it did."""
    await written(path)
    with monkeypatch.context() as patch:
        become(patch, 2, {1: STEPS})
        async with SQLiteSessionService(path) as service:
            assert await service.check() == []  # It is not the check that changes it.
            assert not copy_of(path).exists()
        assert await texts(path) == ["hello"]
        await written(path, "newer")
        assert version(path) == 2
        assert version(copy_of(path)) == 1
        assert not [*path.parent.glob(".*")]
        with pytest.raises(CodecError, match="version 1"):
            become(patch, 2, {})
            await texts(copy_of(path))
    assert await texts(copy_of(path)) == ["hello"]
    with pytest.raises(CodecError, match="its format is version 2"):
        await texts(path)


async def test_several_steps_are_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the version of the file, in their order."""
    await written(path)
    rename = ("ALTER TABLE notes RENAME TO remarks",)
    become(monkeypatch, 4, {1: STEPS, 2: rename, 3: ("INSERT INTO remarks VALUES ('x')",)})
    assert await texts(path) == ["hello"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM remarks").fetchone() == (NOTES + 1,)
        assert connection.execute("PRAGMA user_version").fetchone() == (4,)
    assert [each.name for each in path.parent.glob("*.v*")] == ["sessions.db.v1"]


async def test_without_steps_it_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if some of them are there; nothing is changed."""
    await written(path)
    before = path.read_bytes()
    become(monkeypatch, 3, {1: STEPS})
    with pytest.raises(CodecError, match="use the version of agentsession that wrote it"):
        await texts(path)
    assert path.read_bytes() == before
    assert not copy_of(path).exists()


async def test_a_step_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt begins anew, with a copy of what is there then."""
    await written(path)
    with monkeypatch.context() as patch:
        become(patch, 2, {1: (*STEPS, "INSERT INTO nowhere VALUES (1)")})
        with pytest.raises(BackendError, match="no such table: nowhere"):
            await texts(path)
    assert version(path) == version(copy_of(path)) == 1
    await written(path, "and on")
    with monkeypatch.context() as patch:
        become(patch, 2, {1: STEPS})
        assert await texts(path) == ["hello", "and on"]
    assert version(path) == 2
    assert await texts(copy_of(path)) == ["hello", "and on"]


async def test_without_a_copy_nothing_is_changed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a folder is in its place."""
    await written(path)
    copy_of(path).mkdir()
    become(monkeypatch, 2, {1: STEPS})
    with pytest.raises(BackendUnavailableError, match="nothing was written"):
        await texts(path)
    assert version(path) == 1
    copy_of(path).rmdir()
    assert await texts(path) == ["hello"]


async def test_of_two_processes_one_does_it(path: Path) -> None:
    """The other one waits for it, and finds it done."""
    await written(path)
    processes = [start(path) for _ in range(2)]
    for process in processes:
        printed, errors = process.communicate(timeout=60)
        assert printed == "['hello']\n", errors
    assert version(path) == 2
    assert version(copy_of(path)) == 1


@pytest.mark.parametrize("moment", ["copying", "copied", "changing", "done"])
async def test_a_killed_process_leaves_one_version(path: Path, moment: str) -> None:
    """The old one or the new one, and each of them is whole; the next process goes on."""
    await written(path)
    wal = path.with_name("sessions.db-wal")
    with closing(sqlite3.connect(path)) as connection:
        # So that a copy takes a while as well; they are of no session.
        connection.execute(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000) "
            "INSERT INTO events SELECT 1000, n, n, n, printf('%0200d', n) FROM n"
        )
        connection.commit()

    def has_come() -> bool:
        if moment == "copying":
            return bool([*path.parent.glob(".*.part")])
        if moment == "copied":
            return copy_of(path).exists()
        if moment == "changing":
            return copy_of(path).exists() and wal.exists() and wal.stat().st_size > 5_000_000
        return bool(process.poll() is not None)

    with start(path) as process:
        end = time.monotonic() + 60
        while not has_come() and process.poll() is None:
            assert time.monotonic() < end
        process.kill()
    found = version(path)
    if moment == "done":
        assert found == 2
    if found == 1:
        # The program that it is of goes on with it.
        await written(path, "and on")
    with start(path) as process:
        printed, errors = process.communicate(timeout=60)
    assert printed == ("['hello', 'and on']\n" if found == 1 else "['hello']\n"), errors
    assert version(path) == 2
    assert version(copy_of(path)) == 1


async def test_an_old_process_that_has_it_open_is_told(path: Path) -> None:
    """By its next call, whether that reads or writes; it does not write to what it cannot know."""
    async with SQLiteSessionService(path) as reader, SQLiteSessionService(path) as writer:
        await writer.create_session(KEY)
        await writer.append_event(KEY, Event(author="user", content="hello"))
        assert await reader.get_session(KEY) is not None
        with start(path) as process:
            printed, errors = process.communicate(timeout=60)
        assert printed == "['hello']\n", errors
        for _ in range(2):
            with pytest.raises(CodecError, match=r"version 2.*use a newer agentsession"):
                await reader.get_session(KEY)
            with pytest.raises(CodecError, match=r"version 2.*use a newer agentsession"):
                await writer.append_event(KEY, Event(author="user", content="late"))
        assert [each.code for each in await reader.check()] == ["newer_format"]
    assert version(path) == 2


async def test_an_event_of_a_newer_library_hides_itself_alone(path: Path) -> None:
    """As on every store: the session and its other events are read."""
    await written(path)
    await written(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE events SET event = json_set(event, '$.v', 99, '$.new', 'field') WHERE seq = 1"
        )
        connection.commit()
    async with SQLiteSessionService(path) as service:
        first, second = await service.get_events(KEY)
    assert first.error is not None
    assert first.error.type == UNREADABLE
    assert second.text == "hello"
