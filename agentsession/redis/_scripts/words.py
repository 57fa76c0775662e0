"""Builds the arguments of scripts. Pure; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentsession.backend import NEW
from agentsession.redis._keys import STATE_FIELD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.backend import Before, Beginning, ReadLimit, Window
    from agentsession.events import Rewind
    from agentsession.redis._scripts import Argument
    from agentsession.retention import Retention
    from agentsession.state import Changes, ScopeChanges

__all__ = [
    "before_words",
    "beginning_word",
    "change_words",
    "flag",
    "life_words",
    "limit_words",
    "number",
    "rewind_words",
    "scope_words",
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


def change_words(changes: Changes) -> list[Argument]:
    """Word changes as lib/changes.lua takes them: for each its target, its field and its value."""
    if not changes:
        return []
    return [
        *scope_words("s", STATE_FIELD.decode(), changes.session),
        *scope_words("u", "", changes.user),
        *scope_words("a", "", changes.app),
    ]


def beginning_word(beginning: Beginning) -> str:
    """Word how a session begins as create.lua takes it; nothing for a new one."""
    if beginning == NEW:
        return ""
    begins = beginning.first_seq - 1
    return f"{beginning.created} {beginning.after_seq} {begins} {beginning.taken_to}"


def before_words(earlier: Sequence[Before]) -> list[Argument]:
    """Word what state was as note_past.lua takes it: for each name its place, field and value."""
    words: list[Argument] = []
    for before in earlier:
        place = f"{before.at:.1f}"
        for name, value in before.was.items():
            words += (place, STATE_FIELD.decode() + name, value or b"")
    return words


def rewind_words(rewind: Rewind, *, is_copy: bool) -> list[Argument]:
    """Word a rewind as the one change of its mark; see lib/rewind.lua."""
    return ["r", str(rewind.to_seq), "copy" if is_copy else flag(rewind.restores_state)]


def scope_words(target: str, prefix: str, changes: ScopeChanges) -> list[Argument]:
    """Word the changes of one scope, whose letter is *target*; a capital one deletes."""
    words: list[Argument] = []
    for name, value in changes.items():
        if value is None:
            words += (target.upper(), prefix + name, b"")
        else:
            words += (target, prefix + name, value)
    return words
