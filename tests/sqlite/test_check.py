"""What ``check()`` says of a file, and that it leaves the file alone."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from agentsession import Event, SessionKey, SQLiteSessionService, concerns
from agentsession.concerns import Concern
from agentsession.errors import BackendUnavailableError, CodecError
from agentsession.sqlite._upkeep import checking
from agentsession.sqlite._upkeep.checking import diagnosed, network_of, room_left
from agentsession.sqlite._upkeep.errands import Errands
from documents.markdown import DOCS, tables

KEY = SessionKey("app", "user", "session")
MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30
NOBODY = 65534

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:40 / /home rw,relatime shared:1 - nfs4 server:/home rw,vers=4.2
31 30 8:1 / /home/ada/local rw,relatime - xfs /dev/sda1 rw
32 27 0:41 / /mnt/my\\040share rw - cifs //server/share rw
33 27 0:42 / /mnt/there rw - fuse.sshfs ada@server: rw
34 27 0:43 / /mnt/disk rw - fuse.ntfs-3g /dev/sdb1 rw
35 27 0:44 / /mnt/hidden rw - nfs server:/old rw
36 27 8:2 / /mnt/hidden rw - ext4 /dev/sdc rw
37 27 0:45 / /mnt/c rw - 9p drvfs rw
38 27 0:46 / /mnt/block rw - fuseblk /dev/sdd rw
a line of another form
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


async def written(path: Path) -> None:
    """Make a file with one session."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        await service.append_event(KEY, Event(author="user", content="hello"))


async def found(path: Path) -> dict[str, Concern]:
    async with SQLiteSessionService(path) as service:
        return {each.code: each for each in await service.check()}


async def only(path: Path) -> Concern:
    (concern,) = (await found(path)).values()
    return concern


