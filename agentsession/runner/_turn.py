"""One turn, from the lease to its outcome, in a task of its own.

The task is the runner's and not the caller's: a caller that is cancelled, or a client that goes
away, only stops reading. So what has to be stored at the end of a turn is stored whatever became of
whoever began it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentsession._pace import Pace
from agentsession._wording import brief, described
from agentsession.clock import utc_now
from agentsession.codec import check_payload
from agentsession.errors import (
    AgentSessionError,
    EventExistsError,
    EventNotFoundError,
    EventTooLargeError,
    LeaseLostError,
    SessionBusyError,
    SessionNotFoundError,
    StateValueError,
)
from agentsession.events import Event, EventError, Outcome, ToolResult, new_id
from agentsession.history import closing_results, unanswered_calls
from agentsession.runner._agent import AgentContext, name_of, started
from agentsession.runner._reading import Audience
from agentsession.runner._tracked_state import TrackedState
from agentsession.service import SessionService
from agentsession.state import is_temporary, split
from agentsession.subscriptions import Ended, Rewound

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
# How long an agent that was cancelled, or is being closed, may go on before its turn ends without
# it, in seconds: longer than it may take to close, and shorter than whoever stops it waits.
_GOING_ON: Final = 10.0
# How long another process that runs this very turn is followed before it is tried whether it lives,
# in seconds: until its lease should have ended, but no shorter or longer than that.
_SHORTEST: Final = 1.0
_LONGEST: Final = 15.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a runner runs its turns."""

    service: SessionService
    agent: object
    runnable: Callable[[AgentContext], AsyncIterator[Event]]
    describe_error: Callable[[Exception], EventError]
    lease_options: dict[str, Any]
    detaches: bool


