"""Databases of Google's ADK, without ADK itself: files as its session services write them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentsession import Event, SessionKey, SessionService, Text, ToolCall, ToolResult, UserKey
from agentsession.events import Media, Reasoning
from agentsession.transfer import FormatError
from agentsession.transfer.importers import SourceError, import_adk_sqlite
from transfer.importers.stores import everything

KEY = SessionKey("a", "u", "s")
TABLES = """
CREATE TABLE app_states (app_name TEXT PRIMARY KEY, state TEXT, update_time REAL);
CREATE TABLE user_states (app_name TEXT, user_id TEXT, state TEXT, update_time REAL);
CREATE TABLE sessions (app_name TEXT, user_id TEXT, id TEXT, state TEXT, create_time, update_time);
CREATE TABLE events (id TEXT, app_name TEXT, user_id TEXT, session_id TEXT, invocation_id TEXT,
    timestamp, event_data TEXT, PRIMARY KEY (app_name, user_id, session_id, id));
"""
BEGUN = 1767323045.5


class File:
    """A file like that of ADK."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executescript(TABLES)

    def run(self, statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(statement, values)

    def add_session(
        self, key: SessionKey = KEY, state: str = "{}", created: float | str = BEGUN
    ) -> None:
        ids = (key.app_name, key.user_id, key.session_id)
        self.run("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)", *ids, state, created, created)

    def add(
        self, number: int, key: SessionKey = KEY, at: float | str | None = None, **fields: Any
    ) -> None:
        told = {
            "content": {"parts": [{"text": f"{number}"}], "role": "user"},
            "invocation_id": f"turn{number}",
            "author": "user",
            "actions": {"state_delta": {}},
            "id": f"e{number}",
            "timestamp": BEGUN + number,
            **fields,
        }
        self.add_row(f"e{number}", json.dumps(told), BEGUN + number if at is None else at, key)

    def add_row(self, event_id: str, data: str, at: float | str, key: SessionKey = KEY) -> None:
        ids = (key.app_name, key.user_id, key.session_id)
        values = (event_id, *ids, "turn", at, data)
        self.run("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", *values)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "adk.db")


async def read(service: SessionService, key: SessionKey = KEY) -> list[Event]:
    return await service.get_events(key)


async def test_states_of_all_scopes_and_times_come(service: SessionService, file: File) -> None:
    """A value that is None is a value; it deletes nothing."""
    file.run("INSERT INTO app_states VALUES ('a', ?, 0)", '{"x": 1, "none": null}')
    file.run("INSERT INTO user_states VALUES ('a', 'u', ?, 0)", '{"y": [1.5]}')
    file.add_session(state='{"z": {"deep": null}, "none": null}')
    file.add_session(SessionKey("a", "u", "later"), created="2026-01-02 03:04:05.500000")
    report = await import_adk_sqlite(service, file.path)
    assert (report.apps, report.users, report.sessions, report.problems) == (1, 1, 2, [])
    session = await service.get_session(KEY)
    assert session is not None
    assert session.state == {
        "app:x": 1,
        "app:none": None,
        "user:y": [1.5],
        "z": {"deep": None},
        "none": None,
    }
    later = await service.get_session(SessionKey("a", "u", "later"))
    begun = datetime.fromtimestamp(BEGUN, UTC)
    assert later is not None
    assert (session.created_at, later.created_at) == (begun, begun)