def seen(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return all that is in a folder, and when it was written to."""
    return {
        each.name: (each.stat().st_mtime_ns, each.read_bytes())
        for each in folder.iterdir()
        # In these say readers that they read, and writers that they write.
        if not each.name.endswith(("-shm", "-gate"))
    }


async def test_a_sound_file_is_no_concern(path: Path) -> None:
    """And a check leaves it as it was, whether it is open or not."""
    await written(path)
    before = seen(path.parent)
    assert await found(path) == {}
    assert seen(path.parent) == before
    async with SQLiteSessionService(path) as service:
        await service.append_event(KEY, Event(author="user", content="open"))
        before = seen(path.parent)
        assert await service.check() == []
        assert await found(path) == {}
        assert seen(path.parent) == before


async def test_a_file_that_is_not_there_is_not_made(path: Path) -> None:
    """Nor is it a concern, since the first call makes it."""
    assert await found(path) == {}
    assert [*path.parent.iterdir()] == []
    path.touch()
    assert await found(path) == {}
    assert path.read_bytes() == b""


async def test_without_a_folder_nothing_is_known(path: Path) -> None:
    """Which is an error, and not an empty list."""
    with pytest.raises(BackendUnavailableError, match="check that its folder is there"):
        await found(path.parent / "missing" / "sessions.db")


@pytest.mark.parametrize(
    ("where", "network"),
    [
        ("/sessions.db", ""),
        ("/home/ada/sessions.db", "nfs4"),
        ("/home/ada/local/sessions.db", ""),
        ("/home/ada/locally/sessions.db", "nfs4"),
        ("/homestead/sessions.db", ""),
        ("/mnt/my share/sessions.db", "cifs"),
        ("/mnt/there/a/b/sessions.db", "fuse.sshfs"),
        ("/mnt/disk/sessions.db", ""),
        ("/mnt/block/sessions.db", ""),
        ("/mnt/hidden/sessions.db", ""),
        ("/mnt/c/sessions.db", "9p"),
    ],
)
def test_a_network_file_system_is_found_by_its_mount(where: str, network: str) -> None:
    """The longest mount point that the path is in says so, the newest of two."""
    assert network_of(MOUNTS, where) == network
    assert network_of("", where) == ""


def test_a_full_disk_is_a_danger_and_a_nearly_full_one_a_warning() -> None:
    """Little is a share and an amount; and what a backup would not fit into."""

    def severities(total: int, free: int, size: int = 0) -> list[str]:
        concerns = [*room_left(total, free, size)]
        assert all(each.code == "disk_full" for each in concerns)
        return [each.severity for each in concerns]

    assert severities(100 * GIBIBYTE, 50 * GIBIBYTE) == []
    assert severities(100 * GIBIBYTE, MEBIBYTE - 1) == ["danger"]
    assert severities(100 * GIBIBYTE, 0, GIBIBYTE) == ["danger"]
    assert severities(100 * GIBIBYTE, GIBIBYTE - 1) == ["warning"]
    assert severities(100 * GIBIBYTE, 4 * GIBIBYTE) == []
    assert severities(2 * GIBIBYTE, GIBIBYTE // 2) == []
    assert severities(100 * GIBIBYTE, 50 * GIBIBYTE, 51 * GIBIBYTE) == ["warning"]
    (concern,) = room_left(100 * GIBIBYTE, 50 * GIBIBYTE, 51 * GIBIBYTE)
    assert "51,200.0 MiB left, less than the size of the file" in concern.message


async def test_a_file_that_cannot_be_written_to_is_a_danger() -> None:
    """The file's own rights count, and those of its folder."""
    with TemporaryDirectory() as name:
        folder, path = Path(name), Path(name, "sessions.db")
        folder.chmod(0o555)
        with not_as_root():
            assert (await only(path)).code == "read_only"
        folder.chmod(0o777)
        await written(path)
        path.chmod(0o444)
        with not_as_root():
            concern = await only(path)
        assert (concern.code, concern.severity) == ("read_only", "danger")
        path.chmod(0o666)
        with not_as_root():
            assert await found(path) == {}


@contextmanager
def not_as_root() -> Generator[None]:
    """Be somebody who may not write to everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


async def test_a_newer_format_is_a_danger(path: Path) -> None:
    """Which says what to do about it; a call is refused for the same reason."""
    await written(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
    concern = await only(path)
    assert (concern.code, concern.severity) == ("newer_format", "danger")
    assert "version 7" in concern.message
    assert "use a newer agentsession" in concern.message
    async with SQLiteSessionService(path) as service:
        with pytest.raises(CodecError, match="version 7"):
            await service.get_session(KEY)


async def test_a_database_of_another_program_is_a_danger(path: Path) -> None:
    """An empty one is not: it becomes a store."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        assert await found(path) == {}
        connection.execute("CREATE TABLE pictures (picture)")
        connection.commit()
    assert (await only(path)).code == "another_program"


async def test_damage_is_a_danger(path: Path) -> None:
    """At its beginning, all of it, its end, and all but its first page."""
    await written(path)
    sound = path.read_bytes()
    for damaged in (
        sound[:100] + b"\xff" * 200 + sound[300:],
        b"a text, and no database at all. " * 200,
        sound[: len(sound) // 2 // 4096 * 4096],
        sound[:4096] + b"\xff" * (len(sound) - 4096),
    ):
        path.write_bytes(damaged)
        concern = await only(path)
        assert (concern.code, concern.severity) == ("damaged", "danger")
        assert "restore a copy" in concern.message
        assert "\n" not in concern.message
        assert path.read_bytes() == damaged
    path.write_bytes(sound)
    assert await found(path) == {}


async def test_writes_that_do_not_wait_for_the_disk_are_a_warning(path: Path) -> None:
    """It is the price of the option."""
    async with SQLiteSessionService(path, synchronous="normal") as service:
        (concern,) = await service.check()
    assert (concern.code, concern.severity) == ("not_durable", "warning")


async def large(path: Path) -> None:
    """Make a file that takes a while to look through."""
    await written(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 200000) "
            "INSERT INTO events SELECT 1000 + n / 1000, n, printf('%032d', n), n, "
            "printf('%0200d', n) FROM n"
        )
        connection.commit()


def upkeep() -> list[str]:
    """Name the threads that look at a file."""
    return [each.name for each in threading.enumerate() if "upkeep" in each.name]


async def test_the_loop_goes_on_meanwhile(path: Path) -> None:
    """A check is a thread's; who is cancelled has stopped it."""
    await large(path)
    async with SQLiteSessionService(path) as service:
        check = asyncio.create_task(service.check())
        turns = 0
        while not check.done():
            await asyncio.sleep(0)
            turns += 1
        assert check.result() == []
        assert turns > 100

        check = asyncio.create_task(service.check())
        await asyncio.sleep(0)
        while not upkeep():
            await asyncio.sleep(0)
        began = time.monotonic()
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check
        assert time.monotonic() - began < 5
        assert await service.check() == []


async def test_who_closes_stops_a_check(path: Path) -> None:
    """Rather than wait for it."""
    await large(path)
    service = SQLiteSessionService(path)
    check = asyncio.create_task(service.check())
    while not upkeep():
        await asyncio.sleep(0)
    await service.aclose()
    with pytest.raises(BackendUnavailableError, match="the service was closed meanwhile"):
        await check


async def test_damage_is_looked_for_as_long_as_there_is_patience(path: Path) -> None:
    """What was not looked at is no concern."""
    await large(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE seen_last (value)")
        (page,) = connection.execute("SELECT max(rootpage) FROM sqlite_master").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    errands = Errands()
    (concern,) = await errands.run(lambda errand: diagnosed(path, "full", 60.0, errand))
    assert concern.code == "damaged"
    assert await errands.run(lambda errand: diagnosed(path, "full", 0.0, errand)) == []


def test_every_code_is_documented() -> None:
    """In the module that all backends share, and on the page."""
    source = Path(checking.__file__).read_text(encoding="utf-8")
    codes = {*re.findall(r'Concern\(\s*"(\w+)"', source)}
    assert len(codes) == 7
    assert codes <= {*re.findall(r"^``(\w+)``", str(concerns.__doc__), re.MULTILINE)}
    listed = tables(DOCS / "sqlite.md")["Look before you start"]
    assert {row["code"].strip("`") for row in listed} == codes


MOUNTED = """
import asyncio, sys
from agentsession import SessionKey, SQLiteSessionService

async def main():
    async with SQLiteSessionService(sys.argv[1]) as service:
        for concern in await service.check():
            print(concern.code, concern.severity)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("size=2m", []),
        ("size=512k", ["disk_full danger"]),
        ("size=2m,ro", ["read_only danger"]),
    ],
)
def test_real_disks(tmp_path: Path, options: str, expected: list[str]) -> None:
    """A small one is full, and one that is mounted to be read cannot be written to."""
    command = f'mount -t tmpfs -o {options} disk {tmp_path} && exec "$0" -c "$1" {tmp_path}/s.db'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, sys.executable, MOUNTED],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("no disks can be mounted here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected


def test_what_this_machine_says_can_be_read(tmp_path: Path) -> None:
    """Its own list of mounts; tests run on no network file system."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        pytest.skip("it is not Linux")
    assert network_of(mounts.read_text(encoding="utf-8"), str(tmp_path.resolve())) == ""
