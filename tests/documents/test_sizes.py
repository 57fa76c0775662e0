"""The sizes that the documentation names are those of this version."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from documents.markdown import DOCS, ROOT, tables, text


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program that measured them, which is not part of the package."""
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.sizes")


def documented(row: str, column: int) -> int:
    """Read a figure of one of the tables."""
    (line,) = (
        each for each in text(DOCS / "redis.md").splitlines() if each.startswith(f"| {row} |")
    )
    return int(line.split(" | ")[column].strip(" |").replace(",", ""))


def test_sessions_and_events_take_what_the_page_says(sizes: Any) -> None:
    """Measured again on a server, with fewer of them: within a fifth."""
    running = importlib.import_module("benchmarks.server").running_server
    with running() as server:
        empty = sizes.measure(server, sizes.Kind("", sessions=4_000))
        full = sizes.measure(server, sizes.Kind("", sessions=100, text=200, events=100))
    assert empty == pytest.approx(documented("no events, no state", 1), rel=0.2)
    assert (full - empty) / 100 == pytest.approx(documented("200", 3), rel=0.2)


def test_every_key_of_a_session_has_a_size() -> None:
    """The table of one session's keys has the keys that a session has."""
    stored = {
        row["key"].strip("`").partition(":")[0]
        for row in tables(DOCS / "redis.md")["What is stored"]
    }
    for name in ("events", "eventids", "session", "sessions", "usercalls"):
        assert name in stored
        assert documented(f"`{name}`", 1) > 0
