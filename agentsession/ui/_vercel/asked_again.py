"""A message that is asked again: it is taken back with what came since, and stored anew.

Both are calls of their own, and a process may die in between. Therefore the id under which the
message is stored anew follows from the mark of the rewind: whoever finds that mark at the end of a
log knows that the message has not been asked again yet, and asks it as the other would have. Of
several who do so at once, all but the first join its run.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid5

import msgspec

from agentsession.codec import encode_event
from agentsession.errors import EventTooLargeError, RevisionConflictError
from agentsession.events import Event
from agentsession.history import effective
from agentsession.ui._parts import MESSAGE_ID, is_said_by_user, message_id
from agentsession.ui._turns import all_events, find_message, newest_first

if TYPE_CHECKING:
    from agentsession.events import Content
    from agentsession.service import SessionService
    from agentsession.sessions import SessionKey

__all__ = ["taken_back"]

_IDS = UUID("6d1f9d0c-52a5-4a0e-9a2e-0f8f6d3c7b15")


class _TakenBack(NamedTuple):
    """A message of the user that was taken back, to be asked again.

    Attributes:
        message: The message as it was stored.
        mark_seq: The position of the rewind that took it back.
    """

    message: Event
    mark_seq: int

    def anew(self, content: Content | None = None) -> Event:
        """Make the message that takes its place, with the same content or another one."""
        known_as = message_id(self.message)
        return Event(
            id=uuid5(_IDS, f"{self.mark_seq} {known_as}").hex,
            author="user",
            content=self.message.content if content is None else content,
            metadata={**self.message.metadata, MESSAGE_ID: known_as},
        )


async def taken_back(
    service: SessionService, key: SessionKey, wanted: str, content: Content | None = None
) -> Event | None:
    """Take a message back with what came since, and make it anew; ``None`` if it is not stored.

    Another page may have taken it back meanwhile: what it has asked since stays.

    Args:
        service: Keeps the session.
        key: The session.
        wanted: The id by which pages know the message.
        content: What the message says from now on; what it said by default.

    Raises:
        EventTooLargeError: It cannot be stored anew, so nothing was taken back.
    """
    while True:
        session = await service.get_session(key, num_recent_events=0)
        if session is None:
            return None
        stored = await _stored_message(service, key, wanted)
        if stored is None:
            left = await _left(service, key, wanted)
            return None if left is None else left.anew(content)
        (*_, to_seq) = [0, *(each.seq for each in await _one_before(service, key, stored))]
        # Nobody has written since, or it is refused: so the mark comes next.
        asked = _TakenBack(stored, session.last_seq + 1).anew(content)
        _check_size(service, key, asked)
        with suppress(RevisionConflictError):
            await service.rewind(
                session, to_seq=to_seq, expected_revision=session.revision, num_recent_events=0
            )
            return asked


def _check_size(service: SessionService, key: SessionKey, message: Event) -> None:
    """Refuse what would only be refused once the end of the session is taken back for it."""
    begins = msgspec.structs.replace(message, invocation_id=message.id)  # As a runner stores it.
    size = len(encode_event(begins))
    if size > service.max_event_size:
        raise EventTooLargeError(key, message.id, size, service.max_event_size)


async def _left(service: SessionService, key: SessionKey, wanted: str) -> _TakenBack | None:
    """Find a message that somebody took back and did not come to ask again."""
    for mark in await service.get_events(key, raw=True, newest_first=True, limit=1):
        if mark.rewind is not None:
            gone = await all_events(
                service, key, after_seq=mark.rewind.to_seq, before_seq=mark.seq, raw=True
            )
            if not gone or gone[0].seq != mark.rewind.to_seq + 1:
                break  # The message was trimmed; the first that is left was not the one.
            for message in effective(gone)[:1]:
                if is_said_by_user(message) and wanted in (message.id, message_id(message)):
                    return _TakenBack(message, mark.seq)
    return None


async def _one_before(service: SessionService, key: SessionKey, event: Event) -> list[Event]:
    return await service.get_events(key, before_seq=event.seq, newest_first=True, limit=1)


async def _stored_message(service: SessionService, key: SessionKey, wanted: str) -> Event | None:
    """Return the user's message that pages know by an id."""
    found = await find_message(service, key, wanted) if wanted else None
    if found is not None:
        return found if is_said_by_user(found) else None
    async for event in newest_first(service, key, author="user"):
        if message_id(event) == wanted:
            return event
    return None
