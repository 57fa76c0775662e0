"""A ``-wal`` file whose end was lost or damaged: what came before is whole."""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
from pathlib import Path

import pytest

from agentsession import Event, SessionKey
from agentsession.errors import SessionNotFoundError
from agentsession.sqlite import SQLiteSessionService
from sqlite.programs.processes import running

KEY = SessionKey("app", "user", "s0")
HEADER, FRAME_HEADER = 32, 24


class Log:
    """The ``-wal`` file of a process that made one append after the other, and was killed.

    Attributes:
        data: Its bytes.
        events: How many events it adds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with running("appending", path, "w", 1, 1, 0) as program:
            said: list[str] = []
            while len(said) < 60:
                said.append(program.line())
            said += program.kill()
        self.data = Path(f"{path}-wal").read_bytes()
        (page,) = struct.unpack(">I", self.data[8:12])
        size = FRAME_HEADER + page
        self.frames = range(HEADER, len(self.data) - size + 1, size)
        # Of each transaction the place where it ends, and how many events the log has by then.
        ends = [at + size for at in self.frames if self.data[at + 4 : at + 8] != bytes(4)]
        self.ends = [(end, self._events(end)) for end in ends]
        # The last one may have been killed before it was acknowledged, or before it was there.
        acknowledged = int(said[-1].split()[2])
        assert self.ends[-1][1] >= acknowledged

    def _events(self, end: int) -> int:
        """Ask SQLite alone, of a log that is cut where a transaction ends."""
        copy = self.copied(self._path.with_name("whole.db"), self.data[:end])
        connection = sqlite3.connect(copy)
        try:
            (count,) = connection.execute("SELECT count(*) FROM events").fetchone()
        except sqlite3.OperationalError:
            return 0  # Not even the tables.
        finally:
            connection.close()
        return int(count)

    def copied(self, path: Path, data: bytes) -> Path:
        """Return a copy of the file with another log."""
        shutil.copyfile(self._path, path)
        Path(f"{path}-wal").write_bytes(data)
        Path(f"{path}-shm").unlink(missing_ok=True)
        return path

    def whole_before(self, offset: int) -> int:
        """Return how many events there are before damage at a place."""
        return max((events for end, events in self.ends if end <= offset), default=0)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return Log(tmp_path_factory.mktemp("log") / "sessions.db")


def offsets(log: Log) -> list[int]:
    """Return places around the last frames, at their edges and within, and some anywhere."""
    some = random.Random(7)
    found = {HEADER // 2, HEADER, *(some.randrange(len(log.data)) for _ in range(20))}
    for frame in log.frames[-8:]:
        found |= {frame + n for n in (-1, 0, 1, 6, FRAME_HEADER, FRAME_HEADER + 2000)}
    return sorted(found)


async def check(path: Path, events: int) -> None:
    """Check that a service finds so many events, and goes on after them."""
    async with SQLiteSessionService(path, session_event_limit=None) as service:
        try:
            found = await service.get_events(KEY, limit=1000)
        except SessionNotFoundError:
            found = []
            await service.create_session(KEY)
        assert [event.seq for event in found] == list(range(1, events + 1))
        if found:
            session = await service.get_session(KEY)
            assert session is not None
            assert session.state["last"] == found[-1].id
        added = await service.append_event(KEY, Event(author="after"))
        assert added.seq == events + 1
        assert len(await service.get_events(KEY, limit=1000)) == events + 1
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


async def test_a_log_that_is_cut_short(log: Log, tmp_path: Path) -> None:
    """Each whole transaction before the cut is there, and nothing of the one that is not whole."""
    for offset in offsets(log):
        path = log.copied(tmp_path / "sessions.db", log.data[:offset])
        await check(path, log.whole_before(offset))


async def test_a_log_with_a_wrong_byte(log: Log, tmp_path: Path) -> None:
    """What the checksum of its frame does not cover is none of the log; nor what comes after."""
    for offset in offsets(log):
        garbled = bytearray(log.data)
        garbled[offset] ^= 0x5A
        frame = max((at for at in log.frames if at <= offset), default=0)
        path = log.copied(tmp_path / "sessions.db", bytes(garbled))
        await check(path, log.whole_before(frame))


async def test_a_log_that_ends_in_rubbish(log: Log, tmp_path: Path) -> None:
    """As a disk leaves it that had made room for what was not written any more."""
    for rubbish in (bytes(10_000), random.Random(7).randbytes(10_000), log.data[HEADER:]):
        path = log.copied(tmp_path / "sessions.db", log.data + rubbish)
        await check(path, log.ends[-1][1])
