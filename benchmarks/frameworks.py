"""The adapters that are measured, each beside the bare service and its framework's own stores."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.cases import SESSIONS, Case, Group, Operation, Setup
from benchmarks.roster import Entrant, Peer

__all__ = ["CROWD", "FRAMEWORKS", "PLACES", "Framework", "Own", "case_name"]

Place = Literal["server", "memory", "file"]

PLACES: tuple[Place, ...] = ("server", "memory", "file")
CROWD = 64

_SOME = Setup(SESSIONS, 20)
# Sessions begin before they are measured, since some are made by their first append.
_OPERATIONS: dict[Operation, Setup] = {"append": Setup(SESSIONS, 1), "read": _SOME}
_CONVERSIONS: tuple[Operation, ...] = ("convert", "restore")
_PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


@dataclass(frozen=True)
class Own:
    """A store that a framework has itself.

    Attributes:
        name: Its class.
        store: Where it stores.
    """

    name: str
    store: Place


@dataclass(frozen=True)
class Framework:
    """A framework, and who takes part for it.

    Attributes:
        name: Of the extra that installs it.
        module: Its module in ``benchmarks.contestants.adapters``, and in ``agentsession.adapters``.
        packages: Whose versions to print.
        also: What its own stores need besides.
        own: The stores that it has itself.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    also: tuple[str, ...] = ()
    own: tuple[Own, ...] = ()

    @property
    def peer(self) -> Peer:
        """What is installed for it: the framework, and what this project needs."""
        project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
        extra = project["optional-dependencies"][self.name]
        return Peer(self.name, (*project["dependencies"], *extra, *self.also))

    def adapter(self, place: Place) -> Entrant:
        """Return the adapter, on a service that stores in this place."""
        packages = (*self.packages, "redis", "hiredis") if place == "server" else ()
        return self._ours("adapter", place, packages)

    def bare(self, place: Place) -> Entrant:
        """Return the service that does the same without the adapter."""
        return self._ours("bare", place)

    def _ours(self, what: str, place: Place, packages: tuple[str, ...] = ()) -> Entrant:
        label, contestant = f"{self.name}: {what}, {place}", f"{what}, {place}"
        return Entrant(label, self._module, place, packages, contestant=contestant)

    def peers(self) -> Iterator[Entrant]:
        """Yield the framework's own stores."""
        for own in self.own:
            label = f"{self.name}: {own.name}, {own.store}"
            yield Entrant(label, self._module, own.store, (), self.peer, own.name)

    @property
    def _module(self) -> str:
        return f"adapters.{self.module}"

    def entrants(self) -> Iterator[Entrant]:
        """Yield all who take part."""
        for place in PLACES:
            yield self.adapter(place)
            yield self.bare(place)
        yield from self.peers()

    def group(self) -> Group:
        """Return what is measured: the same for each framework."""
        return Group(self.name, (*self._stored(), *self._converted()))

    def _stored(self) -> Iterator[Case]:
        for operation, setup in _OPERATIONS.items():
            for callers in (1, CROWD):
                yield Case(case_name(self, operation, callers), operation, setup, callers)

    def _converted(self) -> Iterator[Case]:
        for operation in _CONVERSIONS:
            yield Case(case_name(self, operation, 1), operation, _SOME)


def case_name(framework: Framework, operation: str, callers: int) -> str:
    """Return the name of a case."""
    return f"{framework.name}: {operation}, {callers} caller{'s' if callers > 1 else ''}"


FRAMEWORKS = (
    Framework(
        "openai-agents",
        "openai_agents",
        ("openai-agents",),
        own=(Own("RedisSession", "server"), Own("SQLiteSession", "file")),
    ),
    Framework(
        "google-adk",
        "google_adk",
        ("google-adk", "sqlalchemy"),
        ("sqlalchemy[asyncio]>=2,<3", "aiosqlite"),
        (Own("DatabaseSessionService", "file"), Own("InMemorySessionService", "memory")),
    ),
    Framework(
        "langgraph",
        "langgraph",
        ("langgraph-checkpoint", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-redis"),
        # The last one is imported by the one before it, which does not ask for it.
        ("langgraph-checkpoint-sqlite", "langgraph-checkpoint-redis", "langgraph"),
        (
            Own("AsyncSqliteSaver", "file"),
            Own("AsyncRedisSaver", "server"),
            Own("InMemorySaver", "memory"),
        ),
    ),
    Framework(
        "pydantic-ai",
        "pydantic_ai",
        ("pydantic-ai-slim",),
        own=(Own("InMemoryConversationStore", "memory"),),
    ),
    Framework(
        "trpc-agent",
        "trpc_agent",
        ("trpc-agent-py",),
        # Its SQLAlchemy does not ask for the greenlet that it needs.
        ("greenlet",),
        (Own("RedisSessionService", "server"),),
    ),
    Framework(
        "claude-agent-sdk",
        "claude_agent_sdk",
        ("claude-agent-sdk",),
        own=(Own("InMemorySessionStore", "memory"),),
    ),
    Framework(
        "agent-framework",
        "agent_framework",
        ("agent-framework-core",),
        # What it has for Redis cannot be installed beside the redis-py that this project needs.
        own=(Own("FileHistoryProvider", "file"),),
    ),
    Framework(
        "strands",
        "strands",
        ("strands-agents",),
        own=(Own("LocalFileStorage", "file"), Own("InMemoryStorage", "memory")),
    ),
    # Its package has no store of its own.
    Framework("mcp", "mcp", ("mcp",)),
)
