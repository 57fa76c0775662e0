"""The page of options is complete, and its defaults are the real ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from agentsession import (
    InMemorySessionService,
    RedisSessionService,
    Runner,
    SessionService,
    SQLiteSessionService,
)
from agentsession.redis import register_redis_instance
from agentsession.stores import ServiceOptions
from documents.markdown import DOCS, tables

TABLES = tables(DOCS / "options.md")
OWNERS: list[tuple[Callable[..., Any], tuple[str, ...], set[str]]] = [
    (InMemorySessionService, ("All services", "InMemorySessionService"), set()),
    (SQLiteSessionService, ("All services", "SQLiteSessionService"), set()),
    (RedisSessionService, ("All services", "RedisSessionService"), set()),
    (
        RedisSessionService.from_url,
        ("All services", "RedisSessionService"),
        {"client", "instance", "url"},
    ),
    (SessionService, ("SessionService",), set()),
    (Runner, ("Runner",), set()),
    (Runner.run, ("Runner.run",), {"self"}),
    (register_redis_instance, ("register_redis_instance",), set()),
]


def default_of(parameter: inspect.Parameter) -> str:
    """Word a default as the page does."""
    if parameter.default is parameter.empty:
        return "required"
    if callable(parameter.default):
        return f"`{parameter.default.__name__}`"
    return f"`{parameter.default!r}`"


@pytest.mark.parametrize(
    ("owner", "headings", "apart"), OWNERS, ids=[each.__qualname__ for each, *_ in OWNERS]
)
def test_each_option_has_its_true_default(
    owner: Callable[..., Any], headings: tuple[str, ...], apart: set[str]
) -> None:
    """Every option of every constructor, and nothing that is none."""
    rows = [row for heading in headings for row in TABLES[heading]]
    documented = {row["option"].strip("`"): row["default"] for row in rows}
    assert len(documented) == len(rows)
    parameters = inspect.signature(owner).parameters
    real = {name: default_of(parameter) for name, parameter in parameters.items()}
    for name in apart:
        documented.pop(name, None)
        real.pop(name, None)
    assert documented == real


def test_each_option_says_why_one_would_change_it() -> None:
    """And in which unit, if it is a number."""
    for rows in TABLES.values():
        for row in rows:
            assert row["why change it"]
            if row["default"].strip("`").replace(".", "").isdecimal():
                assert row["unit"], row


def test_all_options_of_all_stores_are_there() -> None:
    """What ``open_service`` takes is in the tables of the stores."""
    classes = ("RedisSessionService", "SQLiteSessionService", "InMemorySessionService")
    headings = ("All services", *classes)
    documented = {row["option"].strip("`") for heading in headings for row in TABLES[heading]}
    assert set(ServiceOptions.__annotations__) <= documented