class _Stream(msgspec.Struct):
    """Chunks that no whole event has followed yet, and where they belong in it."""

    author: str
    branch: str
    words: list[str] = []


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
        self._is_running = self._is_stopped_now = self._is_ending = False
        self._has_come_to_its_end = False
        # How many wait for it to begin.
        self.starters = 0
        self._timer: asyncio.TimerHandle | None = None
        # Up to where this very turn was followed while another process runs it.
        self._followed = 0
        # By what ties their chunks together, streams that no whole event has followed yet.
        self._streams: dict[str, _Stream] = {}
        self._task: asyncio.Task[None] | None = None
        # Ends the turn without its agent.
        self._leaving: asyncio.Task[None] | None = None
        # Why the agent is being closed before it has come to its end.
        self._failure: BaseException | None = None
        self._over = asyncio.Event()

    def start(self) -> asyncio.Task[None]:
        """Begin, once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"agentsession-turn-{self.run_id}")
            self._task.add_done_callback(self._note_over)
        return self._task

    def _note_over(self, _: asyncio.Task[None]) -> None:
        if self._leaving is None or self._leaving.done():
            self._over.set()

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to end, or would be if its end were not being stored already."""
        return self._stop is not None or (self._is_ending and not self._settings.detaches)

    async def over(self) -> None:
        """Wait until it is over; to be cancelled here does not stop it."""
        if self._task is not None:
            await self._over.wait()

    # -- stopping it

    def stop(self, why: Told = "cancelled") -> None:
        """Have it end: at once, or soon if its agent watches for that.

        Once its end is being stored, nothing can stop that any more.
        """
        if self._is_ending or self.audience.is_over:
            return
        if self._stop is None or why == "lost":
            self._stop = why
            self.audience.patient = False
            self.audience.want()
            context = self._context
            if context is not None:
                context.stopping.why = why
                if context.stopping.is_watched and why != "lost":
                    self._call_later(_GRACE, self._stop_now)
                    return
            self._stop_now()

    def _stop_now(self) -> None:
        self._is_stopped_now = True
        if self._task is not None and self._is_running and not self._is_ending:
            self._task.cancel()
            self._call_later(_GOING_ON, self._leave_agent)

    def _call_later(self, delay: float, call: Callable[[], None]) -> None:
        """Call something after so many seconds, unless the turn is ended before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, call)

    def _leave_agent(self) -> None:
        """End without an agent that was cancelled, or closed, and goes on all the same.

        One that catches all it can catch would keep the session for itself as long as its process
        lives: its lease is renewed, and nothing else ends it.
        """
        if self._context is not None:
            _logger.warning(
                "%s: the agent of run %r was to end %g seconds ago, and goes on; its turn ends "
                "without it. Whoever catches CancelledError, or BaseException, raises it again",
                described(self.key),
                self.run_id,
                _GOING_ON,
            )
            self._begin_to_end()
            leaving = self._end_without_agent(self._context)
            self._leaving = asyncio.create_task(leaving, name=f"agentsession-turn-{self.run_id}")
            self._leaving.add_done_callback(self._note_over)

    async def _end_without_agent(self, context: AgentContext) -> None:
        error = self._failure
        if self._stop is not None and not isinstance(error, Exception):
            error = LeaseLostError(self.key) if self._stop == "lost" else None
        try:
            if not self.outcome:
                await self._end(context, error)
        except BaseException as exc:  # noqa: BLE001 - readers raise it
            error = exc
        self._note_end(error)
        if isinstance(error, asyncio.CancelledError):
            raise error

    def _nobody_reads(self) -> None:
        if self._settings.detaches:
            self.audience.patient = False
        else:
            self.stop()

    # -- running it

    async def _run(self) -> None:
        error: BaseException | None = None
        self._is_running = True
        try:
            await self._to_the_end()
        except BaseException as exc:  # noqa: BLE001 - readers raise it
            error = exc
        if self._leaving is None:  # Otherwise all is done, or will be, without the agent.
            self._note_end(error)
        if isinstance(error, asyncio.CancelledError):
            raise error

    def _note_end(self, error: BaseException | None) -> None:
        """Let go of the lease, and tell the readers and the runner."""
        if self._timer is not None:
            self._timer.cancel()
        if self._lease is not None:
            # If it is held still, the end could not be stored.
            self._lease.abandon()
        self._failure = None  # Whose traceback holds all of this.
        self.begun.set()
        self.audience.end(error)
        self.when_over()

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
        if self._stop is not None:
            context.stopping.why = self._stop
        error: BaseException | None = None
        try:
            await self._drive(context)
        except asyncio.CancelledError as exc:
            error = self._explained(exc)
        except BaseException as exc:  # noqa: BLE001 - it comes out at the end
            error = exc
        if self._leaving is not None:
            return  # The agent was left before.
        self._begin_to_end()
        if self._is_stopped_now and _is_cancelled():
            # It came to its end in the very moment in which it was cancelled.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            _uncancel()
        if not self.outcome:
            await self._end(context, error)
        if error is not None:
            raise error

    def _explained(self, exc: asyncio.CancelledError) -> BaseException | None:
        """Tell why the agent was cancelled: ``None`` if its turn was stopped."""
        if self._stop is not None:
            _uncancel()
            return LeaseLostError(self.key) if self._stop == "lost" else None
        if _is_cancelled():
            return exc  # The loop ends, or whoever cancels tasks of others has done so.
        msg = "the agent raised CancelledError, and nobody had cancelled its turn"
        failure = RuntimeError(msg)
        failure.__cause__ = exc
        return failure

    def _begin_to_end(self) -> None:
        """From now on the turn is only ended: nothing stops that, and it waits for no reader."""
        self._is_ending = True
        self.audience.patient = False
        if self._timer is not None:
            self._timer.cancel()

    async def _end(self, context: AgentContext, error: BaseException | None) -> None:
        """Store how the turn ended."""
        if isinstance(error, LeaseLostError):
            self._lost()
        elif isinstance(error, Exception):
            await self._failed(context, error)
        elif error is not None or self._stop is not None:
            await self._close(context, error)
        else:
            try:
                await self._complete(context)
            except LeaseLostError:
                self._lost()
                raise
            except Exception as exc:
                await self._failed(context, exc)
                raise

    async def _drive(self, context: AgentContext) -> None:
        """Run the agent, and store and hand on what it yields."""
        async with aclosing(started(self._settings.runnable, context)) as events:
            try:
                await self._take(context, events)
            except BaseException as exc:
                self._failure = exc
                raise
            finally:
                # From here on it is only closed. If it was cancelled, it has its time already.
                if self._leaving is None and not self._is_stopped_now:
                    self._call_later(_GOING_ON, self._leave_agent)

    async def _take(self, context: AgentContext, events: AsyncIterator[Event]) -> None:
        """Take what the agent yields, up to the end of the turn."""
        pace = Pace()
        async for event in events:
            # An agent that never waits would hold the loop: nobody could even cancel it.
            if pace.due():
                await pace.rest()
            if self._is_stopped_now:
                return  # It has caught its cancellation, and goes on.
            kept = await self._keep(context, event)
            if event.outcome:
                self.outcome = event.outcome
                self._begin_to_end()
            await self.audience.hand_on(kept)
            if event.outcome:
                return
        self._has_come_to_its_end = True

    # -- how it begins

    async def _begin(self) -> TurnStart | None:
        """Take the lease and store the message; ``None`` if the agent is not to be run."""
        lease = None
        try:
            while self._stop is None:
                lease = self._service.lease(
                    self.key, run_id=self.run_id or None, **self._settings.lease_options
                )
                try:
                    start = await self._start(lease)
                except (SessionBusyError, LeaseLostError) as exc:
                    if await self._is_over_elsewhere(exc):
                        return None
                    continue
                self._lease, self.run_id = lease, lease.run_id
                self._note_begun()
                if not await self._is_to_run(start, lease):
                    return None
                lease.when_told(self.stop)
                return start
        except asyncio.CancelledError:
            if self._stop is None:
                raise
            _uncancel()
            self._begin_to_end()
            if lease is not None:
                await lease.release()  # Which ends what has begun.
        if not self._followed:  # What another process runs goes on.
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
        if isinstance(self._message, list):
            if start.message.outcome:  # Results of some calls, and others are open still.
                self._begin_to_end()
                await self._pass_on(start.message)
            return not start.message.outcome
        if not start.is_repeat:
            return True
        if start.message.invocation_id != self.run_id:
            await lease.release()
            raise EventExistsError(self.key, start.message.id)
        stored = await self._stored(start.message.seq)
        if not _has_ended(stored):
            return True
        self._begin_to_end()
        await lease.release()
        for event in stored:
            if event.seq > self._followed:
                await self._pass_on(event)
        return False

    async def _is_over_elsewhere(self, refusal: SessionBusyError | LeaseLostError) -> bool:
        """Tell whether this very turn has ended, where it cannot begin; if so, hand it on.

        If it runs in another process it is followed for a while.

        Raises:
            SessionBusyError: It neither has ended nor runs.
            LeaseLostError: As above.
        """
        if isinstance(self._message, list):
            raise refusal
        if not self._followed:
            try:
                found = await self._service.get_events(self.key, around=self._message.id, limit=1)
            except EventNotFoundError:
                raise refusal from None
            self._followed = found[0].seq
        busy = refusal if isinstance(refusal, SessionBusyError) else None
        runs = busy is not None and busy.run_id == self.run_id
        if not runs and not _has_ended(await self._stored(self._followed)):
            raise refusal
        self._note_begun()
        # Of what is stored already only the last end counts: a turn that waited may have gone on.
        for event in await self._stored(self._followed):
            self._followed = event.seq
            await self._pass_on(event)
        if self._has_final_outcome():
            return True
        # Its lease is renewed as long as its process lives.
        ends_at = (busy and busy.ends_at) or utc_now()
        patience = min(max((ends_at - utc_now()).total_seconds(), _SHORTEST), _LONGEST)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._follow()
        return self._has_final_outcome()

    def _has_final_outcome(self) -> bool:
        return self.outcome in _FINAL

    async def _follow(self) -> None:
        """Hand on what another process stores of this turn from now on, and its chunks.

        Raises:
            SessionNotFoundError: The session was deleted meanwhile.
        """
        async with self._service.subscribe(self.key, after_seq=self._followed) as items:
            async for item in items:
                match item:
                    case Event(invocation_id=run_id, partial=True) if run_id == self.run_id:
                        await self.audience.hand_on(item)
                    case Event(partial=False):
                        self._followed = item.seq
                        if item.invocation_id == self.run_id:
                            await self._pass_on(item)
                        if self.outcome:
                            return
                    case Rewound():
                        return
                    case Ended():
                        raise SessionNotFoundError(self.key, item.reason == "replaced")
                    case _:
                        pass

    async def _stored(self, after_seq: int) -> list[Event]:
        """Read what the turn has stored after a position."""
        found: list[Event] = []
        while True:
            page = await self._service.get_events(self.key, after_seq=after_seq, limit=1000)
            found += [event for event in page if event.invocation_id == self.run_id]
            if len(page) < 1000:
                return found
            after_seq = page[-1].seq

    async def _pass_on(self, event: Event) -> None:
        """Hand on an event that the turn has stored before, but not one that only ends it."""
        self.outcome = event.outcome
        if event.content or event.error or not event.outcome:
            await self.audience.hand_on(event)

    # -- what the agent yields

    async def _keep(self, context: AgentContext, event: Event) -> Event:
        """Append a whole event, with the turn's id and the state that the agent changed."""
        if not isinstance(event, Event):
            kind = type(event).__qualname__
            msg = f"an agent yields agentsession.Event objects, not {kind}: {event!r:.80}"
            raise TypeError(msg)
        if not event.invocation_id:
            event = msgspec.structs.replace(event, invocation_id=self.run_id)
        if event.outcome:
            self._check_end(context, event)
        if event.partial:
            check_payload(event)
        ended = [] if event.partial else self._ended_by(event)
        event = self._of_stream(event)
        if event.partial:
            return await self._service.append_event(self.key, event)
        changes, newest = context.state.take_changes(), context.session.last_seq
        try:
            if changes:
                event = msgspec.structs.replace(event, state_delta=changes | event.state_delta)
            stored = await self._append(context, event)
        except Exception:
            context.state.put_back(changes)
            raise
        self._end_streams(ended)
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

    def _of_stream(self, event: Event) -> Event:
        """Tie chunks to the whole event that takes their place, by an id that all of them have.

        Where an event has none, its stream is the newest one of its author and branch.
        """
        stream_id = event.stream_id or next(reversed(self._streams_beside(event)), "")
        if event.partial:
            stream_id = stream_id or new_id()
            if stream_id not in self._streams:
                self._streams[stream_id] = _Stream(event.author, event.branch)
            self._streams[stream_id].words.append(event.text)
        if stream_id == event.stream_id:
            return event
        return msgspec.structs.replace(event, stream_id=stream_id)

    def _ended_by(self, event: Event) -> list[str]:
        """Return which streams a whole event ends: its own, or all of its author and branch."""
        own = event.stream_id
        return [own] if own in self._streams else self._streams_beside(event)

    def _streams_beside(self, event: Event) -> list[str]:
        """Return the streams of an event's author and branch."""
        return [
            stream_id
            for stream_id, stream in self._streams.items()
            if (stream.author, stream.branch) == (event.author, event.branch)
        ]

    def _end_streams(self, ended: Sequence[str]) -> None:
        for stream_id in ended:
            self._streams.pop(stream_id, None)

    async def _append(self, context: AgentContext, event: Event) -> Event:
        return await self._service.append_event(context.session, event, lease=self._lease)

    def _check_end(self, context: AgentContext, event: Event) -> None:
        """Check that an agent may end its turn as it says."""
        if event.outcome not in _OWN_ENDS:
            known = ", ".join(map(repr, _OWN_ENDS))
            msg = f"an agent ends its turn with one of {known}, not with {event.outcome!r:.80}"
            raise ValueError(msg)
        if event.partial:
            msg = (
                "a chunk of a stream ends no turn, since it is not stored; end it by a whole event"
            )
            raise ValueError(msg)
        if event.invocation_id != self.run_id:
            msg = f"an event of another turn, {event.invocation_id!r:.80}, does not end this one"
            raise ValueError(msg)
        own = self._events(context)
        if any(each.id == event.id for each in own):
            msg = f"event {event.id!r:.80} is stored already, so that it cannot end the turn"
            raise ValueError(msg)
        if event.outcome == "waiting" and not unanswered_calls([*own, event]):
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
        if any("".join(stream.words) for stream in self._streams.values()):
            _logger.warning(
                "%s: run %r has handed on chunks that no whole event has followed, so their words "
                "are not stored; an agent that streams yields its whole answer after the chunks",
                described(self.key),
                self.run_id,
            )
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

    async def _close(self, context: AgentContext, error: BaseException | None) -> None:
        """Store the end of a turn that was stopped.

        Its open calls get results, and the words that were streamed so far become an event. State
        that no event has carried yet is dropped, unless the agent has come to its end by itself: it
        belongs to an event that never came.
        """
        outcome = _outcome_of(self._stop) if error is None or self._stop is not None else "failed"
        if isinstance(error, asyncio.CancelledError):
            outcome = "cancelled"
        try:
            # What was being appended when the turn was stopped may be stored, unknown to us.
            newer = await self._stored(context.session.last_seq)
            for event in newer:
                self._end_streams(self._ended_by(event))
            if not _has_ended(newer):
                newer += await self._store_end(context, newer, outcome)
        except LeaseLostError:
            self._lost()
        except (AgentSessionError, TypeError, ValueError) as exc:
            who = described(self.key)
            _logger.warning("%s: run %r could not be ended: %s", who, self.run_id, exc)
        else:
            for event in newer:
                await self._pass_on(event)

    async def _store_end(
        self, context: AgentContext, newer: Sequence[Event], outcome: Outcome
    ) -> list[Event]:
        """Store the events that end a turn which was stopped; without its words if need be."""
        results = self._closing([*self._events(context), *newer])
        changes = context.state.take_changes() if self._has_come_to_its_end else {}
        for words in (self._words(), []):
            ending = [*results, *words] or [Event(author=self._name)]
            ending[-1] = msgspec.structs.replace(ending[-1], outcome=outcome, state_delta=changes)
            try:
                return await self._service.append_events(context.session, ending, lease=self._lease)
            except (TypeError, ValueError):
                if not words:
                    raise
                changes = {}
        raise AssertionError  # The second one either returns or raises.

    @staticmethod
    def _closing(events: Sequence[Event]) -> list[Event]:
        """Make an event with results for the calls that nothing answers, if there are any."""
        results = closing_results(events)
        return [Event(author="tool", content=[*results])] if results else []

    def _words(self) -> list[Event]:
        """Make events of the words that were streamed, and that no whole event has followed."""
        said: list[Event] = []
        # A character takes up to six bytes, and there is the rest of the event.
        most = max(1, self._service.max_event_size // 8)
        for stream_id, stream in self._streams.items():
            words = "".join(stream.words)
            for start in range(0, len(words), most):
                piece = words[start : start + most]
                said.append(
                    Event(
                        author=stream.author,
                        branch=stream.branch,
                        content=piece,
                        stream_id=stream_id,
                    )
                )
        self._streams.clear()
        return said

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
            for event in self._closing(self._events(context)):
                await self._append_and_hand_on(context, event)
            with suppress(TypeError, ValueError):
                for event in self._words():
                    await self._append_and_hand_on(context, event)
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
        except BaseException as failure:  # noqa: BLE001 - whatever it is, the agent's own comes out
            exc.add_note(f"agentsession: describe_error raised {brief(failure)} for this error")
            return _UNDESCRIBED
        if not isinstance(error, EventError):
            kind = type(error).__qualname__
            exc.add_note(f"agentsession: describe_error returned a {kind}, not an EventError")
            return _UNDESCRIBED
        return error


def _nothing() -> None:
    pass


def _has_ended(events: Sequence[Event]) -> bool:
    """Tell whether a turn has ended, and not only been left by its process, by its events."""
    outcomes = [event.outcome for event in events if event.outcome]
    return bool(outcomes) and outcomes[-1] in _FINAL and outcomes[-1] == events[-1].outcome


def _outcome_of(why: Told | None) -> Outcome:
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
