"""What contestants in a file share. Needs nothing but Python."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, Setup
from benchmarks.driver import Contestant, NotMeasuredError

__all__ = ["OnFile"]

_SYNCHRONOUS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
_OPERATIONS = {"append", "get", "list"}


class OnFile(Contestant):
    """A store in one file, in the folder that is its URL."""

    # What is not for this contestant, and why.
    without: dict[str, str] = {}  # noqa: RUF012 - a constant of each class

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.file = Path(url) / "sessions.db"
        self.file.parent.mkdir(parents=True, exist_ok=True)

    @classmethod
    def check(cls, case: Case) -> None:
        super().check(case)
        if case.operation not in _OPERATIONS:
            msg = "not measured in a file"
            raise NotMeasuredError(msg)
        if case.operation in cls.without:
            raise NotMeasuredError(cls.without[case.operation])

    @abstractmethod
    async def pragma(self, name: str) -> Any:
        """Return an option of SQLite's, of a connection as the store opens it to write."""

    async def durability(self) -> str:
        journal, synchronous = await self.pragma("journal_mode"), await self.pragma("synchronous")
        return f"{str(journal).upper()}, {_SYNCHRONOUS[synchronous]}"
