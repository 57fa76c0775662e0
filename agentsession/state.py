"""State: its scopes, what a value may be, and how it is stored. Pure; no I/O.

========= ======== ============================================================
prefix    scope    shared by
========= ======== ============================================================
``app:``  app      every session of every user of the application
``user:`` user     every session of the user
none      session  the session
``temp:`` temp     nobody; it lives in one ``Session`` and is never stored
========= ======== ============================================================

A name has one prefix or none. Another one behind it is refused, since the prefix may be left out
where one scope is written alone: ``user:x`` would be two names there, ``x`` and ``user:x``. What an
older version stored under such a name stays readable.

A value is anything JSON can hold, or ``bytes``, and comes back equal and of the same type. JSON is
stored as JSON; ``bytes`` are stored raw behind a zero byte, with which no JSON begins.
"""

from __future__ import annotations

import enum
import math
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from agentsession._wording import brief
from agentsession.errors import CodecError, StateValueError, StateValueTooLargeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentsession.sessions import SessionKey, UserKey

__all__ = [
    "APP_PREFIX",
    "DELETE",
    "LARGE",
    "LONGEST_NAME",
    "NO_CHANGES",
    "TEMP_PREFIX",
    "USER_PREFIX",
    "Changes",
    "ScopeChanges",
    "add_change",
    "add_scope_change",
    "check_json",
    "check_values",
    "decode_scope",
    "decode_value",
    "encode_value",
    "is_temporary",
    "split",
    "without_slack",
]

APP_PREFIX: Final = "app:"
"""Begins the names of state that all sessions of an application share."""

USER_PREFIX: Final = "user:"
"""Begins the names of state that all sessions of a user share."""

TEMP_PREFIX: Final = "temp:"
"""Begins the names of state that lives in one ``Session`` object and is never stored."""

_PREFIXES: Final = (APP_PREFIX, USER_PREFIX, TEMP_PREFIX)
_RAW_MARK: Final = b"\x00"
# Deeper values are almost always a cycle, and msgspec's recursion ends at Python's own limit.
_MAX_DEPTH: Final = 100
# Python refuses to read decimal integers of more than 4,300 digits (CVE-2020-10735), and msgspec
# counts the sign as one.
_LARGEST_INT: Final = 10**4299 - 1

LONGEST_NAME: Final = 1 << 16
"""How many bytes a name of state takes at most, in UTF-8 and with its prefix."""

LARGE: Final = 1 << 16
"""A value that takes more bytes than this is handled with care for memory."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


class _Deletion(enum.Enum):
    """The type of :data:`DELETE`; a one-member enum, so that type checkers can narrow it."""

    DELETE = "DELETE"

    def __repr__(self) -> str:
        return "DELETE"


DELETE: Final[Literal[_Deletion.DELETE]] = _Deletion.DELETE
"""As a value in a state update or an event's ``state_delta``: delete this name."""

ScopeChanges: TypeAlias = dict[str, bytes | None]
"""The names to change in one scope, without prefix, and the encoded values; ``None`` deletes."""


class Changes(Struct, frozen=True, kw_only=True):
    """Changes to the stored scopes, split and encoded."""

    app: ScopeChanges = {}
    user: ScopeChanges = {}
    session: ScopeChanges = {}

    def __bool__(self) -> bool:
        return bool(self.app or self.user or self.session)


NO_CHANGES: Final = Changes()
"""No changes to any scope."""


def is_temporary(name: object) -> bool:
    """Tell whether a name begins with ``temp:``; false for anything that is no string."""
    return isinstance(name, str) and name.startswith(TEMP_PREFIX)


# By the name of the type, or of one that it is derived from: importing them all would take time.
_CONVERSIONS: Final = {
    "BaseModel": "value.model_dump(mode='json')",
    "Decimal": "str(value)",
    "Enum": "value.value",
    "Model": "value.to_dict()",
    "PurePath": "str(value)",
    "Struct": "msgspec.to_builtins(value)",
    "UUID": "str(value)",
    "date": "value.isoformat()",
    "dict": "dict(value)",
    "frozenset": "list(value)",
    "ndarray": "value.tolist()",
    "set": "list(value)",
    "time": "value.isoformat()",
    "timedelta": "value.total_seconds()",
    "tuple": "list(value)",
}

# Of so many items it takes less time to look at each.
_SHORT: Final = 16

_Refusal: TypeAlias = tuple[tuple[str | int, ...], str]
"""Where a value is that cannot be stored, and why."""


