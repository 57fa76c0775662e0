"""Recorded conversations: read from a file, made into events, and back into messages. No network.

The file holds one conversation a line, in the OpenAI chat format::

    {"conversation_id": "...", "messages": [{"role": "user", "content": "..."}, ...]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
from msgspec import Struct

from agentsession.events import Event, Part, Text, ToolCall, ToolResult

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Conversation",
    "DataError",
    "Function",
    "Message",
    "RecordedCall",
    "Role",
    "from_event",
    "read_conversations",
    "to_event",
]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
"""Who says a recorded message."""


class Function(Struct, frozen=True):
    """What a recorded tool call runs; the arguments are text, as the model wrote it."""

    name: str
    arguments: str


class RecordedCall(Struct, frozen=True):
    """A recorded tool call."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """A recorded message."""

    role: Role
    content: str | None = None
    tool_calls: list[RecordedCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class Conversation(Struct, frozen=True):
    """A recorded conversation."""

    conversation_id: str
    messages: list[Message]

    def prelude(self) -> list[Message]:
        """Return what was said before the user's first message."""
        return self.messages[: self._turn_starts()[0]] if self._turn_starts() else self.messages

    def turns(self) -> list[list[Message]]:
        """Return the turns: each a message of the user's, and what followed it."""
        starts = self._turn_starts()
        ends = [*starts[1:], len(self.messages)]
        return [self.messages[start:end] for start, end in zip(starts, ends, strict=True)]

    def _turn_starts(self) -> list[int]:
        return [index for index, each in enumerate(self.messages) if each.role == "user"]


class DataError(Exception):
    """A file of conversations cannot be read; the message says where."""


def read_conversations(path: Path, most: int | None = None) -> list[Conversation]:
    """Read a file of conversations.

    Args:
        path: The file.
        most: Read at most this many.

    Raises:
        DataError: The file is absent, or a line is not a conversation.
    """
    decoder = msgspec.json.Decoder(Conversation)
    found: list[Conversation] = []
    number = 0
    try:
        with path.open("rb") as lines:
            for line in lines:
                number += 1
                if len(found) == most:
                    break
                if line.strip():
                    found.append(decoder.decode(line))
    except OSError as exc:
        msg = f"{path}: {exc.strerror or exc}"
        raise DataError(msg) from exc
    except msgspec.MsgspecError as exc:
        msg = f"{path}, line {number}: {exc}"
        raise DataError(msg) from exc
    if not found:
        msg = f"{path}: no conversations"
        raise DataError(msg)
    return found


def to_event(message: Message) -> Event:
    """Make an event of a message, with nothing lost: :func:`from_event` gives it back."""
    if message.role == "tool":
        result = ToolResult(message.tool_call_id or "-", message.content, name=message.name or "")
        return Event(author="tool", content=[result])
    if message.tool_calls is None and message.content is not None:
        return Event(author=message.role, content=message.content)
    parts: list[Part] = [] if message.content is None else [Text(message.content)]
    parts += [
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in message.tool_calls or ()
    ]
    return Event(author=message.role, content=parts)


def from_event(event: Event) -> Message:
    """Make the message again that an event was made of."""
    if isinstance(event.content, str):
        return msgspec.convert({"role": event.author, "content": event.content}, Message)
    words: str | None = None
    calls: list[RecordedCall] = []
    for part in event.content:
        match part:
            case ToolResult():
                return Message("tool", part.result, None, part.call_id, part.name or None)
            case ToolCall():
                calls.append(RecordedCall(part.call_id, Function(part.name, part.arguments)))
            case Text():
                words = part.text
            case _:
                pass
    return Message("assistant", words, calls or None)
