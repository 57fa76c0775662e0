"""The Lua scripts: one a file, each an operation that Redis runs in one step.

A file may begin with ``--! uses a, b``: then ``lib/a.lua`` and ``lib/b.lua`` stand in front of it
when it is sent.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["Script", "load"]

_USES: Final = "--! uses "


class Script(Struct, frozen=True):
    """A script and the digest by which a server knows it.

    Attributes:
        name: The file's name without its ending.
        text: What is sent.
        sha: Its SHA-1, as ``EVALSHA`` wants it.
    """

    name: str
    text: str
    sha: str


def load(name: str) -> Script:
    """Read a script with what it uses."""
    folder: Traversable = files("agentsession.redis") / "lua"
    text = (folder / f"{name}.lua").read_text(encoding="utf-8")
    first, _, _ = text.partition("\n")
    if first.startswith(_USES):
        used = first.removeprefix(_USES).split(", ")
        parts = [(folder / "lib" / f"{part}.lua").read_text(encoding="utf-8") for part in used]
        text = "\n".join([*parts, text])
    # SHA-1 names the script, as the protocol demands; nothing rests on its strength.
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
