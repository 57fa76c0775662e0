"""Points in time as the store counts them: whole microseconds since 1970-01-01 UTC.

A double holds them exactly until the year 2255, which is why a Redis score can be one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

__all__ = ["Clock", "from_microseconds", "system_clock", "to_microseconds", "utc_now"]

Clock: TypeAlias = Callable[[], int]
"""Returns the present, in microseconds since the epoch; the in-memory service takes one."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def system_clock() -> int:
    """Return the machine's wall clock, as a Redis server reads its own."""
    return time.time_ns() // 1000


def utc_now() -> datetime:
    """Return the present as an aware datetime."""
    return datetime.now(UTC)


def to_microseconds(moment: datetime) -> int:
    """Convert an aware datetime exactly, without floating point."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """Convert to an aware datetime in UTC."""
    return _EPOCH + timedelta(0, 0, microseconds)
