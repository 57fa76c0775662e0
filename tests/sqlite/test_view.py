"""What a person sees who opens the file with a tool of SQLite's."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agentsession import (
    Data,
    Event,
    SessionKey,
    SQLiteSessionService,
    Text,
    ToolCall,
    ToolResult,
    UserKey,
)
from agentsession.events import Part
from documents.markdown import DOCS, text

PAGE = DOCS / "sqlite.md"

KEY = SessionKey("app", "ädä", "chat-1")
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def rows(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def message(text: str) -> Event:
    return Event(author="user", content=text)


async def test_the_log_is_text(path: Path) -> None:
    """Ids, times, words, and the event as JSON."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        first = await service.append_event(KEY, message("Grüße"))
        parts: list[Part] = [
            Text("one, "),
            ToolCall("c", "f", {"text": "no words"}),
            Text("two"),
            Data({"text": "no words either"}),
        ]
        second = await service.append_event(KEY, Event(author="agent", content=parts))
        await service.append_event(KEY, Event(author="agent", content=[ToolResult("c", "done")]))
        assert rows(
            path,
            "SELECT app_name, user_id, session_id, seq, id, author, text FROM log",
        ) == [
            ("app", "ädä", "chat-1", 1, first.id, "user", "Grüße"),
            ("app", "ädä", "chat-1", 2, second.id, "agent", "one, two"),
            ("app", "ädä", "chat-1", 3, rows(path, "SELECT id FROM log")[2][0], "agent", None),
        ]
        ((time, kind, event),) = rows(path, "SELECT time, typeof(event), event FROM log LIMIT 1")
        assert kind == "text"
        assert json.loads(str(event))["content"] == "Grüße"
        assert TIME.fullmatch(str(time))
        expected = first.timestamp.isoformat(sep=" ", timespec="seconds")
        assert str(time)[:16] == expected[:16]


async def test_the_state_is_text(path: Path) -> None:
    """Of all scopes, by their names without prefix; bytes as SQLite writes them."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(
            KEY, {"app:limits": {"a": [1]}, "user:name": "Ädä", "topic": None, "raw": b"\x00\xff"}
        )
        await service.update_session_state(KEY, {"topic": "ü"})
        assert rows(
            path,
            "SELECT scope, app_name, user_id, session_id, name, value FROM state "
            "ORDER BY scope, name",
        ) == [
            ("app", "app", None, None, "limits", '{"a":[1]}'),
            ("session", "app", "ädä", "chat-1", "raw", "x'00FF'"),
            ("session", "app", "ädä", "chat-1", "topic", '"ü"'),
            ("user", "app", "ädä", None, "name", '"Ädä"'),
        ]
        assert rows(path, "SELECT DISTINCT typeof(value) FROM state") == [("text",)]


async def test_the_overview_has_times_and_counts(path: Path) -> None:
    """One row for each session."""
    async with SQLiteSessionService(path, session_ttl=3600) as service:
        await service.create_session(KEY)
        await service.append_event(KEY, message("x"))
        (row,) = rows(path, "SELECT * FROM overview")
        assert row[:3] == ("app", "ädä", "chat-1")
        assert row[-1] == 1
        assert all(TIME.fullmatch(str(time)) for time in row[3:6])
        created, updated, expires = map(str, row[3:6])
        assert created <= updated < expires
    async with SQLiteSessionService(path) as service:
        await service.append_event(KEY, message("x"))
        assert rows(path, "SELECT expires, events FROM overview") == [(None, 2)]


async def test_they_show_what_the_library_shows(path: Path) -> None:
    """Nothing that was taken back, trimmed, deleted, or has expired."""
    async with SQLiteSessionService(path, session_event_limit=4) as service:
        await service.create_session(KEY, {"a": 1})
        for number in range(1, 7):
            await service.append_event(KEY, message(str(number)))
        assert rows(path, "SELECT text FROM log") == [("3",), ("4",), ("5",), ("6",)]
        await service.rewind(KEY, to_seq=4)
        shown = [(event.seq,) for event in await service.get_events(KEY)]
        assert rows(path, "SELECT seq FROM log") == shown
        assert rows(path, "SELECT events FROM overview") == [(len(shown),)]
        await service.delete_session(KEY)
        for view in ("log", "state", "overview"):
            assert rows(path, f"SELECT * FROM {view}") == []

    def long_ago() -> int:
        return 1

    ttl = 60
    async with SQLiteSessionService(
        path, session_ttl=ttl, app_state_ttl=ttl, user_state_ttl=ttl, clock=long_ago
    ) as service:
        await service.create_session(KEY, {"a": 1, "user:b": 2, "app:c": 3})
        await service.append_event(KEY, message("x"))
        assert await service.get_user_state(UserKey("app", "ädä")) == {"b": 2}
        for view in ("log", "state", "overview"):
            assert rows(path, f"SELECT * FROM {view}") == []


async def test_a_damaged_event_hides_itself_alone(path: Path) -> None:
    """It has neither an author nor words; all others are shown."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        for words in ("one", "two"):
            await service.append_event(KEY, message(words))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE events SET event = 'no JSON' WHERE seq = 1")
        connection.commit()
    assert rows(path, "SELECT author, text FROM log") == [(None, None), ("user", "two")]


