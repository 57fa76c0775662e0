"""The main job, to see at work: ``python -m agentsession demo``, with ``agentsession[demo]``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import quote

from agentsession.demo._conversations import Conversation, DataError, read_conversations
from agentsession.demo._player import APP_NAME, Report, replay
from agentsession.embedded import embedded_server
from agentsession.errors import AgentSessionError
from agentsession.events import new_id
from agentsession.memory import InMemorySessionService
from agentsession.service import SessionService
from agentsession.sessions import UserKey
from agentsession.stores import open_service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table
except ImportError as _cause:
    _advice = "the demo needs rich"
    raise ImportError(_advice) from _cause

__all__ = ["SHIPPED_CONVERSATIONS", "main"]

SHIPPED_CONVERSATIONS = Path(str(files("agentsession.demo") / "conversations.jsonl"))
"""Twelve conversations that were made up for this."""

# How many differences are shown; the first ones tell where to look.
_SHOWN = 20


async def main(store: str, data: Path | None, most: int | None) -> int:
    """Replay conversations in memory and in another store, and show what came of it.

    Args:
        store: The store: ``"redis"`` for an embedded server, ``"sqlite"`` for a temporary file, or
            a URL.
        data: A file of conversations; ``None`` for those that ship with the package.
        most: Replay at most this many conversations; ``None`` for all.

    Returns:
        0 if everything came back as it was, 1 if not, 2 if it could not be tried, as an exit code.
    """
    console = Console()
    try:
        conversations = read_conversations(data or SHIPPED_CONVERSATIONS, most)
        async with AsyncExitStack() as stack:
            name, url = await _named(store, stack)
            reports = {"in memory": await _in_memory(conversations, console)}
            reports[name] = await _in_store(conversations, url, console, name)
    except (DataError, AgentSessionError, ValueError) as exc:
        console.print(f"[bold red]error:[/] {exc}", highlight=False, soft_wrap=True)
        return 2
    console.print(_table(reports))
    return _show_differences(reports, console)


async def _in_memory(conversations: Sequence[Conversation], console: Console) -> Report:
    async with InMemorySessionService(session_event_limit=None) as first:
        # Memory has no other processes; a second service over the same data comes nearest.
        services = [first, SessionService(first.backend)]
        return await _watched(
            conversations, services, SessionService(first.backend), console, "in memory"
        )


async def _named(store: str, stack: AsyncExitStack) -> tuple[str, str]:
    """Return what to call the store, and its URL; it lasts as long as the stack.

    Raises:
        ValueError: It is none for a comparison.
    """
    if store == "redis":
        return "on embedded Valkey", await stack.enter_async_context(embedded_server())
    if store == "sqlite":
        folder = stack.enter_context(TemporaryDirectory(prefix="agentsession-"))
        return "in a file", f"sqlite:///{quote(folder)}/sessions.db"
    scheme = store.partition("://")[0].lower()
    if scheme == "memory":
        msg = "conversations are replayed in memory in any case; --store names another store"
        raise ValueError(msg)
    return "in the file" if scheme == "sqlite" else "on the server", store


async def _in_store(
    conversations: Sequence[Conversation], url: str, console: Console, name: str
) -> Report:
    prefix = f"{APP_NAME}-{new_id()}:"
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(
                open_service(url, key_prefix=prefix, session_event_limit=None)
            )
            for _ in range(3)
        ]
        # A file has no prefixes: there may be something left by a demo that was killed.
        await _erase(conversations, services[0])
        try:
            return await _watched(conversations, services[:2], services[2], console, name)
        finally:
            await _erase(conversations, services[0])


async def _erase(conversations: Sequence[Conversation], service: SessionService) -> None:
    for conversation in conversations:
        user = UserKey(APP_NAME, f"user of {conversation.conversation_id}")
        await service.delete_user(user)


async def _watched(
    conversations: Sequence[Conversation],
    services: Sequence[SessionService],
    reader: SessionService,
    console: Console,
    name: str,
) -> Report:
    """Replay with a progress bar."""
    columns = (TextColumn("{task.description:18}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("turns"), TimeElapsedColumn(), console=console) as progress:
        turns = sum(len(each.turns()) for each in conversations)
        task = progress.add_task(name, total=turns)
        return await replay(conversations, services, reader, lambda: progress.advance(task))


def _table(reports: Mapping[str, Report]) -> Table:
    table = Table(title="agentsession: recorded conversations, replayed and read back")
    table.add_column("")
    for name in reports:
        table.add_column(name, justify="right")
    all_of = list(reports.values())
    table.add_row("conversations", *(f"{each.conversations:,}" for each in all_of))
    table.add_row("turns", *(f"{each.turns:,}" for each in all_of))
    table.add_row("events", *(f"{each.events:,}" for each in all_of))
    table.add_row("tool calls", *(f"{each.tool_calls:,}" for each in all_of))
    table.add_row("streamed chunks, not stored", *(f"{each.chunks:,}" for each in all_of))
    table.add_row("appends per second", *(f"{each.events / each.seconds:,.0f}" for each in all_of))
    table.add_row("differences", *(f"{len(each.differences):,}" for each in all_of))
    return table


def _show_differences(reports: Mapping[str, Report], console: Console) -> int:
    found = [(name, each) for name, report in reports.items() for each in report.differences]
    for name, each in found[:_SHOWN]:
        console.print(f"[bold red]{name}[/]: {each.conversation_id}, {each.place}", highlight=False)
        console.print(f"  expected {each.expected}\n  found    {each.found}", markup=False)
    if len(found) > _SHOWN:
        console.print(f"... and {len(found) - _SHOWN:,} more")
    return 1 if found else 0
