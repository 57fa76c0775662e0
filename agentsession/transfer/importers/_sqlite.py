"""A SQLite file, read in a thread, and never written."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyio.to_thread import run_sync

from agentsession.transfer._reports import FormatError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Database", "opened", "quoted"]

_ROWS: Final = 100


class Database:
    """A file, as it was at one moment.

    Args:
        connection: A connection of its own.
        name: Names it in errors.
    """

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = name

    async def rows(
        self, statement: str, *arguments: object
    ) -> AsyncGenerator[tuple[Any, ...], None]:
        """Yield the rows that a statement finds, and hold no more than some of them.

        Raises:
            FormatError: It cannot be read.
        """
        try:
            cursor = await run_sync(self._connection.execute, statement, arguments)
            while page := await run_sync(cursor.fetchmany, _ROWS):
                for row in page:
                    yield row
        except sqlite3.Error as exc:
            msg = f"{self._name} cannot be read: {exc}"
            raise FormatError(msg) from exc

    async def columns(self, table: str) -> set[str]:
        """Return the names of a table's columns; none if there is no such table."""
        statement = f"PRAGMA table_info({quoted(table)})"
        return {row[1] async for row in self.rows(statement)}

    async def check_table(self, table: str, *columns: str) -> None:
        """Look whether there is a table with these columns.

        Raises:
            FormatError: There is none.
        """
        if missing := set(columns) - await self.columns(table):
            what = f"{', '.join(sorted(missing))} of {table!r}"
            tables = [row[0] async for row in self.rows(_TABLES)]
            msg = (
                f"{self._name} does not hold {what}; its tables are: {', '.join(tables) or 'none'}"
            )
            raise FormatError(msg)


_TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"


def quoted(name: str) -> str:
    """Quote the name of a table or a column."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


@asynccontextmanager
async def opened(path: str | Path) -> AsyncGenerator[Database, None]:
    """Open a file for reading, at the moment of the first read.

    Raises:
        FormatError: There is none, or it is of another kind.
    """
    connection = await run_sync(_connected, path)
    try:
        yield Database(connection, str(path))
    finally:
        await run_sync(connection.close)


def _connected(path: str | Path) -> sqlite3.Connection:
    address = f"{Path(path).resolve().as_uri()}?mode=ro"
    try:
        connection = sqlite3.connect(
            address, uri=True, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = _text
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.Error as exc:
        msg = f"{path} cannot be read: {exc}"
        raise FormatError(msg) from exc
    return connection


def _text(data: bytes) -> str:
    """Decode a text; one that is no UTF-8 stays one that nothing takes for another."""
    return data.decode(errors="surrogateescape")
