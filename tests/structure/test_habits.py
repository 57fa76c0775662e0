"""What guards the project when nobody looks: workflows, forms and hooks say what there is."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).parents[2]
NOXFILE = ast.parse((TOP / "noxfile.py").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((TOP / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(
    path for path in (TOP / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"
)
HOOKS = TOP / ".pre-commit-config.yaml"

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    # YAML 1.1 takes the key ``on`` for true.
    return {("on" if key is True else key): value for key, value in found.items()}


def sessions() -> set[str]:
    """Name the sessions of the noxfile."""
    return {
        node.name
        for node in NOXFILE.body
        if isinstance(node, ast.FunctionDef)
        and any("nox.session" in ast.unparse(each) for each in node.decorator_list)
    }


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def sessions_run(path: Path) -> set[str]:
    """Name the sessions that a workflow runs, those of its matrices too."""
    found: set[str] = set()
    for job in read(path)["jobs"].values():
        words = " ".join(step.get("run", "") for step in job["steps"])
        named = set(re.findall(r"nox -s (\$\{\{ matrix\.session \}\}|\w+)", words))
        if "${{ matrix.session }}" in named:
            named.remove("${{ matrix.session }}")
            named |= set(job["strategy"]["matrix"]["session"])
        found |= named
    return found


def test_there_is_a_workflow() -> None:
    """So that the tests below are about something."""
    assert [path.stem for path in WORKFLOWS] == ["ci"]
    assert len(FORMS) == 2


@each_workflow
def test_the_sessions_of_a_workflow_exist(path: Path) -> None:
    """What it runs can be run by hand with the same words."""
    assert sessions_run(path)
    assert sessions_run(path) <= sessions()


def test_what_must_pass_is_run_by_the_workflow() -> None:
    """Every session that plain ``nox`` runs, and those that nobody runs by hand."""
    assert {"lint", "types", "tests", "tests_lowest", "build"} <= sessions_run(WORKFLOWS[0])


def test_every_python_of_the_package_is_tested() -> None:
    """Those that the classifiers name; a newer one may be tried, but must not be able to fail."""
    named = {
        version[1]
        for each in PROJECT["project"]["classifiers"]
        if (version := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each))
    }
    job = read(WORKFLOWS[0])["jobs"]["tests"]
    tested = set(job["strategy"]["matrix"]["python"])
    assert named
    assert named <= tested
    may_fail = set(re.findall(r"'(3\.\d+)'", str(job.get("continue-on-error", ""))))
    assert tested - named == may_fail


def test_both_servers_are_tested() -> None:
    """Valkey comes with the test group; the other one has to be installed."""
    job = read(WORKFLOWS[0])["jobs"]["tests"]
    assert "install --yes redis-server" in " ".join(step.get("run", "") for step in job["steps"])
    assert any(
        each.startswith("agentsession[demo]") for each in PROJECT["dependency-groups"]["tests"]
    )


@each_workflow
def test_a_workflow_may_read_and_no_more(path: Path) -> None:
    """A change from a stranger runs here."""
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow["on"]
    assert "concurrency" in workflow
    assert all("permissions" not in job for job in workflow["jobs"].values())
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


@each_workflow
def test_actions_are_pinned(path: Path) -> None:
    """By major version, of GitHub's own; a checkout keeps no credentials."""
    used = [step for step in steps(path) if "uses" in step]
    assert used
    for step in used:
        assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
        if step["uses"].startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_have_what_github_asks_for(path: Path) -> None:
    """A form without a name, a description or a body is not shown, and nothing says why."""
    form = read(path)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert fields
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)


def test_hooks_run_what_lint_runs() -> None:
    """With the tools of the lint group, from the environment: there is one place for versions."""
    repositories = read(HOOKS)["repos"]
    assert [each["repo"] for each in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    (lint,) = [
        node for node in NOXFILE.body if isinstance(node, ast.FunctionDef) and node.name == "lint"
    ]
    commands = [
        ast.literal_eval(ast.Tuple(call.args, ast.Load()))
        for call in ast.walk(lint)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "session.run"
    ]
    checked = {tuple(word for word in each if word.isalpha()) for each in commands}
    hooked = {tuple(word for word in hook["entry"].split() if word.isalpha()) for hook in hooks}
    assert hooked == checked == {("ruff", "format"), ("ruff", "check"), ("codespell",)}
    tools = {re.split(r"[>=\[]", each)[0] for each in PROJECT["dependency-groups"]["lint"]}
    assert {words[0] for words in hooked} <= tools


def test_the_guide_names_files_that_exist() -> None:
    """Who follows CONTRIBUTING.md does not search."""
    guide = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:agentsession|tests)/[\w/.]+)`", guide))
    assert len(named) >= 10
    assert [name for name in sorted(named) if not (TOP / name).exists()] == []


def test_the_commands_of_the_guide_are_sessions() -> None:
    """The one that sets up, and plain ``nox``."""
    guide = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"nox -s (\w+)", guide)) == {"dev"} <= sessions()
