"""The format: what each line says, and how it is written. Pure; no I/O.

A file is lines of JSON. The first says what it is, the last that it is whole. Each application,
user and session has a line of its own; behind that of a session stand its events, what its state
was before each change, and a line that ends it::

    {"format":"agentsession","version":1}
    {"kind":"app","app_name":"shop","state":{...}}
    {"kind":"user","app_name":"shop","user_id":"u","state":{...}}
    {"kind":"session","app_name":"shop","user_id":"u","session_id":"s","created_at":...,"state":{}}
    {"kind":"event","seq":1,"event":{"v":1,...}}
    {"kind":"before","at":1.0,"was":{"cart":{"$delete":true}}}
    {"kind":"end","turn":{...}}
    {"kind":"complete"}

Events are the stored bytes, as :mod:`agentsession.codec` says. State values are JSON, and what JSON
cannot hold is an object with one key: ``$bytes``, ``$delete`` or ``$json`` as in a state delta, and
``$raw`` for stored bytes that could not be read.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import msgspec
from msgspec import Struct

from agentsession._marks import mark, unmark
from agentsession._model import AwareDatetime, Natural
from agentsession.backend import Before, Beginning, UnendedTurn
from agentsession.clock import to_microseconds
from agentsession.errors import StateValueError
from agentsession.retention import LARGEST
from agentsession.sessions import SessionKey, UserKey
from agentsession.state import (
    APP_PREFIX,
    DELETE,
    LONGEST_NAME,
    TEMP_PREFIX,
    USER_PREFIX,
    decode_value,
    encode_value,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agentsession._pace import Pace
    from agentsession.state import ScopeChanges

__all__ = [
    "HEADER",
    "AppRecord",
    "BeforeRecord",
    "BytesRecord",
    "CompleteRecord",
    "CutRecord",
    "EndRecord",
    "EventRecord",
    "Record",
    "SessionRecord",
    "UserRecord",
    "before_from_record",
    "bytes_line",
    "check_header",
    "check_own_names",
    "event_line",
    "line_of",
    "read_line",
    "state_from_record",
    "state_to_record",
]

_FORMAT: Final = "agentsession"
_VERSION: Final = 1
HEADER: Final = b'{"format":"agentsession","version":1}\n'
"""The first line."""

# No session could be read that was created later.
_LATEST: Final = to_microseconds(datetime.max.replace(tzinfo=UTC))

# Where the state belongs that is not a session's own.
_OTHER_SCOPES: Final = {
    APP_PREFIX: "it stands on the line of its application, without the prefix",
    USER_PREFIX: "it stands on the line of its user, without the prefix",
    TEMP_PREFIX: "it is never stored; leave it out",
}

_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Line(Struct, frozen=True, tag_field="kind", omit_defaults=True, forbid_unknown_fields=True):
    """A line after the first one; a field that this version does not know is refused."""


class AppRecord(_Line, frozen=True, tag="app"):
    """An application's state."""

    app_name: str
    state: dict[str, Any]


class UserRecord(_Line, frozen=True, tag="user"):
    """A user's state."""

    app_name: str
    user_id: str
    state: dict[str, Any]

    @property
    def key(self) -> UserKey:
        """Whose it is."""
        return UserKey(self.app_name, self.user_id)


class SessionRecord(_Line, frozen=True, tag="session"):
    """A session; what is in it stands on the lines that follow.

    Attributes:
        app_name: The application.
        user_id: The user.
        session_id: The session.
        created_at: When the store made it.
        last_seq: The position of its newest event.
        state: Its own state.
        after_seq: All events up to this position had been trimmed.
        first_seq: Where its log begins, as :attr:`agentsession.Session.first_seq`, unless that is
            told by the mark of a rewind.
        taken_to: All events up to this position had been taken back; 0 if that is told by the marks
            of rewinds.
    """

    app_name: str
    user_id: str
    session_id: str
    created_at: AwareDatetime
    last_seq: Natural
    state: dict[str, Any]
    after_seq: Natural = 0
    first_seq: Natural = 1
    taken_to: Natural = 0

    def __post_init__(self) -> None:
        if not self.after_seq <= self.last_seq <= LARGEST:
            msg = f"last_seq must be from {self.after_seq} to {LARGEST}, not {self.last_seq}"
            raise ValueError(msg)
        if self.taken_to and not 0 < self.after_seq < self.taken_to <= self.last_seq:
            msg = f"taken_to must be between after_seq and last_seq, not {self.taken_to}"
            raise ValueError(msg)
        if not 1 <= self.first_seq <= max(self.after_seq, self.taken_to) + 1:
            msg = f"first_seq is after what was trimmed or taken back: {self.first_seq}"
            raise ValueError(msg)
        if not self.session_id:
            msg = "session_id must not be empty"
            raise ValueError(msg)
        if not 0 <= self.created <= _LATEST:
            msg = f"created_at is before 1970, or after 9999 in UTC: {self.created_at}"
            raise ValueError(msg)

    @property
    def key(self) -> SessionKey:
        """Whose it is."""
        return SessionKey(self.app_name, self.user_id, self.session_id)

    @property
    def created(self) -> int:
        """When it was made, in microseconds."""
        return to_microseconds(self.created_at)

    @property
    def beginning(self) -> Beginning:
        """How it begins."""
        return Beginning(self.created, self.after_seq, self.first_seq, self.taken_to)


