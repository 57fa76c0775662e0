"""Pydantic AI: the ``ConversationStore`` that conversations are loaded from and saved to.

::

    store = ConversationStore(service, app_name="shop", user_id="ada")
    conversation = await store.load("chat") or Conversation(conversation_id="chat")
    result = await agent.run("Where is my parcel?", conversation=conversation)
    await store.save(result)

It needs an extra: ``pip install 'agentsession[pydantic-ai]'``.
"""

from __future__ import annotations

import heapq
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from agentsession._extras import what_to_install

try:
    from pydantic_ai.conversation_store import (
        ConversationConflict,
        ConversationEntry,
        ConversationRecord,
    )
    from pydantic_ai.conversation_store import ConversationStore as _ConversationStore
    from pydantic_ai.run import AgentRunResult
except ImportError as _cause:
    raise ImportError(what_to_install("this adapter", "pydantic-ai", _cause)) from _cause

import msgspec

from agentsession.adapters._pydantic_ai.conversations import PAGE, Conversations, Load
from agentsession.adapters._pydantic_ai.entries import EntryId, Seen, entries_of, history_to
from agentsession.adapters._pydantic_ai.records import (
    STATE,
    Revision,
    Stored,
    Summary,
    deleted_at,
    summary_of,
)
from agentsession.adapters._pydantic_ai.saving import Save
from agentsession.adapters._sessions.logs import Service, awaitable
from agentsession.errors import RevisionConflictError, SessionNotFoundError
from agentsession.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from pydantic_ai.conversation import Conversation

    from agentsession.sessions import Session, SessionKey

__all__ = ["ConversationStore"]

_loaded: Final[ContextVar[Stored | None]] = ContextVar("agentsession_loaded", default=None)
"""What is known of the conversation that is being saved, until somebody asks for it."""

_load: Final[ContextVar[Load | None]] = ContextVar("agentsession_load", default=None)
"""The load that goes on, if one does."""


