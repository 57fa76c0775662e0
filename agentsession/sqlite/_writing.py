"""The operations that write: each is one step of a transaction, which it shares with others.

Each gets the transaction's :class:`~agentsession.sqlite._work.Work`, checks everything, and only
then changes something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from agentsession.backend import (
    NO_EVENTS,
    NO_REPEATS,
    News,
    Receipt,
    Standing,
)
from agentsession.errors import (
    LeaseLostError,
    RevisionConflictError,
    RewindError,
    SessionExistsError,
)
from agentsession.sessions import SessionKey
from agentsession.sqlite import _log, _records
from agentsession.sqlite._records import alive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentsession.backend import (
        Before,
        Beginning,
        Claim,
        Entry,
        Expected,
        Snapshot,
        Then,
        Window,
    )
    from agentsession.backend.turns import Turns
    from agentsession.events import Rewind
    from agentsession.sessions import UserKey
    from agentsession.sqlite._records import Head
    from agentsession.sqlite._work import Owner, Work
    from agentsession.state import Changes, ScopeChanges

__all__ = [
    "acquire",
    "append",
    "change_app",
    "change_user",
    "create",
    "delete",
    "delete_user",
    "fork",
    "get",
    "get_or_create",
    "note_past",
    "release",
    "renew",
    "stop",
    "sweep",
    "touch",
    "update_state",
]

# Where a user has more sessions than that, followers are only told to look when they are deleted.
_TOLD_AT_ONCE: Final = 1000
# In bytes; larger events are read by those who follow, at their own pace.
_LARGEST_TOLD: Final = 16_384


# -- sessions


def create(
    work: Work, key: SessionKey, changes: Changes, token: str, beginning: Beginning
) -> Snapshot:
    now = work.clock()
    head = work.find_alive(key, now)
    if head is None:
        head = _make(work, key, changes, token, now)
        _log.begin(work, head, beginning)
    elif head.incarnation != token:
        raise SessionExistsError(key)
    return _snapshot(work, head, NO_EVENTS, now)


def fork(
    work: Work,
    key: SessionKey,
    new_key: SessionKey,
    at_seq: int | None,
    token: str,
    expected: Expected,
) -> Snapshot:
    now = work.clock()
    head = work.find_alive(new_key, now)
    if head is None:
        origin = work.need(key, now, expected)
        if at_seq is not None:
            _records.check_place(work.connection, origin, at_seq, restores_state=True)
            if origin.lease:
                _log.turns_of(work, origin).check_rewind(key, "", at_seq)
        head = _make(work, new_key, None, token, now)
        _log.copy(work, origin, head, at_seq, now)
    elif head.incarnation != token:
        raise SessionExistsError(new_key)
    return _snapshot(work, head, NO_EVENTS, now)


def get_or_create(
    work: Work, key: SessionKey, changes: Changes, window: Window, token: str
) -> Snapshot:
    now = work.clock()
    head = work.find_alive(key, now)
    if head is not None:
        return _read(work, head, window, now)
    return _snapshot(work, _make(work, key, changes, token, now), window, now)


def get(work: Work, key: SessionKey, window: Window) -> Snapshot | None:
    """Read a session where reading extends the life of what is read."""
    now = work.clock()
    head = work.find_alive(key, now)
    return None if head is None else _read(work, head, window, now)


def touch(work: Work, key: SessionKey, incarnation: str) -> None:
    """Begin the life of a session anew, and of nothing else, if it is there still."""
    now = work.clock()
    head = work.find_alive(key, now)
    if head is not None and head.incarnation == incarnation:
        _touch(work, head, now)


def delete(work: Work, key: SessionKey, expected: Expected) -> None:
    head = work.find_alive(key, work.clock())
    if head is not None and expected.incarnation in ("", head.incarnation):
        work.remove(head)
        _tell(work, head, "deleted")


def delete_user(work: Work, user: UserKey) -> None:
    ids = work.remove_all(user)
    whose = (user.app_name, user.user_id)
    for table in ("users", "user_state"):
        work.connection.execute(
            f"DELETE FROM {table} WHERE app_name = ? AND user_id = ?",  # noqa: S608 - of our own
            whose,
        )
    work.owner(user).has_state = False
    if len(ids) > _TOLD_AT_ONCE:
        work.tell_all()
    else:
        for session_id in ids:
            key = SessionKey(user.app_name, user.user_id, session_id)
            work.tell(key, News(session_id, "deleted"))


def sweep(work: Work, most: int) -> int:
    """Remove up to so many expired sessions, and return how many; and all expired state."""
    now = work.clock()
    for key in (removed := work.remove_expired(now, most)):
        work.tell(key, None)
    work.remove_expired_state(now)
    return len(removed)


# -- the log


def append(
    work: Work, key: SessionKey, entries: Sequence[Entry], expected: Expected, then: Then
) -> Receipt:
    now = work.clock()
    head = work.need(key, now, expected)
    ids = [entry.event_id for entry in entries]
    oldest_known = _log.oldest_known(head, work.retention.event_limit)
    known = work.known(head, ids, oldest_known) if ids else {}
    new = _new(entries, known)
    newest, oldest = head.last_seq, head.oldest_seq
    turns = _log.turns_of(work, head) if head.lease else None
    if new or not entries:
        _check_lease(key, turns, expected, now, then)
        if expected.revision is not None and expected.revision != head.revision:
            raise RevisionConflictError(key, expected.revision, head.revision)
    if new:
        if entries[0].rewind is not None:
            _check_rewind(work, head, entries[0].rewind, entries, new, turns, expected)
        for entry in new.values():
            _add(work, head, entry, turns, expected, now)
            known[entry.event_id] = head.last_seq
    seqs = [known[event_id] for event_id in ids]
    repeats = NO_REPEATS
    if len(new) < len(seqs):
        repeats = _repeats(work, head, seqs, newest, oldest)
    if new:
        _log.trim(work, head, work.retention.event_limit)
        _written(work, head, now)
    ended = ""
    if turns is not None:
        ended = turns.written(expected.lease, then, now, seqs) if then != "keep" else ""
        _log.store_turns(work, head, turns)
    if new or ended:
        _tell(work, head, "ended" if ended else "written", ended)
    if new and len(new) == len(entries) and work.is_followed:
        _tell_events(work, head, newest + 1, [entry.payload for entry in entries])
    return _receipt(head, seqs, repeats)


def _new(entries: Sequence[Entry], known: Mapping[str, int]) -> dict[str, Entry]:
    """Return the entries that the log does not know, the first one of each id."""
    new: dict[str, Entry] = {}
    for entry in entries:
        if entry.event_id not in known:
            new.setdefault(entry.event_id, entry)
    return new


def _add(
    work: Work, head: Head, entry: Entry, turns: Turns | None, expected: Expected, now: int
) -> None:
    """Add an entry to the log, and do what it asks for."""
    _log.add(work, head, entry, now)
    if entry.rewind is not None:
        _log.rewind(work, head, entry.rewind, is_copy=entry.is_copy)
        if turns is not None:
            turns.rewind(expected.lease)
    if entry.changes:
        _apply(work, head, entry.changes, now, head.last_seq)


def _check_rewind(
    work: Work,
    head: Head,
    rewind: Rewind,
    entries: Sequence[Entry],
    new: Mapping[str, Entry],
    turns: Turns | None,
    expected: Expected,
) -> None:
    """Refuse to add entries if the mark that they begin with is new, and asks for too much."""
    if entries[0].event_id not in new:
        return
    to_seq = rewind.to_seq
    if not (entries[0].is_copy and to_seq < head.oldest_seq):
        work.flush()
        _records.check_place(work.connection, head, to_seq, restores_state=rewind.restores_state)
    if turns is not None:
        turns.check_rewind(head.key, expected.lease, to_seq)
    if any(entry.event_id not in new for entry in entries):
        raise RewindError(head.key, to_seq, "stored")


def _repeats(
    work: Work, head: Head, seqs: Sequence[int], newest: int, oldest: int
) -> dict[int, bytes]:
    """Return what is stored of each entry that was not added after *newest*, in its turn."""
    work.flush()
    repeats: dict[int, bytes] = {}
    for index, seq in enumerate(seqs):
        if seq > newest:
            newest = seq
        else:
            repeats[index] = b"" if seq < oldest else _records.event_at(work.connection, head, seq)
    return repeats


def note_past(work: Work, key: SessionKey, earlier: Sequence[Before], expected: Expected) -> None:
    now = work.clock()
    head = work.need(key, now, expected)
    if _log.note_all(work, head, earlier):
        _written(work, head, now)


# -- state


def update_state(work: Work, key: SessionKey, changes: Changes, expected: Expected) -> Receipt:
    now = work.clock()
    head = work.need(key, now, expected)
    _check_lease(key, _log.turns_of(work, head) if head.lease else None, expected, now)
    if changes:
        _apply(work, head, changes, now, head.last_seq + 0.5)
        _written(work, head, now)
        _tell(work, head, "written")
    return _receipt(head, [], NO_REPEATS)


def change_user(work: Work, user: UserKey, changes: ScopeChanges) -> None:
    _change_user(work, user, changes, work.clock())


def change_app(work: Work, app_name: str, changes: ScopeChanges) -> None:
    _change_app(work, app_name, changes, work.clock())


def _apply(work: Work, head: Head, changes: Changes, now: int, place: float | None) -> None:
    _log.apply(work, head, changes.session, place)
    if changes.user:
        _change_user(work, head.user, changes.user, now)
    if changes.app:
        _change_app(work, head.app_name, changes.app, now)


def _change_user(work: Work, user: UserKey, changes: ScopeChanges, now: int) -> None:
    """Apply changes to a user's state, or only begin its life anew."""
    owner: Owner = work.owner(user)
    whose = (user.app_name, user.user_id)
    if owner.has_state and not alive(owner.expires, now):
        work.clear("user_state", whose)
        owner.has_state = False
    work.change_values("user_state", whose, changes)
    has_state = work.has_values("user_state", whose) if changes else owner.has_state
    expires = _end_of_life(now, work.retention.user_state_ttl)
    if has_state:
        if not owner.has_state or owner.expires != expires:
            work.connection.execute("REPLACE INTO users VALUES (?, ?, ?)", (*whose, expires))
    else:
        work.connection.execute("DELETE FROM users WHERE app_name = ? AND user_id = ?", whose)
    owner.has_state, owner.expires = has_state, expires


