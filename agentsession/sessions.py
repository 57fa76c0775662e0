"""Keys, which say whose data it is, and sessions as users get them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import msgspec
from msgspec import Struct

from agentsession._marks import unmark
from agentsession._model import AwareDatetime, Model, Natural
from agentsession._wording import brief
from agentsession.events import Event
from agentsession.history import View

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentsession.history import OpenCalls

__all__ = ["Session", "SessionKey", "SessionPage", "UnreadableSession", "UserKey", "UserPage"]


def _check_id(kind: str, value: str, *, may_be_empty: bool = False) -> None:
    """Refuse an id of a wrong type, an empty one, and one that is not valid Unicode."""
    if type(value) is str and value and value.isascii():
        return  # At a glance: a key is made for nearly every call.
    if type(value) is not str:
        msg = (
            f"{kind} must be a str, not {type(value).__name__}: {value!r:.80}{_advice(kind, value)}"
        )
        raise TypeError(msg)
    if not value and not may_be_empty:
        msg = f"{kind} must not be empty"
        raise ValueError(msg)
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        msg = f"{kind} holds half of a surrogate pair at position {exc.start}, not valid Unicode"
        raise ValueError(msg) from exc


def _advice(kind: str, value: object) -> str:
    """Say what to do about an id that is no string, if that is likely."""
    if type(value).__name__ in ("int", "UUID"):
        return f"; convert it with str({kind})"
    if value is None and kind == "session_id":
        return "; leave it out to get a new session"
    return ""


class UserKey(Model, Struct, frozen=True):
    """One user of one application.

    Args:
        app_name: The application, any non-empty string.
        user_id: The user within the application, any non-empty string.

    Raises:
        TypeError: An id is not a string.
        ValueError: An id is empty or not valid Unicode.
    """

    app_name: str
    user_id: str

    def __post_init__(self) -> None:
        _check_id("app_name", self.app_name)
        _check_id("user_id", self.user_id)


class SessionKey(Model, Struct, frozen=True):
    """One session of one user of one application.

    Ids may hold any character; no id reaches the data of another user, application or session.

    Args:
        app_name: The application, any non-empty string.
        user_id: The user within the application, any non-empty string.
        session_id: The session within the user. Empty only where a new session is made: then
            the service generates one.

    Raises:
        TypeError: An id is not a string.
        ValueError: An id is empty or not valid Unicode.
    """

    app_name: str
    user_id: str
    session_id: str = ""

    def __post_init__(self) -> None:
        _check_id("app_name", self.app_name)
        _check_id("user_id", self.user_id)
        _check_id("session_id", self.session_id, may_be_empty=True)

    @property
    def user(self) -> UserKey:
        """The session's owner."""
        return UserKey(self.app_name, self.user_id)


class Session(Model, Struct, kw_only=True):
    """A copy of a session as it was when it was read; changing it changes nothing in the store.

    A session that is handed to ``append_event``, or to ``update_session_state``, is brought up to
    date by that call: its events, its
    own state, :attr:`revision`, :attr:`last_seq` and :attr:`updated_at` are then the store's. If
    others have written to the session meanwhile, all of it is read again, user and application
    state included. If not, these two stay as they were last read, with the changes of this append:
    changes that others made to them through other sessions do not show, since reading them would
    cost every append a second round trip.

    It is tied to the session that it was read from. If that one is deleted, or expires, and is made
    anew under its id, whatever is done with the object raises
    :exc:`~agentsession.errors.SessionNotFoundError`, and the new one stays as it is; only
    ``delete_session`` does not raise, since what was meant is gone.

    Attributes:
        key: Whose session it is.
        state: The merged view of the three stored scopes, with the prefixes ``app:`` and ``user:``,
            and what this object alone holds under ``temp:``.
        events: The events that were asked for, in the order of the log.
        created_at: When the store made the session, in UTC.
        updated_at: When the store last wrote to the session, in UTC.
        revision: Counts the writes to the session, from 1. Pass it as ``expected_revision`` to
            write only if nobody else did. Application and user state do not move it.
        last_seq: The ``seq`` of the newest event ever stored, 0 before the first; it does not
            depend on which events were asked for, nor on what was taken back.
        first_seq: The ``seq`` with which the log begins, asked for or not, trimmed or not: 1, or
            the one after the newest rewind to its beginning.
        incarnation: Tells the session from every other one that ever had its id; given by the
            store. Empty in an object made by hand: then it stands for whatever session has its key.
    """

    key: SessionKey
    state: dict[str, Any] = {}
    events: list[Event] = []
    created_at: AwareDatetime
    updated_at: AwareDatetime
    revision: Natural
    last_seq: Natural = 0
    first_seq: Natural = 1
    incarnation: str = ""

    def __repr__(self) -> str:
        return (
            f"Session({brief(self.id)} of user {brief(self.user_id)} in app "
            f"{brief(self.app_name)}: revision {self.revision}, {len(self.events)} of "
            f"{self.last_seq} events, state {brief(list(self.state))})"
        )

    @property
    def id(self) -> str:
        """The session's id within its user."""
        return self.key.session_id

    @property
    def app_name(self) -> str:
        """The application."""
        return self.key.app_name

    @property
    def user_id(self) -> str:
        """The user within the application."""
        return self.key.user_id

    def history(
        self,
        *,
        max_turns: int | None = None,
        max_tokens: int | None = None,
        count_tokens: Callable[[Event], int] | None = None,
        open_calls: OpenCalls = "close",
        from_user: bool = False,
    ) -> list[Event]:
        """Return what a model may be shown of :attr:`events`; see ``SessionService.get_history``.

        It knows only the events at hand: a turn of which the beginning was not asked for is left
        out, unless it is the only one.

        Args:
            max_turns: As ``get_history`` has it, and so are the others.
            max_tokens: See there.
            count_tokens: See there.
            open_calls: See there.
            from_user: See there.
        """
        view = View(
            max_turns=max_turns,
            max_tokens=max_tokens,
            count_tokens=count_tokens,
            open_calls=open_calls,
            from_user=from_user,
        )
        return view.of(self.events, first_seq=self.first_seq)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        session = super().from_dict(data)
        session.state = unmark(session.state)
        session.events = [
            event if isinstance(event, Event) else Event.from_dict(event)
            for event in data.get("events", ())
        ]
        return session


class UnreadableSession(Model, Struct, frozen=True, kw_only=True):
    """A session that this version cannot read: of a newer format, or damaged.

    Attributes:
        key: Whose session it is. To get it raises :exc:`~agentsession.errors.CodecError`; it can be
            deleted.
        reason: What could not be read.
    """

    key: SessionKey
    reason: str


class UserPage(Model, Struct, frozen=True, kw_only=True):
    """One page of an application's users, in the order of their ids.

    Attributes:
        users: The users.
        next_cursor: Pass it as ``cursor`` for the next page; ``None`` on the last one.
    """

    users: list[UserKey]
    next_cursor: str | None = None


class SessionPage(Model, Struct, frozen=True, kw_only=True):
    """One page of sessions: each user's by newest activity.

    Attributes:
        sessions: The sessions with their merged state and without events.
        next_cursor: Pass it as ``cursor`` for the next page; ``None`` on the last one.
        unreadable: The sessions of this page that cannot be read.
    """

    sessions: list[Session]
    next_cursor: str | None = None
    unreadable: list[UnreadableSession] = []

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        page = super().from_dict(data)
        sessions = [
            session if isinstance(session, Session) else Session.from_dict(session)
            for session in data.get("sessions", ())
        ]
        return msgspec.structs.replace(page, sessions=sessions)
