"""``python -m agentsession``: the command line."""

from __future__ import annotations

import argparse
import asyncio
import sys
from importlib.metadata import version
from pathlib import Path


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = f"must be a number from 1 on, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agentsession", description="Sessions for LLM agents."
    )
    parser.add_argument("--version", action="version", version=version("agentsession"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="replay recorded conversations, in memory and on a server, and compare",
        description="Replays recorded agent conversations turn by turn, once in memory and once on "
        "a real server, reads them back and compares them message by message. "
        "Exit code 1 if anything differs, 2 if it could not be tried.",
    )
    demo.add_argument("--redis", metavar="URL", help="the server; without it an embedded Valkey")
    demo.add_argument(
        "--data", metavar="FILE", type=Path, help="JSON lines of OpenAI chat messages"
    )
    demo.add_argument(
        "--conversations", metavar="N", type=_positive, help="replay at most this many"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        from agentsession import demo  # noqa: PLC0415 - an extra, needed by this command alone
    except ImportError as exc:
        print(
            f"error: the demo needs more: pip install 'agentsession[demo]' ({exc})", file=sys.stderr
        )
        return 2
    return asyncio.run(demo.main(options.redis, options.data, options.conversations))


if __name__ == "__main__":
    sys.exit(main())
