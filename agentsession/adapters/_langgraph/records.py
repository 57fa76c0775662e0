"""What a log holds of a LangGraph thread, and how it becomes events and is found again.

One session holds one thread. Its events are:

- a *checkpoint*: its bytes and those of its metadata, the checkpoint before it, and a table that
  says which value each channel has: the bytes, or the event that holds them. It has the bytes of
  what has changed in it, unless they are many; later ones name its event;
- a *value* of a channel, if it is large, stored with the checkpoint in which it changed;
- an *index* entry for each checkpoint of a namespace, numbered 0, 1, 2 …, and one for each
  namespace. It also tells the largest id of the checkpoints before it, so that the newest one is
  known from the last entry, although ids need not come in the order of the log;
- *writes* that wait at a checkpoint, one event for each time that a task has handed some in;
- a *deletion*, which hides a checkpoint;
- *parts* of what is larger than an event may be.

Everything is found by its id, which is made of what it is: so a log may be copied, and no read
looks at what it does not return.

The numbers of a list are dense. An id is stored once, so of several writers who take the same
number one gets it, and the others are told whose it is and take the next.

A checkpoint and its writes are pieces of one such list, whichever of them comes first: nearly
always the checkpoint. Nobody takes another number of it before the first piece is stored. So who
has read the end of a log, back to that first piece, has read all of them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from agentsession._wording import brief, described
from agentsession.errors import AgentSessionError
from agentsession.events import Data, Event
from agentsession.retention import MEBIBYTE
from agentsession.state import check_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agentsession.sessions import SessionKey

__all__ = [
    "HAS_DELETIONS",
    "LARGE",
    "SMALL",
    "CheckpointIncompleteError",
    "CheckpointRecord",
    "IndexEntry",
    "Loaded",
    "NamespaceEntry",
    "Packed",
    "Pieces",
    "Slot",
    "Version",
    "Write",
    "batches",
    "counting",
    "deletion",
    "deletion_id",
    "entry_event",
    "entry_of",
    "index_id",
    "is_checkpoint",
    "joined",
    "namespace_id",
    "part_ids",
    "piece_id",
    "size_of",
    "to_events",
    "value_id",
]

_AUTHOR: Final = "langgraph"

Version: TypeAlias = str | int | float | None
"""The version of a channel; ``None`` if it has none."""

HAS_DELETIONS: Final = "langgraph_has_deletions"
"""The name of session state that says that some of a thread's checkpoints were deleted."""

SMALL: Final = 256
"""How many bytes a value may have to stand in the table of each checkpoint anew."""

LARGE: Final = 16_384
"""How many bytes of values a checkpoint has in its table; those that are more are apart from it.

Who needs one of them later reads all.
"""

_R = TypeVar("_R")
_E = TypeVar("_E", "IndexEntry", "NamespaceEntry")

_MEDIA_TYPE: Final = "application/vnd.langgraph."
# What an event takes besides its bytes and its id.
_ENVELOPE: Final = 512
_LARGEST_PART: Final = 8 * MEBIBYTE
# How much one append takes, in events and in bytes; what else there is goes ahead of it.
_MOST_EVENTS: Final = 900
_MOST_BYTES: Final = 48 * MEBIBYTE


class Packed(NamedTuple):
    """A value as a serializer of LangGraph returns it: the name of a format, and bytes."""

    type: str
    data: bytes


class CheckpointIncompleteError(AgentSessionError, LookupError):
    """A checkpoint is there, and something that belongs to it has left the log.

    Attributes:
        key: The session that holds the thread.
        namespace: The checkpoint's namespace.
        checkpoint_id: The checkpoint.
        lacks: What is missing.
    """

    def __init__(self, key: SessionKey, namespace: str, checkpoint_id: str, lacks: str) -> None:
        super().__init__(key, namespace, checkpoint_id, lacks)
        self.key = key
        self.namespace = namespace
        self.checkpoint_id = checkpoint_id
        self.lacks = lacks

    def __str__(self) -> str:
        return (
            f"{described(self.key)}: checkpoint {brief(self.checkpoint_id)} of namespace "
            f"{brief(self.namespace)} lacks {self.lacks}; the event limit has trimmed it. Make the "
            "service with session_event_limit=None, and begin the thread anew: delete_thread()"
        )


