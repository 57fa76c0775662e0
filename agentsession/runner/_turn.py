"""One turn, from the lease to its outcome, in a task of its own.

The task is the runner's and not the caller's: a caller that is cancelled, or a client that goes
away, only stops reading. So what has to be stored at the end of a turn is stored whatever became of
whoever began it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentsession._pace import Pace
from agentsession._wording import brief, described
from agentsession.errors import (
    AgentSessionError,
    EventNotFoundError,
    EventTooLargeError,
    LeaseLostError,
    SessionBusyError,
    StateValueError,
)
from agentsession.events import Event, EventError, Outcome, ToolResult
from agentsession.history import closing_results, unanswered_calls
from agentsession.runner._agent import AgentContext, name_of, started
from agentsession.runner._reading import Audience
from agentsession.runner._tracked_state import TrackedState
from agentsession.service import SessionService
from agentsession.state import is_temporary, split

if TYPE_CHECKING:
    from agentsession.leases import Lease, Told, TurnStart
    from agentsession.sessions import SessionKey

__all__ = ["Settings", "Turn"]

_logger = logging.getLogger("agentsession.runner")

_ABSENT: Final = object()
_UNDESCRIBED: Final = EventError(message="the agent failed, and its error could not be described")
# How an agent may end its turn itself, by the event that it yields.
_OWN_ENDS: Final = ("completed", "failed", "waiting")
# A turn of this message that has one of these ends is not run again.
_FINAL: Final = ("completed", "failed", "cancelled", "interrupted", "waiting")
# How long an agent that watches for it may take to end by itself, in seconds.
_GRACE: Final = 3.0
# How often the log is looked at while another process runs this very turn, in seconds.
_LOOK_AGAIN: Final = 0.25
# After so many looks it is tried whether that process lives.
_LOOKS: Final = 4


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a runner runs its turns."""

    service: SessionService
    agent: object
    runnable: Callable[[AgentContext], AsyncIterator[Event]]
    describe_error: Callable[[Exception], EventError]
    lease_options: dict[str, Any]
    detaches: bool


