"""``backup()``: a whole copy of the file, while any process writes to it, or none."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from agentsession import DELETE, Event, SessionKey, SQLiteSessionService, UserKey
from agentsession.blocking import BlockingSessionService
from agentsession.errors import BackendUnavailableError, ClosedError, CodecError
from agentsession.observers import Notice, Observer, Operation
from agentsession.sqlite._upkeep.copying import copy

KEY = SessionKey("app", "user", "session")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store" / "sessions.db"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "copies").mkdir()
    return tmp_path / "copies" / "copy.db"


def message(text: str) -> Event:
    return Event(author="user", content=text)


def enlarge(path: Path, rows: int = 200_000) -> None:
    """Add what takes a while to copy, and belongs to nobody."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?) "
            "INSERT INTO events SELECT 1000 + n / 1000, n, printf('%032d', n), n, "
            "printf('%0200d', n) FROM n",
            (rows,),
        )
        connection.commit()


async def until_begun(target: Path) -> None:
    """Wait until a copy is being made."""
    async with asyncio.timeout(30):
        while not [*target.parent.glob(".*.part")]:
            await asyncio.sleep(0)


async def test_a_copy_opens_as_a_store_with_everything_in_it(path: Path, target: Path) -> None:
    """The logs, what rewinds took back, state of all scopes, and leases."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(
            KEY, {"app:a": 1, "user:u": [2], "s": {"x": "y"}, "b": b"\0\xff"}
        )
        for number in range(5):
            await service.append_event(KEY, message(str(number)))
        await service.rewind(KEY, to_seq=3)
        await service.update_session_state(KEY, {"s": DELETE, "t": "ü"})
        await service.create_session(SessionKey("app", "other", "other"))
        lease = service.lease(KEY, ttl=600)
        await lease.acquire()
        await service.backup(target)
        assert [*target.parent.iterdir()] == [target]
        async with SQLiteSessionService(target) as copy:
            assert await copy.check() == []
            assert await copy.get_session(KEY) == await service.get_session(KEY)
            assert await copy.get_events(KEY, raw=True) == await service.get_events(KEY, raw=True)
            assert await copy.list_users("app") == await service.list_users("app")
            assert await copy.get_user_state(UserKey("app", "user")) == {"u": [2]}
            await copy.append_event(KEY, message("with the lease of another file"), lease=lease)
        await lease.release()


async def test_the_copy_of_a_store_that_was_never_used_is_empty(path: Path, target: Path) -> None:
    """As the first call of any kind does, it makes the file."""
    async with SQLiteSessionService(path) as service:
        await service.backup(str(target))
    async with SQLiteSessionService(target) as copy:
        assert await copy.get_session(KEY) is None


WRITER = """
import asyncio, sys
from agentsession import Event, SessionKey, SQLiteSessionService

async def main():
    key = SessionKey("app", "user", "elsewhere")
    async with SQLiteSessionService(sys.argv[1]) as service:
        await service.create_session(key)
        number = 0
        while True:
            number += 1
            event = Event(author="user", content=str(number), state_delta={"number": number})
            await service.append_event(key, event)
            print(number, flush=True)

asyncio.run(main())
"""


async def test_it_is_of_one_moment_while_processes_write(path: Path, target: Path) -> None:
    """All that was written before is in it, and of what is written meanwhile no half."""
    elsewhere = SessionKey("app", "user", "elsewhere")
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        enlarge(path)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, encoding="utf-8"
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "1\n"
            for number in range(1, 4):
                copy = target.with_name(f"{number}.db")
                before = await service.append_event(KEY, message("x"))
                backup = asyncio.create_task(service.backup(copy))
                written = before.seq
                while not backup.done():
                    written = (await service.append_event(KEY, message("x"))).seq
                await backup
                assert written > before.seq  # Nobody stood still for it.
                async with SQLiteSessionService(copy) as opened:
                    assert await opened.check() == []
                    mine = await opened.get_session(KEY)
                    theirs = await opened.get_session(elsewhere)
                    assert mine is not None
                    assert theirs is not None
                    assert before.seq <= mine.last_seq <= written
                    assert theirs.state["number"] == theirs.last_seq
                copy.unlink()
            other.kill()


async def test_writers_do_not_make_it_begin_anew(path: Path, target: Path) -> None:
    """Though one writes between any two of its steps: else it would have no end."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
    enlarge(path, 50_000)
    steps = 0
    with (
        closing(sqlite3.connect(path)) as reader,
        closing(sqlite3.connect(path, isolation_level=None)) as writer,
    ):

        def write() -> bool:
            nonlocal steps
            steps += 1
            writer.execute("INSERT INTO deleted VALUES (?)", (steps,))
            return steps > 1000

        copy(reader, path, target, is_stopped=write)
    assert 10 < steps < 100
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("SELECT count(*) FROM deleted").fetchone() == (0,)