class ConversationStore(_ConversationStore):
    """A ``ConversationStore`` of Pydantic AI, kept by a service.

    A conversation is the session of its id. The session's log is the history as it is now: a
    message is an event, or several where it holds what several authors say, with the message beside
    them, and it comes back equal to what was stored. The record is in the session's state, as
    ``"pydantic_ai"``. A save is one step: of any number of writers one is let through, the others
    get ``ConversationConflict``, and nothing of theirs is stored.

    What others have stored in a session is there too, as messages of the framework. Whatever else
    writes to the log, takes something back or forks the session gives it another revision, so that
    no stale conversation is saved over it. Other changes of state do not.

    - ``branch`` takes back the end of the log. The entries of branches that were left stay in the
      raw log, and can be branched to and forked, until the service's event limit trims them.
    - A fork is a session of its own, which holds the same entries, under the same ids. It takes
      along the session's state, unless it begins in a left branch, or is another user's.
    - ``delete`` erases the session, with its entries. What forks of it hold is theirs, and stays.

    With a :class:`~agentsession.SessionService` it is awaited on one event loop. With a
    :class:`~agentsession.blocking.BlockingSessionService` it serves any loops and threads.

    Args:
        service: Where the sessions are.
        app_name: Their application.
        user_id: Their user; or a function that tells the user of a conversation by its id, where
            one store serves several users.
        agent: The author of the events of what a model says.

    Raises:
        TypeError: *service* is none.
    """

    def __init__(
        self,
        service: Service,
        *,
        app_name: str,
        user_id: str | Callable[[str], str],
        agent: str = "assistant",
    ) -> None:
        self._service = awaitable(service)
        self._conversations = Conversations(self._service, app_name, user_id)
        self._agent = agent

    def __repr__(self) -> str:
        return f"<ConversationStore of {self._conversations.owner}>"

    # -- reading

    async def load(
        self, conversation_id: str, *, limit: int | None = None, scope: str | None = None
    ) -> Conversation | None:
        """Load a conversation, as the framework's own stores do.

        It takes one read, unless the conversation is larger than one read returns.

        Raises:
            CodecError: The record, an event or a message cannot be read.
        """
        with _loading(limit):
            return await super().load(conversation_id, limit=limit, scope=scope)

    async def load_entries(
        self, conversation_id: str, *, limit: int | None = None, scope: str | None = None
    ) -> list[ConversationEntry] | None:
        """Load the entries of a conversation, as :meth:`load` does its messages.

        Raises:
            CodecError: As for :meth:`load`.
        """
        with _loading(limit):
            return await super().load_entries(conversation_id, limit=limit, scope=scope)

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """Return the record of a conversation; ``None`` if there is none.

        It takes one read, and another one if something else has written to the session.

        Raises:
            CodecError: The record, or an event behind it, cannot be read.
        """
        key = self._conversations.key(conversation_id)
        loaded = _loaded.get()
        if loaded is not None and loaded.seen.session.key == key:
            _loaded.set(None)  # Whoever looks a second time wants to see what has changed.
            return loaded.record
        stored = await self._conversations.get(key, _load.get())
        return stored.as_read() if isinstance(stored, Stored) else None

    async def read_records(
        self, *, scope: str | None = None, limit: int | None = None
    ) -> Sequence[ConversationRecord]:
        """Return the records of all conversations, the one that was saved last first.

        All sessions of the user are read for it, without their events and 1,000 at a time; where
        the users are told by a function, those of all users of the application. Sessions that
        cannot be read are left out; ``list_sessions()`` of the service names them.

        Args:
            scope: Only those of this scope.
            limit: At most this many.
        """
        found: list[tuple[float, Summary]] = []
        async for summary in self._conversations.list():
            record = summary.record
            if scope is None or (record is not None and record.scope == scope):
                found.append((_saved_at(summary), summary))
            if limit is not None and len(found) >= limit + PAGE:
                found = heapq.nlargest(limit, found, key=lambda each: each[0])
        found.sort(key=lambda each: each[0], reverse=True)
        newest = [summary for _, summary in found[:limit]]
        return [stored.as_read() for stored in await self._conversations.get_listed(newest)]

    async def read_history(
        self, head_id: str | None, *, limit: int | None = None
    ) -> list[ConversationEntry]:
        """Return the entries up to one, oldest first, or the last *limit* of them.

        For an id that this store has handed out it takes one read of the log, or one for each 1,000
        events. For a plain string the sessions are searched first, one after the other, as
        :meth:`read_entry` does it.

        An entry whose parent the event limit has trimmed is the first one, and has none.

        Raises:
            CodecError: An event or a message cannot be read.
            LookupError: There is no such entry, or not any more.
        """
        if head_id is None or limit == 0:
            return []
        head, load = await self._located(head_id), _load.get()
        newest = load.newest if load is not None and load.seen is head.seen else None
        if limit is None:
            return entries_of(await history_to(self._service, head, newest=newest), head.seen)
        # The one before them is their parent.
        items = await history_to(self._service, head, limit + 1, newest)
        return entries_of(items, head.seen)[-limit:]

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """Return an entry, of a history or of a branch that was left.

        For an id that this store has handed out, in a record or an entry, it takes one read. For a
        plain string all sessions of the user, or of the application, are asked for it, the newest
        first and 16 at a time.

        Raises:
            CodecError: It cannot be read.
            LookupError: There is no such entry, or not any more.
        """
        entries = await self.read_history(entry_id, limit=1)
        if not entries:
            raise _gone(entry_id)
        return entries[0]

    async def _located(self, entry_id: str) -> EntryId:
        if isinstance(entry_id, EntryId):
            return entry_id
        found = await self._conversations.find(entry_id)
        if found is None:
            raise _gone(entry_id)
        return found

    # -- writing

    async def save(
        self, conversation: Conversation | AgentRunResult[Any], *, scope: str | None = None
    ) -> list[ConversationEntry]:
        """Save a conversation, as the framework's own stores do.

        One that was loaded or saved in this process, by this store or another one, is saved without
        being looked at before: if it has changed since, the step that would store it says so.
        """
        if isinstance(conversation, AgentRunResult):
            revision = conversation.conversation.revision
        else:
            revision = conversation.revision
        token = _loaded.set(revision.stored if isinstance(revision, Revision) else None)
        try:
            return await super().save(conversation, scope=scope)
        finally:
            _loaded.reset(token)

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and new entries, in one step; a conflict leaves neither behind.

        The record's revision stays equal, and knows afterwards what is stored.

        A fork takes two steps: the session, and then its record. What a crash leaves in between is
        a conversation with the history of the fork, which the same call completes.

        Raises:
            ConversationConflict: The stored revision is not the expected one; or the entry that the
                history goes on from is gone.
            EventTooLargeError: A message is too large: an event holds its parts and the message
                beside them, so that a message may take about half of the service's
                ``max_event_size``.
            SessionBusyError: A turn of somebody else has an exclusive lease on the session.
            ValueError: The entries are no chain that ends in the record's head, or are more than
                fit into one step: 1,000 events.
        """
        _check_chain(record, new_entries)
        key = self._conversations.key(record.conversation_id)
        base = await self._base(record, new_entries, key)
        save = Save(self._service, key, record, new_entries, base, self._agent)
        seen = _seen_of(base, key, expected_revision)
        while True:
            try:
                stored = await save.onto(
                    seen or await self._to_write(save, key, base, expected_revision)
                )
            except (RevisionConflictError, SessionNotFoundError):
                seen = None  # Whether it is a conflict is to be seen: state may have changed alone.
            else:
                if stored is not None:
                    # The framework hands it on to the conversation, which is saved by it next time.
                    record.revision = Revision(stored.record.revision, stored)
                return

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a conversation: its session, with all entries and state.

        It is gone in one step, in which the revision is checked; a second step erases the session.
        If that one fails, whoever next looks at the conversation erases it.

        Raises:
            ConversationConflict: The stored revision is not the expected one.
            SessionBusyError: A turn of somebody else has an exclusive lease on the session.
        """
        while True:
            stored = await self._conversations.get(self._conversations.key(conversation_id))
            if not isinstance(stored, Stored) or stored.record.revision != expected_revision:
                raise ConversationConflict(conversation_id)
            session = stored.seen.session
            try:
                await self._take_back(session)
            except (RevisionConflictError, SessionNotFoundError):
                continue
            await self._service.delete_session(session)
            return

    async def _take_back(self, session: Session) -> None:
        """Leave an empty log, and say in its state that the conversation is deleted."""
        mark = Event(author="system", state_delta={STATE: deleted_at(session.last_seq + 2)})
        await self._service.append_events(
            msgspec.structs.replace(session, state={}, events=[]),
            [mark],
            expected_revision=session.revision,
            rewind_to=0,
            restore_state=False,
        )

    async def _to_write(
        self, save: Save, key: SessionKey, base: EntryId | None, expected_revision: str | None
    ) -> Seen:
        """Return the conversation that is to be written to, and make its session if it is new.

        Raises:
            ConversationConflict: Its revision is not the expected one.
        """
        if expected_revision is None and not save.forks:
            return await self._new(key)
        stored = await self._conversations.get(key)
        if isinstance(stored, Stored):
            # Another call has made the session of this fork, and did not come to its record.
            is_begun = save.forks and not stored.is_own and stored.seen.head == base
            if stored.record.revision == expected_revision or (
                expected_revision is None and is_begun
            ):
                return stored.seen
            raise ConversationConflict(key.session_id)
        if expected_revision is not None:
            raise ConversationConflict(key.session_id)
        forked = await save.fork() if stored is None else None
        return forked or await self._new(key)

    async def _new(self, key: SessionKey) -> Seen:
        """Return a session to which nobody has written, and make it if there is none."""
        while True:
            session = await self._service.get_or_create_session(key, num_recent_events=0)
            summary = summary_of(session)
            if not summary.is_deleted:
                break
            await self._service.delete_session(session)
        if summary.is_conversation:
            raise ConversationConflict(key.session_id)
        return Seen(msgspec.structs.replace(session, state={}), None, None)

    async def _base(
        self, record: ConversationRecord, new_entries: Sequence[ConversationEntry], key: SessionKey
    ) -> EntryId | None:
        """Find the entry that comes before the new ones, or is the last one if there are none.

        Raises:
            ConversationConflict: There is none.
        """
        base = new_entries[0].parent_id if new_entries else record.head_id
        if base is None or isinstance(base, EntryId):
            return base
        found = await self._conversations.find(base, first=key)
        if found is None:
            raise ConversationConflict(record.conversation_id)
        return found


