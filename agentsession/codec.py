"""Events to bytes and back: the stored format, version 1. Pure; no I/O.

An event is one JSON object. It begins with its format version, ``"v":1``; fields at their defaults
are left out; ``seq`` is not in it while it is stored, since the store gives it by position. What
has no form in JSON in a ``state_delta`` is written as ``agentsession._marks`` says.

A reader knows its own version and the one before. The golden files in the tests hold an event of
every version that was ever released. What a reader does not know, it replaces
(:func:`unreadable_event`): a field never changes its type, so what it finds under a name it knows
means what it always meant, in a newer format too.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from agentsession._marks import mark, unmark
from agentsession.clock import from_microseconds
from agentsession.errors import StateValueError
from agentsession.events import (
    UNREADABLE,
    Data,
    Event,
    EventError,
    Media,
    Outcome,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from agentsession.state import DELETE, check_json, is_temporary, without_slack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "FORMAT_VERSION",
    "check_payload",
    "decode_event",
    "decode_events",
    "encode_event",
    "prepare_event",
    "runs",
    "unreadable_event",
]

FORMAT_VERSION: Final = 1
"""The format in which events are written."""

_PARTS: Final = ", ".join(part.__name__ for part in get_args(Part))
_OUTCOMES: Final = ", ".join(map(repr, get_args(Outcome)))
# Those that hold what a provider wants to have back as it was.
_FROM_PROVIDERS: Final = (Text, ToolCall, Reasoning, Media)

# The fields that always stand first. A reader must not make up an id or a time for foreign bytes.
_BEGINNING: Final = b'{"v":1,"id":"'
_THEN: Final = b'","timestamp":"'

# Events are decoded together up to so many bytes: joined, small ones take three quarters of the
# time of one by one, but ten of a megabyte five times as long, most of it for new memory. It takes
# some milliseconds, so a caller who decodes run by run holds up nobody in between.
_LARGEST_RUN: Final = 1 << 19
# Measuring more than this many events takes a while too.
_MEASURED_AT_ONCE: Final = 1000


class _Versioned(Struct):
    """Anything that tells its version."""

    v: int = 0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)
_run_decoder = msgspec.json.Decoder(list[Event])
_field_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])

# What is told of an event that cannot be read, each field by itself.
_TOLD: Final = {
    field.name: msgspec.json.Decoder(field.type)
    for field in msgspec.structs.fields(Event)
    if field.name in ("id", "timestamp", "author", "invocation_id", "branch")
}

# What msgspec says of a field that has the wrong type, or is empty.
_wrong_field = re.compile(
    r"Expected `(\w+)`(?: of length >= (1))?(?:, got `(\w+)`)? - at `\$\.(.+)`"
)

_wrong_outcome = re.compile(r"Invalid enum value (.*) - at `\$\.outcome`", re.DOTALL)

# What msgspec raises at bytes that are no JSON, of another shape, not UTF-8, or nested too deep.
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def check_payload(event: Event) -> None:
    """Refuse what would not come back as it is in the fields that hold the user's own values.

    Raises:
        TypeError: A part is none.
        ValueError: The content is none, or is one that no reader could tell apart.
        StateValueError: JSON cannot hold a value.
    """
    if isinstance(event.error, EventError) and event.error.type == UNREADABLE:
        raise _unstorable(
            event,
            f"the error type {UNREADABLE!r} marks what stands for a stored event that this version "
            "cannot read; copy the log with a newer agentsession",
        )
    if event.metadata:
        check_json(event.metadata, ("metadata",))
    if type(event.content) is str:
        return
    if not isinstance(event.content, list):
        kind = type(event.content).__qualname__
        raise _unstorable(
            event, f"content must be a str or a list of parts such as [Text('Hello')], not {kind}"
        )
    for index, part in enumerate(event.content):
        match part:
            case ToolCall(arguments=value):
                check_json(value, ("content", index, "arguments"))
            case ToolResult(result=value):
                check_json(value, ("content", index, "result"))
            case Data(data=value):
                check_json(value, ("content", index, "data"))
            case Media(uri=uri, data=data) if uri and data:
                raise _unstorable(event, f"content[{index}] has both a uri and data; one is enough")
            case Text() | Reasoning() | Media():
                pass
            case _:
                kind = type(part).__qualname__
                advice = "; write Text(...)" if isinstance(part, str) else ""
                msg = f"content[{index}] must be one of {_PARTS}, not {kind}{advice}"
                raise TypeError(msg)
        if isinstance(part, _FROM_PROVIDERS) and part.provider_data is not None:
            check_json(part.provider_data, ("content", index, "provider_data"))


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
    if isinstance(event, Event) and isinstance(event.state_delta, dict):
        for name, value in event.state_delta.items():
            plain = value is not DELETE and type(value) is not bytes
            if plain and isinstance(name, str) and not is_temporary(name):
                check_json(value, ("state_delta", name))
    return prepare_event(event)[0]


def prepare_event(event: Event) -> tuple[bytes, Event]:
    """Encode an event, and return with the bytes the event that a reader will get from them.

    The values of its state delta are the caller's to check, as :func:`agentsession.state.split`
    does.

    Raises:
        TypeError: As :func:`encode_event`.
        ValueError: As :func:`encode_event`.
        StateValueError: As :func:`encode_event`.
    """
    if not isinstance(event, Event):
        msg = f"expected an agentsession.Event, not {type(event).__qualname__}: {event!r:.80}"
        raise TypeError(msg)
    check_payload(event)
    event = _normalised(event)
    try:
        payload = without_slack(_encoder.encode(_wired(event)))
        decoded = _decode(payload)
    except UnicodeEncodeError as exc:
        check_json(msgspec.to_builtins(event, str_keys=True), ("event",))
        raise StateValueError(("event",), str(exc)) from exc
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as exc:
        raise _unstorable(event, _field_problem(str(exc))) from exc
    if decoded != event:
        # msgspec writes many types as JSON and reads JSON as one of them.
        for name in event.__struct_fields__:
            if getattr(decoded, name) != getattr(event, name):
                raise _unstorable(event, f"{name} has the wrong type, or holds something that has")
    return payload, decoded


def _unstorable(event: Event, why: str) -> ValueError:
    return ValueError(f"event {event.id!r:.80} cannot be stored: {why}")


def _field_problem(problem: str) -> str:
    """Word what msgspec says of a field with the field's name in front."""
    if found := _wrong_outcome.fullmatch(problem):
        return f"outcome must be one of {_OUTCOMES}, not {found[1]:.80}"
    found = _wrong_field.fullmatch(problem)
    if found is None:
        return problem
    expected, shortest, got, path = found.groups()
    if shortest and not got:
        return f"{path} must not be empty"
    return f"{path} must be of type {expected}, not {got}"