def _refusal(value: object, depth: int = 0) -> _Refusal | None:
    """Find the first value that JSON could not bring back equal and of the same type.

    Types are compared exactly: an ``IntEnum`` or an ``OrderedDict`` would come back as something
    else.
    """
    kind = type(value)
    if value is None or kind is bool:
        return None
    if kind is str:
        return _string_refusal(value)
    if kind is int or kind is float:
        return _number_refusal(value)
    if depth == _MAX_DEPTH:
        return (), f"the value is nested more than {_MAX_DEPTH} deep, or contains itself"
    if kind is dict:
        return _dict_refusal(value, depth + 1)
    if kind is list:
        return _list_refusal(value, depth + 1)
    name = _kind_of(value)
    if isinstance(value, (str, int, float, dict, list, tuple, set, frozenset)):
        return (), (
            f"a {name} would not come back as one; convert it to a plain JSON type first"
            f"{_conversion(kind)}"
        )
    if isinstance(value, (bytes, bytearray, memoryview)):
        if depth or kind is bytes:
            return (), (
                f"{name} inside other values cannot be stored; only bytes as a whole state value"
            )
        return (), (
            f"a {name} cannot be stored, only bytes as a whole state value; convert it with "
            "bytes(value)"
        )
    return (), (
        f"a {name} cannot be stored, only what JSON can hold, and bytes as a whole state value; "
        f"convert it first{_conversion(kind)}"
    )


def _kind_of(value: object) -> str:
    """Name the type of a value, with its module unless it is built in: numpy has a bool too."""
    kind = type(value)
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


def _conversion(kind: type) -> str:
    """Say how to convert a value, if its type is one that is often met."""
    found = next(
        (_CONVERSIONS[each.__name__] for each in kind.__mro__ if each.__name__ in _CONVERSIONS), ""
    )
    if not found and hasattr(kind, "__dataclass_fields__"):
        found = "dataclasses.asdict(value)"
    if not found and kind.__module__ == "numpy":
        found = "value.item()"
    return found and f", for example with {found}"


def _number_refusal(value: Any) -> _Refusal | None:
    if isinstance(value, float):
        if not math.isfinite(value):
            return (), f"{value} has no form in JSON; store a string or None"
    elif not -_LARGEST_INT <= value <= _LARGEST_INT:
        return (), "an integer of more than 4,299 digits cannot be stored"
    return None


def _string_refusal(value: Any) -> _Refusal | None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            return (), (
                f"the string holds half of a surrogate pair at position {exc.start}, which is no "
                "text; store text.encode('utf-8', 'replace').decode()"
            )
    return None


def _dict_refusal(value: Any, depth: int) -> _Refusal | None:
    for name, item in value.items():
        if type(name) is not str:
            return (), f"a key is of type {_kind_of(name)}; keys must be strings"
        if (found := _string_refusal(name)) is not None:
            return (), f"a key cannot be stored: {found[1]}"
        if (found := _refusal(item, depth)) is not None:
            return (name, *found[0]), found[1]
    return None


def _is_plain(items: list[Any]) -> bool:
    """Tell of a list of one simple type, without a look at each item, that it can be stored.

    So are the largest lists: embeddings, rows of numbers. It takes a tenth of the time.
    """
    kind, *others = set(map(type, items))
    if others:
        return False
    if kind is float:
        return all(map(math.isfinite, items))
    if kind is int:
        return bool(min(items) >= -_LARGEST_INT and max(items) <= _LARGEST_INT)
    if kind is str:
        return all(map(str.isascii, items))
    return kind is bool or kind is NoneType


def _list_refusal(value: Any, depth: int) -> _Refusal | None:
    if len(value) > _SHORT and _is_plain(value):
        return None
    for index, item in enumerate(value):
        if (found := _refusal(item, depth)) is not None:
            return (index, *found[0]), found[1]
    return None


def check_json(value: object, path: tuple[str | int, ...]) -> None:
    """Refuse a value that JSON could not bring back equal and of the same type.

    Args:
        value: What is to be stored.
        path: Where it is, for the error.

    Raises:
        StateValueError: The value, or one inside it, cannot be stored; the error names its path.
    """
    found = _refusal(value)
    if found is not None:
        raise StateValueError((*path, *found[0]), found[1])


def check_values(values: Mapping[str, object]) -> None:
    """Refuse values of state that could not be stored; those of ``temp:`` names may be anything.

    Raises:
        StateValueError: A name is no string, or a value cannot be stored; the error names its path.
    """
    for name, value in values.items():
        if type(name) is not str:
            kind = type(name).__qualname__
            raise StateValueError((repr(name),), f"a name must be a str, not {kind}")
        if not is_temporary(name) and value is not DELETE and type(value) is not bytes:
            check_json(value, (name,))


def without_slack(data: bytes) -> bytes:
    """Return encoded bytes without the spare memory that msgspec leaves behind them.

    It leaves up to half as much again behind them (0.20 to 0.22), which matters where large ones
    are kept or wait; a small one is not worth the copy.
    """
    return bytes(memoryview(data)) if len(data) > LARGE else data