class Turn:
    """One turn of an agent.

    Args:
        settings: How the runner runs its turns.
        key: The session.
        run_id: The turn.
        message: What begins it, or the results of calls with which it goes on.
        num_recent_events: The most events to load.

    Attributes:
        outcome: How it ended; ``""`` as long as it has not, or if it never began.
        audience: Who reads it.
        begun: Set when its message is stored, or when it is over.
        has_begun: Whether its message is stored.
        when_over: Called when it is over.
    """

    def __init__(
        self,
        settings: Settings,
        key: SessionKey,
        run_id: str,
        message: Event | list[ToolResult],
        num_recent_events: int | None,
    ) -> None:
        self.key = key
        self.run_id = run_id
        self.outcome: Outcome = ""
        self.audience = Audience(self._nobody_reads)
        self.begun = asyncio.Event()
        self.has_begun = False
        self.when_over: Callable[[], None] = _nothing
        self._settings = settings
        self._service = settings.service
        self._message = message
        self._num_recent_events = num_recent_events
        self._lease: Lease | None = None
        self._context: AgentContext | None = None
        self._stop: Told | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None
        # Up to where this very turn was followed while another process runs it.
        self._followed = 0
        # By author and branch, the words of chunks that no whole event has followed yet.
        self._chunks: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin, once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"agentsession-turn-{self.run_id}")
        return self._task

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to end."""
        return self._stop is not None

    async def over(self) -> None:
        """Wait until it is over; to be cancelled here does not stop it."""
        if self._task is not None:
            await asyncio.wait([self._task])

    # -- stopping it

    def stop(self, why: Told = "cancelled") -> None:
        """Have it end: at once, or soon if its agent watches for that."""
        if self._task is None or self.audience.is_over or self._stop is not None:
            if why == "lost" and self._task is not None:
                self._stop = why
                self._task.cancel()
            return
        self._stop = why
        context = self._context
        if context is not None:
            context.stopping.why = why
            if context.stopping.is_watched and why != "lost":
                self.audience.patient = False
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(_GRACE, self._task.cancel)
                return
        self._task.cancel()

    def _nobody_reads(self) -> None:
        if self._settings.detaches:
            self.audience.patient = False
        else:
            self.stop()

    # -- running it

    async def _run(self) -> None:
        error: BaseException | None = None
        try:
            await self._to_the_end()
        except BaseException as exc:  # noqa: BLE001 - readers raise it
            error = exc
        finally:
            for each in (self._timer, self._watching):
                if each is not None:
                    each.cancel()
            if self._lease is not None:
                # If it is held still, the end could not be stored.
                self._lease.abandon()
            self.begun.set()
            self.audience.end(error)
            self.when_over()
        if isinstance(error, asyncio.CancelledError):
            raise error

    async def _to_the_end(self) -> None:
        start = await self._begin()
        if start is None:
            return
        session = start.session
        self._context = context = AgentContext(
            session=session,
            message=start.message,
            invocation_id=self.run_id,
            state=TrackedState(session),
        )
        try:
            await self._drive(context)
        except asyncio.CancelledError as exc:
            await self._cancelled(context, exc)
        except LeaseLostError:
            self._lost()
            raise
        except Exception as exc:
            await self._failed(context, exc)
            raise
        except BaseException:
            await self._close(context, "failed")
            raise

    async def _drive(self, context: AgentContext) -> None:
        """Run the agent, and store and hand on what it yields."""
        pace = Pace()
        async with aclosing(started(self._settings.runnable, context)) as events:
            async for event in events:
                # An agent that never waits would hold the loop: nobody could even cancel it.
                if pace.due():
                    await pace.rest()
                kept = await self._keep(context, event)
                await self.audience.hand_on(kept)
                if kept.outcome:
                    self.outcome = kept.outcome
                    return
        if self._stop is not None:
            await self._close(context, _outcome_of(self._stop))
            return
        await self._complete(context)

    # -- how it begins

    async def _begin(self) -> TurnStart | None:
        """Take the lease and store the message; ``None`` if the agent is not to be run."""
        try:
            while True:
                lease = self._service.lease(
                    self.key, run_id=self.run_id or None, **self._settings.lease_options
                )
                try:
                    start = await self._start(lease)
                except SessionBusyError as exc:
                    if exc.run_id != self.run_id or isinstance(self._message, list):
                        raise
                    if await self._follow(self._message):
                        return None
                    continue
                self._lease, self.run_id = lease, lease.run_id
                self._note_begun()
                if not await self._is_to_run(start, lease):
                    return None
                self._watching = asyncio.create_task(self._watch(lease))
                return start
        except asyncio.CancelledError:
            if self._stop is None:
                raise
            _uncancel()
            self.outcome = "cancelled"
            return None

    def _note_begun(self) -> None:
        self.has_begun = True
        self.begun.set()

    async def _start(self, lease: Lease) -> TurnStart:
        most = self._num_recent_events
        if isinstance(self._message, list):
            return await self._service.resume_turn(lease, self._message, num_recent_events=most)
        return await self._service.begin_turn(lease, self._message, num_recent_events=most)

    async def _is_to_run(self, start: TurnStart, lease: Lease) -> bool:
        """Tell whether the agent has to run; if the turn ended before, hand on what it stored."""
        if start.message.outcome:  # Results of some calls, and others are open still.
            self.outcome = start.message.outcome
            await self.audience.hand_on(start.message)
            return False
        if not start.is_repeat or isinstance(self._message, list):
            return True
        stored = await self._stored(start.message.seq)
        outcomes = [event.outcome for event in stored if event.outcome]
        if not outcomes or outcomes[-1] not in _FINAL:
            return True
        await lease.release()
        for event in stored:
            await self._pass_on(event)
        return False

    async def _stored(self, after_seq: int) -> list[Event]:
        """Read what the turn has stored after a position."""
        found: list[Event] = []
        while True:
            page = await self._service.get_events(self.key, after_seq=after_seq, limit=1000)
            found += [event for event in page if event.invocation_id == self.run_id]
            if len(page) < 1000:
                return found
            after_seq = page[-1].seq

    async def _follow(self, message: Event) -> bool:
        """Hand on what another process stores for this very turn, for a while.

        Returns:
            Whether it has ended.
        """
        with suppress(EventNotFoundError):
            if not self._followed:
                (stored,) = await self._service.get_events(self.key, around=message.id, limit=1)
                self._followed = stored.seq
                self._note_begun()
            for _ in range(_LOOKS):
                for event in await self._stored(self._followed):
                    self._followed = event.seq
                    await self._pass_on(event)
                if self.outcome in _FINAL:
                    return True
                await asyncio.sleep(_LOOK_AGAIN)
            return False
        # Another message of this turn is being answered.
        await asyncio.sleep(_LOOK_AGAIN)
        return False

    async def _pass_on(self, event: Event) -> None:
        """Hand on an event that the turn has stored before, but not one that only ends it."""
        if event.outcome:
            self.outcome = event.outcome
        if event.content or event.error or not event.outcome:
            await self.audience.hand_on(event)

    async def _watch(self, lease: Lease) -> None:
        self.stop(await lease.wait_until_told())

    # -- what the agent yields

    async def _keep(self, context: AgentContext, event: Event) -> Event:
        """Append a whole event, with the turn's id and the state that the agent changed."""
        if not isinstance(event, Event):
            kind = type(event).__qualname__
            msg = f"an agent yields agentsession.Event objects, not {kind}: {event!r:.80}"
            raise TypeError(msg)
        if not event.invocation_id:
            event = msgspec.structs.replace(event, invocation_id=self.run_id)
        if event.partial:
            self._chunks[event.author, event.branch].append(event.text)
            return event
        if event.outcome:
            self._check_end(context, event)
        changes, newest = context.state.take_changes(), context.session.last_seq
        try:
            if changes:
                event = msgspec.structs.replace(event, state_delta=changes | event.state_delta)
            stored = await self._append(context, event)
        except Exception:
            context.state.put_back(changes)
            raise
        self._chunks.pop((event.author, event.branch), None)
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

    async def _append(self, context: AgentContext, event: Event) -> Event:
        return await self._service.append_event(context.session, event, lease=self._lease)

    def _check_end(self, context: AgentContext, event: Event) -> None:
        """Check that an agent may end its turn as it says."""
        if event.outcome not in _OWN_ENDS:
            known = ", ".join(map(repr, _OWN_ENDS))
            msg = f"an agent ends its turn with one of {known}, not with {event.outcome!r:.80}"
            raise ValueError(msg)
        if event.outcome == "waiting":
            events = [*self._events(context), event]
            if not unanswered_calls(events):
                msg = "a turn waits for results of calls, and none of its calls is open"
                raise ValueError(msg)

    def _events(self, context: AgentContext) -> list[Event]:
        """Return the turn's own events, as far as the agent's session has them."""
        return [each for each in context.session.events if each.invocation_id == self.run_id]

    async def _keep_changes(self, context: AgentContext) -> None:
        """Store the state that the agent changed and no event carried."""
        changes = context.state.take_changes()
        if not changes:
            return
        try:
            await self._service.update_session_state(context.session, changes, lease=self._lease)
        except Exception:
            context.state.put_back(changes)
            raise

    # -- how it ends

    async def _complete(self, context: AgentContext) -> None:
        """Store that the agent has come to its end, with the state that no event carried."""
        end = Event(author=self._name, invocation_id=self.run_id, outcome="completed")
        try:
            await self._keep(context, end)
        except EventTooLargeError:
            await self._keep_changes(context)
            await self._keep(context, end)
        self.outcome = "completed"

    @property
    def _name(self) -> str:
        return name_of(self._settings.agent)

    async def _cancelled(self, context: AgentContext, exc: asyncio.CancelledError) -> None:
        """End the turn after a cancellation, whoever has made it."""
        if self._stop is None and not _is_cancelled():
            msg = "the agent raised CancelledError, and nobody had cancelled its turn"
            failure = RuntimeError(msg)
            failure.__cause__ = exc
            await self._failed(context, failure)
            raise failure
        why = self._stop
        if why is not None:
            _uncancel()
        if why == "lost":
            self._lost()
            raise LeaseLostError(self.key)
        await self._close(context, "cancelled" if why is None else why)
        if why is None:
            raise exc

    async def _close(self, context: AgentContext, outcome: Outcome) -> None:
        """Store the end of a turn that was stopped.

        Its open calls get results, and the words that were streamed so far become an event. State
        that no event has carried yet is dropped: it belongs to an event that never came.
        """
        self.audience.patient = False
        try:
            # What was being appended when the turn was stopped may be stored, unknown to us.
            newer = await self._stored(context.session.last_seq)
            stored = await self._service.append_events(
                context.session, self._ending(context, newer, outcome), lease=self._lease
            )
        except LeaseLostError:
            self._lost()
        except (AgentSessionError, ValueError) as exc:
            _logger.warning(
                "%s: run %r could not be ended: %s", described(self.key), self.run_id, exc
            )
        else:
            self.outcome = outcome
            for event in [*newer, *stored]:
                await self._pass_on(event)

    def _ending(
        self, context: AgentContext, newer: Sequence[Event], outcome: Outcome
    ) -> list[Event]:
        """Make the events that end a turn which was stopped."""
        for event in newer:
            self._chunks.pop((event.author, event.branch), None)
        results = closing_results([*self._events(context), *newer])
        ending = [Event(author="tool", content=[*results])] if results else []
        ending += [
            Event(author=author, branch=branch, content="".join(words))
            for (author, branch), words in self._chunks.items()
            if any(words)
        ]
        if not ending:
            ending.append(Event(author=self._name))
        ending[-1] = msgspec.structs.replace(ending[-1], outcome=outcome)
        return ending

    def _lost(self) -> None:
        """Note what becomes of a turn whose lease is lost: whoever comes next closes it."""
        told = None if self._lease is None else self._lease.told
        self.outcome = "interrupted" if "interrupted" in (told, self._stop) else "abandoned"

    async def _failed(self, context: AgentContext, exc: Exception) -> None:
        """Append the event of an exception, with the state that no event carried.

        Whatever goes wrong with that becomes a note of the exception, which is the one to come out.
        """
        described = Event(
            author=self._name,
            error=self._described(exc),
            outcome="failed",
        )
        refusal: Exception | None = None
        _drop_unstorable(context, self._service.max_value_size, exc)
        try:
            results = closing_results(self._events(context))
            if results:
                await self._append_and_hand_on(context, Event(author="tool", content=[*results]))
            # If the event is too large together with the changes, these are stored before it.
            for event in (described, described):
                try:
                    await self._end_with(context, event)
                except (TypeError, ValueError) as failure:
                    refusal = failure
                else:
                    return
                await self._keep_changes(context)
            exc.add_note(f"agentsession could not store how this error was described: {refusal}")
            await self._end_with(
                context, msgspec.structs.replace(described, author="agent", error=_UNDESCRIBED)
            )
        except (AgentSessionError, TypeError, ValueError) as failure:
            exc.add_note(f"agentsession could not store the event of this error: {failure}")

    async def _end_with(self, context: AgentContext, event: Event) -> None:
        stored = await self._keep(context, event)
        self.outcome = event.outcome
        await self.audience.hand_on(stored)

    async def _append_and_hand_on(self, context: AgentContext, event: Event) -> None:
        await self.audience.hand_on(await self._append(context, event))

    def _described(self, exc: Exception) -> EventError:
        """Describe an exception as the application wishes, or not at all if that fails."""
        try:
            error = self._settings.describe_error(exc)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the agent's own comes out
            exc.add_note(f"agentsession: describe_error raised {brief(failure)} for this error")
            return _UNDESCRIBED
        if not isinstance(error, EventError):
            kind = type(error).__qualname__
            exc.add_note(f"agentsession: describe_error returned a {kind}, not an EventError")
            return _UNDESCRIBED
        return error


def _nothing() -> None:
    pass


def _outcome_of(why: Told) -> Outcome:
    return "interrupted" if why == "interrupted" else "cancelled"


def _is_cancelled() -> bool:
    """Tell whether somebody has cancelled this task, and not only raised the exception."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _uncancel() -> None:
    """Go on after a cancellation that was ours."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _drop_unstorable(context: AgentContext, max_value_size: int, exc: Exception) -> None:
    """Lose each change that could never be stored, so that the others can be."""
    changes = context.state.take_changes()
    for name, value in list(changes.items()):
        try:
            split({name: value}, max_value_size)
        except StateValueError as refused:
            del changes[name]
            if refused.args != getattr(exc, "args", ()):
                exc.add_note(f"agentsession lost a change to state: {refused}")
    context.state.put_back(changes)
