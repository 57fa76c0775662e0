"""Every Python block of the README and of the documentation is a program that runs as a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from documents.markdown import DOCS, PAGES, PROGRAMS, README, Program, programs, text

MYPY = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]

each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.name)


@pytest.fixture
def empty_server(valkey_url: str) -> Iterator[str]:
    """A server on which nothing is stored, before and after."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
        yield valkey_url
        client.flushall()


def run(file: Path) -> str:
    """Run a program in its folder as a reader would, with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", file.name],
        cwd=file.parent,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@each_program
def test_it_runs_in_an_empty_folder(program: Program, empty_server: str, tmp_path: Path) -> None:
    """And prints what the document says, no more and no less."""
    printed = run(program.write(tmp_path, "program.py", empty_server))
    assert printed == (program.output or "")


def test_programs_with_a_file_get_along(tmp_path: Path) -> None:
    """Somebody who reads the page from its top runs all of them in one folder, and some twice."""
    files = [
        (program.write(tmp_path, f"{program.name}.py", "memory://"), program.output or "")
        for program in programs(DOCS / "sqlite.md")
    ]
    assert [run(file) for file, _ in files] == [output for _, output in files]
    for file, _ in files:
        run(file)


def fences(page: Path) -> int:
    return len(re.findall(r"```[ \t{]*(?:py|python|python3|code)\b", text(page)))


def test_every_block_is_one_of_them() -> None:
    """No Python block escapes by the way it is fenced; what prints says what."""
    for page in PAGES:
        assert fences(page) == len(programs(page))
    assert sum(program.page == README for program in PROGRAMS) == 3
    assert len(PROGRAMS) > 15
    for program in PROGRAMS:
        assert (program.output is not None) == ("print(" in program.source), program.name


def test_a_conversation_goes_on_in_the_next_process(empty_server: str, tmp_path: Path) -> None:
    """The tutorial's chat, run twice, prints what the tutorial says."""
    (chat,) = (each for each in PROGRAMS if "sys.argv" in each.source)
    file = chat.write(tmp_path, "chat.py", empty_server)
    assert [run(file), run(file)] == ["Turn 1: hello\n", "Turn 2: hello\n"]
    assert "prints `Turn 2: hello`" in text(chat.page)


def check_types(folder: Path, *files: Path) -> str:
    done = subprocess.run(
        [*MYPY, f"--cache-dir={folder / 'cache'}", *(str(file) for file in files)],
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
    )
    return done.stdout + done.stderr


def test_type_checkers_accept_them(tmp_path: Path) -> None:
    """All of them under ``mypy --strict``, which does refuse a wrong call."""
    files = [each.write(tmp_path, f"{each.name}.py", "memory://") for each in PROGRAMS]
    assert check_types(tmp_path, *files) == ""

    first = PROGRAMS[0]
    wrong = tmp_path / "wrong.py"
    wrong.write_text(first.source.replace('runner.run("alice",', "runner.run(1,"), encoding="utf-8")
    assert 'Argument 1 to "run" of "Runner" has incompatible type "int"' in check_types(
        tmp_path, wrong
    )
