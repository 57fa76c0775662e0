"""The disk on which the files lie."""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.server import Usage

__all__ = ["Disk", "describe_disk", "describe_syncs", "disk", "file_system", "size_of"]

_NOTHING = Usage(0.0, 0, 0.0, 0, 0, 0)
_BLOCK = bytes(4096)
_VOLATILE = {"tmpfs", "ramfs"}


class Disk:
    """A folder, as the suite sees a server.

    Args:
        folder: Where files may be made, and are deleted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._serial = itertools.count(1)

    def url(self, database: int) -> str:
        """Return a folder that does not exist: a file in use is never deleted or used again."""
        return str(self.folder / f"{database}-{next(self._serial)}")

    def clear(self, database: int | None = None) -> None:  # noqa: ARG002 - each is used only once
        """Delete all files; nobody may have one open."""
        for each in self.folder.iterdir():
            shutil.rmtree(each)

    def memory(self) -> int:
        return 0

    def begin(self) -> None:
        """Nothing is counted."""

    def end(self, elapsed: float) -> Usage:  # noqa: ARG002 - as above
        return _NOTHING


@contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """Make a folder in another one, and delete it in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="files-") as name:
        yield Disk(Path(name))


def size_of(url: str) -> int:
    """Return the bytes of a contestant's file and of its log; an index of that is but memory."""
    files = (file for file in Path(url).iterdir() if not file.name.endswith("-shm"))
    return sum(file.stat().st_size for file in files)


def describe_disk(folder: Path) -> str:
    """Say where the files are."""
    kind = file_system(folder)
    words = f"{kind}, {folder.parent}"
    if kind in _VOLATILE:
        words += " - NO DISK: a sync is free there, and the figures say nothing"
    return words


def describe_syncs(folder: Path, times: int) -> str:
    """Say what the least of all syncs takes there: 4 KiB appended to a file, by ``fdatasync``."""
    taken = sorted(_sync_times(folder, times))
    median = statistics.median(taken)
    low, high = taken[len(taken) // 4], taken[len(taken) * 3 // 4]
    return (
        f"{median * 1e3:.3f} ms ({low * 1e3:.3f} to {high * 1e3:.3f} for half of {times}), "
        f"{1 / median:,.0f} a second"
    )


def _sync_times(folder: Path, times: int) -> Iterator[float]:
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(times):
            file.write(_BLOCK)
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            yield time.perf_counter() - start


def file_system(folder: Path) -> str:
    """Name the kind of file system that a folder is on; empty where that is not known."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    mounts = {fields[1]: fields[2] for fields in map(str.split, lines)}
    for parent in (folder.resolve(), *folder.resolve().parents):
        if str(parent) in mounts:
            return mounts[str(parent)]
    return ""
