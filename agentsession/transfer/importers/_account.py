"""What is met in a source: counted, and named where it cannot be carried over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from agentsession._wording import brief
from agentsession.clock import utc_now
from agentsession.events import Data, Event, Media, Reasoning, Text, ToolCall, ToolResult
from agentsession.transfer._reports import Problem, Subject
from agentsession.transfer.importers._reports import SourceError, SourceReport

__all__ = ["UNREADABLE", "Account", "decoded"]

UNREADABLE: Final = (
    ValueError,
    TypeError,
    OverflowError,  # A moment that no datetime can hold.
    RecursionError,
    msgspec.MsgspecError,
)
"""What is raised where something is read that is not as it should be."""

# So many of each kind are named; the others are counted.
_NAMED: Final = 3

_PARTS: Final = {
    Reasoning: "reasoning",
    Media: "media",
    ToolCall: "tool calls",
    ToolResult: "tool results",
    Data: "other parts",
}


class Account:
    """Counts what is met, and decides what becomes of what cannot be read.

    Args:
        report: The counts.
        keep_going: Whether to leave out what cannot be read.

    Attributes:
        report: As above.
        keeps_going: As above.
    """

    def __init__(self, report: SourceReport, *, keep_going: bool) -> None:
        self.report = report
        self.keeps_going = keep_going

    def leave_out(self, place: str, reason: object, subject: Subject = None) -> None:
        """Leave out something that cannot be read.

        Raises:
            SourceError: Nothing is to be left out.
        """
        self.fail(place, reason, subject)
        self.report.left_out += 1

    def fail(self, place: str, reason: object, subject: Subject = None) -> None:
        """Name what has failed.

        Raises:
            SourceError: It is the end of the import.
        """
        if not self.keeps_going:
            raise SourceError(place, str(reason))
        self.report.note(Problem(f"{place}: {reason}", subject))

    def note_unmapped(
        self, kind: str, example: str, subject: Subject = None, count: int = 1
    ) -> None:
        """Count what has no place here, and name the first ones."""
        before = self.report.unmapped.get(kind, 0)
        self.report.unmapped[kind] = before + count
        if before < _NAMED:
            self.report.note(Problem(f"not imported: {kind}, such as {example}", subject))

    def note_expiry(self, milliseconds: int) -> None:
        """Note for how long something was to live; it never expires if that is negative."""
        if milliseconds < 0:
            return
        report = self.report
        try:
            expiry = utc_now() + timedelta(milliseconds=milliseconds)
        except OverflowError:  # As good as never, which some write as a very large number.
            expiry = datetime.max.replace(tzinfo=UTC)
        report.expiring += 1
        report.first_expiry = min(report.first_expiry or expiry, expiry)
        report.last_expiry = max(report.last_expiry or expiry, expiry)

    def count(self, event: Event) -> None:
        """Count what an event holds."""
        if event.text:
            self._count("messages of users" if event.author == "user" else "other messages")
        if event.state_delta:
            self._count("changes of state", len(event.state_delta))
        if event.error is not None:
            self._count("errors")
        for part in () if isinstance(event.content, str) else event.content:
            if not isinstance(part, Text):
                self._count(_PARTS[type(part)])

    def _count(self, kind: str, count: int = 1) -> None:
        self.report.kinds[kind] = self.report.kinds.get(kind, 0) + count


def decoded(data: bytes | str) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        ValueError: It is none.
    """
    try:
        found: Any = msgspec.json.decode(data)
    except UNREADABLE as exc:
        msg = f"it is no JSON: {exc}"
        raise ValueError(msg) from exc
    if not isinstance(found, dict):
        msg = f"it is no JSON object: {brief(found)}"
        raise ValueError(msg)  # noqa: TRY004 - of what was read, and no argument
    return found  # pyright: ignore[reportUnknownVariableType] - JSON has strings as names
