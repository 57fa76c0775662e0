"""Reads of one thread's log: by ids, and by the numbers that make lists of them."""

from __future__ import annotations

from bisect import insort
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

from agentsession._concurrently import concurrently
from agentsession.adapters._langgraph.records import (
    HAS_DELETIONS,
    CheckpointIncompleteError,
    CheckpointRecord,
    IndexEntry,
    Loaded,
    NamespaceEntry,
    Packed,
    Pieces,
    Slot,
    Write,
    counting,
    deletion_id,
    entry_of,
    index_id,
    is_checkpoint,
    joined,
    namespace_id,
    part_ids,
    piece_id,
    size_of,
)
from agentsession.errors import EventNotFoundError
from agentsession.events import UNREADABLE, Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from agentsession.service import SessionService
    from agentsession.sessions import Session

__all__ = ["EVENTS_EACH", "Log", "NewestFirst"]

_R = TypeVar("_R")

EVENTS_EACH: Final = 4
"""How many events a step of a graph stores, usually: a checkpoint, its entry, and writes.

So many of the newest are read at once for one checkpoint; twice as many take a third longer.
"""

_NOWHERE: Final[Mapping[str, int]] = MappingProxyType({})

# How many entries of a list are read at once.
_AT_ONCE: Final = 16
# How many more of the newest events are read where those at hand are too few.
_FURTHER: Final = 16
# How much is at hand before no more of it is read, in bytes, and what an event takes besides.
_HELD: Final = 16 << 20
_OVERHEAD: Final = 1000
# How far ahead it is looked for the end of a list, in powers of two.
_AHEAD: Final = 12


