"""Checks of what callers pass in, each with an error that says what was expected. Pure; no I/O."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from agentsession.backend import Position, ReadLimit, Window
from agentsession.clock import to_microseconds
from agentsession.events import Event, ToolResult
from agentsession.observers import Observer
from agentsession.retention import LARGEST, MEBIBYTE, positive
from agentsession.sessions import Session, SessionKey, UserKey

# The most that one call may write. While a server takes a call in, it serves no other client:
# for seconds with 128 MiB. Redis also closes a connection that sends a gigabyte at once, and
# Redis 6 one that sends a million words.
_MOST_BYTES: Final = 64 * MEBIBYTE
_MOST_NAMES: Final = 100_000

_Place = TypeVar("_Place", Position, "AppPosition", str)


def check_write(
    written: Collection[bytes | None], names: int, largest: int, named: int = 0
) -> None:
    """Check how much one call writes.

    Args:
        written: The encoded events, or values of state.
        names: How many names of state are changed.
        largest: The size limit of each of *written*; if there are so few of them that they cannot
            exceed the limit together, they are not measured.
        named: How many characters these names have, if they are not part of *written*.
    """
    if names > _MOST_NAMES:
        msg = f"one call changes up to {_MOST_NAMES:,} names of state, not {names:,}; use several"
        raise ValueError(msg)
    if named > _MOST_BYTES:
        msg = f"names of state in one call take up to {_MOST_BYTES:,} characters, not {named:,}"
        raise ValueError(msg)
    if len(written) * largest > _MOST_BYTES:
        size = sum(map(len, filter(None, written)))
        if size > _MOST_BYTES:
            msg = (
                f"one call writes up to {_MOST_BYTES:,} bytes, not {size:,}; use several, and keep "
                "large content elsewhere"
            )
            raise ValueError(msg)


def natural(name: str, value: int) -> int:
    """Check a number that may be 0; anything above :data:`LARGEST` is lowered to it."""
    if type(value) is not int:
        msg = f"{name} must be an int, not {type(value).__qualname__}: {value!r:.80}"
        raise TypeError(msg)
    if value < 0:
        msg = f"{name} must not be negative: {value}"
        raise ValueError(msg)
    return min(value, LARGEST)


def optional_natural(name: str, value: int | None) -> int | None:
    """Check a number that may be left out."""
    return None if value is None else natural(name, value)


def at_most(name: str, value: int, most: int) -> int:
    """Check the size of a page or of a batch."""
    if positive(name, value) > most:
        msg = f"{name} must be from 1 to {most:,}, not {value}"
        raise ValueError(msg)
    return value


def check_observers(observers: Sequence[Observer]) -> tuple[Observer, ...]:
    """Check the observers of a service."""
    if not isinstance(observers, Sequence):
        kind = type(observers).__qualname__
        msg = f"observers must be a list of observers, not {kind}: {observers!r:.80}"
        raise TypeError(msg)
    for each in observers:
        if isinstance(each, type) or not isinstance(each, Observer):
            msg = (
                f"an observer is an object with the methods on_operation() and on_notice(), not "
                f"{each!r:.80}; make one of a class that inherits agentsession.observers.Observer"
            )
            raise TypeError(msg)
        if any(map(inspect.iscoroutinefunction, (each.on_operation, each.on_notice))):
            msg = (
                f"on_operation() and on_notice() of {type(each).__qualname__} must be plain "
                "functions, not async ones: they are called between two steps of the event loop"
            )
            raise TypeError(msg)
    return tuple(observers)


def check_app(app_name: str) -> None:
    """Check an application's name as keys check theirs."""
    UserKey(app_name, "-")


def check_user(user_key: UserKey) -> None:
    """Check a user's key; a :class:`SessionKey` is refused."""
    if not isinstance(user_key, UserKey):
        kind = type(user_key).__qualname__
        advice = "; pass its property user" if isinstance(user_key, SessionKey) else ""
        msg = f"expected a UserKey(app_name, user_id), not {kind}: {user_key!r:.80}{advice}"
        raise TypeError(msg)


def check_session(key: SessionKey) -> SessionKey:
    """Check the key of a session that exists."""
    if not isinstance(key, SessionKey):
        raise TypeError(_no_session_key(key))
    if not key.session_id:
        msg = f"the session_id is empty; only creating a session can do without: {key!r:.200}"
        raise ValueError(msg)
    return key


def _no_session_key(found: object) -> str:
    kind = type(found).__qualname__
    advice = ""
    if inspect.isawaitable(found):
        advice = "; an await is missing"
    elif isinstance(found, Session):
        advice = "; pass its key"
    elif isinstance(found, UserKey):
        advice = "; it names a user, who has many sessions"
    elif found is None:
        advice = (
            "; get_session() returns None if there is no session, get_or_create_session() never"
        )
    return (
        f"expected a SessionKey(app_name, user_id, session_id), not {kind}: {found!r:.80}{advice}"
    )


