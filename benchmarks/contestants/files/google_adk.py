"""google-adk: ``SqliteSessionService`` and ``DatabaseSessionService`` on SQLite.

Both append one event at a time to a session object that the caller holds, as its runner does.
Neither pages: a page is the list of all, cut. Each is here as it opens a file, and with the file in
WAL mode: with ``PRAGMA journal_mode``, which stays with a file, before the first one opens it, and
by a listener of the second one's engine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from google.adk.events import Event
from google.adk.sessions import DatabaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types
from sqlalchemy import event as events_of_sqlalchemy

from benchmarks.cases import Setup
from benchmarks.contestants.files.base import OnFile
from benchmarks.driver import APP, LAST, PAGE, USER, main
from benchmarks.messages import Message, words

# Between two events of a history, in seconds.
_STEP = 0.001
_FEW = 64


class GoogleADK(OnFile):
    """What both share, and their tables are alike."""

    service: Any

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._held: dict[str, Any] = {}

    async def seed(self, sessions: Sequence[str]) -> None:
        # One by one, each with a sync or three, thousands would take minutes: one of a kind is
        # written by the service, and rows like its are made of it.
        made = sessions if len(sessions) <= _FEW else sessions[:1]
        for session in made:
            self._held[session] = await self.service.create_session(
                app_name=APP, user_id=USER, session_id=session
            )
            if self.setup.history:
                await self.append(session, (words(self.setup.size),))
        with closing(sqlite3.connect(self.file, timeout=30)) as connection, connection:
            connection.row_factory = sqlite3.Row
            for session in made:
                _lengthen(connection, session, self.setup.history)
            _multiply(connection, sessions[0], sessions[len(made) :])

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        held = self._held[session]
        for message in messages:
            await self.service.append_event(held, _event(message))

    async def get_last(self, session: str) -> int:
        config = GetSessionConfig(num_recent_events=LAST)
        found = await self.service.get_session(
            app_name=APP, user_id=USER, session_id=session, config=config
        )
        return len(found.events)

    async def list_page(self) -> int:
        found = await self.service.list_sessions(app_name=APP, user_id=USER)
        return len(found.sessions[-PAGE:])

    async def aclose(self) -> None:
        await self.service.close()


class Sqlite(GoogleADK):
    """``SqliteSessionService``, which opens the file anew for each call."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.service = SqliteSessionService(str(self.file))

    async def pragma(self, name: str) -> Any:
        async with self.service._get_db_connection() as connection:  # noqa: SLF001 - no other way
            async with connection.execute(f"PRAGMA {name}") as cursor:
                (found,) = await cursor.fetchone()
            return found


class SqliteInWAL(Sqlite):
    """The same, on a file in WAL mode."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        with closing(sqlite3.connect(self.file)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")


class Database(GoogleADK):
    """``DatabaseSessionService``, with its default pool of connections."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.service = DatabaseSessionService(f"sqlite+aiosqlite:///{self.file}")

    async def pragma(self, name: str) -> Any:
        async with self.service.db_engine.connect() as connection:
            found = await connection.exec_driver_sql(f"PRAGMA {name}")
            return found.scalar_one()


class DatabaseInWAL(Database):
    """The same, in WAL mode."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        engine = self.service.db_engine.sync_engine
        events_of_sqlalchemy.listen(engine, "connect", _use_wal)


def _use_wal(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()


def _lengthen(connection: sqlite3.Connection, session: str, history: int) -> None:
    """Put events before the only one of a session."""
    if history > 1:
        query = "SELECT * FROM events WHERE session_id = ?"
        (row,) = connection.execute(query, (session,)).fetchall()
        _insert(connection, "events", _earlier(dict(row), history - 1))


def _earlier(row: dict[str, Any], count: int) -> Iterator[dict[str, Any]]:
    moment = row["timestamp"]
    last = moment if isinstance(moment, float) else _seconds(moment)
    for number in range(count):
        new, then = str(uuid4()), last - (count - number) * _STEP
        data = row["event_data"].replace(row["id"], new)
        written = then if isinstance(moment, float) else _worded(then)
        yield {**row, "id": new, "timestamp": written, "event_data": data}


def _multiply(connection: sqlite3.Connection, session: str, others: Sequence[str]) -> None:
    """Make rows of sessions like one."""
    (row,) = connection.execute("SELECT * FROM sessions WHERE id = ?", (session,)).fetchall()
    _insert(connection, "sessions", ({**dict(row), "id": other} for other in others))


def _insert(connection: sqlite3.Connection, table: str, rows: Iterator[dict[str, Any]]) -> None:
    columns = [column["name"] for column in connection.execute(f"PRAGMA table_info({table})")]
    places = ", ".join(f":{column}" for column in columns)
    connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()


def _worded(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _event(message: Message) -> Event:
    content = types.Content(role="user", parts=[types.Part(text=message.text)])
    return Event(author=message.author, invocation_id="turn", content=content)


if __name__ == "__main__":
    main(
        {
            "SqliteSessionService": Sqlite,
            "SqliteSessionService, WAL": SqliteInWAL,
            "DatabaseSessionService": Database,
            "DatabaseSessionService, WAL": DatabaseInWAL,
        }
    )
