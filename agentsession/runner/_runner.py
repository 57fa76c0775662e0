"""The runner: runs the turns of an agent on any number of sessions."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, NoReturn, Self

import msgspec

from agentsession._misuse import AsyncContext
from agentsession._pace import Pace
from agentsession._wording import brief, described
from agentsession.errors import AgentSessionError, ReadTooLargeError, StateValueError
from agentsession.events import Content, Event, EventError, new_id
from agentsession.memory import InMemorySessionService
from agentsession.runner._agent import Agent, AgentContext, name_of, runnable, started
from agentsession.runner._tracked_state import TrackedState
from agentsession.service import SessionService
from agentsession.sessions import Session, SessionKey
from agentsession.state import is_temporary, split

__all__ = ["Run", "Runner"]

_ABSENT: Final = object()
_ITERATE: Final = "'async for event in runner.run(...)'"
_UNDESCRIBED: Final = EventError(message="the agent failed, and its error could not be described")


class Run(AsyncIterator[Event], AsyncContext):
    """One turn of an agent: iterate over it, once, to run the turn and get its events.

    Leaving the loop early ends the turn at once only if the run is closed: ``async with
    runner.run(...) as run``.

    Attributes:
        key: The session, with its id, also if it was generated.
        invocation_id: The turn.
    """

    # Whether it is complete and nobody has iterated over it yet.
    _idle = False

    def __init__(
        self, key: SessionKey, invocation_id: str, events: AsyncGenerator[Event, None]
    ) -> None:
        self.key = key
        self.invocation_id = invocation_id
        self._events = events
        self._idle = True

    def __del__(self) -> None:
        if self._idle:
            msg = f"{described(self.key)}: a turn never began; write {_ITERATE}"
            warnings.warn(msg, RuntimeWarning, stacklevel=2, source=self)

    if not TYPE_CHECKING:  # As in agentsession._misuse.

        def __await__(self) -> NoReturn:
            self._idle = False
            msg = f"a run is neither awaited nor looped over with a plain 'for'; write {_ITERATE}"
            raise TypeError(msg)

        __iter__ = __await__

    @property
    def session_id(self) -> str:
        """The session's id, also if it was generated."""
        return self.key.session_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        self._idle = False
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the turn where it is: the agent is closed, and what was appended stays."""
        self._idle = False
        await self._events.aclose()


class Runner(AsyncContext):
    """Creates, loads and updates sessions, so that an agent's author never does.

    Any number of turns may run at once. Two turns of one session interleave their events, each in
    order and each with its own ``invocation_id``.

    Args:
        app_name: The application, part of every session's key.
        agent: A callable that takes one :class:`AgentContext` and returns an async iterator of
            events, such as an async generator function, or an object with such a method ``run``.
        session_service: Where sessions are kept; it stays open. Without one they are in memory, and
            gone when the runner is closed.
        describe_error: Turns an exception into the :class:`~agentsession.events.EventError` that is
            stored and yielded; by default, with the exception's message and class. If this function
            fails itself, the event says only that the agent failed, and the exception is raised
            with a note of what went wrong.

    Raises:
        TypeError: *agent* cannot be run, *session_service* is no service, or *describe_error* is
            not callable.
        ValueError: *app_name* is empty.
    """

    def __init__(
        self,
        app_name: str,
        agent: Agent,
        session_service: SessionService | None = None,
        *,
        describe_error: Callable[[Exception], EventError] | None = None,
    ) -> None:
        SessionKey(app_name, "-")  # checks the name
        self._app_name = app_name
        self._agent, self._runnable = agent, runnable(agent)
        if describe_error is not None and not callable(describe_error):
            msg = f"describe_error must be callable, not {describe_error!r:.80}"
            raise TypeError(msg)
        self._describe_error = describe_error or _message_and_class
        if session_service is not None and not isinstance(session_service, SessionService):
            msg = f"session_service must be a SessionService, not {session_service!r:.80}"
            if isinstance(session_service, str):
                msg += "; open_service(url) makes one"
            elif isinstance(session_service, type):
                msg += "; pass an instance of it"
            raise TypeError(msg)
        self._owns_service = session_service is None
        self._service = InMemorySessionService() if session_service is None else session_service

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._app_name!r} on {self._service!r}>"

    @property
    def session_service(self) -> SessionService:
        """Where the sessions are kept."""
        return self._service

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the service if it is the runner's own; one that was handed in stays open."""
        if self._owns_service:
            await self._service.aclose()

    def run(
        self,
        user_id: str,
        session_id: str,
        message: Content | Event,
        *,
        num_recent_events: int | None = None,
    ) -> Run:
        """Run one turn; nothing happens until the result is iterated over.

        An agent's exception becomes a last event with ``error``, stored and handed on, and is then
        raised; so does that of a write that was refused. If the caller is cancelled or closes the
        run, the agent is closed and what was appended stays.

        If the events to load are more than the service's ``max_read_size``, the newest are loaded:
        at least half of those that would fit, and never fewer than the service's
        ``always_readable``.

        Args:
            user_id: Who speaks.
            session_id: The session, made if it does not exist; empty for a new one, whose id is
                ``run(...).session_id``.
            message: What the user says: a string, a list of parts, or an event of the user's own
                making, whose id makes a repeat of the turn store the message once.
            num_recent_events: Load at most this many of the session's events; ``None`` for all that
                one read may return.

        Returns:
            The turn, an async iterator of the agent's events. Whole events come as they were
            stored, partial ones as the agent yielded them.

        Raises:
            TypeError: An id is no string. While iterating: the agent yields something that is no
                event.
            ValueError: An id is empty or not valid Unicode.
        """
        key = SessionKey(self._app_name, user_id, session_id or new_id())
        event = message if isinstance(message, Event) else Event(author="user", content=message)
        # A message that is sent again belongs to the same turn.
        invocation_id = event.invocation_id or event.id
        event = msgspec.structs.replace(event, invocation_id=invocation_id)
        return Run(key, invocation_id, self._turn(key, event, num_recent_events))

    async def _turn(
        self, key: SessionKey, message: Event, num_recent_events: int | None
    ) -> AsyncGenerator[Event, None]:
        session = await self._load(key, num_recent_events)
        message = await self._service.append_event(session, message)
        context = AgentContext(
            session=session,
            message=message,
            invocation_id=message.invocation_id,
            state=TrackedState(session),
        )
        try:
            pace = Pace()
            async with aclosing(started(self._runnable, context)) as events:
                async for event in events:
                    # An agent that never waits would hold the loop: nobody could even cancel it.
                    if pace.due():
                        await pace.rest()
                    yield await self._keep(context, event)
            await self._keep_changes(context)
        except Exception as exc:
            last = await self._keep_error(context, exc)
            if last is not None:
                yield last
            raise

    async def _load(self, key: SessionKey, most: int | None) -> Session:
        """Load a session with its newest events, half as many until one read returns them.

        What is returned is of one moment, since it is what one read returned. A search would find
        all that fit, but each of its reads costs the server as much as this whole load.
        """
        while True:
            try:
                return await self._service.get_or_create_session(key, num_recent_events=most)
            except ReadTooLargeError as exc:
                most = max(exc.events // 2, self._service.always_readable)

    async def _keep(self, context: AgentContext, event: Event) -> Event:
        """Append a whole event, with the turn's id and the state that the agent changed."""
        if not isinstance(event, Event):
            kind = type(event).__qualname__
            msg = f"an agent yields agentsession.Event objects, not {kind}: {event!r:.80}"
            raise TypeError(msg)
        if not event.invocation_id:
            event = msgspec.structs.replace(event, invocation_id=context.invocation_id)
        if event.partial:
            return event
        changes, newest = context.state.take_changes(), context.session.last_seq
        try:
            if changes:
                event = msgspec.structs.replace(event, state_delta=changes | event.state_delta)
            stored = await self._service.append_event(context.session, event)
        except Exception:
            context.state.put_back(changes)
            raise
        # A repeated event stores nothing, so what the agent has changed since is kept for the next.
        # That it stored the same value once means little: others may have come after it.
        is_old = stored.seq <= newest
        lost = [
            name
            for name, value in event.state_delta.items()
            if name in changes and (is_old or stored.state_delta.get(name, _ABSENT) != value)
        ]
        context.state.put_back({name: changes[name] for name in lost if not is_temporary(name)})
        return stored

    async def _keep_changes(self, context: AgentContext) -> None:
        """Store the state that the agent changed and no event carried."""
        changes = context.state.take_changes()
        if not changes:
            return
        try:
            await self._service.update_session_state(context.session, changes)
        except Exception:
            context.state.put_back(changes)
            raise

    async def _keep_error(self, context: AgentContext, exc: Exception) -> Event | None:
        """Append the event of an exception, with the state that no event carried.

        Whatever goes wrong with that becomes a note of the exception, which is the one to come out.

        Returns:
            The event; ``None`` if it could not be stored.
        """
        described = Event(author=name_of(self._agent), error=self._described(exc))
        refusal: Exception | None = None
        self._drop_unstorable(context, exc)
        try:
            # If the event is too large together with the changes, these are stored before it.
            for event in (described, described):
                try:
                    return await self._keep(context, event)
                except (TypeError, ValueError) as failure:
                    refusal = failure
                await self._keep_changes(context)
            exc.add_note(f"agentsession could not store how this error was described: {refusal}")
            return await self._keep(context, Event(author="agent", error=_UNDESCRIBED))
        except (AgentSessionError, TypeError, ValueError) as failure:
            exc.add_note(f"agentsession could not store the event of this error: {failure}")
            return None

    def _described(self, exc: Exception) -> EventError:
        """Describe an exception as the application wishes, or not at all if that fails."""
        try:
            error = self._describe_error(exc)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the agent's own comes out
            exc.add_note(f"agentsession: describe_error raised {brief(failure)} for this error")
            return _UNDESCRIBED
        if not isinstance(error, EventError):
            kind = type(error).__qualname__
            exc.add_note(f"agentsession: describe_error returned a {kind}, not an EventError")
            return _UNDESCRIBED
        return error

    def _drop_unstorable(self, context: AgentContext, exc: Exception) -> None:
        """Lose each change that could never be stored, so that the others can be."""
        changes = context.state.take_changes()
        for name, value in list(changes.items()):
            try:
                split({name: value}, self._service.max_value_size)
            except StateValueError as refused:
                del changes[name]
                if refused.args != getattr(exc, "args", ()):
                    exc.add_note(f"agentsession lost a change to state: {refused}")
        context.state.put_back(changes)


def _message_and_class(exc: Exception) -> EventError:
    """Describe an exception."""
    return EventError(message=str(exc) or repr(exc), type=type(exc).__qualname__)
