"""Reads of a session's log: pages, filters, and the window around one event."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from agentsession import codec
from agentsession._arguments import natural
from agentsession.errors import CodecError, EventNotFoundError
from agentsession.events import Event

if TYPE_CHECKING:
    from agentsession.backend import Backend
    from agentsession.sessions import SessionKey

# How many events one read of a filtered page looks at: enough that a sparse filter needs few reads,
# few enough that a read stays under a megabyte with events of a usual size.
_SCAN: Final = 500

ContentType: TypeAlias = Literal["text", "tool_call", "tool_result", "data"]
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


def decode_events(key: SessionKey, payloads: Sequence[bytes], first_seq: int) -> list[Event]:
    """Decode a run of a log.

    Raises:
        CodecError: An event is unreadable; the error names the session and the position.
    """
    if not payloads:
        return []
    try:
        return codec.decode_events(payloads, first_seq)
    except ValueError:
        for seq, payload in enumerate(payloads, first_seq):
            try:
                codec.decode_event(payload, seq)
            except ValueError as exc:
                raise CodecError(key, f"the stored event {seq} is unreadable: {exc}") from exc
        raise


async def read_page(
    backend: Backend,
    key: SessionKey,
    *,
    after_seq: int = 0,
    before_seq: int | None = None,
    limit: int,
    newest_first: bool = False,
    wanted: Filter | None = None,
) -> list[Event]:
    """Read up to *limit* events that pass the filter, beginning at one end of a range."""
    page: list[Event] = []
    stride = limit if wanted is None else _SCAN
    while True:
        found = await backend.read(
            key,
            after_seq=after_seq,
            before_seq=before_seq,
            limit=stride,
            newest_first=newest_first,
        )
        events = decode_events(key, found.events, found.first_seq)
        if newest_first:
            events.reverse()
        page += events if wanted is None else filter(wanted, events)
        if len(page) >= limit or len(events) < stride:
            return page[:limit]
        if newest_first:
            before_seq = found.first_seq
        else:
            after_seq = events[-1].seq


async def read_around(
    backend: Backend, key: SessionKey, around: int | str, *, limit: int, wanted: Filter | None
) -> list[Event]:
    """Read a window of up to *limit* events around one, which is there whether it passes or not.

    Raises:
        EventNotFoundError: The log does not hold the event.
    """
    if isinstance(around, str):
        seq = await backend.locate(key, around) or 0
    else:
        seq = natural("around", around)
    if not seq:
        raise EventNotFoundError(key, around)
    anchor = await read_page(backend, key, after_seq=seq - 1, before_seq=seq + 1, limit=1)
    if not anchor:
        raise EventNotFoundError(key, around)
    older = (limit - 1) // 2
    newer = limit - 1 - older
    before: list[Event] = []
    if older:
        before = await read_page(
            backend, key, before_seq=seq, limit=older, newest_first=True, wanted=wanted
        )
    after: list[Event] = []
    if newer:
        after = await read_page(backend, key, after_seq=seq, limit=newer, wanted=wanted)
    return [*reversed(before), *anchor, *after]
