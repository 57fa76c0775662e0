"""What SQLite's errors mean to a caller."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from agentsession.errors import (
    AgentSessionError,
    BackendError,
    BackendUnavailableError,
    CodecError,
    OutcomeUnknownError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentsession.sessions import SessionKey, UserKey

__all__ = ["is_busy", "is_damage", "translated"]

_PRIMARY: Final = 0xFF

# By SQLite's primary result code: what is the matter, and what to do about it.
_UNAVAILABLE: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_BUSY: "another program has the file locked; end its transaction",
    sqlite3.SQLITE_LOCKED: "another program has the file locked; end its transaction",
    sqlite3.SQLITE_FULL: "the disk is full; make room, and repeat the call",
    sqlite3.SQLITE_READONLY: "the file, or its folder, cannot be written to; check their rights",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check that its folder is there, and the "
    "rights of both",
    sqlite3.SQLITE_PERM: "the file cannot be opened; check its rights",
    sqlite3.SQLITE_IOERR: "the disk has failed, is full, or a limit of this process on the size of "
    "files was met; check both",
    sqlite3.SQLITE_NOLFS: "the file is as large as it may become here; make room",
    sqlite3.SQLITE_PROTOCOL: "other programs use the file so much that it was not to be had",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_INTERRUPT: "the service was closed meanwhile",
}

# What fails while a commit is written, and before it is whole: nobody will ever find it written.
_NOT_WRITTEN: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)


def _code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", None) or 0


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether somebody else has the file locked."""
    return _code(error) & _PRIMARY == sqlite3.SQLITE_BUSY


def is_damage(error: BaseException) -> bool:
    """Tell whether the file is none of SQLite's, or was damaged."""
    return _code(error) & _PRIMARY in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def translated(
    error: BaseException,
    subject: SessionKey | UserKey | str,
    path: str,
    *,
    may_be_written: bool = False,
) -> BaseException:
    """Return what a caller is told of an error; one that is of no file stays as it is.

    Args:
        error: The error.
        subject: Whose data the call was about.
        path: The file.
        may_be_written: Whether the transaction may have been committed nevertheless.
    """
    if not isinstance(error, (sqlite3.Error, OSError)):
        return error
    told: AgentSessionError
    what = f"{path}: {error}"
    if isinstance(error, OSError):
        # Before anything is written: of the gate, or of the copy before a migration.
        told = BackendUnavailableError(
            subject,
            f"{what}; nothing was written: check that the folder is there, the rights of both, and "
            "the disk",
        )
    elif is_damage(error):
        told = CodecError(
            subject,
            f"{what}; it is no database of SQLite, or was damaged. Restore a copy, or move it away",
        )
    elif may_be_written and _code(error) not in _NOT_WRITTEN:
        told = OutcomeUnknownError(
            subject, f"{what}, while it was written to disk; repeat the call with the same event id"
        )
    elif advice := _UNAVAILABLE.get(_code(error) & _PRIMARY):
        told = BackendUnavailableError(subject, f"{what}; nothing was written: {advice}")
    else:
        told = BackendError(subject, f"{what}; nothing was written")
    told.__cause__ = error
    return told
