"""Who reads the events of a turn while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, Self

from agentsession._misuse import AsyncContext
from agentsession.events import Event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Audience", "Reader"]

_logger = logging.getLogger("agentsession.runner")

# Of chunks of a stream that a slow reader has not taken, so many wait for it; the rest of their
# stream is dropped. Whole events are not, since they are stored too.
_MOST_CHUNKS: Final = 1000
# A reader that has taken nothing for so many seconds may have been left behind.
_LEFT_BEHIND: Final = 1.0


class Audience:
    """The readers of one turn.

    Args:
        on_empty: Called when the last of them has gone, and the turn is not over.

    Attributes:
        patient: Whether the turn waits for its readers after each event.
    """

    def __init__(self, on_empty: Callable[[], None]) -> None:
        self.patient = True
        self._on_empty = on_empty
        self._readers: set[_Place] = set()
        # What a reader that comes later gets: whole events, and the chunks since the last of them.
        self._whole: list[Event] = []
        self._chunks: list[Event] = []
        self._is_over = False
        self._error: BaseException | None = None
        self._is_wanted = asyncio.Event()
        # Since when the turn waits for a reader, on the loop's clock; 0 if it does not.
        self._waits_since = 0.0
        self._is_raised = False
        # How many wait for the end, and read nothing.
        self.waiting = 0

    def __del__(self) -> None:
        error = self._error
        if isinstance(error, Exception) and not self._is_raised:
            _logger.error("a turn failed, and nobody has read it: %r", error, exc_info=error)

    def enter(self) -> _Place:
        """Begin to read, from the beginning of the turn."""
        place = _Place(self, [*self._whole, *self._chunks])
        self._readers.add(place)
        return place

    def leave(self, place: _Place) -> None:
        """Read no more; may be called again."""
        if place in self._readers:
            self._readers.remove(place)
            self._is_wanted.set()
            if not self._readers and not self.waiting and not self._is_over:
                self._on_empty()

    def want(self) -> None:
        """Have a turn that waits go on."""
        self._is_wanted.set()

    @property
    def is_kept_waiting(self) -> bool:
        """Whether the turn has waited for a while for a reader that takes nothing."""
        now = asyncio.get_running_loop().time()
        return self._waits_since > 0 and now - self._waits_since > _LEFT_BEHIND

    @property
    def whole_events(self) -> list[Event]:
        """The whole events that were handed on so far."""
        return [*self._whole]

    async def hand_on(self, event: Event) -> None:
        """Give an event to every reader; wait, if the turn is patient, until one wants more."""
        if event.partial:
            self._chunks.append(event)
        else:
            self._whole.append(event)
            self._chunks.clear()
        self._is_wanted.clear()
        for place in self._readers:
            place.give(event)
        if self.patient and self._readers:
            self._waits_since = asyncio.get_running_loop().time()
            try:
                await self._is_wanted.wait()
            finally:
                self._waits_since = 0.0

    def end(self, error: BaseException | None) -> None:
        """Tell every reader that the turn is over."""
        self._is_over, self._error = True, error
        for place in self._readers:
            place.wake()

    def raise_error(self) -> None:
        """Raise what the turn ended with, if that is an error."""
        if self._error is not None:
            self._is_raised = True
            raise self._error

    @property
    def is_over(self) -> bool:
        """Whether the turn is over."""
        return self._is_over


class _Place:
    """What one reader has not read yet."""

    def __init__(self, audience: Audience, events: list[Event]) -> None:
        self._audience = audience
        self._waiting = deque(events)
        self._chunks = sum(event.partial for event in events)
        # Streams of which a chunk was dropped: what comes after it would not go on with the rest.
        self._broken: set[str] = set()
        self._woken: asyncio.Future[None] | None = None
        self._has_left = False
        self._loop = asyncio.get_running_loop()

    def give(self, event: Event) -> None:
        """Add an event."""
        if event.partial:
            if self._chunks >= _MOST_CHUNKS or event.stream_id in self._broken:
                self._broken.add(event.stream_id)
                return
            self._chunks += 1
        self._waiting.append(event)
        self.wake()

    def wake(self) -> None:
        """Have the reader look again."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def next(self) -> Event:
        """Return the next event.

        Raises:
            StopAsyncIteration: The turn is over, and all was read; or the reader has left.
            RuntimeError: Another task waits for the next one here.
        """
        if self._woken is not None and not self._woken.done():
            msg = "another task waits for the next event here; give each its own run.read()"
            raise RuntimeError(msg)
        while not self._waiting or self._has_left:
            if self._has_left:
                raise StopAsyncIteration
            if self._audience.is_over:
                self._audience.raise_error()
                raise StopAsyncIteration
            self._woken = self._loop.create_future()
            self._audience.want()
            try:
                await self._woken
            finally:
                self._woken = None
        event = self._waiting.popleft()
        self._chunks -= event.partial
        return event

    def leave(self) -> None:
        """Read no more."""
        self._has_left = True
        self.wake()
        self._audience.leave(self)

    def leave_soon(self) -> None:
        """Read no more; called from wherever garbage is collected."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.leave)


class Reader(AsyncIterator[Event], AsyncContext):
    """One reader of a turn that was started: iterate over it, once.

    It gets the whole events of the turn from its beginning, and chunks of streams as they come. A
    reader that is slow loses chunks, and holds nobody up. It goes when its ``async with`` block
    ends, when it is cancelled, or when it is forgotten.
    """

    def __init__(self, place: _Place) -> None:
        self._place = place

    def __del__(self) -> None:
        self._place.leave_soon()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self.read()

    async def read(self, when_left: Callable[[], Awaitable[None]] | None = None) -> Event:
        """Return the next event; await this when the reader is cancelled, and has left."""
        try:
            return await self._place.next()
        except asyncio.CancelledError:
            self._place.leave()
            if when_left is not None:
                await when_left()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Read no more."""
        self._place.leave()
