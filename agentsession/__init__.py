"""Sessions for LLM agents: an ordered log of events and scoped state, in memory, a file or Redis.

The everyday names are here; more parts of events are in :mod:`agentsession.events`, errors in
:mod:`agentsession.errors`, and what the author of a backend needs in :mod:`agentsession.backend`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentsession.events import Data, Event, Text, ToolCall, ToolResult
from agentsession.memory import InMemorySessionService
from agentsession.runner import AgentContext, Runner
from agentsession.service import SessionService
from agentsession.sessions import Session, SessionKey, SessionPage, UserKey
from agentsession.state import DELETE
from agentsession.stores import open_service

if TYPE_CHECKING:
    from agentsession.redis import RedisSessionService
    from agentsession.sqlite import SQLiteSessionService

__all__ = [
    "DELETE",
    "AgentContext",
    "Data",
    "Event",
    "InMemorySessionService",
    "RedisSessionService",
    "Runner",
    "SQLiteSessionService",
    "Session",
    "SessionKey",
    "SessionPage",
    "SessionService",
    "Text",
    "ToolCall",
    "ToolResult",
    "UserKey",
    "open_service",
]


def __getattr__(name: str) -> Any:
    # Importing redis-py takes longer than all the rest, and programs in memory never need it.
    if name == "RedisSessionService":
        from agentsession.redis import RedisSessionService  # noqa: PLC0415 - see above

        return RedisSessionService
    if name == "SQLiteSessionService":
        from agentsession.sqlite import SQLiteSessionService  # noqa: PLC0415 - not in every Python

        return SQLiteSessionService
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
