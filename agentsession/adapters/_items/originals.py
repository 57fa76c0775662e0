"""A framework's original of an event, which is kept beside the event's own parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from agentsession.events import Event

__all__ = ["original_of", "with_original"]


def with_original(event: Event, framework: str, original: Any) -> Event:
    """Return the event with an original beside its parts.

    Args:
        event: What a reader of another framework sees.
        framework: Whose original it is: the name of the adapter's module.
        original: Any JSON value.
    """
    return msgspec.structs.replace(event, metadata={**event.metadata, framework: original})


def original_of(event: Event, framework: str) -> Any:
    """Return a framework's original; ``None`` for an event that something else has stored."""
    return event.metadata.get(framework)
