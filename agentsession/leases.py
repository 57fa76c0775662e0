"""The right to write a turn to a session, alone: one at a time, across processes.

::

    async with service.lease(key) as lease:
        ...
        await service.append_event(key, event, lease=lease)

Two turns of one session that run at once ruin each other's history. Whoever has the session's lease
is the only one who writes a turn to it. The store checks that with each write, in the same step: a
process that stood still while its lease ran out stores nothing more into a turn that is not its
own any longer.

A lease lives for its ``ttl`` and is renewed by itself. A process that dies loses it when that time
has passed; whoever comes next takes over and closes the turn that was left, so that every call of a
tool has a result and every turn an end. :class:`~agentsession.Runner` does all this by itself.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal, NoReturn, Self, TypeAlias

from msgspec import Struct

from agentsession._misuse import AsyncContext
from agentsession.events import Event
from agentsession.sessions import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentsession.sessions import SessionKey

__all__ = ["Lease", "Told", "TurnStart"]

Told: TypeAlias = Literal["cancelled", "interrupted", "lost"]
"""Why a turn has to stop.

Somebody asked for it, another turn takes its place, or its lease is lost."""


class TurnStart(Struct, frozen=True):
    """How a turn began.

    Attributes:
        session: The session, with the message.
        message: The message, as it is stored.
        is_repeat: Whether the message had been stored before, by an earlier turn with its id.
    """

    session: Session
    message: Event
    is_repeat: bool


class Lease(AsyncContext):
    """The right to write a turn to a session, which ``service.lease()`` makes.

    It is taken at the beginning of an ``async with`` block, and given back at its end; an event
    with an ``outcome`` that is appended with it gives it back earlier, in the same step. Each is
    used once.

    Attributes:
        key: The session.
        run_id: The turn. Events that are appended with the lease and have no ``invocation_id`` get
            it as theirs.
        owner: Unique to this lease.
    """

    def __init__(self, key: SessionKey, run_id: str, owner: str) -> None:
        self.key: SessionKey = key
        self.run_id: str = run_id
        self.owner: str = owner

    if not TYPE_CHECKING:  # As in agentsession._misuse.

        def __await__(self) -> NoReturn:
            msg = "a lease is not awaited; write 'async with service.lease(...) as lease'"
            raise TypeError(msg)

    @property
    @abstractmethod
    def token(self) -> int:
        """A fencing token, a number larger than that of every earlier lease of the session.

        So it is for the leases of a session that was made anew, as long as the store's clock did
        not go back. Another store that keeps the largest one it has seen can refuse what comes from
        an earlier turn. 0 before the lease is taken.
        """

    @property
    @abstractmethod
    def incarnation(self) -> str:
        """Which session it is of; see :class:`~agentsession.Session`."""

    @property
    @abstractmethod
    def held(self) -> bool:
        """Whether the lease is held, as far as it is known here."""

    @property
    @abstractmethod
    def told(self) -> Told | None:
        """Why the turn has to stop; ``None`` if it may go on."""

    @property
    def lost(self) -> bool:
        """Whether it ran out, or was taken over, so that the turn can store nothing more."""
        return self.told == "lost"

    @abstractmethod
    async def wait_until_told(self) -> Told:
        """Wait until the turn has to stop, and return why."""

    @abstractmethod
    def when_told(self, call: Callable[[Told], None]) -> None:
        """Have a function called when the turn has to stop, instead of waiting for that.

        It is called once for each reason, on the event loop, and at once if there is one already.
        """

    @abstractmethod
    async def acquire(self) -> None:
        """Take the lease, as ``async with`` does at the beginning.

        A turn that was left unended is closed first, as ``service.close_turn()`` does.

        Raises:
            SessionBusyError: Another turn has it, and *when_busy* or *wait* says not to wait, or
                not any longer.
            SessionNotFoundError: The session does not exist, or was made anew.
            RuntimeError: The lease was used before.
        """

    @abstractmethod
    async def release(self) -> None:
        """Give the lease back, as ``async with`` does at the end; may be called again.

        It is no error if the store cannot be reached: then the lease runs out by itself.
        """

    @abstractmethod
    def abandon(self) -> None:
        """Renew the lease no more, and do not give it back: it runs out.

        For a turn whose end cannot be stored: whoever comes next closes it.
        """

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.release()
