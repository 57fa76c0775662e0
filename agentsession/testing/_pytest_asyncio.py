"""What closes a service on a loop of pytest-asyncio, which keeps one for each of its scopes.

A fixture says once and for all on which loop it runs, while a test chooses its own: hence a fixture
for each.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import pytest_asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

__all__ = ["fixture_on_the_loop"]

_Scope: TypeAlias = Literal["function", "class", "module", "package", "session"]


def fixture_on_the_loop(request: pytest.FixtureRequest) -> str:
    """Name the fixture that lives on the loop of a test, or on that of its coroutine fixtures."""
    marker = request.node.get_closest_marker("asyncio")
    scope = marker.kwargs.get("loop_scope") if marker else None
    if scope is None:
        setting = f"asyncio_default_{'test' if marker else 'fixture'}_loop_scope"
        scope = request.config.getini(setting)
    # The setting may also name a rule, by which a fixture for one test is on that test's own loop.
    return _name(scope if scope in get_args(_Scope) else "function")


def _name(scope: str) -> str:
    return f"_agentsession_on_{scope}_loop"


def _fixture(scope: _Scope) -> Any:
    @pytest_asyncio.fixture(name=_name(scope), loop_scope=scope)
    async def stack() -> AsyncIterator[AsyncExitStack]:
        async with AsyncExitStack() as stack:
            yield stack

    return stack


_on_function = _fixture("function")
_on_class = _fixture("class")
_on_module = _fixture("module")
_on_package = _fixture("package")
_on_session = _fixture("session")
