"""What a page shows of events: their parts, and the ids by which it knows them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentsession.events import Reasoning, Text, ToolCall, ToolResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.events import Content, Event, Part

__all__ = [
    "MESSAGE_ID",
    "Names",
    "arguments_of",
    "gathered",
    "is_said_by_user",
    "message_id",
    "parts_of",
    "text_of",
    "words_of",
]


MESSAGE_ID: Final = "ui_message_id"
"""In the metadata of a message that was asked again: the id by which pages know it."""


def message_id(event: Event) -> str:
    """Return the id by which pages know a message of the user."""
    known = event.metadata.get(MESSAGE_ID)
    return known if isinstance(known, str) and known else event.id


def parts_of(content: Content) -> list[Part]:
    """Return the parts of a content; words are one, and no words are none."""
    if isinstance(content, str):
        return [Text(content)] if content else []
    return content


def gathered(content: Content, before: Sequence[Part] = ()) -> list[Part]:
    """Return what is shown of a content that comes after other parts: all but results.

    Words go on where words ended, and so do thoughts. Arguments of a call go on wherever it is,
    since some models write those of several calls in turns.

    Args:
        content: A whole one, or that of a chunk.
        before: What the chunks before it are together.
    """
    parts = [*before]
    for part in parts_of(content):
        if isinstance(part, ToolResult) or (isinstance(part, Text | Reasoning) and not part.text):
            continue
        place = _place_of_its_beginning(part, parts)
        if place is None:
            parts.append(part)
        else:
            parts[place] = _joined(parts[place], part)
    return parts


def _place_of_its_beginning(part: Part, before: Sequence[Part]) -> int | None:
    """Return which part goes on with another one."""
    if isinstance(part, ToolCall):
        for place, begun in enumerate(before):
            if isinstance(begun, ToolCall) and begun.call_id == part.call_id:
                is_text = isinstance(begun.arguments, str) and isinstance(part.arguments, str)
                return place if is_text else None
    elif isinstance(part, Text | Reasoning) and before and type(before[-1]) is type(part):
        return len(before) - 1
    return None


def _joined(begun: Part, rest: Part) -> Part:
    if isinstance(begun, ToolCall) and isinstance(rest, ToolCall):
        arguments = begun.arguments + rest.arguments
        return ToolCall(begun.call_id, begun.name or rest.name, arguments)
    assert isinstance(begun, Text | Reasoning)  # noqa: S101 - for the type checker
    assert isinstance(rest, Text | Reasoning)  # noqa: S101 - as above
    return type(begun)(begun.text + rest.text)


def words_of(part: Part) -> str:
    """Return what of a part is streamed, piece by piece."""
    if isinstance(part, Text | Reasoning):
        return part.text
    return text_of(part.arguments) if isinstance(part, ToolCall) else ""


def text_of(value: Any) -> str:
    """Return a value as text: itself, or as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def arguments_of(call: ToolCall) -> Any:
    """Return the arguments of a call as a value; the text that they are if that is no JSON."""
    if isinstance(call.arguments, str):
        try:
            return msgspec.json.decode(call.arguments)
        except (msgspec.DecodeError, UnicodeError):
            return call.arguments
    return call.arguments


def is_said_by_user(event: Event) -> bool:
    """Tell what a user says from results of tools, which some frameworks store as the user's."""
    return event.author == "user" and not (
        event.content and all(isinstance(part, ToolResult) for part in parts_of(event.content))
    )


class Names:
    """Names what a page shows of each event, the same for chunks as for the event that is stored.

    That name is made of the turn and the stream. An agent may use the id of a stream again for the
    next one, so streams of one id are counted: whoever begins in the middle of a turn passes over
    the events before.
    """

    def __init__(self) -> None:
        self._ended: Counter[tuple[str, str]] = Counter()

    def of(self, event: Event) -> str:
        """Name a chunk, or a whole event that was not passed over yet."""
        if not event.stream_id:
            return event.id
        again = self._ended[event.invocation_id, event.stream_id]
        name = f"{event.invocation_id}:{event.stream_id}"
        return f"{name}:{again + 1}" if again else name

    def pass_over(self, event: Event) -> None:
        """Note that the stream of a whole event has ended."""
        if event.stream_id:
            self._ended[event.invocation_id, event.stream_id] += 1
