"""The service for code without an event loop, and for many loops and threads at once.

::

    with blocking.open_service("redis://localhost:6379/0") as service:
        service.get_or_create_session(key)
        service.append_event(key, Event(author="user", content="Hello"))

The service runs on an event loop of its own, in a thread of its own, to which calls are handed over
from wherever they are made. That takes longer than to await a :class:`~agentsession.SessionService`
on the loop at hand, which is what a program with one loop should do.
"""

from __future__ import annotations

import functools
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Concatenate, Final, NoReturn, ParamSpec, Self, TypeVar

from anyio.to_thread import run_sync

from agentsession.blocking._contexts import (
    BlockingLease,
    BlockingSubscription,
    BlockingUserSubscription,
)
from agentsession.blocking._thread import Thread, check_asyncio, check_may_block
from agentsession.leases import Lease
from agentsession.service import SessionService
from agentsession.stores import open_service as _open_service

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Unpack

    from agentsession.stores import ServiceOptions

__all__ = [
    "AnyLoopSessionService",
    "BlockingLease",
    "BlockingSessionService",
    "BlockingSubscription",
    "BlockingUserSubscription",
    "open_service",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_M = TypeVar("_M")
_F = TypeVar("_F")

_ENTER: Final = "'async with blocking.open_service(...).any_loop as service'"


def open_service(url: str, **options: Unpack[ServiceOptions]) -> BlockingSessionService:
    """Make the service of the store at *url*, as :func:`agentsession.open_service` does.

    Args:
        url: See there.
        **options: See there.
    """
    return BlockingSessionService(_open_service(url, **options))


def _blocks(
    method: Callable[Concatenate[SessionService, _P], Coroutine[Any, Any, _T]],
) -> Callable[[object], Callable[Concatenate[BlockingSessionService, _P], _T]]:
    """Give a method of the service to callers who block."""

    @functools.wraps(method)
    def call(owner: BlockingSessionService, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return owner.call(by_name, *args, **kwargs)

    by_name = _by_name(method)
    return lambda _: call


def _takes(
    method: Callable[Concatenate[SessionService, _P], Coroutine[Any, Any, _T]],
) -> Callable[[object], Callable[Concatenate[BlockingSessionService, _P], _T]]:
    """Give a method that takes a lease to callers who block; who is interrupted has none then."""

    @functools.wraps(method)
    def call(owner: BlockingSessionService, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        thread = _thread_of(owner)
        lease = args[0] if args else kwargs.get("lease")
        undo = lease.release if isinstance(lease, Lease) else None
        made: _T = thread.wait(lambda: by_name(thread.service, *args, **kwargs), undo)
        return made

    by_name = _by_name(method)
    return lambda _: call


def _lease_of(owner: BlockingSessionService, lease: Lease) -> BlockingLease:
    return BlockingLease(_thread_of(owner).wait, lease)


def _thread_of(owner: BlockingSessionService) -> Thread:
    return owner._thread  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as its methods do


def _awaits(
    method: Callable[Concatenate[SessionService, _P], Coroutine[Any, Any, _T]],
) -> Callable[[object], Callable[Concatenate[AnyLoopSessionService, _P], Coroutine[Any, Any, _T]]]:
    """Give a method of the service to callers on any loop."""

    @functools.wraps(method)
    async def call(owner: AnyLoopSessionService, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await owner.call(by_name, *args, **kwargs)

    by_name = _by_name(method)
    return lambda _: call


def _by_name(
    method: Callable[Concatenate[SessionService, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[SessionService, _P], Coroutine[Any, Any, _T]]:
    """Return a method as each object has it: one with observers has methods of its own."""
    name = method.__name__

    def call(
        service: SessionService, /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Coroutine[Any, Any, _T]:
        made: Coroutine[Any, Any, _T] = getattr(service, name)(*args, **kwargs)
        return made

    return call


def _makes(
    method: Callable[Concatenate[SessionService, _P], _M],
    face: Callable[[BlockingSessionService, _M], _F],
) -> Callable[[object], Callable[Concatenate[BlockingSessionService, _P], _F]]:
    """Give a method that makes something for ``async with`` to callers who block."""

    async def make(service: SessionService, /, *args: _P.args, **kwargs: _P.kwargs) -> _M:
        return method(service, *args, **kwargs)

    @functools.wraps(method)
    def call(owner: BlockingSessionService, /, *args: _P.args, **kwargs: _P.kwargs) -> _F:
        check_may_block(instead)
        return face(owner, owner.call(make, *args, **kwargs))

    instead = f"use {method.__name__}() of a service that agentsession.open_service() makes there"
    return lambda _: call


class _Shared:
    """What both faces of a service have, without being called."""

    def __init__(self, thread: Thread) -> None:
        self._thread = thread

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._thread.service!r}>"

    @property
    def max_event_size(self) -> int:
        """The largest encoded event, in bytes."""
        return self._thread.service.max_event_size

    @property
    def max_value_size(self) -> int:
        """The largest encoded state value, in bytes."""
        return self._thread.service.max_value_size

    @property
    def always_readable(self) -> int:
        """How many events one read always returns; see :class:`~agentsession.SessionService`."""
        return self._thread.service.always_readable


class BlockingSessionService(_Shared, AbstractContextManager["BlockingSessionService"]):
    """A service that may be called from any thread, and blocks until a call is done.

    It has the methods of :class:`~agentsession.SessionService`, with the same arguments, results,
    guarantees and errors, and :attr:`any_loop` for callers who await. Where an event loop runs,
    these methods raise :exc:`~agentsession.errors.EventLoopError` rather than block it.

    Whoever is interrupted while a call is made, by ``KeyboardInterrupt`` or by what limits the time
    of a job, cancels it: it takes effect whole or not at all, and the service is as usable as
    before.

    It is closed by :meth:`close`, which ``with`` does. What was not closed ends with the process.

    Args:
        service: The service, which was not used yet and is used in no other way from now on.

    Attributes:
        any_loop: The same service, to be awaited on any event loop.

    Raises:
        TypeError: *service* is no :class:`~agentsession.SessionService`.
    """

    def __init__(self, service: SessionService) -> None:
        if not isinstance(service, SessionService):
            msg = (
                "a BlockingSessionService takes a SessionService, as agentsession.open_service() "
                f"makes one, not {type(service).__qualname__}: {service!r:.80}"
            )
            raise TypeError(msg)
        super().__init__(Thread(service))
        self.any_loop: AnyLoopSessionService = AnyLoopSessionService(self._thread)

    def __enter__(self) -> Self:
        check_may_block(f"write {_ENTER}")
        self._thread.check_usable()
        return self

    def call(
        self,
        function: Callable[Concatenate[SessionService, _P], Coroutine[Any, Any, _T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Run a coroutine function on the service's loop, with the service as first argument.

        Several calls that belong together take one hand-over that way instead of many.

        Args:
            function: It is not to block, since it runs where all calls of the service do.
            *args: Its further arguments.
            **kwargs: See above.
        """
        return self._thread.wait(lambda: function(self._thread.service, *args, **kwargs))

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections, tasks and the thread; may be called again."""
        check_may_block("write 'await service.any_loop.aclose()'")
        self._thread.close()

    if not TYPE_CHECKING:  # As in agentsession._misuse.

        def __aenter__(self) -> NoReturn:
            msg = (
                f"a {type(self).__name__} is entered with 'with', not with 'async with'; where an "
                f"event loop runs, write {_ENTER}"
            )
            raise TypeError(msg)

        def __aexit__(self, *exc_info: object) -> None:
            """Never called, but Python wants it to be there before it enters."""

    @_blocks(SessionService.create_session)
    def create_session(self) -> None: ...
    @_blocks(SessionService.get_session)
    def get_session(self) -> None: ...
    @_blocks(SessionService.get_or_create_session)
    def get_or_create_session(self) -> None: ...
    @_blocks(SessionService.list_sessions)
    def list_sessions(self) -> None: ...
    @_blocks(SessionService.list_users)
    def list_users(self) -> None: ...
    @_blocks(SessionService.delete_session)
    def delete_session(self) -> None: ...
    @_blocks(SessionService.delete_user)
    def delete_user(self) -> None: ...
    @_blocks(SessionService.append_event)
    def append_event(self) -> None: ...
    @_blocks(SessionService.append_events)
    def append_events(self) -> None: ...
    @_blocks(SessionService.rewind)
    def rewind(self) -> None: ...
    @_blocks(SessionService.fork)
    def fork(self) -> None: ...
    @_blocks(SessionService.get_events)
    def get_events(self) -> None: ...
    @_blocks(SessionService.get_history)
    def get_history(self) -> None: ...
    @_blocks(SessionService.update_session_state)
    def update_session_state(self) -> None: ...
    @_blocks(SessionService.update_app_state)
    def update_app_state(self) -> None: ...
    @_blocks(SessionService.update_user_state)
    def update_user_state(self) -> None: ...
    @_blocks(SessionService.get_app_state)
    def get_app_state(self) -> None: ...
    @_blocks(SessionService.get_user_state)
    def get_user_state(self) -> None: ...
    @_blocks(SessionService.delete_app_state)
    def delete_app_state(self) -> None: ...
    @_blocks(SessionService.delete_user_state)
    def delete_user_state(self) -> None: ...
    @_blocks(SessionService.delete_session_state)
    def delete_session_state(self) -> None: ...
    @_makes(SessionService.subscribe, BlockingSubscription)
    def subscribe(self) -> None: ...
    @_makes(SessionService.subscribe_user, BlockingUserSubscription)
    def subscribe_user(self) -> None: ...
    @_makes(SessionService.lease, _lease_of)
    def lease(self) -> None: ...
    @_takes(SessionService.begin_turn)
    def begin_turn(self) -> None: ...
    @_takes(SessionService.resume_turn)
    def resume_turn(self) -> None: ...
    @_blocks(SessionService.stop_run)
    def stop_run(self) -> None: ...
    @_blocks(SessionService.close_turn)
    def close_turn(self) -> None: ...
    @_blocks(SessionService.check)
    def check(self) -> None: ...


class AnyLoopSessionService(_Shared, AbstractAsyncContextManager["AnyLoopSessionService"]):
    """A service that may be awaited on any number of event loops, at the same time too.

    :attr:`BlockingSessionService.any_loop` is one. It has the methods of
    :class:`~agentsession.SessionService`, with the same arguments, results, guarantees and errors,
    but those of leases and subscriptions, which are of one loop. Whoever is cancelled cancels the
    call.
    """

    async def __aenter__(self) -> Self:
        check_asyncio()
        self._thread.check_usable()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def call(
        self,
        function: Callable[Concatenate[SessionService, _P], Coroutine[Any, Any, _T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Run a coroutine function on the service's loop; see ``BlockingSessionService.call()``.

        Args:
            function: See there.
            *args: See there.
            **kwargs: See there.
        """
        service = self._thread.service
        return await self._thread.hand_over(lambda: function(service, *args, **kwargs))

    async def aclose(self) -> None:
        """Let go of connections, tasks and the thread; may be called again.

        Raises:
            EventLoopError: It was awaited by a call on the service's own loop, which is waited for.
        """
        self._thread.check_elsewhere()
        await run_sync(self._thread.close)

    @_awaits(SessionService.create_session)
    def create_session(self) -> None: ...
    @_awaits(SessionService.get_session)
    def get_session(self) -> None: ...
    @_awaits(SessionService.get_or_create_session)
    def get_or_create_session(self) -> None: ...
    @_awaits(SessionService.list_sessions)
    def list_sessions(self) -> None: ...
    @_awaits(SessionService.list_users)
    def list_users(self) -> None: ...
    @_awaits(SessionService.delete_session)
    def delete_session(self) -> None: ...
    @_awaits(SessionService.delete_user)
    def delete_user(self) -> None: ...
    @_awaits(SessionService.append_event)
    def append_event(self) -> None: ...
    @_awaits(SessionService.append_events)
    def append_events(self) -> None: ...
    @_awaits(SessionService.rewind)
    def rewind(self) -> None: ...
    @_awaits(SessionService.fork)
    def fork(self) -> None: ...
    @_awaits(SessionService.get_events)
    def get_events(self) -> None: ...
    @_awaits(SessionService.get_history)
    def get_history(self) -> None: ...
    @_awaits(SessionService.update_session_state)
    def update_session_state(self) -> None: ...
    @_awaits(SessionService.update_app_state)
    def update_app_state(self) -> None: ...
    @_awaits(SessionService.update_user_state)
    def update_user_state(self) -> None: ...
    @_awaits(SessionService.get_app_state)
    def get_app_state(self) -> None: ...
    @_awaits(SessionService.get_user_state)
    def get_user_state(self) -> None: ...
    @_awaits(SessionService.delete_app_state)
    def delete_app_state(self) -> None: ...
    @_awaits(SessionService.delete_user_state)
    def delete_user_state(self) -> None: ...
    @_awaits(SessionService.delete_session_state)
    def delete_session_state(self) -> None: ...
    @_awaits(SessionService.stop_run)
    def stop_run(self) -> None: ...
    @_awaits(SessionService.close_turn)
    def close_turn(self) -> None: ...
    @_awaits(SessionService.check)
    def check(self) -> None: ...