@contextmanager
def _loading(limit: int | None) -> Generator[None]:
    """Have the last entries of a conversation read with its record, and the one before them."""
    token = _load.set(Load(None if limit is None else limit + 2))
    try:
        yield
    finally:
        _load.reset(token)


def _saved_at(summary: Summary) -> float:
    if summary.is_current and summary.record is not None:
        return summary.record.updated_at.timestamp()
    return summary.session.updated_at.timestamp()


def _seen_of(base: EntryId | None, key: SessionKey, expected_revision: str | None) -> Seen | None:
    """Return what was seen of the conversation by the read that gave this entry, if it will do."""
    if base is None or base.seen.session.key != key or expected_revision is None:
        return None
    return base.seen if base.seen.revision == expected_revision else None


def _check_chain(record: ConversationRecord, entries: Sequence[ConversationEntry]) -> None:
    ids: list[str | None] = [entry.id for entry in entries]
    parents = [entry.parent_id for entry in entries[1:]]
    if entries and (parents != ids[:-1] or record.head_id != ids[-1]):
        msg = (
            f"conversation {record.conversation_id!r:.80}: the new entries must follow one after "
            "the other, and the record's head_id must be the last of them"
        )
        raise ValueError(msg)


def _gone(entry_id: str) -> LookupError:
    return LookupError(
        f"no session has the entry {entry_id!r:.80}: it was never stored, was deleted, or the "
        "event limit has trimmed it"
    )
