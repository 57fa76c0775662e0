"""Reads of a session's log: pages, filters, and the window around one event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from itertools import compress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from agentsession import codec
from agentsession._pace import Pace
from agentsession._service.arguments import natural
from agentsession.backend import Expected
from agentsession.errors import CodecError, EventNotFoundError, ReadTooLargeError
from agentsession.events import Event

if TYPE_CHECKING:
    from agentsession.backend import Backend, EventSlice, ReadLimit
    from agentsession.history import View
    from agentsession.sessions import SessionKey

# How many events one read of a filtered page looks at: enough that a sparse filter needs few reads,
# few enough that a read stays under a megabyte with events of a usual size.
_SCAN: Final = 500

# How many events a history reads first: a turn or two. Then twice as many each time, up to the most
# in a page.
_NEWEST: Final = 12
_MOST: Final = 1000

ContentType: TypeAlias = Literal["text", "reasoning", "media", "tool_call", "tool_result", "data"]
"""The types of content that a page can be filtered by; plain words count as ``"text"``."""

Filter: TypeAlias = Callable[[Event], bool]


def event_filter(
    author: str | Collection[str] | None, branch: str | None, content_type: ContentType | None
) -> Filter | None:
    """Combine filters into one; ``None`` if there are none."""
    tests: list[Filter] = []
    if author is not None:
        if not isinstance(author, Iterable):
            msg = (
                f"author must be a str or several, not {type(author).__qualname__}: {author!r:.80}"
            )
            raise TypeError(msg)
        authors = {author} if isinstance(author, str) else set(author)
        for each in authors:
            _check_text("author", each)
        tests.append(lambda event: event.author in authors)
    if branch is not None:
        below = _check_text("branch", branch) + "."
        tests.append(lambda event: event.branch == branch or event.branch.startswith(below))
    if content_type is not None:
        known = get_args(ContentType)
        if content_type not in known:
            msg = f"content_type must be one of {', '.join(known)}, not {content_type!r:.80}"
            raise ValueError(msg)
        tests.append(lambda event: content_type in _content_types(event))
    return (lambda event: all(test(event) for test in tests)) if tests else None


def _check_text(name: str, value: str) -> str:
    if not isinstance(value, str):
        msg = f"{name} must be a str, not {type(value).__qualname__}: {value!r:.80}"
        raise TypeError(msg)
    return value


def _content_types(event: Event) -> set[str]:
    if isinstance(event.content, str):
        return {"text"} if event.content else set()
    return {str(part.__struct_config__.tag) for part in event.content}


async def decode_events(payloads: Sequence[bytes], seqs: Sequence[int], pace: Pace) -> list[Event]:
    """Decode a piece of a log; what is unreadable in it is replaced."""
    events: list[Event] = []
    for run in codec.runs(payloads):
        if pace.due():
            await pace.rest()
        events += _decoded_run(run, seqs[len(events) : len(events) + len(run)])
    return events


def _decoded_run(payloads: Sequence[bytes], seqs: Sequence[int]) -> list[Event]:
    try:
        return codec.decode_events(payloads, seqs)
    except ValueError:
        # One by one, which tells which it is; or none, if only their run was nested too deep.
        return [decode_event(*each) for each in zip(payloads, seqs, strict=True)]


def decode_event(payload: bytes, seq: int) -> Event:
    """Decode one event of a log; what is unreadable is replaced."""
    try:
        return codec.decode_event(payload, seq)
    except ValueError as exc:
        return codec.unreadable_event(payload, seq, str(exc))


class _RewoundError(Exception):
    """The log has gone back to an earlier event since what was read of it."""


class LogReader:
    """One read of a session's log, which may take several of the backend.

    Args:
        backend: Keeps the log.
        key: The session.
        wanted: The filter; ``None`` if every event passes.
        read_limit: How much the whole may return.
        expected: Which session it must be.
        raw: Whether it sees what was taken back, too.
    """

    def __init__(
        self,
        backend: Backend,
        key: SessionKey,
        wanted: Filter | None,
        read_limit: ReadLimit | None,
        expected: Expected,
        *,
        raw: bool = False,
    ) -> None:
        self._backend = backend
        self._key = key
        self._wanted = wanted
        self._read_limit = read_limit
        self._expected = expected
        self._raw = raw
        self._taken: list[bytes] = []
        self._first_seq = 1
        self._rewound_at: int | None = None
        self._pace = Pace()

    @property
    def expected(self) -> Expected:
        """Which session it is, once something was read."""
        return self._expected

    async def _of_one_log(self, read: Callable[[], Awaitable[list[Event]]]) -> list[Event]:
        """Do what takes several reads, anew if the log goes back between two of them."""
        while True:
            self._taken, self._rewound_at = [], None
            with suppress(_RewoundError):
                return await read()

    async def page(
        self,
        *,
        after_seq: int = 0,
        before_seq: int | None = None,
        limit: int,
        newest_first: bool = False,
    ) -> list[Event]:
        """Read up to *limit* events that pass the filter, beginning at one end of a range."""
        return await self._of_one_log(
            lambda: self._page(
                after_seq=after_seq, before_seq=before_seq, limit=limit, newest_first=newest_first
            )
        )

    async def _page(
        self,
        *,
        after_seq: int = 0,
        before_seq: int | None = None,
        limit: int,
        newest_first: bool = False,
    ) -> list[Event]:
        page: list[Event] = []
        stride = limit if self._wanted is None else _SCAN
        while True:
            try:
                found = await self._read(
                    after_seq=after_seq,
                    before_seq=before_seq,
                    limit=stride,
                    newest_first=newest_first,
                )
            except ReadTooLargeError:
                if self._wanted is None or stride == 1:
                    raise
                stride = max(1, stride // 8)  # What does not pass does not count: look at fewer.
                continue
            events, payloads = await self._passing(found, newest_first=newest_first)
            room = limit - len(page)
            page += events[:room]
            self._count(payloads[:room])
            if len(page) == limit or len(found.events) < stride:
                return page
            if newest_first:
                before_seq = found.seqs[0]
            else:
                after_seq = found.seqs[-1]

    async def _read(
        self, *, after_seq: int, before_seq: int | None, limit: int, newest_first: bool = False
    ) -> EventSlice:
        """Read once, from the log that was read from before."""
        found = await self._backend.read(
            self._key,
            after_seq=after_seq,
            before_seq=before_seq,
            limit=limit,
            newest_first=newest_first,
            raw=self._raw,
            read_limit=self._read_limit,
            expected=self._expected,
        )
        # Positions mean nothing in another session, should it be made anew meanwhile.
        self._expected = Expected(found.incarnation)
        self._first_seq = found.first_seq
        if self._rewound_at not in (None, found.rewound_at) and not self._raw:
            raise _RewoundError
        self._rewound_at = found.rewound_at
        return found

    async def history(self, view: View) -> list[Event]:
        """Read from the end as far back as a view needs, in pages that grow."""
        return await self._of_one_log(lambda: self._history(view))

    async def _history(self, view: View) -> list[Event]:
        events: list[Event] = []
        looked_at = 0
        limit, before_seq, may_grow = _NEWEST, None, True
        while True:
            try:
                page = await self._page(before_seq=before_seq, limit=limit, newest_first=True)
            except ReadTooLargeError:
                if limit == 1:
                    raise
                limit, may_grow = max(1, limit // 4), False  # Perhaps fewer will do.
                continue
            events = [*reversed(page), *events]
            is_all = len(page) < limit or page[-1].seq == self._first_seq
            # Twice as many each time, so that all looks together take as long as the last two.
            if is_all or limit < _MOST or len(events) >= 2 * looked_at:
                steps = view.in_steps(events, is_all=is_all, first_seq=self._first_seq)
                history = await self._pace.through(steps)
                if history is not None:
                    return history
                looked_at = len(events)
            before_seq = events[0].seq
            if may_grow:
                limit = min(2 * limit, _MOST)

    async def around(self, anchor: int | str, *, limit: int) -> list[Event]:
        """Read up to *limit* events around one, which is there whether it passes or not.

        Args:
            anchor: Its position, or its id.
            limit: The most events to return.

        Returns:
            The events in the order of the log.

        Raises:
            CodecError: That event is unreadable.
            EventNotFoundError: The log does not hold that event.
        """
        return await self._of_one_log(lambda: self._around(anchor, limit))

    async def _around(self, anchor: int | str, limit: int) -> list[Event]:
        if isinstance(anchor, str):
            seq = await self._locate(anchor)
        else:
            seq = anchor = natural("around", anchor)
        events = await self._around_seq(seq, limit) if seq else []
        if not any(event.seq == seq and anchor in (seq, event.id) for event in events):
            raise EventNotFoundError(self._key, anchor)
        return events

    async def _locate(self, event_id: str) -> int:
        """Return an event's position, 0 if the log does not hold it."""
        try:
            event_id.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which no stored id holds
            return 0
        return await self._backend.locate(self._key, event_id, expected=self._expected) or 0

    async def _around_seq(self, seq: int, limit: int) -> list[Event]:
        """Read the events around a position; none if the log does not hold the one at it."""
        alone = await self._read(after_seq=seq - 1, before_seq=seq + 1, limit=1)
        if not alone.events:
            return []
        try:
            anchor = codec.decode_event(alone.events[0], seq)
        except ValueError as exc:
            raise CodecError(self._key, f"the stored event {seq} is unreadable: {exc}") from exc
        self._count(alone.events)
        older = (limit - 1) // 2
        newer = limit - 1 - older
        before = await self._page(before_seq=seq, limit=older, newest_first=True) if older else []
        after = await self._page(after_seq=seq, limit=newer) if newer else []
        return [*reversed(before), anchor, *after]

    async def _passing(
        self, found: EventSlice, *, newest_first: bool
    ) -> tuple[Sequence[Event], Sequence[bytes]]:
        """Decode a run, and leave out what does not pass; in the order of reading."""
        events: Sequence[Event] = await self._decode(found)
        payloads = found.events
        if newest_first:
            events, payloads = events[::-1], payloads[::-1]
        wanted = self._wanted
        if wanted is None:
            return events, payloads
        kept = [wanted(event) for event in events]
        return list(compress(events, kept)), list(compress(payloads, kept))

    async def _decode(self, found: EventSlice) -> list[Event]:
        return await decode_events(found.events, found.seqs, self._pace)

    def _count(self, taken: Sequence[bytes]) -> None:
        """Refuse the read when it would return too much in all."""
        if self._read_limit is not None:
            together = [*self._taken, *taken]
            self._read_limit.check(self._key, together)
            self._taken = together
