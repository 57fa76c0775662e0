"""How errors name what they are about. Pure; no I/O."""

from __future__ import annotations

import reprlib
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentsession.sessions import SessionKey, UserKey

# Ids may be of any length, but errors are read by people.
_cutter = reprlib.Repr()
_cutter.maxstring = _cutter.maxother = 80


def brief(value: object) -> str:
    """Return the repr of a value, shortened to about 80 characters."""
    return _cutter.repr(value)


# There are few applications, and many reads describe theirs in case of an error.
@lru_cache(maxsize=64)
def described_app(app_name: str) -> str:
    """Describe an application, as errors name it."""
    return f"app {brief(app_name)}"


def described(subject: SessionKey | UserKey | str) -> str:
    """Describe what an error is about; a string is returned as it is."""
    if isinstance(subject, str):
        return subject
    parts = [described_app(subject.app_name), f"user {brief(subject.user_id)}"]
    session_id = getattr(subject, "session_id", None)
    if session_id is not None:
        parts.insert(0, f"session {brief(session_id)}")
    return ", ".join(parts)


def dotted(path: Iterable[str | int]) -> str:
    """Write a path as Python subscripts, ``cart['items'][0]``, in printable characters."""
    first, *rest = path
    return brief(str(first))[1:-1] + "".join(f"[{brief(step)}]" for step in rest)
