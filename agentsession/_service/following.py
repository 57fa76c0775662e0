"""Subscriptions: how sessions are followed, over any backend."""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from collections import OrderedDict, deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, NoReturn, Self, TypeVar

from agentsession._misuse import AsyncContext
from agentsession._pace import Pace
from agentsession._service.chunks import Waiting, read_chunk
from agentsession._service.log import decode_event, decode_events
from agentsession._wording import described
from agentsession.backend import Expected, News
from agentsession.errors import BackendError, ClosedError, SessionNotFoundError
from agentsession.events import UNREADABLE, Event
from agentsession.sessions import SessionKey, UserKey
from agentsession.subscriptions import (
    Ended,
    Followed,
    Missed,
    Rewound,
    SessionNews,
    Subscription,
    Trimmed,
    UserSubscription,
    What,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentsession.backend import Backend, EventSlice, ReadLimit

__all__ = ["Following"]

_T = TypeVar("_T")

# Followers look for themselves after so many seconds without news, or sooner where sessions expire
# sooner: news that were lost, and an expiry, are seen then.
_LONGEST_WAIT: Final = 30.0
_SHORTEST_WAIT: Final = 0.1
# How many events are read at once, and how many news of a user wait for a slow reader.
_PAGE: Final = 100
_MOST_WAITING: Final = 1000
# So many streams are remembered, to drop what comes late, twice, or not in order.
_REMEMBERED: Final = 256


_WORDS: Final[Mapping[str, What]] = {
    "made": "created",
    "written": "written",
    "began": "run_began",
    "ended": "run_ended",
    "deleted": "deleted",
}


def _id_of(event: Event) -> str:
    """Return the id under which it is stored; ``""`` if that cannot be read."""
    return "" if event.error is not None and event.error.type == UNREADABLE else event.id


class _Recent(OrderedDict[str, _T]):
    """What was noted of some words, those that came last."""

    def note(self, word: str, what: _T) -> None:
        self[word] = what
        self.move_to_end(word)
        if len(self) > _REMEMBERED:
            self.popitem(last=False)


class _Follower(AsyncContext, Generic[_T]):
    """What both kinds of subscriptions have: a bell, and a life.

    Args:
        following: The service's, which closes it with itself.
        words: What it follows, for errors.
    """

    _maker: ClassVar[str]

    def __init__(self, following: Following, words: str) -> None:
        self._following = following
        self._words = words
        self._bell: asyncio.Future[None] | None = None
        # Whether a task waits for the next item, and what interrupts its read.
        self._is_taken = False
        self._reading: asyncio.Timeout | None = None
        self._listening = ExitStack()
        self._state: Literal["new", "open", "closed"] = "new"
        self._is_cut = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state} of {self._words}>"

    if not TYPE_CHECKING:  # As in agentsession._misuse.

        def __await__(self) -> NoReturn:
            msg = (
                "a subscription is neither awaited nor looped over with a plain 'for'; write "
                f"'async with {self._maker}(...) as items', and within it 'async for item in items'"
            )
            raise TypeError(msg)

        __iter__ = __await__

    async def __aenter__(self) -> Self:
        if self._state != "new":
            msg = f"{self._words}: a subscription is used once; make another one"
            raise RuntimeError(msg)
        self._following.check_usable()
        self._state = "open"
        self._following.open.add(self)
        try:
            await self._begin(self._listening)
        except BaseException:
            self._close()
            raise
        if self._is_cut:
            raise ClosedError
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def aclose(self) -> None:
        """Follow no more; may be called again, and from another task: iterating ends then."""
        self._interrupt()

    def cut(self) -> None:
        """End it, because the service is closed."""
        self._is_cut = self._state == "open"
        self._interrupt()

    def _interrupt(self) -> None:
        self._close()
        self._ring()
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(0)  # Nobody waits for a server whose answer is not wanted.

    def _close(self) -> None:
        self._state = "closed"
        self._listening.close()
        self._following.open.discard(self)

    @abstractmethod
    async def _begin(self, listening: ExitStack) -> None:
        """Begin to listen."""

    @abstractmethod
    async def _next(self) -> _T | None:
        """Return the next item; ``None`` if there is none yet."""

    async def __anext__(self) -> _T:
        if self._state == "new":
            msg = f"{self._words}: not followed yet; write 'async with {self._maker}(...) as items'"
            raise RuntimeError(msg)
        if self._is_taken:
            msg = f"{self._words}: another task waits for the next item; one subscription each"
            raise RuntimeError(msg)
        if self._state == "open":
            self._following.check_usable()
        self._is_taken = True
        try:
            while self._state == "open":
                item = await self._next()
                if item is not None:
                    return item
                await self._wait()
        finally:
            self._is_taken = False
        if self._is_cut:
            raise ClosedError
        raise StopAsyncIteration

    async def _wait(self) -> None:
        """Wait for news, or until it is time to look."""
        if self._state != "open" or self._is_awake():
            return
        loop = asyncio.get_running_loop()
        self._bell = loop.create_future()
        timer = loop.call_later(self._following.longest_wait(), self._look)
        try:
            await self._bell
        finally:
            timer.cancel()
            self._bell = None

    @abstractmethod
    def _is_awake(self) -> bool:
        """Tell whether there is something to do."""

    def _look(self) -> None:
        """Be told that it is time to look."""
        self._ring()

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)


