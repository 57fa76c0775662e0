"""The built documentation: whole, closed in itself, and built without a network."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sphinx.util.inventory import InventoryFile

import agentsession
from documents.markdown import DOCS, ROOT
from harness.sources import tree

# Whoever asks for something outside gets no answer.
NOWHERE = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built as ``nox -s docs`` builds them."""
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", DOCS, target],
        env={**os.environ, **NOWHERE},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return target


class Page(HTMLParser):
    """What a page has: the places in it, what it links to, and what a browser fetches for it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        elif tag in ("link", "script", "img"):
            self.fetched.add(values.get("href") or values.get("src") or "")


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in sorted(site.rglob("*.html"))}


def public_names() -> Iterator[str]:
    found = pkgutil.walk_packages(agentsession.__path__, "agentsession.")
    modules = [each.name for each in found if "._" not in each.name]
    for name in ("agentsession", *modules):
        if name.startswith("agentsession.adapters."):
            # To import it takes its framework, which is where adapters are tested.
            yield from (f"{name}.{each}" for each in listed(name))
            continue
        module = importlib.import_module(name)
        yield from (f"{name}.{each}" for each in getattr(module, "__all__", ()))


def listed(name: str) -> list[str]:
    """Read what a module lists as public, without importing it."""
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree(name).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    found: list[str] = names
    return found


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    """By each path by which it can be imported."""
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, page: page)
    documented = {
        name for kind, names in inventory.items() if kind.startswith("py:") for name in names
    }
    assert set(public_names()) - documented == set()
    assert {"agentsession.SessionService.append_event", "agentsession.errors"} <= documented


def test_no_link_is_dead(site: Path, pages: dict[Path, Page]) -> None:
    """Every link within the pages leads to a page, and to a place that it has."""
    checked = 0
    for file, page in pages.items():
        for link in page.links | page.fetched:
            address = urlsplit(link)
            if address.scheme or not link.strip("#"):
                continue
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            assert target.is_relative_to(site), (file.name, link)
            assert target.is_file(), (file.name, link)
            if address.fragment and target in pages:
                assert unquote(address.fragment) in pages[target].places, (file.name, link)
            checked += 1
    assert checked > 1_000


def test_nothing_is_fetched_from_elsewhere(pages: dict[Path, Page]) -> None:
    """Neither a font, nor a script, nor a picture."""
    for page in pages.values():
        assert [each for each in page.fetched if urlsplit(each).netloc] == []


def test_every_page_can_be_reached(site: Path, pages: dict[Path, Page]) -> None:
    """From the first page, by its table of contents alone."""
    start = pages[site / "index.html"]
    reached = {link.partition("#")[0] for link in start.links}
    for source in DOCS.rglob("*.md"):
        page = source.relative_to(DOCS).with_suffix(".html").as_posix()
        assert page in reached or page == "index.html", page


def test_the_changes_are_those_of_the_change_log(site: Path) -> None:
    """The page includes the file, to its end."""
    words = (site / "changes.html").read_text(encoding="utf-8")
    for heading in ("Unreleased", "Added", "Stored format"):
        assert f"<h2>{heading}" in words or f"<h3>{heading}" in words
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").count("\n- ") <= words.count("<li>")
