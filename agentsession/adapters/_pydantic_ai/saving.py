"""A save of a conversation, in one step: what its history goes back to, and what comes after it."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
from pydantic_ai.conversation_store import ConversationConflict

from agentsession._wording import described
from agentsession.adapters._items.originals import with_original
from agentsession.adapters._pydantic_ai.entries import EntryId, Item, Seen, history_to, read_back
from agentsession.adapters._pydantic_ai.records import STATE, Stored, state_of, written
from agentsession.adapters._pydantic_ai.to_events import FRAMEWORK, events_of, own_of
from agentsession.errors import RewindError, SessionExistsError, SessionNotFoundError
from agentsession.events import Event, new_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic_ai.conversation_store import ConversationEntry, ConversationRecord

    from agentsession.adapters._sessions.logs import Awaitable
    from agentsession.sessions import SessionKey

__all__ = ["Save"]

_MOST: Final = 1000
_RECORD_AUTHOR: Final = "system"


class Save:
    """What is to be stored of a conversation: its record, and its new entries.

    Args:
        service: Where its session is.
        key: Which one that is.
        record: The record.
        entries: The new entries, each of them after the one before it.
        base: The entry after which they come, and in which the history ends if there are none.
        agent: The author of what the model says.
    """

    def __init__(
        self,
        service: Awaitable,
        key: SessionKey,
        record: ConversationRecord,
        entries: Sequence[ConversationEntry],
        base: EntryId | None,
        agent: str,
    ) -> None:
        self._service = service
        self._key = key
        self._record = record
        self._events = events_of([(str(each.id), each.message) for each in entries], agent)
        _check_number(key, len(self._events))  # Before a fork is made.
        self._base = base
        self._agent = agent

    @property
    def forks(self) -> bool:
        """Whether the history begins with that of another conversation."""
        return self._base is not None and self._base.seen.session.key != self._key

    async def fork(self) -> Seen | None:
        """Make the session as a fork of the other one, which takes along its state; if it can be.

        It cannot where the history ends in a branch that was left, or in the middle of a turn, or
        in the session of another user.

        Raises:
            ConversationConflict: The other session is gone, or this one exists.
        """
        base = self._base
        if base is None or base.seen.session.key.user != self._key.user or base.rest:
            return None
        # All of it, if there is nothing behind it: then state is what it was last.
        last_seq = base.seen.session.last_seq if base == base.seen.head else base.seq
        for seq in dict.fromkeys((last_seq, base.seq)):
            try:
                session = await self._service.fork(
                    base.seen.session, self._key, at_seq=seq, num_recent_events=0
                )
            except RewindError:
                continue
            except (SessionExistsError, SessionNotFoundError) as exc:
                raise ConversationConflict(self._key.session_id) from exc
            return Seen(msgspec.structs.replace(session, state={}), None, str(base))
        return None

    async def onto(self, seen: Seen) -> Stored | None:
        """Store all of it, if nobody has written to the session since it was seen.

        Returns:
            The conversation as it is stored; ``None`` if somebody has written to it by now.

        Raises:
            ConversationConflict: The history that it goes on from is gone.
            RevisionConflictError: Somebody has; nothing was stored.
            SessionNotFoundError: It is gone, or was made anew; nothing was stored.
        """
        base = self._base
        if base is None:
            return await self._append(seen, [], rewind_to=None if seen.head is None else 0)
        if base == seen.head:
            return await self._append(seen, [], rewind_to=None)
        # After an earlier entry of the log, if that can be.
        if not base.rest and _are_same(seen, base.seen):
            with suppress(RewindError):
                return await self._append(seen, [], rewind_to=base.seq)
        return await self._line_up(seen, base)

    async def _line_up(self, seen: Seen, base: EntryId) -> Stored | None:
        """Store it after a history that is not in the log: of a branch, or of another session.

        The log goes back to what both have in common, or further back where that is in the middle
        of a turn, and the rest of the history is appended again.
        """
        wanted = await self._history_to(base, of_another=not _are_same(seen, base.seen))
        there = await read_back(self._service, seen.session, seen.session.last_seq)
        kept = _in_common(there, wanted)
        while True:
            to_seq = there[kept - 1].seq if kept else 0
            again = [*self._again(wanted, kept)]
            try:
                return await self._append(seen, again, to_seq if kept < len(there) else None)
            except RewindError:
                if not kept:
                    raise
                kept = _before_turn(there, kept)

    async def _history_to(self, base: EntryId, *, of_another: bool) -> list[Item]:
        try:
            return await history_to(self._service, base)
        except SessionNotFoundError as exc:
            if of_another:
                raise ConversationConflict(self._key.session_id) from exc
            raise

    def _again(self, wanted: Sequence[Item], kept: int) -> Iterator[Event]:
        """Yield events that say the same again, for entries of the same ids."""
        number = Counter(item.seq for item in wanted)
        for item in wanted[kept:]:
            if item.message is not None and (item.rest or number[item.seq] > 1):
                yield from map(_copy, events_of([(item.id, item.message)], self._agent))
            else:
                *leads, last = item.events
                yield from map(_copy, leads)
                own = {**own_of(last), "id": item.id}
                yield _copy(with_original(last, FRAMEWORK, own))

    async def _append(self, seen: Seen, again: list[Event], rewind_to: int | None) -> Stored | None:
        """Append with the record, in one step; return what is stored, as :meth:`onto` does."""
        session, record = msgspec.structs.replace(seen.session, state={}, events=[]), self._record
        events = [*again, *self._events]
        last_seq = session.last_seq + len(events) + (rewind_to is not None)
        head = (last_seq, 0) if events else None
        if head is None and self._base is not None:
            head = (self._base.seq, self._base.rest)
        if not self._events:
            events.append(Event(author=_RECORD_AUTHOR))
            last_seq += 1
        _check_number(self._key, len(events))
        delta = {STATE: state_of(record, head, last_seq)}
        events[-1] = msgspec.structs.replace(events[-1], state_delta=delta)
        try:
            stored = await self._service.append_events(
                session,
                events,
                expected_revision=session.revision,
                rewind_to=rewind_to,
                restore_state=False,
            )
        except RewindError as exc:
            if exc.problem == "stored":
                raise _stored_already(self._key) from exc
            raise
        if stored[-1].seq != last_seq:
            raise _stored_already(self._key)
        if session.last_seq != last_seq:
            return None
        return written(record, msgspec.structs.replace(session, state={}, events=[]), head)


def _stored_already(key: SessionKey) -> ValueError:
    return ValueError(
        f"{described(key)}: a new entry has an id that is stored already, so it was not stored "
        "again. Give it a new id"
    )


def _check_number(key: SessionKey, number: int) -> None:
    if number > _MOST:
        msg = (
            f"{described(key)}: {number:,} events cannot be stored in one step, {_MOST:,} can. "
            "Save the conversation with fewer new messages at first, and then with the others"
        )
        raise ValueError(msg)


def _are_same(seen: Seen, other: Seen) -> bool:
    a, b = seen.session, other.session
    return (a.key, a.incarnation) == (b.key, b.incarnation)


def _in_common(there: Sequence[Item], wanted: Sequence[Item]) -> int:
    """Return how many entries two histories have in common, from the beginning."""
    kept = 0
    for one, other in zip(there, wanted, strict=False):
        if one.id != other.id:
            break
        kept += 1
    while kept and there[kept - 1].rest:
        kept -= 1
    return kept


def _before_turn(there: Sequence[Item], kept: int) -> int:
    """Return how many entries there are before the turn of one."""
    turn = there[kept - 1].events[-1].invocation_id
    kept -= 1
    while kept and (there[kept - 1].rest or there[kept - 1].events[-1].invocation_id == turn != ""):
        kept -= 1
    return kept


def _copy(event: Event) -> Event:
    """Return a copy of an event that is another one, changes no state and belongs to no turn."""
    return msgspec.structs.replace(
        event, id=new_id(), invocation_id="", outcome="", state_delta={}, seq=0
    )
