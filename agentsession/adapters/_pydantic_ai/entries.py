"""The entries of a conversation, as they stand in the log of its session.

What came before an event never changes, whatever is appended or taken back later: the raw log shows
it as it was. So an entry is found by the position of its event, and its history is what the log was
right after that event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct
from pydantic_ai.conversation_store import ConversationEntry
from pydantic_ai.messages import ModelMessage

from agentsession.adapters._pydantic_ai.to_events import own_of
from agentsession.adapters._pydantic_ai.to_messages import (
    load_messages,
    messages_of,
    name_results,
)
from agentsession.errors import CodecError, ReadTooLargeError
from agentsession.events import UNREADABLE, Event
from agentsession.sessions import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentsession.adapters._sessions.logs import Awaitable

__all__ = ["EntryId", "Item", "Newest", "Seen", "entries_of", "history_to", "read_back"]

_MOST = 1000


class Seen(Struct, frozen=True):
    """A conversation as it was when it was read.

    Args:
        session: Its session, without state and events.
        revision: What the framework was told as its revision; ``None`` if there was none to tell.
        head: The id of its newest entry; ``None`` if it has none.
    """

    session: Session
    revision: str | None
    head: str | None


class EntryId(str):
    """The id of an entry, which also knows where the entry is.

    Elsewhere, as in a pickle or a database, it is a plain string, and the entry has to be searched
    for.

    Args:
        value: The id.
        seen: The conversation in which the entry was found.
        seq: The position of its event.
        rest: How many entries of the same event come after it; most events are one entry.
    """

    __slots__ = ("rest", "seen", "seq")

    seen: Seen
    seq: int
    rest: int

    def __new__(cls, value: str, seen: Seen, seq: int, rest: int = 0) -> Self:
        made = super().__new__(cls, value)
        made.seen, made.seq, made.rest = seen, seq, rest
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class Item(Struct):
    """An entry as it stands in a log.

    Attributes:
        id: Its id.
        seq: The position of its event, the last one if it has several.
        rest: See :class:`EntryId`.
        events: Its events, in their order, as far as they were read.
        original: The message as the framework has stored it; ``None`` if something else has.
        message: The message, once it was made.
    """

    id: str
    seq: int
    rest: int
    events: list[Event]
    original: Any = None
    message: ModelMessage | None = None


class Newest(Struct, frozen=True):
    """The end of a log, as it was when its session was read.

    Attributes:
        events: The newest events, oldest first, without what was taken back.
        are_all: Whether there are no older ones.
    """

    events: list[Event]
    are_all: bool


async def read_back(
    service: Awaitable,
    session: Session,
    seq: int,
    *,
    look: int = _MOST,
    until: Callable[[list[Item]], bool] = lambda _: False,
    newest: Newest | None = None,
) -> list[Item]:
    """Return the entries of a log as it was right after an event, oldest first.

    Args:
        service: Where the session is.
        session: Which one it is.
        seq: The position of the event.
        look: How many events to read at first.
        until: Tells, of those that were found, newest first, whether they are enough. There may be
            more.
        newest: The end of the log, if it is at hand and shows the event, or shows only later ones.

    Raises:
        CodecError: An event of it cannot be read.
        SessionNotFoundError: The session is gone, or was made anew.
    """
    found: list[Item] = []
    before, look = seq + 1, min(look, _MOST)
    while before > 1 and not until(found):
        if newest is None:
            page, is_all = await _page(service, session, before, look)
            look = min(2 * look, _MOST)
        else:
            page, is_all, newest = newest.events[::-1], newest.are_all, None
        for event in page:
            if event.seq < before:
                before = event.seq if event.rewind is None else event.rewind.to_seq + 1
                _add(found, session, event)
        if is_all:
            break
    return found[::-1]


async def history_to(
    service: Awaitable, head: EntryId, limit: int | None = None, newest: Newest | None = None
) -> list[Item]:
    """Return the entries up to one, oldest first; none if its event was trimmed.

    Args:
        service: Where it is.
        head: The entry.
        limit: At most this many, the last ones.
        newest: The end of its log, as it was when the entry was found, if it is at hand.

    Raises:
        CodecError: An event of it cannot be read.
        SessionNotFoundError: The session is gone, or was made anew.
    """
    most = None if limit is None else limit + head.rest
    items = await read_back(
        service,
        head.seen.session,
        head.seq,
        look=_MOST if most is None else most + 1,
        until=lambda found: most is not None and len(found) >= most,
        newest=newest,
    )
    history = [item for item in items if item.seq < head.seq or item.rest >= head.rest]
    return history if limit is None else history[-limit:]


async def _page(
    service: Awaitable, session: Session, before: int, limit: int
) -> tuple[list[Event], bool]:
    """Read raw events before a position, newest first, and tell whether there are no more."""
    try:
        page = await service.get_events(
            session, before_seq=before, limit=limit, newest_first=True, raw=True
        )
    except ReadTooLargeError:
        limit = min(limit - 1, service.always_readable)
        page = await service.get_events(
            session, before_seq=before, limit=limit, newest_first=True, raw=True
        )
    return page, len(page) < limit


def _add(found: list[Item], session: Session, event: Event) -> None:
    """Add the entries of an event to those that come after it, newest first."""
    own = own_of(event)
    if event.error is not None and event.error.type == UNREADABLE:
        raise CodecError(session.key, f"event {event.seq} cannot be read: {event.error.message}")
    if found and "of" in own and own["of"] == found[-1].id:
        found[-1].events.insert(0, event)
    elif "message" in own and isinstance(own.get("id"), str):
        found.append(Item(own["id"], event.seq, 0, [event], own["message"]))
    else:
        found += _items_of_others(event, own.get("id"))


def _items_of_others(event: Event, own_id: Any) -> list[Item]:
    """Return the entries of an event that something else has stored, newest first."""
    entry_id = own_id if isinstance(own_id, str) else event.id
    return [
        Item(f"{entry_id}#{rest}" if rest else entry_id, event.seq, rest, [event], message=message)
        for rest, message in enumerate(reversed(messages_of(event)))
    ]


def entries_of(items: Sequence[Item], seen: Seen) -> list[ConversationEntry]:
    """Return entries as the framework wants them; the first one is taken for the beginning.

    Raises:
        CodecError: A message cannot be read.
    """
    _make_messages(items, seen.session)
    entries: list[ConversationEntry] = []
    parent: EntryId | None = None
    for item in items:
        assert item.message is not None  # noqa: S101 - they were all made
        entry_id = EntryId(item.id, seen, item.seq, item.rest)
        entries.append(ConversationEntry(id=entry_id, parent_id=parent, message=item.message))
        parent = entry_id
    return entries


def _make_messages(items: Sequence[Item], session: Session) -> None:
    stored = [item for item in items if item.message is None]
    try:
        messages = load_messages([item.original for item in stored])
    except ValueError as exc:
        raise CodecError(session.key, f"a message of Pydantic AI cannot be read: {exc}") from exc
    for item, message in zip(stored, messages, strict=True):
        item.message = message
    if len(stored) < len(items):
        name_results(item.message for item in items if item.message is not None)