def _change_app(work: Work, app_name: str, changes: ScopeChanges, now: int) -> None:
    """Apply changes to an application's state, or only begin its life anew."""
    whose = (app_name,)
    row = work.connection.execute("SELECT expires FROM apps WHERE app_name = ?", whose).fetchone()
    if row is not None and not alive(row[0], now):
        work.clear("app_state", whose)
        row = None
    work.change_values("app_state", whose, changes)
    has_state = work.has_values("app_state", whose) if changes else row is not None
    if has_state:
        expires = _end_of_life(now, work.retention.app_state_ttl)
        work.connection.execute("REPLACE INTO apps VALUES (?, ?)", (app_name, expires))
    else:
        work.connection.execute("DELETE FROM apps WHERE app_name = ?", whose)


# -- leases


def acquire(work: Work, key: SessionKey, claim: Claim, expected: Expected) -> Standing:
    now = work.clock()
    head = work.need(key, now, expected)
    turns = _log.turns_of(work, head)
    newest = turns.newest_token
    standing = turns.acquire(claim, now=now, last_seq=head.last_seq, incarnation=head.incarnation)
    _log.store_turns(work, head, turns)
    if turns.newest_token != newest:
        _tell(work, head, "began", standing.run_id)
    if standing.state == "held":
        _prolong(work, head, now)
    return standing


