"""Steps of a turn as events of AG-UI."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ag_ui.core import (
    ActivitySnapshotEvent,
    BaseEvent,
    ReasoningEndEvent,
    ReasoningMessageContentEvent,
    ReasoningMessageEndEvent,
    ReasoningMessageStartEvent,
    ReasoningStartEvent,
    StateDeltaEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
)

from agentsession.events import Reasoning, Text, ToolCall
from agentsession.ui._agui.messages import (
    activity_of,
    error_of,
    result_id,
    said_content,
    thought_id,
)
from agentsession.ui._parts import message_id, text_of
from agentsession.ui._progress import (
    Added,
    Answered,
    Begun,
    Dropped,
    Ended,
    Failed,
    Progress,
    Said,
    Shown,
    Step,
    StepBegun,
    StepEnded,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agentsession.events import Event, EventError
    from agentsession.ui._agui.state import SharedState

__all__ = ["Resync", "Told", "Translator"]


class Resync(NamedTuple):
    """What the client holds is wrong: it needs all messages, as far as they were shown.

    Attributes:
        last_seq: The last event of the turn that was shown; 0 if none was.
        thoughts: Messages with thoughts that were shown and are not stored.
    """

    last_seq: int
    thoughts: Sequence[str] = ()


Told: TypeAlias = BaseEvent | Resync


class Translator:
    """Makes events of AG-UI of the events of one turn.

    Args:
        state: What the client has of the session's state.
        before: Events of the turn that the client has already.

    Attributes:
        error: The error of the last event that had one.
    """

    def __init__(self, state: SharedState, before: Iterable[Event] = ()) -> None:
        self.error: EventError | None = None
        self._progress = Progress(before)
        self._state = state

    def take(self, event: Event) -> Iterator[Told]:
        """Yield what an event brings."""
        for step in self._progress.take(event):
            yield from _told(step)
        patch = self._state.patch(event)
        if patch:
            yield StateDeltaEvent.model_validate({"delta": patch})
        self.error = event.error or self.error

    def end(self) -> Iterator[Told]:
        """Yield what is left when the turn has ended."""
        for step in self._progress.end():
            yield from _told(step)


def _told(step: Step) -> Iterator[Told]:
    match step:
        case StepBegun() | StepEnded():
            pass  # A step of AG-UI has a name, and an event has none.
        case Begun(name, number, part):
            yield from _begun(name, number, part)
        case Added(name, number, part, piece):
            yield _added(name, number, part, piece)
        case Ended(name, number, part):
            yield from _ended(name, number, part)
        case Shown(name, number, part):
            kind, content = activity_of(part)
            yield ActivitySnapshotEvent(
                message_id=f"{name}-{number}", activity_type=kind, content=content
            )
        case Answered(event, _, is_again=True):
            # Clients put a result behind those that are there, also one with the same id.
            yield Resync(event.seq)
        case Answered(event, result):
            yield ToolCallResultEvent(
                message_id=result_id(event.invocation_id or event.id, result.call_id),
                tool_call_id=result.call_id,
                content=text_of(result.result),
                metadata={"isError": True} if result.is_error else None,
            )
        case Said(event):
            yield from _said(event)
        case Failed(event):
            kind, content = error_of(event)
            yield ActivitySnapshotEvent(
                message_id=f"{event.id}-error", activity_type=kind, content=content
            )
        case Dropped():
            yield from _dropped(step)


def _begun(name: str, number: int, part: Text | Reasoning | ToolCall) -> Iterator[BaseEvent]:
    if isinstance(part, Text):
        yield TextMessageStartEvent(message_id=name, role="assistant")
    elif isinstance(part, Reasoning):
        yield ReasoningStartEvent(message_id=thought_id(name, number))
        yield ReasoningMessageStartEvent(message_id=thought_id(name, number), role="reasoning")
    else:
        yield ToolCallStartEvent(
            tool_call_id=part.call_id, tool_call_name=part.name, parent_message_id=name
        )


def _added(name: str, number: int, part: Text | Reasoning | ToolCall, piece: str) -> BaseEvent:
    if isinstance(part, Text):
        return TextMessageContentEvent(message_id=name, delta=piece)
    if isinstance(part, Reasoning):
        return ReasoningMessageContentEvent(message_id=thought_id(name, number), delta=piece)
    return ToolCallArgsEvent(tool_call_id=part.call_id, delta=piece)


def _ended(name: str, number: int, part: Text | Reasoning | ToolCall) -> Iterator[BaseEvent]:
    if isinstance(part, Text):
        yield TextMessageEndEvent(message_id=name)
    elif isinstance(part, Reasoning):
        yield ReasoningMessageEndEvent(message_id=thought_id(name, number))
        yield ReasoningEndEvent(message_id=thought_id(name, number))
    else:
        yield ToolCallEndEvent(tool_call_id=part.call_id)


def _said(event: Event) -> Iterator[Told]:
    """Tell what a user says into a turn; what is more than words cannot be streamed."""
    content = said_content(event)
    if not isinstance(content, str):
        yield Resync(event.seq)
        return
    name = message_id(event)
    yield TextMessageStartEvent(message_id=name, role="user")
    yield TextMessageContentEvent(message_id=name, delta=content)
    yield TextMessageEndEvent(message_id=name)


def _dropped(dropped: Dropped) -> Iterator[Told]:
    """Close what is open; only all messages together can take something back."""
    for number, part in dropped.open:
        if isinstance(part, Text | Reasoning | ToolCall):
            yield from _ended(dropped.name, number, part)
    thoughts = [
        thought_id(dropped.name, number)
        for number, part in dropped.parts
        if isinstance(part, Reasoning)
    ]
    yield Resync(dropped.last_seq, thoughts)
