"""Every task of this project: ``nox --list`` says what there is.

A session installs what it needs into an environment of its own. Tests that need a Chromium, or
Node, are skipped where there is none, unless ``AGENTSESSION_TEST_BROWSER=required`` and
``AGENTSESSION_TEST_NODE=required`` are in the environment. With
``AGENTSESSION_TEST_COVERAGE=required`` the tests measure too what the quick ones of them cover.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "types", "docs", "tests", "adapters"]

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
# Real conversations, where the checkout has them beside it; the package ships a few of its own.
CONVERSATIONS = Path("../shared/data/airline_conversations.jsonl")
# Processes, as many as tests/conftest.py says; each takes over what is left of another's tests.
SIDE_BY_SIDE = ["--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal"]
# What takes long, a line that is traced three times as long, and covers hardly a line more.
SLOW = [
    "tests/browser",
    "tests/documents",
    "tests/examples",
    "tests/faults/test_back_pressure.py",
    "tests/faults/test_late_copies.py",
    "tests/reliability",
    "tests/service/test_stalls.py",
    "tests/structure",
    "tests/turns/test_contest.py",
    "tests/turns/test_conversations.py",
    "tests/turns/test_processes.py",
]
ADAPTERS = ("agentsession/adapters", "tests/adapters")
FRAMEWORKS = (
    *("agent_framework", "agents", "claude_agent_sdk", "cryptography", "google.adk", "greenlet"),
    *("langgraph.checkpoint.conformance", "mcp", "pydantic_ai", "strands", "trpc_agent_sdk"),
)
# Their frameworks are heavy, and have an environment of their own.
WITHOUT_ADAPTERS = "--ignore=tests/adapters"
# What a wheel must hold besides modules, asked of an environment that has nothing else.
CHECK_WHEEL = """
from importlib.resources import files
import agentsession
for name in agentsession.__all__:
    getattr(agentsession, name)
package = files("agentsession")
assert (package / "py.typed").is_file()
assert (package / "redis" / "_scripts" / "append.lua").is_file()
assert (package / "redis" / "_scripts" / "lib" / "session_expiry.lua").is_file()
assert (package / "demo" / "conversations.jsonl").is_file()
"""


def install(session: nox.Session, *groups: str) -> None:
    """Install the package as users get it, and the tools of some dependency groups."""
    session.install(*nox.project.dependency_groups(PROJECT, *groups), ".")


@nox.session(default=False, venv_backend="none")
def dev(session: nox.Session) -> None:
    """Make ``.venv``, with the package as it is in the checkout and the tools of all groups."""
    session.run(sys.executable, "-m", "venv", ".venv")
    python = Path(".venv", "Scripts" if os.name == "nt" else "bin", "python")
    groups = nox.project.dependency_groups(PROJECT, *PROJECT["dependency-groups"])
    # The package first: groups ask for it by name, and pip would look for it in the index.
    for wanted in (["--editable", ".[demo]"], groups):
        session.run(str(python), "-m", "pip", "install", "--quiet", *wanted)
    session.log(f"ready: activate {python.parent}, and run pytest, mypy or ruff")


@nox.session
def lint(session: nox.Session) -> None:
    """Check the format, the rules of the house, and spelling."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("codespell")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy and pyright, both strict, and that the public ones are complete."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright", "--project", ".")
    verify = ["pyright", "--ignoreexternal", "--verifytypes", "agentsession", "--outputjson"]
    told = json.loads(str(session.run(*verify, silent=True, success_codes=[0, 1])))
    unknown = [
        symbol["name"]
        for symbol in told["typeCompleteness"]["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"]
    ]
    # What adapters are made of is not installed here; nox -s adapters checks them.
    if ours := [name for name in unknown if not name.startswith("agentsession.adapters.")]:
        session.error(f"types that are not known whole: {', '.join(ours)}")


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests on real servers."""
    run_tests(session)


@nox.session(python=PYTHONS)
def tests_all(session: nox.Session) -> None:
    """Run all tests on every supported Python."""
    run_tests(session)


@nox.session(venv_backend="uv")
def tests_lowest(session: nox.Session) -> None:
    """Run all tests with the lowest versions that the package declares."""
    groups = nox.project.dependency_groups(PROJECT, "tests")
    session.install("--resolution=lowest-direct", *groups, ".[demo]")
    session.run("pytest", *SIDE_BY_SIDE, WITHOUT_ADAPTERS, *session.posargs)


def run_tests(session: nox.Session) -> None:
    """Test the installed package, so that a file missing from the wheel is noticed."""
    prepare_tests(session, "tests")
    if os.environ.get("AGENTSESSION_TEST_COVERAGE") != "required":
        session.run("pytest", *SIDE_BY_SIDE, WITHOUT_ADAPTERS, *session.posargs)
        return
    session.run("coverage", "erase")
    quick = [WITHOUT_ADAPTERS, *(f"--ignore={each}" for each in SLOW)]
    session.run("coverage", "run", "-m", "pytest", *SIDE_BY_SIDE, *quick, *session.posargs)
    session.run("pytest", *SIDE_BY_SIDE, *SLOW)
    session.run("coverage", "combine")
    session.run("coverage", "report", "--omit=*/agentsession/adapters/*")


@nox.session
def adapters(session: nox.Session) -> None:
    """Check the adapters, and test each on the real framework."""
    prepare_tests(session, "adapters")
    ours = sorted(str(each) for path in ADAPTERS for each in Path(path).rglob("*.py"))
    session.run("mypy", *ours)
    session.run("pyright", "--project", "tests/adapters")
    test_adapters(session)


@nox.session(default=False)
def adapters_coverage(session: nox.Session) -> None:
    """Measure what the tests of the adapters cover of them."""
    prepare_tests(session, "adapters")
    session.run("coverage", "erase")
    test_adapters(session, "coverage", "run", "-m")
    session.run("coverage", "combine")
    session.run("coverage", "report", "--include=*/agentsession/adapters/*")


@nox.session(default=False, venv_backend="uv")
def adapters_lowest(session: nox.Session) -> None:
    """Test the adapters on the oldest versions of the frameworks that are declared."""
    groups = nox.project.dependency_groups(PROJECT, "adapters")
    # By the project's own name, extras do not count as asked for directly.
    extras = ",".join(PROJECT["project"]["optional-dependencies"])
    session.install("--resolution=lowest-direct", *groups, f".[{extras}]")
    test_adapters(session)


@nox.session(default=False)
def adapters_mcp(session: nox.Session) -> None:
    """Test MCP's adapter, and its page, on version 2 of mcp, which trpc-agent-py refuses."""
    tools = ("hypothesis", "mypy", "pytest>=9.0", "pytest-xdist", "uvicorn")
    session.install("mcp>=2", *tools, ".[embedded,mcp]")
    pages = ["tests/adapters/together/test_documents.py", "-k", "mcp"]
    session.run("pytest", *SIDE_BY_SIDE, "tests/adapters/alone/test_mcp.py", *pages)


