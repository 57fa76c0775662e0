"""The record of a conversation, which is a value of its session's state.

With it is stored how far the log went then. If the log goes further now, something else has written
to the session, and the record is read as one that has changed since.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
import pydantic
from msgspec import Struct
from pydantic_ai.conversation_store import ConversationRecord

from agentsession.adapters._pydantic_ai.entries import EntryId, Item, Newest, Seen, read_back
from agentsession.adapters._pydantic_ai.to_events import FRAMEWORK
from agentsession.errors import CodecError
from agentsession.sessions import Session

if TYPE_CHECKING:
    from agentsession.adapters._sessions.logs import Awaitable

__all__ = [
    "STATE",
    "Revision",
    "Stored",
    "Summary",
    "deleted_at",
    "state_of",
    "stored_of",
    "summary_of",
    "written",
]

STATE: Final = FRAMEWORK
"""The name in a session's state under which the record is kept."""

_records: Final = pydantic.TypeAdapter(
    list[ConversationRecord],
    config=pydantic.ConfigDict(defer_build=True, ser_json_bytes="base64", val_json_bytes="base64"),
)


class _Value(Struct, frozen=True):
    """What is stored in the state of a session.

    Attributes:
        last_seq: How far the log went when it was stored.
        record: The record, as the framework's JSON; ``None`` for a conversation that was deleted.
        places: Where the entries are that the record names, by their ids.
    """

    last_seq: int
    record: dict[str, Any] | None = None
    places: dict[str, tuple[int, int]] = {}


def state_of(record: ConversationRecord, head: tuple[int, int] | None, last_seq: int) -> Any:
    """Return what is to be stored of a record.

    Args:
        record: The record.
        head: The position of its newest entry, and how many entries of that event come after it.
        last_seq: How far the log goes with it.
    """
    plain = dataclasses.replace(record, branches=[])
    stored = msgspec.json.decode(_records.dump_json([plain]))[0]
    stored["branches"] = [str(tip) for tip in record.branches]
    places = {str(tip): [tip.seq, tip.rest] for tip in record.branches if isinstance(tip, EntryId)}
    if head is not None and record.head_id is not None:
        places[str(record.head_id)] = [*head]
    return {"last_seq": last_seq, "record": stored, "places": places}


def deleted_at(last_seq: int) -> Any:
    """Return what is to be stored of a conversation that is deleted."""
    return {"last_seq": last_seq}


class Summary(Struct, frozen=True):
    """A session as it is listed: a conversation, or what may become one.

    Attributes:
        session: The session, without events.
        record: What was stored last as its record; ``None`` if nothing was.
        places: Where the entries are that it names.
        is_current: Whether nothing but this store has written to the log since.
        is_deleted: Whether the conversation was deleted, and only its session is left.
    """

    session: Session
    record: ConversationRecord | None
    places: dict[str, tuple[int, int]]
    is_current: bool
    is_deleted: bool

    @property
    def is_conversation(self) -> bool:
        """Whether there is a conversation: a session to which nobody has written is none."""
        return not self.is_deleted and (self.record is not None or self.session.last_seq > 0)

    @property
    def is_own(self) -> bool:
        """Whether the record was stored for this conversation, and not come with a fork."""
        return self.record is not None and (
            self.record.conversation_id == self.session.key.session_id
        )

    @property
    def revision(self) -> str:
        """What changes with every write to the log, and every save."""
        if self.is_current and self.record is not None:
            return self.record.revision
        return f"{self.session.incarnation}.{self.session.last_seq}"


def summary_of(session: Session) -> Summary:
    """Read what the state of a session has of a conversation.

    Raises:
        CodecError: It cannot be read.
    """
    stored = session.state.get(STATE)
    if stored is None:
        return Summary(session, None, {}, is_current=False, is_deleted=False)
    try:
        value = msgspec.convert(stored, _Value)
        is_last = value.last_seq == session.last_seq
        if value.record is None:
            return Summary(session, None, {}, is_current=False, is_deleted=is_last)
        record = _records.validate_json(msgspec.json.encode([value.record]))[0]
    except ValueError as exc:
        reason = f"the state {STATE!r} is no record of Pydantic AI: {exc}"
        raise CodecError(session.key, reason) from exc
    is_own = record.conversation_id == session.key.session_id
    return Summary(session, record, value.places, is_current=is_own and is_last, is_deleted=False)


