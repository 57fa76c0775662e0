"""Streams over HTTP: what an open one takes, and what very many do to appends and to each other."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from agentsession import Event, RedisSessionService, SessionKey
from benchmarks.following.measurements import Pace, Row
from benchmarks.following.writer import APP, text
from benchmarks.server import Server

__all__ = ["open_streams"]

_ROOT = Path(__file__).resolve().parent.parent.parent
_USER = "streams"
# So many are opened at the same time.
_OPENING = 50
# Between two appends, in seconds.
_REST = 0.005


class _Stream:
    """One that is open, of a session."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def next(self) -> int:
        """Wait for the next stored event; return when it came, in ns."""
        await self._reader.readuntil(b"\nid: ")
        arrived = time.perf_counter_ns()
        await self._reader.readuntil(b"\n\n")
        return arrived


async def open_streams(server: Server, pace: Pace) -> list[Row]:
    """Measure streams of one uvicorn process, each of a session of its own."""
    _allow_files(3 * pace.many)
    keys = [SessionKey(APP, _USER, f"{number}") for number in range(pace.many)]
    url = server.url(0)
    async with RedisSessionService.from_url(url, session_event_limit=None) as service:
        for key in keys:
            await service.create_session(key)
        alone = await _append(service, keys[0], None, pace.messages)
        async with _serving(url) as (port, memory), AsyncExitStack() as stack:
            first = await _open(port, keys[0], stack)
            few = await _append(service, keys[0], first, pace.messages)
            at_first, begun = memory(), time.perf_counter()
            rest = iter(keys[1:])
            async with asyncio.TaskGroup() as group:
                for _ in range(_OPENING):
                    group.create_task(_open_each(port, rest, stack))
            seconds = time.perf_counter() - begun
            each = (memory() - at_first) / (len(keys) - 1)
            many = await _append(service, keys[0], first, pace.messages)
    rows = [("none", alone, "", ""), ("1", few, "", "")]
    rows.append((f"{len(keys):,}", many, f"{each:,.0f}", f"{seconds / len(keys) * 1e6:,.0f}"))
    return [
        (
            what,
            size,
            opening,
            *_times(figures.appends, alone.appends),
            *_times(figures.ways, few.ways),
        )
        for what, figures, size, opening in rows
    ]


class _Figures:
    """What appends took, and the way to a stream, in seconds."""

    def __init__(self) -> None:
        self.appends: list[float] = []
        self.ways: list[float] = []


def _times(own: Sequence[float], other: Sequence[float]) -> tuple[str, str]:
    if not own:
        return "", ""
    middle = statistics.median(own)
    return f"{middle * 1e6:,.0f}", f"{middle / statistics.median(other):.2f}"


async def _append(
    service: RedisSessionService, key: SessionKey, stream: _Stream | None, number: int
) -> _Figures:
    """Append, one after the other, and wait for each to come if there is a stream."""
    figures = _Figures()
    for _ in range(number):
        event = Event(author="agent", content=text())
        begun = time.perf_counter_ns()
        await service.append_event(key, event)
        figures.appends.append((time.perf_counter_ns() - begun) / 1e9)
        if stream is not None:
            figures.ways.append((await stream.next() - begun) / 1e9)
        await asyncio.sleep(_REST)
    return figures


async def _open_each(port: int, keys: Iterator[SessionKey], stack: AsyncExitStack) -> None:
    for key in keys:
        await _open(port, key, stack)


async def _open(port: int, key: SessionKey, stack: AsyncExitStack) -> _Stream:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stack.callback(_abort, writer)
    path = f"/sessions/{key.session_id}/events/stream"
    lines = (f"GET {path} HTTP/1.1", "Host: benchmark", f"X-User: {_USER}", "", "")
    writer.write("\r\n".join(lines).encode())
    await reader.readuntil(b"\n\n")  # the first frame
    return _Stream(reader)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close it at once; until then it is held here, or it would be closed when it is forgotten."""
    writer.transport.abort()


@asynccontextmanager
async def _serving(store: str) -> AsyncIterator[tuple[int, _Memory]]:
    """Run the application in a process of its own."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(_OPENING)
        port, descriptor = listening.getsockname()[1], listening.fileno()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "benchmarks.following.site:app"),
            *("--fd", str(descriptor), "--log-level", "warning"),
            cwd=_ROOT,
            env=os.environ | {"STORE": store, "PYTHONPATH": str(_ROOT)},
            pass_fds=[descriptor],
        )
        try:
            yield port, _Memory(process.pid)
        finally:
            process.kill()
            await process.wait()


class _Memory:
    """How much memory a process has, in bytes."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")

    def __call__(self) -> int:
        lines = self._status.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def _allow_files(number: int) -> None:
    """Let this process, and those that it runs, have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, hard), hard))
