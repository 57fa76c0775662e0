"""What the tests of all formats share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter

from agentsession import Event
from agentsession.codec import decode_event, encode_event


def check_types(param: TypeAdapter[Any], message: Any) -> None:
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