def _normalised(event: Event) -> Event:
    """Return an event as it will be read: in UTC, and without ``temp:`` names."""
    moment, delta = event.timestamp, event.state_delta
    if type(moment) is not datetime or moment.tzinfo is not UTC:
        event = msgspec.structs.replace(event, timestamp=_in_utc(event))
    if delta or type(delta) is not dict:
        if not isinstance(delta, dict) or not all(isinstance(name, str) for name in delta):
            raise _unstorable(
                event, f"state_delta must be a dict of names to values: {delta!r:.80}"
            )
        if any(map(is_temporary, delta)):
            delta = {name: value for name, value in delta.items() if not is_temporary(name)}
            event = msgspec.structs.replace(event, state_delta=delta)
    return event


def _in_utc(event: Event) -> datetime:
    moment = event.timestamp
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise _unstorable(
            event, f"timestamp must be an aware datetime, as datetime.now(UTC) is: {moment!r:.80}"
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError as exc:
        raise _unstorable(event, f"timestamp: {exc}") from exc


def _wired(event: Event) -> Event:
    """Give the values of an event's state delta a form in JSON."""
    if not event.state_delta:
        return event
    return msgspec.structs.replace(event, state_delta=mark(event.state_delta))


def decode_event(data: bytes, seq: int = 0) -> Event:
    """Decode what :func:`encode_event` made.

    Args:
        data: The bytes.
        seq: The event's position in the log, where the bytes do not hold it.

    Raises:
        ValueError: The bytes are no event of ours, damaged, or of a newer format.
    """
    # A search, since it stands within the first bytes of all that is ours: a pattern would take
    # as long as the decoding.
    if not data.startswith(_BEGINNING) or data.find(_THEN, len(_BEGINNING)) < 0:
        raise ValueError(_beginning_problem(data))
    return _decode(data, seq)


def runs(payloads: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut a piece of a log into what :func:`decode_events` can decode in one go; often it is one.

    Each is of half a megabyte at most, or of one event that is larger.
    """
    start = size = 0
    if len(payloads) > _MEASURED_AT_ONCE or sum(map(len, payloads)) > _LARGEST_RUN:
        for place, data in enumerate(payloads):
            size += len(data)
            if size > _LARGEST_RUN and place > start:
                yield payloads[start:place]
                start, size = place, len(data)
    if start < len(payloads):
        yield payloads[start:] if start else payloads


def decode_events(payloads: Sequence[bytes], seqs: Sequence[int]) -> list[Event]:
    """Decode a run of a log in one go, which takes less time than one by one.

    Args:
        payloads: A run as :func:`runs` cuts it; a larger one takes longer.
        seqs: The position of each.

    Raises:
        ValueError: Some of the bytes are no event of ours; :func:`decode_event` tells which.
    """
    if len(payloads) == 1:
        return [decode_event(payloads[0], seqs[0])]
    for data in payloads:
        if not data.startswith(_BEGINNING) or data.find(_THEN, len(_BEGINNING)) < 0:
            raise ValueError(_beginning_problem(data))
    try:
        events = _run_decoder.decode(b"[" + b",".join(payloads) + b"]")
    except _UNREADABLE as exc:
        raise ValueError(str(exc)) from exc
    if len(events) != len(payloads):
        msg = "the bytes of one event hold several"
        raise ValueError(msg)
    for seq, event in zip(seqs, events, strict=True):
        # Nobody has seen it yet; a copy would take as long as half its decoding.
        force_setattr(event, "seq", seq)
        if event.state_delta:
            force_setattr(event, "state_delta", unmark(event.state_delta))
    return events


def unreadable_event(data: bytes, seq: int, why: str) -> Event:
    """Make what stands in a log for an event that cannot be read.

    Its id, author, timestamp, invocation id and branch are those of the bytes as far as they tell
    them, each with a type that is right; else ``"unreadable-"`` and *seq*, ``"unknown"``, the epoch
    and nothing. Its ``error.type`` is :data:`~agentsession.events.UNREADABLE`, and it has no
    content.

    Args:
        data: The bytes.
        seq: The event's position in the log.
        why: Why they cannot be read.
    """
    told: dict[str, Any] = {
        "id": f"{UNREADABLE}-{seq}",
        "author": "unknown",
        "timestamp": from_microseconds(0),
    }
    with suppress(*_UNREADABLE):
        fields = _field_decoder.decode(data)
        for name in _TOLD.keys() & fields.keys():
            with suppress(*_UNREADABLE):
                told[name] = _TOLD[name].decode(fields[name])
    return Event(**told, error=EventError(type=UNREADABLE, message=why), seq=seq)


def _decode(data: bytes, seq: int = 0) -> Event:
    try:
        event = _decoder.decode(data)
    except _UNREADABLE as exc:
        raise ValueError(str(exc)) from exc
    force_setattr(event, "seq", seq or event.seq)
    if event.state_delta:
        force_setattr(event, "state_delta", unmark(event.state_delta))
    return event


def _beginning_problem(data: bytes) -> str:
    """Say why bytes that do not begin as an event does are none."""
    try:
        version = msgspec.json.decode(data, type=_Versioned).v
    except _UNREADABLE as exc:
        return f"the bytes are no event of ours: {exc}"
    if version > FORMAT_VERSION:
        return f"format {version} is of a newer agentsession; this one reads {FORMAT_VERSION}"
    return "the bytes are no event of ours: those begin with format version, id and timestamp"
