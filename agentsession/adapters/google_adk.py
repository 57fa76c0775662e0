"""The sessions of Google's Agent Development Kit, kept here.

::

    service = agentsession.open_service("redis://localhost:6379/0", session_event_limit=None)
    runner = Runner(app_name="bot", agent=agent, session_service=SessionService(service))

The commands ``adk web`` and ``adk api_server`` find a store by its URI, once :func:`register` was
called in the ``services.py`` beside the agents: ``--session_service_uri
agentsession+redis://localhost:6379/0``.

It needs an extra: ``pip install 'agentsession[google-adk]'``.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Final

from agentsession._extras import what_to_install

try:
    from google.adk.cli.service_registry import get_service_registry
    from google.adk.errors.already_exists_error import AlreadyExistsError
    from google.adk.errors.session_not_found_error import SessionNotFoundError
    from google.adk.events.event import Event
    from google.adk.sessions.base_session_service import (
        BaseSessionService,
        GetSessionConfig,
        ListSessionsResponse,
    )
    from google.adk.sessions.session import Session
except ImportError as _cause:
    raise ImportError(what_to_install("this adapter", "google-adk", _cause)) from _cause

from agentsession import blocking, errors, sessions
from agentsession.adapters._items.gemini import (
    Restorer,
    another,
    append_once,
    framework_id,
    holds,
    json_safe,
    moment,
    to_event,
)
from agentsession.adapters._sessions.logs import Service, awaitable, in_life, listed, read
from agentsession.retention import LARGEST
from agentsession.sessions import SessionKey, UserKey
from agentsession.stores import SCHEMES

if TYPE_CHECKING:
    from typing import Unpack

    from google.adk.cli.service_registry import ServiceRegistry
    from google.adk.events.event_actions import EventCompaction

    from agentsession import events
    from agentsession.stores import ServiceOptions

__all__ = ["SessionService", "open_session_service", "register"]

_FRAMEWORK: Final = "google_adk"
_SCHEME: Final = "agentsession+"
# How many events are read at first where their number is not known.
_SOME: Final = 64
# Begins the marker of a session at hand that was loaded from here. Behind it stand the position up
# to which the session at hand may hold what is stored, and which of the sessions of its id it is.
_MARKER: Final = "agentsession:"

_logger = logging.getLogger("agentsession.adapters")


class SessionService(BaseSessionService):
    """ADK's session service on a store of this library.

    Events come back equal to what was appended. Where ADK has no rule, or its services differ:

    - An append never fails because others have written to the session, and loses nothing of
      theirs. The ``Session`` at hand gets the appended event alone; what others have appended is
      there when it is loaded again.
    - An append that fails, or is cancelled, leaves the ``Session`` at hand as it was.
    - A summary of events (``actions.compaction``) that would hide an event which somebody else has
      stored meanwhile is left out, and a warning says so.
    - A rewind (``actions.rewind_before_invocation_id``) takes back the events of the log, so that
      readers of other frameworks do not see them either.
    - ``last_update_time`` of a session in a list is when the store last wrote to it; elsewhere it
      is the timestamp of its last event.
    - State that JSON cannot hold is stored as ADK's services store it, with a warning.

    What another framework has stored arrives as ADK's events, made of the parts. What ADK has no
    words for is named in ``custom_metadata["agentsession_lost"]``.

    Args:
        service: Where sessions are kept. Give a
            :class:`~agentsession.blocking.BlockingSessionService` where several event loops use it,
            as ``Runner.run`` does.
        agent: The name of the agent that takes what agents of other frameworks said for its own.
            Without it, ADK shows it to its agents as a transcript of somebody else's.
    """

    def __init__(self, service: Service, *, agent: str = "") -> None:
        self._service = awaitable(service)
        self._agent = agent

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._service!r}>"

    # -- sessions

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Make a new session.

        Raises:
            AlreadyExistsError: ADK's; the id is in use, and nothing was changed.
            StateValueError: A value of *state* cannot be stored; nothing was changed.
            ValueError: *app_name* or *user_id* is empty.
        """
        key = SessionKey(app_name, user_id, (session_id or "").strip())
        try:
            made = await self._service.create_session(key, json_safe(state or {}))
        except errors.SessionExistsError as exc:
            msg = f"Session with id {key.session_id} already exists."
            raise AlreadyExistsError(msg) from exc
        return self._session(made)

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Return a session with its events, or ``None`` if there is none."""
        if not (session_id := session_id.strip()):
            return None
        key = SessionKey(app_name, user_id, session_id)
        config = config or GetSessionConfig()
        if config.after_timestamp is not None:
            found = await self._newer(key, config.after_timestamp)
        elif config.num_recent_events is not None:
            # One more than none, since the last event says when the session was last updated.
            found = await self._recent(key, max(config.num_recent_events, 1))
        else:
            found = await read(self._service, key)
        return None if found is None else self._session(found, config)

    async def _recent(self, key: SessionKey, most: int) -> sessions.Session | None:
        """Load a session with its newest events."""
        try:
            return await self._service.get_session(key, num_recent_events=most)
        except errors.ReadTooLargeError:
            return await read(self._service, key)

    async def _newer(self, key: SessionKey, since: float) -> sessions.Session | None:
        """Load a session with its newest events, back to one that is older than a moment.

        By the events' own timestamps, which the order of a log does not depend on.
        """
        most = _SOME
        while True:
            found = await self._recent(key, most)
            if found is None or len(found.events) < most:
                return found
            if any(event.timestamp < moment(since) for event in found.events):
                return found
            most *= 4

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """Return a user's sessions, or those of all users, without events; oldest update first."""
        owner = app_name if user_id is None else UserKey(app_name, user_id)
        found = [self._session(each) async for each in listed(self._service, owner)]
        found.sort(key=lambda each: (each.last_update_time, each.user_id, each.id))
        return ListSessionsResponse(sessions=found)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session; one that does not exist is no error."""
        if session_id := session_id.strip():
            await self._service.delete_session(SessionKey(app_name, user_id, session_id))

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return a user's state, names without prefix; empty if there is none."""
        return await self._service.get_user_state(UserKey(app_name, user_id))

    def _session(self, found: sessions.Session, config: GetSessionConfig | None = None) -> Session:
        made = Restorer(_FRAMEWORK, Event, self._agent).events(found.events)
        updated_at = made[-1].timestamp if made else found.updated_at.timestamp()
        session = Session(
            id=found.id,
            app_name=found.app_name,
            user_id=found.user_id,
            state=found.state,
            events=made if config is None else _wanted(made, config),
            last_update_time=updated_at,
        )
        _mark(session, found.last_seq, found.incarnation)
        return session

    # -- events

    async def append_event(self, session: Session, event: Event) -> Event:
        """Store an event with its changes to state, in one step, and add it to *session*.

        The same event once more is a repeat: it changes nothing. Another event under the same id
        is another event.

        Raises:
            SessionNotFoundError: ADK's; the session does not exist any more.
            EventTooLargeError: The event is over the service's ``max_event_size``.
            SessionBusyError: A turn of this library's runner has the session for itself.
            StateValueError: A value in state cannot be stored.
        """
        if event.partial:
            return event
        key = SessionKey(session.app_name, session.user_id, session.id)
        try:
            stored = await self._append(key, session, event)
        except errors.SessionNotFoundError as exc:
            msg = f"Session {session.id} not found."
            raise SessionNotFoundError(msg) from exc
        if stored is None:
            return event
        last_seq, incarnation = _marked(session)
        # An event that was stored after all that the session at hand may hold need not be looked
        # for in it, which takes the longer the more it holds.
        is_new = stored.seq > last_seq
        if is_new or not holds(session.events, event):
            await super().append_event(session, event)
            session.last_update_time = event.timestamp
        if is_new:
            _mark(session, stored.seq, incarnation)
        return event

    async def _append(self, key: SessionKey, session: Session, event: Event) -> events.Event | None:
        """Store an event; return what is stored, ``None`` if it is left out."""
        given = to_event(event, _FRAMEWORK, session.events)
        _, incarnation = _marked(session)
        here = in_life(key, incarnation)
        if event.actions.compaction is not None:
            return await self._append_summary(here, session, event.actions.compaction, given)
        if event.actions.rewind_before_invocation_id:
            return await self._append_rewind(here, session, event, given)
        return await append_once(self._service, here, given, _FRAMEWORK)

    async def _append_summary(
        self,
        here: sessions.Session | SessionKey,
        session: Session,
        summary: EventCompaction,
        given: events.Event,
    ) -> events.Event | None:
        """Store a summary, unless it would hide an event that was not summarized."""
        key = here if isinstance(here, SessionKey) else here.key
        while True:
            stored = await self._newer(key, summary.start_timestamp)
            if stored is None:
                raise errors.SessionNotFoundError(key)
            if hidden := _hidden(summary, stored, session):
                _logger.warning(
                    "a summary of %r is left out: it would hide %d events that others have stored "
                    "meanwhile, such as %r",
                    key,
                    len(hidden),
                    hidden[0].id,
                )
                return None
            try:
                return await append_once(
                    self._service, here, given, _FRAMEWORK, expected_revision=stored.revision
                )
            except errors.RevisionConflictError:
                continue

    async def _append_rewind(
        self,
        here: sessions.Session | SessionKey,
        session: Session,
        event: Event,
        given: events.Event,
    ) -> events.Event:
        """Store a rewind, and take back what ADK does not show any more."""
        to_seq = await self._place_before(here, session, event.actions.rewind_before_invocation_id)
        if to_seq is None:
            return await append_once(self._service, here, given, _FRAMEWORK)
        try:
            # State is what the event says; ADK has computed it.
            (stored,) = await self._service.append_events(
                here, [given], rewind_to=to_seq, restore_state=False
            )
        except errors.RewindError as exc:
            _logger.warning("%s; so the events stay, and ADK alone leaves them out", exc)
            return await append_once(self._service, here, given, _FRAMEWORK)
        return stored

    async def _place_before(
        self,
        here: sessions.Session | SessionKey,
        session: Session,
        invocation_id: str | None,
    ) -> int | None:
        """Return the place in the log before a turn; ``None`` if the log does not hold the turn."""
        turn = (each for each in session.events if each.invocation_id == invocation_id)
        first = next(turn, None)
        found = None if first is None else await self._stored(here, first)
        if found is None:
            return None
        before = await self._service.get_events(
            here, before_seq=found.seq, limit=1, newest_first=True
        )
        return before[0].seq if before else 0

    async def _stored(
        self, here: sessions.Session | SessionKey, event: Event
    ) -> events.Event | None:
        """Return what is stored of an event; ``None`` if the log does not hold it."""
        given = to_event(event, _FRAMEWORK)
        # Under an id of its own, if its id belongs to another one.
        for event_id in (another(given, _FRAMEWORK).id, given.id):
            try:
                (found,) = await self._service.get_events(here, around=event_id, limit=1)
            except errors.EventNotFoundError:
                continue
            return found
        return None


