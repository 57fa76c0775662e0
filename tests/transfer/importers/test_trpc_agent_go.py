"""Applications of tRPC-Agent-Go come with all that they hold, counted in what it has written."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from agentsession import Event, SessionKey, SessionService, UserKey
from agentsession.events import Data, Media, Reasoning, Text, ToolCall, ToolResult
from agentsession.history import unanswered_calls
from agentsession.transfer import SessionConflictError
from agentsession.transfer.importers import SourceError, import_trpc_agent_go
from harness import servers
from transfer.importers.stores import dump, everything

RECORDED = Path(__file__).parents[4] / "shared/data/trpc_agent_go_redis.jsonl"
APPS = ("airline-zset", "airline-hashidx")
recorded = pytest.mark.skipif(
    not RECORDED.exists(), reason="what tRPC-Agent-Go has written is not beside this checkout"
)

DONE = '"done":true,"is_partial":false'


async def load(client: Redis) -> list[dict[str, Any]]:
    """Put into a server what the original has left in one; return the rows."""
    rows = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    for row in rows:
        key, value = row["key"], row["value"]
        match row["type"]:
            case "hash":
                await client.hset(key, mapping=value)
            case "zset":
                await client.zadd(key, dict(value))
            case _:
                await client.set(key, value)
        if row["ttl_ms"] >= 0:
            await client.pexpire(key, row["ttl_ms"])
    return rows


class Recorded:
    """What the rows say of an application, read without the importer."""

    def __init__(self, rows: list[dict[str, Any]], app: str) -> None:
        self.events: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self.sessions: dict[tuple[str, str], dict[str, Any]] = {}
        self.users: dict[str, dict[str, str]] = {}
        self.app: dict[str, str] = {}
        self.ttls: list[int] = []
        for row in rows:
            if app in row["key"].replace("{", "").replace("}", "").split(":"):
                self.take(row, row["key"].replace("{", "").replace("}", "").split(":"))
        for events in self.events.values():
            events.sort(key=lambda event: exact(event["timestamp"]))

    def take(self, row: dict[str, Any], key: list[str]) -> None:
        value = row["value"]
        match key:
            case ["appstate", _]:
                self.app = value
            case ["userstate", _, user] | ["hashidx", "userstate", _, user]:
                assert self.users.setdefault(user, value) == value
            case ["event", _, user, session]:
                self.events[user, session] = [json.loads(member) for member, _ in value]
            case ["hashidx", "evtdata", _, user, session]:
                self.events[user, session] = [json.loads(each) for each in value.values()]
            case ["sess", _, user]:
                for session, told in value.items():
                    self.sessions[user, session] = json.loads(told)
                    self.ttls.append(row["ttl_ms"])
            case ["hashidx", "meta", _, user, session]:
                self.sessions[user, session] = json.loads(value)
                self.ttls.append(row["ttl_ms"])
            case ["hashidx", "evtidx", "time", *_] | ["hashidx", "sessidx", *_]:
                pass
            case _:
                pytest.fail(f"nobody knows what {row['key']} is")


def exact(text: str) -> tuple[str, str]:
    """Return a time with all its digits, in an order that strings have."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return seconds, fraction.ljust(9, "0")


def plain(state: Mapping[str, str] | None) -> dict[str, str]:
    return {name: base64.b64decode(value).decode() for name, value in (state or {}).items()}