def check_event(event: Event) -> None:
    """Check that what is to be stored is an event; its fields are checked where it is encoded."""
    if not isinstance(event, Event):
        found = event.__name__ if isinstance(event, type) else type(event).__qualname__
        kind = f"the class {found}" if isinstance(event, type) else found
        msg = f"expected an agentsession.Event, not {kind}: {event!r:.80}{_no_event(event)}"
        raise TypeError(msg)
    if event.rewind is not None:
        msg = (
            f"event {event.id!r:.80} is the mark of a rewind, which only the store makes; call "
            "rewind(), or append_events() with rewind_to"
        )
        raise ValueError(msg)


def _no_event(found: object) -> str:
    """Say how to make an event of what was passed as one."""
    if isinstance(found, str):
        return "; write Event(author='user', content=...)"
    if isinstance(found, type):
        return "; make one: Event(author='user', content='Hello')"
    if isinstance(found, Mapping):
        return "; Event.from_dict() makes one of a dict that to_dict() has made"
    if isinstance(found, list | tuple):
        return "; append_events() takes several"
    return "; an await is missing" if inspect.isawaitable(found) else ""


def check_flag(name: str, value: bool) -> None:  # noqa: FBT001 - a flag is what it checks
    """Check that a flag is one."""
    if not isinstance(value, bool):
        msg = f"{name} must be True or False, not {type(value).__qualname__}: {value!r:.80}"
        raise TypeError(msg)


def check_batch(events: Iterable[Event], most: int) -> list[Event]:
    """Check that several events were given, and not too many; the events are checked later."""
    if isinstance(events, Event):
        msg = "append_events() takes several events, not one Event; append_event() takes one"
        raise TypeError(msg)
    given = list(events)
    if len(given) > most:
        msg = f"a batch holds up to {most:,} events, not {len(given):,}; append in pieces"
        raise ValueError(msg)
    return given


def check_results(results: Sequence[ToolResult]) -> list[ToolResult]:
    """Check that results of tools were given."""
    if isinstance(results, ToolResult):
        msg = "a turn goes on with several results; pass a list of them"
        raise TypeError(msg)
    given = [*results]
    for each in given:
        if not isinstance(each, ToolResult):
            kind = type(each).__qualname__
            msg = f"expected an agentsession.ToolResult, not {kind}: {each!r:.80}"
            raise TypeError(msg)
    if not given:
        msg = "a turn that waits goes on with at least one result"
        raise ValueError(msg)
    return given


def check_state(state: Mapping[str, Any]) -> None:
    """Check that state is a mapping; its values are checked where they are encoded."""
    if type(state) is not dict and not isinstance(state, Mapping):
        kind = type(state).__qualname__
        msg = f"state must be a mapping of names to values, not {kind}: {state!r:.80}"
        raise TypeError(msg)


def window(
    num_recent_events: int | None,
    since: datetime | None,
    after_seq: int | None,
    read_limit: ReadLimit | None,
) -> Window:
    """Combine the bounds on the events of a session."""
    last = optional_natural("num_recent_events", num_recent_events)
    return Window(
        after_seq=0 if after_seq is None else natural("after_seq", after_seq),
        since=None if since is None else _moment("since", since),
        last=last,
        read_limit=read_limit,
    )


def _moment(name: str, value: datetime) -> int:
    if not isinstance(value, datetime):
        msg = f"{name} must be a datetime, not {type(value).__qualname__}: {value!r:.80}"
        raise TypeError(msg)
    if value.utcoffset() is None:
        msg = f"{name} must be aware, with a time zone such as datetime.UTC: {value!r}"
        raise ValueError(msg)
    return to_microseconds(value)


class AppPosition(Struct, frozen=True, array_like=True):
    """A place in a list of all sessions of an application: within a user's, or behind them."""

    user_id: str
    place: Position | None


def encode_cursor(place: Position | AppPosition | str) -> str:
    """Encode a place in a list as a string that is safe in a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def decode_cursor(cursor: str, kind: type[_Place], page: str) -> _Place:
    """Decode a string that :func:`encode_cursor` made of a place of this kind.

    Raises:
        ValueError: It is none of these; *page* is the class that they come from.
    """
    try:
        raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
        place = msgspec.json.decode(raw, type=kind)
        if encode_cursor(place) == cursor and _in_range(place):
            return place
    except (msgspec.MsgspecError, ValueError, TypeError):
        pass
    msg = f"cursor is no next_cursor of a {page}: {cursor!r:.80}; the first page needs none"
    raise ValueError(msg)


def _in_range(place: Position | AppPosition | str) -> bool:
    if isinstance(place, AppPosition):
        return place.place is None or _in_range(place.place)
    return isinstance(place, str) or 0 <= place.updated <= LARGEST
