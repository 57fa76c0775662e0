"""What the file holds: its tables, and the version of their form.

Rules of this file:

- A session's rows are found by a number that is never given again. So a session is deleted by one
  row, whatever it held: its number goes into ``deleted``, and the rest is removed bit by bit.
- What a person would look for is text: ids, events and values that are JSON. Times are microseconds
  since 1970 in UTC, as everywhere in this library; the views have them as text.
- The views are for people, and show what the library shows. No code here reads them.
- The comments in the statements stay in the file, where ``.schema`` and other tools show them.
- Events stand in the order in which they were written, whosever they are, and so do their ids as
  the library makes them. So a transaction of many sessions' events writes to a few pages, which is
  several times as fast as one page and more for each session.
- An event that the limit has trimmed leaves its row without ``event`` as long as its id is
  remembered.

================== ============================================================================
table              holds
================== ============================================================================
``sessions``       each session: whose it is, when it was made, written to and expires, how far
                   its log is, and its lease
``events``         their logs; the payload is the event as JSON
``session_state``  their state; JSON is text, ``bytes`` are a blob that begins with a zero byte
``state_before``   what their state was before each change, to go back to
``taken_back``     what rewinds took back: all after ``to_seq`` up to ``mark``
``users``          who has state of their own, and when it expires
``user_state``     that state
``apps``           which applications have state, and when it expires
``app_state``      that state
``deleted``        sessions whose rows are still to be removed
``followers``      processes that want to be told what others write, while there are some
``news``           what was written lately, for these
================== ============================================================================

================== ============================================================================
view               shows
================== ============================================================================
``log``            the events of all sessions, each with its time, its author and its text
``state``          the state of all scopes, each value as JSON; ``bytes`` as ``x'00FF'``
``overview``       the sessions, with their times and how many events they have
================== ============================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["APPLICATION_ID", "FORMAT", "MIGRATIONS", "STATEMENTS"]

APPLICATION_ID: Final = 0x61677365
"""What the file says that it is (``PRAGMA application_id``): "agse"."""

FORMAT: Final = 1
"""The version of the tables' form (``PRAGMA user_version``)."""

MIGRATIONS: Final[Mapping[int, Sequence[str]]] = {}
"""By a version of the form: the statements that make the next one of it.

Whoever raises :data:`FORMAT` adds those of the version before; ``STATEMENTS`` makes the newest.
"""


def _time(column: str) -> str:
    """Return the text of a time, such as ``2026-11-30 19:58:09.123Z``."""
    return f"strftime('%Y-%m-%d %H:%M:%fZ', {column} / 1e6, 'unixepoch')"


def _alive(table: str) -> str:
    """Return a condition: what has expired is not shown, also where it is not swept yet."""
    present = "CAST(strftime('%s', 'now') AS INTEGER) * 1000000"
    return f"({table}.expires IS NULL OR {table}.expires > {present})"


# That the limit has not trimmed an event, nor a rewind taken it back.
_HELD: Final = """
        events.seq >= sessions.oldest_seq
        AND NOT EXISTS (
            SELECT 1 FROM taken_back
            WHERE taken_back.session = events.session
            AND events.seq > taken_back.to_seq AND events.seq <= taken_back.mark
        )
"""

# The words of an event, whose content is one text or some parts. One that is damaged has none.
_TEXT: Final = """
        CASE WHEN json_valid(events.event) THEN
            CASE json_type(events.event, '$.content')
                WHEN 'text' THEN json_extract(events.event, '$.content')
                WHEN 'array' THEN (
                    SELECT group_concat(json_extract(part.value, '$.text'), '')
                    FROM json_each(events.event, '$.content') AS part
                    WHERE json_extract(part.value, '$.type') = 'text'
                )
            END
        END
"""

# Where ``bytes`` are stored there is a zero byte before them.
_VALUE: Final = """
        CASE typeof(value) WHEN 'blob' THEN 'x''' || hex(substr(value, 2)) || '''' ELSE value END
"""

