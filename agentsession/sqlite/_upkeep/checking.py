"""Finds what endangers a file. It changes nothing, and makes no file where there is none.

The file is never opened but by SQLite: whoever closes a file gives up all locks that the process
has on it, those of SQLite too (https://www.sqlite.org/howtocorrupt.html, section 2.2).
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentsession.concerns import Concern
from agentsession.errors import BackendUnavailableError
from agentsession.sqlite import _schema
from agentsession.sqlite._errors import is_damage
from agentsession.sqlite._upkeep.migrating import version_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from agentsession.sqlite._upkeep.errands import Errand

__all__ = ["diagnosed", "network_of", "room_left"]

_MOUNTS: Final = Path("/proc/self/mountinfo")

# As Linux names them; those of programs are named as in ``fuse.sshfs``.
_NETWORKS: Final = {
    *("9p", "acfs", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs2", "gfs2"),
    *("glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs"),
    *("prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"),
}
_NETWORKS_OF_FUSE: Final = {
    *("blobfuse", "blobfuse2", "ceph", "curlftpfs", "davfs", "gcsfuse", "glusterfs", "goofys"),
    *("gvfsd-fuse", "juicefs", "lustre", "moosefs", "ossfs", "rclone", "s3fs", "seaweedfs"),
    *("smbnetfs", "sshfs", "vmhgfs-fuse"),
}

_SUBJECT: Final = "the file"

_MEBIBYTE: Final = 1 << 20
# Between two attempts to interrupt a statement, in seconds.
_INTERVAL: Final = 0.005

# With less than this writes fail at any moment: a transaction, and the -wal file, need room.
_LEAST: Final = _MEBIBYTE
# With less than this, and less than the share, it is time to look.
_LITTLE: Final = 1024 * _MEBIBYTE
_LITTLE_SHARE: Final = 20


def diagnosed(path: Path, synchronous: str, patience: float, errand: Errand) -> list[Concern]:
    """Report what endangers a file.

    What is on a network file system is not opened, which may hang. Damage is looked for as long as
    *patience* allows; of a file that is too large for that, a part is not seen: no concern.

    Args:
        path: The file, which need not be there.
        synchronous: How far writes go, as SQLite has it.
        patience: How long to look for damage, in seconds.
        errand: Stops it.

    Raises:
        BackendUnavailableError: Its folder is not there, or may not be looked into.
        sqlite3.Error: It was stopped; or the file cannot be opened for a reason that is none of
            those that are reported.
    """
    found = [*_durability(synchronous)]
    network = network_of(_mounts(), os.path.realpath(path))
    if network:
        return [_on_network(network), *found]
    try:
        size = path.stat().st_size if path.exists() else 0
        usage = shutil.disk_usage(path.parent)
    except OSError as error:
        reason = f"{path}: {error}; check that its folder is there, and its rights"
        raise BackendUnavailableError(_SUBJECT, reason) from error
    found += room_left(usage.total, usage.free, size)
    if not _is_writable(path):
        found.append(_READ_ONLY)
    if size:
        try:
            found += _contents(path, patience, errand)
        except sqlite3.OperationalError:
            # Whoever may not write often cannot read either, for want of a ``-shm`` file.
            if errand.is_stopped or not any(each.severity == "danger" for each in found):
                raise
    return found


# -- where it is


def _mounts() -> str:
    """Return what Linux says of what is mounted; other systems say nothing."""
    try:
        return _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def network_of(mounts: str, path: str) -> str:
    """Return the type of the network file system that a path is on; ``""`` if it is on none.

    Args:
        mounts: The text of ``/proc/self/mountinfo``.
        path: An absolute path without symbolic links.
    """
    longest, found = -1, ""
    for line in mounts.splitlines():
        mount, dash, source = line.partition(" - ")
        fields = mount.split(" ")
        if not dash or len(fields) < 5:
            continue
        # Spaces and the like are written as octal numbers.
        point = re.sub(r"\\([0-7]{3})", lambda each: chr(int(each[1], 8)), fields[4])
        inside = point.rstrip("/") + "/"
        # Of two on the same point the later one hides the earlier.
        if (path + "/").startswith(inside) and len(inside) >= longest:
            longest, found = len(inside), source.split(" ")[0]
    kind, _, detail = found.partition(".")
    is_network = detail in _NETWORKS_OF_FUSE if kind in ("fuse", "fuseblk") else kind in _NETWORKS
    return found if is_network else ""


def _on_network(network: str) -> Concern:
    return Concern(
        "network_file_system",
        "danger",
        f"the file is on a network file system ({network}), where SQLite's locks and shared memory "
        "do not work, so that it will be damaged; move it to a disk of this machine, or use Redis",
    )


# -- the disk


def room_left(total: int, free: int, size: int) -> Iterator[Concern]:
    """Judge how much room a disk has.

    Args:
        total: How large it is, in bytes.
        free: How much of it this user may still write, in bytes.
        size: How large the file is, in bytes.
    """
    words = f"the disk of the file has {free / _MEBIBYTE:,.1f} MiB left"
    if free < _LEAST:
        yield Concern(
            "disk_full",
            "danger",
            f"{words}, and writes are refused, or will be any moment; make room",
        )
    elif (free < _LITTLE and free * _LITTLE_SHARE < total) or free < size:
        why = ", less than the size of the file" if free < size else ""
        yield Concern(
            "disk_full",
            "warning",
            f"{words}{why}; make room, or set limits and expiry: when it is full, writes are "
            "refused, and no backup fits on it",
        )


_READ_ONLY: Final = Concern(
    "read_only",
    "danger",
    "the file, or its folder, cannot be written to by this user, so that every write is refused; "
    "give the user the right to write to both",
)


def _is_writable(path: Path) -> bool:
    """Tell whether a file can be written to, or made, and others beside it."""
    effective = os.access in os.supports_effective_ids

    def may(what: Path, mode: int) -> bool:
        return os.access(what, mode, effective_ids=effective)

    folder = path.resolve().parent
    return may(folder, os.W_OK | os.X_OK) and (not path.exists() or may(path, os.R_OK | os.W_OK))


def _durability(synchronous: str) -> Iterator[Concern]:
    if synchronous.lower() != "full":
        yield Concern(
            "not_durable",
            "warning",
            "a crash of the machine loses the last writes, since synchronous is 'normal'; with "
            "'full' a write that returns is on the disk",
        )


# -- what is in it


def _contents(path: Path, patience: float, errand: Errand) -> Iterator[Concern]:
    """Look into a file.

    Raises:
        sqlite3.OperationalError: It cannot be opened, or it was stopped.
    """
    # Not mode=ro: the last one to close such a connection leaves the files behind that it made.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        with errand.on(connection):
            connection.execute("PRAGMA query_only = 1")
            version = version_of(connection)
            if version is None:
                yield from _not_ours(connection)
            elif version > _schema.FORMAT:
                yield _newer(version)
            yield from _damage(connection, patience, errand)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        yield _damaged(str(error))


def _not_ours(connection: sqlite3.Connection) -> Iterator[Concern]:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables:
        yield Concern(
            "another_program",
            "danger",
            "the file is a database of another program, and every call is refused; choose another "
            "path",
        )


def _newer(version: int) -> Concern:
    return Concern(
        "newer_format",
        "danger",
        f"the file's format is version {version}, and this version of agentsession reads version "
        f"{_schema.FORMAT}, so that every call is refused; use a newer agentsession",
    )


def _damage(connection: sqlite3.Connection, patience: float, errand: Errand) -> Iterator[Concern]:
    try:
        with _bounded(patience, errand):
            problems = [problem for (problem,) in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT or errand.is_stopped:
            raise
        return  # It takes too long, and up to here there was none.
    if problems != ["ok"]:
        yield _damaged("; ".join(problems))


@contextmanager
def _bounded(patience: float, errand: Errand) -> Generator[None]:
    """Interrupt what takes longer.

    It takes another thread, since SQLite looks at the tree of a large table in one step, which no
    progress handler can end; and more than one attempt, since an interruption that comes before a
    statement has begun is none.
    """
    done = threading.Event()

    def watch() -> None:
        is_done = done.wait(patience)
        while not is_done:
            errand.interrupt()
            is_done = done.wait(_INTERVAL)

    watcher = threading.Thread(target=watch, name="agentsession-upkeep-clock", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _damaged(what: str) -> Concern:
    words = " ".join(what.split())
    return Concern(
        "damaged",
        "danger",
        f"the file is damaged, or is no database of SQLite ({words:.200}); restore a copy, or save "
        "what can be read with the command .recover of sqlite3",
    )
