"""What a write does to one session: its log, its state, and what its state was."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Final

from agentsession.backend import NEW, REMEMBERED_IDS, TRIM_LOOK, Before, next_turn
from agentsession.sqlite import _records
from agentsession.sqlite._records import to_value

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from agentsession.backend import Beginning, Entry
    from agentsession.backend.turns import Turns
    from agentsession.events import Rewind
    from agentsession.sqlite._records import Head
    from agentsession.sqlite._work import Work
    from agentsession.state import ScopeChanges

__all__ = [
    "add",
    "apply",
    "begin",
    "copy",
    "note_all",
    "oldest_known",
    "read_past",
    "rewind",
    "store_turns",
    "trim",
    "turns_of",
]

# Trimmed events are removed so many at a time; nobody sees them before that either.
_STRIDE: Final = 32


# -- the log


def begin(work: Work, head: Head, beginning: Beginning) -> None:
    """Begin as a session does that was kept elsewhere before."""
    if beginning == NEW:
        return
    if beginning.created:
        head.created = beginning.created
        work.connection.execute(
            "UPDATE sessions SET created = ? WHERE number = ?", (head.created, head.number)
        )
    head.last_seq = beginning.after_seq
    head.oldest_seq = beginning.after_seq + 1
    if beginning.taken_to:
        _take_back(work, head, beginning.after_seq, beginning.taken_to)
    head.first_seq = beginning.first_seq
    work.change(head)


def add(work: Work, head: Head, entry: Entry, now: int) -> None:
    """Add an event at the end; its time is held to *now*, and moved past the last one's."""
    time = min(entry.time, now)
    if head.last_seq >= head.oldest_seq:
        time = max(time, head.last_time + 1)
    work.add_event(head, entry.event_id, time, entry.payload)


def oldest_known(head: Head, limit: int) -> int:
    """Return the position from which on the log knows ids, though the event may be trimmed."""
    return head.last_seq - limit - REMEMBERED_IDS + 1 if limit else 0


