"""``python -m agentsession import --from``: what it takes, tells, and returns."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from agentsession import Event, SessionKey, open_service
from agentsession.__main__ import main

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    """Conversations, one of which has its user in its id."""
    path = tmp_path / "chat.jsonl"
    lines = [
        {"id": "ada:1", "messages": MESSAGES, "reward": 1},
        {"id": "2", "messages": MESSAGES},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def adk(tmp_path: Path) -> Path:
    """A database of ADK, with sessions of two applications."""
    path = tmp_path / "adk.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            """
            CREATE TABLE app_states (app_name, state);
            CREATE TABLE user_states (app_name, user_id, state);
            CREATE TABLE sessions (app_name, user_id, id, state, create_time);
            CREATE TABLE events (id, app_name, user_id, session_id, invocation_id, timestamp,
                event_data);
            INSERT INTO sessions VALUES ('a', 'u', 's', '{}', 1), ('b', 'u', 's', '{}', 1),
                ('a', 'v', 's', '{}', 1);
            """
        )
    return path


def read(url: str, prefix: str, *keys: SessionKey) -> list[list[Event] | None]:
    async def read() -> list[list[Event] | None]:
        async with open_service(url, key_prefix=prefix) as service:
            sessions = [await service.get_session(key) for key in keys]
        return [None if each is None else each.events for each in sessions]

    return asyncio.run(read())


def test_a_dry_run_makes_no_file(
    chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a store in a file that is not there yet."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    words = ["import", url, str(chat), "--from", "openai-chat", "--to-app", "a", "--to-user", "u"]
    assert main([*words, "--dry-run"]) == 1
    assert "read: 2 sessions, 2 events\n" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == [chat.name]


def test_message_lists(
    chat: Path, valkey_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The users are in the ids, or said; what has no place is told, and the exit code says so."""
    prefix = f"here-{tmp_path.name}:"
    words = [
        *("import", valkey_url, str(chat), "--from", "openai-chat", "--key-prefix", prefix),
        *("--to-app", "a", "--to-user", "u", "--user-before", ":", "--agent", "bot"),
    ]
    assert main([*words, "--dry-run"]) == 1
    assert capsys.readouterr().err.splitlines()[1:] == [
        "read: 2 sessions, 2 events",
        "events hold: 2 messages of users",
        "not imported: 1 fields of conversations",
    ]
    keys = SessionKey("a", "ada", "ada:1"), SessionKey("a", "u", "2")
    assert read(valkey_url, prefix, *keys) == [None, None]
    assert main(words) == 1
    for events in read(valkey_url, prefix, *keys):
        assert events is not None
        assert [event.text for event in events] == ["Hello"]
    assert main([*words, "--quiet"]) == 1
    told = capsys.readouterr().err
    assert "not imported: fields of conversations, such as 'reward'" in told
    assert "sessions that were there" not in told.splitlines()[-1]


def test_a_broken_line_stops_it_or_is_left_out(
    chat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the place in either case."""
    chat.write_text('{"id": "x"}\n' + chat.read_text())
    words = ["import", "memory://", str(chat), "--from", "openai-chat", "--to-app", "a"]
    words += ["--to-user", "u"]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: line 1: it is neither")
    assert main([*words, "--keep-going"]) == 1
    assert "line 1: " in (told := capsys.readouterr().err)
    assert "2 sessions, 2 events, 1 entries that were left out" in told


def test_a_database_of_adk(adk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it, an application, or a user."""
    words = ["import", "memory://", str(adk), "--from", "adk-sqlite"]
    for more, count in (([], 3), (["--app", "a"], 2), (["--app", "a", "--user", "v"], 1)):
        assert main([*words, *more]) == 0
        assert capsys.readouterr().err == f"imported: {count} sessions\n"


def test_sessions_of_openai_agents(
    tmp_path: Path, valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file with tables of other names, and keys with another prefix."""
    path = tmp_path / "sessions.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            """
            CREATE TABLE one (session_id, created_at);
            CREATE TABLE two (id INTEGER PRIMARY KEY, session_id, message_data, created_at);
            INSERT INTO one VALUES ('s', '2026-01-02 03:04:05');
            INSERT INTO two VALUES (1, 's', '{"role":"user","content":"x"}', NULL);
            """
        )
    to = ["--to-app", "a", "--to-user", "u"]
    words = ["import", "memory://", str(path), "--from", "openai-agents-sqlite", *to]
    assert main([*words, "--sessions-table", "one", "--messages-table", "two"]) == 0
    assert "1 sessions, 1 events" in capsys.readouterr().err
    with Redis.from_url(valkey_url) as client:
        client.rpush("my:prefix:s:messages", '{"role":"user","content":"x"}')
        client.expire("my:prefix:s:messages", 3600)
    words = ["import", "memory://", valkey_url, "--from", "openai-agents-redis", *to]
    assert main([*words, "--source-prefix", "my:prefix"]) == 0
    told = capsys.readouterr().err
    assert "1 sessions, 1 events" in told
    assert "1 sessions and states were to expire there between " in told


def test_an_application_of_trpc_agent_go(
    valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its state as JSON, if that is wanted."""
    with Redis.from_url(valkey_url) as client:
        client.hset("cli:appstate:{a}", "n", "1")
    words = ["import", "memory://", valkey_url, "--from", "trpc-agent-go", "--app", "a"]
    assert main([*words, "--source-prefix", "cli", "--json-state"]) == 0
    assert capsys.readouterr().err == "imported: 1 applications with state\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--from", "openai-chat", "--to-app", "a"], "needs --to-app and --to-user"),
        (["--from", "trpc-agent-go"], "needs --app, the application to import"),
        (["--app", "a"], "--app is for --from adk-sqlite, trpc-agent-go"),
        (["--dry-run"], "an export is looked through, and nothing is written anywhere"),
        (["--from", "adk-sqlite", "--agent", "x"], "--agent is for --from openai-*"),
        (
            ["--from", "openai-chat", "--to-app", "a", "--to-user", "u", "--user-before", ""],
            "a separator that is not empty",
        ),
        (["--from", "adk-sqlite"], "cannot be read: unable to open"),
    ],
)
def test_what_cannot_be_said_is_refused(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Before anything is read; an option for another source would otherwise say nothing."""
    assert main(["import", "memory://", str(tmp_path / "missing"), *words]) == 2
    assert reason in capsys.readouterr().err