class Stored(Struct, frozen=True):
    """A conversation as it is stored.

    Attributes:
        seen: What was seen of it.
        record: The record; the ids in it tell where their entries are.
        is_own: See :class:`Summary`.
    """

    seen: Seen
    record: ConversationRecord
    is_own: bool

    def as_read(self) -> ConversationRecord:
        """Return the record for whoever reads it; its revision also knows what was read."""
        return dataclasses.replace(
            self.record,
            revision=Revision(self.record.revision, self),
            branches=[*self.record.branches],
        )


class Revision(str):
    """The revision of a conversation that was loaded or saved, which also knows what is stored.

    Elsewhere, as in a pickle or a form, it is a plain string.

    Args:
        value: The revision.
        stored: The conversation.
    """

    __slots__ = ("stored",)

    stored: Stored

    def __new__(cls, value: str, stored: Stored) -> Self:
        made = super().__new__(cls, value)
        made.stored = stored
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


def written(record: ConversationRecord, session: Session, head: tuple[int, int] | None) -> Stored:
    """Return a conversation as a save has left it.

    The record shares its usage and its requests with the given one; the next save looks at neither.

    Args:
        record: The record that was stored.
        session: Its session, without state and events.
        head: As for :func:`state_of`.
    """
    # Plain strings, so that this does not hold what earlier saves have left.
    revision = str(record.revision)
    newest = None if record.head_id is None else str(record.head_id)
    seen = Seen(session, revision, newest)
    head_id = None if newest is None or head is None else EntryId(newest, seen, *head)
    kept = dataclasses.replace(
        record, revision=revision, head_id=head_id, branches=[*record.branches]
    )
    return Stored(seen, kept, is_own=True)


async def stored_of(service: Awaitable, summary: Summary, newest: Newest | None = None) -> Stored:
    """Return the conversation of a session; its log is read if something else has written to it.

    Args:
        service: Where the session is.
        summary: What its state has of the conversation.
        newest: The end of its log, if it was read with it.

    Raises:
        CodecError: An event cannot be read.
        SessionNotFoundError: It is gone, or was made anew.
    """
    session = msgspec.structs.replace(summary.session, state={}, events=[])
    record = summary.record or ConversationRecord(conversation_id="", head_id=None)
    if summary.is_current:
        head, place = record.head_id, _place_of(summary, record.head_id)
        left: list[str] = []
    else:
        end = await _end_of_log(service, session, summary, newest)
        head, place = (end[-1].id, (end[-1].seq, end[-1].rest)) if end else (None, (0, 0))
        left = _left(record, end)
        record = _changed(summary, record, head)
    seen = Seen(session, summary.revision, head)
    record.head_id = None if head is None else EntryId(head, seen, *place)
    record.branches = [
        EntryId(tip, seen, *summary.places[tip]) if tip in summary.places else tip
        for tip in [*record.branches, *left]
        if tip != head
    ]
    return Stored(seen, record, summary.is_own)


def _changed(summary: Summary, record: ConversationRecord, head: str | None) -> ConversationRecord:
    """Return what a record is after something else has written to the log, or has forked it."""
    is_forked = summary.record is not None and not summary.is_own
    return dataclasses.replace(
        record,
        conversation_id=summary.session.key.session_id,
        deferred_tool_requests=record.deferred_tool_requests if record.head_id == head else None,
        forked_from=record.conversation_id if is_forked else record.forked_from,
        forked_at=head if is_forked else record.forked_at,
        revision=summary.revision,
        updated_at=summary.session.updated_at,
    )


async def _end_of_log(
    service: Awaitable, session: Session, summary: Summary, newest: Newest | None
) -> list[Item]:
    """Return the newest entries, back to where that of the record was, and one at least."""
    known = 0 if summary.record is None else _place_of(summary, summary.record.head_id)[0]
    reach = known or session.last_seq
    return await read_back(
        service,
        session,
        session.last_seq,
        look=2,
        until=lambda found: bool(found) and found[-1].seq <= reach,
        newest=newest,
    )


def _place_of(summary: Summary, entry_id: str | None) -> tuple[int, int]:
    return summary.places.get(entry_id or "", (0, 0))


def _left(record: ConversationRecord, end: list[Item]) -> list[str]:
    """Return the newest entry of the record, if something else has taken it back since."""
    head = record.head_id
    return [] if head is None or any(item.id == head for item in end) else [head]
