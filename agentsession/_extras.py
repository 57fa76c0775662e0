"""Says what to install where an extra's packages are missing or too old.

The packages, and their oldest versions, are those of this package's own metadata.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["what_to_install"]


class _Needed(NamedTuple):
    """A package that an extra asks for; ``installed`` is empty where it is missing."""

    name: str
    oldest: str
    installed: str

    @property
    def is_too_old(self) -> bool:
        return bool(self.installed) and _numbers(self.installed) < _numbers(self.oldest)


def what_to_install(who: str, extra: str, cause: ImportError) -> str:
    """Word the error of a module whose extra cannot be imported.

    Args:
        who: What cannot be used, such as ``"this adapter"``.
        extra: What to install for it.
        cause: Why not.
    """
    needed = [*_needed_by(extra)]
    install = f"pip install 'agentsession[{extra}]'"
    for each in needed:
        if each.is_too_old:
            return (
                f"{who} needs {each.name} {each.oldest} or newer, and {each.installed} is "
                f"installed: {install}"
            )
    if missing := " and ".join(each.name for each in needed if not each.installed):
        return f"{who} needs {missing}: {install}"
    # All are there, as far as is known: something that they need themselves is not, perhaps.
    return (
        f"{who} needs its extra, which cannot be imported ({cause.__cause__ or cause}): {install}"
    )


def _needed_by(extra: str) -> Iterator[_Needed]:
    from importlib import metadata  # noqa: PLC0415 - only errors need it

    try:
        requirements = metadata.requires("agentsession") or ()
    except metadata.PackageNotFoundError:
        return  # Run from its source.
    asked = re.compile(rf"([\w.-]+)[^;]*>=([\w.]+)[^;]*;.*\bextra == ['\"]{re.escape(extra)}['\"]")
    for found in filter(None, map(asked.match, requirements)):
        name, oldest = found.groups()
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = ""
        yield _Needed(name, oldest, installed)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
