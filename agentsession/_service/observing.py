"""How a service tells observers of its operations.

A service that has observers gets its operations a second time, as attributes of the object, which
stand before the methods of the class: each calls the method with the observers around it. So the
methods know nothing of observers, and a service without any runs the same code as if there were no
such thing: no test of a flag, no call of something that does nothing.
"""

from __future__ import annotations

import functools
import inspect
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from agentsession._journal import Journal
from agentsession.leases import Lease
from agentsession.observers import Operation
from agentsession.sessions import Session, SessionKey, UserKey

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from agentsession.observers import Observer

__all__ = ["observe", "operations"]


def operations(kind: type) -> Iterator[str]:
    """Name the operations of a service: its public coroutine methods, so that none is forgotten."""
    for name, value in vars(kind).items():
        if not name.startswith("_") and inspect.iscoroutinefunction(value):
            yield name


def observe(service: object, kind: type, observers: Sequence[Observer]) -> None:
    """Put observers around the operations of one service.

    Args:
        service: Whose operations; of a subclass that has its own, those.
        kind: The class that says which methods are operations.
        observers: At least one.
    """
    journal = Journal("agentsession.observers")
    for name in operations(kind):
        setattr(service, name, _observed(getattr(service, name), observers, journal))


def _observed(
    method: Callable[..., Coroutine[Any, Any, Any]],
    observers: Sequence[Observer],
    journal: Journal,
) -> Callable[..., Coroutine[Any, Any, Any]]:
    name = method.__name__
    about = next(iter(inspect.signature(method).parameters), "")
    # A path is a str, but no application.
    is_named = about != "path"

    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        subject = args[0] if args else kwargs.get(about)
        operation = Operation(name=name, subject=_named(subject) if is_named else None)
        with ExitStack() as stack:
            for observer in observers:
                stack.enter_context(_Guarded(observer, operation, journal))
            return await method(*args, **kwargs)

    return call


def _named(subject: object) -> SessionKey | UserKey | str | None:
    if isinstance(subject, (Session, Lease)):
        return subject.key
    return subject if isinstance(subject, (SessionKey, UserKey, str)) else None


class _Guarded:
    """What one observer does around one operation, which can neither break nor change it."""

    def __init__(self, observer: Observer, operation: Operation, journal: Journal) -> None:
        self._observer = observer
        self._operation = operation
        self._journal = journal
        self._entered: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        try:
            context = self._observer.on_operation(self._operation)
            if context is not None:
                context.__enter__()
                self._entered = context
        except Exception as exc:  # noqa: BLE001 - an observer's mistakes are its own
            self._journal.dropped(self._observer, exc)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._entered is None:
            return
        try:
            self._entered.__exit__(kind, error, traceback)
        except BaseException as exc:
            if exc is error:
                return  # It handed on what it was given, and so does the operation.
            if not isinstance(exc, Exception):
                raise
            self._journal.dropped(self._observer, exc)