def by_python(path: Path, statement: str) -> str:
    program = (
        "import sqlite3, sys; "
        "[print(*row, sep='|') for row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2])]"
    )
    return run(sys.executable, "-c", program, str(path), statement)


def by_command(path: Path, statement: str) -> str:
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed")
    return run("sqlite3", str(path), statement)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=True)
    return done.stdout


@pytest.mark.parametrize("tool", [by_python, by_command])
async def test_other_programs_read_while_it_is_written(
    path: Path, tool: Callable[[Path, str], str]
) -> None:
    """What was written by then; and the writer goes on."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY, {"user:name": "Ada"})
        for number in range(1, 4):
            await service.append_event(KEY, message(f"number {number}"))
            printed = tool(path, "SELECT session_id, seq, author, text FROM log")
            assert printed.splitlines() == [
                f"chat-1|{each}|user|number {each}" for each in range(1, number + 1)
            ]
        assert tool(path, "SELECT scope, name, value FROM state") == 'user|name|"Ada"\n'
        assert tool(path, "PRAGMA quick_check") == "ok\n"


async def test_the_tables_explain_themselves(path: Path) -> None:
    """Each has a word on what it holds, or on its columns, where tools show its statement."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
    found = rows(path, "SELECT name, sql FROM sqlite_master WHERE type = 'table'")
    own = [(name, sql) for name, sql in found if not str(name).startswith("sqlite_")]
    assert len(own) == 12
    assert [name for name, sql in own if "--" not in str(sql)] == []


async def test_the_page_names_all_that_is_stored(path: Path) -> None:
    """Each table, and each view with its columns."""
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
    listed = re.findall(r"^\| `(\w+)` \| (.*) \|$", text(PAGE), re.MULTILINE)
    known = {
        str(name): str(kind) for name, kind in rows(path, "SELECT name, type FROM sqlite_master")
    }
    for kind in ("table", "view"):
        names = {
            name for name, each in known.items() if each == kind and not name.startswith("sqlite_")
        }
        assert {name for name, _ in listed if known.get(name) == kind} == names
    for name, words in listed:
        if known.get(name) == "view":
            found = rows(path, f"SELECT name FROM pragma_table_info('{name}')")
            assert re.findall(r"`(\w+)`", words) == [column for (column,) in found]


async def test_the_statements_of_the_page_can_be_run(path: Path) -> None:
    """And find what the page says that they find."""
    key, other = (SessionKey("my-app", "alice", name) for name in ("chat-1", "chat-2"))
    async with SQLiteSessionService(path) as service:
        await service.create_session(other, {"user:name": "Ada"})
        await service.append_event(other, message("Where is my parcel?"))
        await service.create_session(key)
        for number in range(2):
            call = ToolCall(f"c{number}", "look_up", {})
            await service.append_event(
                key, Event(author="agent", content=[Text("One moment"), call])
            )
    statements = re.findall(r"^```sql\n(.*?)^```", text(PAGE), re.DOTALL | re.MULTILINE)
    last, said, tools, users, known = (rows(path, each) for each in statements)
    assert [row[1:] for row in last] == [("agent", "One moment")] * 2
    assert said == [("alice", "chat-2")]
    assert tools == [("look_up", 2)]
    assert users == [("alice", 2, 3)]
    assert known == [("name", '"Ada"')]
