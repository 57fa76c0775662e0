"""Recorded conversations, written through each adapter and read through each other one."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from adapters.canonical import Said, said_in
from adapters.processes import ROOT
from agentsession import SessionKey, SessionService, open_service
from agentsession.demo import SHIPPED_CONVERSATIONS

# By the name of the module in adapters.frameworks, with the package that it needs.
FRAMEWORKS = {
    "plain": "agentsession",
    "openai_agents": "agents",
    "google_adk": "google.adk",
    "pydantic_ai": "pydantic_ai",
    "trpc_agent": "trpc_agent_sdk",
    "claude_agent_sdk": "claude_agent_sdk",
    "agent_framework": "agent_framework",
}
# Real ones, where the checkout has them beside it.
BESIDE = ROOT.parent / "shared" / "data" / "airline_conversations.jsonl"
RECORDINGS = BESIDE if BESIDE.is_file() else Path(str(SHIPPED_CONVERSATIONS))

each_framework = pytest.mark.parametrize("name", FRAMEWORKS)
each_pair = pytest.mark.parametrize(
    ("first", "second"), list(itertools.product(FRAMEWORKS, FRAMEWORKS))
)


class Framework(Protocol):
    """A module of ``adapters.frameworks``."""

    async def write(
        self, service: SessionService, key: SessionKey, messages: list[dict[str, Any]]
    ) -> None:
        """Store messages with the framework's own objects."""

    async def read(self, service: SessionService, key: SessionKey) -> list[Said]:
        """Read what is said from the framework's own objects."""
        ...


def framework(name: str) -> Framework:
    """Import one, if its package is there."""
    pytest.importorskip(FRAMEWORKS[name])
    found: Any = importlib.import_module(f"adapters.frameworks.{name}")
    module: Framework = found
    return module


def recordings() -> list[list[dict[str, Any]]]:
    lines = RECORDINGS.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def middle(messages: list[dict[str, Any]]) -> int:
    """Return where a turn begins, about half way."""
    begins = [n for n, message in enumerate(messages) if message["role"] == "user"]
    return begins[len(begins) // 2]


@asynccontextmanager
async def anew(
    service: SessionService, store_url: str, store_prefix: str
) -> AsyncIterator[SessionService]:
    """Open the store a second time, as the next process does."""
    if store_url == "memory://":
        yield SessionService(service.backend)
        return
    options: Any = {"key_prefix": store_prefix, "session_event_limit": None}
    async with open_service(store_url, **options) as again:
        yield again


@each_framework
async def test_what_one_writes_all_can_read(
    name: str, service: SessionService, store_url: str
) -> None:
    """Texts, calls, arguments, results, and their order: of every recording, by every reader."""
    written = recordings()[:: 10 if store_url.startswith("sqlite") else 1]
    writer = framework(name)
    for number, messages in enumerate(written):
        await writer.write(service, SessionKey("airline", "ada", f"{number}"), messages)
    for other in FRAMEWORKS:
        reader = framework(other)
        for number, messages in enumerate(written):
            found = await reader.read(service, SessionKey("airline", "ada", f"{number}"))
            assert found == said_in(messages), (other, number)


@each_pair
async def test_what_one_has_begun_another_goes_on_with(
    first: str, second: str, service: SessionService, store_url: str, store_prefix: str
) -> None:
    """After a restart, in a fork that went back: the end is the other's, the original stays."""
    begins, goes_on = framework(first), framework(second)
    # All of them on a server; in memory, where nothing else is restarted, some, and in a file few.
    some = recordings()[:: {"memory": 5, "sqlite": 20}.get(store_url.partition(":")[0], 1)]
    for number, messages in enumerate(some):
        key, copy = (SessionKey("airline", "ada", f"{name}{number}") for name in ("", "copy "))
        place = middle(messages)
        await begins.write(service, key, messages[: place + 1])
        async with AsyncExitStack() as stack:
            later = await stack.enter_async_context(anew(service, store_url, store_prefix))
            await later.fork(key, copy)
            asked = await later.get_events(copy, newest_first=True, limit=1)
            before = await later.get_events(
                copy, before_seq=asked[0].seq, newest_first=True, limit=1
            )
            await later.rewind(copy, to_seq=before[0].seq if before else 0)
            await goes_on.write(later, copy, messages[place:])
            for reader in (begins, goes_on):
                assert await reader.read(later, copy) == said_in(messages), number
                assert await reader.read(later, key) == said_in(messages[: place + 1]), number
