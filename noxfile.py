"""Every task of this project: ``nox --list`` says what there is.

``CI=true`` changes nothing here; a session installs what it needs into an environment of its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "types", "docs", "tests", "coverage"]

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
# Real conversations, where the checkout has them beside it; the package ships a few of its own.
CONVERSATIONS = Path("../shared/data/airline_conversations.jsonl")
# For each core a process, which takes over what is left of another's tests.
SIDE_BY_SIDE = ["--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal"]
# What takes long and covers hardly a line that the other tests do not.
SLOW = [
    "documents",
    "examples",
    "faults/test_back_pressure.py",
    "faults/test_late_copies.py",
    "reliability",
    "service/test_stalls.py",
    "structure",
    "turns/test_contest.py",
    "turns/test_conversations.py",
    "turns/test_processes.py",
]
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
    session.run("pyright")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "agentsession")


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
    session.run("pytest", *SIDE_BY_SIDE, *session.posargs)


def run_tests(session: nox.Session) -> None:
    """Test the installed package, so that a file missing from the wheel is noticed."""
    prepare_tests(session)
    session.run("pytest", *SIDE_BY_SIDE, *session.posargs)


def prepare_tests(session: nox.Session) -> None:
    """Install what tests need, and let the many programs that they run compile it once."""
    session.env["PYTHONSAFEPATH"] = "1"
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    session.env["UV_COMPILE_BYTECODE"] = "1"
    install(session, "tests")


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure what the quick tests cover; a line that is traced takes three times as long."""
    prepare_tests(session)
    session.env["AGENTSESSION_TEST_VALKEY_ALONE"] = "1"
    session.run("coverage", "erase")
    slow = [f"--ignore=tests/{each}" for each in SLOW]
    session.run("coverage", "run", "-m", "pytest", *SIDE_BY_SIDE, *slow, *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report")


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
