"""Checkpoints: how they are stored, each in one step, and how the newest one is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agentsession.adapters._langgraph.access import Access, Head, Thread, append
from agentsession.adapters._langgraph.log import Log, NewestFirst
from agentsession.adapters._langgraph.records import (
    LARGE,
    SMALL,
    CheckpointIncompleteError,
    CheckpointRecord,
    IndexEntry,
    NamespaceEntry,
    Packed,
    Slot,
    Version,
    deletion_id,
    entry_event,
    entry_of,
    index_id,
    is_checkpoint,
    namespace_id,
    piece_id,
    to_events,
    value_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agentsession.adapters._langgraph.records import Loaded
    from agentsession.events import Event
    from agentsession.service import SessionService

__all__ = ["NewCheckpoint", "get", "newest", "put"]


@dataclass(frozen=True)
class NewCheckpoint:
    """A checkpoint to store.

    Attributes:
        namespace: Its namespace.
        checkpoint_id: Its id.
        parent: The id of the checkpoint before it; empty for a first one.
        checkpoint: The checkpoint without the values of its channels.
        metadata: Its metadata.
        run_id: The run that has made it, if that is known.
        versions: The version of each channel that has a value.
        changed: The values that have changed.
        pack: Makes bytes of the value of another channel, should it not be stored.
    """

    namespace: str
    checkpoint_id: str
    parent: str
    checkpoint: Packed
    metadata: Packed
    run_id: str
    versions: Mapping[str, Version]
    changed: Mapping[str, Packed]
    pack: Callable[[str], Packed]

    @property
    def place(self) -> tuple[str, str]:
        """Its namespace and its id."""
        return self.namespace, self.checkpoint_id

    def entry_after(self, last: IndexEntry | None, first: int = 0) -> IndexEntry:
        """Make its entry in the list of its namespace, or the first one with the number *first*."""
        number, before = (first, "") if last is None else (last.number + 1, last.newest)
        return IndexEntry(self.namespace, number, self.checkpoint_id, before, self.run_id)


async def put(service: SessionService, access: Access, thread_id: str, new: NewCheckpoint) -> None:
    """Store a checkpoint, in one step.

    Raises:
        ValueError: Another one with its id is stored, or it was deleted.
    """

    async def write(thread: Thread, log: Log) -> None:
        head = thread.heads.used(new.namespace)
        last = await log.last_entry(new.namespace) if head is None else head.entry
        first = 0
        if last is None:
            await _register(service, thread, log, new.namespace)
            first = await log.first_number()
        slots, values = await _slots(log, head, new, service.max_event_size)
        record = CheckpointRecord(new.checkpoint, new.metadata, new.parent, slots)
        entry = new.entry_after(last, first)
        *stored, event, entered = await _store(service, thread, log, new, record, values, entry)
        final = await _enter(service, thread, log, new, entered)
        head = Head(final, new.checkpoint_id, _for_next(_with_positions(slots, stored), event))
        thread.heads.keep(new.namespace, head)

    await access.writing(service, thread_id, write)


async def get(
    service: SessionService, access: Access, thread_id: str, namespace: str, checkpoint_id: str
) -> Loaded | None:
    """Return a checkpoint, or the newest one of its namespace; ``None`` if there is none."""

    async def read(thread: Thread, log: Log) -> Loaded | None:
        if not checkpoint_id:
            return await newest(thread, log, thread_id, namespace)
        loaded = await log.load(thread_id, namespace, checkpoint_id)
        if loaded is not None:
            thread.remember((namespace, checkpoint_id), loaded)
        return loaded

    return await access.reading(service, access.key_of(thread_id), read)


async def newest(thread: Thread, log: Log, thread_id: str, namespace: str) -> Loaded | None:
    """Return the checkpoint of a namespace with the largest id, deleted ones left out."""
    last = await log.last_entry(namespace, thread.last_known(namespace))
    if last is None:
        return None
    if not log.has(piece_id(namespace, last.newest, 0)):
        await log.reach_back()
    loaded = await log.load(thread_id, namespace, last.newest)
    if loaded is None:
        loaded = await _newest_left(log, last, thread_id)
    if loaded is not None:
        slots = _for_next(loaded.record.channels, loaded.event)
        thread.heads.keep(namespace, Head(last, loaded.checkpoint_id, slots))
        thread.remember((namespace, loaded.checkpoint_id), loaded)
    return loaded


async def _newest_left(log: Log, last: IndexEntry, thread_id: str) -> Loaded | None:
    """Go back from the end of a list to a checkpoint that was not deleted."""
    entries = NewestFirst(log, last)
    while more := await entries.more():
        for entry in more:
            loaded = await log.load(thread_id, entry.namespace, entry.checkpoint_id)
            if loaded is not None:
                return loaded
    return None


async def _register(service: SessionService, thread: Thread, log: Log, namespace: str) -> None:
    """Enter a namespace in the list of those that a thread has."""
    number, entry = thread.namespaces, NamespaceEntry(namespace)
    while True:
        [event] = await service.append_events(
            thread.session, [entry_event(namespace_id(number), entry)]
        )
        thread.session.events.clear()
        thread.namespaces = max(thread.namespaces, number + 1)
        if entry_of(event, NamespaceEntry) == entry:
            return
        last, _ = await log.last(namespace_id, number)
        number = last + 1


async def _enter(
    service: SessionService, thread: Thread, log: Log, new: NewCheckpoint, event: Event
) -> IndexEntry:
    """Look for a number for the entry of a checkpoint, if others have taken its own.

    Args:
        service: Has the session.
        thread: The thread.
        log: Its log.
        new: The checkpoint.
        event: What is stored at the number that was meant for it.

    Returns:
        Its entry.
    """
    while True:
        entry = entry_of(event, IndexEntry)
        if entry is not None and entry.checkpoint_id == new.checkpoint_id:
            return entry
        last = await log.last_entry(new.namespace, entry)
        [event] = await append(service, thread.session, [_event_of(new.entry_after(last))])


def _event_of(entry: IndexEntry) -> Event:
    return entry_event(index_id(entry.namespace, entry.number), entry)


async def _store(
    service: SessionService,
    thread: Thread,
    log: Log,
    new: NewCheckpoint,
    record: CheckpointRecord,
    values: Sequence[Event],
    entry: IndexEntry,
) -> list[Event]:
    """Store a checkpoint with its values and its entry, in one step.

    It is the first piece in its list, unless writes of it have come first.

    Returns:
        What is stored. The last ones are its event, and what is at the number that was meant for
        its entry.
    """
    numbering = thread.numbering(new.place)
    stored: list[Event] = []
    async with numbering.first:
        number = await log.number_of(*new.place) if numbering.next else 0
        while True:
            name = piece_id(*new.place, number)
            pieces = to_events(name, "checkpoint", record, service.max_event_size)
            events = [*values, *pieces, _event_of(entry)]
            *others, event, entered = await append(service, thread.session, events)
            stored += others
            numbering.next = max(numbering.next, number + 1)
            if is_checkpoint(event):
                if event.timestamp != pieces[-1].timestamp:
                    await _check_repeat(log, new, event, pieces[-1])
                return [*stored, event, entered]
            values = ()  # They are stored by now.
            number = await log.number_of(*new.place)


async def _slots(
    log: Log, head: Head | None, new: NewCheckpoint, max_event_size: int
) -> tuple[dict[str, Slot], list[Event]]:
    """Say for each channel where its value is, and make events of those that are apart from it."""
    before = await _slots_before(log, head, new)
    slots: dict[str, Slot] = {}
    events: list[Event] = []
    room = LARGE
    for channel, version in new.versions.items():
        packed, slot = new.changed.get(channel), before.get(channel)
        if packed is None and slot is not None and version is not None and slot.version == version:
            slots[channel] = slot
            continue
        packed = packed or new.pack(channel)
        size = len(packed.data)
        if size <= SMALL or size <= room:
            room -= size
            slots[channel] = Slot(*packed, version=version)
            continue
        name = value_id(new.namespace, new.checkpoint_id, channel)
        slots[channel] = Slot(at=name, version=version)
        events += to_events(name, "value", packed, max_event_size)
    return slots, events


async def _slots_before(log: Log, head: Head | None, new: NewCheckpoint) -> Mapping[str, Slot]:
    """Say where the values of the checkpoint before are, if that is of use."""
    if not new.parent or new.versions.keys() <= new.changed.keys():
        return {}
    if head is not None and head.checkpoint_id == new.parent:
        return head.slots
    try:
        pieces = await log.pieces(new.namespace, new.parent)
    except CheckpointIncompleteError:
        return {}  # The new one has all its values, and need not lean on another.
    if pieces.event is None or pieces.record is None:
        return {}
    return _for_next(pieces.record.channels, pieces.event)


def _for_next(slots: Mapping[str, Slot], event: Event) -> dict[str, Slot]:
    """Say where the values of a checkpoint are, for one that comes after it.

    Args:
        slots: What the checkpoint says of them.
        event: Holds it.
    """
    return {
        channel: slot
        if slot.at or len(slot.data) <= SMALL
        else Slot(at=event.id, seq=event.seq, version=slot.version)
        for channel, slot in slots.items()
    }


def _with_positions(slots: dict[str, Slot], stored: Iterable[Event]) -> dict[str, Slot]:
    """Note where values are that were stored just now, for the checkpoints that come after."""
    seqs = {event.id: event.seq for event in stored}
    if not seqs:
        return slots
    return {
        channel: replace(slot, seq=seqs[slot.at]) if slot.at in seqs else slot
        for channel, slot in slots.items()
    }


async def _check_repeat(log: Log, new: NewCheckpoint, stored: Event, given: Event) -> None:
    """Refuse a checkpoint whose id is taken, unless it is the very checkpoint."""
    which = f"checkpoint {new.checkpoint_id!r:.80} of namespace {new.namespace!r:.80}"
    if stored.content != given.content:
        msg = f"{which} is stored with other content, and a checkpoint never changes"
        raise ValueError(msg)
    [deleted] = await log.find([deletion_id(new.namespace, new.checkpoint_id)])
    if deleted is not None:
        msg = f"{which} was deleted, and cannot be stored again; give it a new id"
        raise ValueError(msg)
