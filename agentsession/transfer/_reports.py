"""What came of an export or an import: counts, and what could not be carried over, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

from agentsession._wording import brief, described, described_app
from agentsession.errors import AgentSessionError

if TYPE_CHECKING:
    from agentsession.sessions import SessionKey, UserKey

__all__ = [
    "ExportReport",
    "FormatError",
    "ImportReport",
    "LineError",
    "Problem",
    "SessionConflictError",
    "Subject",
]

Subject: TypeAlias = "SessionKey | UserKey | str | None"
"""Whose data something is about: a session, a user, an application's name, or nobody known."""

# So many are kept by name; the others are counted.
_MOST_NAMED: Final = 1000


class FormatError(AgentSessionError, ValueError):
    """What was to be imported is no export, or one of a newer format; nothing was imported.

    Attributes:
        reason: What is wrong.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LineError(AgentSessionError, ValueError):
    """A line of an export could not be imported. What stands before it was.

    Attributes:
        number: The line, from 1.
        reason: What is wrong with it, and whose it is.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason)
        self.number = number
        self.reason = reason

    def __str__(self) -> str:
        return f"line {self.number:,}: {self.reason}"


class SessionConflictError(AgentSessionError):
    """Another session, or an older copy, has the id of one that is imported; it stays as it is.

    Attributes:
        key: The session.
        reason: How the two differ.
    """

    def __init__(self, key: SessionKey, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{described(self.key)}: is there already, and is not the one to import: {self.reason}."
            " It stays as it is; delete it first, or import under another user or application"
        )


class Problem(Struct, frozen=True):
    """Something that could not be carried over, or not as it should be.

    Attributes:
        reason: What it is.
        subject: Whose it is.
        line: The line of the export, from 1; 0 if it is about none.
    """

    reason: str
    subject: Subject = None
    line: int = 0

    def __str__(self) -> str:
        place = f"line {self.line:,}: " if self.line else ""
        return f"{place}{_named(self.subject)}{self.reason}"


def _named(subject: Subject) -> str:
    if subject is None:
        return ""
    return f"{described_app(subject) if isinstance(subject, str) else described(subject)}: "


class _Report(Struct, kw_only=True):
    """What both have.

    Attributes:
        apps: Applications with state.
        users: Users with state.
        sessions: Sessions that are whole.
        events: Events of all sessions, what was taken back included.
        unreadable: Events and values of state that this version could not read. They were carried
            over as the bytes that they are.
        problems: What went wrong; the first 1,000.
        problem_count: How much went wrong.
    """

    apps: int = 0
    users: int = 0
    sessions: int = 0
    events: int = 0
    unreadable: int = 0
    problems: list[Problem] = []
    problem_count: int = 0

    def note(self, problem: Problem) -> None:
        """Add a problem."""
        self.problem_count += 1
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(problem)

    def note_unreadable(self, what: str, subject: Subject, line: int = 0) -> None:
        """Count and name what could not be read."""
        self.unreadable += 1
        self.note(Problem(f"{what}; its bytes are carried over as they are", subject, line))


class ExportReport(_Report, kw_only=True):
    """What was exported.

    Attributes:
        skipped: Sessions that were in the file already, when an export goes on.
    """

    skipped: int = 0


class ImportReport(_Report, kw_only=True):
    """What was imported.

    Attributes:
        found: Sessions of which all was there already, or that were left as they are.
        found_events: Events that were there already.
        trimmed: Events that the store's event limit took out again while they were imported.
        kept: Values of application and user state that were left, since others are there.
        lines: Lines that were read.
        skipped_lines: Lines that were left out after a problem, up to the next session.
    """

    found: int = 0
    found_events: int = 0
    trimmed: int = 0
    kept: int = 0
    lines: int = 0
    skipped_lines: int = 0


def named_values(names: list[str]) -> str:
    """Name a few values of state."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(map(brief, names[:3])) + more
