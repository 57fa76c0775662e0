"""The runner: runs the turns of an agent on any number of sessions."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias, get_args

import msgspec

from agentsession._misuse import AsyncContext
from agentsession._service.arguments import check_results
from agentsession._service.leasing import check_run_id, checked_claim, checked_wait
from agentsession._wording import described
from agentsession.events import Content, Event, EventError, ToolResult, new_id
from agentsession.memory import InMemorySessionService
from agentsession.retention import Duration, seconds
from agentsession.runner._agent import Agent, runnable
from agentsession.runner._run import Run
from agentsession.runner._turn import Settings, Turn
from agentsession.service import SessionService
from agentsession.sessions import SessionKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentsession.backend import WhenBusy

__all__ = ["OnDisconnect", "Runner"]

OnDisconnect: TypeAlias = Literal["cancel", "detach"]
"""What happens to a turn when its last reader has gone."""

# How long turns that were cancelled may take to end when the runner closes, in seconds.
_CLOSING: Final = 15.0
# How often it is looked meanwhile whether a turn was left behind, in seconds.
_LOOK_AGAIN: Final = 0.1


class Runner(AsyncContext):
    """Creates, loads and updates sessions, so that an agent's author never does.

    Any number of turns may run at once, one at a time of each session, also where several processes
    run them: whoever comes while another turn has the session does what *when_busy* says. Each turn
    that begins has an end, which its last event tells by its ``outcome``, whatever becomes of its
    reader or of its process; :mod:`agentsession.runner` has the rules.

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
        when_busy: As for :meth:`~agentsession.SessionService.lease`, and so are the next three.
        wait: How long a turn stands in line, in seconds.
        ttl: How long its lease lives without being renewed, in seconds.
        grace: How long a turn that is interrupted may take to end, in seconds.
        on_disconnect: What happens when the last reader of a turn has gone: ``"cancel"`` ends it,
            ``"detach"`` lets it go on.

    Raises:
        TypeError: *agent* cannot be run, *session_service* is no service, *describe_error* is not
            callable, or another argument has the wrong type.
        ValueError: *app_name* is empty, or another argument is out of its range.
    """

    def __init__(
        self,
        app_name: str,
        agent: Agent,
        session_service: SessionService | None = None,
        *,
        describe_error: Callable[[Exception], EventError] | None = None,
        when_busy: WhenBusy = "queue",
        wait: Duration = 30.0,
        ttl: Duration = 15.0,
        grace: Duration = 5.0,
        on_disconnect: OnDisconnect = "cancel",
    ) -> None:
        SessionKey(app_name, "-")  # checks the name
        self._app_name = app_name
        checked_claim("-", when_busy=when_busy, ttl=ttl, grace=grace)
        checked_wait(wait)
        if on_disconnect not in get_args(OnDisconnect):
            known = " or ".join(map(repr, get_args(OnDisconnect)))
            msg = f"on_disconnect must be {known}, not {on_disconnect!r:.80}"
            raise ValueError(msg)
        if describe_error is not None and not callable(describe_error):
            msg = f"describe_error must be callable, not {describe_error!r:.80}"
            raise TypeError(msg)
        if session_service is not None and not isinstance(session_service, SessionService):
            msg = f"session_service must be a SessionService, not {session_service!r:.80}"
            if isinstance(session_service, str):
                msg += "; open_service(url) makes one"
            elif isinstance(session_service, type):
                msg += "; pass an instance of it"
            raise TypeError(msg)
        self._owns_service = session_service is None
        self._service = InMemorySessionService() if session_service is None else session_service
        self._settings = Settings(
            service=self._service,
            agent=agent,
            runnable=runnable(agent),
            describe_error=describe_error or _message_and_class,
            lease_options={"when_busy": when_busy, "wait": wait, "ttl": ttl, "grace": grace},
            detaches=on_disconnect == "detach",
        )
        # The turns that run, by the session and the id of the message.
        self._turns: dict[tuple[SessionKey, str], Turn] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._app_name!r} on {self._service!r}>"

    @property
    def app_name(self) -> str:
        """The application of the sessions."""
        return self._app_name

    @property
    def session_service(self) -> SessionService:
        """Where the sessions are kept."""
        return self._service

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self, *, timeout: Duration = 30.0) -> None:  # noqa: ASYNC109 - what it bounds is left to end
        """Wait for the turns that run, and close the service if it is the runner's own.

        A service that was handed in stays open. No turn can begin any more.

        Args:
            timeout: How many seconds turns may take to come to their end; those that have not are
                cancelled then. 0 cancels all at once. A turn that waits for a reader who takes
                nothing for a second is cancelled too.
        """
        self._closed = True
        await asyncio.sleep(0)  # Whoever has left a turn behind is known to have gone after that.
        patience = seconds("timeout", timeout) or 0.0
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience
        while self._turns and loop.time() < give_up:
            await self._wait_for_turns(min(_LOOK_AGAIN, give_up - loop.time()))
            for turn in [*self._turns.values()]:
                if turn.audience.is_kept_waiting:
                    turn.stop()
        for turn in [*self._turns.values()]:
            turn.stop()
        await self._wait_for_turns(_CLOSING)
        if self._owns_service:
            await self._service.aclose()

    async def _wait_for_turns(self, patience: float) -> None:
        turns = [*self._turns.values()]
        for turn in turns:
            turn.start()
        if patience:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    for turn in turns:
                        await turn.over()

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
        run, the agent is closed, what was appended stays, and the turn ends as ``"cancelled"``.

        A message that is sent again, with the same id, belongs to the same turn. If that runs, in
        this process or in another one, this run joins it; if it has ended, its stored events are
        handed on; if its process has died, or its message was stored and it never began, the agent
        is run.

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
            EventExistsError: While iterating: another event of the session has the message's id.
            TypeError: An id is no string. While iterating: the agent yields something that is no
                event.
            ValueError: An id is empty or not valid Unicode.
        """
        key = SessionKey(self._app_name, user_id, session_id or new_id())
        event = message if isinstance(message, Event) else Event(author="user", content=message)
        if _is_answer(event):
            msg = (
                f"{described(key)}: a message that only answers calls begins no turn; "
                "runner.resume() goes on with the one that waits for them"
            )
            raise ValueError(msg)
        if event.outcome:
            msg = f"a message begins a turn, and cannot end it: outcome is {event.outcome!r:.80}"
            raise ValueError(msg)
        # A message that is sent again belongs to the same turn.
        run_id = event.invocation_id or event.id
        check_run_id(run_id)
        event = msgspec.structs.replace(event, invocation_id=run_id)

        def begin() -> Turn:
            return self._begin(
                event.id, Turn(self._settings, key, run_id, event, num_recent_events)
            )

        return Run(key, run_id, begin)

    def resume(
        self,
        user_id: str,
        session_id: str,
        results: Sequence[ToolResult],
        *,
        num_recent_events: int | None = None,
    ) -> Run:
        """Go on with a turn that ended with the outcome ``"waiting"``, in any process.

        The results are stored, and the agent is run again: its ``context.message`` has them, and
        the session shows the turn so far. If other calls of the turn are open still it waits on,
        and the agent is not run. Nothing happens until the run is iterated over or started.

        Args:
            user_id: Whose session.
            session_id: The session.
            results: At least one, each for a call that the turn waits for, which answers it once.
            num_recent_events: As for :meth:`run`.

        Returns:
            The run. When it begins it raises :exc:`~agentsession.errors.CallNotOpenError` if a call
            was answered before, or no turn waits for it, and
            :exc:`~agentsession.errors.SessionBusyError` if somebody else goes on with the turn.
        """
        key = SessionKey(self._app_name, user_id, session_id)
        given = check_results(results)

        def begin() -> Turn:
            turn = Turn(self._settings, key, "", given, num_recent_events)
            return self._begin(new_id(), turn)

        return Run(key, "", begin)

    def _begin(self, message_id: str, turn: Turn) -> Turn:
        """Return the turn that is to be run, or the same one that runs already."""
        if self._closed:
            msg = f"{described(turn.key)}: the runner is closed; make a new one"
            raise RuntimeError(msg)
        place = turn.key, message_id
        running = self._turns.get(place)
        if running is not None and not running.audience.is_over:
            return running
        self._turns[place] = turn
        turn.when_over = lambda: self._ended(place, turn)
        return turn

    def _ended(self, place: tuple[SessionKey, str], turn: Turn) -> None:
        if self._turns.get(place) is turn:
            del self._turns[place]


def _is_answer(message: Event) -> bool:
    """Tell results of tools from what a user says."""
    content = message.content
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(part, ToolResult) for part in content)
    )


def _message_and_class(exc: Exception) -> EventError:
    """Describe an exception."""
    return EventError(message=str(exc) or repr(exc), type=type(exc).__qualname__)
