"""The records of the memory backend: plain data; when to lock them is decided elsewhere."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Collection, Mapping
from itertools import chain, islice, takewhile
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

from agentsession.backend import NEW, REMEMBERED_IDS, TRIM_LOOK, Before, Entry, next_turn
from agentsession.errors import RewindError
from agentsession.state import Changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentsession.backend import Beginning
    from agentsession.backend.turns import Tell, Turns
    from agentsession.events import Rewind
    from agentsession.sessions import SessionKey, UserKey
    from agentsession.state import ScopeChanges

__all__ = [
    "Log",
    "Mortal",
    "Place",
    "Scope",
    "Staged",
    "StoredSession",
    "User",
    "Values",
    "seqs_of",
]

# More names than this are not looked at one by one, which would take more than some milliseconds.
_NAMES_AT_ONCE: Final = 20_000

Place: TypeAlias = tuple[int, str]
"""Where a session is in its user's list: when it was last written to, and its id."""


class Values:
    """Names and encoded values, which readers get without a copy.

    What was read is never changed: the first change after a read makes a copy. So a page of large
    sessions takes no longer than one of small ones.
    """

    __slots__ = ("_read", "_values")

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._read = False

    def __bool__(self) -> bool:
        return bool(self._values)

    def read(self) -> dict[str, bytes]:
        """Return them as they are now, and will be in this dict."""
        self._read = True
        return self._values

    def read_now(self) -> Mapping[str, bytes]:
        """Return them for as long as nothing is changed."""
        return self._values

    def change(self, changes: ScopeChanges) -> None:
        """Apply changes."""
        if self._read and changes:
            self._values, self._read = self._values.copy(), False
        if None not in changes.values():
            # In one go, which takes a third of the time; that matters with 100,000 names.
            self._values |= changes  # type: ignore[arg-type]  # as the line above has seen
            return
        for name, value in changes.items():
            if value is None:
                self._values.pop(name, None)
            else:
                self._values[name] = value


class Mortal:
    """A record that expires some time after it was last touched."""

    __slots__ = ("expires_at",)

    def __init__(self) -> None:
        self.expires_at: int | None = None

    def touch(self, now: int, ttl: int) -> None:
        """Begin its life anew: *ttl* milliseconds from *now* on, 0 for ever."""
        self.expires_at = now + ttl * 1000 if ttl else None

    def prolong(self, now: int, ttl: int) -> None:
        """Move the end of its life ahead, if it has one, and never nearer."""
        if self.expires_at is not None and ttl:
            self.expires_at = max(self.expires_at, now + ttl * 1000)

    def alive(self, now: int) -> bool:
        """Tell whether it has not expired yet."""
        return self.expires_at is None or now < self.expires_at


