"""The file: how it is opened, made, and told from others."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentsession.errors import BackendUnavailableError, CodecError
from agentsession.sqlite import _schema
from agentsession.sqlite._file.forks import quiet
from agentsession.sqlite._upkeep.migrating import is_migratable, migrate, version_of

if TYPE_CHECKING:
    from agentsession.sessions import SessionKey, UserKey

__all__ = ["Connection", "File"]

_STATEMENTS: Final = 256
# A reader waits so long, in seconds, where another process repairs the file after a crash.
_READER_WAITS: Final = 10.0


class Connection(sqlite3.Connection):
    """A connection that knows which file it has opened.

    Attributes:
        identity: The file: the same path may lead to another one later.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.identity: tuple[int, int] | None = None
        self.version = 0
        quiet.will_close(self)


class File:
    """A file of this library's, as the threads of one service open it.

    Args:
        path: Where it is.
        synchronous: ``"FULL"`` or ``"NORMAL"``, as SQLite has it.
    """

    def __init__(self, path: Path, synchronous: str) -> None:
        self.path = path
        self._synchronous = synchronous

    def __str__(self) -> str:
        return str(self.path)

    def writer(self, subject: SessionKey | UserKey | str) -> Connection:
        """Open it to write, make its tables if there are none, and bring them up to date.

        No other process does so now.

        Raises:
            sqlite3.Error: It cannot be opened.
            OSError: It is of an earlier version, of which no copy can be made.
            CodecError: It is another program's, or of a newer version.
        """
        if self._identity_now() is None:
            # Of a file that was deleted; to the new one they would be wrong.
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        connection = self._connect(str(self.path), 0)
        try:
            migrate(connection, self.path)
            is_made = self.check_format(connection, subject)
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                reason = f"{self}: its disk does not support WAL mode; use a disk of this machine"
                raise BackendUnavailableError(subject, reason)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            if not is_made:
                self._make(connection, subject)
        except BaseException:
            connection.close()
            raise
        return connection

    def refuse_another(self, subject: SessionKey | UserKey | str) -> None:
        """Refuse a file that is none of ours, before anything is made beside it.

        Raises:
            sqlite3.Error: It is no database, or cannot be opened.
            CodecError: It is another program's, or of a newer version.
        """
        if self._identity_now() is None:
            return
        connection = self._connect(f"{self.path.absolute().as_uri()}?mode=rw", _READER_WAITS)
        with closing(connection):
            version = version_of(connection)
            if version is None or not is_migratable(version):
                self.check_format(connection, subject)

    def reader(self, subject: SessionKey | UserKey | str) -> Connection:
        """Open it to read; a writer has opened it before.

        Raises:
            sqlite3.Error: It cannot be opened.
            CodecError: It is another program's, or of a newer version.
            BackendUnavailableError: It is not there any more, or has no tables.
        """
        reason = f"{self}: the file was deleted or replaced; the next call makes it anew"
        if self._identity_now() is None:
            raise BackendUnavailableError(subject, reason)
        # Not one that would be made, where the file was deleted meanwhile.
        connection = self._connect(f"{self.path.absolute().as_uri()}?mode=rw", _READER_WAITS)
        try:
            connection.execute("PRAGMA query_only = 1")
            if not self.check_format(connection, subject):
                raise BackendUnavailableError(subject, reason)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, name: str, timeout: float) -> Connection:
        while True:
            before = self._identity_now()
            connection = sqlite3.connect(
                name,
                uri=name.startswith("file:"),
                timeout=timeout,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=_STATEMENTS,
                factory=Connection,
            )
            connection.identity = self._identity_now()
            if before in (None, connection.identity):
                return connection
            # It was replaced in between, and nobody knows which one was opened.
            connection.close()

    def check_format(
        self, connection: sqlite3.Connection, subject: SessionKey | UserKey | str
    ) -> bool:
        """Check that the file is ours; tell whether it has its tables.

        Raises:
            CodecError: It is another program's, or of another version.
        """
        # In one statement, since another process may be making the tables right now.
        version, application, tables = connection.execute(
            "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_user_version, pragma_application_id"
        ).fetchone()
        if application == _schema.APPLICATION_ID:
            self._check_version(version, subject)
            return True
        if tables or application or version:
            reason = f"{self}: it is a database of another program; choose another path"
            raise CodecError(subject, reason)
        return False

    def _check_version(self, version: int, subject: SessionKey | UserKey | str) -> None:
        if version == _schema.FORMAT:
            return
        reason = (
            f"{self}: its format is version {version}, and this version of agentsession reads "
            f"version {_schema.FORMAT}; "
        )
        if is_migratable(version):
            reason += "close the service, and open it anew to bring the file up to date"
        elif version > _schema.FORMAT:
            reason += "use a newer agentsession"
        else:
            reason += "use the version of agentsession that wrote it"
        raise CodecError(subject, reason)

    def _make(self, connection: sqlite3.Connection, subject: SessionKey | UserKey | str) -> None:
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have made them meanwhile.
        if not self.check_format(connection, subject):
            for statement in _schema.STATEMENTS:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_schema.APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_schema.FORMAT}")
        connection.execute("COMMIT")

    def _identity_now(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def is_at(self, connection: Connection) -> bool:
        """Whether the path leads to the file that was opened, and not to none or to another."""
        return self._identity_now() == connection.identity
