"""The processes that take turns, as the measurements see them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.following.writer import Order

__all__ = ["Process", "listening", "writing"]

_FOLDER = Path(__file__).resolve().parent
_ROOT = _FOLDER.parent.parent
_LONGEST_LINE = 1 << 24


class Process:
    """One that takes orders.

    Args:
        process: Its pipes are open.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, **order: object) -> Order:
        """Give an order, and return the answer.

        Raises:
            RuntimeError: It has ended; why is on its standard error.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        line = await process.stdout.readline()
        if not line:
            msg = f"a process ended at this order: {order['do']}"
            raise RuntimeError(msg)
        answer: Order = json.loads(line)
        return answer

    async def aclose(self) -> None:
        """End it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def _running(url: str, tree: Path, *words: str) -> AsyncIterator[Process]:
    """Run a program with the package of a tree, and have it connect."""
    process = Process(
        await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(tree)},
        )
    )
    try:
        await process.ask(do="open", url=url)
        yield process
    finally:
        await process.aclose()


@asynccontextmanager
async def writing(url: str, tree: Path = _ROOT) -> AsyncIterator[Process]:
    """Run a writer, of this version of the package or of the one in another checkout.

    Args:
        url: The server.
        tree: The checkout; an absolute path.
    """
    async with _running(url, tree, str(_FOLDER / "writer.py")) as process:
        yield process


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Process]:
    """Run a listener."""
    async with _running(url, _ROOT, "-m", "benchmarks.following.listener") as process:
        yield process
