"""Sessions of OpenAI Agents, without the framework: its files and keys, as it writes them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions
from redis.asyncio import Redis

from agentsession import SessionKey, SessionService, ToolResult, UserKey
from agentsession.testing._checks.asserting import swapped
from agentsession.transfer import FormatError
from agentsession.transfer.importers import (
    SourceError,
    SourceReport,
    import_openai_agents_redis,
    import_openai_agents_sqlite,
)
from transfer.importers.stores import dump, everything

OWNER = UserKey("a", "u")
AT = "2026-01-02 03:04:05"
ITEMS: list[Any] = [
    {"role": "user", "content": "What time is it?"},
    {"type": "function_call", "call_id": "c", "name": "now", "arguments": "{ }", "id": "fc_1"},
    {"type": "function_call_output", "call_id": "c", "output": "noon"},
    {
        "type": "message",
        "role": "assistant",
        "id": "msg_1",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Noon.", "annotations": []}],
    },
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "xyz"},
    {"type": "of a later version", "x": [1, None]},
]


class File:
    """A file like that of the framework.

    Args:
        path: Where.
        sessions: The table of sessions.
        messages: The table of items.
    """

    def __init__(
        self, path: Path, sessions: str = "agent_sessions", messages: str = "agent_messages"
    ) -> None:
        self.path = path
        self.sessions = sessions
        self.messages = messages
        self.run(
            f'CREATE TABLE "{sessions}" (session_id TEXT PRIMARY KEY, created_at TIMESTAMP, '
            "updated_at TIMESTAMP)"
        )
        self.run(
            f'CREATE TABLE "{messages}" (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT, '
            "message_data TEXT, created_at TIMESTAMP)"
        )

    def run(self, statement: str, *rows: tuple[Any, ...]) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            if rows:
                connection.executemany(statement, rows)
            else:
                connection.execute(statement)

    def add(self, session_id: str, *data: str | bytes, at: str = AT) -> None:
        self.run(
            f'INSERT OR IGNORE INTO "{self.sessions}" VALUES (?, ?, ?)',
            (session_id, "2026-01-01 00:00:00", at),
        )
        if data:
            self.add_items(session_id, *data, at=at)

    def add_items(self, session_id: str, *data: str | bytes, at: str | None) -> None:
        statement = f'INSERT INTO "{self.messages}" (session_id, message_data, created_at)'
        self.run(f"{statement} VALUES (?, ?, ?)", *((session_id, each, at) for each in data))


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "sessions.db")


def originals(events: list[Any]) -> list[Any]:
    return [event.metadata["openai_agents"] for event in events]


async def events_of(service: SessionService, session_id: str, user: str = "u") -> list[Any]:
    return await service.get_events(SessionKey("a", user, session_id))


async def test_items_of_a_file_are_kept_to_the_letter(service: SessionService, file: File) -> None:
    """In their order, with their times, and as parts that others can read."""
    file.add("s", *map(json.dumps, ITEMS))
    file.add("t", json.dumps(ITEMS[0]))
    file.add("empty")
    report = await import_openai_agents_sqlite(service, file.path, to=OWNER)
    assert (report.sessions, report.events, report.problems) == (3, 7, [])
    session = await service.get_session(SessionKey("a", "u", "s"))
    assert session is not None
    assert session.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert originals(session.events) == ITEMS
    assert session.events[2].content == [ToolResult("c", "noon", "now")]
    assert {each.timestamp for each in session.events} == {
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    }
    assert [each.text for each in session.events][:4] == ["What time is it?", "", "", "Noon."]
    assert await events_of(service, "empty") == []


async def test_a_second_run_adds_what_is_new_alone(service: SessionService, file: File) -> None:
    """The framework has gone on with a session meanwhile."""
    file.add("s", json.dumps(ITEMS[0]))
    await import_openai_agents_sqlite(service, file.path, to=OWNER)
    first = await everything(service, "a")
    again = await import_openai_agents_sqlite(service, file.path, to=OWNER)
    assert (again.found, again.found_events, again.events) == (1, 1, 0)
    assert await everything(service, "a") == first
    file.add("s", json.dumps(ITEMS[3]))
    await import_openai_agents_sqlite(service, file.path, to=OWNER)
    assert originals(await events_of(service, "s")) == [ITEMS[0], ITEMS[3]]


async def test_tables_of_other_names(service: SessionService, tmp_path: Path) -> None:
    """Also of names that need quoting; and there may be several pairs in one file."""
    path = tmp_path / "x.db"
    File(path).add("s", json.dumps(ITEMS[0]))
    File(path, "my sessions", 'my "items"'.replace('"', "'")).add("t", json.dumps(ITEMS[3]))
    await import_openai_agents_sqlite(
        service, path, to=OWNER, sessions_table="my sessions", messages_table="my 'items'"
    )
    assert originals(await events_of(service, "t")) == [ITEMS[3]]
    assert await service.get_session(SessionKey("a", "u", "s")) is None


async def test_items_of_a_session_that_is_gone_are_there(
    service: SessionService, file: File
) -> None:
    """Foreign keys are not enforced there, so that deleting a session alone leaves its items."""
    file.add_items("s", json.dumps(ITEMS[0]), at=AT)
    await import_openai_agents_sqlite(service, file.path, to=OWNER)
    assert originals(await events_of(service, "s")) == [ITEMS[0]]


async def test_branches_become_sessions(service: SessionService, file: File) -> None:
    """Of the advanced session: branches share items, and order them."""
    file.add("s", *(json.dumps({"role": "user", "content": f"{n}"}) for n in range(1, 7)))
    file.add("plain", json.dumps(ITEMS[0]))
    file.run(
        "CREATE TABLE message_structure (id INTEGER PRIMARY KEY, session_id TEXT, message_id "
        "INTEGER, branch_id TEXT, sequence_number INTEGER)"
    )
    file.run("CREATE TABLE turn_usage (id INTEGER PRIMARY KEY, session_id TEXT)")
    rows = [(1, "main", 1), (2, "main", 2), (3, "main", 3), (1, "retry", 1), (5, "retry", 9)]
    file.run(
        "INSERT INTO message_structure (session_id, message_id, branch_id, sequence_number) "
        "VALUES ('s', ?, ?, ?)",
        *(*rows, (4, "retry", 2)),
    )
    file.run("INSERT INTO turn_usage (session_id) VALUES (?)", ("s",), ("s",))
    report = await import_openai_agents_sqlite(service, file.path, to=OWNER)
    assert [each.text for each in await events_of(service, "s")] == ["1", "2", "3"]
    assert [each.text for each in await events_of(service, "s:retry")] == ["1", "4", "5"]
    assert originals(await events_of(service, "plain")) == [ITEMS[0]]
    assert report.unmapped == {"counts of used tokens": 2, "items in no branch": 1}
    assert "row 6 of agent_messages" in "\n".join(map(str, report.problems))


async def test_a_broken_row_says_where_and_the_rest_goes_on(
    service: SessionService, file: File
) -> None:
    """What is no JSON, no object, no text; and a session without an id."""
    file.add("s", json.dumps(ITEMS[0]), "{oops", "[]", b"\xff", json.dumps(ITEMS[3]))
    file.add("", json.dumps(ITEMS[0]))
    with pytest.raises(SourceError):
        await import_openai_agents_sqlite(service, file.path, to=OWNER)
    report = await import_openai_agents_sqlite(service, file.path, to=OWNER, keep_going=True)
    assert originals(await events_of(service, "s")) == [ITEMS[0], ITEMS[3]]
    told = "\n".join(map(str, report.problems))
    for place in ("row 2 of agent_messages: it is no JSON", "row 3 of agent_messages", "row 4 of"):
        assert place in told
    assert "session '': the session has no id" in told
    assert report.left_out == 4


async def test_encrypted_items_are_kept_and_told(service: SessionService, file: File) -> None:
    """Their own session can read them still."""
    item = {"__enc__": 1, "v": 1, "kid": "hkdf-v1", "payload": "gAAAA"}
    file.add("s", json.dumps(item))
    report = await import_openai_agents_sqlite(service, file.path, to=OWNER)
    assert originals(await events_of(service, "s")) == [item]
    assert report.unmapped == {"the words of encrypted items": 1}


async def test_a_file_of_another_kind_is_refused(service: SessionService, tmp_path: Path) -> None:
    """None at all, no database, one without the tables, one without a column."""
    missing, other, empty = (tmp_path / name for name in ("missing", "other", "empty.db"))
    other.write_bytes(b"x" * 4096)
    with closing(sqlite3.connect(empty)) as connection, connection:
        connection.execute("CREATE TABLE agent_sessions (session_id TEXT)")
    for path, reason in (
        (missing, "unable to open"),
        (other, "not a database"),
        (empty, "does not hold created_at of 'agent_sessions'; its tables are: agent_sessions"),
    ):
        with pytest.raises(FormatError, match=reason):
            await import_openai_agents_sqlite(service, path, to=OWNER)
    assert not missing.exists()


async def test_a_file_is_not_changed(service: SessionService, file: File) -> None:
    """It is opened for reading alone."""
    file.add("s", *map(json.dumps, ITEMS))
    before = file.path.read_bytes()
    await import_openai_agents_sqlite(service, file.path, to=OWNER)
    assert file.path.read_bytes() == before


async def test_a_file_is_read_as_it_is_at_one_moment(service: SessionService, file: File) -> None:
    """What the framework adds meanwhile comes with the next import."""
    file.run("PRAGMA journal_mode=WAL")
    ids = [f"s{number:03}" for number in range(300)]
    file.run("INSERT INTO agent_sessions VALUES (?, ?, '')", *((each, AT) for each in ids))
    first, second = json.dumps(ITEMS[0]), json.dumps(ITEMS[3])
    statement = "INSERT INTO agent_messages (session_id, message_data, created_at) VALUES (?, ?, ?)"
    file.run(statement, *((each, first, AT) for each in ids))

    def adds(report: SourceReport) -> None:
        if report.sessions == 1:
            file.run(statement, *((each, second, AT) for each in ids))

    report = await import_openai_agents_sqlite(service, file.path, to=OWNER, on_progress=adds)
    assert report.events == 300
    assert originals(await events_of(service, "s299")) == [ITEMS[0]]
    report = await import_openai_agents_sqlite(service, file.path, to=OWNER)
    assert (report.found_events, report.events) == (300, 300)


# -- keys


async def push(client: Redis, session_id: str, *items: Any, prefix: str = "agents:session") -> None:
    key = f"{prefix}:{session_id}"
    for name, value in (("session_id", session_id), ("created_at", "1767323045")):
        await client.hset(key, name, value)
    for item in items:
        data = item if isinstance(item, bytes) else json.dumps(item, separators=(",", ":"))
        await client.rpush(f"{key}:messages", data)


async def test_items_of_keys_are_kept_to_the_letter(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """In their order, with the time of their session, under ids that may look like keys."""
    await push(source, "s", *ITEMS)
    await push(source, "t:messages")  # A hash alone, whose key looks like that of a list.
    await push(source, "*", ITEMS[3])
    await push(source, "other", ITEMS[0], prefix="agents:sessions")
    await source.pexpire("agents:session:s:messages", 60_000)
    before = await dump(source)
    report = await import_openai_agents_redis(service, valkey_url, to=OWNER)
    assert (report.sessions, report.events, report.problems) == (2, 7, [])
    assert report.expiring == 1
    session = await service.get_session(SessionKey("a", "u", "s"))
    assert session is not None
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert {session.created_at, *(each.timestamp for each in session.events)} == {at}
    assert originals(session.events) == ITEMS
    assert await dump(source) == before
    again = await import_openai_agents_redis(service, valkey_url, to=OWNER)
    assert (again.found, again.events) == (2, 0)


async def test_a_prefix_is_no_pattern(service: SessionService, source: Redis) -> None:
    """What it has of a pattern means itself; a client that is given stays open."""
    await push(source, "s", ITEMS[0], prefix="[ab]*")
    await push(source, "t", ITEMS[0], prefix="aa")
    report = await import_openai_agents_redis(service, source, to=OWNER, key_prefix="[ab]*")
    assert report.sessions == 1
    assert originals(await events_of(service, "s")) == [ITEMS[0]]
    assert await source.ping()


async def test_a_long_list_comes_in_pages(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """More items than are read in one call, and than are stored in one."""
    await push(source, "s", *({"role": "user", "content": f"{n}"} for n in range(1501)))
    await import_openai_agents_redis(service, valkey_url, to=OWNER)
    session = await service.get_session(SessionKey("a", "u", "s"))
    assert session is not None
    assert [event.text for event in session.events] == [str(n) for n in range(1501)]


async def test_a_broken_item_says_where_and_the_rest_goes_on(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """And a session whose hash is gone was made when it was first imported."""
    await push(source, "s", ITEMS[0], b"\xff", ITEMS[3])
    await source.delete("agents:session:s")
    with pytest.raises(SourceError, match="item 2 of key 'agents:session:s:messages'"):
        await import_openai_agents_redis(service, valkey_url, to=OWNER)
    for _ in range(2):
        report = await import_openai_agents_redis(service, valkey_url, to=OWNER, keep_going=True)
        assert report.left_out == 1
    assert originals(await events_of(service, "s")) == [ITEMS[0], ITEMS[3]]


async def test_a_server_that_does_not_answer(service: SessionService) -> None:
    """The error says that it is the one that is read from."""
    for url, kind in (
        ("redis://localhost:1", "Connection"),
        ("redis+cluster://localhost:1", "Redis"),
    ):
        with pytest.raises(SourceError, match=f"the server that is read from: {kind}"):
            await import_openai_agents_redis(service, url, to=OWNER)


async def test_a_server_that_is_lost_amid_a_session_is_named(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """As one is that was never there, to keep going or not."""
    await push(source, "s", ITEMS[0])
    async with Redis.from_url(valkey_url) as client:
        execute: Any = client.execute_command

        async def lost(command: str, *arguments: Any, **options: Any) -> Any:
            if command == "LRANGE":
                raise redis.exceptions.ConnectionError
            return await execute(command, *arguments, **options)

        with (
            swapped(client, "execute_command", lost),
            pytest.raises(SourceError, match="the server that is read from: ConnectionError"),
        ):
            await import_openai_agents_redis(service, client, to=OWNER, keep_going=True)


async def test_a_client_that_decodes_says_what_is_wrong(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """As long as all is text it will do."""
    await push(source, "s", ITEMS[0])
    async with Redis.from_url(valkey_url, decode_responses=True) as client:
        assert (await import_openai_agents_redis(service, client, to=OWNER)).events == 1
        await push(source, "t", b"\xff")
        with pytest.raises(SourceError, match="without decode_responses"):
            await import_openai_agents_redis(service, client, to=OWNER)


async def test_a_time_to_live_may_be_longer_than_there_are_years(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """Some say so that a key is to live for ever."""
    await push(source, "s", ITEMS[0])
    await source.expire("agents:session:s:messages", 10**12)
    report = await import_openai_agents_redis(service, valkey_url, to=OWNER)
    assert (report.sessions, report.expiring) == (1, 1)
    assert report.last_expiry is not None
    assert report.last_expiry.year == 9999