def renew(work: Work, key: SessionKey, owner: str, ttl: int) -> Standing:
    now = work.clock()
    head = work.need(key, now)
    turns = _log.turns_of(work, head)
    standing = turns.renew(owner, ttl, now=now, incarnation=head.incarnation)
    if standing is None:
        raise LeaseLostError(key)
    _log.store_turns(work, head, turns)
    _prolong(work, head, now)
    return standing


def release(work: Work, key: SessionKey, owner: str) -> None:
    now = work.clock()
    head = work.find_alive(key, now)
    if head is not None and head.lease:
        turns = _log.turns_of(work, head)
        ended = turns.release(owner, now)
        _log.store_turns(work, head, turns)
        if ended:
            _tell(work, head, "ended", ended)


def stop(work: Work, key: SessionKey, run_id: str | None) -> str | None:
    now = work.clock()
    head = work.need(key, now)
    turns = _log.turns_of(work, head)
    stopped = turns.stop(run_id, now)
    _log.store_turns(work, head, turns)
    return stopped


def _check_lease(
    key: SessionKey, turns: Turns | None, expected: Expected, now: int, then: Then = "keep"
) -> None:
    if turns is not None:
        turns.check(key, expected.lease, then, now)
    elif expected.lease:
        raise LeaseLostError(key)