class EventRecord(_Line, frozen=True, tag="event"):
    """An event, as it is stored."""

    seq: Natural
    event: msgspec.Raw


class BytesRecord(_Line, frozen=True, tag="bytes"):
    """What is stored in the place of an event and could not be read, in base64."""

    seq: Natural
    data: str
    reason: str

    @property
    def payload(self) -> bytes:
        """The stored bytes."""
        return _from_base64(self.data)


def _from_base64(data: Any) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (TypeError, binascii.Error) as exc:
        msg = f"the data is not base64: {exc}"
        raise ValueError(msg) from exc


class BeforeRecord(_Line, frozen=True, tag="before"):
    """What names of a session's state held before the changes at one place.

    Attributes:
        at: The position of the event that brought the changes, or half a step after that of the
            event before them.
        was: The names and what they held.
    """

    at: float
    was: dict[str, Any]


class EndRecord(_Line, frozen=True, tag="end"):
    """The end of a session: all of it stands before this line."""

    turn: UnendedTurn | None = None


class CutRecord(_Line, frozen=True, tag="cut"):
    """The end of a session of which not all could be read."""

    reason: str


class CompleteRecord(_Line, frozen=True, tag="complete"):
    """The end of the export: nothing comes after this line."""


Record: TypeAlias = (
    AppRecord
    | UserRecord
    | SessionRecord
    | EventRecord
    | BytesRecord
    | BeforeRecord
    | EndRecord
    | CutRecord
    | CompleteRecord
)
"""What a line says."""


class _Header(Struct):
    format: str
    version: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)
_header_decoder = msgspec.json.Decoder(_Header)


def check_header(line: bytes) -> None:
    """Check the first line.

    Raises:
        ValueError: It is none, or that of a newer format.
    """
    try:
        header = _header_decoder.decode(line)
    except _UNREADABLE as exc:
        msg = f"this is no export: its first line is not {HEADER.decode().strip()}"
        raise ValueError(msg) from exc
    if header.format != _FORMAT:
        msg = f"this is no export of agentsession: its format is {header.format!r:.80}"
        raise ValueError(msg)
    if header.version > _VERSION:
        msg = (
            f"this export has version {header.version} of the format, and this agentsession reads "
            f"up to {_VERSION}; use a newer one"
        )
        raise ValueError(msg)


def line_of(record: Record) -> bytes:
    """Write a line."""
    return _encoder.encode(record) + b"\n"


def event_line(seq: int, payload: bytes) -> bytes:
    """Write the line of an event, without looking at what it is."""
    return b'{"kind":"event","seq":%d,"event":%b}\n' % (seq, payload)


def bytes_line(seq: int, payload: bytes, reason: str) -> bytes:
    """Write the line of what cannot be read."""
    return line_of(BytesRecord(seq, base64.b64encode(payload).decode(), reason))


def read_line(line: bytes) -> Record:
    """Read a line after the first one.

    Raises:
        ValueError: It is none; the error says why.
    """
    try:
        record: Record = _decoder.decode(line)
    except _UNREADABLE as exc:
        raise ValueError(str(exc)) from exc
    return record


async def state_to_record(
    values: Mapping[str, bytes | None], pace: Pace
) -> tuple[dict[str, Any], list[str]]:
    """Give encoded state a form in JSON, and name what could not be read, letting others run."""
    told: dict[str, Any] = {}
    unreadable: list[str] = []
    for name in sorted(values):  # Stores have them in orders of their own.
        if pace.due():
            await pace.rest()
        data = values[name]
        try:
            told |= mark({name: DELETE if data is None else decode_value(data)})
        except _UNREADABLE:
            told[name] = {"$raw": base64.b64encode(data or b"").decode()}
            unreadable.append(name)
    return told, unreadable


async def state_from_record(told: Mapping[str, Any], limit: int, pace: Pace) -> ScopeChanges:
    """Encode state, each value of up to so many bytes, letting others run.

    Raises:
        ValueError: A value cannot be stored, or is over the limit.
    """
    values: ScopeChanges = {}
    for name, value in told.items():
        if pace.due():
            await pace.rest()
        values[name] = _value_from_record(name, value, limit)
    return values


def _value_from_record(name: str, value: object, limit: int) -> bytes | None:
    if not name or len(name) > LONGEST_NAME:
        raise StateValueError((name,), f"a name takes from 1 to {LONGEST_NAME:,} bytes")
    if isinstance(value, dict) and [*cast("dict[str, Any]", value)] == ["$raw"]:
        return _from_base64(cast("dict[str, Any]", value)["$raw"])
    plain = unmark({name: value})[name]
    return None if plain is DELETE else encode_value(name, plain, limit)


def check_own_names(told: Iterable[str]) -> None:
    """Refuse names in a session's own state that belong to another scope.

    Raises:
        StateValueError: One does.
    """
    for name in told:
        for prefix, place in _OTHER_SCOPES.items():
            if name.startswith(prefix):
                raise StateValueError((name,), f"a session's own state has no {prefix!r}: {place}")


async def before_from_record(record: BeforeRecord, limit: int, pace: Pace) -> Before:
    """Encode what state was.

    Raises:
        ValueError: The place is none, or as :func:`state_from_record`.
    """
    if not (0 < record.at <= LARGEST and (record.at * 2).is_integer()):
        msg = f"at must be a position, or half a step after one: {record.at}"
        raise ValueError(msg)
    return Before(record.at, await state_from_record(record.was, limit, pace))
