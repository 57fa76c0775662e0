"""What is measured in a file as it is elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cases import Case, Group, Setup

__all__ = [
    "ALONE",
    "CROWD",
    "GROUPS",
    "LONG",
    "ONE_PAGE",
    "PAGE",
    "SHORT",
    "selected",
]

ALONE = Case("append, history 0, 1 caller", "append", Setup())
CROWD = Case("append, history 0, 64 callers", "append", Setup(), 64)
SHORT = Case("last 10, 1 session of 10", "get", Setup(1, 10))
LONG = Case("last 10, 1 session of 100,000", "get", Setup(1, 100_000))
ONE_PAGE = Case("page of 50 of 50", "list", Setup(50))
PAGE = Case("page of 50 of 10,000", "list", Setup(10_000))

GROUPS: Sequence[Group] = (
    Group("append", (ALONE, CROWD)),
    Group("last 10", (SHORT, LONG)),
    Group("sessions", (ONE_PAGE, PAGE)),
)


def selected(words: Sequence[str]) -> list[Group]:
    """Choose the groups of a run; *words* keep the cases that have one of them in their name."""
    groups: list[Group] = []
    for group in GROUPS:
        cases = (
            case for case in group.cases if not words or any(each in case.name for each in words)
        )
        if kept := tuple(cases):
            groups.append(Group(group.title, kept))
    return groups
