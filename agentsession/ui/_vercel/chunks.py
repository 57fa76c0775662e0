"""Steps of a turn as chunks of a UI message stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from agentsession.events import Data, Reasoning, Text, ToolCall
from agentsession.fastapi._streams import json_line
from agentsession.ui._parts import arguments_of
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
from agentsession.ui._vercel.messages import (
    answer_id,
    data_part,
    error_part,
    file_part,
    steering_part,
    tool_answer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agentsession.events import Event, Media, Outcome
    from agentsession.fastapi._problems import Problem

__all__ = ["DONE", "Chunk", "Chunks", "frame", "goodbye", "refusal"]

Chunk: TypeAlias = dict[str, Any]

DONE: Final = b"data: [DONE]\n\n"

_REASONS: Final[Mapping[Outcome, str]] = {
    "completed": "stop",
    "failed": "error",
    "waiting": "tool-calls",
}


def frame(chunk: Chunk) -> bytes:
    """Return a chunk as it is sent."""
    return f"data: {json_line(chunk)}\n\n".encode()


def refusal(problem: Problem | None) -> bytes:
    """Return the end of a stream that failed."""
    text = "The stream failed." if problem is None else problem.detail
    return frame({"type": "error", "errorText": text}) + DONE


def goodbye() -> bytes:
    """Return the end of a stream whose server stops; a page may resume it elsewhere."""
    return frame({"type": "error", "errorText": "The server stops."}) + DONE


class Chunks:
    """Makes chunks of the events of one turn.

    Args:
        run_id: The turn.
        before: Events of it that the page shows already.
    """

    def __init__(self, run_id: str, before: Iterable[Event] = ()) -> None:
        self._run_id = run_id
        self._progress = Progress(before)
        self._error = ""

    def begin(self) -> Chunk:
        """Return the first chunk."""
        return {"type": "start", "messageId": answer_id(self._run_id)}

    def take(self, event: Event) -> Iterator[Chunk]:
        """Yield the chunks that an event brings."""
        for step in self._progress.take(event):
            yield _chunk_of(step)
        if event.error is not None:
            self._error = event.error.message

    def end(self, outcome: Outcome) -> Iterator[Chunk]:
        """Yield the last chunks."""
        for step in self._progress.end():
            yield _chunk_of(step)
        reason = _REASONS.get(outcome, "interrupted")
        if reason == "interrupted":
            yield {"type": "abort", "reason": outcome}
        finish = {"type": "finish", "finishReason": reason}
        if reason == "error":
            # The page reads no further, so what was stored is told before it.
            yield {"type": "error", "errorText": self._error or "The agent failed."}
        yield finish


def _chunk_of(step: Step) -> Chunk:
    match step:
        case StepBegun():
            return {"type": "start-step"}
        case StepEnded():
            return {"type": "finish-step"}
        case Begun(name, number, part):
            return _begun(f"{name}-{number}", part)
        case Added(name, number, part, piece):
            return _added(f"{name}-{number}", part, piece)
        case Ended(name, number, part):
            return _ended(f"{name}-{number}", part)
        case Shown(name, number, part):
            return _shown(f"{name}-{number}", part)
        case Answered(_, result, _):
            kind = "tool-output-error" if result.is_error else "tool-output-available"
            return {"type": kind, "toolCallId": result.call_id, **tool_answer(result)}
        case Said(event):
            return steering_part(event)
        case Failed(event):
            return error_part(event)
        case Dropped():
            return {"type": "reset-step"}


def _begun(name: str, part: Text | Reasoning | ToolCall) -> Chunk:
    if isinstance(part, ToolCall):
        return {"type": "tool-input-start", "toolCallId": part.call_id, "toolName": part.name}
    return {"type": "text-start" if isinstance(part, Text) else "reasoning-start", "id": name}


def _added(name: str, part: Text | Reasoning | ToolCall, piece: str) -> Chunk:
    if isinstance(part, ToolCall):
        delta = {"toolCallId": part.call_id, "inputTextDelta": piece}
        return {"type": "tool-input-delta", **delta}
    kind = "text-delta" if isinstance(part, Text) else "reasoning-delta"
    return {"type": kind, "id": name, "delta": piece}


def _ended(name: str, part: Text | Reasoning | ToolCall) -> Chunk:
    if isinstance(part, ToolCall):
        call = {"toolCallId": part.call_id, "toolName": part.name}
        return {"type": "tool-input-available", **call, "input": arguments_of(part)}
    return {"type": "text-end" if isinstance(part, Text) else "reasoning-end", "id": name}


def _shown(name: str, part: Media | Data) -> Chunk:
    return data_part(name, part) if isinstance(part, Data) else file_part(part)
