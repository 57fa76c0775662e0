"""What one transaction does to the file: rows that it knows, and rows that it is going to write.

Operations check everything first and change these afterwards, so that a refused one leaves no
trace among those that share its transaction. What they change is written in few statements at the
end (:meth:`Work.flush`), or sooner where an operation reads what another one has added.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from agentsession.backend import News
from agentsession.sessions import SessionKey, UserKey
from agentsession.sqlite import _records
from agentsession.sqlite._records import Head, alive, to_value

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from agentsession.backend import Expected
    from agentsession.clock import Clock
    from agentsession.retention import Retention
    from agentsession.state import ScopeChanges

__all__ = ["Owner", "Told", "Work"]

# So many rows of sessions and users are remembered from one transaction to the next.
_REMEMBERED: Final = 20_000
_AT_ONCE: Final = 500
# Rows of a deleted session that are removed in one go, which takes some milliseconds.
_PURGED_AT_ONCE: Final = 1000
# So many news are kept for those who have not looked yet, and up to as many more.
_NEWS_KEPT: Final = 2000
# A process that follows says so for so many microseconds.
_FOLLOWS_FOR: Final = 30_000_000

# How many rows one statement writes or looks for: what is left over takes a few smaller ones. The
# interpreter's lock is let go of and taken again for each statement and each row, and where the
# event loop is busy that takes milliseconds, so the fewer the better.
_ROWS: Final = (64, 32, 16, 8, 4, 2, 1)

_ADD: Final = "INSERT INTO events VALUES {}"
_NEW: Final = "(?, ?, ?, ?, CAST(? AS TEXT))"
_CHANGE: Final = (
    "UPDATE sessions SET updated = new.column2, expires = new.column3, revision = new.column4, "
    "first_seq = new.column5, oldest_seq = new.column6, last_seq = new.column7, "
    "last_time = new.column8, rewound_at = new.column9, cut_to = new.column10, "
    "has_before = new.column11, lease = new.column12 "
    "FROM (VALUES {}) AS new WHERE number = new.column1"
)
_CHANGED: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LOOK_UP: Final = (
    "SELECT session, id, seq FROM (VALUES {}) AS new "
    "CROSS JOIN events ON session = new.column1 AND id = new.column2"
)


class Owner(Struct):
    """What is known of a user: when a session was written to last, and the life of their state.

    Attributes:
        newest: When any of the user's sessions was written to last; 0 if none was.
        has_state: Whether there is a row for the user's state.
        expires: When that state is gone; ``None`` for never.
    """

    newest: int
    has_state: bool
    expires: int | None


class Told(Struct, frozen=True):
    """Something to tell once it is in the file.

    Attributes:
        key: The session; ``None`` for everybody's.
        news: For those who follow it; ``None`` if they are to look for themselves.
        owner: For the claim of this name instead; else ``""``.
    """

    key: SessionKey | None = None
    news: News | None = None
    owner: str = ""


class Work:
    """The rows of one connection that writes.

    Args:
        connection: The file.
        retention: What to keep and for how long.
        clock: The present.
        process: What this process calls itself in the file.
        is_followed_here: Tells whether anybody follows in this process.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        retention: Retention,
        clock: Clock,
        process: str,
        is_followed_here: Callable[[], bool],
    ) -> None:
        self.connection = connection
        self.retention = retention
        self.clock = clock
        self.process = process
        self._is_followed_here = is_followed_here
        # For everybody, and for other processes alone, since those of this one know already.
        self.told: list[Told] = []
        self.told_elsewhere: list[Told] = []
        # Until when another process has asked to be told of what is written here.
        self.followed_until = 0
        # Whether there are rows of deleted sessions.
        self.has_deleted = True
        self._heads: dict[SessionKey, Head | None] = {}
        self._owners: dict[UserKey, Owner] = {}
        self._changed: dict[int, Head] = {}
        self._events: list[tuple[int, int, str, int, bytes]] = []
        # Of this transaction: which ids were added, which were looked for, and those that were
        # found, each with the number of its session.
        self._added: dict[tuple[int, str], int] = {}
        self._sought: set[tuple[int, str]] = set()
        self._found: dict[tuple[int, str], int] = {}

    # -- between transactions

    def forget(self) -> None:
        """Forget all rows: another process has written, or a transaction has failed."""
        self._heads.clear()
        self._owners.clear()
        self._changed.clear()
        self._events.clear()
        self.told.clear()
        self.told_elsewhere.clear()

    def begin(self) -> None:
        """Begin a transaction; nothing else has written since the last one."""
        if len(self._heads) > _REMEMBERED:
            self._heads.clear()
        if len(self._owners) > _REMEMBERED:
            self._owners.clear()
        self._added.clear()
        self._sought.clear()
        self._found.clear()

    def flush(self) -> None:
        """Write what was changed."""
        if self._events:
            self._run(_ADD, _NEW, self._events)
            self._events.clear()
        if self._changed:
            changed = [
                (
                    head.number,
                    head.updated,
                    head.expires,
                    head.revision,
                    head.first_seq,
                    head.oldest_seq,
                    head.last_seq,
                    head.last_time,
                    head.rewound_at,
                    head.cut_to,
                    head.has_before,
                    head.lease,
                )
                for head in self._changed.values()
            ]
            self._run(_CHANGE, _CHANGED, changed)
            self._changed.clear()

    def _run(
        self, statement: str, row: str, rows: Sequence[Sequence[object]]
    ) -> list[tuple[int, str, int]]:
        """Run a statement on many rows, in as few steps as that takes."""
        found: list[tuple[int, str, int]] = []
        start = 0
        for size in _ROWS:
            while len(rows) - start >= size:
                words = statement.format(", ".join([row] * size))
                values = [*chain.from_iterable(rows[start : start + size])]
                found += self.connection.execute(words, values).fetchall()
                start += size
        return found

    # -- sessions

    def find(self, key: SessionKey) -> Head | None:
        """Return a session's row, also if it has expired."""
        try:
            return self._heads[key]
        except KeyError:
            head = self._heads[key] = _records.find(self.connection, key)
            return head

    def find_alive(self, key: SessionKey, now: int) -> Head | None:
        """Return a session's row, unless it has expired."""
        head = self.find(key)
        return head if head is not None and alive(head.expires, now) else None

    def need(self, key: SessionKey, now: int, expected: Expected | None = None) -> Head:
        """Return the row of a session that is there, and is the expected one.

        Raises:
            SessionNotFoundError: It is not.
        """
        return _records.head_of(self.find(key), key, now, expected)

    def change(self, head: Head) -> None:
        """Note that a row has changed."""
        self._changed[head.number] = head

    def add_session(self, key: SessionKey, incarnation: str, now: int) -> Head:
        """Add a session, in place of an expired one."""
        expired = self.find(key)
        if expired is not None:
            self.remove(expired)
        moment = self.moment(key.user, now)
        row = (*_identity(key), incarnation, moment, moment, None, 1, 1, 1, 0, 0, 0, 0, 0, "")
        number = self.connection.execute(
            f"INSERT INTO sessions ({_records.COLUMNS}) "  # noqa: S608 - no data of anybody's
            f"VALUES (NULL{', ?' * len(row)})",
            row,
        ).lastrowid
        assert number is not None  # noqa: S101 - an INSERT has one
        head = self._heads[key] = Head(number, *row)
        return head

    def remove(self, head: Head) -> None:
        """Remove a session; what it held is removed bit by bit by :meth:`purge`."""
        self.connection.execute("DELETE FROM sessions WHERE number = ?", (head.number,))
        self.connection.execute("INSERT INTO deleted VALUES (?)", (head.number,))
        self.has_deleted = True
        self._changed.pop(head.number, None)
        # Events that were not written yet would stay for ever; there are any only in a transaction
        # in which the session was written to before.
        self._events = [row for row in self._events if row[0] != head.number]
        self._heads[head.key] = None

    def remove_all(self, user: UserKey) -> list[str]:
        """Remove all sessions of a user, and return their ids."""
        self.flush()
        whose = (user.app_name, user.user_id)
        ids = [
            session_id
            for (session_id,) in self.connection.execute(
                "SELECT session_id FROM sessions WHERE app_name = ? AND user_id = ?", whose
            )
        ]
        self.connection.execute(
            "INSERT INTO deleted SELECT number FROM sessions WHERE app_name = ? AND user_id = ?",
            whose,
        )
        self.has_deleted = True
        self.connection.execute("DELETE FROM sessions WHERE app_name = ? AND user_id = ?", whose)
        for session_id in ids:
            self._heads[SessionKey(user.app_name, user.user_id, session_id)] = None
        return ids

    def remove_expired(self, now: int, most: int) -> list[SessionKey]:
        """Remove up to so many expired sessions, and return their keys."""
        self.flush()
        expired = self.connection.execute(
            f"SELECT {_records.COLUMNS} FROM sessions WHERE expires <= ? LIMIT ?",  # noqa: S608
            (now, most),
        ).fetchall()
        heads = [Head(*row) for row in expired]
        for head in heads:
            self.remove(head)
        return [head.key for head in heads]

    def purge(self) -> bool:
        """Remove some rows of a deleted session; tell whether there are more to remove."""
        found = self.connection.execute("SELECT session FROM deleted LIMIT 1").fetchone()
        if found is None:
            self.has_deleted = False
            return False
        for table, place in (
            ("events", "seq"),
            ("session_state", "name"),
            ("state_before", "place, name"),
            ("taken_back", "mark"),
        ):
            removed = self.connection.execute(
                f"DELETE FROM {table} WHERE session = ? AND ({place}) IN "  # noqa: S608
                f"(SELECT {place} FROM {table} WHERE session = ? LIMIT ?)",
                (*found, *found, _PURGED_AT_ONCE),
            ).rowcount
            if removed == _PURGED_AT_ONCE:
                return True
        self.connection.execute("DELETE FROM deleted WHERE session = ?", found)
        return True

    # -- the order of a user's sessions

    def owner(self, user: UserKey) -> Owner:
        """Return what is known of a user."""
        try:
            return self._owners[user]
        except KeyError:
            pass
        # Whose sessions were written to in this transaction is known, so nothing of them waits.
        whose = (user.app_name, user.user_id)
        (newest,) = self.connection.execute(
            "SELECT max(updated) FROM sessions WHERE app_name = ? AND user_id = ?", whose
        ).fetchone()
        row = self.connection.execute(
            "SELECT expires FROM users WHERE app_name = ? AND user_id = ?", whose
        ).fetchone()
        owner = Owner(newest or 0, row is not None, None if row is None else row[0])
        self._owners[user] = owner
        return owner

    def moment(self, user: UserKey, now: int) -> int:
        """Return the moment of a write: after all before it, also if the clock went back.

        So the list has the order of the writes, and a session never seems older than it was.
        """
        owner = self.owner(user)
        owner.newest = max(now, owner.newest + 1)
        return owner.newest

    # -- the log

    def add_event(self, head: Head, event_id: str, time: int, payload: bytes) -> None:
        """Add an event at the end of a log, at a time in the log."""
        head.last_seq += 1
        head.last_time = time
        self._events.append((head.number, head.last_seq, event_id, time, payload))
        self._added[head.number, event_id] = head.last_seq

    def look_up(self, wanted: Sequence[tuple[SessionKey, Sequence[str]]]) -> None:
        """Look for the ids of some appends all at once."""
        sought = [
            (head.number, event_id)
            for key, ids in wanted
            if (head := self.find(key)) is not None and head.last_seq
            for event_id in ids
        ]
        self._sought.update(sought)
        for number, event_id, seq in self._run(_LOOK_UP, "(?, ?)", sought):
            self._found[number, event_id] = seq

    def known(self, head: Head, ids: Sequence[str], oldest: int) -> dict[str, int]:
        """Return the positions of those ids that the log knows from a position on."""
        known: dict[str, int] = {}
        number = head.number
        for event_id in ids:
            place = number, event_id
            seq = self._added.get(place)
            if seq is None and head.last_seq and place not in self._sought:
                self.look_up([(head.key, ids)])
            if seq is None:
                seq = self._found.get(place, 0)
            if seq and seq >= oldest:
                known[event_id] = seq
        return known

    # -- state

    def change_values(self, table: str, whose: Sequence[int | str], changes: ScopeChanges) -> None:
        """Apply changes to the state of one session, user or application."""
        gone = [(*whose, name) for name, value in changes.items() if value is None]
        new = [
            (*whose, name, to_value(value)) for name, value in changes.items() if value is not None
        ]
        where = _WHERE[table]
        if gone:
            self.connection.executemany(
                f"DELETE FROM {table} WHERE {where} AND name = ?",  # noqa: S608
                gone,
            )
        if new:
            places = ", ".join("?" * len(new[0]))
            self.connection.executemany(f"REPLACE INTO {table} VALUES ({places})", new)  # noqa: S608

    def clear(self, table: str, whose: Sequence[int | str]) -> None:
        """Remove the state of one user or application."""
        self.connection.execute(f"DELETE FROM {table} WHERE {_WHERE[table]}", whose)  # noqa: S608

    def has_values(self, table: str, whose: Sequence[int | str]) -> bool:
        """Tell whether there is any state of one user or application."""
        (found,) = self.connection.execute(
            f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {_WHERE[table]})",  # noqa: S608
            whose,
        ).fetchone()
        return bool(found)

    def remove_expired_state(self, now: int) -> None:
        """Remove the state of all users and applications that has expired."""
        for rows, values, whose in (
            ("users", "user_state", "app_name, user_id"),
            ("apps", "app_state", "app_name"),
        ):
            removed = self.connection.execute(
                f"DELETE FROM {values} WHERE ({whose}) IN "  # noqa: S608
                f"(SELECT {whose} FROM {rows} WHERE expires <= ?)",
                (now,),
            ).rowcount
            if removed:
                self.connection.execute(f"DELETE FROM {rows} WHERE expires <= ?", (now,))  # noqa: S608
                self.flush()
                self._owners.clear()

    def values_of(self, head: Head, names: Iterable[str]) -> dict[str, bytes]:
        """Return what some names of a session's state hold."""
        found: dict[str, bytes] = {}
        left = iter(names)
        while part := [*islice(left, _AT_ONCE)]:
            asked = ",".join("?" * len(part))
            found.update(
                self.connection.execute(
                    "SELECT name, CAST(value AS BLOB) FROM session_state "  # noqa: S608
                    f"WHERE session = ? AND name IN ({asked})",
                    (head.number, *part),
                ).fetchall()
            )
        return found

    # -- news

    def tell(self, key: SessionKey, news: News | None) -> None:
        """Tell those who follow, once it is in the file."""
        self.told.append(Told(key, news))

    def tell_all(self) -> None:
        """Tell everybody to look for themselves, once it is in the file."""
        self.told.append(Told())

    def tell_owner(self, key: SessionKey, owner: str) -> None:
        """Tell the owner of a claim that there is news for it."""
        self.told.append(Told(key, owner=owner))

    @property
    def is_followed(self) -> bool:
        """Whether anybody follows, here or in another process."""
        return self._is_followed_here() or bool(self.followed_until)

    def look_for_followers(self) -> None:
        """Look whether another process wants to be told."""
        (until,) = self.connection.execute(
            "SELECT max(until) FROM followers WHERE process != ?", (self.process,)
        ).fetchone()
        self.followed_until = until or 0

    def register(self, now: int) -> None:
        """Say that this process follows, for some time."""
        self.connection.execute("DELETE FROM followers WHERE until < ?", (now,))
        self.look_for_followers()
        if not self.followed_until:
            self.connection.execute("DELETE FROM news")
        self.connection.execute(
            "REPLACE INTO followers VALUES (?, ?)", (self.process, now + _FOLLOWS_FOR)
        )

    def store_news(self, now: int) -> None:
        """Put what is to be told where other processes find it, if any asked for it."""
        told = [*self.told, *self.told_elsewhere]
        self.told_elsewhere.clear()
        if not told or self.followed_until < now:
            return
        number = 0
        for each in told:
            number = (
                self.connection.execute(
                    "INSERT INTO news VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (self.process, *_words(each)),
                ).lastrowid
                or 0
            )
        if number % _NEWS_KEPT < len(told):
            self.connection.execute("DELETE FROM news WHERE number <= ?", (number - _NEWS_KEPT,))


def _words(told: Told) -> tuple[str | int | bytes, ...]:
    """Return a row of the table of news, without its number and the process."""
    identity = ("", "", "") if told.key is None else _identity(told.key)
    if told.owner:
        return (*identity, "owner", told.owner, b"", "", 0, 0)
    news = told.news
    if news is None:
        return (*identity, "look", "", b"", "", 0, 0)
    # The events themselves are in the log.
    place = (news.incarnation, news.first_seq, len(news.events))
    return (*identity, news.what, news.run_id, news.chunk, *place)


_WHERE: Final = {
    "session_state": "session = ?",
    "user_state": "app_name = ? AND user_id = ?",
    "app_state": "app_name = ?",
}


def _identity(key: SessionKey) -> tuple[str, str, str]:
    return key.app_name, key.user_id, key.session_id