class Scope(Mortal):
    """The state of an application, or of a user."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        super().__init__()
        self.values = Values()


def seqs_of(runs: Sequence[range]) -> Sequence[int]:
    """Return all positions of some runs, in order."""
    return runs[0] if len(runs) == 1 else [*chain.from_iterable(runs)]


class Log:
    """A session's events.

    A list rather than a deque: slices at any place cost what they return. Trimming moves ``start``
    and compacts when half of the list is dead, so that it costs O(1) an event over time.
    """

    __slots__ = ("_cut", "_payloads", "_start", "_times", "count", "ids", "taken")

    def __init__(self) -> None:
        self._payloads: list[bytes] = []
        self._times: list[int] = []
        self._start = 0
        # No turn begins between the oldest event and this position.
        self._cut = 0
        self.count = 0
        # Unlike a dict's, its oldest key leaves in O(1).
        self.ids: OrderedDict[str, int] = OrderedDict()
        self.taken = TakenBack()

    def begin(self, beginning: Beginning) -> None:
        """Begin after a position, as if all up to it had been trimmed."""
        self.count = beginning.after_seq
        if beginning.taken_to:
            self.taken.add(beginning.after_seq, beginning.taken_to)
        self.taken.first_seq = beginning.first_seq

    @property
    def oldest_seq(self) -> int:
        """The position of the oldest event that is still held."""
        return self.count - (len(self._payloads) - self._start) + 1

    def add(self, entry: Entry, now: int) -> None:
        """Add an event at the end; its time is held to *now*, and moved past the last one's."""
        self.count += 1
        self.ids[entry.event_id] = self.count
        time = min(entry.time, now)
        if self._times:
            time = max(time, self._times[-1] + 1)
        self._payloads.append(entry.payload)
        self._times.append(time)

    def trim(self, limit: int) -> None:
        """Drop the oldest events beyond *limit*, and the ids of those trimmed long ago."""
        excess = len(self._payloads) - self._start - limit
        if excess > 0:
            self._start += excess
            if self.oldest_seq > self._cut:
                self._drop_rest_of_turn(min(TRIM_LOOK, limit // 2))
            self.taken.forget(self.oldest_seq - 1)
        if self._start * 2 > len(self._payloads):
            del self._payloads[: self._start]
            del self._times[: self._start]
            self._start = 0
        while len(self.ids) > limit + REMEMBERED_IDS:
            self.ids.popitem(last=False)

    def _drop_rest_of_turn(self, look: int) -> None:
        """Drop what is left of a turn that was cut, if that is less than so many events."""
        kept = self._payloads[self._start : self._start + look]
        found = next_turn(self._payloads[self._start - 1], kept)
        self._cut = self.oldest_seq + (len(kept) if found is None else found)
        self._start += found or 0

    def up_to(self, seq: int) -> Log:
        """Return a copy that ends with the event at a position, or before the oldest one."""
        copy = Log()
        copy.count = seq
        end = max(seq - self.oldest_seq + 1, 0) + self._start
        copy._payloads = self._payloads[self._start : end]
        copy._times = self._times[self._start : end]
        if seq == self.count:
            copy.ids = self.ids.copy()
        else:
            copy.ids.update(takewhile(lambda known: known[1] <= seq, self.ids.items()))
        copy.taken = self.taken.up_to(seq)
        return copy

    def runs(
        self, first: int, last: int, most: int, *, newest_first: bool = False, raw: bool = False
    ) -> list[range]:
        """Return the positions of up to *most* events, which are held and were not taken back.

        Args:
            first: None before this one.
            last: None after this one.
            most: How many there may be.
            newest_first: Whether they are the last that there are rather than the first.
            raw: Whether they may have been taken back.
        """
        first, last = max(first, self.oldest_seq), min(last, self.count)
        runs: list[range] = []
        for run in self.taken.between(first, last, newest_first=newest_first, raw=raw):
            if not most:
                break
            part = run[-most:] if newest_first else run[:most]
            most -= len(part)
            runs.append(part)
        return runs[::-1] if newest_first else runs

    def read(self, runs: Sequence[range]) -> list[bytes]:
        """Return the events at these positions, all of which are held."""
        shift = self._start - self.oldest_seq
        found: list[bytes] = []
        for run in runs:
            found += self._payloads[run.start + shift : run.stop + shift]
        return found

    def at(self, seq: int) -> bytes:
        """Return the event at a position, or nothing if it has been trimmed."""
        return b"".join(self.read(self.runs(seq, seq, 1, raw=True)))

    def first_since(self, time: int) -> int:
        """Return the position of the first event at *time* or later."""
        return bisect_left(self._times, time, self._start) - self._start + self.oldest_seq


class TakenBack:
    """Which events of a log were taken back.

    They are kept as the least number of gaps: each is the position that one went back to, and that
    of the mark. Between two of them is an event at least, so there are fewer than events are held.
    """

    __slots__ = ("_gaps", "first_seq", "newest_mark")

    def __init__(self) -> None:
        # Ascending; a gap begins after its first number.
        self._gaps: list[tuple[int, int]] = []
        self.first_seq = 1
        self.newest_mark = 0

    def __contains__(self, seq: int) -> bool:
        index = self._at(seq)
        return index < len(self._gaps) and self._gaps[index][0] < seq

    def add(self, to_seq: int, mark: int) -> None:
        """Take back all after a position up to the mark of a rewind."""
        while self._gaps and self._gaps[-1][1] > to_seq:
            self._gaps.pop()
        self._gaps.append((to_seq, mark))
        self.newest_mark = mark
        if not to_seq:
            self.first_seq = mark + 1

    def kept_to(self, seq: int) -> int:
        """Tell how far those stand who have read up to a position at any time."""
        index = self._at(seq + 1)
        return min(seq, self._gaps[index][0]) if index < len(self._gaps) else seq

    def forget(self, trimmed: int) -> None:
        """Forget gaps before those events that are held."""
        del self._gaps[: self._at(trimmed)]

    def up_to(self, seq: int) -> TakenBack:
        """Return a copy for a log that ends at a position that was not taken back."""
        copy = TakenBack()
        for to_seq, mark in self._gaps[: self._at(seq + 1)]:
            copy.add(to_seq, mark)
        if self.first_seq <= seq + 1:
            copy.first_seq = self.first_seq
        return copy

    def between(self, first: int, last: int, *, newest_first: bool, raw: bool) -> Iterator[range]:
        """Yield the runs of positions that were not taken back, from one end or the other."""
        gaps = [] if raw else self._gaps
        if newest_first:
            for index in range(min(self._at(last), len(gaps) - 1), -1, -1):
                to_seq, mark = gaps[index]
                if mark < first:
                    break
                if mark < last:
                    yield range(max(mark + 1, first), last + 1)
                last = min(last, to_seq)
        else:
            for index in range(self._at(first), len(gaps)):
                to_seq, mark = gaps[index]
                if to_seq >= last:
                    break
                if to_seq >= first:
                    yield range(first, to_seq + 1)
                first = mark + 1
        if first <= last:
            yield range(first, last + 1)

    def _at(self, seq: int) -> int:
        """Return the index of the first gap that ends at a position or after it."""
        return bisect_left(self._gaps, seq, key=_mark)


def _mark(gap: tuple[int, int]) -> int:
    return gap[1]


class _Changed(Struct):
    """What changes of state at one place have changed.

    Attributes:
        at: The place.
        was: The names, and what they were; ``None`` is absent.
        names: If they are very many, they are these, and ``was`` is all of the state before.
    """

    at: float
    was: dict[str, bytes | None]
    names: Collection[str] | None = None

    def undone(self) -> dict[str, bytes | None]:
        """Return the changes that undo them, to read or to change."""
        if self.names is not None:
            self.was, self.names = {name: self.was.get(name) for name in self.names}, None
        return self.was


class StateBefore:
    """What a session's state was before each change to it, as long as the log goes back to there.

    A change that comes with an event is at its position, one that comes without is half a step
    after that of the newest event. Of several changes of one name at one place only the first
    matters, and none if the name has its old value again: so those at one place are about as many
    as names were there and are now.
    """

    __slots__ = ("_changes",)

    def __init__(self) -> None:
        self._changes: deque[_Changed] = deque()

    def note(self, at: float, values: Values, changes: ScopeChanges) -> None:
        """Note what changes will do to values, at a place."""
        last = self._changes[-1] if self._changes and self._changes[-1].at == at else None
        if last is None and len(changes) > _NAMES_AT_ONCE:
            # To look at each of them would take twice as long as to change them.
            self._changes.append(_Changed(at, {**values.read()}, changes.keys()))
            return
        current = values.read_now()
        if last is None:
            each = changes.items()
            self.keep(at, {name: old for name, new in each if (old := current.get(name)) != new})
            return
        undone = last.undone()
        for name, new in changes.items():
            old = current.get(name)
            if name not in undone:
                if new != old:
                    undone[name] = old
            elif undone[name] == new:
                del undone[name]

    def keep(self, at: float, undone: dict[str, bytes | None]) -> None:
        """Keep what was, where it was changed or taken back at a new place, the newest one."""
        if undone:
            self._changes.append(_Changed(at, undone))

    def after(self, seq: int) -> dict[str, bytes | None]:
        """Return what takes state back to how it was right after an event."""
        undone: dict[str, bytes | None] = {}
        for changed in reversed(self._changes):
            if changed.at <= seq:
                break
            undone |= changed.undone()
        return undone

    def forget_after(self, seq: int) -> None:
        """Forget what comes after an event, since state is as it was then."""
        while self._changes and self._changes[-1].at > seq:
            self._changes.pop()

    def forget_before(self, oldest_seq: int) -> None:
        """Forget what goes back further than to right after the oldest event that is held."""
        while self._changes and self._changes[0].at <= oldest_seq:
            self._changes.popleft()

    def read(self, after: float, limit: int) -> tuple[list[Before], bool]:
        """Return up to *limit* names of whole places after one, or one place; and if there is more.

        What was read is never changed.
        """
        start = bisect_right(self._changes, after, key=_place)
        found: list[Before] = []
        names = 0
        for changed in islice(self._changes, start, None):
            was = changed.undone()
            names += len(was)
            if found and names > limit:
                return found, True
            if was:  # Nothing is left of changes that were taken back by later ones.
                found.append(Before(changed.at, {**was}))
        return found, False

    def add(self, earlier: Sequence[Before]) -> bool:
        """Add what comes after the newest place; tell whether there was any."""
        newest = self._changes[-1].at if self._changes else 0
        added = [_Changed(each.at, {**each.was}) for each in earlier if each.at > newest]
        self._changes.extend(added)
        return bool(added)

    def up_to(self, at: float) -> StateBefore:
        """Return a copy that ends at a place."""
        copy = StateBefore()
        copy._changes.extend(
            _Changed(changed.at, {**changed.undone()})
            for changed in self._changes
            if changed.at <= at
        )
        return copy


def _place(changed: _Changed) -> float:
    return changed.at


class Staged:
    """What many events change of state together, and what was before each of them.

    Attributes:
        changes: The changes of all of them; of several of one name the last one stands.
        before: By the id of an event, the names in the session that it changes, and what they were.
    """

    __slots__ = ("before", "changes")

    def __init__(self) -> None:
        self.changes = Changes(app={}, user={}, session={})
        self.before: dict[str, dict[str, bytes | None]] = {}

    def add(self, entry: Entry, state: Values) -> None:
        """Add an event after the others, unless it is one of them.

        Args:
            entry: The event.
            state: The session's, before all of them.
        """
        if entry.event_id in self.before:
            return
        together, changes = self.changes, entry.changes
        new, stored = together.session, state.read_now()
        self.before[entry.event_id] = {
            name: old
            for name, value in changes.session.items()
            if (old := new[name] if name in new else stored.get(name)) != value
        }
        new.update(changes.session)
        together.user.update(changes.user)
        together.app.update(changes.app)


class StoredSession(Mortal):
    """A session, its log and its lock."""

    __slots__ = (
        "before",
        "created",
        "incarnation",
        "lock",
        "log",
        "owner",
        "revision",
        "session_id",
        "state",
        "turns",
        "updated",
    )

    def __init__(self, owner: User, session_id: str, incarnation: str, now: int) -> None:
        super().__init__()
        self.owner = owner
        self.session_id = session_id
        self.incarnation = incarnation
        self.created = self.updated = now
        self.revision = 1
        self.state = Values()
        self.log = Log()
        self.before = StateBefore()
        self.lock = asyncio.Lock()
        # Who may write turns, once somebody has asked.
        self.turns: Turns | None = None

    def begin(self, beginning: Beginning) -> None:
        """Begin as a session does that was kept elsewhere before."""
        if beginning == NEW:
            return
        self.created = beginning.created or self.created
        self.log.begin(beginning)

    def check_place(self, key: SessionKey, seq: int, *, restores_state: bool) -> None:
        """Refuse to go back to where the log has no event, or where state cannot be had.

        Raises:
            RewindError: It is not to be had.
        """
        log = self.log
        if seq > log.count:
            raise RewindError(key, seq, "ahead")
        if 0 < seq < log.oldest_seq:
            raise RewindError(key, seq, "trimmed")
        if seq in log.taken:
            raise RewindError(key, seq, "taken_back")
        if not seq and restores_state and log.oldest_seq > 1:
            raise RewindError(key, seq, "state_trimmed")

    def rewind(self, rewind: Rewind, *, is_copy: bool) -> None:
        """Go back to an event, now that the mark is the newest one; a copy leaves state alone."""
        mark = self.log.count
        self.log.taken.add(rewind.to_seq, mark)
        undone = self.before.after(rewind.to_seq)
        self.before.forget_after(rewind.to_seq)
        if is_copy:
            return
        if rewind.restores_state:
            self.state.change(undone)
        else:
            self.before.keep(mark, undone)

    def trim(self, limit: int) -> None:
        """Drop the oldest events beyond a limit, and what state was before them."""
        self.log.trim(limit)
        if self.log.oldest_seq > 1:
            self.before.forget_before(self.log.oldest_seq)

    def copy(self, origin: StoredSession, at_seq: int | None, now: int, tell: Tell) -> None:
        """Take the log and the state of another session, as they were right after an event.

        Args:
            origin: The other session.
            at_seq: The event; ``None`` for as they are.
            now: The present.
            tell: Tells the owner of a claim that there is news for it.
        """
        seq = origin.log.count if at_seq is None else at_seq
        self.log = origin.log.up_to(seq)
        self.before = origin.before.up_to(seq if at_seq is not None else seq + 0.5)
        self.state.change({**origin.state.read_now()})
        if at_seq is not None:
            self.state.change(origin.before.after(at_seq))
        elif origin.turns is not None:
            self.turns = origin.turns.forked(seq, now, tell)

    @property
    def stored(self) -> bool:
        """Whether it is there still: not deleted, nor replaced by a new one of its id."""
        return self.owner.sessions.get(self.session_id) is self


class User:
    """All that belongs to one user. ``activity`` holds the places of all sessions, ascending."""

    __slots__ = ("activity", "key", "scope", "sessions")

    def __init__(self, key: UserKey) -> None:
        self.key = key
        self.sessions: dict[str, StoredSession] = {}
        self.activity: list[Place] = []
        self.scope: Scope | None = None

    def alive(self, now: int) -> bool:
        """Tell whether anything has not expired yet; the session written to last is asked first."""
        if self.scope is not None and self.scope.alive(now):
            return True
        return any(self.sessions[name].alive(now) for _, name in reversed(self.activity))

    def moment(self, now: int) -> int:
        """Return the moment of a write: after all before it, also if the clock stood or went back.

        So the list has the order of the writes, and a session never seems older than it was.
        """
        return max(now, self.activity[-1][0] + 1) if self.activity else now

    def add(self, session: StoredSession) -> None:
        """Add a session that was made at this user's :meth:`moment`."""
        self.sessions[session.session_id] = session
        self.activity.append((session.updated, session.session_id))

    def move(self, session: StoredSession, now: int) -> None:
        """Note new activity of a session; the busiest one is usually the last already."""
        activity, session_id = self.activity, session.session_id
        newest, holder = activity[-1]
        moment = now if now > newest else newest + 1  # As moment() says.
        if holder == session_id:
            activity[-1] = (moment, session_id)
        else:
            self.remove_activity((session.updated, session_id))
            activity.append((moment, session_id))
        session.updated = moment

    def remove_activity(self, entry: Place) -> None:
        """Take a session's last activity out of the list."""
        index = bisect_left(self.activity, entry)
        if index < len(self.activity) and self.activity[index] == entry:
            del self.activity[index]

    def drop_expired(
        self, after: Place | None, most: int, now: int
    ) -> tuple[list[StoredSession], Place | None]:
        """Drop what has expired of the next *most* sessions in the list.

        They leave the list together: one by one, each would move all that come after it.

        Args:
            after: Where to begin, which is after this place; ``None`` for the oldest session.
            most: How many sessions to look at.
            now: The present.

        Returns:
            What was dropped, and after which place to go on; ``None`` at the end of the list.
        """
        start = 0 if after is None else bisect_right(self.activity, after)
        places = self.activity[start : start + most]
        alive = [place for place in places if self.sessions[place[1]].alive(now)]
        dropped: list[StoredSession] = []
        if len(alive) < len(places):
            self.activity[start : start + most] = alive
            dropped = [self.sessions.pop(name) for _, name in set(places).difference(alive)]
        return dropped, places[-1] if len(places) == most else None
