"""What is on its way to followers; chunks of streams are numbered, since some may be lost."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from agentsession import codec
from agentsession._wording import described
from agentsession.errors import BackendError, EventTooLargeError
from agentsession.events import Content, Event, Part, Reasoning, Text, ToolCall, new_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentsession.backend import Backend
    from agentsession.sessions import SessionKey

__all__ = ["Chunk", "Chunks", "Waiting", "joined", "read_chunk"]

_logger = logging.getLogger("agentsession.service")

# How many wait, for a server or for a slow reader, and from how many bytes on no more do.
_MOST_WAITING: Final = 1000
_MOST_BYTES: Final = 1 << 20
# Of so many streams it is known what they have said so far.
_MOST_STREAMS: Final = 10_000
# The fields of parts that may be long.
_LONG: Final = ("text", "data", "arguments")
# After so many seconds followers are told of all of a stream again.
_CATCH_UP: Final = 1.0
# Where nobody listens, chunks of a session are not even sent for so many seconds.
_NOBODY_LISTENS: Final = 0.1


class Chunk(NamedTuple):
    """What was told of a chunk: which one of which stream it is, and the event."""

    stream: str
    number: int
    event: Event


def read_chunk(told: bytes) -> Chunk | None:
    """Return the chunk that was told; ``None`` if it cannot be read, as one of a later version."""
    stream, _, rest = told.partition(b" ")
    number, _, payload = rest.partition(b" ")
    try:
        return Chunk(stream.decode(), int(number), codec.decode_event(payload))
    except ValueError:
        return None  # What it becomes part of is stored.


class Waiting:
    """Chunks or events that wait, in order. Where many do already, what comes is dropped."""

    def __init__(self) -> None:
        # Whether it is of no use to wait.
        self.nobody_listens = False
        self.size = 0
        self._payloads: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._payloads)

    @property
    def is_full(self) -> bool:
        """Whether what comes is dropped."""
        return len(self._payloads) >= _MOST_WAITING or self.size >= _MOST_BYTES

    def add_all(self, payloads: Iterable[bytes | None]) -> None:
        for payload in payloads:
            if payload is not None:
                self.add(payload)

    def add(self, payload: bytes) -> None:
        if not self.is_full:
            self._payloads.append(payload)
            self.size += len(payload)

    def take(self) -> bytes:
        payload = self._payloads.popleft()
        self.size -= len(payload)
        return payload

    def clear(self) -> None:
        self._payloads.clear()
        self.size = 0


def joined(contents: Iterable[Content]) -> Content:
    """Return what the contents of chunks are together.

    Words go on where words ended; so do thoughts, and arguments of a call that come as text.
    """
    parts: list[Part] = []
    for content in contents:
        for part in [Text(content)] if isinstance(content, str) else content:
            further = _further(parts[-1], part) if parts else None
            if further is None:
                parts.append(part)
            else:
                parts[-1] = further
    if len(parts) == 1 and isinstance(parts[0], Text) and parts[0].provider_data is None:
        return parts[0].text
    return parts


def _further(before: Part, after: Part) -> Part | None:
    """Return two parts as one, if the second one goes on with the first."""
    if isinstance(before, ToolCall) and isinstance(after, ToolCall):
        begun, rest = before.arguments, after.arguments
        is_text = isinstance(begun, str) and isinstance(rest, str)
        if not is_text or before.call_id != after.call_id:
            return None
        return msgspec.structs.replace(before, arguments=begun + rest)
    if type(before) is not type(after) or not isinstance(before, Text | Reasoning):
        return None
    assert isinstance(after, Text | Reasoning)  # noqa: S101 - for the type checker
    kept = before.provider_data if after.provider_data is None else after.provider_data
    return type(before)(before.text + after.text, kept)


def _size_of(content: Content) -> int:
    """Return about how many bytes it takes."""
    if isinstance(content, str):
        return len(content)
    fields = (getattr(part, name, "") for part in content for name in _LONG)
    return len(content) + sum(len(value) for value in fields if isinstance(value, str))


class _Stream:
    """What one stream has said so far.

    Args:
        name: Tells it from all others, whose events may have the same ``stream_id``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        # How many chunks it has, and up to which one followers were told of each.
        self.number = 0
        self._told = 0
        self._caught_up_at = asyncio.get_running_loop().time()
        self._contents: list[Content] | None = []
        self._size = 0

    def add(self, content: Content) -> None:
        self.number += 1
        if not isinstance(content, str | list):  # pyright: ignore[reportUnnecessaryIsInstance] - nothing checks it
            self._contents = None
        if self._contents is not None:
            self._contents.append(content)
            self._size += _size_of(content)
            if self._size > _MOST_BYTES:
                self._contents = None

    def is_due(self) -> bool:
        """Tell, of a stream that is followed, whether it is time to tell all of it."""
        now = asyncio.get_running_loop().time()
        is_whole, self._told = self._told == self.number - 1, self.number
        if is_whole and now - self._caught_up_at < _CATCH_UP:
            return False
        self._caught_up_at = now
        return self.number > 1

    def snapshot(self, last: Event) -> Event | None:
        """Return all of it as one chunk; ``None`` if it is too much, or not what it should be."""
        if self._contents is None:
            return None
        try:
            self._contents = [joined(self._contents)]
        except TypeError:  # The chunk itself is refused, and logged, when it is encoded.
            self._contents = None
            return None
        return msgspec.structs.replace(last, snapshot=True, content=self._contents[0])