async def test_it_appears_when_it_is_whole(path: Path, target: Path) -> None:
    """Whoever sees it can open it."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        enlarge(path)
        backup = asyncio.create_task(service.backup(target))
        await until_begun(target)
        while not target.exists():
            await asyncio.sleep(0)
        with closing(sqlite3.connect(target)) as connection:
            assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
            assert connection.execute("SELECT count(*) FROM events").fetchone() == (200_000,)
        await backup


async def test_what_is_there_is_not_replaced(path: Path, target: Path) -> None:
    """Neither a file, nor a link, nor what comes while the copy is made."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        target.write_text("precious", encoding="utf-8")
        with pytest.raises(FileExistsError) as raised:
            await service.backup(target)
        assert raised.value.filename == str(target)
        link = target.with_name("link")
        link.symlink_to("nowhere")
        with pytest.raises(FileExistsError):
            await service.backup(link)
        enlarge(path)
        late = target.with_name("late")
        backup = asyncio.create_task(service.backup(late))
        await until_begun(late)
        late.write_text("precious", encoding="utf-8")
        with pytest.raises(FileExistsError):
            await backup
        assert late.read_text(encoding="utf-8") == target.read_text(encoding="utf-8") == "precious"
        assert {*target.parent.iterdir()} == {target, late, link}


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
async def test_what_another_file_has_left_is_not_mixed_with_it(
    path: Path, target: Path, suffix: str
) -> None:
    """SQLite would take it for the newest writes of the copy."""
    left = Path(f"{target}{suffix}")
    left.write_bytes(b"left")
    async with SQLiteSessionService(path) as service:
        with pytest.raises(FileExistsError) as raised:
            await service.backup(target)
    assert raised.value.filename == str(left)
    assert [*target.parent.iterdir()] == [left]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-gate", "-journal"])
async def test_the_files_of_a_store_are_its_own(path: Path, suffix: str) -> None:
    """By whichever name."""
    async with SQLiteSessionService(path) as service:
        (path.parent.parent / "link").symlink_to(path.parent)
        for name in (f"{path}{suffix}", path.parent.parent / "link" / (path.name + suffix)):
            with pytest.raises(ValueError, match="must not be a file of the service's own"):
                await service.backup(name)
        assert [*path.parent.iterdir()] == []


async def test_mistakes_are_told(path: Path, target: Path) -> None:
    """What is no path, what names no file, and a folder that is missing."""
    async with SQLiteSessionService(path) as service:
        with pytest.raises(TypeError, match="path must be a str or a Path, not bytes"):
            await service.backup(os.fsencode(target))  # type: ignore[arg-type]
        for wrong in ("", ":memory:", target.parent):
            with pytest.raises(ValueError, match="path must name a file"):
                await service.backup(wrong)
        with pytest.raises(FileNotFoundError):
            await service.backup(target.parent / "missing" / "copy.db")
    with pytest.raises(ClosedError):
        await service.backup(target)
    assert [*target.parent.iterdir()] == []


