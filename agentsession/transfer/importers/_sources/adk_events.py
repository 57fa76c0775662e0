"""Events of Google's ADK as its databases hold them, made into events; pure, without ADK itself.

They become the events that :class:`agentsession.adapters.google_adk.SessionService` makes of them,
so that it gives them back as they are.
"""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from agentsession.adapters._items.originals import with_original
from agentsession.events import UNREADABLE, Event, EventError, Rewind
from agentsession.messages._converting import is_array, is_mapping, items, mapping
from agentsession.messages._gemini import Heard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FRAMEWORK", "Events"]

FRAMEWORK: Final = "google_adk"
"""Under this name an event keeps the event of ADK that it was made of."""

# What people have put there is not renamed.
_THEIRS: Final = frozenset({"args", "response"})


class Events:
    """The events of one session, made into ours one after the other."""

    def __init__(self) -> None:
        self._unnamed: defaultdict[str, deque[str]] = defaultdict(deque)
        self._tools: dict[str, str] = {}
        self._turns: dict[str, int] = {}
        self._seq = 0

    def take(self, told: dict[str, Any]) -> list[Event]:
        """Make events of one: itself, behind the mark of what it takes back.

        Args:
            told: The event as ADK has written it.

        Raises:
            ValueError: It is none.
        """
        event = self._event(told)
        found = [*self._mark(event.id, told), event]
        self._turns.setdefault(event.invocation_id, self._seq + len(found))
        self._seq += len(found)
        return found

    def _event(self, told: dict[str, Any]) -> Event:
        event_id, author = told.get("id"), told.get("author")
        if not (isinstance(event_id, str) and event_id and isinstance(author, str)):
            msg = "it is no event of ADK, which has an id and an author"
            raise ValueError(msg)
        heard = self._heard(told.get("content"), event_id)
        event = Event(
            id=event_id,
            author=author or heard.author,
            invocation_id=_told(told, "invocation_id") or "",
            branch=_told(told, "branch") or "",
            timestamp=datetime.fromtimestamp(told["timestamp"], UTC),
            content=heard.content,
            state_delta=dict(mapping(_told(mapping(told.get("actions")), "state_delta"))),
            metadata=heard.metadata,
            error=_error(told),
        )
        self._tools |= {call.call_id: call.name for call in event.tool_calls}
        return with_original(event, FRAMEWORK, told)

    def _heard(self, content: Any, event_id: str) -> Event:
        if not content:
            return Event(author="agent")
        told = dict(mapping(_renamed(content)))
        return Heard(self._unnamed, told, 0, self._tools, "agent", event_id).event()

    def _mark(self, event_id: str, told: Mapping[str, Any]) -> Iterator[Event]:
        """Yield the mark of a rewind, if this is one to a turn that is there."""
        actions = mapping(told.get("actions"))
        first = self._turns.get(_told(actions, "rewind_before_invocation_id") or "")
        if first is not None:
            at = datetime.fromtimestamp(told["timestamp"], UTC)
            rewind = Rewind(first - 1, restores_state=False)
            yield Event(id=f"{event_id}#rewind", author="system", timestamp=at, rewind=rewind)


def _told(told: Mapping[str, Any], name: str) -> Any:
    """Return a field by either of the names that ADK reads."""
    return told.get(name, told.get(_camel(name)))


def _error(told: Mapping[str, Any]) -> EventError | None:
    code, message = _told(told, "error_code") or "", _told(told, "error_message") or ""
    if not (code or message):
        return None
    return EventError(message, "" if code == UNREADABLE else code)


def _renamed(value: Any) -> Any:
    """Name the fields of a content as the API does, which ADK names as Python does."""
    if is_array(value):
        return [_renamed(each) for each in items(value)]
    if not is_mapping(value):
        return value
    return {
        _camel(name): each if name in _THEIRS else _renamed(each)
        for name, each in mapping(value).items()
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)