class Chunks:
    """Hands chunks on to followers, without their senders waiting for it.

    Chunks of a stream are numbered, so that a follower sees where one is missing: there it waits
    for a snapshot, which is told about once a second, and where nobody has listened for a while.

    Args:
        backend: Tells the followers.
        max_size: The largest encoded chunk, in bytes; a larger one is dropped.
    """

    def __init__(self, backend: Backend, max_size: int) -> None:
        self._backend = backend
        self._max_size = max_size
        # What waits of the sessions for which a task is sending, or resting.
        self._waiting: dict[SessionKey, Waiting] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._name = new_id()
        self._made = 0
        # By session and stream; of those that no whole event ends, the oldest are forgotten.
        self._streams: OrderedDict[tuple[SessionKey, str], _Stream] = OrderedDict()
        # The sessions of these to which somebody listened when the last chunk was sent.
        self._followed: set[SessionKey] = set()

    def send(self, key: SessionKey, event: Event) -> None:
        """Hand on a chunk soon; it is dropped where too many wait, or nobody listens."""
        stream = self._stream(key, event)
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.nobody_listens:
            return
        payloads = [self._encoded(key, event, stream)]
        if event.stream_id and key in self._followed and stream.is_due():
            snapshot = stream.snapshot(event)
            if snapshot is not None:
                payloads.append(self._encoded(key, snapshot, stream))
        if waiting is not None:
            waiting.add_all(payloads)
            return
        self._waiting[key] = waiting = Waiting()
        waiting.add_all(payloads)  # Before its task is made, which may run at once.
        task = asyncio.create_task(self._send_all(key), name="agentsession-chunks")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stream(self, key: SessionKey, event: Event) -> _Stream:
        place = key, event.stream_id
        stream = self._streams.get(place)
        if stream is None:
            self._made += 1
            self._streams[place] = stream = _Stream(f"{self._name}-{self._made:x}")
            if len(self._streams) > _MOST_STREAMS:
                (forgotten, _), _ = self._streams.popitem(last=False)
                self._followed.discard(forgotten)
        self._streams.move_to_end(place)
        stream.add(event.content if event.stream_id else "")
        return stream

    def overtake(self, key: SessionKey, events: Iterable[Event]) -> None:
        """Drop what waits of a session, and the streams that these events end, now stored."""
        if self._streams:
            for event in events:
                self._streams.pop((key, event.stream_id), None)
            self._followed.discard(key)
        if self._waiting and key in self._waiting:
            self._waiting[key].clear()

    async def aclose(self) -> None:
        """Send no more."""
        for task in [*self._tasks]:
            task.cancel()
        if self._tasks:
            await asyncio.wait([*self._tasks])

    def _encoded(self, key: SessionKey, event: Event, stream: _Stream) -> bytes | None:
        """Return the bytes of a chunk; ``None`` if it has none, which is logged."""
        try:
            payload = codec.encode_event(event)
            if len(payload) > self._max_size:
                raise EventTooLargeError(key, event.id, len(payload), self._max_size)
        except (TypeError, ValueError) as exc:
            _logger.warning("%s: a chunk was not handed on to followers: %s", described(key), exc)
            return None
        return b"%b %d %b" % (stream.name.encode(), stream.number, payload)

    async def _send_all(self, key: SessionKey) -> None:
        waiting = self._waiting[key]
        try:
            while waiting:
                if await self._send(key, waiting.take()):
                    self._followed.add(key)
                    continue
                self._followed.discard(key)
                waiting.clear()
                waiting.nobody_listens = True
                await asyncio.sleep(_NOBODY_LISTENS)
        finally:
            del self._waiting[key]

    async def _send(self, key: SessionKey, payload: bytes) -> bool:
        """Hand on one; tell whether anybody may have got it."""
        try:
            return await self._backend.tell(key, payload)
        except BackendError:
            return False
