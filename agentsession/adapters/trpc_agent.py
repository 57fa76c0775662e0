"""The sessions of tRPC-Agent (trpc-agent-py), kept here.

::

    service = agentsession.open_service("redis://localhost:6379/0", session_event_limit=None)
    runner = Runner(app_name="bot", agent=agent, session_service=SessionService(service))

It needs an extra: ``pip install 'agentsession[trpc-agent]'``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from agentsession._extras import what_to_install

try:
    from trpc_agent_sdk.abc import ListSessionsResponse
    from trpc_agent_sdk.events import Event
    from trpc_agent_sdk.sessions import BaseSessionService, Session, SessionServiceConfig
    from trpc_agent_sdk.utils import user_key
except ImportError as _cause:
    raise ImportError(what_to_install("this adapter", "trpc-agent", _cause)) from _cause

import msgspec

from agentsession import errors, events, sessions
from agentsession.adapters._items.gemini import (
    Restorer,
    append_once,
    holds,
    json_safe,
    to_event,
)
from agentsession.adapters._items.originals import with_original
from agentsession.adapters._sessions.ends import loose, replace_end
from agentsession.adapters._sessions.logs import Service, awaitable, in_life, listed, read, read_raw
from agentsession.adapters._trpc_agent.changes import Piece, merged, runs_of, unchanged
from agentsession.adapters._trpc_agent.session import (
    COUNT,
    HISTORICAL,
    NAMES,
    LoadedSession,
    memory_of,
    own_state,
)
from agentsession.events import new_id
from agentsession.sessions import SessionKey, UserKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trpc_agent_sdk.abc import CompactSummarizerManagerABC, SessionABC
    from trpc_agent_sdk.context import AgentContext

__all__ = ["SessionService"]

_FRAMEWORK: Final = "trpc_agent"

_logger = logging.getLogger("agentsession.adapters")


class SessionService(BaseSessionService):  # type: ignore[misc]  # the framework ships no types
    """tRPC-Agent's session service on a store of this library.

    Events come back equal to what was appended. Where the framework has no rule, or its services
    differ:

    - An append adds to the log and does nothing else, whatever part of it the ``Session`` at hand
      holds. Events of others stay, and are there when the session is loaded again. The same event
      once more is a repeat and changes nothing; another event under the same id is another event.
    - ``update_session`` stores what was changed in the ``Session`` at hand since it was loaded, in
      one step: its events and its own state. What others have appended meanwhile stays, and so does
      what a limit of *session_config* has left out. State of the user and of the application is
      not part of it. An event that is new in it is stored as an append stores it, so that to append
      it later is a repeat. A session that was made by hand replaces all.
    - Events that ``update_session`` takes away are taken back: readers of other frameworks do not
      see them either.
    - To append to a session that does not exist, or to update it, raises
      :exc:`~agentsession.errors.SessionNotFoundError`.
    - To create a session whose id is in use gives the session that is there, with *state* merged
      into its own, as the framework's SQL service does it.
    - How long sessions live, and how many events they keep, the service beneath decides; the limits
      of *session_config* are those of what is loaded.

    What another framework has stored arrives as events, made of the parts. What has no words here
    is named in ``custom_metadata["agentsession_lost"]``.

    Args:
        service: Where sessions are kept; it is closed by whoever has made it. Give a
            :class:`~agentsession.blocking.BlockingSessionService` where several event loops use it,
            as a runner with ``defer_post_turn_processing`` does.
        summarizer_manager: The framework's.
        session_config: The framework's. Its ``ttl`` is not used; without a config, events that a
            summary replaces are kept as historical events, as in the framework's own stores.
        agent: The name of the agent that takes what agents of other frameworks said for its own.
            Without it, the framework shows it to its agents as what somebody else has said.
    """

    def __init__(
        self,
        service: Service,
        summarizer_manager: CompactSummarizerManagerABC | None = None,
        session_config: SessionServiceConfig | None = None,
        *,
        agent: str = "",
    ) -> None:
        if session_config is None:
            session_config = SessionServiceConfig(store_historical_events=True)
            session_config.clean_ttl_config()
        elif session_config.need_ttl_expire():
            _logger.warning(
                "the time to live of session_config is not used; give the service a session_ttl"
            )
        super().__init__(summarizer_manager, session_config)
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
        agent_context: AgentContext | None = None,  # noqa: ARG002 - the framework's
    ) -> Session:
        """Make a new session; an id that is blank, or missing, is generated.

        Raises:
            StateValueError: A value of *state* cannot be stored; nothing was changed.
            ValueError: *app_name* or *user_id* is empty.
        """
        key = SessionKey(app_name, user_id, (session_id or "").strip())
        safe = json_safe(state or {})
        while True:
            try:
                made = await self._service.create_session(key, safe)
            except errors.SessionExistsError:
                if (found := await self._there(key, safe)) is not None:
                    return found
            else:
                return await self._session(made)

    async def _there(self, key: SessionKey, state: dict[str, Any]) -> Session | None:
        """Return a session that is there, with more state; ``None`` if it is gone."""
        try:
            if state:
                await self._service.update_session_state(key, state)
        except errors.SessionNotFoundError:
            return None
        found = await read(self._service, key)
        return None if found is None else await self._session(found)

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        agent_context: AgentContext | None = None,  # noqa: ARG002 - the framework's
    ) -> Session | None:
        """Return a session with its events, or ``None`` if there is none."""
        if not (session_id := session_id.strip()):
            return None
        found = await read(self._service, SessionKey(app_name, user_id, session_id))
        try:
            return None if found is None else await self._session(found)
        except errors.SessionNotFoundError:
            return None  # It was deleted while its historical events were read.

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """Return a user's sessions, or those of all users, without events; newest activity first.

        Of all users they come one user after the other.
        """
        owner = app_name if user_id is None else UserKey(app_name, user_id)
        found: list[SessionABC] = []
        async for each in listed(self._service, owner):
            made = self._bare(each)
            made.memory.learn(made, each.incarnation)
            found.append(made)
        return ListSessionsResponse(sessions=found)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session; one that does not exist is no error."""
        if session_id := session_id.strip():
            await self._service.delete_session(SessionKey(app_name, user_id, session_id))

    def _bare(self, found: sessions.Session) -> LoadedSession:
        """Return a session without events, which does not know yet what is stored."""
        count = found.state.get(COUNT, 0)
        return LoadedSession(
            id=found.id,
            app_name=found.app_name,
            user_id=found.user_id,
            state={name: each for name, each in found.state.items() if name not in NAMES},
            last_update_time=found.updated_at.timestamp(),
            save_key=user_key(found.app_name, found.user_id),
            conversation_count=count if isinstance(count, int) else 0,
        )

    async def _session(self, found: sessions.Session) -> Session:
        """Return a session with its events, within the limits of the configuration."""
        made = self._bare(found)
        made.events = self._restorer().events(filter(_is_shown, found.events))
        config = self.session_config
        if config.store_historical_events:
            made.historical_events = [event for event, _ in await self._historical(found)]
        made.apply_event_filtering(
            config.event_ttl_seconds, config.max_events, config.store_historical_events
        )
        self.filter_events(made)
        if found.events:
            made.last_update_time = found.events[-1].timestamp.timestamp()
        made.memory.learn(made, found.incarnation)
        return made

    def _pieces(self, stored: Sequence[events.Event]) -> list[Piece[Event]]:
        restorer = self._restorer()
        return [
            Piece(event, restorer.events([event]) if _is_shown(event) else []) for event in stored
        ]

    def _restorer(self) -> Restorer[Event]:
        # The framework tells its agents apart by branch, and that of a root agent is its name.
        return Restorer(_FRAMEWORK, Event, self._agent, branch=self._agent)

    async def _historical(self, found: sessions.Session) -> list[tuple[Event, int]]:
        """Return the historical events of a session, and where they are; 0 for nowhere else."""
        restorer = self._restorer()
        made: list[tuple[Event, int]] = []
        for each in found.state.get(HISTORICAL, ()):
            if isinstance(each, dict):
                kept = with_original(events.Event(author="agent"), _FRAMEWORK, each)
                made += [(event, 0) for event in restorer.events([kept])]
            else:
                first, last = each
                async for event in read_raw(self._service, found.key, first, last):
                    made += [(each, event.seq) for each in restorer.events([event])]
        return made

    # -- events

    async def append_event(self, session: Session, event: Event) -> Event:
        """Store an event with its changes to state, in one step, and add it to *session*.

        Raises:
            SessionNotFoundError: The session does not exist any more.
            EventTooLargeError: The event is over the service's ``max_event_size``.
            SessionBusyError: A turn of this library's runner has the session for itself.
            StateValueError: A value in state cannot be stored.
        """
        if event.partial:
            return event
        memory = memory_of(session)
        given = to_event(event, _FRAMEWORK, session.events)
        if session.conversation_count != memory.count:
            delta = {**given.state_delta, COUNT: session.conversation_count}
            given = msgspec.structs.replace(given, state_delta=delta)
        is_edited = memory.lacks_calls()
        here = in_life(_key_of(session), memory.incarnation)
        await append_once(self._service, here, given, _FRAMEWORK)
        if not (memory.may_hold(event) and holds(session.events, event)):
            if event.id in memory.gone:
                await self._append_anew(here, given)
            _, left_out = self._append_event_to_session(session, event)
            memory.learn_event(event, session.conversation_count)
            memory.forget(session, left_out)
        if is_edited:
            await self.update_session(session)
        return event

    async def _append_anew(self, here: sessions.Session | SessionKey, given: events.Event) -> None:
        """Store an event that was stored before, if ``update_session`` has taken it away since."""
        try:
            await self._service.get_events(here, around=given.id, limit=1)
        except errors.EventNotFoundError:
            anew = msgspec.structs.replace(given, id=new_id())
            await self._service.append_event(here, anew)

    async def update_session_state(self, session: SessionABC, state_delta: dict[str, Any]) -> None:
        """Store changes to state, in one step, and make them in *session*.

        Names go to the scope that their prefix says.

        Raises:
            SessionNotFoundError: The session does not exist any more.
            StateValueError: A value cannot be stored; nothing was changed.
        """
        safe = json_safe(state_delta)
        memory = memory_of(session)
        here = in_life(_key_of(session), memory.incarnation)
        await self._service.update_session_state(here, safe)
        session.state.update(state_delta)
        memory.learn_state(safe)

    async def update_session(self, session: Session) -> None:
        """Store what was changed in *session* since it was loaded, in one step.

        Raises:
            SessionNotFoundError: The session does not exist any more.
            StateValueError: A value in state cannot be stored; nothing was changed.
            ValueError: More than 1,000 events are new or were changed; nothing was changed.
        """
        key, memory = _key_of(session), memory_of(session)
        while True:
            found = await read(self._service, key)
            if found is None or memory.incarnation not in {"", found.incarnation}:
                raise errors.SessionNotFoundError(key, replaced=found is not None)
            try:
                await self._update(session, found)
            except errors.RevisionConflictError:
                continue
            memory.learn(session, found.incarnation)
            return

    async def _update(self, session: Session, found: sessions.Session) -> None:
        """Store what was changed in a session, if nobody writes meanwhile."""
        stored = self._pieces(found.events)
        wanted = merged(stored, session.events, memory_of(session).known)
        changes = await self._state_changes(session, found, stored)
        kept = unchanged(stored, wanted)
        if kept == len(stored) == len(wanted):
            if changes:
                here = in_life(found.key, found.incarnation)
                await self._service.update_session_state(here, changes)
            return
        used = memory_of(session).ids | {event.id for piece in stored for event in piece.made}
        instead = [_again(each, used) for each in wanted[kept:] if _shows(each)]
        if changes:
            # They ride on the last event, or on one that shows to nobody.
            carrier = instead.pop() if instead else events.Event(author=_FRAMEWORK)
            delta = {**carrier.state_delta, **changes}
            instead.append(msgspec.structs.replace(carrier, state_delta=delta))
        try:
            await replace_end(self._service, found, kept, instead)
        except errors.RewindError as exc:
            if exc.problem != "stored":
                raise
            # Somebody else has stored a new one before, and it was taken back since.
            instead = [msgspec.structs.replace(each, id=new_id()) for each in instead]
            await replace_end(self._service, found, kept, instead)

    async def _state_changes(
        self, session: Session, found: sessions.Session, stored: Sequence[Piece[Event]]
    ) -> dict[str, Any]:
        changes = memory_of(session).changes(session, own_state(found.state))
        if session.conversation_count != found.state.get(COUNT, 0):
            changes[COUNT] = session.conversation_count
        if self.session_config.store_historical_events:
            historical = await self._where(session.historical_events, found, stored)
            if historical != found.state.get(HISTORICAL, []):
                changes[HISTORICAL] = historical
        return changes

    async def _where(
        self, historical: Sequence[Event], found: sessions.Session, stored: Sequence[Piece[Event]]
    ) -> list[Any]:
        """Say where historical events are in the log; what is not in it is there itself."""
        places = {event.id: place for event, place in await self._historical(found) if place}
        places |= {event.id: piece.event.seq for piece in stored for event in piece.made}
        said: list[Any] = []
        run: list[int] = []
        for event in historical:
            place = places.get(event.id)
            if place is None:
                said += [*runs_of(run), to_event(event, _FRAMEWORK).metadata[_FRAMEWORK]]
                run = []
            elif place not in run[-1:]:
                run.append(place)
        return [*said, *runs_of(run)]


def _key_of(session: SessionABC) -> SessionKey:
    return SessionKey(session.app_name, session.user_id, session.id)


def _is_shown(event: events.Event) -> bool:
    """Tell whether the framework has something of an event: not if it carries state alone."""
    return event.author != _FRAMEWORK


def _shows(wanted: Piece[Event] | Event) -> bool:
    return not isinstance(wanted, Piece) or bool(wanted.made)


def _again(wanted: Piece[Event] | Event, used: set[str]) -> events.Event:
    """Return an event to be stored once more: its changes to state were made when it was first.

    Args:
        wanted: What is stored, or what is new or was changed.
        used: The ids of what was stored before. One that is new has its own id, so that to append
            it later stores nothing, and its changes to state.
    """
    if isinstance(wanted, Piece):
        return loose(wanted.event)
    event = to_event(wanted, _FRAMEWORK)
    if event.id in used:
        return loose(event)
    return msgspec.structs.replace(loose(event), id=event.id, state_delta=event.state_delta)
