"""The operations that only read; each on the file as it is at one moment."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from agentsession.backend import EventSlice, PastSlice, Position, SessionSlice, UserSlice
from agentsession.errors import SessionNotFoundError
from agentsession.sqlite import _log, _records
from agentsession.sqlite._records import Head

if TYPE_CHECKING:
    import sqlite3

    from agentsession.backend import Expected, ReadLimit, Snapshot, Window
    from agentsession.sessions import SessionKey, UserKey

__all__ = ["get", "list_sessions", "list_users", "locate", "read", "read_past"]


def get(
    connection: sqlite3.Connection, key: SessionKey, window: Window, now: int
) -> Snapshot | None:
    head = _records.find(connection, key)
    if head is None or not _records.alive(head.expires, now):
        return None
    return _records.snapshot(connection, head, window, now)


def read(
    connection: sqlite3.Connection,
    key: SessionKey,
    now: int,
    *,
    after_seq: int,
    before_seq: int | None,
    limit: int,
    newest_first: bool,
    raw: bool,
    read_limit: ReadLimit | None,
    after_id: str,
    expected: Expected,
) -> EventSlice:
    head = _records.head_of(_records.find(connection, key), key, now, expected)
    if after_id and head.oldest_seq <= after_seq <= head.last_seq:
        known = connection.execute(
            "SELECT id FROM events WHERE session = ? AND seq = ?", (head.number, after_seq)
        ).fetchone()
        if known != (after_id,):
            raise SessionNotFoundError(key, replaced=True)
    last = head.last_seq if before_seq is None else before_seq - 1
    runs = _records.runs_of(
        connection, head, after_seq + 1, last, limit, newest_first=newest_first, raw=raw
    )
    return EventSlice(
        [*chain.from_iterable(runs)],
        _records.read_events(connection, head, runs, read_limit),
        head.incarnation,
        head.first_seq,
        head.rewound_at,
        head.last_seq,
    )


def locate(
    connection: sqlite3.Connection, key: SessionKey, event_id: str, now: int, expected: Expected
) -> int | None:
    head = _records.head_of(_records.find(connection, key), key, now, expected)
    row = connection.execute(
        "SELECT max(seq) FROM events WHERE session = ? AND id = ? AND seq >= ?",
        (head.number, event_id, head.oldest_seq),
    ).fetchone()
    seq: int | None = row[0]
    return seq


def read_past(
    connection: sqlite3.Connection,
    key: SessionKey,
    now: int,
    *,
    after: float,
    limit: int,
    expected: Expected,
) -> PastSlice:
    head = _records.head_of(_records.find(connection, key), key, now, expected)
    earlier, more = _log.read_past(connection, head, after, limit)
    turns = _records.turns_of(head, _tell_nobody)
    return PastSlice(
        earlier=earlier,
        more=more,
        turn=turns.left(head.last_seq, now),
        revision=head.revision,
        incarnation=head.incarnation,
    )


def _tell_nobody(owner: str) -> None:
    """Take no notice of an owner: whoever reads changes nothing that they would have to know."""


def list_sessions(
    connection: sqlite3.Connection, user: UserKey, limit: int, before: Position | None, now: int
) -> SessionSlice:
    place = (1 << 62, "") if before is None else (before.updated, before.session_id)
    rows = connection.execute(
        f"SELECT {_records.COLUMNS} FROM sessions "  # noqa: S608 - no data of anybody's
        "WHERE app_name = ? AND user_id = ? AND (updated, session_id) < (?, ?) "
        "AND (expires IS NULL OR expires > ?) ORDER BY updated DESC, session_id DESC LIMIT ?",
        (user.app_name, user.user_id, *place, now, limit + 1),
    ).fetchall()
    heads = [Head(*row) for row in rows[:limit]]
    app = _records.app_values(connection, user.app_name, now)
    own = _records.user_values(connection, user, now)
    states = _records.states_of(connection, heads)
    found = [
        _records.snapshot_of(head, app=app, user=own, session=states[head.number]) for head in heads
    ]
    goes_on = len(rows) > limit
    return SessionSlice(
        found, Position(found[-1].updated, found[-1].session_id) if goes_on else None
    )


def list_users(
    connection: sqlite3.Connection, app_name: str, limit: int, after: str, now: int
) -> UserSlice:
    found: list[str] = []
    while True:
        row = connection.execute(
            "SELECT min(user_id) FROM ("
            "SELECT min(user_id) AS user_id FROM sessions WHERE app_name = ?1 AND user_id > ?2 "
            "UNION ALL SELECT min(user_id) FROM users WHERE app_name = ?1 AND user_id > ?2)",
            (app_name, after),
        ).fetchone()
        if row[0] is None:
            return UserSlice(found, None)
        after = row[0]
        (is_there,) = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM users WHERE app_name = ?1 AND user_id = ?2 "
            "AND (expires IS NULL OR expires > ?3)) OR EXISTS (SELECT 1 FROM sessions "
            "WHERE app_name = ?1 AND user_id = ?2 AND (expires IS NULL OR expires > ?3))",
            (app_name, after, now),
        ).fetchone()
        if is_there:
            if len(found) == limit:
                return UserSlice(found, found[-1])
            found.append(after)
