"""Following sessions: what is stored already, then what comes, from any process.

::

    async with service.subscribe(key, after_seq=position) as subscription:
        async for item in subscription:
            match item:
                case Event(partial=True):
                    ...  # a chunk of a stream, stored nowhere
                case Event():
                    ...  # stored, each exactly once and in the order of the log
                case Rewound(to_seq=to_seq):
                    ...  # what came after that event is taken back
                case Trimmed(oldest_seq=oldest_seq):
                    ...  # some events before that one have left the log unseen
                case Ended(reason=reason):
                    ...  # the last item

A follower reads the log, by positions, and is only woken by what the store tells: so a message that
is lost loses no event, and a follower that is slow, or stands still, holds up nobody.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from msgspec import Struct

from agentsession._misuse import AsyncContext
from agentsession.events import Event
from agentsession.sessions import SessionKey

if TYPE_CHECKING:
    from agentsession.sessions import UserKey

__all__ = [
    "Ended",
    "Followed",
    "Missed",
    "Rewound",
    "SessionNews",
    "Subscription",
    "Trimmed",
    "UserSubscription",
    "What",
]


class Trimmed(Struct, frozen=True, tag="trimmed"):
    """The event limit has taken events out of the log that this follower has not had.

    Attributes:
        oldest_seq: The position of the oldest event that is left; those from there on follow.
    """

    oldest_seq: int


class Rewound(Struct, frozen=True, tag="rewound"):
    """The session went back to an earlier event; see :meth:`agentsession.SessionService.rewind`.

    Attributes:
        seq: The position of the rewind's own mark in the log.
        to_seq: The event to which it went back. All after it, and before *seq*, are taken back.
        restores_state: Whether the session's state went back as well.
    """

    seq: int
    to_seq: int
    restores_state: bool


class Ended(Struct, frozen=True, tag="ended"):
    """There is nothing more to follow; no item comes after this one.

    Attributes:
        reason: ``"deleted"``; ``"expired"``, or deleted without this follower having been told;
            ``"replaced"``: another session has its id now, or its log does not hold any more what
            this follower has had, as after a failover that lost events. Whoever wants to go on
            follows the new one, from its beginning.
    """

    reason: Literal["deleted", "expired", "replaced"]


Followed: TypeAlias = Event | Trimmed | Rewound | Ended
"""What a :class:`Subscription` gives."""


class Subscription(AsyncContext, AsyncIterator[Followed]):
    """Follows one session, within ``async with``; ``service.subscribe()`` makes it.

    It is iterated over by one task. Where the store cannot be reached for longer than the service's
    timeout, :exc:`~agentsession.errors.BackendUnavailableError` is raised; iterating anew goes on
    where it was.

    Attributes:
        key: The session.
    """

    key: SessionKey

    @property
    @abstractmethod
    def position(self) -> int:
        """The position up to which all was handed out, for a later ``after_seq``.

        It moves with each event, with :class:`Rewound` and with :class:`Trimmed`.
        """

    @property
    @abstractmethod
    def incarnation(self) -> str:
        """Which session it is, once it is followed; see :class:`~agentsession.Session`."""

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @abstractmethod
    async def aclose(self) -> None:
        """Follow no more; may be called again, and from another task: iterating ends then."""


What: TypeAlias = Literal["created", "written", "run_began", "run_ended", "deleted"]
"""What may happen to a session."""


class SessionNews(Struct, frozen=True, tag="session"):
    """Something has happened to a session of a user.

    Attributes:
        key: The session.
        what: ``"created"``, ``"deleted"``, or ``"written"`` for any write to its log or its state.
            ``"run_began"``: a turn has the session; ``"run_ended"``: it has no longer, or waits for
            somebody; most end with a write, of which nothing else is told then.
        run_id: That turn; else ``""``.
    """

    key: SessionKey
    what: What
    run_id: str = ""


class Missed(Struct, frozen=True, tag="missed"):
    """Some news may have been missed: list the user's sessions anew.

    It comes first, too: what is listed after it, and the news that follow, leave nothing out.
    """


class UserSubscription(AsyncContext, AsyncIterator[SessionNews | Missed]):
    """Follows all sessions of a user; ``service.subscribe_user()`` makes it.

    News are not kept anywhere: where some may be lost, because a connection was, or because they
    are not taken for too long, :class:`Missed` says so. That a session expires is not told.

    Attributes:
        key: The user.
    """

    key: UserKey

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @abstractmethod
    async def aclose(self) -> None:
        """Follow no more; may be called again, and from another task: iterating ends then."""
