"""What callers who block use within ``with``: leases and subscriptions."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar

from agentsession.errors import ClosedError, EventLoopError
from agentsession.subscriptions import Followed, Missed, SessionNews

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from agentsession.leases import Lease
    from agentsession.service import SessionService
    from agentsession.sessions import SessionKey, UserKey
    from agentsession.subscriptions import Subscription, UserSubscription

__all__ = ["BlockingLease", "BlockingSubscription", "BlockingUserSubscription"]

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


class _Service(Protocol):
    """A service for callers who block."""

    def call(self, function: Callable[[SessionService], Coroutine[Any, Any, _T]], /) -> _T: ...


_Work: TypeAlias = "Callable[[], Coroutine[Any, Any, None]]"
_Wait: TypeAlias = "Callable[[_Work, _Work], None]"


class _Followed(Protocol[_T_co]):
    """Either kind of subscription."""

    def __aenter__(self) -> Coroutine[Any, Any, object]: ...

    def __anext__(self) -> Awaitable[_T_co]: ...

    def aclose(self) -> Coroutine[Any, Any, None]: ...


class _End:
    """Comes when there are no more items."""


class BlockingLease(AbstractContextManager["Lease"]):
    """The right to write a turn to a session, which ``with`` takes and gives back.

    ``BlockingSessionService.lease()`` makes it.

    Attributes:
        lease: What is passed to methods of the service, as ``lease=``; ``with`` gives it too.
    """

    def __init__(self, wait: _Wait, lease: Lease) -> None:
        self._wait = wait
        self.lease: Lease = lease

    def __enter__(self) -> Lease:
        # Where this is interrupted there is no __exit__(), and a lease that was taken by then would
        # be renewed for ever.
        self._wait(self.lease.acquire, self.lease.release)
        return self.lease

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the lease back; may be called again."""
        self._wait(self.lease.release, self.lease.release)


class _Follower(Iterator[_T], Generic[_T]):
    """A subscription that is iterated over from another thread than the service's."""

    def __init__(self, service: _Service, subscription: _Followed[_T]) -> None:
        self._service = service
        self._followed = subscription
        self._is_entered = False
        self._is_over = False
        self._process = os.getpid()
        # Of a kind that leaves it to whoever was interrupted with it.
        self._taking = threading.RLock()
        # The next item, until it is in the hands of who asked for it; on the service's loop.
        self._kept: list[_T] = []
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._followed!r}>"

    def __enter__(self) -> Self:
        is_first, self._is_entered = not self._is_entered, True
        try:
            self._service.call(lambda _: self._followed.__aenter__())
        except BaseException:
            if is_first:
                self.close()  # It may have been entered by the time of an interruption.
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __next__(self) -> _T:
        if self._is_over:
            raise StopIteration
        if not self._is_entered:
            msg = f"{self!r}: not followed yet; iterate over it within 'with'"
            raise RuntimeError(msg)
        if self._process != os.getpid():
            raise EventLoopError(problem="forked")
        if not self._taking.acquire(blocking=False):
            msg = f"{self!r}: another thread waits for the next item; one subscription each"
            raise RuntimeError(msg)
        try:
            item = self._service.call(self._next)
            self._kept.clear()
        finally:
            self._taking.release()
        if isinstance(item, _End):
            self._is_over = True
            raise StopIteration
        return item

    async def _next(self, _: SessionService) -> _T | _End:
        async with self._turn:  # Who was interrupted may not be done with it yet.
            if not self._kept:
                try:
                    self._kept.append(await self._take())
                except StopAsyncIteration:
                    return _End()
            return self._kept[0]

    async def _take(self) -> _T:
        return await self._followed.__anext__()

    def close(self) -> None:
        """Follow no more; may be called again, and from another thread: iterating ends then."""
        with suppress(ClosedError):  # The service has closed it already.
            self._service.call(lambda _: self._followed.aclose())
        self._is_over = True


class BlockingSubscription(_Follower[Followed], AbstractContextManager["BlockingSubscription"]):
    """Follows one session, within ``with``; ``BlockingSessionService.subscribe()`` makes it.

    It is iterated over by one thread, which waits for each item: for as long as nothing happens,
    unless another thread calls :meth:`close`. Whoever is interrupted meanwhile, as by
    ``KeyboardInterrupt``, may go on iterating and misses nothing. Else it is as
    :class:`~agentsession.subscriptions.Subscription`.
    """

    def __init__(self, service: _Service, subscription: Subscription) -> None:
        super().__init__(service, subscription)
        self._subscription = subscription
        self._before = 0

    async def _take(self) -> Followed:
        self._before = self._subscription.position
        return await super()._take()

    @property
    def key(self) -> SessionKey:
        """The session."""
        return self._subscription.key

    @property
    def position(self) -> int:
        """The position up to which all was handed out, for a later ``after_seq``."""
        return self._before if self._kept else self._subscription.position

    @property
    def incarnation(self) -> str:
        """Which session it is, once it is followed; see :class:`~agentsession.Session`."""
        return self._subscription.incarnation


class BlockingUserSubscription(
    _Follower[SessionNews | Missed], AbstractContextManager["BlockingUserSubscription"]
):
    """Follows all sessions of a user; ``BlockingSessionService.subscribe_user()`` makes it.

    It is iterated over as a :class:`BlockingSubscription` is. Else it is as
    :class:`~agentsession.subscriptions.UserSubscription`.
    """

    def __init__(self, service: _Service, subscription: UserSubscription) -> None:
        super().__init__(service, subscription)
        self._subscription = subscription

    @property
    def key(self) -> UserKey:
        """The user."""
        return self._subscription.key
