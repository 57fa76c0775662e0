"""What is printed of trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reliability.checker import kind_of
from reliability.trial import Verdict

# What counts in which column; everything else is a wrong or a foreign answer.
_OWN_COLUMN = {each: each for each in ("lost", "twice", "late", "left over")}
_OTHER = "wrong"
_MOST_SHOWN = 20

HEADINGS = (
    *("trial", "operations", "ok", "failed", "unknown", "faults"),
    *("events acknowledged", "lost", "twice", "late", "wrong", "left over"),
)


def row(name: str, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Return the figures of trials taken together, one for each heading."""
    outcomes = sum((each.outcomes for each in verdicts), Counter())
    wrong = [found for each in verdicts for found in each.violations]
    found = Counter(_OWN_COLUMN.get(kind_of(each), _OTHER) for each in wrong)
    figures = (
        *(outcomes.total(), outcomes["ok"], outcomes["failed"], outcomes["unknown"]),
        sum(each.strikes + each.lost_replies + each.late_arrivals for each in verdicts),
        sum(each.acknowledged for each in verdicts),
        *(found["lost"], found["twice"], found["late"], found[_OTHER], found["left over"]),
    )
    return (name, *(f"{figure:,}" for figure in figures))


def table(verdicts: Sequence[Verdict]) -> str:
    """Lay trials out under the headings, those of one name together."""
    names = dict.fromkeys(each.trial.name for each in verdicts)
    rows = [
        HEADINGS,
        *(row(name, [each for each in verdicts if each.trial.name == name]) for name in names),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(each, widths) for each in rows)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])


def complaint(violations: list[str]) -> str:
    """Return violations to print, the first ones of many."""
    shown = [f"  {each}" for each in violations[:_MOST_SHOWN]]
    if len(violations) > _MOST_SHOWN:
        shown.append(f"  and {len(violations) - _MOST_SHOWN:,} more")
    return "\n".join(shown)
