"""Who takes part, and what must be installed for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["FLOOR", "OURS", "OURS_IN_MEMORY", "ROSTER", "Entrant", "Peer"]


@dataclass(frozen=True)
class Peer:
    """Somebody else's package, in an environment of its own.

    Attributes:
        name: What PyPI calls it.
        requirements: What to install. hiredis is in each, for ours has it, though not all of them
            ask for it.
    """

    name: str
    requirements: tuple[str, ...]


@dataclass(frozen=True)
class Entrant:
    """A contestant as the tables name it.

    Attributes:
        label: Its name, and where it stores.
        module: Its module in ``benchmarks.contestants``.
        store: Where it stores.
        packages: Whose versions to print.
        peer: Where it comes from; ``None`` for this project.
        contestant: Which of the module's classes; the one named like the store if empty.
    """

    label: str
    module: str
    store: Literal["server", "memory", "file"]
    packages: tuple[str, ...] = field(default=())
    peer: Peer | None = None
    contestant: str = ""


_OPENAI = Peer("openai-agents", ("openai-agents[redis]", "hiredis"))
_GOOGLE = Peer("google-adk", ("google-adk[redis]", "hiredis"))
# It imports SQLAlchemy's asyncio part, whose greenlet it does not ask for.
_TRPC = Peer("trpc-agent-py", ("trpc-agent-py", "greenlet", "hiredis"))

OURS = Entrant("agentsession, server", "ours", "server", ("agentsession", "redis", "hiredis"))
OURS_IN_MEMORY = Entrant("agentsession, memory", "ours", "memory", ("msgspec", "anyio"))
FLOOR = Entrant("floor: bare protocol", "floor", "server", ("hiredis",))

ROSTER = (
    OURS,
    FLOOR,
    Entrant(
        "openai-agents, server",
        "openai_agents",
        "server",
        ("openai-agents", "redis", "hiredis"),
        _OPENAI,
    ),
    Entrant(
        "google-adk, server",
        "google_adk",
        "server",
        ("google-adk", "redis", "hiredis"),
        _GOOGLE,
    ),
    Entrant(
        "trpc-agent-py, server",
        "trpc_agent",
        "server",
        ("trpc-agent-py", "redis", "hiredis"),
        _TRPC,
    ),
    OURS_IN_MEMORY,
    Entrant("google-adk, memory", "google_adk", "memory", ("google-adk",), _GOOGLE),
)
