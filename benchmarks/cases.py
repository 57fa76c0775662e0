"""What is measured: the setups, and the cases on them. Needs nothing but Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

__all__ = ["GROUPS", "SESSIONS", "Case", "Group", "Operation", "Setup", "selected"]

Operation = Literal[
    "append",
    "get",
    "history",
    "list",
    "turn",
    "conversation",
    "leased",
    "unleased",
    "rewind",
    "fork",
    "baseline",
    "read",
    "convert",
    "restore",
]

# Below this many events in all, a setup is made anew for each round, so that a history that is said
# to begin empty does so in every round.
_FRESH_BELOW = 1000
SESSIONS = 64


@dataclass(frozen=True)
class Setup:
    """What is stored before a case begins.

    Attributes:
        sessions: How many sessions one user has.
        history: How many events each of them holds.
        rewinds: How many times each of them then went back to the last of these, and on from there.
        size: The letters in each event's text; 200 make an event of 318 bytes here.
        limit: The option ``session_event_limit`` of a contestant that has one; 0 for none.
        ttl: The option ``session_ttl`` of a contestant that has one, in seconds; 0 for none.
    """

    sessions: int = SESSIONS
    history: int = 0
    rewinds: int = 0
    size: int = 200
    limit: int = 0
    ttl: int = 0

    @property
    def fresh(self) -> bool:
        """Whether each round gets new sessions."""
        return self.sessions * self.history < _FRESH_BELOW and self.sessions <= SESSIONS


@dataclass(frozen=True)
class Case:
    """One operation, done by a number of callers at once, each as fast as it can.

    Attributes:
        name: Unique.
        operation: What is done.
        setup: On what.
        callers: How many do it at once.
        batch: How many events an append adds.
        most: The most operations in a round, 0 for as many as there is time for. It bounds what
            large events and forks fill, and how often one session goes back.
        quick: Whether it is part of a quick run.
        alone: Whether it is for ours and the floor only.
        file: Where the conversations are.
    """

    name: str
    operation: Operation
    setup: Setup
    callers: int = 1
    batch: int = 1
    most: int = 0
    quick: bool = False
    alone: bool = False
    file: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Word the case for a contestant's process."""
        return asdict(self)

    @classmethod
    def from_dict(cls, words: dict[str, Any]) -> Case:
        """Undo :meth:`to_dict`."""
        return cls(**{**words, "setup": Setup(**words["setup"])})


@dataclass(frozen=True)
class Group:
    """Cases whose rounds take turns, so that a noisy minute meets all of them alike."""

    title: str
    cases: tuple[Case, ...]


def _append(history: int, callers: int, *, sessions: int = SESSIONS, quick: bool = False) -> Case:
    name = f"append, history {history:,}, {_counted(callers)}"
    return Case(name, "append", Setup(sessions, history), callers, quick=quick)


def _get(history: int, callers: int, *, sessions: int = SESSIONS, quick: bool = False) -> Case:
    name = f"last 10, history {history:,}, {_counted(callers)}"
    return Case(name, "get", Setup(sessions, history), callers, quick=quick)


def _leased(callers: int) -> Iterable[Case]:
    """Make a turn with its lease, and the same writes without, on sessions of their own."""
    # With ten events there, each turn loads as many, however many turns there is time for.
    setup = Setup(SESSIONS, 10)
    for operation, what in _LEASED.items():
        name = f"{what}, {_counted(callers)}"
        yield Case(name, operation, setup, callers, quick=True, alone=True)


def _rewind(history: int, *, rewinds: int = 0) -> Case:
    name = f"rewind, {history:,} events" + (f", after {rewinds:,} rewinds" if rewinds else "")
    setup = Setup(1, history, rewinds=rewinds)
    return Case(name, "rewind", setup, most=_REWINDS, quick=True, alone=True)


def _fork(history: int) -> Case:
    name = f"fork of {history:,} events"
    return Case(name, "fork", Setup(1, history), most=_FORKS, quick=True, alone=True)


def _page(sessions: int, *, quick: bool = False) -> Case:
    return Case(f"page of 50 of {sessions:,}", "list", Setup(sessions), quick=quick)


