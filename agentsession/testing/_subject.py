"""What a backend's author gives to the checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from agentsession.events import new_id
from agentsession.memory import MemoryBackend
from agentsession.retention import DEFAULT_READ_SIZE, MEBIBYTE, Duration, Retention
from agentsession.service import SessionService
from agentsession.sessions import SessionKey, UserKey

if TYPE_CHECKING:
    from agentsession.backend import Backend

__all__ = ["ManualClock", "MemorySubject", "Subject"]


class ManualClock:
    """A clock that stands still until it is told to move.

    Args:
        now: Where it stands, in microseconds since the epoch; the year 2026 by default.
    """

    def __init__(self, now: int = 1_767_225_600_000_000) -> None:
        self.now: int = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock, forward or backward."""
        self.now += round(seconds * 1_000_000)


class Subject(ABC):
    """Data of its own for one check, and the means to open it and to let time pass over it.

    A check gets a fresh one, with nothing stored, and closes it: ``async with``.
    """

    def __init__(self) -> None:
        self._services: list[SessionService] = []
        self.user: UserKey = UserKey("app", "user")
        self.key: SessionKey = SessionKey("app", "user", "session")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for service in reversed(self._services):
            await service.aclose()

    @abstractmethod
    def open(self, retention: Retention) -> Backend:
        """Open a backend, as another process would.

        Backends that are opened with equal *retention* hold the same data.
        """

    @abstractmethod
    async def advance(self, seconds: float) -> None:
        """Let time pass for everything that is stored, so that it expires as it would."""

    @abstractmethod
    async def set_clock_back(self, seconds: float) -> None:
        """Let the store's clock go back, as an administrator or another server's clock does.

        A subject whose clock it cannot move makes all that is stored so many seconds newer instead,
        so moments that were read before do not compare with those that are read afterwards.
        """

    @abstractmethod
    async def unexpiring(self) -> list[str]:
        """Name everything that is stored and would never expire."""

    def service(
        self,
        *,
        event_limit: int | None = 1000,
        session_ttl: Duration = None,
        app_state_ttl: Duration = None,
        user_state_ttl: Duration = None,
        refresh_ttl_on_read: bool = False,
        max_event_size: int = MEBIBYTE,
        max_value_size: int = MEBIBYTE,
        max_read_size: int | None = DEFAULT_READ_SIZE,
    ) -> SessionService:
        """Open a service, which is closed with the subject."""
        retention = Retention.of(
            session_event_limit=event_limit,
            session_ttl=session_ttl,
            app_state_ttl=app_state_ttl,
            user_state_ttl=user_state_ttl,
            refresh_ttl_on_read=refresh_ttl_on_read,
        )
        service = SessionService(
            self.open(retention),
            max_event_size=max_event_size,
            max_value_size=max_value_size,
            max_read_size=max_read_size,
        )
        self._services.append(service)
        return service

    def another_key(self) -> SessionKey:
        """Return the key of a new session of the same user."""
        return SessionKey(self.user.app_name, self.user.user_id, new_id())


class MemorySubject(Subject):
    """The memory backend under a manual clock."""

    def __init__(self) -> None:
        super().__init__()
        self.clock: ManualClock = ManualClock()
        self._backends: dict[Retention, MemoryBackend] = {}

    def open(self, retention: Retention) -> Backend:
        if retention not in self._backends:
            self._backends[retention] = MemoryBackend(retention, clock=self.clock)
        return self._backends[retention]

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def set_clock_back(self, seconds: float) -> None:
        self.clock.advance(-seconds)

    async def unexpiring(self) -> list[str]:
        return [name for backend in self._backends.values() for name in backend.unexpiring()]
