"""A run, as whoever began it holds it."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, Final, NoReturn, Self

import anyio

from agentsession._misuse import AsyncContext
from agentsession._wording import described
from agentsession.events import Event
from agentsession.runner._reading import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsession.events import Outcome
    from agentsession.runner._turn import Turn
    from agentsession.sessions import SessionKey

__all__ = ["Run"]

_ITERATE: Final = "'async for event in runner.run(...)'"
# How long whoever leaves waits for the end of the turn, in seconds: longer than an agent may take
# to close, and its last events to be stored.
_LEAVING: Final = 15.0


class Run(AsyncIterable[Event], AsyncContext):
    """One turn of an agent: iterate over it to run the turn and get its events.

    ``async for event in runner.run(...)`` is the short form: the turn goes on as its events are
    taken, and ends when its reader goes: when it is cancelled, closed, or forgotten. To leave the
    loop early ends the turn at once only if the run is closed: ``async with runner.run(...) as
    run``. With ``on_disconnect="detach"`` the turn goes on to its end without its reader.

    After :meth:`start` the turn goes on by itself, and any number of readers come and go, each with
    ``async for event in run``. When the last one has gone, the turn is cancelled, or goes on, as
    ``on_disconnect`` says.

    The events are those of the turn after its message: whole ones as they were stored, chunks of
    streams as the agent yielded them. The event that ends the turn is among them if it says
    anything but that.

    Attributes:
        key: The session, with its id, also if it was generated.
    """

    # Whether it is complete and nobody has begun it yet.
    _idle = False

    def __init__(self, key: SessionKey, run_id: str, begin: Callable[[], Turn]) -> None:
        self.key = key
        self._id = run_id
        self._begin = begin
        self._turn: Turn | None = None
        self._own: Reader | None = None
        self._started = False
        self._is_cancelled = False
        self._idle = True

    def __del__(self) -> None:
        if self._idle:
            msg = f"{described(self.key)}: a turn never began; write {_ITERATE}"
            warnings.warn(msg, RuntimeWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        state = "new" if self._turn is None else self.outcome or "running"
        return f"<{type(self).__name__} {state} id={self.id!r} of {self.key!r}>"

    if not TYPE_CHECKING:  # As in agentsession._misuse.

        def __await__(self) -> NoReturn:
            self._idle = False
            msg = f"a run is neither awaited nor looped over with a plain 'for'; write {_ITERATE}"
            raise TypeError(msg)

        __iter__ = __await__

    @property
    def id(self) -> str:
        """The turn, which is the ``invocation_id`` of its events.

        Of a run that :meth:`~agentsession.Runner.resume` has made it is known once the run has
        begun; ``""`` before.
        """
        return self._id if self._turn is None else self._turn.run_id

    @property
    def session_id(self) -> str:
        """The session's id, also if it was generated."""
        return self.key.session_id

    @property
    def outcome(self) -> Outcome:
        """How the turn ended; ``""`` as long as it has not, and if it never began."""
        return "" if self._turn is None else self._turn.outcome

    # -- reading

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.read() if self._started else self

    async def __anext__(self) -> Event:
        if self._own is None:
            turn = self._beginning()
            self._own = Reader(turn.audience.enter())
            turn.start()
        return await self._own.read(self._wait_for_the_end)

    def read(self) -> Reader:
        """Read the events of a run that was started, from the beginning of the turn."""
        self._check_started()
        return Reader(self._beginning().audience.enter())

    def _beginning(self) -> Turn:
        self._idle = False
        if self._turn is None:
            if self._is_cancelled:
                raise self._cancelled_before()
            self._turn = self._begin()
        return self._turn

    def _cancelled_before(self) -> RuntimeError:
        return RuntimeError(f"{described(self.key)}: the run was cancelled before it began")

    def _check_started(self) -> None:
        if not self._started:
            msg = f"{described(self.key)}: the run was not started; write 'await run.start()' first"
            raise RuntimeError(msg)

    # -- a life of its own

    async def start(self) -> Self:
        """Let the turn go on by itself, and return once its message is stored.

        May be called again. While another turn has the session this waits, as ``when_busy`` says.
        If all who wait here are cancelled, the turn does not begin.

        Raises:
            SessionBusyError: Another turn has the session; nothing was stored.
            OutcomeUnknownError: As for :meth:`~agentsession.SessionService.begin_turn`.
            RuntimeError: The run was cancelled meanwhile. If its message was stored by then, the
                log has it with the end of a turn that was cancelled.
        """
        turn = self._beginning()
        self._started = True
        turn.audience.patient = False
        turn.audience.want()
        turn.starters += 1
        turn.start()
        try:
            await turn.begun.wait()
        except BaseException:
            if turn.starters == 1 and not turn.has_begun:
                turn.stop()
            raise
        finally:
            turn.starters -= 1
        if not turn.has_begun:
            turn.audience.raise_error()
            raise self._cancelled_before()
        return self

    async def result(self) -> list[Event]:
        """Wait for the end of the turn, and return its whole events; begin it if need be.

        To be cancelled here does not stop a turn that was started; one that was not is cancelled.

        Raises:
            Exception: What the turn ended with, the agent's or the store's.
        """
        if not self._started and self._own is None:
            return [event async for event in self if not event.partial]
        turn = self._beginning()
        turn.audience.patient = False
        turn.audience.want()
        turn.audience.waiting += 1
        try:
            await turn.over()
        finally:
            turn.audience.waiting -= 1
        turn.audience.raise_error()
        return turn.audience.whole_events

    async def cancel(self) -> None:
        """Have the turn stopped, and wait for its end; its outcome is ``"cancelled"`` then.

        An agent that looks at ``context.cancelled`` may end by itself first. Nothing happens if the
        turn is over; one that has not begun never will.
        """
        self._idle = False
        self._is_cancelled = True
        if self._turn is not None:
            self._turn.stop()
            await self._turn.over()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading; a turn that was not started, and is not to be detached, ends with that."""
        self._idle = False
        if self._own is not None:
            await self._own.aclose()
            await self._wait_for_the_end()

    async def _wait_for_the_end(self) -> None:
        """Wait for the end of a turn that was stopped since its reader has gone."""
        turn = self._turn
        if turn is not None and turn.is_stopped:
            with anyio.move_on_after(_LEAVING, shield=True):
                await turn.over()