def encode_value(name: str, value: object, limit: int) -> bytes:
    """Encode one state value.

    Args:
        name: The value's name, for the error.
        value: Anything JSON can hold, or ``bytes``.
        limit: The largest encoded size in bytes.

    Raises:
        StateValueError: The value cannot be stored; the error names its path.
        StateValueTooLargeError: It is over *limit*.
    """
    if type(value) is bytes:
        data = _RAW_MARK + value
    else:
        check_json(value, (name,))
        data = without_slack(_encoder.encode(value))
    if len(data) > limit:
        raise StateValueTooLargeError((name,), len(data), limit)
    return data


def decode_value(data: bytes) -> Any:
    """Decode what :func:`encode_value` made.

    Raises:
        msgspec.DecodeError: The bytes are no value of ours.
    """
    if data.startswith(_RAW_MARK):
        return data[1:]
    return _decoder.decode(data)


def decode_scope(
    scope: Mapping[str, bytes], subject: SessionKey | UserKey | str, prefix: str = ""
) -> dict[str, Any]:
    """Decode all values of one scope, and put its prefix before their names.

    Raises:
        CodecError: A value is no value of ours; the error names *subject* and the value.
    """
    state: dict[str, Any] = {}
    for name, data in scope.items():
        try:
            state[prefix + name] = decode_value(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise CodecError(
                subject, f"the stored state value {brief(name)} is unreadable: {exc}"
            ) from exc
    return state


def _check_name(name: str, full: str) -> None:
    if type(full) is not str:
        raise StateValueError((repr(full),), f"a name must be a str, not {type(full).__qualname__}")
    if not name:
        raise StateValueError((full,), "the name is empty")
    _check_prefix(name, full)
    found = _string_refusal(full)
    if found is not None:
        raise StateValueError((full,), f"the name cannot be stored: {found[1]}")
    if len(full) > LONGEST_NAME // 4 and len(full.encode()) > LONGEST_NAME:
        raise StateValueError((full,), f"a name takes up to {LONGEST_NAME:,} bytes; it is no value")


def _check_prefix(name: str, full: str) -> None:
    """Refuse a name that has a second prefix after the first."""
    bare = name
    while bare.startswith(_PREFIXES):
        bare = bare.partition(":")[2]
    if bare != name:
        advice = brief(full.removesuffix(name) + bare)
        raise StateValueError((full,), f"the name has the prefixes of two scopes; write {advice}")


def split(delta: Mapping[str, object], limit: int) -> Changes:
    """Route each name to its scope, without its prefix, and encode its value.

    Names of the scope ``temp:`` are left out.

    Args:
        delta: Name to value, or to :data:`DELETE`.
        limit: The largest encoded size of one value in bytes.

    Raises:
        StateValueError: A name or a value cannot be stored; the error names its path.
    """
    if not delta:
        return NO_CHANGES
    changes = Changes()
    for full, value in delta.items():
        add_change(changes, full, value, limit)
    return changes


def add_change(changes: Changes, full: str, value: object, limit: int) -> None:
    """Add one name of a delta to what :func:`split` makes of it.

    Raises:
        StateValueError: The name or the value cannot be stored; the error names its path.
    """
    scope, name = changes.session, full
    if type(full) is str:
        if full.startswith(TEMP_PREFIX):
            _check_prefix(full[len(TEMP_PREFIX) :], full)
            return
        if full.startswith(APP_PREFIX):
            scope, name = changes.app, full[len(APP_PREFIX) :]
        elif full.startswith(USER_PREFIX):
            scope, name = changes.user, full[len(USER_PREFIX) :]
    if (
        not (name and type(full) is str and full.isascii())
        or name.startswith(_PREFIXES)
        or len(full) > LONGEST_NAME
    ):
        _check_name(name, full)
    scope[name] = None if value is DELETE else encode_value(full, value, limit)


def add_scope_change(
    changes: ScopeChanges, prefix: Literal["app:", "user:"], full: str, value: object, limit: int
) -> None:
    """Encode a change to the application's or the user's scope alone.

    A name may carry the scope's own prefix, or none; both mean the same value.

    Args:
        changes: Takes the change.
        prefix: The scope's own.
        full: The name.
        value: What it is to be, or :data:`DELETE`.
        limit: The largest encoded size of the value in bytes.

    Raises:
        StateValueError: The name belongs to another scope, or it or the value cannot be stored.
    """
    name = full
    if type(full) is str:
        name = full.removeprefix(prefix)
        if name is full and full.startswith(_PREFIXES):
            raise StateValueError((full,), f"the name belongs to another scope than {prefix!r}")
    _check_name(name, full)
    changes[name] = None if value is DELETE else encode_value(full, value, limit)
