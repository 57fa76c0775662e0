"""The Lua scripts: one a file, each an operation that Redis runs in one step.

A file begins with directives, which this module reads, so that what a script takes is written down
once, there:

``--! keys: a, b``
    The first keys of a call, under these names in Lua. More may follow in ``KEYS``.
``--! read: x, y``
    The script changes nothing that its caller asks it to change; ``x`` and ``y`` are the words of
    its header.
``--! write: x, y``
    It does. Every copy of a call that writes carries when it was issued and its deadline, in
    microseconds on the server's clock, which the connection knows; its reply has the server's
    time in the third place.
``--! uses a, b``
    Stands for ``lib/a.lua`` and ``lib/b.lua``: at the top, or in the block that needs them, since
    Lua makes a function anew each time it comes to it.

``ARGV`` is the echo, the two times of a call that writes, the header, and from ``first`` on what
follows. A reply begins with the echo and with a word that says what happened.
"""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["Argument", "Script", "load"]

Argument: TypeAlias = str | bytes
"""What a key or a word of a script can be; a number is worded by whoever calls."""

_uses = re.compile(r"^ *--! uses (.+)$", re.MULTILINE)
_directive = re.compile(r"^--! (keys|read|write): *(.*)$", re.MULTILINE)


class Script(Struct, frozen=True):
    """A script, the digest by which a server knows it, and what it takes.

    Attributes:
        name: The file's name without its ending.
        text: What is sent.
        sha: Its SHA-1, as ``EVALSHA`` wants it.
        writes: Whether it changes what its caller asks it to change; a lost reply to another one
            leaves nothing unknown.
        keys: The names of its first keys.
        header: The names of the words that come first.
    """

    name: str
    text: str
    sha: str
    writes: bool
    keys: tuple[str, ...] = ()
    header: tuple[str, ...] = ()

    @property
    def is_remembered(self) -> bool:
        """Whether its calls have ids, which the server remembers (lib/once.lua)."""
        return "id" in self.header

    def words(self, **named: Argument) -> list[Argument]:
        """Put the words of the header into their order."""
        assert len(named) == len(self.header)  # noqa: S101 - a word too many would go unnoticed
        return [named[name] for name in self.header]


def load(name: str) -> Script:
    """Read a script with what it uses."""
    folder: Traversable = files(__name__)
    source = (folder / f"{name}.lua").read_text("utf-8")
    taken: dict[str, tuple[str, ...]] = {
        kind: tuple(names.split(", ")) for kind, names in _directive.findall(source)
    }
    writes = "write" in taken
    header = tuple(filter(None, taken["write" if writes else "read"]))

    def locals_of(directive: re.Match[str]) -> str:
        if directive[1] == "keys":
            return _locals(taken["keys"], [f"KEYS[{n + 1}]" for n in range(len(taken["keys"]))])
        times = ["issued", "deadline"] if writes else []
        names = ["echo", *times, *header]
        values = [
            f"tonumber(ARGV[{n}])" if name in times else f"ARGV[{n}]"
            for n, name in enumerate(names, 1)
        ]
        return _locals([*names, "first"], [*values, str(len(names) + 1)])

    def library(used: re.Match[str]) -> str:
        names = used[1].split(", ")
        texts = [(folder / "lib" / f"{each}.lua").read_text("utf-8") for each in names]
        return _uses.sub(library, "".join(texts))

    text = _uses.sub(library, _directive.sub(locals_of, source))
    # SHA-1 names the script, as the protocol demands; nothing rests on its strength.
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(name, text, digest, writes, taken.get("keys", ()), header)


def _locals(names: tuple[str, ...] | list[str], values: list[str]) -> str:
    return f"local {', '.join(names)} = {', '.join(values)}"
