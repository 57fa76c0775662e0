"""Words that the checks share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agentsession.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from agentsession.backend import EventSlice
    from agentsession.service import SessionService
    from agentsession.sessions import Session, SessionKey

__all__ = [
    "Raised",
    "raises",
    "remade_while_read",
    "said",
    "say",
    "stored_session",
    "swapped",
]

_E = TypeVar("_E", bound=BaseException)


class Raised(Generic[_E]):
    """The error that was expected, once it was raised."""

    error: _E


@contextmanager
def raises(kind: type[_E]) -> Generator[Raised[_E]]:
    """Expect an error of exactly this class; no test runner is needed for it."""
    raised = Raised[_E]()
    try:
        yield raised
    except kind as exc:
        assert type(exc) is kind, f"{exc!r} instead of {kind.__name__}"
        raised.error = exc
    else:
        msg = f"no {kind.__name__} was raised"
        raise AssertionError(msg)


def say(words: str, delta: Mapping[str, Any] | None = None, **fields: Any) -> Event:
    """Make an event of the user's, with a change to state."""
    return Event(author="user", content=words, state_delta=dict(delta or {}), **fields)


def said(events: Iterable[Event]) -> list[str]:
    """Return the words of events."""
    return [str(event.content) for event in events]


async def stored_session(service: SessionService, key: SessionKey) -> Session:
    """Return a session that must be there."""
    session = await service.get_session(key)
    assert session is not None
    assert session.key == key
    return session


@contextmanager
def swapped(owner: object, name: str, method: Callable[..., Any]) -> Generator[None]:
    """Put another method in the place of an object's own."""
    setattr(owner, name, method)
    try:
        yield
    finally:
        delattr(owner, name)


@contextmanager
def remade_while_read(
    service: SessionService, key: SessionKey, log: Sequence[Event]
) -> Generator[list[object]]:
    """Delete a session after the first read of its log, and make it anew; give the reads."""
    backend = service.backend
    reads: list[object] = []

    async def read(*args: Any, _read: Any = backend.read, **options: Any) -> EventSlice:
        reads.append(options)
        found: EventSlice = await _read(*args, **options)
        if len(reads) == 1:
            await service.delete_session(key)
            await service.create_session(key)
            await service.append_events(key, log)
        return found

    with swapped(backend, "read", read):
        yield reads
