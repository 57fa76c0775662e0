"""How much of the machine this process holds."""

from __future__ import annotations

import gc
import os
import subprocess
from pathlib import Path

from msgspec import Struct

# Rounds differ a little in what they hold; a leak of a connection or of a session a round adds up.
_GROWTH = 1.15


class Footprint(Struct, frozen=True):
    """Memory in kilobytes, and open files, sockets among them."""

    memory: int
    files: int

    @classmethod
    def now(cls) -> Footprint:
        gc.collect()
        shown = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=True, text=True
        )
        return cls(int(shown.stdout), len(list(Path("/dev/fd").iterdir())))

    def grown_since(self, earlier: Footprint) -> list[str]:
        """Say what is no longer flat."""
        grown = []
        if self.memory > earlier.memory * _GROWTH:
            grown.append(f"left over: memory, {earlier.memory:,} kB and then {self.memory:,} kB")
        if self.files > earlier.files:
            grown.append(f"left over: files, {earlier.files} and then {self.files}")
        return grown
