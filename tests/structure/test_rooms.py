"""The rooms inside the larger packages: which may import which, and how much each may hold."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from harness.sources import MODULES, ROOT, imported, ours, room, tree, within

# Of each package, from the bottom to the top. A room imports from itself and from the rows above
# it in this table: not from rows below it, and not from the other rooms of its own row.
ROOMS: dict[str, tuple[tuple[str, ...], ...]] = {
    "agentsession.redis": (
        ("_addresses", "_driver", "_keys"),
        ("_scripts",),
        ("_core",),
        ("_links",),
        ("_targets", "_operations"),
        ("_backend",),
        ("_cluster",),
        ("__init__",),
    ),
    "agentsession.redis._core": (
        ("acknowledgement", "clock", "errors", "silence", "slots"),
        ("request",),
        ("barriers",),
        ("outbox",),
        ("pipeline",),
        ("__init__",),
    ),
    "agentsession.redis._links": (
        ("link", "notices"),
        ("backlog", "connection", "several"),
        ("counted", "endpoint"),
        ("inbox", "sentinel"),
        ("server", "sharded"),
        ("cluster",),
        ("__init__",),
    ),
    "agentsession.redis._operations": (
        ("failures", "diagnosis"),
        ("calls", "replies"),
        ("nodes",),
        ("appending", "erasing", "following", "leases", "listing", "scopes", "users"),
        ("__init__",),
    ),
    "agentsession._service": (
        ("arguments", "chunks", "observing"),
        ("log",),
        ("assembly", "following", "leasing"),
        ("listing", "loading", "writing"),
        ("rewinding", "turns"),
        ("__init__",),
    ),
    "agentsession.backend": (("records", "trimming"), ("turns",), ("__init__",)),
    "agentsession.blocking": (("_contexts", "_thread"), ("__init__",)),
    "agentsession.memory": (("_records",), ("_users",), ("_backend",), ("__init__",)),
    "agentsession.sqlite": (
        ("_errors", "_records", "_schema"),
        ("_upkeep",),
        ("_file", "_work"),
        ("_log",),
        ("_reading", "_threads", "_watch", "_writing"),
        ("_backend",),
        ("__init__",),
    ),
    "agentsession.sqlite._file": (("forks",), ("opening",), ("gate",), ("__init__",)),
    "agentsession.sqlite._upkeep": (
        ("copying", "errands"),
        ("migrating",),
        ("checking",),
        ("__init__",),
    ),
    "agentsession.runner": (
        ("_reading", "_tracked_state"),
        ("_agent",),
        ("_turn",),
        ("_run",),
        ("_runner",),
        ("__init__",),
    ),
    "agentsession.testing": (
        ("_subject",),
        ("_checks",),
        ("__init__", "_pytest_asyncio"),
        ("pytest",),
    ),
    "agentsession.testing._checks": (
        ("asserting",),
        (
            *("expiry", "following", "hostile", "incarnations", "limits", "log"),
            *("repeats", "scopes", "sessions", "turns", "unreadable", "users"),
        ),
        ("__init__",),
    ),
    "agentsession.transfer": (
        ("_arguments", "_records", "_log"),
        ("_reports", "_turns"),
        ("_files", "_session"),
        ("_exporting", "_importing"),
        ("importers",),
        ("__init__",),
        ("_source_command",),
        ("_command",),
    ),
    "agentsession.transfer.importers": (
        ("_reports",),
        ("_account", "_found"),
        ("_redis", "_sqlite"),
        ("_sources", "_writing"),
        ("__init__",),
    ),
    "agentsession.transfer.importers._sources": (
        ("adk_events", "tool_names", "trpc_agent_go_events"),
        ("adk", "openai_agents", "openai_chat", "trpc_agent_go"),
        ("__init__",),
    ),
    "agentsession.ui": (
        ("_parts",),
        ("_progress", "_turns"),
        ("_agui", "_vercel"),
        ("agui", "vercel"),
        ("__init__",),
    ),
    "agentsession.ui._agui": (
        ("messages", "state"),
        ("events",),
        ("streams",),
        ("__init__",),
    ),
    "agentsession.ui._vercel": (("asked_again", "messages"), ("chunks",), ("__init__",)),
    "agentsession.demo": (("_conversations",), ("_player",), ("__init__",)),
}

# Connections carry scripts and words. What these mean is for the rooms above them to know.
WHAT_SESSIONS_ARE = (
    *("agentsession.sessions", "agentsession.events", "agentsession.state", "agentsession.codec"),
    *("agentsession.backend", "agentsession.service", "agentsession._service"),
    *("agentsession.redis._keys", "agentsession.redis._operations"),
)

# What decides, and leaves it to others to wait, to send and to look at a clock.
DECIDING = (
    *("agentsession.codec", "agentsession.events", "agentsession.sessions", "agentsession.state"),
    *("agentsession.errors", "agentsession.retention", "agentsession._service.arguments"),
    *("agentsession.redis._addresses", "agentsession.redis._keys", "agentsession.redis._scripts"),
    "agentsession.redis._core",
)
DOING = {"anyio", "asyncio", "select", "selectors", "socket", "ssl", "subprocess", "threading"}

MOST = 12
# At the root stand the modules that users import, by names that stay; what else there is counts.

each_package = pytest.mark.parametrize("package", ROOMS)


def inside(package: str) -> list[str]:
    return [name for name in MODULES if within(name, package)]


@each_package
def test_every_room_has_a_place(package: str) -> None:
    """A new room has to be put into the table, and one that is gone taken out of it."""
    placed = [name for row in ROOMS[package] for name in row]
    assert len(placed) == len(set(placed))
    assert set(placed) == {room(module, package) for module in inside(package)}


@each_package
def test_imports_inside_a_package_point_downwards(package: str) -> None:
    """No room imports from one above it or beside it."""
    rank = {name: number for number, row in enumerate(ROOMS[package]) for name in row}
    wrong = [
        f"{module} imports {name}"
        for module in inside(package)
        for name in ours(imported(module))
        if within(name, package)
        and room(name, package) != room(module, package)
        and rank[room(name, package)] >= rank[room(module, package)]
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "module", [*inside("agentsession.redis._core"), *inside("agentsession.redis._links")]
)
def test_links_know_nothing_of_sessions(module: str) -> None:
    """Not even for types."""
    known = imported(module, for_types=True)
    assert not [name for name in known for what in WHAT_SESSIONS_ARE if within(name, what)]


@pytest.mark.parametrize("package", DECIDING)
def test_what_decides_does_nothing(package: str) -> None:
    """No loop, no socket, no thread, and of the driver nothing that connects."""
    modules = inside(package)
    assert modules
    for module in modules:
        names = imported(module)
        assert not {name.partition(".")[0] for name in names} & DOING, module
        assert names.isdisjoint({"redis", "redis.asyncio", "redis.asyncio.client"}), module


def test_no_folder_is_full() -> None:
    """Each holds a dozen modules at most, so that one sees at a glance what there is."""
    held = Counter(
        path.parent.relative_to(ROOT).as_posix()
        for path in MODULES.values()
        if path.stem != "__init__" and (path.parent != ROOT or path.stem.startswith("_"))
    )
    assert {folder: number for folder, number in held.items() if number > MOST} == {}


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) != "__main__"])
def test_only_the_command_prints(module: str) -> None:
    """What else there is to say is returned, raised, logged, or drawn on a console handed in."""
    called = [node.func for node in ast.walk(tree(module)) if isinstance(node, ast.Call)]
    assert "print" not in [ast.unparse(name) for name in called]
