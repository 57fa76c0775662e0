"""Streams of AG-UI: of a run from its beginning, and of a thread for a client that joins."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ag_ui.core import (
    PROTOCOL_VERSION,
    BaseEvent,
    Interrupt,
    MessagesSnapshotEvent,
    ReasoningMessage,
    RunErrorEvent,
    RunFinishedCancelledOutcome,
    RunFinishedEvent,
    RunFinishedInterruptOutcome,
    RunFinishedSuccessOutcome,
    RunStartedEvent,
    StateSnapshotEvent,
)
from ag_ui.encoder import EventEncoder

from agentsession.events import EventError
from agentsession.fastapi._streams import Endings, on_one_line
from agentsession.ui._agui.events import Resync, Translator
from agentsession.ui._agui.messages import to_messages
from agentsession.ui._agui.state import SharedState
from agentsession.ui._turns import all_events, is_message_of, open_calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from ag_ui.core import RunAgentInput

    from agentsession.events import Event, ToolCall
    from agentsession.fastapi._problems import Problem
    from agentsession.fastapi._streams import Frames
    from agentsession.service import SessionService
    from agentsession.sessions import Session, SessionKey
    from agentsession.ui._turns import FollowedTurn, Turn

__all__ = ["ENDINGS", "BegunTurn", "frames_of", "run_events", "thread_events"]

_encoder: Final = EventEncoder()

# By which a client knows that a snapshot has all activities too.
_ALL_ACTIVITIES: Final = {"@ag-ui/client": {"authoritativeActivityTypes": None}}


class BegunTurn(NamedTuple):
    """A turn that is to be streamed.

    Attributes:
        turn: What is read of it.
        run_id: Its id in the log.
        thread: The session.
        input: What the client asked for.
        before: Events of it that the client gets with all messages.
        sends_messages: Whether the client gets all messages first.
    """

    turn: Turn
    run_id: str
    thread: SessionKey
    input: RunAgentInput
    before: Sequence[Event] = ()
    sends_messages: bool = False


def _failed(problem: Problem | None) -> bytes:
    if problem is None:
        return _frame(RunErrorEvent(message="The stream failed."))
    return _frame(RunErrorEvent(message=problem.detail, code=problem.type))


def _closing() -> bytes:
    return _frame(RunErrorEvent(message="The server stops.", code="closing"))


ENDINGS: Final = Endings(_failed, _closing)


def _frame(event: BaseEvent) -> bytes:
    return on_one_line(_encoder.encode(event)).encode()


async def frames_of(events: AsyncIterator[BaseEvent]) -> Frames:
    """Encode events."""
    async for event in events:
        yield _frame(event)


async def _session_of(service: SessionService, key: SessionKey) -> Session | None:
    return await service.get_session(key, num_recent_events=0)


def _started(key: SessionKey, asked: RunAgentInput) -> BaseEvent:
    return RunStartedEvent(
        thread_id=key.session_id, run_id=asked.run_id, protocol_version=PROTOCOL_VERSION
    )


def _messages(events: Sequence[Event], thoughts: Iterable[str] = ()) -> BaseEvent:
    """Return events as all messages, with thoughts that the log does not have as empty ones.

    A client keeps messages with thoughts that it is not told of, and would put after them what
    comes anew.
    """
    messages = to_messages(events)
    known = {message.id for message in messages}
    messages += [ReasoningMessage(id=each, content="") for each in thoughts if each not in known]
    return MessagesSnapshotEvent(messages=messages, metadata=_ALL_ACTIVITIES)


def _thoughts_in(asked: RunAgentInput) -> list[str]:
    return [each.id for each in asked.messages if isinstance(each, ReasoningMessage)]


async def run_events(service: SessionService, run: BegunTurn) -> AsyncIterator[BaseEvent]:
    """Make the events of a run, from the beginning of its turn or from where the client is."""
    key = run.thread
    state = SharedState(await _session_of(service, key))
    yield _started(key, run.input)
    yield StateSnapshotEvent(snapshot=state.values)
    last_seq = run.before[-1].seq if run.before else 0
    if run.sends_messages:
        wanted = Resync(last_seq, _thoughts_in(run.input))
        yield await _all_messages(service, key, run.run_id, wanted)
    translator = Translator(state, run.before)
    async with aclosing(run.turn.events()) as events:
        async for event in events:
            if not event.partial and event.seq <= last_seq:
                continue  # Answers after which the turn waits on.
            for told in translator.take(event):
                yield await _resolved(service, key, run.run_id, told)
    async for last in _ending(service, run, translator, state):
        yield last


async def thread_events(
    service: SessionService, key: SessionKey, asked: RunAgentInput, turn: FollowedTurn | None
) -> AsyncIterator[BaseEvent]:
    """Make the events for a client that joins: all messages, and then what comes."""
    session, events = await _session_of(service, key), await all_events(service, key)
    state = SharedState(session)
    yield _started(key, asked)
    yield StateSnapshotEvent(snapshot=state.values)
    if turn is None:
        yield _messages(events)
        outcomes = [each.outcome for each in events if each.outcome]
        waits = outcomes[-1:] == ["waiting"]
        yield _finished(key, asked, await _calls(service, key) if waits else ())
        return
    last_seq = turn.before[-1].seq if turn.before else 0
    yield _messages(_up_to(events, turn.run_id, last_seq), _thoughts_in(asked))
    run = BegunTurn(turn, turn.run_id, key, asked)
    translator = Translator(state, turn.before)
    async with aclosing(turn.further_events()) as further:
        async for event in further:
            for told in translator.take(event):
                yield await _resolved(service, key, turn.run_id, told)
    async for last in _ending(service, run, translator, state):
        yield last


async def _resolved(
    service: SessionService, key: SessionKey, run_id: str, told: BaseEvent | Resync
) -> BaseEvent:
    if isinstance(told, Resync):
        return await _all_messages(service, key, run_id, told)
    return told


async def _all_messages(
    service: SessionService, key: SessionKey, run_id: str, wanted: Resync
) -> BaseEvent:
    """Return all messages up to what was shown of a turn."""
    events = await all_events(service, key)
    return _messages(_up_to(events, run_id, wanted.last_seq), wanted.thoughts)


def _up_to(events: Sequence[Event], run_id: str, last_seq: int) -> list[Event]:
    """Leave out what comes after an event of a turn, and keep the turn's message in any case."""
    first = next((each for each in events if each.invocation_id == run_id), None)
    return [
        event
        for event in events
        if event.invocation_id != run_id
        or event.seq <= last_seq
        or (event is first and is_message_of(event, run_id))
    ]