async def test_events_are_kept_with_their_originals(service: SessionService, file: File) -> None:
    """Their names are Python's there; what people put into calls keeps its own."""
    file.add_session(state='{"k": 1}')
    call = {"id": "c", "name": "f", "args": {"snake_case": {"inner_name": 1}}}
    answer = {"id": "c", "name": "f", "response": {"result": "ok"}}
    parts: list[dict[str, Any]] = [
        {"text": "Hm", "thought": True, "thought_signature": "-vs="},
        {"function_call": call},
        {"inline_data": {"data": "__4-Pw==", "mime_type": "image/png"}},
    ]
    file.add(
        1,
        author="bot",
        content={"role": "model", "parts": parts},
        actions={"state_delta": {"k": 1, "app:x": 2}},
        branch="a.b",
    )
    file.add(2, author="bot", content={"role": "user", "parts": [{"function_response": answer}]})
    file.add(3, author="bot", content=None, error_code="500", error_message="no")
    await import_adk_sqlite(service, file.path)
    said, answered, failed = await read(service)
    assert isinstance(said.content, list)
    thought, called, image = said.content
    assert isinstance(thought, Reasoning)
    assert thought.text == "Hm"
    assert called == ToolCall("c", "f", {"snake_case": {"inner_name": 1}})
    assert isinstance(image, Media)
    assert image.to_bytes() == b"\xff\xfe>?"
    assert (said.id, said.author, said.branch, said.invocation_id) == ("e1", "bot", "a.b", "turn1")
    assert said.state_delta == {"k": 1, "app:x": 2}
    assert answered.content == [ToolResult("c", "ok", "f")]
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("500", "no")
    assert said.metadata["google_adk"]["content"]["parts"] == parts
    assert await service.get_app_state("a") == {}


async def test_events_come_in_the_order_in_which_they_were_added(
    service: SessionService, file: File
) -> None:
    """Where their times are equal, which a fast program's are."""
    file.add_session()
    for number in (9, 3, 7):
        file.add(number, at=BEGUN, timestamp=BEGUN)
    file.add(1, at=BEGUN - 1, timestamp=BEGUN - 1)
    await import_adk_sqlite(service, file.path)
    assert [event.text for event in await read(service)] == ["1", "9", "3", "7"]


async def test_calls_without_ids_are_answered(service: SessionService, file: File) -> None:
    """As in older files; ids are made of the events' own, so that a second run finds the same."""
    file.add_session()
    call = {"function_call": {"name": "f", "args": {}}}
    answer = {"function_response": {"name": "f", "response": {"result": 1}}}
    file.add(1, author="bot", content={"role": "model", "parts": [call]})
    file.add(2, author="bot", content={"role": "user", "parts": [answer]})
    await import_adk_sqlite(service, file.path)
    called, answered = await read(service)
    assert called.tool_calls[0].call_id == answered.tool_results[0].call_id
    first = await everything(service, "a")
    report = await import_adk_sqlite(service, file.path)
    assert (report.found_events, report.events) == (2, 0)
    assert await everything(service, "a") == first


async def test_a_rewind_takes_back_what_it_takes_back_there(
    service: SessionService, file: File
) -> None:
    """Readers of other frameworks do not see it either; and it can be imported twice."""
    file.add_session()
    for number in (1, 2, 3):
        file.add(number)
    file.add(4, content=None, actions={"rewind_before_invocation_id": "turn2"})
    file.add(5)
    file.add(6, content=None, actions={"rewind_before_invocation_id": "turn nobody knows"})
    await import_adk_sqlite(service, file.path)
    assert [event.id for event in await read(service)] == ["e1", "e4", "e5", "e6"]
    raw = await service.get_events(KEY, raw=True)
    assert [event.text for event in raw if event.text] == ["1", "2", "3", "5"]
    report = await import_adk_sqlite(service, file.path)
    assert (report.found, report.found_events) == (1, 7)


async def test_one_application_and_one_user(service: SessionService, file: File) -> None:
    """What is of others is left; and all of it can go to another application and user."""
    keys = [SessionKey(app, user, "s") for app in ("a", "b") for user in ("u", "v")]
    for key in keys:
        file.add_session(key)
        file.add(1, key)
        file.run("INSERT INTO user_states VALUES (?, ?, '{}', 0)", key.app_name, key.user_id)
    for app in ("a", "b"):
        file.run("INSERT INTO app_states VALUES (?, '{}', 0)", app)
    report = await import_adk_sqlite(
        service, file.path, app_name="a", user_id="v", to_app="c", to_user="w"
    )
    assert (report.apps, report.users, report.sessions) == (1, 1, 1)
    assert len(await read(service, SessionKey("c", "w", "s"))) == 1
    with pytest.raises(ValueError, match="app_name must not be empty"):
        await import_adk_sqlite(service, file.path, to_app="")
    report = await import_adk_sqlite(service, file.path, app_name="a")
    assert (report.apps, report.users, report.sessions) == (1, 2, 2)


