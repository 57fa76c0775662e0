"""The gate: how processes write to one file in turn, and whom one waits for."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentsession.errors import BackendUnavailableError
from agentsession.sqlite._errors import is_busy
from agentsession.sqlite._file.forks import quiet

try:
    import fcntl
except ImportError:  # Not on Windows; there writers take turns as chance has it.
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Generator

    from agentsession.sessions import SessionKey, UserKey
    from agentsession.sqlite._file.opening import Connection, File

__all__ = ["Gate"]

# Between two attempts to get a lock, in seconds: from the first to the longest.
_FIRST_PAUSE: Final = 0.0002
_LONGEST_PAUSE: Final = 0.005
# The byte of the ``-shm`` file whose lock is the lock for writing.
_WRITE_LOCK: Final = 120


class Gate:
    """Has processes write in turn: whoever waits for the file stands before who has just written.

    Without it the one that has the lock would mostly have it again before another looks. It is a
    file beside the data, locked with ``flock`` while its holder waits for SQLite's own lock, which
    is then free as soon as the present writer is done. The number of the process that writes stands
    in it, so that others can tell whom they wait for.

    Args:
        path: The file that it is the gate of.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(f"{path}-gate")
        self._descriptor: int | None = None
        quiet.will_close(self)

    def close(self) -> None:
        """Close it; it may be used again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def open(self, file: File, deadline: float, subject: SessionKey | UserKey | str) -> Connection:
        """Open a file to write, when no other process does, nor repairs it or closes it.

        Raises:
            BackendUnavailableError: Another process did all the while until the deadline.
            sqlite3.Error: It cannot be opened.
            CodecError: It is another program's, or of a newer version.
        """
        file.refuse_another(subject)
        with self.held(deadline, subject):
            pause = _FIRST_PAUSE
            while True:
                try:
                    return file.writer(subject)
                except sqlite3.OperationalError as error:
                    if not is_busy(error):
                        raise
                pause = self._wait(pause, deadline, subject)

    def begin(
        self,
        connection: sqlite3.Connection,
        deadline: float,
        subject: SessionKey | UserKey | str,
    ) -> None:
        """Begin a transaction that writes, when it is this process's turn.

        Raises:
            BackendUnavailableError: It was not until the deadline.
            sqlite3.Error: It cannot begin, for another reason than that others have the lock.
        """
        with self.held(deadline, subject):
            self._begin(connection, deadline, subject)
        if self._descriptor is not None:
            with suppress(OSError):  # The disk may be full; nothing depends on it.
                os.pwrite(self._descriptor, b"%-20d\n" % os.getpid(), 0)

    @contextmanager
    def held(self, deadline: float, subject: SessionKey | UserKey | str) -> Generator[None]:
        """Hold it, so that no other process gets through.

        Raises:
            BackendUnavailableError: It was not to be had until the deadline.
        """
        if fcntl is None:
            yield
            return
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o666)
        pause = _FIRST_PAUSE
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pause = self._wait(pause, deadline, subject)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _begin(
        self,
        connection: sqlite3.Connection,
        deadline: float,
        subject: SessionKey | UserKey | str,
    ) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
            else:
                return
            pause = self._wait(pause, deadline, subject)

    def _wait(self, pause: float, deadline: float, subject: SessionKey | UserKey | str) -> float:
        """Wait a little, and return how long to wait next time."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise BackendUnavailableError(
                subject,
                f"{str(self._path).removesuffix('-gate')}: {self._holder()}; nothing was written. "
                "End or resume that process",
            )
        quiet.sleep(min(pause, left))
        return min(pause * 2, _LONGEST_PAUSE)

    def _holder(self) -> str:
        """Say who has the lock."""
        holder = self._locked_by()
        if holder is None:
            return "another program has held the lock for writing all the while"
        if holder == os.getpid():
            return "another part of this process has held the lock for writing all the while"
        state = ""
        with suppress(OSError):
            stat = Path(f"/proc/{holder}/stat").read_text(encoding="utf-8", errors="replace")
            if stat.rpartition(")")[2].split()[0] in ("T", "t"):
                state = ", which is stopped,"
        return (
            f"the lock for writing was not to be had in time; process {holder}{state} has it, or "
            "had it last"
        )

    def _locked_by(self) -> int | None:
        """Return the process that has the lock for writing, or the gate, as far as is known."""
        data = str(self._path).removesuffix("-gate")
        locks: list[str] = []
        with suppress(OSError):
            locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        for path, byte in ((f"{data}-shm", _WRITE_LOCK), (str(self._path), 0)):
            with suppress(OSError, ValueError):
                inode = str(os.stat(path).st_ino)
                for line in locks:
                    # As in "1: POSIX  ADVISORY  WRITE 13911 fe:00:5325459 120 120".
                    _, _, _, kind, process, place, first, last = line.replace("->", "").split()
                    if kind == "WRITE" and place.rpartition(":")[2] == inode and int(process) > 0:
                        end = byte if last == "EOF" else int(last)
                        if int(first) <= byte <= end:
                            return int(process)
        if self._descriptor is not None:
            with suppress(OSError, ValueError):
                holder = int(os.pread(self._descriptor, 32, 0))
                if holder != os.getpid():  # Which waits, and has written last before that.
                    return holder
        return None
