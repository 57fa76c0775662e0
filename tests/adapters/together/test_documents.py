"""Every Python block of the adapters' pages is a program that runs as a file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from documents.markdown import OF_ADAPTERS, ROOT, Program, programs
from documents.test_programs import run

PROGRAMS = [program for page in OF_ADAPTERS for program in programs(page)]
# The package whose absence says that a page's framework is not there.
NEEDS = {
    "agent_framework": "agent_framework",
    "claude_agent_sdk": "claude_agent_sdk",
    "google_adk": "google.adk",
    "langgraph": "langgraph",
    "mcp": "mcp",
    "openai_agents": "agents",
    "pydantic_ai": "pydantic_ai",
    "strands": "strands",
    "trpc_agent": "trpc_agent_sdk",
}
# What one version of a framework has and another has not; a page has a program for each.
VERSIONED = ("mcp.server.fastmcp", "mcp.server.mcpserver")
# Their packages ship no types, which is an error to a strict program.
UNTYPED = {"trpc_agent"}


@pytest.fixture
def empty_server(valkey_url: str) -> Iterator[str]:
    """A server on which nothing is stored, before and after."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
        yield valkey_url
        client.flushall()


def versioned(program: Program) -> list[str]:
    return [module for module in VERSIONED if f"from {module} import" in program.source]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.name)
def test_it_runs_in_an_empty_folder(program: Program, empty_server: str, tmp_path: Path) -> None:
    """And prints what the document says, no more and no less."""
    pytest.importorskip(NEEDS[program.page.stem])
    for module in versioned(program):
        pytest.importorskip(module)
    printed = run(program.write(tmp_path, "program.py", empty_server))
    assert printed == (program.output or "")


def test_type_checkers_accept_them(tmp_path: Path) -> None:
    """All of them under the project's own rules, which are strict.

    The frameworks take minutes to read; ``nox -s adapters`` has done it by now, and this goes on
    from there.
    """
    for package in NEEDS.values():
        pytest.importorskip(package)
    files = [
        each.write(tmp_path, f"{each.name}.py", "memory://")
        for each in PROGRAMS
        if each.page.stem not in UNTYPED and all(map(find_spec, versioned(each)))
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stdout + done.stderr == ""


def test_every_page_has_a_program() -> None:
    """Somebody who tries the adapter needs no more than the page."""
    assert {program.page.stem for program in PROGRAMS} == NEEDS.keys()