class Slot(Struct, frozen=True, omit_defaults=True):
    """The value that a channel has in a checkpoint.

    Attributes:
        type: The name of its format, if the bytes are here.
        data: The bytes.
        at: The id of the event that holds both, if they are not here.
        seq: Where that event was when this was written, if that was known. It is a hint: in a copy
            of the log another event may be there.
        version: The channel's version.
    """

    type: str = ""
    data: bytes = b""
    at: str = ""
    seq: int = 0
    version: Version = None


class CheckpointRecord(Struct, frozen=True, omit_defaults=True):
    """A checkpoint without the values of its channels.

    Attributes:
        checkpoint: The rest of the checkpoint.
        metadata: Its metadata.
        parent: The id of the checkpoint before it; empty for a first one.
        channels: The value of each channel that has one.
    """

    checkpoint: Packed
    metadata: Packed
    parent: str = ""
    channels: dict[str, Slot] = {}


class Write(Struct, frozen=True, omit_defaults=True):
    """One value that a task has written, which waits for the end of its step."""

    task_id: str
    index: int
    channel: str
    value: Packed
    task_path: str = ""


class Pieces(Struct, frozen=True):
    """What is stored of a checkpoint, but for values of its channels.

    Attributes:
        event: The event of the checkpoint itself, if that is stored.
        record: What it holds.
        writes: All writes in the order of their list.
        taken: How many numbers of the list are taken.
    """

    event: Event | None
    record: CheckpointRecord | None
    writes: list[Write]
    taken: int


class Loaded(Struct, frozen=True):
    """A checkpoint with all that belongs to it.

    Attributes:
        thread_id: The thread.
        namespace: The checkpoint's namespace.
        checkpoint_id: Its id.
        record: The checkpoint itself.
        event: The event that holds it.
        values: The values of its channels.
        writes: The writes that wait at it and count, in no order.
        taken: How many numbers are taken in the list of it and its writes.
    """

    thread_id: str
    namespace: str
    checkpoint_id: str
    record: CheckpointRecord
    event: Event
    values: dict[str, Packed]
    writes: list[Write]
    taken: int


class IndexEntry(Struct, frozen=True, omit_defaults=True):
    """The entry of a checkpoint in the list of its namespace.

    Attributes:
        namespace: The namespace.
        number: Its place in the list, from 0.
        checkpoint_id: The checkpoint.
        before: The largest id of all entries before it; empty for the first.
        run_id: The run that has made the checkpoint, if that is known.
    """

    namespace: str
    number: int
    checkpoint_id: str
    before: str = ""
    run_id: str = ""

    @property
    def newest(self) -> str:
        """The largest id up to here."""
        return max(self.before, self.checkpoint_id)


class NamespaceEntry(Struct, frozen=True):
    """The entry of a namespace in the list of those that a thread has."""

    namespace: str


def _id(*names: str | int) -> str:
    """Make an id out of several names, whatever characters they have.

    Raises:
        StateValueError: One of them is no valid Unicode.
    """
    try:
        return msgspec.json.encode(names).decode()
    except UnicodeEncodeError:
        check_json([*names], ("id",))
        raise


def piece_id(namespace: str, checkpoint_id: str, number: int) -> str:
    """Return the id of a checkpoint's event, or of some writes of it."""
    return _id("checkpoint", namespace, checkpoint_id, number)


def value_id(namespace: str, checkpoint_id: str, channel: str) -> str:
    """Return the id of the value that a channel has got with a checkpoint."""
    return _id("value", namespace, checkpoint_id, channel)


def index_id(namespace: str, number: int) -> str:
    """Return the id of an entry in the list of a namespace."""
    return _id("index", namespace, number)


def namespace_id(number: int) -> str:
    """Return the id of an entry in the list of namespaces."""
    return _id("namespace", number)


def deletion_id(namespace: str, checkpoint_id: str) -> str:
    """Return the id of what hides a checkpoint."""
    return _id("deletion", namespace, checkpoint_id)


def deletion(namespace: str, checkpoint_id: str) -> Event:
    """Make the event that hides a checkpoint."""
    hidden = {"namespace": namespace, "checkpoint_id": checkpoint_id}
    event = _event(deletion_id(namespace, checkpoint_id), "deletion", hidden)
    return msgspec.structs.replace(event, state_delta={HAS_DELETIONS: True})


