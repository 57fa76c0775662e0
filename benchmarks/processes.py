"""A contestant's process, as the suite sees it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.roster import Entrant

__all__ = ["LONGEST", "ContestantError", "ContestantProcess", "own_interpreter"]

_ROOT = Path(__file__).resolve().parent.parent
# A slow peer's rounds take seconds, and filling a long history up to a minute.
LONGEST = 180.0
_LONGEST_ANSWER = 1 << 20


class ContestantError(Exception):
    """A contestant did not do what it was asked, and why."""


class ContestantProcess:
    """Runs ``benchmarks.driver`` for one entrant; see there for orders.

    Args:
        entrant: Whom to run.
        python: Its interpreter.
        log: Where its standard error goes.
        longest: Seconds that an answer may take.
    """

    def __init__(
        self, entrant: Entrant, python: Path, log: Path, *, longest: float = LONGEST
    ) -> None:
        self.entrant = entrant
        self.failure = ""
        self._python = python
        self._log = log
        self._longest = longest
        self._process: asyncio.subprocess.Process | None = None

    def another(self, number: int) -> ContestantProcess:
        """Return one more process of the same entrant, which is not yet started."""
        log = self._log.with_stem(f"{self._log.stem}-{number}")
        return ContestantProcess(self.entrant, self._python, log, longest=self._longest)

    async def start(self) -> None:
        """Start it; it fails at the first order if it cannot even be imported."""
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(self._python),
                "-m",
                f"benchmarks.contestants.{self.entrant.module}",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=_LONGEST_ANSWER,
                cwd=_ROOT,
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
            )

    async def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and return the answer.

        Raises:
            ContestantError: It failed, or did not answer in time and was ended; every later order
                then fails at once.
        """
        if self.failure:
            raise ContestantError(self.failure)
        contestant = self.entrant.contestant or self.entrant.store
        answer = await self._answer({**order, "contestant": contestant})
        if "error" in answer:
            raise ContestantError(answer["error"])
        return answer

    async def _answer(self, order: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._longest):
                process.stdin.write(json.dumps(order).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:
            process.kill()
            self.failure = f"no answer within {self._longest:.0f} s"
        except ConnectionError as exc:
            self.failure = str(exc)
        else:
            if line:
                answer: dict[str, Any] = json.loads(line)
                return answer
            self.failure = f"ended: {self._last_words()}"
        raise ContestantError(self.failure)

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"

    async def aclose(self) -> None:
        """End it, by closing its input, or by force."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def own_interpreter() -> Path:
    """Return this process's interpreter, where this package is installed."""
    return Path(sys.executable)
