"""Databases of Google's ADK in SQLite files.

``SqliteSessionService`` and ``DatabaseSessionService`` have the same tables since ADK 1.22, and
differ in how they write a time. Before, actions were pickled; ADK's own command turns such a file
into one that can be read.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agentsession._wording import brief
from agentsession.sessions import SessionKey, UserKey
from agentsession.transfer._reports import FormatError
from agentsession.transfer.importers._account import UNREADABLE, decoded
from agentsession.transfer.importers._found import AppFound, SessionFound, UserFound
from agentsession.transfer.importers._sources.adk_events import Events
from agentsession.transfer.importers._sqlite import opened

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from agentsession.events import Event
    from agentsession.transfer.importers._account import Account
    from agentsession.transfer.importers._found import Sessions
    from agentsession.transfer.importers._sqlite import Database

__all__ = ["in_sqlite"]


async def in_sqlite(
    account: Account, path: str | Path, app_name: str | None, user_id: str | None
) -> Sessions:
    """Yield what a file holds.

    Args:
        account: Counts.
        path: The file.
        app_name: The application to read; ``None`` for all.
        user_id: The user to read; ``None`` for all.
    """
    async with opened(path) as database:
        await _check_schema(database)
        file = _File(account, database, app_name, user_id)
        async for each in file.found():
            yield each


async def _check_schema(database: Database) -> None:
    if "actions" in await database.columns("events"):
        msg = (
            "this database is of an ADK before 1.22, which pickles actions; turn it into a new one "
            "with 'adk migrate session --source_db_url sqlite:///old.db --dest_db_url "
            "sqlite:///new.db', and import that"
        )
        raise FormatError(msg)
    await database.check_table("app_states", "app_name", "state")
    await database.check_table("user_states", "app_name", "user_id", "state")
    await database.check_table("sessions", "app_name", "user_id", "id", "state", "create_time")
    await database.check_table("events", "id", "app_name", "user_id", "session_id", "event_data")


class _File:
    """A file.

    Args:
        account: Counts.
        database: The file.
        app_name: The application to read; ``None`` for all.
        user_id: The user to read; ``None`` for all.
    """

    def __init__(
        self, account: Account, database: Database, app_name: str | None, user_id: str | None
    ) -> None:
        self._account = account
        self._database = database
        self._app_name = app_name
        self._user_id = user_id

    async def found(self) -> Sessions:
        """Yield applications, users and sessions."""
        async for app, state in self._rows("SELECT app_name, state FROM app_states", "app_name"):
            if (read := self._state(f"app {brief(app)}", (app, "-"), state)) is not None:
                yield AppFound(app, read)
        statement = "SELECT app_name, user_id, state FROM user_states"
        async for app, user, state in self._rows(statement, "app_name", "user_id"):
            if (read := self._state(f"user {brief(user)}", (app, user), state)) is not None:
                yield UserFound(UserKey(app, user), read)
        statement = "SELECT app_name, user_id, id, state, create_time FROM sessions"
        async for app, user, session_id, state, created in self._rows(
            statement, "app_name", "user_id"
        ):
            try:
                key = SessionKey(app, user, session_id)
                found = SessionFound(
                    key=key,
                    events=self._events(key),
                    state=decoded(state),
                    created_at=_moment(created),
                )
            except UNREADABLE as exc:
                self._account.leave_out(f"session {brief(session_id)} of user {brief(user)}", exc)
                continue
            yield found
        await self._note_orphans()

    def _rows(self, statement: str, *owners: str) -> AsyncGenerator[tuple[Any, ...], None]:
        """Yield rows of whom is to be read."""
        wanted = {"app_name": self._app_name, "user_id": self._user_id}
        named = {name: wanted[name] for name in owners if wanted[name] is not None}
        where = " AND ".join(f"{name} = ?" for name in named) or "1"
        return self._database.rows(f"{statement} WHERE {where}", *named.values())

    def _state(self, place: str, ids: tuple[Any, Any], state: Any) -> dict[str, Any] | None:
        """Read the state of an application or a user, whose ids are looked at, too."""
        try:
            UserKey(*ids)
            return decoded(state)
        except UNREADABLE as exc:
            self._account.leave_out(f"state of {place}", exc)
            return None

    async def _events(self, key: SessionKey) -> AsyncGenerator[Event, None]:
        statement = (
            "SELECT rowid, id, invocation_id, timestamp, event_data FROM events WHERE "
            "app_name = ? AND user_id = ? AND session_id = ? ORDER BY timestamp, rowid"
        )
        events = Events()
        rows = self._database.rows(statement, key.app_name, key.user_id, key.session_id)
        async for row_id, event_id, invocation_id, timestamp, data in rows:
            place = f"row {row_id:,} of events"
            try:
                told = decoded(data)
                if told.get("partial"):
                    self._account.note_unmapped("chunks of a stream", place, key)
                    continue
                told.setdefault("id", event_id)
                told.setdefault("timestamp", _moment(timestamp).timestamp())
                if "invocationId" not in told:
                    told.setdefault("invocation_id", invocation_id)
                taken = events.take(told)
            except UNREADABLE as exc:
                self._account.leave_out(place, exc, key)
                continue
            for event in taken:
                yield event

    async def _note_orphans(self) -> None:
        """Name events of sessions that are gone, which foreign keys have not deleted."""
        rows = self._database.rows(
            "SELECT e.session_id, COUNT(*) FROM events e LEFT JOIN sessions s ON "
            "s.app_name = e.app_name AND s.user_id = e.user_id AND s.id = e.session_id "
            "WHERE s.id IS NULL AND (?1 IS NULL OR e.app_name = ?1) "
            "AND (?2 IS NULL OR e.user_id = ?2) GROUP BY e.app_name, e.user_id, e.session_id",
            self._app_name,
            self._user_id,
        )
        async for session_id, count in rows:
            what = "events of sessions that are gone"
            self._account.note_unmapped(what, f"those of {brief(session_id)}", count=count)


def _moment(told: Any) -> datetime:
    """Read a time: in seconds since 1970, or as a text in UTC."""
    if isinstance(told, int | float):
        return datetime.fromtimestamp(told, UTC)
    return datetime.fromisoformat(told).replace(tzinfo=UTC)