def entry_event(event_id: str, entry: IndexEntry | NamespaceEntry) -> Event:
    """Make the event of an entry."""
    return _event(event_id, _kind(type(entry)), msgspec.to_builtins(entry))


def entry_of(event: Event, kind: type[_E]) -> _E | None:
    """Return the entry that an event holds; ``None`` if it holds none of that kind."""
    part = event.content[0] if event.content else ""
    if isinstance(part, Data) and part.media_type == _MEDIA_TYPE + _kind(kind):
        return msgspec.convert(part.data, kind)
    return None


def is_checkpoint(event: Event) -> bool:
    """Tell whether an event holds a checkpoint."""
    part = event.content[0] if event.content else ""
    return isinstance(part, Data) and part.media_type == _MEDIA_TYPE + "checkpoint"


def _kind(entry: type[IndexEntry | NamespaceEntry]) -> str:
    return "index" if entry is IndexEntry else "namespace"


def _event(event_id: str, kind: str, data: Any) -> Event:
    return Event(author=_AUTHOR, id=event_id, content=[Data(data, _MEDIA_TYPE + kind)])


# -- records, which are bytes


def to_events(event_id: str, kind: str, record: Any, max_event_size: int) -> list[Event]:
    """Make the events of a record: its parts, if it is too large for one, and then itself.

    Parts are named by what is in them, so that those of two writers never mix.

    Raises:
        StateValueError: A name in it is no valid Unicode.
    """
    try:
        data = msgspec.msgpack.encode(record)
    except UnicodeEncodeError:
        check_json(msgspec.to_builtins(record), (kind,))
        raise
    room = _room(event_id, max_event_size)
    if len(data) <= room:
        return [_event(event_id, kind, _to_text(data))]
    pieces = [data[start : start + room] for start in range(0, len(data), room)]
    digest = hashlib.sha256(data).hexdigest()
    ids = _part_ids(event_id, digest, len(pieces))
    parts = [_event(each, "part", _to_text(piece)) for each, piece in zip(ids, pieces, strict=True)]
    return [*parts, _event(event_id, kind, {"sha256": digest, "parts": len(pieces)})]


def _room(event_id: str, max_event_size: int) -> int:
    """Tell how many bytes an event may hold, in base64 and with an id that JSON may escape."""
    text = max_event_size - 2 * len(event_id.encode()) - _ENVELOPE
    return max(1, min(text // 4 * 3, _LARGEST_PART))


def part_ids(event: Event) -> list[str]:
    """Return the ids of a record's parts; none if the event holds all of it."""
    data = _data(event)
    if isinstance(data, str):
        return []
    return _part_ids(event.id, data["sha256"], data["parts"])


def _part_ids(event_id: str, digest: str, count: int) -> list[str]:
    return [f"{event_id}#{digest[:16]}.{number}" for number in range(count)]


def joined(event: Event, parts: Sequence[Event], kind: type[_R]) -> _R:
    """Return the record that an event and its parts hold."""
    # It is five times as fast as b64decode().
    data = b"".join(msgspec.convert(_data(each), bytes) for each in parts or [event])
    return msgspec.msgpack.decode(data, type=kind)


def _data(event: Event) -> Any:
    """Return what an event holds; ``None`` for one that something else has stored."""
    part = event.content[0] if event.content else ""
    return part.data if isinstance(part, Data) else None


def size_of(event: Event) -> int:
    """Tell how much an event holds, in bytes; nothing to speak of if it is an entry in a list."""
    data = _data(event)
    return len(data) if isinstance(data, str) else 0


def _to_text(data: bytes) -> str:
    text: str = msgspec.to_builtins(data)  # base64, and faster than b64encode()
    return text


def batches(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Cut events into as few appends as they take; the last event is in the last one."""
    batch: list[Event] = []
    size = 0
    for event in events:
        added = size_of(event)
        if batch and (len(batch) == _MOST_EVENTS or size + added > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += added
    yield batch


def counting(writes: Iterable[Write]) -> list[Write]:
    """Return the writes that count, of all that were stored.

    Of those with one index of one task the first counts; of the special ones, such as interrupts,
    which have indices below 0, the last.
    """
    by_place: dict[tuple[str, int], Write] = {}
    for write in writes:
        place = write.task_id, write.index
        if write.index < 0 or place not in by_place:
            by_place[place] = write
    return list(by_place.values())