async def _ending(
    service: SessionService, run: BegunTurn, translator: Translator, state: SharedState
) -> AsyncIterator[BaseEvent]:
    """Make the last events of a turn that has ended."""
    key, outcome = run.thread, run.turn.outcome
    if not outcome:
        return
    for told in translator.end():
        yield await _resolved(service, key, run.run_id, told)
    # Not every change is an event's, nor of this turn.
    if state.renew(await _session_of(service, key)):
        yield StateSnapshotEvent(snapshot=state.values)
    if outcome in {"failed", "abandoned"}:
        error = translator.error or EventError("The agent failed.", outcome)
        yield RunErrorEvent(message=error.message, code=error.type or None)
    elif outcome in {"completed", "waiting"}:
        waits = outcome == "waiting"
        yield _finished(key, run.input, await _calls(service, key) if waits else ())
    else:
        stopped = RunFinishedCancelledOutcome()
        yield _finished(key, run.input, outcome=stopped)


async def _calls(service: SessionService, key: SessionKey) -> Sequence[ToolCall]:
    _, calls = await open_calls(service, key)
    return calls


def _finished(
    key: SessionKey,
    asked: RunAgentInput,
    calls: Sequence[ToolCall] = (),
    outcome: Any = None,
) -> BaseEvent:
    """Return the end of a run, with the calls that wait for an answer."""
    if outcome is None:
        offered = {tool.name for tool in asked.tools or ()}
        if all(call.name in offered for call in calls):
            pending = [call.call_id for call in calls] or None
            outcome = RunFinishedSuccessOutcome(pending_tool_call_ids=pending)
        else:
            outcome = RunFinishedInterruptOutcome(interrupts=[*map(_interrupt, calls)])
    return RunFinishedEvent(thread_id=key.session_id, run_id=asked.run_id, outcome=outcome)


def _interrupt(call: ToolCall) -> Interrupt:
    return Interrupt(id=call.call_id, reason="tool_call", tool_call_id=call.call_id)