def parts_of(told: dict[str, Any]) -> list[Any]:
    """Say what is in an event of the original, in its own words."""
    message = told["choices"][0]["message"]
    if message["role"] == "tool":
        return [("result", message["tool_id"], message["tool_name"], message.get("content", ""))]
    calls = [
        ("call", call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls", ())
    ]
    return [("text", message["content"]), *calls] if message.get("content") else calls


def parts_in(event: Event) -> list[Any]:
    """Say what is in an event here."""
    if isinstance(event.content, str):
        return [("text", event.content)]
    found: list[Any] = []
    for part in event.content:
        match part:
            case Text(text=text):
                found.append(("text", text))
            case ToolCall():
                found.append(("call", part.call_id, part.name, part.arguments))
            case ToolResult():
                found.append(("result", part.call_id, part.name, part.result))
            case _:
                pytest.fail(f"there was no {part}")
    return found


@recorded
@pytest.mark.parametrize("app", APPS)
async def test_every_event_and_state_of_the_original_is_there(
    service: SessionService, source: Redis, valkey_url: str, app: str
) -> None:
    """12 sessions, 366 events; order, ids, authors, turns, contents, times, deltas, originals."""
    there = Recorded(await load(source), app)
    report = await import_trpc_agent_go(service, valkey_url, app)
    assert (report.problems, report.unmapped, report.left_out) == ([], {}, 0)
    assert (report.apps, report.users, report.sessions) == (1, 4, 12)
    assert report.events == sum(map(len, there.events.values())) == 366
    assert await service.get_app_state(app) == there.app
    for user, state in there.users.items():
        assert await service.get_user_state(UserKey(app, user)) == state
    assert there.sessions.keys() == there.events.keys()
    for (user, session_id), told in there.sessions.items():
        session = await service.get_session(SessionKey(app, user, session_id))
        assert session is not None
        assert session.created_at == datetime.fromisoformat(told["createdAt"])
        own = {name: each for name, each in session.state.items() if ":" not in name}
        assert own == plain(told["state"])
        original = there.events[user, session_id]
        for event, wanted in zip(session.events, original, strict=True):
            assert event.id == wanted["id"]
            assert event.metadata["trpc_agent_go"] == wanted
            assert (event.author, event.invocation_id, event.branch) == (
                wanted["author"],
                wanted["invocationId"],
                wanted.get("branch", ""),
            )
            assert event.timestamp == datetime.fromisoformat(wanted["timestamp"])
            assert event.state_delta == plain(wanted.get("stateDelta"))
            assert parts_in(event) == parts_of(wanted)
        assert unanswered_calls(session.events) == []


@recorded
async def test_what_kinds_there_are_is_counted(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """As many as in what the original has written, counted there by other means."""
    rows = await load(source)
    for app in APPS:
        events = [each for log in Recorded(rows, app).events.values() for each in log]
        messages = [each["choices"][0]["message"] for each in events]
        report = await import_trpc_agent_go(service, valkey_url, app)
        assert report.kinds == {
            "messages of users": sum(each["role"] == "user" for each in messages),
            "other messages": sum(
                each["role"] == "assistant" and "content" in each for each in messages
            ),
            "tool calls": sum(len(each.get("tool_calls", ())) for each in messages),
            "tool results": sum(each["role"] == "tool" for each in messages),
            "changes of state": sum(len(each.get("stateDelta", ())) for each in events),
        }


@recorded
@pytest.mark.parametrize("app", APPS)
async def test_times_to_live_are_told(
    service: SessionService, source: Redis, valkey_url: str, app: str
) -> None:
    """Of all 12 sessions; the states of the application and its users were to live for ever."""
    rows = await load(source)
    before = datetime.now(UTC)
    report = await import_trpc_agent_go(service, valkey_url, app)
    ttls = Recorded(rows, app).ttls
    assert (report.expiring, len(ttls)) == (12, 12)
    assert report.first_expiry is not None
    assert report.last_expiry is not None
    late = timedelta(seconds=10)
    for expiry, ttl in ((report.first_expiry, min(ttls)), (report.last_expiry, max(ttls))):
        assert abs(expiry - before - timedelta(milliseconds=ttl)) < late


@recorded
@pytest.mark.parametrize("app", APPS)
async def test_a_second_run_adds_nothing(
    service: SessionService, source: Redis, valkey_url: str, app: str
) -> None:
    """All of it is found, and nothing is changed."""
    await load(source)
    await import_trpc_agent_go(service, valkey_url, app)
    first = await everything(service, app)
    report = await import_trpc_agent_go(service, valkey_url, app)
    assert (report.sessions, report.found, report.events, report.found_events) == (0, 12, 0, 366)
    assert await everything(service, app) == first


@recorded
async def test_the_source_is_not_changed_and_nothing_of_another_application_is_read(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """Its keys, values and expiries are what they were; and the two applications stay apart."""
    await load(source)
    before = await dump(source)
    for app in APPS:
        await import_trpc_agent_go(service, valkey_url, app)
    assert await dump(source) == before
    await import_trpc_agent_go(service, source, "airline", to_app="elsewhere")
    await import_trpc_agent_go(service, source, "*", to_app="elsewhere")
    assert await everything(service, "elsewhere") == await everything(service, "nothing")


@recorded
async def test_a_session_goes_back_with_its_state(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """As state was is known from the changes that events brought."""
    await load(source)
    await import_trpc_agent_go(service, valkey_url, "airline-zset")
    key = SessionKey("airline-zset", "user0", "task00-trial0")
    turn = "task00-trial0-inv2"
    last = [each for each in await service.get_events(key) if each.invocation_id == turn][-1]
    session = await service.rewind(key, to_seq=last.seq)
    assert session.state["turns"] == "2"
    assert (await service.rewind(key, to_seq=0)).state.get("turns") is None


def message(event_id: str, at: str, text: str, **fields: Any) -> str:
    """Make an event as the original writes it."""
    told = {
        "choices": [{"index": 0, "message": {"role": "user", "content": text}, "delta": {}}],
        "done": True,
        "is_partial": False,
        "invocationId": "run",
        "author": "user",
        "id": event_id,
        "timestamp": at,
        "version": 1,
        **fields,
    }
    return json.dumps(told)


def one(said: dict[str, Any], **fields: Any) -> str:
    """Make an event with a message of any kind."""
    choices = [{"index": 0, "message": said}]
    return message("e", "2026-01-02T03:04:05Z", "", choices=choices, author="bot", **fields)


async def put_older(
    client: Redis | RedisCluster, *events: str, state: str = "{}", session: str = "s"
) -> None:
    told = f'{{"id":"{session}","state":{state},"createdAt":"2026-01-02T03:04:05.123456789Z"}}'
    await client.hset("sess:{a}:u", session, told)
    for each in events:
        at = datetime.fromisoformat(json.loads(each)["timestamp"])
        fraction = json.loads(each)["timestamp"].rstrip("Z").partition(".")[2].ljust(9, "0")
        score = float(int(at.replace(microsecond=0).timestamp()) * 10**9 + int(fraction))
        await client.zadd(f"event:{{a}}:u:{session}", {each: score})


async def put_newer(
    client: Redis | RedisCluster, *events: str, user: str = "u", session: str = "s"
) -> None:
    told = {
        "id": session,
        "userID": user,
        "appName": "a",
        "state": {},
        "createdAt": "2026-01-02T03:04:05Z",
    }
    await client.set(f"hashidx:meta:a:{{{user}}}:{session}", json.dumps(told))
    for number, each in enumerate(events):
        event_id = json.loads(each)["id"]
        await client.hset(f"hashidx:evtdata:a:{{{user}}}:{session}", event_id, each)
        await client.zadd(f"hashidx:evtidx:time:a:{{{user}}}:{session}", {event_id: number})


async def read(service: SessionService, user: str = "u", session: str = "s") -> list[Event]:
    return await service.get_events(SessionKey("a", user, session))


async def test_events_of_one_score_come_in_the_order_of_their_times(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """A score holds no nanoseconds, and the server orders equal ones by their text."""
    at = "2026-01-02T03:04:05.1234567"
    events = [message(f"{9 - n}", f"{at}{n:02}Z", f"{n}") for n in range(10)]
    await put_older(source, *reversed(events))
    (score,) = set(await source.zmscore("event:{a}:u:s", events))
    assert score is not None
    await put_newer(source, user="v")
    for each in events:
        told = json.loads(each)
        await source.hset("hashidx:evtdata:a:{v}:s", told["id"], each)
        await source.zadd("hashidx:evtidx:time:a:{v}:s", {told["id"]: score})
    await import_trpc_agent_go(service, valkey_url, "a")
    for user in ("u", "v"):
        assert [event.text for event in await read(service, user)] == [str(n) for n in range(10)]


async def test_a_long_log_comes_in_pages_and_in_order(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """Also where the end of a page is within events of one score."""
    events = [
        message(f"{n}", f"2026-01-02T03:04:05.{n // 7:06}{n % 7:03}Z", f"{n}") for n in range(1500)
    ]
    await put_older(source, *events)
    report = await import_trpc_agent_go(service, valkey_url, "a")
    assert report.events == 1500
    found: list[Event] = []
    while page := await service.get_events(
        SessionKey("a", "u", "s"), after_seq=found[-1].seq if found else 0, limit=1000
    ):
        found += page
    assert [event.text for event in found] == [str(n) for n in range(1500)]


async def test_the_newer_layout_hides_a_session_of_the_older(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """As for the original; what the hidden one alone holds is counted and named."""
    at = "2026-01-02T03:04:05Z"
    await put_newer(source, message("both", at, "new"))
    await put_older(source, message("both", at, "old"), message("lost", at, "old"))
    report = await import_trpc_agent_go(service, valkey_url, "a")
    assert [event.text for event in await read(service)] == ["new"]
    assert report.unmapped == {
        "sessions of the older layout that the newer one has too": 1,
        "events of the older layout that the newer one does not have": 1,
    }
    assert "event:{a}:u:s" in str(report.problems[1])


async def test_the_newer_state_of_a_user_wins(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """What the older layout alone holds is added, and what differs is named."""
    await source.hset("userstate:{a}:u", mapping={"old": "1", "both": "1"})
    await source.hset("hashidx:userstate:a:{u}", mapping={"new": "2", "both": "2"})
    await source.hset("userstate:{a}:v", mapping={"old": "3"})
    report = await import_trpc_agent_go(service, valkey_url, "a")
    state = await service.get_user_state(UserKey("a", "u"))
    assert state == {"old": "1", "both": "2", "new": "2"}
    assert await service.get_user_state(UserKey("a", "v")) == {"old": "3"}
    assert report.unmapped == {"values of state that are others in the older layout": 1}


async def test_what_has_no_place_is_counted_and_named(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """Summaries, tracks, what a session has left behind, and keys that nobody knows."""
    await put_newer(source, message("e", "2026-01-02T03:04:05Z", "hello"))
    await source.hset("hashidx:evtdata:a:{u}:s", "stray", message("stray", "", ""))
    for n in range(5):
        await source.set(f"hashidx:sesssum:a:{{u}}:s{n}", "{}")
    await source.hset("hashidx:trkdata:a:{u}:s:track", "1", "{}")
    await source.zadd("hashidx:trkidx:time:a:{u}:s:track", {"1": 1})
    await source.set("hashidx:revision:a:{u}:s", "{}")
    await source.set("hashidx:revision:archive:a:{u}:s", "{}")
    await source.zadd("hashidx:evtidx:time:a:{u}:gone", {"e": 1})
    await source.hset("sesssum:{a}:u", "s", "{}")
    await source.zadd("track:{a}:u:s:track", {"{}": 1})
    await source.zadd("event:{a}:u:gone", {"{}": 1})
    report = await import_trpc_agent_go(service, valkey_url, "a")
    assert report.unmapped == {
        "events that are in no index": 1,
        "summaries of sessions": 6,
        "tracks of sessions": 2,
        "indexes of tracks": 1,
        "keys of the kind 'revision'": 1,
        "keys of the kind 'revision:archive'": 1,
        "events of sessions that are gone": 2,
    }
    summaries = [each for each in report.problems if "summaries" in str(each)]
    assert len(summaries) == 3
    assert "sesssum" in str(summaries[0])
    assert report.sessions == 1


@pytest.mark.parametrize(
    ("said", "content"),
    [
        (
            {"role": "assistant", "content": "Hm.", "reasoning_content": "Well ..."},
            [
                Reasoning("Well ...", {"openai_chat": {"field": "reasoning_content"}}),
                Text("Hm."),
            ],
        ),
        (
            {
                "role": "user",
                "content_parts": [
                    {"type": "text", "text": "Look"},
                    {"type": "image", "image": {"url": "https://x/y.png", "detail": "low"}},
                    {"type": "image", "image": {"url": "", "data": "AAEC", "format": "png"}},
                    {"type": "audio", "audio": {"data": "AAEC", "format": "wav"}},
                    {"type": "file", "file": {"name": "x", "file_id": "f"}},
                ],
            },
            [
                Text("Look"),
                Media(
                    "image/png",
                    uri="https://x/y.png",
                    provider_data={"openai_chat": {"detail": "low"}},
                ),
                Media("image/png", data="AAEC"),
                Media("audio/wav", data="AAEC"),
                Data(
                    {"type": "file", "file": {"name": "x", "file_id": "f"}},
                    "application/vnd.openai.chat.part+json",
                ),
            ],
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "now"}}]},
            [ToolCall("c", "now", "")],
        ),
        (
            {"role": "tool", "tool_id": "", "content": "?"},
            [
                Data(
                    {"role": "tool", "tool_id": "", "content": "?"},
                    "application/vnd.trpc-agent-go.message+json",
                )
            ],
        ),
        ({"role": ""}, ""),
    ],
)
async def test_messages_of_every_kind_have_parts(
    service: SessionService,
    source: Redis,
    valkey_url: str,
    said: dict[str, Any],
    content: object,
) -> None:
    """What OpenAI's format does not know stays as it is, and the original is beside it."""
    event = one(said)
    await put_older(source, event)
    await import_trpc_agent_go(service, valkey_url, "a")
    (found,) = await read(service)
    assert found.content == content
    assert found.metadata["trpc_agent_go"] == json.loads(event)


async def test_errors_branches_and_chunks(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """A chunk of a stream is never stored; it is counted and named."""
    at = "2026-01-02T03:04:0"
    error = {"message": "no", "type": "flow_error"}
    await put_older(
        source,
        message("1", f"{at}1Z", "x", error=error, branch="a/b"),
        message("2", f"{at}2Z", "x", is_partial=True),
        message("3", f"{at}3+08:00", "x", choices=[], stateDelta={"n": None, "b": "/w=="}),
    )
    report = await import_trpc_agent_go(service, valkey_url, "a")
    third, first = await read(service)
    assert (first.error and first.error.message, first.branch) == ("no", "a/b")
    assert third.state_delta == {"n": None, "b": b"\xff"}
    assert third.content == ""
    assert report.unmapped == {"chunks of a stream": 1}


async def test_of_events_of_one_id_the_first_counts(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """The older layout keeps both; an id is stored once here."""
    at = "2026-01-02T03:04:0"
    await put_older(source, message("e", f"{at}1Z", "first"), message("e", f"{at}2Z", "second"))
    report = await import_trpc_agent_go(service, valkey_url, "a")
    assert [event.text for event in await read(service)] == ["first"]
    assert report.unmapped == {"events under the id of an earlier one": 1}
    assert "member 2 of key 'event:{a}:u:s'" in str(report.problems[0])


async def test_state_is_text_or_bytes_or_json_if_that_is_wanted(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """The original holds bytes; names that mean another scope here cannot be a session's own."""
    values = {"n": b"8", "b": b"\xff\0", "d": b'{"a":1}', "app:x": b"1"}
    encoded = {name: base64.b64encode(value).decode() for name, value in values.items()}
    await put_older(source, state=json.dumps({**encoded, "none": None}))
    report = await import_trpc_agent_go(service, valkey_url, "a", to_user="text")
    await import_trpc_agent_go(service, valkey_url, "a", to_user="json", json_state=True)
    states = [
        session.state
        for user in ("text", "json")
        if (session := await service.get_session(SessionKey("a", user, "s")))
    ]
    assert states == [
        {"n": "8", "b": b"\xff\0", "d": '{"a":1}', "none": None},
        {"n": 8, "b": b"\xff\0", "d": {"a": 1}, "none": None},
    ]
    assert report.unmapped == {"values of state whose names mean another scope": 1}


async def test_what_is_broken_says_where_and_the_rest_goes_on(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """Events, sessions, and an index without its event."""
    at = "2026-01-02T03:04:0"
    await put_older(source, message("1", f"{at}1Z", "one"), message("3", f"{at}3Z", "three"))
    await source.zadd("event:{a}:u:s", {"{broken": 0})
    await source.hset("sess:{a}:u", "broken", "[]")
    await put_newer(source, message("1", f"{at}1Z", "one"), user="v")
    await source.zadd("hashidx:evtidx:time:a:{v}:s", {"missing": 0})
    await source.set("hashidx:meta:a:{v}:broken", '{"id":"other","userID":"v"}')
    with pytest.raises(SourceError):
        await import_trpc_agent_go(service, valkey_url, "a")
    report = await import_trpc_agent_go(service, valkey_url, "a", keep_going=True)
    assert [event.text for event in await read(service)] == ["one", "three"]
    assert [event.text for event in await read(service, "v")] == ["one"]
    assert report.left_out == 4
    told = "\n".join(map(str, report.problems))
    for place in (
        "member 1 of key 'event:{a}:u:s': it is no JSON",
        "field 'broken' of key 'sess:{a}:u': it is no JSON object",
        "event 'missing' of key 'hashidx:evtdata:a:{v}:s': it is in the index alone",
        "key 'hashidx:meta:a:{v}:broken': it tells of session 'other'",
    ):
        assert place in told


async def test_ids_of_any_kind(service: SessionService, source: Redis, valkey_url: str) -> None:
    """Colons, braces, and what the server's patterns take for more than itself."""
    event = message("e", "2026-01-02T03:04:05Z", "x")
    for user, session in (
        ("u:v", "s:t"),
        ("{u}", "s}:t"),
        ("*", "[a]?"),
        ("ü", "\\"),
        ("x}:y", "z"),
    ):
        await put_newer(source, event, user=user, session=session)
    await source.set("hashidx:meta:xa:{u}:s", "{}")
    await source.set("hashidx:meta:a:b:{u}:s", "{}")
    report = await import_trpc_agent_go(service, valkey_url, "a")
    assert (report.sessions, report.problems) == (5, [])
    for user, session in (("u:v", "s:t"), ("{u}", "s}:t"), ("*", "[a]?"), ("x}:y", "z")):
        assert len(await read(service, user, session)) == 1


async def test_keys_of_a_cluster(service: SessionService, cluster: servers.Cluster) -> None:
    """Both layouts spread over its nodes in ways of their own."""
    event = message("e", "2026-01-02T03:04:05Z", "x")
    first = cluster.nodes[0]
    async with RedisCluster(host=servers.LOOPBACK, port=first.public_port) as client:
        await put_older(client, event)
        for number in range(9):
            await put_newer(client, event, user=f"user{number}")
        for source in (client, cluster.url):
            report = await import_trpc_agent_go(service, source, "a")
            assert (report.sessions + report.found, report.problems) == (10, [])
    assert (report.found, report.found_events) == (10, 10)


async def test_a_key_prefix(service: SessionService, source: Redis, valkey_url: str) -> None:
    """Of the original's option; without it nothing is found."""
    await put_newer(source, message("e", "2026-01-02T03:04:05Z", "x"))
    await put_older(source, message("e", "2026-01-02T03:04:05Z", "x"), session="t")
    await source.hset("appstate:{a}", "x", "1")
    async for key in source.scan_iter():
        await source.rename(key, b"p*:" + key)
    assert (await import_trpc_agent_go(service, source, "a")).sessions == 0
    report = await import_trpc_agent_go(service, source, "a", key_prefix="p*")
    assert (report.apps, report.sessions) == (1, 2)


async def test_a_session_that_has_grown_and_changed_is_a_conflict(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """Its beginning is here, and its state is another; it can be replaced."""
    first = message("1", "2026-01-02T03:04:01Z", "one")
    await put_older(source, first, state='{"n":"MQ=="}')
    await import_trpc_agent_go(service, valkey_url, "a")
    await put_older(source, message("2", "2026-01-02T03:04:02Z", "two"), state='{"n":"Mg=="}')
    with pytest.raises(SessionConflictError):
        await import_trpc_agent_go(service, valkey_url, "a")
    report = await import_trpc_agent_go(service, valkey_url, "a", keep_going=True)
    assert report.problem_count == 1
    assert "'s'" in str(report.problems[0])
    await import_trpc_agent_go(service, valkey_url, "a", existing="replace")
    assert [event.text for event in await read(service)] == ["one", "two"]


async def test_what_an_event_adds_to_state_was_not_there_before(
    service: SessionService, source: Redis, valkey_url: str
) -> None:
    """As far as the source tells: going back to an earlier turn takes it away."""
    delta = {"n": base64.b64encode(b"1").decode()}
    await put_older(
        source,
        message("1", "2026-01-02T03:04:01Z", "one", invocationId="first"),
        message("2", "2026-01-02T03:04:02Z", "two", stateDelta=delta),
        state=json.dumps(delta),
    )
    await import_trpc_agent_go(service, valkey_url, "a")
    assert (await service.rewind(SessionKey("a", "u", "s"), to_seq=1)).state == {}