# -- what they have in common


def _make(work: Work, key: SessionKey, changes: Changes | None, incarnation: str, now: int) -> Head:
    head = work.add_session(key, incarnation, now)
    _touch(work, head, now)
    if changes is not None:
        _apply(work, head, changes, now, None)
    _tell(work, head, "made")
    return head


def _written(work: Work, head: Head, now: int) -> None:
    head.revision += 1
    head.updated = work.moment(head.user, now)
    _touch(work, head, now)


def _touch(work: Work, head: Head, now: int) -> None:
    head.expires = _end_of_life(now, work.retention.session_ttl)
    work.change(head)


def _prolong(work: Work, head: Head, now: int) -> None:
    """Move the end of a session's life ahead, if it has one, and never nearer."""
    expires = _end_of_life(now, work.retention.session_ttl)
    if head.expires is not None and expires is not None and expires > head.expires:
        head.expires = expires
        work.change(head)


def _end_of_life(now: int, ttl: int) -> int | None:
    """Return when something expires that is written to now; *ttl* is in milliseconds."""
    return now + ttl * 1000 if ttl else None


def _read(work: Work, head: Head, window: Window, now: int) -> Snapshot:
    """Read a session, and have that count as a write for its life, if it does."""
    found = _snapshot(work, head, window, now)
    if work.retention.refresh_on_read:
        _touch(work, head, now)
        _change_user(work, head.user, {}, now)
        _change_app(work, head.app_name, {}, now)
    return found


def _snapshot(work: Work, head: Head, window: Window, now: int) -> Snapshot:
    work.flush()
    return _records.snapshot(work.connection, head, window, now)


def _tell(
    work: Work,
    head: Head,
    what: Literal["made", "written", "began", "ended", "deleted"],
    run_id: str = "",
) -> None:
    work.tell(head.key, News(head.session_id, what, run_id))


def _tell_events(work: Work, head: Head, first_seq: int, events: Sequence[bytes]) -> None:
    """Tell of the events of an append, unless they are large, so that nobody has to read them."""
    if sum(map(len, events)) <= _LARGEST_TOLD:
        news = News(
            head.session_id,
            "events",
            incarnation=head.incarnation,
            first_seq=first_seq,
            events=(*events,),
        )
        work.tell(head.key, news)


def _receipt(head: Head, seqs: Sequence[int], repeats: Mapping[int, bytes]) -> Receipt:
    return Receipt(
        seqs,
        head.revision,
        head.last_seq,
        head.updated,
        head.incarnation,
        repeats,
        head.oldest_seq if head.oldest_seq > 1 else 0,
    )