class Log:
    """The log of a thread.

    Args:
        service: Has the session.
        session: The session, so that all is read from one that was not made anew meanwhile.
        tail: Events at the end of its log that were read already.
    """

    def __init__(
        self, service: SessionService, session: Session, tail: Sequence[Event] = ()
    ) -> None:
        self._service = service
        self._session = session
        self._tail: list[Event] = []
        self._at_hand: dict[str, Event] = {}
        self._held = 0
        self._hold(tail)

    def _hold(self, events: Sequence[Event]) -> None:
        """Have events at hand, which come right before those that are.

        If one of them cannot be read, none is taken: who asks for it by its id is told why.
        """
        if not any(map(_is_unreadable, events)):
            self._tail = [*events, *self._tail]
            self._at_hand |= {event.id: event for event in events}
            self._held += sum(size_of(event) + _OVERHEAD for event in events)

    async def reach_back_to(self, event_id: str) -> None:
        """Have more of the end of the log at hand, if an event is not, which may well be there."""
        if not self.has(event_id):
            await self.reach_back(EVENTS_EACH * _AT_ONCE)

    async def reach_back(self, most: int = _FURTHER) -> None:
        """Have more of the end of the log at hand, if there is any of it.

        Args:
            most: How many more events; none if those at hand take much memory.
        """
        if self._tail and self._held < _HELD:
            page = await self._service.get_events(
                self._session,
                before_seq=self._tail[0].seq,
                limit=min(most, self._service.always_readable),
                newest_first=True,
            )
            self._hold(page[::-1])

    def has(self, event_id: str) -> bool:
        """Tell whether an event is at hand."""
        return event_id in self._at_hand

    async def find(
        self, ids: Iterable[str], positions: Mapping[str, int] = _NOWHERE
    ) -> list[Event | None]:
        """Return the events with these ids, ``None`` for each that the log does not hold.

        Args:
            ids: The ids.
            positions: Where some of them may be.
        """
        ids = [*ids]
        missing = [each for each in ids if each not in self._at_hand]
        if not missing:
            return [self._at_hand[each] for each in ids]
        calls = [self._find(each, positions.get(each, 0)) for each in missing]
        # To make a task for a single call would take longer than the call.
        found = await concurrently(calls) if len(calls) > 1 else [await call for call in calls]
        by_id = dict(zip(missing, found, strict=True))
        return [self._at_hand.get(each) or by_id.get(each) for each in ids]

    async def _find(self, event_id: str, seq: int) -> Event | None:
        if seq:
            there = await self._service.get_events(self._session, after_seq=seq - 1, limit=1)
            if there and there[0].id == event_id:
                return there[0]
        try:
            [event] = await self._service.get_events(self._session, around=event_id, limit=1)
        except EventNotFoundError:
            return None
        return event

    async def _read(self, event: Event, kind: type[_R]) -> _R | None:
        """Return the record that begins with an event; ``None`` if a part of it is gone."""
        ids = part_ids(event)
        if not ids:
            return joined(event, (), kind)
        parts = await self.find(ids)
        there = [part for part in parts if part is not None]
        return joined(event, there, kind) if len(there) == len(parts) else None

    async def is_trimmed(self) -> bool:
        """Tell whether the event limit has taken the beginning of the log."""
        if not self._session.last_seq:
            return False
        oldest = await self._service.get_events(self._session, limit=1)
        return bool(oldest) and oldest[0].seq > self._session.first_seq

    async def _backwards(self) -> AsyncIterator[Event]:
        """Return all events, the newest first."""
        before: int | None = None
        most = min(self._service.always_readable, 100)
        while page := await self._service.get_events(
            self._session, before_seq=before, limit=most, newest_first=True
        ):
            for event in page:
                yield event
            before = page[-1].seq

    # -- lists

    async def _all_of(self, name: Callable[[int], str], width: int) -> list[Event]:
        """Return the events of a list, up to the first number that is not taken.

        Args:
            name: Makes the id of an event out of its number.
            width: How many are read first.
        """
        events: list[Event] = []
        if name(0) in self._at_hand:
            # All others have come after it, so that there are no more than are at hand.
            while (event := self._at_hand.get(name(len(events)))) is not None:
                events.append(event)
            return events
        while True:
            numbers = range(len(events), len(events) + width)
            for event in await self.find(map(name, numbers)):
                if event is None:
                    return events
                events.append(event)
            width = min(2 * width, _AT_ONCE)

    async def last(self, name: Callable[[int], str], known: int) -> tuple[int, Event | None]:
        """Find the end of a list.

        Args:
            name: Makes the id of an entry out of its number.
            known: The number of an entry that is there; -1 if none is known.

        Returns:
            The last number, and the event there; *known* and ``None`` if nothing comes after it.
        """
        last: Event | None = None
        low, high = known, None
        numbers: Sequence[int] = [low + 1]  # Most often there is nothing to look for.
        while high is None or high - low > 1:
            found = await self.find(map(name, numbers))
            for number, event in zip(numbers, found, strict=True):
                if event is None:
                    high = number
                    break
                low, last = number, event
            numbers = _between(low, high)
        return low, last

    async def last_entry(
        self, namespace: str, known: IndexEntry | None = None
    ) -> IndexEntry | None:
        """Return the last entry of a namespace; ``None`` if it has no checkpoint.

        Args:
            namespace: The namespace.
            known: An entry of it, from which on it is looked for others.
        """
        if (at_hand := self._last_at_hand(namespace)) is not None:
            return at_hand
        if not self._session.last_seq:
            return known
        start = -1 if known is None else known.number
        [after] = await self.find([index_id(namespace, start + 1)])
        if after is not None:
            await self.reach_back()
            if (at_hand := self._last_at_hand(namespace)) is not None:
                return at_hand
            _, last = await self.last(lambda number: index_id(namespace, number), start + 1)
            return entry_of(last or after, IndexEntry)
        if known is None and await self.is_trimmed():
            return await self._last_left(namespace)
        return known

    def _last_at_hand(self, namespace: str) -> IndexEntry | None:
        for event in reversed(self._tail):
            entry = entry_of(event, IndexEntry)
            if entry is not None and entry.namespace == namespace:
                return entry
        return None

    async def first_number(self) -> int:
        """Return the number for the first entry of a list: 0, or one that was never taken.

        Where a list has left the log, its numbers are not to be had again. There were fewer of them
        than events, and who looks for the list there does so from the end of the log.
        """
        return self._session.last_seq if await self.is_trimmed() else 0

    async def _last_left(self, namespace: str) -> IndexEntry | None:
        """Find the last entry of a list that has lost its beginning."""
        async for event in self._backwards():
            entry = entry_of(event, IndexEntry)
            if entry is not None and entry.namespace == namespace:
                return entry
        return None

    async def namespaces(self) -> list[str]:
        """Return the namespaces that have checkpoints, or are about to."""
        if await self.is_trimmed():
            left = [entry_of(event, IndexEntry) async for event in self._backwards()]
            return sorted({entry.namespace for entry in left if entry is not None})
        found = await self._all_of(namespace_id, 2)  # Most threads have one.
        entries = [entry_of(event, NamespaceEntry) for event in found]
        return sorted({entry.namespace for entry in entries if entry is not None})

    async def entries(self, last: IndexEntry, numbers: Iterable[int]) -> list[IndexEntry]:
        """Return entries of a list, up to the first one that the log does not hold."""
        entries: list[IndexEntry] = []
        for event in await self.find(index_id(last.namespace, number) for number in numbers):
            entry = None if event is None else entry_of(event, IndexEntry)
            if entry is None:
                break
            entries.append(entry)
        return entries

    # -- checkpoints

    async def load(
        self,
        thread_id: str,
        namespace: str,
        checkpoint_id: str,
        wanted: Callable[[Packed], bool] | None = None,
    ) -> Loaded | None:
        """Return a checkpoint with all that belongs to it.

        Args:
            thread_id: The thread.
            namespace: The checkpoint's namespace.
            checkpoint_id: Its id.
            wanted: Tells by its metadata whether it is wanted.

        Returns:
            The checkpoint; ``None`` if it was deleted, never was there, or is not wanted.

        Raises:
            CheckpointIncompleteError: Something of it was trimmed, or all of it may have been.
        """
        place = namespace, checkpoint_id
        if HAS_DELETIONS in self._session.state:
            [deletion] = await self.find([deletion_id(*place)])
            if deletion is not None:
                return None
        pieces = await self.pieces(*place)
        event, record = pieces.event, pieces.record
        if event is None or record is None or (wanted is not None and not wanted(record.metadata)):
            return None
        values = await self.values(*place, record.channels)
        writes = counting(pieces.writes)
        return Loaded(thread_id, *place, record, event, values, writes, pieces.taken)

    async def pieces(self, namespace: str, checkpoint_id: str) -> Pieces:
        """Return a checkpoint without its values, be it deleted, and all its writes.

        Raises:
            CheckpointIncompleteError: Something of it was trimmed, or all of it may have been.
        """
        event: Event | None = None
        record: CheckpointRecord | None = None
        writes: list[Write] = []
        # Most often there are no writes: then the second number is the first that is free.
        events = await self._all_of(lambda each: piece_id(namespace, checkpoint_id, each), 2)
        for piece in events:
            if is_checkpoint(piece):
                event, record = piece, await self._read(piece, CheckpointRecord)
                if record is None:
                    raise self._incomplete(namespace, checkpoint_id, "a part of it")
                continue
            some = await self._read(piece, list[Write])
            if some is None:
                raise self._incomplete(namespace, checkpoint_id, "a part of its writes")
            writes += some
        if not events and await self.is_trimmed():
            raise self._incomplete(namespace, checkpoint_id, "itself, and its writes")
        return Pieces(event, record, writes, len(events))

    async def number_of(self, namespace: str, checkpoint_id: str) -> int:
        """Return which piece a checkpoint itself is, or the first number that is free for it."""
        events = await self._all_of(lambda each: piece_id(namespace, checkpoint_id, each), 2)
        numbers = (number for number, event in enumerate(events) if is_checkpoint(event))
        return next(numbers, len(events))

    async def values(
        self, namespace: str, checkpoint_id: str, slots: Mapping[str, Slot]
    ) -> dict[str, Packed]:
        """Return the values of channels."""
        values = {name: Packed(slot.type, slot.data) for name, slot in slots.items()}
        elsewhere = {name: slot.at for name, slot in slots.items() if slot.at}
        positions = {slot.at: slot.seq for slot in slots.values() if slot.at}
        found = dict(zip(positions, await self.find(positions, positions), strict=True))
        for name, at in elsewhere.items():
            event = found[at]
            packed = None if event is None else await self._value(event, name)
            if packed is None:
                lacks = f"the value of channel {name!r}"
                raise self._incomplete(namespace, checkpoint_id, lacks)
            values[name] = packed
        return values

    async def _value(self, event: Event, channel: str) -> Packed | None:
        """Return the value that an event holds, or the checkpoint in it for one of its channels."""
        if not is_checkpoint(event):
            return await self._read(event, Packed)
        record = await self._read(event, CheckpointRecord)
        slot = None if record is None else record.channels.get(channel)
        return None if slot is None else Packed(slot.type, slot.data)

    def _incomplete(
        self, namespace: str, checkpoint_id: str, lacks: str
    ) -> CheckpointIncompleteError:
        return CheckpointIncompleteError(self._session.key, namespace, checkpoint_id, lacks)