def _counted(callers: int) -> str:
    return f"{callers} caller{'s' if callers > 1 else ''}"


_LEASED: dict[Operation, str] = {
    "leased": "turn with its lease",
    "unleased": "turn without a lease",
}
# In a round, so that a session that has gone back a thousand times before is another case.
_REWINDS = 300
_FORKS = 24

_TRIMMING = Setup(SESSIONS, 1000, limit=1000)
_LARGE = Setup(2, 10, size=1_000_000, limit=10)

GROUPS: Sequence[Group] = (
    Group(
        "append",
        (
            _append(0, 1, quick=True),
            _append(0, 64, quick=True),
            _append(0, 256, quick=True),
            Case("append 10 at once, 1 caller", "append", Setup(), batch=10),
            Case("append 10 at once, 64 callers", "append", Setup(), 64, batch=10),
        ),
    ),
    Group(
        "history",
        (
            _append(10, 1, quick=True),
            _append(1000, 1, quick=True),
            _append(10_000, 1, sessions=4),
            _append(100_000, 1, sessions=1, quick=True),
            _get(10, 1, quick=True),
            _get(1000, 1, quick=True),
            _get(10_000, 1, sessions=4),
            _get(100_000, 1, sessions=1, quick=True),
            _get(1000, 64, quick=True),
            # Like the 100,000 in a single session, whose memory stays in the processor's caches.
            Case("append, 1 session of 10", "append", Setup(1, 10), quick=True, alone=True),
            Case("last 10, 1 session of 10", "get", Setup(1, 10), quick=True, alone=True),
            Case("2 turns, 1 session of 10", "history", Setup(1, 10), quick=True, alone=True),
            Case(
                "2 turns, history 100,000, 1 caller",
                "history",
                Setup(1, 100_000),
                quick=True,
                alone=True,
            ),
        ),
    ),
    Group(
        "history, many callers",
        (
            _append(1000, 64),
            _append(1000, 256),
            _append(100_000, 64, sessions=4),
            _append(100_000, 256, sessions=4),
            _get(100_000, 64, sessions=4),
        ),
    ),
    Group("sessions", (_page(10), _page(50, quick=True), _page(1000), _page(10_000, quick=True))),
    Group(
        "turns",
        (
            Case("agent turn, 1 caller", "turn", Setup(), quick=True),
            Case("agent turn, 64 callers", "turn", Setup(), 64, quick=True),
            Case("real turn, 1 caller", "conversation", Setup(), quick=True),
            Case("real turn, 64 callers", "conversation", Setup(), 64),
            *_leased(1),
            *_leased(64),
        ),
    ),
    Group(
        "going back",
        (
            _rewind(10),
            _rewind(10_000),
            _rewind(10, rewinds=1000),
            _fork(100),
            _fork(1000),
        ),
    ),
    Group(
        "large events",
        (
            Case("append 1 MB", "append", _LARGE, most=16, quick=True),
            Case("last 10 of 1 MB each", "get", _LARGE, most=16, quick=True),
        ),
    ),
    Group(
        "server cost",
        (
            # By many callers, so that the server is busy and its caches are warm.
            Case("append, trimming at 1,000", "append", _TRIMMING, 64, quick=True, alone=True),
            Case(
                "append, trimming, session_ttl",
                "append",
                replace(_TRIMMING, ttl=3600),
                64,
                alone=True,
            ),
            Case("four commands in a script", "baseline", _TRIMMING, 64, quick=True, alone=True),
        ),
    ),
)


def selected(*, quick: bool, words: Iterable[str], conversations: str) -> list[Group]:
    """Choose the groups of a run; *words* keep the cases that have one of them in their name."""
    groups: list[Group] = []
    wanted = list(words)
    for group in GROUPS:
        cases = tuple(
            replace(case, file=conversations) if case.operation == "conversation" else case
            for case in group.cases
            if (case.quick or not quick)
            and (not wanted or any(word in case.name for word in wanted))
            and (case.operation != "conversation" or conversations)
        )
        if cases:
            groups.append(Group(group.title, cases))
    return groups
