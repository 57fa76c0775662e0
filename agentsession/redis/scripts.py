"""The Lua scripts: one a file, each an operation that Redis runs in one step.

In a file a line ``--! uses a, b`` stands for ``lib/a.lua`` and ``lib/b.lua``, which are sent in its
place: at the top, or in the block that needs them, since Lua makes a function anew each time it
comes to it.
"""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["Script", "load"]

_uses = re.compile(r"^ *--! uses (.+)$", re.MULTILINE)


class Script(Struct, frozen=True):
    """A script and the digest by which a server knows it.

    Attributes:
        name: The file's name without its ending.
        text: What is sent.
        sha: Its SHA-1, as ``EVALSHA`` wants it.
        writes: Whether it changes what its caller asks it to change; a lost reply to another one
            leaves nothing unknown.
    """

    name: str
    text: str
    sha: str
    writes: bool


def load(name: str, *, writes: bool) -> Script:
    """Read a script with what it uses."""
    folder: Traversable = files("agentsession.redis") / "lua"

    def parts(used: re.Match[str]) -> str:
        names = used[1].split(", ")
        return "".join((folder / "lib" / f"{each}.lua").read_text("utf-8") for each in names)

    text = _uses.sub(parts, (folder / f"{name}.lua").read_text("utf-8"))
    # SHA-1 names the script, as the protocol demands; nothing rests on its strength.
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(name, text, digest, writes)
