"""Sessions of OpenAI Agents: files of its ``SQLiteSession``, and keys of its ``RedisSession``.

Their items become the events that :class:`agentsession.adapters.openai_agents.AgentSession` makes
of them, so that it gives them back as they are.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from agentsession._wording import brief
from agentsession.adapters._items.openai import FRAMEWORK, event_of
from agentsession.transfer.importers._account import UNREADABLE, decoded
from agentsession.transfer.importers._found import SessionFound, target_of
from agentsession.transfer.importers._redis import connected, literal
from agentsession.transfer.importers._sources.tool_names import ToolNames
from agentsession.transfer.importers._sqlite import opened, quoted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from agentsession.events import Event
    from agentsession.transfer.importers._account import Account
    from agentsession.transfer.importers._found import Sessions, To
    from agentsession.transfer.importers._redis import Keys, Server
    from agentsession.transfer.importers._sqlite import Database

__all__ = ["in_redis", "in_sqlite"]

_ENCRYPTED: Final = "__enc__"
_MESSAGES: Final = ":messages"


class _Items:
    """The items of one session, made into events one after the other."""

    def __init__(self, account: Account, agent: str) -> None:
        self._account = account
        self._agent = agent
        self._tools = ToolNames()

    def event(self, place: str, name: str, data: str | bytes) -> Event | None:
        """Make an event of an item; ``None`` if it is left out.

        Args:
            place: Where it is.
            name: What tells it from others of its session.
            data: The item, as JSON.
        """
        try:
            item = decoded(data)
        except ValueError as exc:
            self._account.leave_out(place, exc)
            return None
        if _ENCRYPTED in item:
            self._account.note_unmapped("the words of encrypted items", place)
        event = self._tools.named(event_of(item, self._agent))
        return msgspec.structs.replace(event, id=f"{FRAMEWORK}-{name}")


async def in_sqlite(
    account: Account,
    path: str | Path,
    to: To,
    *,
    sessions_table: str,
    messages_table: str,
    agent: str,
) -> Sessions:
    """Yield the sessions of a file.

    Args:
        account: Counts.
        path: The file.
        to: Who takes them.
        sessions_table: The table of sessions.
        messages_table: The table of items.
        agent: The author of what the assistant says.
    """
    async with opened(path) as database:
        await database.check_table(sessions_table, "session_id", "created_at")
        await database.check_table(messages_table, "id", "session_id", "message_data", "created_at")
        file = _File(account, database, messages_table, agent)
        await file.look_for_branches()
        sessions, messages = quoted(sessions_table), quoted(messages_table)
        # Foreign keys are not enforced there: items may be left of a session that is gone.
        statement = (
            f"SELECT session_id, created_at FROM {sessions} UNION ALL "  # noqa: S608 - quoted
            f"SELECT session_id, MIN(created_at) FROM {messages} WHERE session_id NOT IN "
            f"(SELECT session_id FROM {sessions}) GROUP BY session_id"
        )
        async for session_id, created_at in database.rows(statement):
            async for each in file.sessions(session_id, created_at, to):
                yield each


class _File:
    """A file of ``SQLiteSession`` or ``AdvancedSQLiteSession``.

    The latter has branches of a session, which share items: a table says which items, and in what
    order, are in which branch.

    Args:
        account: Counts.
        database: The file.
        table: The table of items.
        agent: The author of what the assistant says.
    """

    def __init__(self, account: Account, database: Database, table: str, agent: str) -> None:
        self._account = account
        self._database = database
        self._name = table
        self._table = quoted(table)
        self._agent = agent
        self._has_branches = False

    async def look_for_branches(self) -> None:
        """Look whether sessions have branches, and name what of them has no place here."""
        columns = await self._database.columns("message_structure")
        self._has_branches = {"session_id", "message_id", "branch_id"} <= columns
        if await self._database.columns("turn_usage"):
            async for count, first in self._database.rows(
                "SELECT COUNT(*), MIN(session_id) FROM turn_usage"
            ):
                if count:
                    self._account.note_unmapped(
                        "counts of used tokens", f"of session {brief(first)}", count=count
                    )

    async def sessions(self, session_id: str, created_at: str, to: To) -> Sessions:
        """Yield a session, and its branches as sessions of their own."""
        place = f"session {brief(session_id)}"
        for branch in await self._branches(session_id):
            is_main = branch in ("", "main")
            try:
                key = target_of(to, session_id if is_main else f"{session_id}:{branch}")
                created = _moment(created_at)
            except UNREADABLE as exc:
                self._account.leave_out(place, exc)
                return
            events = self._events(session_id, branch, created)
            yield SessionFound(key=key, events=events, created_at=created)
        if self._has_branches:
            await self._note_unplaced(session_id)

    async def _branches(self, session_id: str) -> list[str]:
        """Return the branches of a session, the main one first; one without a name is all of it."""
        if not self._has_branches:
            return [""]
        statement = "SELECT DISTINCT branch_id FROM message_structure WHERE session_id = ?"
        found = {row[0] async for row in self._database.rows(statement, session_id)}
        return ["main", *sorted(found - {"main"})] if found else [""]

    async def _note_unplaced(self, session_id: str) -> None:
        """Name the items that are in no branch, if others of their session are."""
        statement = (
            f"SELECT id FROM {self._table} WHERE session_id = ?1 AND EXISTS "  # noqa: S608 - quoted
            "(SELECT 1 FROM message_structure WHERE session_id = ?1) AND id NOT IN "
            "(SELECT message_id FROM message_structure WHERE session_id = ?1)"
        )
        async for (row_id,) in self._database.rows(statement, session_id):
            self._account.note_unmapped("items in no branch", self._place(row_id))

    async def _events(
        self, session_id: str, branch: str, created_at: datetime
    ) -> AsyncGenerator[Event, None]:
        statement = (
            f"SELECT id, message_data, created_at FROM {self._table} "  # noqa: S608 - quoted
            "WHERE session_id = ? ORDER BY id"
        )
        rows = self._database.rows(statement, session_id)
        if branch:
            statement = (
                f"SELECT m.id, m.message_data, m.created_at FROM {self._table} m "  # noqa: S608
                "JOIN message_structure s ON m.id = s.message_id "
                "WHERE m.session_id = ? AND s.branch_id = ? ORDER BY s.sequence_number"
            )
            rows = self._database.rows(statement, session_id, branch)
        items = _Items(self._account, self._agent)
        at = created_at
        async for row_id, data, told in rows:
            with suppress(*UNREADABLE):
                at = _moment(told)
            event = items.event(self._place(row_id), str(row_id), data)
            if event is not None:
                yield msgspec.structs.replace(event, timestamp=at)

    def _place(self, row_id: int) -> str:
        return f"row {row_id:,} of {self._name}"


def _moment(text: str) -> datetime:
    """Read a time as SQLite's ``CURRENT_TIMESTAMP`` writes it, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def in_redis(
    account: Account, server: Server, to: To, *, key_prefix: str, agent: str
) -> Sessions:
    """Yield the sessions of a server.

    Args:
        account: Counts.
        server: The server.
        to: Who takes them.
        key_prefix: With what their keys begin.
        agent: The author of what the assistant says.
    """
    async with connected(server) as keys:
        async for key in keys.scan(f"{literal(key_prefix)}:*{_MESSAGES}"):
            if await keys.kind(key) != "list":
                continue  # A session's hash, whose id ends so.
            session_id = key[len(key_prefix) + 1 : -len(_MESSAGES)]
            try:
                target = target_of(to, session_id)
            except UNREADABLE as exc:
                account.leave_out(f"key {brief(key)}", exc)
                continue
            created_at = await _created_at(keys, key.removesuffix(_MESSAGES))
            account.note_expiry(await keys.time_to_live(key))
            events = _listed(account, keys, key, agent)
            yield SessionFound(key=target, events=events, created_at=created_at, has_times=False)


async def _created_at(keys: Keys, key: str) -> datetime | None:
    if await keys.kind(key) == "hash":
        (told,) = await keys.values(key, ["created_at"])
        with suppress(*UNREADABLE, OSError):
            return datetime.fromtimestamp(int(told or b""), UTC)
    return None


async def _listed(
    account: Account, keys: Keys, key: str, agent: str
) -> AsyncGenerator[Event, None]:
    items = _Items(account, agent)
    number = 0
    async for data in keys.items(key):
        number += 1
        event = items.event(f"item {number:,} of key {brief(key)}", str(number), data)
        if event is not None:
            yield event
