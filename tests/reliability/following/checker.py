"""Compares what followers were given with what is stored. Pure; no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from msgspec import Struct

from agentsession import Event
from agentsession.subscriptions import Followed, Rewound, Trimmed

__all__ = ["Record", "complaints", "logged", "words"]


class Record(Struct, kw_only=True):
    """What a follower was given.

    Attributes:
        follower: Its name.
        session: Which one it follows.
        given: What it was given since it last began at the beginning, in order; see :func:`words`.
        replaced: How often it was told that its log is not any more what it was, and began anew.
        trimmed: How often it was told that events have left the log.
        unavailable: How often the store could not be reached.
        reopened: How often it went on, from its position, by another subscription.
    """

    follower: str
    session: int
    given: list[str] = []
    replaced: int = 0
    trimmed: int = 0
    unavailable: int = 0
    reopened: int = 0


def words(item: Followed) -> str:
    """Word what a follower was given: an event's position and id, or a rewind's positions."""
    match item:
        case Rewound():
            return f"{item.seq} back to {item.to_seq} {item.restores_state}"
        case Event(partial=False):
            return f"{item.seq} {item.id}"
        case Trimmed():
            return f"trimmed to {item.oldest_seq}"
        case _:
            return f"unexpected {item}"


def logged(event: Event) -> str:
    """Word what a follower has to be given for an event of the raw log."""
    if event.rewind is None:
        return f"{event.seq} {event.id}"
    return f"{event.seq} back to {event.rewind.to_seq} {event.rewind.restores_state}"


def complaints(
    records: Sequence[Record], logs: Mapping[int, Sequence[str]], followers: int
) -> list[str]:
    """Name what is wrong: each record must be its session's whole log, once and in order.

    Args:
        records: One of each follower.
        logs: The raw logs.
        followers: How many records there must be.
    """
    found = [each for record in records for each in _of(record, logs[record.session])]
    if len(records) != followers:
        found.append(f"lost: {followers - len(records)} followers")
    return found


def _of(record: Record, log: Sequence[str]) -> Iterator[str]:
    if record.given == log:
        return
    where = f"{record.follower} of session {record.session}"
    given, stored = Counter(record.given), Counter(log)
    twice = [each for each, number in given.items() if number > 1]
    kinds = {
        "lost": [*(stored - given)],
        "twice": twice,
        "not stored": [each for each in given if each not in stored],
    }
    for kind, which in kinds.items():
        if which:
            yield f"{kind}: {len(which)} by {where}, the first is {which[0]!r}"
    if not any(kinds.values()):
        place = next(at for at, (a, b) in enumerate(zip_longest(record.given, log)) if a != b)
        yield f"order: {where}, from {record.given[place]!r} on"