async def test_a_cancelled_one_leaves_nothing(path: Path, target: Path) -> None:
    """Nor does it go on."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        enlarge(path)
        backup = asyncio.create_task(service.backup(target))
        await until_begun(target)
        backup.cancel()
        with pytest.raises(asyncio.CancelledError):
            await backup
        assert [*target.parent.iterdir()] == []
        await service.backup(target)


async def test_closing_ends_it(path: Path, target: Path) -> None:
    """With an error, and without a trace."""
    service = SQLiteSessionService(path)
    await service.create_session(KEY)
    enlarge(path)
    backup = asyncio.create_task(service.backup(target))
    await until_begun(target)
    await service.aclose()
    with pytest.raises(BackendUnavailableError, match="the service was closed meanwhile"):
        await backup
    assert [*target.parent.iterdir()] == []


async def test_a_killed_process_leaves_no_copy(path: Path, target: Path) -> None:
    """But what it had begun, by a name that nobody takes for a copy; the next one succeeds."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        enlarge(path)
        program = (
            "import asyncio, sys; from agentsession import SQLiteSessionService; "
            "asyncio.run(SQLiteSessionService(sys.argv[1]).backup(sys.argv[2]))"
        )
        with subprocess.Popen([sys.executable, "-c", program, path, target]) as other:
            await until_begun(target)
            other.kill()
        (left,) = target.parent.iterdir()
        assert left.suffix == ".part"
        await service.backup(target)
        async with SQLiteSessionService(target) as copy:
            assert await copy.get_session(KEY) is not None


async def test_it_has_the_rights_of_the_original(path: Path, target: Path) -> None:
    """Who may not read the sessions may not read a copy of them."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        for mode in (0o600, 0o664):
            path.chmod(mode)
            copy = target.with_name(oct(mode))
            await service.backup(copy)
            assert copy.stat().st_mode & 0o777 == mode


async def test_a_newer_file_is_not_copied(path: Path, target: Path) -> None:
    """It is refused as by any other call."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 2")
        with pytest.raises(CodecError, match="version 2"):
            await service.backup(target)
        assert [*target.parent.iterdir()] == []


def test_a_full_disk_is_an_error(path: Path, target: Path) -> None:
    """Of that disk, in the words of the operating system; nothing is left on it."""
    program = """
import asyncio, errno, os, sys
from agentsession import SessionKey, SQLiteSessionService

async def main():
    async with SQLiteSessionService(sys.argv[1]) as service:
        try:
            await service.backup(sys.argv[2])
        except OSError as error:
            print(errno.errorcode[error.errno], os.listdir(os.path.dirname(sys.argv[2])))
        print(await service.get_session(SessionKey("app", "user", "session")))

asyncio.run(main())
"""

    async def fill() -> None:
        async with SQLiteSessionService(path) as service:
            await service.create_session(KEY)

    asyncio.run(fill())
    enlarge(path, 20_000)
    command = f'mount -t tmpfs -o size=1m disk {target.parent} && exec "$0" -c "$1" {path} {target}'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, sys.executable, program],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("no disks can be mounted here")
    assert done.returncode == 0, done.stderr
    full, session = done.stdout.splitlines()
    assert full == f"{errno.errorcode[errno.ENOSPC]} []"
    assert session.startswith("Session('session'")


class Recorder(Observer):
    """Notes which operations there were, and how they ended."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object, str]] = []

    def on_operation(self, operation: Operation) -> AbstractContextManager[None]:
        return self._around(operation)

    @contextmanager
    def _around(self, operation: Operation) -> Generator[None]:
        how = "failed"
        try:
            yield
            how = "done"
        finally:
            self.seen.append((operation.name, operation.subject, how))

    def on_notice(self, notice: Notice) -> None:
        """Take no notice."""


async def test_observers_see_it(path: Path, target: Path) -> None:
    """As an operation that is about no session, also where the path is a str."""
    recorder = Recorder()
    async with SQLiteSessionService(path, observers=[recorder]) as service:
        await service.backup(str(target))
        with pytest.raises(FileExistsError):
            await service.backup(target)
        await service.check()
    assert recorder.seen == [
        ("backup", None, "done"),
        ("backup", None, "failed"),
        ("check", None, "done"),
        ("aclose", None, "done"),
    ]


def test_it_is_made_without_a_loop_too(path: Path, target: Path) -> None:
    """By ``call()``, as the faces of a service have what all stores have."""
    store = SQLiteSessionService(path)
    with BlockingSessionService(store) as service:
        service.create_session(KEY)
        service.call(lambda _: store.backup(target))
    assert target.exists()
