"""What the documents say of the code, and of each other, is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentsession import errors
from agentsession.redis._keys import Keyspace
from documents.markdown import DOCS, PAGES, README, ROOT, links, tables, text

NOXFILE = text(ROOT / "noxfile.py")


def test_the_readme_is_short() -> None:
    """At most 900 words, code and tables included."""
    assert len(text(README).split()) <= 900


def test_the_commands_are_in_the_noxfile() -> None:
    """The two commands that do everything name sessions that exist, and so do all others."""
    sessions = re.findall(
        r"^python -m pip install nox && nox -s (\w+)$", text(README), re.MULTILINE
    )
    assert sessions == ["demo", "tests"]
    for page in PAGES:
        for session in re.findall(r"\bnox -s (\w+)", text(page)):
            assert f"def {session}(" in NOXFILE, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Files that are linked to are there, and have the headings that are named."""
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(text(target)), link


def anchors(words: str) -> set[str]:
    """Name the headings as GitHub does."""
    headings = re.findall(r"^#+ (.*)$", words, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def test_the_tree_of_errors_is_the_real_one() -> None:
    """The documented tree is the one in the docstring of the module, and each has its advice."""
    page = text(DOCS / "errors.md")
    tree = re.search(r"```\n(AgentSessionError\n.*?)```", page, re.DOTALL)
    assert tree is not None
    assert errors.__doc__ is not None
    lines = [line.strip() for line in tree[1].splitlines()]
    documented = [line.strip() for line in errors.__doc__.splitlines()]
    start = documented.index("AgentSessionError")
    assert lines == documented[start : start + len(lines)]
    named = {name for line in lines for name in re.findall(r"\w+Error\b(?!\))", line)}
    assert named == set(errors.__all__)
    rows = tables(DOCS / "errors.md")["What to do"]
    advised = {name for row in rows for name in re.findall(r"`(\w+Error)`", row["error"])}
    assert advised == set(errors.__all__) - {"AgentSessionError"}


def test_the_table_of_keys_names_all_that_is_stored() -> None:
    """Nothing is kept on a server that the page does not list, and the other way round."""
    rows = tables(DOCS / "redis.md")["What is stored"]
    listed = [re.sub(r"[`:].*", "", row["key"].strip("`")) for row in rows]
    kept = [key.partition(":")[0] for key in Keyspace().scratch("")]
    assert sorted(listed) == sorted(kept)
