"""What one row of the file says, and how rows are read. Nothing here writes.

All functions take a connection whose transaction has begun, so that what they return is of one
moment.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from agentsession.backend import SMALLEST_EVENT, Snapshot, Window
from agentsession.backend.turns import Tell, Turns
from agentsession.errors import CodecError, ReadTooLargeError, RewindError, SessionNotFoundError
from agentsession.sessions import SessionKey, UserKey

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

    from agentsession.backend import Expected, ReadLimit

__all__ = [
    "COLUMNS",
    "Head",
    "alive",
    "app_values",
    "check_place",
    "event_at",
    "find",
    "first_since",
    "head_of",
    "is_followed",
    "is_taken_back",
    "kept_to",
    "read_events",
    "runs_of",
    "session_values",
    "snapshot",
    "snapshot_of",
    "states_of",
    "to_value",
    "turns_of",
    "unexpiring",
    "user_values",
]

# So many names or numbers are asked for in one statement.
_AT_ONCE: Final = 500

COLUMNS: Final = (
    "number, app_name, user_id, session_id, incarnation, created, updated, expires, revision, "
    "first_seq, oldest_seq, last_seq, last_time, rewound_at, cut_to, has_before, lease"
)
"""The columns of a session's row, in the order of the attributes of :class:`Head`."""


class Head(Struct):
    """A session's row.

    Attributes:
        number: What its other rows are found by.
        app_name: Of its key, as are the next two.
        user_id: See above.
        session_id: See above.
        incarnation: As in :class:`~agentsession.backend.Snapshot`, as are ``created``, ``updated``,
            ``revision``, ``first_seq``, ``oldest_seq`` and ``last_seq``.
        created: See above.
        updated: See above.
        expires: When it is gone; ``None`` for never.
        revision: See above.
        first_seq: See above.
        oldest_seq: See above.
        last_seq: See above.
        last_time: The time in the log of the newest event.
        rewound_at: The position of the newest mark of a rewind; 0 if there is none.
        cut_to: No turn begins between the oldest event and this position.
        has_before: Whether there may be rows of what its state was.
        lease: What :meth:`Turns.dump <agentsession.backend.turns.Turns.dump>` returned; ``""`` if
            nobody has asked for it.
    """

    number: int
    app_name: str
    user_id: str
    session_id: str
    incarnation: str
    created: int
    updated: int
    expires: int | None
    revision: int
    first_seq: int
    oldest_seq: int
    last_seq: int
    last_time: int
    rewound_at: int
    cut_to: int
    has_before: int
    lease: str
    # Made once: they check what they are made of.
    _key: SessionKey | None = None
    _user: UserKey | None = None

    @property
    def key(self) -> SessionKey:
        """The session."""
        if self._key is None:
            self._key = SessionKey(self.app_name, self.user_id, self.session_id)
        return self._key

    @property
    def user(self) -> UserKey:
        """Its owner."""
        if self._user is None:
            self._user = UserKey(self.app_name, self.user_id)
        return self._user


def alive(expires: int | None, now: int) -> bool:
    """Tell whether what expires then has not yet."""
    return expires is None or now < expires


_FIND: Final = (
    f"SELECT {COLUMNS} FROM sessions WHERE app_name = ? AND user_id = ? AND session_id = ?"  # noqa: S608
)


def find(connection: sqlite3.Connection, key: SessionKey) -> Head | None:
    """Return a session's row, also if it has expired."""
    row = connection.execute(_FIND, (key.app_name, key.user_id, key.session_id)).fetchone()
    return None if row is None else Head(*row)


def head_of(head: Head | None, key: SessionKey, now: int, expected: Expected | None = None) -> Head:
    """Return a row if it is that of a session that is there, and is the expected one.

    Raises:
        SessionNotFoundError: It is not.
    """
    if head is None or not alive(head.expires, now):
        raise SessionNotFoundError(key)
    if expected is not None and expected.incarnation not in ("", head.incarnation):
        raise SessionNotFoundError(key, replaced=True)
    return head


# -- the log


def runs_of(
    connection: sqlite3.Connection,
    head: Head,
    first: int,
    last: int,
    most: int,
    *,
    newest_first: bool = False,
    raw: bool = False,
) -> list[range]:
    """Return the positions of up to *most* events, which are held and were not taken back.

    Args:
        connection: The file.
        head: The session.
        first: None before this one.
        last: None after this one.
        most: How many there may be.
        newest_first: Whether they are the last that there are rather than the first.
        raw: Whether they may have been taken back.
    """
    first, last = max(first, head.oldest_seq), min(last, head.last_seq)
    runs: list[range] = []
    if raw or not head.rewound_at:
        pieces: Iterable[range] = (range(first, last + 1),)
    elif newest_first:
        pieces = _from_the_end(connection, head, first, last)
    else:
        pieces = _from_the_start(connection, head, first, last)
    for piece in pieces:
        if not most:
            break
        part = piece[-most:] if newest_first else piece[:most]
        most -= len(part)
        if part:
            runs.append(part)
    return runs[::-1] if newest_first else runs


