"""What a backend is asked for, worded as scripts take it. Pure; no I/O."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from agentsession.redis.keys import STATE_FIELD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentsession.backend import ReadLimit, Window
    from agentsession.redis.link import Argument
    from agentsession.state import Changes, ScopeChanges

__all__ = ["change_triples", "flat", "limit_args", "scope_triples", "window_args"]


def window_args(window: Window) -> list[Argument]:
    """Word the bounds of a window as lib/snapshot.lua takes them."""
    return [
        window.after_seq,
        "" if window.since is None else window.since,
        "" if window.last is None else window.last,
    ]


def limit_args(limit: ReadLimit | None, asked: int | None) -> tuple[int, ...]:
    """Word a limit as lib/events.lua takes it; none if so few events are asked for."""
    if limit is None or (asked is not None and asked <= limit.harmless):
        return ()
    return limit.size, limit.harmless


def change_triples(changes: Changes) -> list[tuple[str, str, bytes]]:
    """Word changes as lib/changes.lua takes them."""
    if not changes:
        return []
    return [
        *scope_triples("s", STATE_FIELD.decode(), changes.session),
        *scope_triples("u", "", changes.user),
        *scope_triples("a", "", changes.app),
    ]


def flat(triples: list[tuple[str, str, bytes]]) -> Iterator[Argument]:
    """Put triples into a row, as ARGV holds them."""
    return itertools.chain.from_iterable(triples)


def scope_triples(target: str, prefix: str, changes: ScopeChanges) -> list[tuple[str, str, bytes]]:
    """Word the changes of one scope, whose letter is *target*; a capital one deletes."""
    return [
        (target.upper(), prefix + name, b"") if value is None else (target, prefix + name, value)
        for name, value in changes.items()
    ]
