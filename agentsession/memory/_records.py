"""The records of the memory backend: plain data; when to lock them is decided elsewhere."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

from agentsession.backend import REMEMBERED_IDS, Entry

if TYPE_CHECKING:
    from agentsession.memory._turns import Turns
    from agentsession.sessions import UserKey
    from agentsession.state import ScopeChanges

__all__ = ["Log", "Mortal", "Place", "Scope", "StoredSession", "User", "Values"]

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


class Log:
    """A session's events.

    A list rather than a deque: slices at any place cost what they return. Trimming moves ``start``
    and compacts when half of the list is dead, so that it costs O(1) an event over time.
    """

    __slots__ = ("_payloads", "_start", "_times", "count", "ids")

    def __init__(self) -> None:
        self._payloads: list[bytes] = []
        self._times: list[int] = []
        self._start = 0
        self.count = 0
        # Unlike a dict's, its oldest key leaves in O(1).
        self.ids: OrderedDict[str, int] = OrderedDict()

    @property
    def first_seq(self) -> int:
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
        held = len(self._payloads)
        if held - self._start > limit:
            self._start = held - limit
        if self._start * 2 > held:
            del self._payloads[: self._start]
            del self._times[: self._start]
            self._start = 0
        while len(self.ids) > limit + REMEMBERED_IDS:
            self.ids.popitem(last=False)

    def between(self, first: int, last: int) -> list[bytes]:
        """Return the events from position *first* to *last*, both included, as far as held."""
        shift = self._start - self.first_seq
        first = max(first, self.first_seq)
        return self._payloads[first + shift : last + 1 + shift] if first <= last else []

    def at(self, seq: int) -> bytes:
        """Return the event at a position, or nothing if it has been trimmed."""
        held = self.between(seq, seq)
        return held[0] if held else b""

    def first_since(self, time: int) -> int:
        """Return the position of the first event at *time* or later."""
        return bisect_left(self._times, time, self._start) - self._start + self.first_seq


class StoredSession(Mortal):
    """A session, its log and its lock."""

    __slots__ = (
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
        self.lock = asyncio.Lock()
        # Who may write turns, once somebody has asked.
        self.turns: Turns | None = None

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
