"""Brings a file of an earlier version to the present one, in one transaction."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from agentsession.sqlite import _schema
from agentsession.sqlite._upkeep.copying import copy

__all__ = ["is_migratable", "migrate", "version_of"]


def version_of(connection: sqlite3.Connection) -> int | None:
    """Return the version of a file's form; ``None`` if it is none of ours."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != _schema.APPLICATION_ID:
        return None
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    found: int = version
    return found


def is_migratable(version: int) -> bool:
    """Tell whether there are steps from a version to the present one."""
    return version < _schema.FORMAT and all(
        each in _schema.MIGRATIONS for each in range(version, _schema.FORMAT)
    )


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a file to the present version, if it is of an earlier one that has steps.

    All steps are one transaction, so that the file is whole and of one version at any moment. It
    begins before the copy is made: nobody writes in between, and the copy, ``<path>.v<N>``, is of
    the file as it was. One that an interrupted attempt has left is replaced.

    Args:
        connection: The file; it waits for locks. No other process is let through to write.
        path: Where it is.

    Raises:
        sqlite3.Error: It cannot be done; the file is as it was.
        OSError: The copy cannot be made; the file is as it was.
    """
    if not _is_old(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _is_old(connection):  # Another process may have been first.
            version = version_of(connection)
            assert version is not None  # noqa: S101 - an old one is ours
            with closing(sqlite3.connect(path, isolation_level=None)) as reader:
                copy(reader, path, Path(f"{path}.v{version}"), replaces=True)
            for each in range(version, _schema.FORMAT):
                for statement in _schema.MIGRATIONS[each]:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_schema.FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_old(connection: sqlite3.Connection) -> bool:
    version = version_of(connection)
    return version is not None and is_migratable(version)