def test_adapters(session: nox.Session, *with_tool: str) -> None:
    """Run the tests of the adapters, and those of what they make public."""
    # Where one of them is missing its tests are skipped, which must not happen here.
    session.run("python", "-c", f"import {', '.join(FRAMEWORKS)}")
    tests = ["tests/adapters", "tests/structure/test_public_api.py"]
    session.run(*with_tool, "pytest", *SIDE_BY_SIDE, *tests, *session.posargs)


def prepare_tests(session: nox.Session, group: str) -> None:
    """Install what tests need, and let the many programs that they run compile it once."""
    session.env["PYTHONSAFEPATH"] = "1"
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    session.env["UV_COMPILE_BYTECODE"] = "1"
    install(session, group)


@nox.session(default=False)
def picture(session: nox.Session) -> None:
    """Take the picture of ``examples/chat`` for the documentation; it needs a Chromium."""
    prepare_tests(session, "tests")
    session.env["AGENTSESSION_TEST_BROWSER"] = "required"
    session.env["AGENTSESSION_TEST_PICTURE"] = "docs/_static/chat.png"
    session.run("pytest", "tests/browser", "-k", "picture")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel and the sdist, and import the wheel in an empty environment."""
    session.install("build")
    target = Path(session.create_tmp()).resolve()
    session.run("python", "-m", "build", "--outdir", str(target))
    (wheel,) = target.glob("*.whl")
    session.run("python", "-m", "venv", "--clear", str(target / "empty"))
    python = str(target / "empty" / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", str(wheel), external=True)
    session.run(python, "-c", CHECK_WHEEL, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into build/docs, without a network; a warning is an error."""
    install(session, "docs")
    session.run("sphinx-build", "--fail-on-warning", "--keep-going", "docs", "build/docs")


@nox.session
def demo(session: nox.Session) -> None:
    """Replay real conversations through the library, in memory and on a server, and compare."""
    session.install(".[demo]")
    data = [f"--data={CONVERSATIONS}"] if CONVERSATIONS.is_file() else []
    session.run("python", "-m", "agentsession", "demo", *data, *session.posargs)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Attack the package for some minutes: ``nox -s soak -- --minutes 2 --seed 7``.

    At full size, once: ``nox -s soak -- --operations 10000 --kills 200``.
    """
    install(session, "tests")
    session.run("python", "-m", "reliability", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure the package beside its peers: ``nox -s bench -- --quick``, ``--help`` for more."""
    install(session, "bench")
    # Kept between runs: installing the peers takes longer than a quick run.
    peers = f"--environments={Path(session.create_tmp()).resolve() / 'peers'}"
    session.run("python", "-m", "benchmarks", peers, *session.posargs)
