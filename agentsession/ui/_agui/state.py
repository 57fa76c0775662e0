"""State as clients of AG-UI have it: that of the session and of the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentsession._marks import mark
from agentsession.state import APP_PREFIX, DELETE, is_temporary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentsession.events import Event
    from agentsession.sessions import Session

__all__ = ["SharedState"]


class SharedState:
    """What a client has of a session's state, and how it changes.

    Args:
        session: The session as it was read; ``None`` if there is none.

    Attributes:
        values: What the client has, names with their prefixes.
    """

    def __init__(self, session: Session | None) -> None:
        self.values = _shared({} if session is None else session.state)
        # What events up to there have changed is in the session that was read.
        self._seq = 0 if session is None else session.last_seq

    def patch(self, event: Event) -> list[dict[str, Any]]:
        """Return the changes of an event as a JSON Patch (RFC 6902)."""
        if event.partial or event.seq <= self._seq:
            return []
        patch: list[dict[str, Any]] = []
        for name, value in event.state_delta.items():
            if not _is_shared(name):
                continue
            path = "/" + name.replace("~", "~0").replace("/", "~1")
            if value is DELETE:
                if name in self.values:
                    del self.values[name]
                    patch.append({"op": "remove", "path": path})
                continue
            op = "replace" if name in self.values else "add"
            self.values.update(mark({name: value}))
            patch.append({"op": op, "path": path, "value": self.values[name]})
        return patch

    def renew(self, session: Session | None) -> bool:
        """Take the state as it is now; tell whether the client has another one."""
        before, self.values = self.values, _shared({} if session is None else session.state)
        return self.values != before


def _shared(state: Mapping[str, Any]) -> dict[str, Any]:
    return mark({name: value for name, value in state.items() if _is_shared(name)})


def _is_shared(name: str) -> bool:
    return not (name.startswith(APP_PREFIX) or is_temporary(name))
