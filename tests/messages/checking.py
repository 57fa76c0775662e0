"""What the tests of all formats share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from google.genai.types import Content
from pydantic import TypeAdapter, ValidationError

from agentsession import Event, Text, ToolCall, ToolResult
from agentsession.codec import decode_event, encode_event
from agentsession.events import Media
from agentsession.messages import Converted


class LenientContent:
    """Gemini's type of a content, which lets pass what it does not know, as the others do."""

    def validate_python(self, message: Any) -> Any:
        try:
            return Content.model_validate(message)
        except ValidationError as exc:
            if {error["type"] for error in exc.errors()} != {"extra_forbidden"}:
                raise
            return message


def check_types(param: TypeAdapter[Any] | LenientContent, message: Any) -> None:
    """Validate by the provider's types; what is lazy in it too."""

    def consume(value: Any) -> None:
        if isinstance(value, Mapping):
            for each in value.values():
                consume(each)
        elif isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
            for each in value:
                consume(each)

    consume(param.validate_python(message))


def stored(events: list[Event]) -> list[Event]:
    """Send events through the stored format, as the next process reads them."""
    return [decode_event(encode_event(event), seq) for seq, event in enumerate(events, 1)]


def check_all_is_said(events: Sequence[Event], found: Converted[Any]) -> None:
    """Check that each part of each event is in the messages, or told to be lost."""
    text = json.dumps(found)
    lost = {loss.where for loss in found.lost}
    for event in events:
        for number, part in enumerate(() if isinstance(event.content, str) else event.content):
            if f"event {event.id!r}, content[{number}]" in lost:
                continue
            match part:
                case Text(words):
                    assert json.dumps(words)[1:-1] in text
                case ToolCall() | ToolResult():
                    assert f': "{part.call_id}"' in text
                case Media():
                    assert (part.data or part.uri) in text
                case _:
                    pytest.fail(f"{part} is neither said nor lost")
