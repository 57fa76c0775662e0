"""Programs in processes of their own, as a test talks to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Program:
    """A module of ``adapters.programs`` that reads lines, and answers with lines of JSON."""

    def __init__(self, module: str, *arguments: str) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"adapters.programs.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""},
            text=True,
        )

    def say(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for its next answer."""
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def program(module: str, *arguments: str) -> Iterator[Program]:
    """Start a program, and kill it in the end; its first answer says that it is ready."""
    started = Program(module, *arguments)
    try:
        assert started.answer() == {"ready": True}
        yield started
    finally:
        started.kill()