STATEMENTS: Final = (
    """
    CREATE TABLE sessions ( -- times are microseconds since 1970, UTC; the view overview has texts
        number INTEGER PRIMARY KEY AUTOINCREMENT, -- other tables have it as session
        app_name TEXT NOT NULL,
        user_id TEXT NOT NULL,
        session_id TEXT NOT NULL,
        incarnation TEXT NOT NULL, -- another one if it is deleted and made anew
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL, -- when it was written to last
        expires INTEGER, -- NULL: never
        revision INTEGER NOT NULL, -- how often it was written to
        first_seq INTEGER NOT NULL, -- where its log begins for readers
        oldest_seq INTEGER NOT NULL, -- the oldest event that is held
        last_seq INTEGER NOT NULL, -- the newest event
        last_time INTEGER NOT NULL, -- and the time of that
        rewound_at INTEGER NOT NULL, -- the newest mark of a rewind; 0: none
        cut_to INTEGER NOT NULL, -- no turn begins between oldest_seq and this
        has_before INTEGER NOT NULL, -- whether state_before may have rows of it
        lease TEXT NOT NULL, -- JSON: who may write turns, and who waits; or empty
        UNIQUE (app_name, user_id, session_id)
    )
    """,
    "CREATE INDEX sessions_by_activity ON sessions (app_name, user_id, updated, session_id)",
    "CREATE INDEX sessions_by_expiry ON sessions (expires) WHERE expires IS NOT NULL",
    """
    CREATE TABLE events ( -- the view log shows them to people
        session INTEGER NOT NULL, -- sessions.number
        seq INTEGER NOT NULL, -- its position, from 1, without gaps
        id TEXT NOT NULL,
        time INTEGER NOT NULL, -- microseconds since 1970, UTC; it never goes back in a log
        event TEXT -- JSON; NULL: trimmed, and only its id is remembered
    )
    """,
    "CREATE UNIQUE INDEX events_by_seq ON events (session, seq)",
    "CREATE INDEX events_by_id ON events (id, session)",
    """
    CREATE TABLE session_state ( -- the view state shows it to people
        session INTEGER NOT NULL, -- sessions.number
        name TEXT NOT NULL,
        value NOT NULL, -- JSON; bytes: a blob, with a zero byte before them
        PRIMARY KEY (session, name)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE state_before ( -- what session_state was before each change
        session INTEGER NOT NULL, -- sessions.number
        place REAL NOT NULL, -- the event that has changed it, or between two events
        name TEXT NOT NULL,
        value, -- as in session_state; NULL: it was not there
        PRIMARY KEY (session, place, name)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE taken_back ( -- what rewinds took back: the events after to_seq up to mark
        session INTEGER NOT NULL, -- sessions.number
        mark INTEGER NOT NULL, -- the event that tells of the rewind
        to_seq INTEGER NOT NULL,
        PRIMARY KEY (session, mark)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE users ( -- who has rows in user_state
        app_name TEXT NOT NULL,
        user_id TEXT NOT NULL,
        expires INTEGER, -- microseconds since 1970, UTC; NULL: never
        PRIMARY KEY (app_name, user_id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX users_by_expiry ON users (expires) WHERE expires IS NOT NULL",
    """
    CREATE TABLE user_state (
        app_name TEXT NOT NULL,
        user_id TEXT NOT NULL,
        name TEXT NOT NULL, -- without the prefix user:
        value NOT NULL, -- as in session_state
        PRIMARY KEY (app_name, user_id, name)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE apps ( -- which have rows in app_state
        app_name TEXT PRIMARY KEY NOT NULL,
        expires INTEGER -- microseconds since 1970, UTC; NULL: never
    ) WITHOUT ROWID
    """,
    "CREATE INDEX apps_by_expiry ON apps (expires) WHERE expires IS NOT NULL",
    """
    CREATE TABLE app_state (
        app_name TEXT NOT NULL,
        name TEXT NOT NULL, -- without the prefix app:
        value NOT NULL, -- as in session_state
        PRIMARY KEY (app_name, name)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE deleted ( -- sessions whose other rows are still to be removed
        session INTEGER PRIMARY KEY -- what was sessions.number
    )
    """,
    """
    CREATE TABLE followers ( -- processes that want to be told what others write
        process TEXT PRIMARY KEY NOT NULL, -- a name that it made up
        until INTEGER NOT NULL -- microseconds since 1970, UTC
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE news ( -- what was written lately; empty while nobody follows
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        process TEXT NOT NULL, -- whose write it was
        app_name TEXT NOT NULL,
        user_id TEXT NOT NULL,
        session_id TEXT NOT NULL,
        what TEXT NOT NULL,
        run_id TEXT NOT NULL,
        chunk BLOB NOT NULL,
        incarnation TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        events INTEGER NOT NULL -- how many
    )
    """,
    f"""
    CREATE VIEW log AS
    SELECT
        sessions.app_name, sessions.user_id, sessions.session_id, events.seq, events.id,
        {_time("events.time")} AS time,
        CASE WHEN json_valid(events.event) THEN json_extract(events.event, '$.author') END
        AS author,
        {_TEXT} AS text,
        events.event
    FROM sessions JOIN events ON events.session = sessions.number
    WHERE {_alive("sessions")} AND {_HELD}
    ORDER BY sessions.app_name, sessions.user_id, sessions.session_id, events.seq
    """,  # noqa: S608 - no data of anybody's
    f"""
    CREATE VIEW state AS
    SELECT
        'app' AS scope, app_name, NULL AS user_id, NULL AS session_id, name, {_VALUE} AS value
    FROM app_state JOIN apps USING (app_name) WHERE {_alive("apps")}
    UNION ALL
    SELECT 'user', app_name, user_id, NULL, name, {_VALUE}
    FROM user_state JOIN users USING (app_name, user_id) WHERE {_alive("users")}
    UNION ALL
    SELECT 'session', app_name, user_id, session_id, name, {_VALUE}
    FROM session_state JOIN sessions ON sessions.number = session_state.session
    WHERE {_alive("sessions")}
    """,  # noqa: S608 - no data of anybody's
    f"""
    CREATE VIEW overview AS
    SELECT
        app_name, user_id, session_id,
        {_time("created")} AS created, {_time("updated")} AS updated, {_time("expires")} AS expires,
        (SELECT count(*) FROM events WHERE events.session = sessions.number AND {_HELD}) AS events
    FROM sessions WHERE {_alive("sessions")}
    ORDER BY sessions.updated DESC
    """,  # noqa: S608 - no data of anybody's
)
"""What makes an empty file one of these."""
