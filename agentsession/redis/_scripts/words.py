"""What a backend is asked for, worded as scripts take it. Pure; no I/O."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from agentsession.redis.keys import STATE_FIELD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentsession.backend import ReadLimit, Window
    from agentsession.redis._scripts import Argument
    from agentsession.retention import Retention
    from agentsession.state import Changes, ScopeChanges

__all__ = [
    "change_triples",
    "flag",
    "flat",
    "life_words",
    "limit_words",
    "number",
    "scope_triples",
    "size_of",
    "window_words",
]


def number(value: int | None) -> str:
    """Word a number, or that there is none."""
    return "" if value is None else str(value)


def flag(value: bool) -> str:  # noqa: FBT001 - a flag is what it words
    """Word a flag."""
    return "1" if value else ""


def life_words(retention: Retention) -> dict[str, Argument]:
    """Word for how long each scope lives."""
    return {
        "session_ttl": number(retention.session_ttl),
        "user_ttl": number(retention.user_state_ttl),
        "app_ttl": number(retention.app_state_ttl),
    }


def size_of(*scopes: ScopeChanges) -> int:
    """Tell how many bytes changes take, about."""
    return sum(len(name) + len(value or b"") for each in scopes for name, value in each.items())


def window_words(window: Window) -> dict[str, str]:
    """Word a window as lib/snapshot.lua takes it."""
    return {
        "after": str(window.after_seq),
        "since": number(window.since),
        "last": number(window.last),
        **limit_words(window.read_limit, window.last),
    }


def limit_words(limit: ReadLimit | None, asked: int | None) -> dict[str, str]:
    """Word a limit as lib/events.lua takes it; none if so few events are asked for."""
    if limit is None or (asked is not None and asked <= limit.harmless):
        return {"most": "", "harmless": ""}
    return {"most": str(limit.size), "harmless": str(limit.harmless)}


def change_triples(changes: Changes) -> list[tuple[str, str, bytes]]:
    """Word changes as lib/changes.lua takes them."""
    if not changes:
        return []
    return [
        *scope_triples("s", STATE_FIELD.decode(), changes.session),
        *scope_triples("u", "", changes.user),
        *scope_triples("a", "", changes.app),
    ]


def scope_triples(target: str, prefix: str, changes: ScopeChanges) -> list[tuple[str, str, bytes]]:
    """Word the changes of one scope, whose letter is *target*; a capital one deletes."""
    return [
        (target.upper(), prefix + name, b"") if value is None else (target, prefix + name, value)
        for name, value in changes.items()
    ]


def flat(triples: list[tuple[str, str, bytes]]) -> Iterator[Argument]:
    """Put triples into a row, as ARGV holds them."""
    return itertools.chain.from_iterable(triples)