def _mark(session: Session, last_seq: int, incarnation: str) -> None:
    """Note on a session at hand what it is, and up to where it may hold what is stored."""
    # Where the framework's own services keep what tells a session from a newer one.
    marker = f"{_MARKER}{last_seq}:{incarnation}"
    session._storage_update_marker = marker  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


def _marked(session: Session) -> tuple[int, str]:
    """Return what is noted on a session at hand; of one that was made by hand, that it may be any.

    Returns:
        The position up to which it may hold what is stored, and its incarnation; empty if it may be
        any of the sessions that had its id.
    """
    marker = session._storage_update_marker or ""  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    if not marker.startswith(_MARKER):
        return LARGEST, ""
    last_seq, _, incarnation = marker.removeprefix(_MARKER).partition(":")
    return int(last_seq), incarnation


def _wanted(made: list[Event], config: GetSessionConfig) -> list[Event]:
    """Return the events that were asked for: of the newest, those since a moment."""
    if config.num_recent_events is not None:
        made = made[max(len(made) - config.num_recent_events, 0) :]
    since = config.after_timestamp
    if since is None:
        return made
    older = [place for place, event in enumerate(made, 1) if event.timestamp < since]
    return made[older[-1] :] if older else made


def _hidden(
    summary: EventCompaction, stored: sessions.Session, session: Session
) -> list[events.Event]:
    """Return what a summary would hide of what the session at hand does not have."""
    at_hand = {event.id for event in session.events}
    start, end = moment(summary.start_timestamp), moment(summary.end_timestamp)
    return [
        event
        for event in stored.events
        if start <= event.timestamp <= end and framework_id(event, _FRAMEWORK) not in at_hand
    ]