class NewestFirst:
    """The entries of a namespace, the largest id first.

    Only as much of the list is read as it takes to be sure of the order: each entry tells the
    largest id of those that come before it in the list.

    Args:
        log: The thread's log.
        last: The last entry of the list.
    """

    def __init__(self, log: Log, last: IndexEntry) -> None:
        self.log = log
        self._last = last
        self._next = last.number
        self._waiting: list[IndexEntry] = []
        self._given = ""

    async def more(self) -> list[IndexEntry]:
        """Return the next ones; none at the end."""
        while self._next >= 0:
            if self._next == self._last.number:
                read, asked = [self._last], 1
            else:
                numbers = range(self._next, max(self._next - _AT_ONCE, -1), -1)
                await self.log.reach_back_to(index_id(self._last.namespace, numbers[-1]))
                read, asked = await self.log.entries(self._last, numbers), len(numbers)
            self._next = self._next - asked if len(read) == asked else -1
            if certain := self._settle(read):
                return certain
        rest, self._waiting = self._waiting[::-1], []
        return self._new(rest)

    async def all(self) -> list[IndexEntry]:
        """Return all that are left."""
        entries: list[IndexEntry] = []
        while more := await self.more():
            entries += more
        return entries

    def _settle(self, read: Iterable[IndexEntry]) -> list[IndexEntry]:
        """Take entries in, and return those before which no other can come any more."""
        certain: list[IndexEntry] = []
        for entry in read:
            insort(self._waiting, entry, key=lambda each: each.checkpoint_id)
            while self._waiting and self._waiting[-1].checkpoint_id >= entry.before:
                certain.append(self._waiting.pop())
        return self._new(certain)

    def _new(self, entries: Iterable[IndexEntry]) -> list[IndexEntry]:
        """Leave out the second entry of a checkpoint that was stored twice."""
        new: list[IndexEntry] = []
        for entry in entries:
            if entry.checkpoint_id != self._given:
                new.append(entry)
                self._given = entry.checkpoint_id
        return new


def _between(low: int, high: int | None) -> Sequence[int]:
    """Choose the numbers to look at next."""
    if high is None:
        return [low + 2**power for power in range(_AHEAD)]
    step = max(1, (high - low) // _AT_ONCE)
    return range(low + step, high, step)


def _is_unreadable(event: Event) -> bool:
    return event.error is not None and event.error.type == UNREADABLE
