"""The documents as their readers have them: programs, what these print, tables, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
# What their programs need is where adapters are tested: tests/adapters.
OF_ADAPTERS = sorted((DOCS / "adapters").glob("*.md"))

_fenced = re.compile(
    r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Program:
    """A Python block of a document.

    Attributes:
        page: The document.
        number: Which of its blocks, from 1.
        source: The block.
        output: What the document says it prints; ``None`` if it says nothing.
    """

    page: Path
    number: int
    source: str
    output: str | None

    @property
    def name(self) -> str:
        return f"{self.page.stem.lower()}_{self.number}"

    @property
    def serves(self) -> bool:
        """Whether it is a web application, which is not run by itself."""
        return "\napp = " in self.source

    def write(self, folder: Path, name: str, url: str) -> Path:
        """Write it as a file, with the address of a server that is there."""
        file = folder / name
        file.write_text(self.source.replace("redis://localhost:6379/0", url), encoding="utf-8")
        return file


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def programs(page: Path) -> list[Program]:
    """Find all Python blocks of a page."""
    found = _fenced.finditer(text(page))
    return [Program(page, number, each[1], each[2]) for number, each in enumerate(found, 1)]


PROGRAMS = [program for page in PAGES if page not in OF_ADAPTERS for program in programs(page)]


def tables(page: Path) -> dict[str, list[dict[str, str]]]:
    """Read the first table below each heading of a page, each row by the words of its head."""
    found: dict[str, list[dict[str, str]]] = {}
    for section in re.split(r"^#+ ", text(page), flags=re.MULTILINE):
        heading, _, body = section.partition("\n")
        table = re.search(r"(?:^\|.*\n)+", body, re.MULTILINE)
        if table is not None:
            head, _, *rows = map(_cells, table[0].splitlines())
            found[heading] = [dict(zip(head, row, strict=True)) for row in rows]
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" |")]


def links(page: Path) -> Iterator[str]:
    """Find what a page links to, and the pictures that it shows, as they are written."""
    prose = re.sub(r"^```.*?^```", "", text(page), flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"\]\(([^)\s]+)\)", prose)