# -- by URI


def open_session_service(
    uri: str,
    *,
    agents_dir: str = "",  # noqa: ARG001 - ADK gives it to whatever opens a store
    agent: str = "",
    **options: Unpack[ServiceOptions],
) -> SessionService:
    """Make the session service of the store at a URI, for any number of event loops.

    Nothing is connected before the first call. Sessions keep all their events, as ADK's own
    services do, unless *session_event_limit* says otherwise.

    Args:
        uri: The URL of a store as :func:`agentsession.open_service` takes it, with or without
            ``agentsession+`` in front of it.
        agents_dir: Where ADK has found the agents; it is not needed.
        agent: As for :class:`SessionService`.
        **options: As for :func:`agentsession.open_service`.
    """
    given: ServiceOptions = {"session_event_limit": None, **options}
    service = blocking.open_service(uri.removeprefix(_SCHEME), **given)
    return SessionService(service, agent=agent)


def register(
    registry: ServiceRegistry | None = None, *, agent: str = "", **options: Unpack[ServiceOptions]
) -> None:
    """Let ADK's commands find stores by URIs that begin with ``agentsession+``.

    Call it in ``services.py`` in the folder of the agents, which ADK's commands run first.

    Args:
        registry: Of which services; ADK's own by default.
        agent: As for :class:`SessionService`.
        **options: As for :func:`agentsession.open_service`, for every store that is opened so.
    """
    registry = registry or get_service_registry()
    make = functools.partial(open_session_service, agent=agent, **options)
    for scheme in SCHEMES:
        registry.register_session_service(_SCHEME + scheme, make)
