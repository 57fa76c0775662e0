"""Items of OpenAI Agents, made into events, and of them: without the framework itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentsession.adapters._items.originals import original_of, with_original
from agentsession.events import Data, Event
from agentsession.messages import Converted, openai_responses
from agentsession.messages._converting import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FRAMEWORK", "event_of", "events_of", "items_of"]

FRAMEWORK: Final = "openai_agents"
"""Under this name an event keeps the item that it was made of."""

_MALFORMED: Final = "application/vnd.openai.response-item+json"


def events_of(items: Sequence[Any], agent: str) -> list[Event]:
    """Make events of items, one of each.

    Args:
        items: As the framework gives them to its session.
        agent: The author of what the assistant says.
    """
    originals = [plain(item) for item in items]
    try:
        events: list[Event] = openai_responses.from_messages(originals, agent=agent)
    except ValueError:
        events = [_parts_of(item, agent) for item in originals]
    return [
        with_original(event, FRAMEWORK, item) for event, item in zip(events, originals, strict=True)
    ]


def event_of(item: Any, agent: str) -> Event:
    """Make an event of one item alone, which does not know the names of tools before it."""
    return with_original(_parts_of(item, agent), FRAMEWORK, item)


def _parts_of(item: Any, agent: str) -> Event:
    """Make an event of an item that may be none; the framework stores what it is given."""
    try:
        return openai_responses.from_messages([item], agent=agent)[0]
    except ValueError:
        return Event(author=agent, content=[Data(item, _MALFORMED)])


def items_of(event: Event) -> Converted[Any]:
    """Return the items of an event: the one that was stored, or what another's event has."""
    item = original_of(event, FRAMEWORK)
    if item is None:
        return openai_responses.to_messages([event])
    stored: Converted[Any] = Converted()
    stored.append(item)
    return stored
