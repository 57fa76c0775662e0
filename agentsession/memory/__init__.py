"""Sessions in this process's memory: for development, tests, and programs of one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentsession._service.arguments import check_observers
from agentsession.clock import Clock, system_clock
from agentsession.memory._backend import MemoryBackend
from agentsession.retention import (
    DEFAULT_EVENT_LIMIT,
    DEFAULT_READ_SIZE,
    MEBIBYTE,
    Duration,
    Retention,
    seconds,
)
from agentsession.service import SessionService

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.observers import Observer

__all__ = ["InMemorySessionService", "MemoryBackend"]

_DEFAULT_CLEANUP_INTERVAL: Final = 300.0


class InMemorySessionService(SessionService):
    """Sessions in this process's memory: for development, tests, and programs of one process.

    They are gone when the process ends. Everything else behaves as on Redis, to the byte.

    Args:
        session_event_limit: How many events a session keeps, 1 or more; beyond that the oldest are
            dropped. ``None`` for no limit.
        session_ttl: Seconds (or a timedelta) that a session lives after the last write to it;
            ``None`` or 0 for ever.
        app_state_ttl: The same for an application's state.
        user_state_ttl: The same for a user's state.
        refresh_ttl_on_read: Whether reading extends the life of what is read, as writing does.
        cleanup_interval: Seconds (or a timedelta) between two sweeps that free expired data.
            ``None`` means 5 minutes when any time to live is set, and no sweeper otherwise. Expiry
            is exact with or without it.
        max_event_size: The largest encoded event, in bytes.
        max_value_size: The largest encoded state value, in bytes.
        max_read_size: How much one read may return, in bytes of encoded events in all; ``None`` for
            any amount.
        observers: Objects that are told of each operation and of what is swept; see
            :mod:`agentsession.observers`.
        clock: Returns the time in microseconds since 1970; tests may pass one of their own.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        *,
        session_event_limit: int | None = DEFAULT_EVENT_LIMIT,
        session_ttl: Duration = None,
        app_state_ttl: Duration = None,
        user_state_ttl: Duration = None,
        refresh_ttl_on_read: bool = False,
        cleanup_interval: Duration = None,
        max_event_size: int = MEBIBYTE,
        max_value_size: int = MEBIBYTE,
        max_read_size: int | None = DEFAULT_READ_SIZE,
        observers: Sequence[Observer] = (),
        clock: Clock = system_clock,
    ) -> None:
        retention = Retention.of(
            session_event_limit=session_event_limit,
            session_ttl=session_ttl,
            app_state_ttl=app_state_ttl,
            user_state_ttl=user_state_ttl,
            refresh_ttl_on_read=refresh_ttl_on_read,
        )
        interval = seconds("cleanup_interval", cleanup_interval)
        if interval is None and retention.expires:
            interval = _DEFAULT_CLEANUP_INTERVAL
        observers = check_observers(observers)
        backend = MemoryBackend(
            retention, cleanup_interval=interval, clock=clock, observers=observers
        )
        super().__init__(
            backend,
            max_event_size=max_event_size,
            max_value_size=max_value_size,
            max_read_size=max_read_size,
            observers=observers,
        )