def _from_the_end(
    connection: sqlite3.Connection, head: Head, first: int, last: int
) -> Iterator[range]:
    """Yield what was not taken back, the newest run first."""
    # The first gap that ends at the last position or after it may hold it.
    gap = connection.execute(
        "SELECT mark, to_seq FROM taken_back WHERE session = ? AND mark >= ? ORDER BY mark LIMIT 1",
        (head.number, last),
    ).fetchone()
    if gap is not None and gap[1] < last:
        last = gap[1]
    for mark, to_seq in connection.execute(
        "SELECT mark, to_seq FROM taken_back WHERE session = ? AND mark <= ? ORDER BY mark DESC",
        (head.number, last),
    ):
        if mark < first:
            break
        if mark < last:
            yield range(mark + 1, last + 1)
        last = min(last, to_seq)
    if first <= last:
        yield range(first, last + 1)


def _from_the_start(
    connection: sqlite3.Connection, head: Head, first: int, last: int
) -> Iterator[range]:
    """Yield what was not taken back, the oldest run first."""
    for mark, to_seq in connection.execute(
        "SELECT mark, to_seq FROM taken_back WHERE session = ? AND mark >= ? ORDER BY mark",
        (head.number, first),
    ):
        if to_seq >= last:
            break
        if to_seq >= first:
            yield range(first, to_seq + 1)
        first = mark + 1
    if first <= last:
        yield range(first, last + 1)


def is_taken_back(connection: sqlite3.Connection, head: Head, seq: int) -> bool:
    """Tell whether a rewind took back the event at a position."""
    return bool(seq) and _to_seq(connection, head, seq) < seq


def kept_to(connection: sqlite3.Connection, head: Head, seq: int) -> int:
    """Tell how far those stand who have read up to a position at any time."""
    return min(seq, _to_seq(connection, head, seq + 1))


def _to_seq(connection: sqlite3.Connection, head: Head, seq: int) -> int:
    """Return where the first gap begins that ends at a position or after it; else the position."""
    if not head.rewound_at:
        return seq
    row: tuple[int] | None = connection.execute(
        "SELECT to_seq FROM taken_back WHERE session = ? AND mark >= ? ORDER BY mark LIMIT 1",
        (head.number, seq),
    ).fetchone()
    return seq if row is None else row[0]


_EVENTS: Final = (
    "SELECT CAST(event AS BLOB) FROM events WHERE session = ? AND seq BETWEEN ? AND ? ORDER BY seq"
)


def read_events(
    connection: sqlite3.Connection,
    head: Head,
    runs: Sequence[range],
    read_limit: ReadLimit | None = None,
) -> list[bytes]:
    """Return the events at these positions, all of which are held.

    Raises:
        ReadTooLargeError: They are more than *read_limit*.
    """
    found: list[bytes] = []
    size = 0
    is_limited = read_limit is not None and sum(map(len, runs)) > read_limit.harmless
    for run in runs:
        for (event,) in connection.execute(_EVENTS, (head.number, run[0], run[-1])):
            found.append(event)
            size += len(event)
            if read_limit is not None and is_limited and size > read_limit.size:
                # So no more is held than one read may return, and one event.
                found.clear()
                _refuse(connection, head, runs, read_limit)
    if read_limit is not None:
        read_limit.check(head.key, found)
    return found


def _refuse(
    connection: sqlite3.Connection, head: Head, runs: Sequence[range], read_limit: ReadLimit
) -> None:
    """Refuse a read that is too large, and tell how large it is.

    Raises:
        ReadTooLargeError: Always, unless the events are too few to be refused.
    """
    count = sum(map(len, runs))
    size = sum(
        connection.execute(
            "SELECT sum(length(CAST(event AS BLOB))) FROM events "
            "WHERE session = ? AND seq BETWEEN ? AND ?",
            (head.number, run[0], run[-1]),
        ).fetchone()[0]
        for run in runs
    )
    raise ReadTooLargeError(head.key, count, max(size, count * SMALLEST_EVENT), read_limit.size)


def event_at(connection: sqlite3.Connection, head: Head, seq: int) -> bytes:
    """Return the event at a position; ``b""`` if the limit has trimmed it."""
    return b"" if seq < head.oldest_seq else read_events(connection, head, [range(seq, seq + 1)])[0]


def first_since(connection: sqlite3.Connection, head: Head, time: int) -> int:
    """Return the position of the first held event at a time in the log, or later.

    Times grow with positions, so it is found in some 17 steps among 100,000 events.
    """
    low, high = head.oldest_seq, head.last_seq + 1
    while low < high:
        middle = (low + high) // 2
        (found,) = connection.execute(
            "SELECT time FROM events WHERE session = ? AND seq = ?", (head.number, middle)
        ).fetchone()
        if found < time:
            low = middle + 1
        else:
            high = middle
    return low