class _SessionFollower(_Follower[Followed], Subscription):
    _maker = "service.subscribe"

    def __init__(
        self,
        following: Following,
        key: SessionKey,
        after_seq: int | None,
        incarnation: str,
        *,
        partial: bool,
    ) -> None:
        super().__init__(following, described(key))
        self.key = key
        self._backend = following.backend
        self._expected = Expected(incarnation)
        self._partial = partial
        # Up to where all was handed out, and up to where it was read; None before the first read
        # of all there is.
        self._position = self._read_to = after_seq
        # That of the event up to which it was read, if it is known.
        self._newest_id = ""
        self._ready: deque[Followed] = deque()
        # The events after those that were read, which it was told.
        self._told = Waiting()
        self._chunks = Waiting()
        # Whether the log is to be read, and whether one write is the only reason for it: to be told
        # of that one's events is as good.
        self._behind = True
        self._by_a_write = False
        # From when on it reads all the same, as it does when it is told nothing.
        self._look_at = 0.0
        self._was_deleted = False
        self._over: _Recent[None] = _Recent()
        # Up to which chunk streams were handed out.
        self._had: _Recent[int] = _Recent()
        # Up to where turns were seen in the log, and which of them a rewind took back.
        self._turns: _Recent[int] = _Recent()
        self._taken_back: _Recent[None] = _Recent()
        self._pace = Pace()

    @property
    def position(self) -> int:
        return self._position or 0

    @property
    def incarnation(self) -> str:
        return self._expected.incarnation

    async def _begin(self, listening: ExitStack) -> None:
        listening.enter_context(self._backend.follow(self.key, self._on_news))
        # What happens from now on rings the bell, so this read and the next leave no gap.
        try:
            await self._read()
        except TimeoutError:
            if self._state == "open":
                raise  # It is not ours.

    def _on_news(self, news: News | None) -> None:
        if news is not None and news.what == "chunk":
            if self._partial:
                self._chunks.add(news.chunk)
        elif news is not None and news.what == "events":
            self._on_events(news)
        elif news is None or news.what != "began":
            # What is written takes the place of the chunks that came before it.
            self._chunks.clear()
            is_write = news is not None and news.what in {"written", "ended"}
            self._by_a_write = is_write and not self._behind and self._reading is None
            self._behind = True
            if news is not None:
                self._was_deleted = news.what == "deleted"
        self._ring()

    def _on_events(self, news: News) -> None:
        """Take the events if they come next and there is no other reason to read the log.

        Where some may have been missed, or the log may be another one, only the log tells. Nor are
        they taken amid a read, which may find them too.
        """
        if (
            (self._by_a_write or not self._behind)
            and self._reading is None
            and news.incarnation == self.incarnation
            and news.first_seq == (self._read_to or 0) + len(self._told) + 1
            and asyncio.get_running_loop().time() < self._look_at
        ):
            for payload in news.events:
                self._told.add(payload)
            self._behind, self._by_a_write = self._told.is_full, False
            if self._behind:
                self._told.clear()  # The log keeps them better for a reader that is so slow.

    def _look(self) -> None:
        self._behind, self._by_a_write = True, False
        super()._look()

    def _is_awake(self) -> bool:
        return self._behind or bool(self._told) or bool(self._chunks)

    async def _next(self) -> Followed | None:
        while self._state == "open":
            if self._ready:
                return self._handed_out(self._ready.popleft())
            if self._behind:
                try:
                    await self._read()
                except SessionNotFoundError as exc:
                    return self._end(exc)
                except (BackendError, ClosedError, TimeoutError):
                    if self._state == "open":
                        raise
            elif self._told:
                self._take_told()
            elif self._chunks:
                chunk = self._chunk()
                if chunk is not None:
                    return chunk
            else:
                break
        return None

    def _handed_out(self, item: Followed) -> Followed:
        match item:
            case Event(seq=seq) | Rewound(seq=seq):
                self._position = seq
            case Trimmed():
                self._position = item.oldest_seq - 1
            case Ended():
                self._close()
        return item

    def _end(self, exc: SessionNotFoundError) -> Ended:
        self._close()
        if exc.replaced:
            return Ended("replaced")
        expires = self._backend.retention.session_ttl and not self._was_deleted
        return Ended("expired" if expires else "deleted")

    async def _read(self) -> None:
        """Read the next piece of the log, with what was told of it and not taken yet."""
        self._behind = self._by_a_write = False
        self._told.clear()
        try:
            async with asyncio.timeout(None) as self._reading:
                found = await self._following.read(
                    self.key, self._read_to or 0, self._newest_id, self._expected
                )
                events = await decode_events(found.events, found.seqs, self._pace)
        except BaseException:
            self._behind = True
            raise
        finally:
            self._reading = None
        self._expected = Expected(found.incarnation)
        self._look_at = asyncio.get_running_loop().time() + self._following.longest_wait()
        if self._read_to is None:
            first = found.seqs[0] if found.seqs else found.last_seq + 1
            self._position = self._read_to = first - 1
        self._take(found, events)

    def _take(self, found: EventSlice, events: list[Event]) -> None:
        """Have a piece of the log handed out, and what is missing before it told."""
        read_to = self._read_to or 0
        oldest_seq = found.seqs[0] if found.seqs else found.last_seq + 1
        if found.last_seq < read_to:
            self._ready.append(Ended("replaced"))
            return
        if oldest_seq > read_to + 1:
            self._ready.append(Trimmed(oldest_seq))
        for event in events:
            if event.rewind is not None:
                rewind = event.rewind
                self._ready.append(Rewound(event.seq, rewind.to_seq, rewind.restores_state))
                self._take_back(rewind.to_seq, event.invocation_id)
            else:
                self._line_up(event)
        self._read_to = found.seqs[-1] if found.seqs else oldest_seq - 1
        if events:
            self._newest_id = _id_of(events[-1])
        self._behind = self._behind or self._read_to < found.last_seq

    def _take_told(self) -> None:
        """Have the next event that was told handed out, or read if it is none to hand out so."""
        seq = (self._read_to or 0) + 1
        event = decode_event(self._told.take(), seq)
        newest_id = _id_of(event)
        if event.rewind is not None or not newest_id:
            self._behind = True
        else:
            self._line_up(event)
            self._read_to, self._newest_id = seq, newest_id

    def _line_up(self, event: Event) -> None:
        self._ready.append(event)
        if event.stream_id:
            self._over.note(event.stream_id, None)
        if event.invocation_id:
            self._turns.note(event.invocation_id, event.seq)
            self._taken_back.pop(event.invocation_id, None)

    def _take_back(self, to_seq: int, by: str) -> None:
        """Have no more chunks of turns that a rewind took the session from.

        Their process learns of it when it next writes, or renews its lease. A turn that goes back
        itself goes on.
        """
        for turn, seq in self._turns.items():
            if seq > to_seq and turn != by:
                self._taken_back.note(turn, None)

    def _chunk(self) -> Event | None:
        """Return the next chunk; unless it is late, comes again, or one before it is missing."""
        chunk = read_chunk(self._chunks.take())
        if chunk is None or chunk.event.stream_id in self._over:
            return None
        had = self._had.get(chunk.stream, 0)
        is_next = chunk.number == had + 1 or chunk.event.snapshot or not chunk.event.stream_id
        if chunk.number <= had or not is_next:
            return None
        self._had.note(chunk.stream, chunk.number)
        turn = chunk.event.invocation_id
        if turn in self._taken_back:
            return None
        if turn:
            self._turns.note(turn, (self._read_to or 0) + 1)  # It is of what comes next.
        return chunk.event


