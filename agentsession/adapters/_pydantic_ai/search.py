"""An entry whose place is not known, as one that is named by a plain string."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from agentsession._concurrently import concurrently
from agentsession.adapters._pydantic_ai.entries import EntryId, Seen, read_back
from agentsession.errors import EventNotFoundError, SessionNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agentsession.adapters._sessions.logs import Awaitable
    from agentsession.sessions import Session

__all__ = ["AT_ONCE", "find", "find_in"]

AT_ONCE: Final = 16
"""How many sessions are asked at the same time."""


async def find(
    service: Awaitable, sessions: AsyncIterator[Session], entry_id: str
) -> EntryId | None:
    """Search sessions for an entry, a few at the same time; ``None`` if none of them has it."""
    some: list[Session] = []
    async for session in sessions:
        some.append(session)
        if len(some) == AT_ONCE:
            found = await _find_among(service, some, entry_id)
            if found is not None:
                return found
            some = []
    return await _find_among(service, some, entry_id)


async def _find_among(service: Awaitable, sessions: list[Session], entry_id: str) -> EntryId | None:
    each = await concurrently(find_in(service, session, entry_id) for session in sessions)
    return next((found for found in each if found is not None), None)


async def find_in(service: Awaitable, session: Session, entry_id: str) -> EntryId | None:
    """Search a session for an entry, whether it is in the history or in a branch that was left."""
    event_id, _, _ = entry_id.partition("#")
    try:
        [event] = await service.get_events(session, around=event_id, limit=1, raw=True)
        items = await read_back(service, session, event.seq, look=1, until=bool)
    except (EventNotFoundError, SessionNotFoundError):
        return None
    seen = Seen(msgspec.structs.replace(session, state={}, events=[]), None, None)
    return next(
        (EntryId(entry_id, seen, item.seq, item.rest) for item in items if item.id == entry_id),
        None,
    )
