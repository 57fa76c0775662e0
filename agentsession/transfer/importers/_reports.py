"""What came of an import from a source that is no export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import field

from agentsession.errors import AgentSessionError
from agentsession.transfer._reports import ImportReport

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["SourceError", "SourceReport"]


class SourceError(AgentSessionError, ValueError):
    """Something in a source cannot be read, or not be stored. What was read before it is imported.

    Attributes:
        place: Where it is: a line, a row or a key.
        reason: What is wrong with it.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason)
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


class SourceReport(ImportReport, kw_only=True):
    """What was imported from a source that is no export.

    Attributes:
        kinds: How much there was of each kind of content: messages of users and others, tool calls,
            tool results and so on.
        left_out: Lines, rows and the like that cannot be read, or not be stored.
        unmapped: What can be read and has no place here: how much, by its kind. The first three of
            each kind are among the problems.
        expiring: Sessions and states that were to expire where they come from.
        first_expiry: When the first of them was to expire; ``None`` if none was.
        last_expiry: When the last of them was.
    """

    kinds: dict[str, int] = field(default_factory=dict[str, int])
    left_out: int = 0
    unmapped: dict[str, int] = field(default_factory=dict[str, int])
    expiring: int = 0
    first_expiry: datetime | None = None
    last_expiry: datetime | None = None
