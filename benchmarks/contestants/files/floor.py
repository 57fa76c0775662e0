"""The floor of one caller: 4 KiB are written to a file, and synced, by the loop's own thread.

They go over those of before, round and round, as SQLite's log does when it has its length: a file
that grows has more to sync. SQLite cannot do less for a commit that is on the disk. The floor takes
its turns with the contestants: what a sync takes changes from minute to minute on a shared machine.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

from benchmarks.cases import Setup
from benchmarks.contestants.files.base import OnFile
from benchmarks.driver import main
from benchmarks.messages import Message

_BLOCK = bytes(4096)
# After so many pages SQLite begins its log again.
_PAGES = 1000


class Floor(OnFile):
    """Writes and syncs."""

    without = {  # noqa: RUF012 - a constant
        "get": "only writes",
        "list": "only writes",
    }

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT)
        os.write(self._descriptor, _BLOCK * _PAGES)
        os.fsync(self._descriptor)
        self._places = itertools.cycle(range(0, len(_BLOCK) * _PAGES, len(_BLOCK)))

    async def seed(self, sessions: Sequence[str]) -> None:
        """Sessions are nothing to it."""

    async def append(self, session: str, messages: Sequence[Message]) -> None:  # noqa: ARG002 - as above
        os.pwrite(self._descriptor, _BLOCK, next(self._places))
        os.fdatasync(self._descriptor)

    async def get_last(self, session: str) -> int:
        raise NotImplementedError

    async def pragma(self, name: str) -> Any:
        raise NotImplementedError

    async def aclose(self) -> None:
        os.close(self._descriptor)


if __name__ == "__main__":
    main({"floor": Floor})