async def test_state_that_is_here_already_stays(service: SessionService, file: File) -> None:
    """It is counted and named; what is missing is added."""
    await service.update_user_state(UserKey("a", "u"), {"y": 1, "same": 1.0})
    file.run("INSERT INTO user_states VALUES ('a', 'u', ?, 0)", '{"y": 2, "same": 1.0, "z": 3}')
    report = await import_adk_sqlite(service, file.path)
    assert await service.get_user_state(UserKey("a", "u")) == {"y": 1, "same": 1.0, "z": 3}
    assert (report.kept, report.problem_count) == (1, 1)
    assert "'y'" in str(report.problems[0])


async def test_what_is_broken_says_where_and_the_rest_goes_on(
    service: SessionService, file: File
) -> None:
    """States, sessions, events; and events of a session that is gone are named."""
    file.run("INSERT INTO app_states VALUES ('a', '[]', 0)")
    file.run("INSERT INTO user_states VALUES ('a', 'u', 'x', 0)")
    file.add_session()
    file.add_session(SessionKey("a", "u", "t"), state="")
    file.add_session(SessionKey("a", "u", "v"), created="soon")
    file.add_session(SessionKey("a", "u", "w"), created=-1.0)
    file.add_session(SessionKey("a", "u", "x"), created=float("inf"))
    file.run("INSERT INTO user_states VALUES ('a', '', '{}', 0)")
    file.add(1)
    file.add_row("e2", "{oops", BEGUN)
    file.add_row("e3", '{"id": "e3"}', BEGUN)
    file.add(4, timestamp="noon")
    file.add(9, timestamp=1e300)
    file.add(5, content={"role": 7})
    file.add(6, partial=True)
    file.add(7)
    file.add(8, SessionKey("a", "u", "gone"))
    file.add(10, actions={"state_delta": {"": 1}})
    file.add(11, actions={"state_delta": {"app:user:x": 1}})
    with pytest.raises(SourceError, match="state of app 'a': it is no JSON object"):
        await import_adk_sqlite(service, file.path)
    report = await import_adk_sqlite(service, file.path, keep_going=True)
    assert [event.text for event in await read(service)] == ["1", "7"]
    assert report.left_out == 13
    assert report.sessions == 1
    assert report.unmapped == {"chunks of a stream": 1, "events of sessions that are gone": 1}
    told = "\n".join(map(str, report.problems))
    for place in (
        "user 'u'",
        "session 't' of user 'u'",
        "session 'v'",
        "row 2 of events",
        "user ''",
    ):
        assert place in told
    assert "session 'w', app 'a', user 'u': created_at is before 1970" in told


async def test_names_of_state_that_mean_another_scope_are_named(
    service: SessionService, file: File
) -> None:
    """A file that somebody has written by hand, or of an old version."""
    file.add_session(state='{"temp:x": 1, "app:y": 2, "z": 3}')
    report = await import_adk_sqlite(service, file.path)
    session = await service.get_session(KEY)
    assert session is not None
    assert session.state == {"z": 3}
    assert report.unmapped == {"values of state whose names mean another scope": 2}


async def test_a_pickled_database_says_what_to_do(service: SessionService, tmp_path: Path) -> None:
    """It is of an older ADK, whose own command makes a new one of it."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE events (id TEXT, actions BLOB, content TEXT)")
    with pytest.raises(FormatError, match="adk migrate session"):
        await import_adk_sqlite(service, path)


async def test_a_database_of_another_kind_is_refused(
    service: SessionService, tmp_path: Path
) -> None:
    """Nothing is imported."""
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(FormatError, match="its tables are: t"):
        await import_adk_sqlite(service, path)


async def test_text_of_one_part_is_plain(service: SessionService, file: File) -> None:
    """As the adapter makes it."""
    file.add_session()
    file.add(1, content={"role": "user", "parts": [{"text": "a"}, {"text": "b"}]})
    file.add(2)
    await import_adk_sqlite(service, file.path)
    assert [event.content for event in await read(service)] == [[Text("a"), Text("b")], "2"]
