"""Events as the messages of Vercel's AI SDK, and what is new in these as content of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from agentsession.events import Content, Data, Media, Part, Reasoning, Text, ToolCall, ToolResult
from agentsession.fastapi._bodies import check_said
from agentsession.history import effective
from agentsession.ui._parts import (
    Names,
    arguments_of,
    gathered,
    is_said_by_user,
    message_id,
    parts_of,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentsession.events import Event

__all__ = [
    "UIMessage",
    "answer_id",
    "content_of",
    "data_part",
    "error_part",
    "file_part",
    "results_in",
    "said_parts",
    "steering_part",
    "to_ui_messages",
    "tool_answer",
]

UIMessage: TypeAlias = dict[str, Any]
"""A message as JSON: ``id``, ``role`` and ``parts``."""

UIPart: TypeAlias = dict[str, Any]

_JSON: Final = "json"


def answer_id(run_id: str) -> str:
    """Name the message that answers, of which a turn has one."""
    return f"{run_id}:answer"


# -- events as messages


def to_ui_messages(events: Sequence[Event]) -> list[UIMessage]:
    """Return events as messages for the first load of a page.

    A turn is a message of the user and one of the assistant, which holds all that the agents of the
    turn said. It is what a page holds that has read the turn's stream.

    Args:
        events: Some of a log, in its order. What was taken back, and chunks, are left out.
    """
    messages = _Messages()
    for event in effective(events):
        if not event.partial:
            messages.add(event)
    return messages.messages


class _Messages:
    """Messages that grow event by event."""

    def __init__(self) -> None:
        self.messages: list[UIMessage] = []
        self._names = Names()
        # The parts of each turn's answer, by the turn.
        self._answers: dict[str, list[UIPart]] = {}
        # What stands for the turn of events that belong to none.
        self._loose = ""

    def add(self, event: Event) -> None:
        run_id = event.invocation_id
        if is_said_by_user(event) and not (run_id and run_id in self._answers):
            self._begin(event)
            return
        if run_id:
            self._loose = ""
        else:
            run_id = self._loose = self._loose or event.id
        answer = self._answers.setdefault(run_id, [])
        was_empty = not answer
        self._add_to(answer, event)
        if was_empty and answer:
            self.messages.append({"id": answer_id(run_id), "role": "assistant", "parts": answer})

    def _begin(self, event: Event) -> None:
        """Add what a user says, with which a turn begins."""
        self._loose = ""
        if event.invocation_id:
            self._answers[event.invocation_id] = []
        parts = said_parts(event)
        self.messages.append({"id": message_id(event), "role": "user", "parts": parts})

    def _add_to(self, answer: list[UIPart], event: Event) -> None:
        parts, name = gathered(event.content), self._names.of(event)
        if parts or event.error is not None:
            answer.append({"type": "step-start"})
        if not is_said_by_user(event):
            answer += [_shown_part(name, number, part) for number, part in enumerate(parts)]
        elif parts:
            answer.append(steering_part(event))
        for part in parts_of(event.content):
            if isinstance(part, ToolResult):
                _answer(answer, part)
        if event.error is not None:
            answer.append(error_part(event))
        self._names.pass_over(event)


def steering_part(event: Event) -> UIPart:
    """Return what a user says into a turn that runs."""
    return {"type": "steering-message", "id": event.id, "parts": said_parts(event)}


def said_parts(event: Event) -> list[UIPart]:
    """Return what a user says as parts of a message."""
    return [
        _said_part(f"{event.id}-{number}", part)
        for number, part in enumerate(parts_of(event.content))
        if isinstance(part, Text | Media | Data)
    ]


def _said_part(name: str, part: Text | Media | Data) -> UIPart:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Data():
            return data_part(name, part)
        case Media():
            named = {"filename": part.name} if part.name else {}
            return {"type": "file", "mediaType": part.media_type, "url": _url_of(part), **named}


def _shown_part(name: str, number: int, part: Part) -> UIPart:
    match part:
        case Text():
            return {"type": "text", "text": part.text, "state": "done"}
        case Reasoning():
            words = {"text": part.text, "state": "done"}
            return {"type": "reasoning", "id": f"{name}-{number}", **words}
        case Data():
            return data_part(f"{name}-{number}", part)
        case Media():
            return file_part(part)
        case ToolCall():
            return {
                "type": f"tool-{part.name}",
                "toolCallId": part.call_id,
                "state": "input-available",
                "input": arguments_of(part),
            }
        case ToolResult():  # pragma: no cover - it is no part of its own
            raise AssertionError


def data_part(name: str, part: Data) -> UIPart:
    """Return data as a part, which is of the type that its media type says."""
    return {"type": f"data-{part.media_type or _JSON}", "id": name, "data": part.data}


def file_part(part: Media) -> UIPart:
    """Return a file of an agent; a stream has no other place for its name than the metadata."""
    named = {"providerMetadata": {"agentsession": {"filename": part.name}}} if part.name else {}
    return {"type": "file", "mediaType": part.media_type, "url": _url_of(part), **named}


def error_part(event: Event) -> UIPart:
    """Return the error of an event as a part; the SDK has none of its own."""
    assert event.error is not None  # noqa: S101 - for the type checker
    error = {"message": event.error.message, "type": event.error.type}
    return {"type": "data-error", "id": f"{event.id}-error", "data": error}


def _url_of(part: Media) -> str:
    return part.uri or f"data:{part.media_type};base64,{part.data}"


def tool_answer(result: ToolResult) -> UIPart:
    """Return what a result says, as fields of a part and of a chunk."""
    if result.is_error:
        return {"errorText": text_of(result.result)}
    return {"output": result.result}


def _answer(shown: list[UIPart], result: ToolResult) -> None:
    """Put a result into the newest call with its id, if there is one."""
    for part in reversed(shown):
        if part.get("toolCallId") == result.call_id:
            part.pop("output", None)  # of a result before this one
            part.pop("errorText", None)
            part["state"] = "output-error" if result.is_error else "output-available"
            part.update(tool_answer(result))
            return


# -- what is new in messages


def content_of(parts: Sequence[Mapping[str, Any]]) -> Content:
    """Return what a user says as content.

    Raises:
        ValueError: There is nothing, or something that a user does not say.
    """
    found = [_part_of(part) for part in parts if part.get("type") != "step-start"]
    if not found:
        msg = "the message has no parts"
        raise ValueError(msg)
    if len(found) == 1 and isinstance(found[0], Text):
        return found[0].text
    return found


def _part_of(part: Mapping[str, Any]) -> Part:
    kind = part.get("type")
    if kind == "text" and isinstance(part.get("text"), str):
        return Text(part["text"])
    if kind == "file" and isinstance(part.get("url"), str):
        media_type, name = part.get("mediaType"), part.get("filename") or ""
        if isinstance(media_type, str) and media_type and isinstance(name, str):
            return _media_of(part["url"], media_type, name)
    if isinstance(kind, str) and kind.startswith("data-") and "data" in part:
        media_type = kind.removeprefix("data-")
        return check_said(Data(part["data"], "" if media_type == _JSON else media_type))
    msg = f"a user's message has no part {part!r:.80}"
    raise ValueError(msg)


def _media_of(url: str, media_type: str, name: str) -> Media:
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        return Media(media_type, data=data, name=name)
    return Media(media_type, uri=url, name=name)


def results_in(parts: Sequence[Mapping[str, Any]]) -> list[ToolResult]:
    """Return the results of calls that a message of the assistant holds."""
    results: list[ToolResult] = []
    for part in parts:
        call_id, state = part.get("toolCallId"), part.get("state")
        if not (isinstance(call_id, str) and call_id):
            continue
        if state == "output-available":
            results.append(ToolResult(call_id, part.get("output")))
        elif state == "output-error":
            results.append(ToolResult(call_id, part.get("errorText") or "", is_error=True))
    return results
