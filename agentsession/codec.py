r"""Events to bytes and back: the stored format, version 1. Pure; no I/O.

An event is one JSON object. It begins with its format version, ``"v":1``; fields at their defaults
are left out; ``seq`` is not in it while it is stored, since the store gives it by position. Two
things in a ``state_delta`` have no form in JSON and are written as an object with one key::

    b"\x00\x01"         {"$bytes": "AAE="}         base64
    DELETE             {"$delete": true}
    {"$bytes": 1}      {"$json": {"$bytes": 1}}   a value that looks like one of these three

A reader knows its own version and the one before. The golden files in the tests hold an event of
every version that was ever released.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentsession.errors import StateValueError
from agentsession.events import Data, Event, Text, ToolCall, ToolResult
from agentsession.state import DELETE, check_json, is_temporary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FORMAT_VERSION", "decode_event", "encode_event"]

FORMAT_VERSION: Final = 1

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def _wrap(value: Any) -> Any:
    """Give a value of a state delta a form in JSON."""
    if value is DELETE:
        return {"$delete": True}
    if type(value) is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    return {"$json": value} if _mark(value) else value


def _mark(value: object) -> str | None:
    """Return the mark that a value carries, or seems to carry."""
    if not isinstance(value, dict):
        return None
    names: list[str] = list(value)  # pyright: ignore[reportUnknownArgumentType] - keys are checked
    return names[0] if len(names) == 1 and names[0] in _UNWRAP else None


def _from_base64(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)


_UNWRAP: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$bytes": _from_base64,
    "$delete": lambda _: DELETE,
    "$json": lambda value: value,
}


def _unwrap(value: Any) -> Any:
    mark = _mark(value)
    return value if mark is None else _UNWRAP[mark](value[mark])


def _check_payload(event: Event) -> None:
    """Refuse what would not come back as it is in the fields that hold the user's own values."""
    if event.metadata:
        check_json(event.metadata, ("metadata",))
    if isinstance(event.content, list):
        for index, part in enumerate(event.content):
            match part:
                case ToolCall(arguments=value):
                    check_json(value, ("content", index, "arguments"))
                case ToolResult(result=value):
                    check_json(value, ("content", index, "result"))
                case Data(data=value):
                    check_json(value, ("content", index, "data"))
                case Text():
                    pass
                case _:
                    kind = type(part).__qualname__
                    msg = (
                        f"content[{index}] must be a Text, ToolCall, ToolResult or Data, not {kind}"
                    )
                    raise TypeError(msg)


def encode_event(event: Event) -> bytes:
    """Encode an event: ``seq`` unless it is 0, and all but the ``temp:`` names of its delta.

    The types of all fields are checked, which msgspec leaves to decoding: what was encoded can be
    decoded and comes back equal.

    Raises:
        TypeError: *event* is no :class:`~agentsession.Event`.
        ValueError: A field has the wrong type, is empty though it must not be, or the timestamp is
            naive.
        StateValueError: A value inside the event cannot be stored; the error names its path.
    """
    payload, _ = prepare_event(event)
    for name, value in event.state_delta.items():
        if value is not DELETE and type(value) is not bytes and not is_temporary(name):
            check_json(value, ("state_delta", name))
    return payload


def prepare_event(event: Event) -> tuple[bytes, Event]:
    """Encode an event, and return with the bytes the event that a reader will get from them.

    The values of its state delta are the caller's to check, as :func:`agentsession.state.split`
    does.
    """
    if not isinstance(event, Event):
        msg = f"expected an agentsession.Event, not {type(event).__qualname__}: {event!r:.80}"
        raise TypeError(msg)
    _check_payload(event)
    try:
        if event.state_delta:
            delta = {
                name: _wrap(value)
                for name, value in event.state_delta.items()
                if not is_temporary(name)
            }
            event = msgspec.structs.replace(event, state_delta=delta)
        if event.timestamp.tzinfo is not UTC and event.timestamp.tzinfo is not None:
            event = msgspec.structs.replace(event, timestamp=event.timestamp.astimezone(UTC))
        payload = _encoder.encode(event)
        return payload, decode_event(payload)
    except UnicodeEncodeError as exc:
        check_json(msgspec.to_builtins(event, str_keys=True), ("event",))
        raise StateValueError(("event",), str(exc)) from exc
    except (msgspec.MsgspecError, AttributeError, TypeError, OverflowError) as exc:
        msg = f"event {event.id!r:.80} cannot be stored: {exc}"
        raise ValueError(msg) from exc


def decode_event(data: bytes, seq: int = 0) -> Event:
    """Decode what :func:`encode_event` made.

    Args:
        data: The bytes.
        seq: The event's position in the log, where the bytes do not hold it.

    Raises:
        ValueError: The bytes are no event of ours, damaged, or of a newer format
            (:exc:`msgspec.DecodeError` is one).
    """
    try:
        event = _decoder.decode(data)
    except RecursionError as exc:
        msg = "the JSON is nested too deep"
        raise ValueError(msg) from exc
    changes: dict[str, Any] = {"seq": seq} if seq else {}
    if event.state_delta:
        try:
            changes["state_delta"] = {
                name: _unwrap(value) for name, value in event.state_delta.items()
            }
        except (TypeError, binascii.Error) as exc:
            msg = f"a state delta is unreadable: {exc}"
            raise ValueError(msg) from exc
    return msgspec.structs.replace(event, **changes) if changes else event
