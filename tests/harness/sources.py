"""The package as it is written: its modules, and what each of them imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import agentsession

ROOT = Path(agentsession.__file__).parent

MODULES = {
    ".".join(("agentsession", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
}


def room(module: str, package: str = "agentsession") -> str:
    """Name the module or package right below a package.

    ``agentsession.redis._keys`` is in ``redis``; in ``agentsession.redis`` it is in ``_keys``.
    """
    below = module.removeprefix(package).lstrip(".")
    return below.partition(".")[0] or "__init__"


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def imports(node: ast.AST, *, for_types: bool = False) -> Iterator[str]:
    """Yield what is imported at run time, inside functions too; what is only for types if asked."""
    children: list[ast.AST] = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If) and only_for_types(node) and not for_types:
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
            yield from imports(child, for_types=for_types)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imported(module: str, *, for_types: bool = False) -> set[str]:
    """Return what a module imports, modules of ours by their whole names."""
    return set(imports(tree(module), for_types=for_types))


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] == "agentsession"}


def within(name: str, package: str) -> bool:
    """Tell whether a module is a package or in it."""
    return name == package or name.startswith(f"{package}.")
