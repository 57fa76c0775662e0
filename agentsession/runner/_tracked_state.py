"""State as an agent sees it, with a record of the agent's changes."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from agentsession.state import DELETE, is_temporary

if TYPE_CHECKING:
    from agentsession.sessions import Session

__all__ = ["TrackedState"]


class TrackedState(MutableMapping[str, Any]):
    """A session's merged state, whose changes are stored with the agent's next event.

    Setting and deleting names is noticed, and so are changes inside lists and dicts that were read
    from here. A change shows here until it is stored, whatever others write meanwhile. Names have
    the prefixes of their scopes; ``temp:`` names live as long as the session object.

    Args:
        session: The session; its ``state`` is what is shown.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._changed: dict[str, Any] = {}
        # Lists and dicts that the agent may hold, each as it was when it was last looked at.
        self._held: dict[str, tuple[Any, bytes | None]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown()!r})"

    def __getitem__(self, name: str) -> Any:
        held = self._held.get(name)
        # What was changed inside shows already if it is still what the session holds.
        if held is not None and held[0] is not self._session.state.get(name):
            self._notice(name)
        if name in self._changed:
            if self._changed[name] is DELETE:
                raise KeyError(name)
            return self._changed[name]
        value = self._session.state[name]
        if held is None or held[0] is not value:
            self._hold(name, value)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            msg = f"a name of state is a str, not {type(name).__qualname__}: {name!r:.80}"
            raise TypeError(msg)
        self._session.state[name] = self._changed[name] = value
        self._held.pop(name, None)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._session.state.pop(name, None)
        self._changed[name] = DELETE
        self._held.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown())

    def __len__(self) -> int:
        return len(self._shown())

    def take_changes(self) -> dict[str, Any]:
        """Return what changed since the last call, as a state delta, and begin anew."""
        self._notice(*self._held)
        changes, self._changed = self._changed, {}
        for name, value in changes.items():
            self._hold(name, value)
        return changes

    def put_back(self, changes: dict[str, Any]) -> None:
        """Keep changes that were taken and could not be stored; later ones come before them."""
        self._changed = changes | self._changed

    def _shown(self) -> dict[str, Any]:
        """Return the session's state with all changes in it; a reload may have taken them out."""
        self._notice(*self._held)
        state = self._session.state
        for name, value in self._changed.items():
            if value is DELETE:
                state.pop(name, None)
            else:
                state[name] = value
        return state

    def _notice(self, *names: str) -> None:
        """Record changes inside values, also of names that are gone from the session."""
        for name in names:
            value, before = self._held[name]
            if name not in self._changed and _encoded(value) != before:
                self._session.state[name] = self._changed[name] = value

    def _hold(self, name: str, value: Any) -> None:
        """Notice what is changed inside a value; what is temporary is never stored."""
        if type(value) in (list, dict) and not is_temporary(str(name)):
            self._held[name] = value, _encoded(value)


def _encoded(value: Any) -> bytes | None:
    """Encode a value to compare it; ``None`` if it cannot be, which storing it will tell."""
    try:
        return msgspec.json.encode(value)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return None