class _UserFollower(_Follower[SessionNews | Missed], UserSubscription):
    _maker = "service.subscribe_user"

    def __init__(self, following: Following, key: UserKey) -> None:
        super().__init__(following, described(key))
        self.key = key
        self._waiting: deque[SessionNews | Missed] = deque([Missed()])

    async def _begin(self, listening: ExitStack) -> None:
        listening.enter_context(self._following.backend.follow(self.key, self._on_news))

    def _on_news(self, news: News | None) -> None:
        if news is not None and news.what in {"chunk", "events"}:
            return
        if news is None or len(self._waiting) == _MOST_WAITING:
            self._waiting.clear()  # Who lists the sessions anew sees what these told of.
            self._waiting.append(Missed())
        else:
            self._waiting.append(self._worded(news))
        self._ring()

    def _worded(self, news: News) -> SessionNews:
        key = SessionKey(self.key.app_name, self.key.user_id, news.session_id)
        return SessionNews(key, _WORDS[news.what], news.run_id)

    def _is_awake(self) -> bool:
        return bool(self._waiting)

    async def _next(self) -> SessionNews | Missed | None:
        return self._waiting.popleft() if self._waiting else None


class Following:
    """The subscriptions of a service.

    Args:
        backend: Keeps the sessions, and tells of them.
        read_limit: How much one read may return.
        check_usable: Raises what a closed service does, or one of another loop or process.

    Attributes:
        backend: See above.
        check_usable: See above.
        open: The subscriptions that are entered.
    """

    def __init__(
        self, backend: Backend, read_limit: ReadLimit | None, check_usable: Callable[[], None]
    ) -> None:
        self.backend = backend
        self.check_usable = check_usable
        self.open: set[_Follower[Any]] = set()
        self._read_limit = read_limit
        # So few are read whatever is in them.
        self._page = _PAGE if read_limit is None else min(_PAGE, read_limit.harmless)

    def session(
        self, key: SessionKey, after_seq: int | None, incarnation: str, *, partial: bool
    ) -> Subscription:
        """Make a subscription of a session."""
        return _SessionFollower(self, key, after_seq, incarnation, partial=partial)

    def user(self, key: UserKey) -> UserSubscription:
        """Make a subscription of a user's sessions."""
        return _UserFollower(self, key)

    def close(self) -> None:
        """End all subscriptions."""
        for follower in [*self.open]:
            follower.cut()

    def longest_wait(self) -> float:
        """Tell after how many seconds without news to look; not all at once."""
        ttl = self.backend.retention.session_ttl / 1000
        longest = max(_SHORTEST_WAIT, min(_LONGEST_WAIT, ttl / 4)) if ttl else _LONGEST_WAIT
        return longest * random.uniform(0.8, 1.0)  # noqa: S311 - no secret

    async def read(
        self, key: SessionKey, after_seq: int, after_id: str, expected: Expected
    ) -> EventSlice:
        """Read the next events of a log, marks and what was taken back included."""
        return await self.backend.read(
            key,
            after_seq=after_seq,
            after_id=after_id,
            before_seq=None,
            limit=self._page,
            newest_first=False,
            raw=True,
            read_limit=self._read_limit,
            refresh=False,
            expected=expected,
        )
