"""How long an export and an import take, and how much memory: ``python -m benchmarks.transfer``.

A server is filled; then the command exports from it, imports into another place on the same server,
and exports from there. The two files must be the same.
"""

from __future__ import annotations

import argparse
import asyncio
import filecmp
import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.embedded import embedded_server
from agentsession.events import Text, ToolCall, ToolResult

_APP = "app"
_BATCH = 1000


def _events(start: int, count: int) -> list[Event]:
    """Make events as agents do, of some hundred bytes, every fourth with a change of state."""
    events: list[Event] = []
    for number in range(start, start + count):
        call = f"call-{number}"
        match number % 4:
            case 0:
                event = Event(author="user", content=f"Where is order {number}? " * 4)
            case 1:
                event = Event(author="agent", content=[ToolCall(call, "find", {"order": number})])
            case 2:
                result = {"order": number, "status": "sent", "items": ["a", "b", "c"]}
                event = Event(author="tool", content=[ToolResult(call, result, "find")])
            case _:
                event = Event(
                    author="agent",
                    content=[Text(f"Order {number} was sent on Monday. " * 5)],
                    state_delta={"last_order": number},
                )
        events.append(event)
    return events


async def _fill(url: str, sessions: int, events: int) -> None:
    async with RedisSessionService.from_url(
        url, key_prefix="from:", session_event_limit=None
    ) as service:
        for number in range(sessions):
            key = SessionKey(_APP, f"user {number % 50}", f"session {number}")
            await service.create_session(key)
            for start in range(0, events, _BATCH):
                await service.append_events(key, _events(start, min(_BATCH, events - start)))


def _run(*words: str) -> tuple[float, float]:
    """Run the command; return how many seconds and how many MB it took."""
    started = time.monotonic()
    command = [sys.executable, "-m", "agentsession", *words, "--quiet"]
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        msg = f"the command failed: {' '.join(words)}"
        raise SystemExit(msg)
    return time.monotonic() - started, usage.ru_maxrss / 1024


def _measure(url: str, folder: Path, sessions: int, events: int) -> Table:
    first, second = str(folder / "first.jsonl"), str(folder / "second.jsonl")
    asyncio.run(_fill(url, sessions, events))
    exports = ("export", url, first, "--app", _APP, "--key-prefix", "from:")
    imports = ("import", url, first, "--key-prefix", "to:")
    again = ("export", url, second, "--app", _APP, "--key-prefix", "to:")
    rows = {
        "export": _run(*exports),
        "import": _run(*imports),
        "export again": _run(*again),
        "import again": _run(*imports),
        "look through": _run("import", "memory://", first),
    }
    same = filecmp.cmp(first, second, shallow=False)
    size = Path(first).stat().st_size / 1e6
    table = Table(
        title=f"{sessions * events:,} events in {sessions:,} sessions, {size:,.0f} MB; "
        f"the files {'are the same' if same else 'DIFFER'}"
    )
    for name in ("", "seconds", "events per second", "peak MB"):
        table.add_column(name, justify="right" if name else "left")
    for name, (seconds, megabytes) in rows.items():
        rate = sessions * events / seconds
        table.add_row(name, f"{seconds:.1f}", f"{rate:,.0f}", f"{megabytes:.0f}")
    return table


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000, help="how many sessions")
    parser.add_argument("--events", type=int, default=1000, help="how many events each has")
    options = parser.parse_args()
    with embedded_server() as url, tempfile.TemporaryDirectory() as folder:
        Console(width=100).print(_measure(url, Path(folder), options.sessions, options.events))


if __name__ == "__main__":
    main()
