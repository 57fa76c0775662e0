"""The names of the tools whose results are read one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from agentsession.events import ToolResult

if TYPE_CHECKING:
    from agentsession.events import Event, Part

__all__ = ["ToolNames"]


class ToolNames:
    """Remembers who was called, for the results of one session."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def named(self, event: Event) -> Event:
        """Return an event whose results name their tools, if these were called before."""
        self._names |= {call.call_id: call.name for call in event.tool_calls}
        if isinstance(event.content, str) or not event.tool_results:
            return event
        return msgspec.structs.replace(event, content=[self._named(part) for part in event.content])

    def _named(self, part: Part) -> Part:
        if not isinstance(part, ToolResult) or part.name:
            return part
        return msgspec.structs.replace(part, name=self._names.get(part.call_id, ""))
