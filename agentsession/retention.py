"""How much is kept, and for how long."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final, TypeAlias

from msgspec import Struct

from agentsession._wording import brief

__all__ = [
    "DEFAULT_EVENT_LIMIT",
    "DEFAULT_READ_SIZE",
    "LARGEST",
    "MEBIBYTE",
    "Duration",
    "Retention",
    "positive",
    "seconds",
]

DEFAULT_EVENT_LIMIT: Final = 1000
"""How many events a session keeps unless a service is told otherwise, as in tRPC-Agent-Go."""

MEBIBYTE: Final = 1 << 20
"""In bytes; the largest event and the largest state value unless a service is told otherwise."""

DEFAULT_READ_SIZE: Final = 64 * MEBIBYTE
"""The most events that one read returns unless a service is told otherwise, in bytes."""

LARGEST: Final = 2**53 - 1
"""The largest number that a store counts to, since a script on Redis counts in doubles."""

Duration: TypeAlias = float | timedelta | None
"""Seconds, or a timedelta; ``None`` and 0 mean never."""

# A century: far past any use, and far below what PEXPIRE refuses.
_LONGEST: Final = 100 * 365 * 86_400


def seconds(name: str, duration: Duration) -> float | None:
    """Convert a duration to seconds; ``None`` stands for never.

    Args:
        name: The option's name, for the error.
        duration: What the user gave.

    Raises:
        TypeError: It is no number and no timedelta.
        ValueError: It is negative, not finite, or over 100 years.
    """
    if duration is None:
        return None
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, (int, float)) and not isinstance(duration, bool):
        value = duration
    else:
        kind = type(duration).__qualname__
        msg = f"{name} must be seconds or a timedelta, not {kind}: {duration!r}"
        raise TypeError(msg)
    if not 0 <= value <= _LONGEST:
        msg = f"{name} must be from 0 (never) to 100 years in seconds, not {brief(duration)}"
        raise ValueError(msg)
    return float(value) or None


def _milliseconds(name: str, duration: Duration) -> int:
    """Convert to whole milliseconds, at least one; 0 stands for never.

    That is what Redis counts expiry in. Microseconds in between keep 2.007 seconds from becoming
    2,008 milliseconds.
    """
    value = seconds(name, duration)
    return 0 if value is None else max(1, math.ceil(round(value * 1_000_000) / 1000))


class Retention(Struct, frozen=True, kw_only=True):
    """What a backend keeps: the limit of a log, and the life of each scope after a write to it.

    Attributes:
        event_limit: The most events a session's log holds; 0 for no limit.
        session_ttl: Milliseconds a session lives after the last write to it; 0 for ever.
        app_state_ttl: Milliseconds an application's state lives after the last write to it; 0 for
            ever.
        user_state_ttl: Milliseconds a user's state lives after the last write to it; 0 for ever.
        refresh_on_read: Whether reading a scope counts as a write to it, for its life.
    """

    event_limit: int = 0
    session_ttl: int = 0
    app_state_ttl: int = 0
    user_state_ttl: int = 0
    refresh_on_read: bool = False

    @classmethod
    def of(
        cls,
        *,
        session_event_limit: int | None,
        session_ttl: Duration,
        app_state_ttl: Duration,
        user_state_ttl: Duration,
        refresh_ttl_on_read: bool,
    ) -> Retention:
        """Make one from the options that users give to a service.

        Raises:
            TypeError: An option has the wrong type.
            ValueError: An option is out of its range.
        """
        if not isinstance(refresh_ttl_on_read, bool):
            msg = f"refresh_ttl_on_read must be True or False, not {refresh_ttl_on_read!r}"
            raise TypeError(msg)
        return cls(
            event_limit=0
            if session_event_limit is None
            else positive("session_event_limit", session_event_limit),
            session_ttl=_milliseconds("session_ttl", session_ttl),
            app_state_ttl=_milliseconds("app_state_ttl", app_state_ttl),
            user_state_ttl=_milliseconds("user_state_ttl", user_state_ttl),
            refresh_on_read=refresh_ttl_on_read,
        )

    @property
    def expires(self) -> bool:
        """Whether anything expires at all."""
        return bool(self.session_ttl or self.app_state_ttl or self.user_state_ttl)


def positive(name: str, value: int) -> int:
    """Check a number that must be 1 or more; anything above :data:`LARGEST` is lowered to it.

    Raises:
        TypeError: It is no int.
        ValueError: It is less than 1.
    """
    if type(value) is not int:
        msg = f"{name} must be an int, not {type(value).__qualname__}: {value!r}"
        raise TypeError(msg)
    if value < 1:
        msg = f"{name} must be 1 or more, not {value}"
        raise ValueError(msg)
    return min(value, LARGEST)
