"""``python -m agentsession``: the command line."""

from __future__ import annotations

import argparse
import asyncio
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from agentsession.transfer._command import (
    describe_export,
    describe_import,
    positive,
    run_export,
    run_import,
)

# What a shell says of a process that SIGINT has ended.
_STOPPED: Final = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agentsession", description="Sessions for LLM agents."
    )
    parser.add_argument("--version", action="version", version=version("agentsession"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _describe_demo(
        commands.add_parser(
            "demo",
            help="replay recorded conversations, in memory and in another store, and compare",
        )
    )
    describe_export(commands.add_parser("export", help="write sessions to a file"))
    describe_import(commands.add_parser("import", help="read sessions from a file"))
    return parser


def _describe_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Replays recorded agent conversations turn by turn, once in memory and once on a real "
        "server or in a file, reads them back and compares them message by message. "
        "Exit code 1 if anything differs, 2 if it could not be tried."
    )
    parser.add_argument(
        "--store",
        "--redis",
        default="redis",
        metavar="STORE",
        help="the store beside memory: redis for an embedded Valkey, which is the default; sqlite "
        "for a temporary file; or a URL, as open_service() takes it",
    )
    parser.add_argument(
        "--data", metavar="FILE", type=Path, help="JSON lines of OpenAI chat messages"
    )
    parser.add_argument(
        "--conversations", metavar="N", type=positive, help="replay at most this many"
    )


def _run_demo(options: argparse.Namespace) -> int:
    try:
        from agentsession import demo  # noqa: PLC0415 - an extra, needed by this command alone
    except ImportError as exc:
        print(
            f"error: the demo needs more: pip install 'agentsession[demo]' ({exc})", file=sys.stderr
        )
        return 2
    return asyncio.run(demo.main(options.store, options.data, options.conversations))


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        by_name = options.command == "demo" and not unknown[0].startswith("-")
        hint = "; its store is given by --store" if by_name else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    try:
        match options.command:
            case "export":
                return asyncio.run(run_export(options, sys.stderr))
            case "import":
                return asyncio.run(run_import(options, sys.stderr))
            case _:
                return _run_demo(options)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return _STOPPED


if __name__ == "__main__":
    sys.exit(main())
