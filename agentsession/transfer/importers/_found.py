"""What a source holds, as the readers of all sources tell it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import Any, TypeAlias

from msgspec import Struct

from agentsession._wording import brief
from agentsession.events import Event
from agentsession.sessions import SessionKey, UserKey

__all__ = [
    "AppFound",
    "Found",
    "SessionFound",
    "Sessions",
    "To",
    "UserFound",
    "check_to",
    "target_of",
]

To: TypeAlias = UserKey | Callable[[str], SessionKey]
"""Who takes the sessions of a source that knows no users: one, or a function of a session's id."""


class AppFound(Struct, frozen=True):
    """An application's state."""

    app_name: str
    state: dict[str, Any]


class UserFound(Struct, frozen=True):
    """A user's state."""

    key: UserKey
    state: dict[str, Any]


class SessionFound(Struct, frozen=True, kw_only=True):
    """A session.

    Attributes:
        key: Whose it is.
        events: Its events in their order. They are read before the next session is.
        state: Its own state, as it is after all events.
        created_at: When it was made; ``None`` if the source does not tell.
        has_times: Whether its events have times of their own.
    """

    key: SessionKey
    events: AsyncGenerator[Event, None]
    state: dict[str, Any] = {}
    created_at: datetime | None = None
    has_times: bool = True


Found: TypeAlias = AppFound | UserFound | SessionFound

Sessions: TypeAlias = AsyncGenerator[Found, None]
"""All that a source holds."""


def target_of(to: To, session_id: str) -> SessionKey:
    """Return who takes a session that the source has under this id.

    Raises:
        ValueError: The id is empty or no valid Unicode.
    """
    if not session_id:
        msg = "the session has no id"
        raise ValueError(msg)
    if isinstance(to, UserKey):
        return SessionKey(to.app_name, to.user_id, session_id)
    key = to(session_id)
    if not isinstance(key, SessionKey):  # pyright: ignore[reportUnnecessaryIsInstance] - not all check types
        msg = f"to must return the SessionKey of session {brief(session_id)}, not {brief(key)}"
        raise TypeError(msg)
    return key


def check_to(to: object) -> None:
    """Refuse what cannot take sessions, before anything is read.

    Raises:
        TypeError: It is neither a user nor a function.
    """
    if not isinstance(to, UserKey) and not callable(to):
        msg = f"to must be a UserKey, or a function of a session's id, not {brief(to)}"
        raise TypeError(msg)
