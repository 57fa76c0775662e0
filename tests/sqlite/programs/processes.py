"""Starts the programs of this folder, and reads what they say line by line."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

TOP = Path(__file__).parents[3]
# By then a program has said what it had to say, also on a machine that is busy.
PATIENCE = 60.0


def environment() -> dict[str, str]:
    """Return one in which the programs find the library and the tests."""
    paths = [str(TOP), str(TOP / "tests"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Program:
    """A program of this folder that runs in a process of its own.

    Args:
        module: Its name, as in ``"appending"``.
        arguments: What it is called with.
        before: A command that starts it, for example under a limit.
    """

    def __init__(self, module: str, *arguments: object, before: Sequence[str] = ()) -> None:
        command = [*before, sys.executable, "-m", f"sqlite.programs.{module}", *map(str, arguments)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            bufsize=0,
        )
        self._rest = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        end = time.monotonic() + PATIENCE
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], end - time.monotonic())
            assert ready, "it says nothing"
            more = os.read(self._process.stdout.fileno(), 65536)
            assert more, f"it has ended: {self.errors()}"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def tell(self, line: str = "") -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> list[str]:
        """Kill it, and return the whole lines that it has printed and nobody has read."""
        self._process.kill()
        return self.rest()

    def rest(self) -> list[str]:
        """Wait for its end, and return the whole lines that are left."""
        assert self._process.stdout is not None
        while more := os.read(self._process.stdout.fileno(), 65536):
            self._rest += more
        self._process.wait(PATIENCE)
        return self._rest.decode().split("\n")[:-1]

    def errors(self) -> str:
        """Return what it has complained of, once it has ended."""
        assert self._process.stderr is not None
        return self._process.stderr.read().decode()

    def end(self) -> list[str]:
        """Wait until it has done everything, without a complaint; return the lines left."""
        lines = self.rest()
        errors = self.errors()
        assert not errors, errors
        assert self._process.returncode == 0
        return lines

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


@contextmanager
def running(module: str, *arguments: object, before: Sequence[str] = ()) -> Iterator[Program]:
    """Run a program, and kill it in the end if it runs still."""
    program = Program(module, *arguments, before=before)
    try:
        yield program
    finally:
        if program.is_running:
            program.signal(signal.SIGCONT)
            program.kill()
        program.close()


def acted(module: str, *arguments: object, before: Sequence[str] = ()) -> list[str]:
    """Run a program to its end, and return its lines."""
    with running(module, *arguments, before=before) as program:
        return program.end()
