"""What was last seen of sessions, so that a write need not read before."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from agentsession.sessions import SessionKey

__all__ = ["Known"]

_MOST: Final = 256

_T = TypeVar("_T")


class Known(Generic[_T]):
    """What is known of the sessions that were used last, each until somebody takes it.

    Whoever writes by it says of which revision it is. If others have written meanwhile, nothing is
    stored, and the session is to be read.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[SessionKey, _T] = OrderedDict()

    def take(self, key: SessionKey) -> _T | None:
        """Return what is known of a session; nobody else gets it then."""
        return self._known.pop(key, None)

    def keep(self, key: SessionKey, known: _T) -> None:
        """Remember what is known of a session; it is not to be used any more."""
        self._known[key] = known
        self._known.move_to_end(key)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