def check_place(
    connection: sqlite3.Connection, head: Head, seq: int, *, restores_state: bool
) -> None:
    """Refuse to go back to where the log has no event, or where state cannot be had.

    Raises:
        RewindError: It is not to be had.
    """
    if seq > head.last_seq:
        raise RewindError(head.key, seq, "ahead")
    if 0 < seq < head.oldest_seq:
        raise RewindError(head.key, seq, "trimmed")
    if is_taken_back(connection, head, seq):
        raise RewindError(head.key, seq, "taken_back")
    if not seq and restores_state and head.oldest_seq > 1:
        raise RewindError(head.key, seq, "state_trimmed")


# -- state


def to_value(value: bytes) -> bytes | str:
    """Return what is stored of an encoded value: text, if it is JSON."""
    if value[:1] == b"\0":
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def session_values(connection: sqlite3.Connection, number: int) -> dict[str, bytes]:
    """Return a session's state."""
    return dict(
        connection.execute(
            "SELECT name, CAST(value AS BLOB) FROM session_state WHERE session = ?", (number,)
        ).fetchall()
    )


def user_values(connection: sqlite3.Connection, user: UserKey, now: int) -> dict[str, bytes]:
    """Return a user's state, unless it has expired."""
    return dict(
        connection.execute(
            "SELECT name, CAST(value AS BLOB) FROM user_state JOIN users USING (app_name, user_id) "
            "WHERE app_name = ? AND user_id = ? AND (expires IS NULL OR expires > ?)",
            (user.app_name, user.user_id, now),
        ).fetchall()
    )


def app_values(connection: sqlite3.Connection, app_name: str, now: int) -> dict[str, bytes]:
    """Return an application's state, unless it has expired."""
    return dict(
        connection.execute(
            "SELECT name, CAST(value AS BLOB) FROM app_state JOIN apps USING (app_name) "
            "WHERE app_name = ? AND (expires IS NULL OR expires > ?)",
            (app_name, now),
        ).fetchall()
    )


def states_of(connection: sqlite3.Connection, heads: Sequence[Head]) -> dict[int, dict[str, bytes]]:
    """Return the state of each of some sessions, by number."""
    found: dict[int, dict[str, bytes]] = {head.number: {} for head in heads}
    numbers = [*found]
    for start in range(0, len(numbers), _AT_ONCE):
        part = numbers[start : start + _AT_ONCE]
        asked = ",".join("?" * len(part))
        for number, name, value in connection.execute(
            "SELECT session, name, CAST(value AS BLOB) FROM session_state "  # noqa: S608
            f"WHERE session IN ({asked})",
            part,
        ):
            found[number][name] = value
    return found


# -- whole sessions


def snapshot(connection: sqlite3.Connection, head: Head, window: Window, now: int) -> Snapshot:
    """Return a session with its scopes and the events in a window.

    Raises:
        ReadTooLargeError: The events are more than the window allows.
    """
    first = window.after_seq + 1
    if window.since is not None:
        first = max(first, first_since(connection, head, window.since))
    most = head.last_seq if window.last is None else window.last
    runs = runs_of(connection, head, first, head.last_seq, most, newest_first=True)
    return snapshot_of(
        head,
        app=app_values(connection, head.app_name, now),
        user=user_values(connection, head.user, now),
        session=session_values(connection, head.number),
        events=read_events(connection, head, runs, window.read_limit),
        seqs=[*chain.from_iterable(runs)],
        kept_to=kept_to(connection, head, window.after_seq),
    )


def snapshot_of(
    head: Head,
    *,
    app: dict[str, bytes],
    user: dict[str, bytes],
    session: dict[str, bytes],
    events: Sequence[bytes] = (),
    seqs: Sequence[int] = (),
    kept_to: int = 0,
) -> Snapshot:
    """Return a session as it is handed out."""
    return Snapshot(
        session_id=head.session_id,
        incarnation=head.incarnation,
        created=head.created,
        updated=head.updated,
        revision=head.revision,
        last_seq=head.last_seq,
        app=app,
        user=user,
        session=session,
        events=events,
        seqs=seqs,
        first_seq=head.first_seq,
        oldest_seq=head.oldest_seq,
        kept_to=kept_to,
    )


def unexpiring(connection: sqlite3.Connection) -> list[str]:
    """Name everything that would never expire."""
    return [
        " ".join(row)
        for table, columns in (
            ("sessions", "app_name, user_id, session_id"),
            ("users", "app_name, user_id"),
            ("apps", "app_name"),
        )
        for row in connection.execute(f"SELECT {columns} FROM {table} WHERE expires IS NULL")  # noqa: S608
    ]


def is_followed(connection: sqlite3.Connection, process: str, now: int) -> bool:
    """Tell whether another process wants to be told of what is written."""
    (found,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM followers WHERE process != ? AND until > ?)", (process, now)
    ).fetchone()
    return bool(found)


def turns_of(head: Head, tell: Tell) -> Turns:
    """Return the lease of a session.

    Raises:
        CodecError: It is not in our format.
    """
    try:
        return Turns(tell, head.lease.encode())
    except msgspec.DecodeError as error:
        raise CodecError(head.key, f"its lease is unreadable: {error}") from error
