"""The sessions of a store: where a conversation is, which there are, and where an entry is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from agentsession._concurrently import concurrently
from agentsession.adapters._pydantic_ai.entries import Newest, Seen
from agentsession.adapters._pydantic_ai.records import Stored, Summary, stored_of, summary_of
from agentsession.adapters._pydantic_ai.search import AT_ONCE, find, find_in
from agentsession.errors import CodecError, ReadTooLargeError, SessionNotFoundError
from agentsession.sessions import Session, SessionKey, UserKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from agentsession.adapters._pydantic_ai.entries import EntryId
    from agentsession.adapters._sessions.logs import Awaitable

__all__ = ["PAGE", "Conversations", "Load"]

PAGE = 1000
"""How many sessions are read at a time."""


class Load(Struct):
    """A load of a conversation, which reads the end of its log with its record, at once.

    Attributes:
        most: How many events to read, the newest; ``None`` for all.
        seen: The conversation, once it was read.
        newest: The events that were read with it; ``None`` if one read does not return so many.
    """

    most: int | None
    seen: Seen | None = None
    newest: Newest | None = None


class Conversations:
    """The conversations of one user, or of those that a function tells.

    Args:
        service: Where the sessions are.
        app_name: Their application.
        user_id: Their user, or the function.
    """

    def __init__(
        self, service: Awaitable, app_name: str, user_id: str | Callable[[str], str]
    ) -> None:
        self._service = service
        self._app_name = app_name
        self._user_id = user_id

    @property
    def owner(self) -> UserKey | str:
        """Whose sessions are listed."""
        if callable(self._user_id):
            return self._app_name
        return UserKey(self._app_name, self._user_id)

    def key(self, conversation_id: str) -> SessionKey:
        """Return the key of the session of a conversation."""
        user_id = self._user_id(conversation_id) if callable(self._user_id) else self._user_id
        return SessionKey(self._app_name, user_id, conversation_id)

    async def get(self, key: SessionKey, load: Load | None = None) -> Stored | Session | None:
        """Return a conversation; or a session to which nobody has written yet, if there is one.

        What a deleted conversation has left is erased.

        Args:
            key: The session.
            load: Is told what was read, with the end of the log.

        Raises:
            CodecError: It cannot be read.
        """
        while True:
            session, newest = await self._read(key, load)
            if session is None:
                return None
            summary = summary_of(session)
            if summary.is_deleted:
                await self._service.delete_session(session)
                return None
            if not summary.is_conversation:
                return msgspec.structs.replace(session, state={}, events=[])
            try:
                stored = await stored_of(self._service, summary, newest)
            except SessionNotFoundError:
                continue
            if load is not None:
                load.seen, load.newest = stored.seen, newest
            return stored

    async def _read(
        self, key: SessionKey, load: Load | None
    ) -> tuple[Session | None, Newest | None]:
        """Read a session, and of its log what a load wants if one read returns it."""
        if load is not None:
            try:
                session = await self._service.get_session(key, num_recent_events=load.most)
            except ReadTooLargeError:
                pass
            else:
                events = [] if session is None else session.events
                is_all = load.most is None or len(events) < load.most
                return session, Newest(events, is_all)
        return await self._service.get_session(key, num_recent_events=0), None

    async def get_listed(self, summaries: Sequence[Summary]) -> list[Stored]:
        """Return conversations that were listed, without those that are gone or cannot be read."""
        found: list[Stored | None] = []
        for first in range(0, len(summaries), AT_ONCE):
            some = summaries[first : first + AT_ONCE]
            found += await concurrently(self._get_listed(each) for each in some)
        return [stored for stored in found if stored is not None]

    async def _get_listed(self, summary: Summary) -> Stored | None:
        try:
            return await stored_of(self._service, summary)
        except (CodecError, SessionNotFoundError):
            return None

    async def list(self) -> AsyncIterator[Summary]:
        """Yield the conversations whose records can be read."""
        async for session in self._sessions():
            try:
                summary = summary_of(session)
            except CodecError:
                continue
            if summary.is_conversation:
                yield summary

    async def _sessions(self) -> AsyncIterator[Session]:
        cursor = None
        while True:
            page = await self._service.list_sessions(self.owner, limit=PAGE, cursor=cursor)
            for session in page.sessions:
                if session.key == self.key(session.id):
                    yield session
            cursor = page.next_cursor
            if cursor is None:
                return

    async def find(self, entry_id: str, first: SessionKey | None = None) -> EntryId | None:
        """Search for an entry, in one session at first; ``None`` if it is nowhere."""
        session = None
        if first is not None:
            session = await self._service.get_session(first, num_recent_events=0)
        found = None if session is None else await find_in(self._service, session, entry_id)
        return found or await find(self._service, self._sessions(), entry_id)
