"""The command: ``python -m benchmarks.following --help``."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console

from benchmarks.following import measurements
from benchmarks.following.measurements import Pace, Row
from benchmarks.following.streams import open_streams
from benchmarks.machine import describe_load, describe_machine
from benchmarks.report import make_table
from benchmarks.server import Server, running_server

_WIDTH = 150
_APPENDS = ("", "us", "x (half of the rounds)", "server us")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.following", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter, and less exact")
    parser.add_argument("--only", nargs="+", choices=[*_measured(Pace(quick=True), None)])
    parser.add_argument(
        "--base",
        type=lambda path: Path(path).resolve(),
        metavar="DIR",
        help="a checkout of a version to compare appends with",
    )
    return parser.parse_args()


def _measured(
    pace: Pace, base: Path | None
) -> dict[str, tuple[str, tuple[str, ...], Callable[[Server], Awaitable[list[Row]]]]]:
    """Return the measurements by name, each with a title, columns, and what makes the rows."""
    return {
        "appends": (
            "An append while some follow, in another process",
            _APPENDS,
            lambda server: measurements.appends_while_followed(server, pace),
        ),
        "base": (
            "An append of another version, and of this one; nobody follows",
            (*_APPENDS, "script x"),
            lambda server: measurements.appends_beside_another_version(
                server, pace, base or Path()
            ),
        ),
        "ways": (
            "From one process to another, in us",
            ("", "p50", "x", "p99", "x", "answered"),
            lambda server: measurements.ways(server, pace),
        ),
        "idle": (
            "Subscriptions to which nothing happens, bytes and us each",
            ("", "connections", "client", "server", "to open"),
            lambda server: measurements.idle_subscriptions(server, pace),
        ),
        "streams": (
            "Streams over HTTP that are open in one process, each of another session",
            ("open", "bytes each", "to open, us", "append, us", "x", "to the stream, us", "x"),
            lambda server: open_streams(server, pace),
        ),
        "many": (
            "An append with very many subscriptions open",
            _APPENDS,
            lambda server: measurements.many_subscriptions(server, pace),
        ),
    }


def main() -> None:
    """Measure, and print a table of each kind."""
    options = _arguments()
    console = Console(width=_WIDTH)
    for name, value in describe_machine().items():
        console.print(f"{name}: {value}")
    for name, (title, columns, rows) in _measured(Pace(quick=options.quick), options.base).items():
        if name not in (options.only or [name]) or (name == "base" and options.base is None):
            continue
        with running_server() as server:
            table = make_table(title, *columns)
            for row in asyncio.run(_rows(rows, server)):
                table.add_row(*row)
        console.print(table)
    console.print(f"load after: {describe_load()}")


async def _rows(rows: Callable[[Server], Awaitable[list[Row]]], server: Server) -> list[Row]:
    return await rows(server)


if __name__ == "__main__":
    main()