def trim(work: Work, head: Head, limit: int) -> None:
    """Drop the oldest events beyond *limit*, if there is one, and ids trimmed long ago."""
    if not limit:
        return
    before = head.oldest_seq
    if head.last_seq - before + 1 > limit:
        head.oldest_seq = head.last_seq - limit + 1
        if head.oldest_seq > head.cut_to:
            _drop_rest_of_turn(work, head, min(TRIM_LOOK, limit // 2))
        if head.rewound_at:
            work.connection.execute(
                "DELETE FROM taken_back WHERE session = ? AND mark < ?",
                (head.number, head.oldest_seq - 1),
            )
        if before // _STRIDE < head.oldest_seq // _STRIDE:
            work.flush()
            work.connection.execute(
                "UPDATE events SET event = NULL WHERE session = ? AND seq >= ? AND seq < ?",
                (head.number, before // _STRIDE * _STRIDE, head.oldest_seq),
            )
            work.connection.execute(
                "DELETE FROM events WHERE session = ? AND seq < ?",
                (head.number, oldest_known(head, limit)),
            )
    if head.oldest_seq > 1 and head.has_before:
        # What goes back further than to right after the oldest event that is held.
        work.connection.execute(
            "DELETE FROM state_before WHERE session = ? AND place <= ?",
            (head.number, head.oldest_seq),
        )


def _drop_rest_of_turn(work: Work, head: Head, look: int) -> None:
    """Drop what is left of a turn that was cut, if that is less than so many events."""
    work.flush()
    last = min(head.oldest_seq + look - 1, head.last_seq)
    around = _records.read_events(work.connection, head, [range(head.oldest_seq - 1, last + 1)])
    found = next_turn(around[0], around[1:])
    head.cut_to = head.oldest_seq + (len(around) - 1 if found is None else found)
    head.oldest_seq += found or 0


def _take_back(work: Work, head: Head, to_seq: int, mark: int) -> None:
    """Take back all after a position up to the mark of a rewind."""
    work.connection.execute(
        "DELETE FROM taken_back WHERE session = ? AND mark > ?", (head.number, to_seq)
    )
    work.connection.execute("INSERT INTO taken_back VALUES (?, ?, ?)", (head.number, mark, to_seq))
    head.rewound_at = mark
    if not to_seq:
        head.first_seq = mark + 1


def rewind(work: Work, head: Head, asked: Rewind, *, is_copy: bool) -> None:
    """Go back to an event, now that the mark is the newest one; a copy leaves state alone."""
    mark = head.last_seq
    _take_back(work, head, asked.to_seq, mark)
    undone = _undone(work, head, asked.to_seq)
    if head.has_before:
        work.connection.execute(
            "DELETE FROM state_before WHERE session = ? AND place > ?", (head.number, asked.to_seq)
        )
    if is_copy:
        return
    if asked.restores_state:
        work.change_values("session_state", (head.number,), undone)
    else:
        _keep(work, head, mark, undone)


def copy(work: Work, origin: Head, head: Head, at_seq: int | None, now: int) -> None:
    """Take the log and the state of another session, as they were right after an event.

    Args:
        work: The transaction.
        origin: The other session.
        head: The new one.
        at_seq: The event; ``None`` for as they are.
        now: The present.
    """
    work.flush()
    connection = work.connection
    seq = origin.last_seq if at_seq is None else at_seq
    place = seq if at_seq is not None else seq + 0.5
    pair = (head.number, origin.number)
    for table, columns, place_of in (
        ("events", "seq, id, time, event", "seq"),
        ("taken_back", "mark, to_seq", "mark"),
        ("state_before", "place, name, value", "place"),
    ):
        connection.execute(
            f"INSERT INTO {table} SELECT ?, {columns} FROM {table} "  # noqa: S608
            f"WHERE session = ? AND {place_of} <= ?",
            (*pair, place),
        )
    connection.execute(
        "INSERT INTO session_state SELECT ?, name, value FROM session_state WHERE session = ?", pair
    )
    head.last_seq = seq
    head.oldest_seq = min(origin.oldest_seq, seq + 1)
    head.has_before = origin.has_before
    (head.last_time,) = connection.execute(
        "SELECT coalesce(max(time), 0) FROM events WHERE session = ? AND seq = ?",
        (head.number, seq),
    ).fetchone()
    for mark, to_seq in connection.execute(
        "SELECT mark, to_seq FROM taken_back WHERE session = ? ORDER BY mark", (head.number,)
    ):
        head.rewound_at = mark
        if not to_seq:
            head.first_seq = mark + 1
    if origin.first_seq <= seq + 1:
        head.first_seq = origin.first_seq
    if at_seq is not None:
        work.change_values("session_state", (head.number,), _undone(work, origin, at_seq))
    elif origin.lease:
        turns = turns_of(work, origin).forked(seq, now, _teller(work, head))
        head.lease = turns.dump().decode()
    work.change(head)


# -- state, and what it was


def apply(work: Work, head: Head, changes: ScopeChanges, place: float | None) -> None:
    """Apply changes to a session's state, and note what was before; at ``None`` nothing was."""
    if not changes:
        return
    if place is not None:
        _note(work, head, place, changes)
    work.change_values("session_state", (head.number,), changes)


def _note(work: Work, head: Head, place: float, changes: ScopeChanges) -> None:
    """Note what changes will do to a session's state, at a place.

    Of several changes of one name at one place only the first matters, and none if the name has its
    old value again.
    """
    current = work.values_of(head, changes)
    noted: dict[str, bytes | None] = {}
    if head.has_before:
        noted.update(
            work.connection.execute(
                "SELECT name, CAST(value AS BLOB) FROM state_before "
                "WHERE session = ? AND place = ?",
                (head.number, place),
            ).fetchall()
        )
    undone: dict[str, bytes | None] = {}
    back: list[tuple[int, float, str]] = []
    for name, new in changes.items():
        old = current.get(name)
        if name not in noted:
            if new != old:
                undone[name] = old
        elif noted[name] == new:
            back.append((head.number, place, name))
    if back:
        work.connection.executemany(
            "DELETE FROM state_before WHERE session = ? AND place = ? AND name = ?", back
        )
    _keep(work, head, place, undone)


def _keep(work: Work, head: Head, place: float, undone: Mapping[str, bytes | None]) -> None:
    """Keep what undoes the changes at a place."""
    if not undone:
        return
    work.connection.executemany(
        "REPLACE INTO state_before VALUES (?, ?, ?, ?)",
        [
            (head.number, place, name, None if value is None else to_value(value))
            for name, value in undone.items()
        ],
    )
    if not head.has_before:
        head.has_before = 1
        work.change(head)


def _undone(work: Work, head: Head, seq: int) -> dict[str, bytes | None]:
    """Return what takes state back to how it was right after an event."""
    if not head.has_before:
        return {}
    # Of the changes of one name, the first one after the event has what it was then.
    return dict(
        work.connection.execute(
            "SELECT name, CAST(value AS BLOB) FROM state_before "
            "WHERE session = ? AND place > ? ORDER BY place DESC",
            (head.number, seq),
        ).fetchall()
    )


def note_all(work: Work, head: Head, earlier: Sequence[Before]) -> bool:
    """Note what comes after the newest place that is known; tell whether there was any."""
    (newest,) = work.connection.execute(
        "SELECT coalesce(max(place), 0) FROM state_before WHERE session = ?", (head.number,)
    ).fetchone()
    new = [each for each in earlier if each.at > newest]
    for each in new:
        _keep(work, head, each.at, each.was)
    return bool(new)


def read_past(
    connection: sqlite3.Connection, head: Head, after: float, limit: int
) -> tuple[list[Before], bool]:
    """Return up to *limit* names of whole places after one, or one place; and if there is more."""
    found: list[Before] = []
    names = 0
    rows = connection.execute(
        "SELECT place, name, CAST(value AS BLOB) FROM state_before "
        "WHERE session = ? AND place > ? ORDER BY place",
        (head.number, after),
    )
    for place, each in groupby(rows, key=_place):
        was = {name: value for _, name, value in each}
        names += len(was)
        if found and names > limit:
            return found, True
        found.append(Before(place, was))
    return found, False


def _place(row: tuple[float, str, bytes | None]) -> float:
    return row[0]


# -- the lease


def turns_of(work: Work, head: Head) -> Turns:
    """Return the lease of a session.

    Raises:
        CodecError: It is not in our format.
    """
    return _records.turns_of(head, _teller(work, head))


def store_turns(work: Work, head: Head, turns: Turns) -> None:
    """Keep the lease of a session."""
    lease = turns.dump().decode()
    if lease != head.lease:
        head.lease = lease
        work.change(head)


def _teller(work: Work, head: Head) -> partial[None]:
    return partial(work.tell_owner, head.key)
