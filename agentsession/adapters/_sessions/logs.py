"""What adapters do with a log: add to it, also if there is none yet, and read all of it."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from agentsession.blocking import AnyLoopSessionService, BlockingSessionService
from agentsession.errors import ReadTooLargeError, SessionNotFoundError
from agentsession.service import SessionService
from agentsession.sessions import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agentsession.events import Event
    from agentsession.sessions import SessionKey, UserKey

__all__ = [
    "Awaitable",
    "Service",
    "add",
    "awaitable",
    "in_life",
    "life",
    "listed",
    "read",
    "read_raw",
]

_PAGE: Final = 1000
_EPOCH: Final = datetime.fromtimestamp(0, UTC)

_logger: Final = logging.getLogger("agentsession.adapters")

Service: TypeAlias = SessionService | BlockingSessionService
"""What users pass to an adapter."""

Awaitable: TypeAlias = SessionService | AnyLoopSessionService
"""What an adapter awaits."""


def awaitable(service: Service) -> Awaitable:
    """Return what can be awaited of what a user has passed.

    Raises:
        TypeError: It is no service.
    """
    if isinstance(service, BlockingSessionService):
        return service.any_loop
    if isinstance(service, SessionService):
        return service
    msg = (
        "an adapter takes a SessionService or a BlockingSessionService, not "
        f"{type(service).__qualname__}: {service!r:.80}"
    )
    raise TypeError(msg)


def in_life(key: SessionKey, incarnation: str) -> Session | SessionKey:
    """Return what to write to, so that a write reaches no session that was made anew since.

    Args:
        key: The session.
        incarnation: Of it, when it was loaded; empty for whichever session has the key.
    """
    return life(key, incarnation) if incarnation else key


def life(key: SessionKey, incarnation: str) -> Session:
    """Return an object to write to one life of a session with, and for nothing else.

    It claims to be newer than what is stored: then the service does not bring it up to date, which
    may take a round trip.
    """
    return Session(
        key=key, incarnation=incarnation, revision=sys.maxsize, created_at=_EPOCH, updated_at=_EPOCH
    )


async def add(service: Awaitable, key: SessionKey, events: Sequence[Event]) -> list[Event]:
    """Append up to 1,000 events in one step, and make the session if there is none.

    Returns:
        The events as they are stored.
    """
    try:
        return await service.append_events(key, events)
    except SessionNotFoundError:
        await service.get_or_create_session(key, num_recent_events=0)
    return await service.append_events(key, events)


async def read(service: Awaitable, key: SessionKey) -> Session | None:
    """Return a session with all its events, of one moment, whatever their size.

    Returns:
        The session; ``None`` if there is none.
    """
    try:
        return await service.get_session(key)
    except ReadTooLargeError:
        return await _read_in_pages(service, key)


async def _read_in_pages(service: Awaitable, key: SessionKey) -> Session | None:
    """Read page by page, and again from the beginning if somebody writes meanwhile."""
    while True:
        session = await service.get_session(key, num_recent_events=0)
        if session is None:
            return None
        events: list[Event] = []
        try:
            while page := await service.get_events(
                session,
                after_seq=events[-1].seq if events else 0,
                limit=min(service.always_readable, 1000),
            ):
                events += page
        except SessionNotFoundError:
            continue
        now = await service.get_session(key, num_recent_events=0)
        if now is not None and (now.incarnation, now.revision) == (
            session.incarnation,
            session.revision,
        ):
            session.events = events
            return session


async def read_raw(
    service: Awaitable, key: SessionKey, first: int, last: int
) -> AsyncIterator[Event]:
    """Yield all that is stored from one position to another, what was taken back too.

    Raises:
        SessionNotFoundError: There is no such session.
    """
    after = first - 1
    limit = min(service.always_readable, _PAGE)
    while page := await service.get_events(
        key, after_seq=after, before_seq=last + 1, limit=limit, raw=True
    ):
        for event in page:
            yield event
        after = page[-1].seq


async def listed(service: Awaitable, owner: UserKey | str) -> AsyncIterator[Session]:
    """Yield the sessions of a user, or of an application, and warn of what cannot be read."""
    cursor: str | None = None
    while True:
        page = await service.list_sessions(owner, limit=_PAGE, cursor=cursor)
        for each in page.unreadable:
            _logger.warning("%r cannot be listed: %s", each.key, each.reason)
        for session in page.sessions:
            yield session
        cursor = page.next_cursor
        if cursor is None:
            return
