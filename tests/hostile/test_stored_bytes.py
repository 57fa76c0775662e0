"""Damaged data: a read returns what is right or says what is wrong, and never anything else."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentsession import Event, RedisSessionService, Session, SessionKey, SessionPage, UserKey
from agentsession.backend import Entry
from agentsession.codec import decode_event, decode_events, unreadable_event
from agentsession.errors import CodecError, EventNotFoundError, SessionNotFoundError
from agentsession.events import UNREADABLE, Data, Text, ToolCall
from agentsession.state import DELETE, Changes, decode_scope
from agentsession.testing import MemorySubject
from harness.raw import as_bytes, as_fields, as_members

KEY = SessionKey("app", "user", "session")
TESTS = Path(__file__).parent.parent
GOLDEN = (TESTS / "models" / "golden" / "event-v1.jsonl").read_bytes().splitlines()
QUICK = settings(derandomize=True, max_examples=1000, deadline=None)

STATE = {"n": 1, "b": b"\xff", "d": {"k": [1.5, None]}, "user:u": "ü", "app:a": [True]}
EVENTS = [
    Event(author="user", content="hi", id="e1", state_delta={"x": b"\0", "y": DELETE}),
    Event(author="agent", content=[Text("t"), ToolCall("c", "f", {"a": 1})], id="e2"),
    Event(author="tool", content=[Data([1])], id="e3", metadata={"m": {"deep": ["ü"]}}),
]

READS: dict[str, Callable[[RedisSessionService], Awaitable[object]]] = {
    "session": lambda service: service.get_session(KEY),
    "last": lambda service: service.get_session(KEY, num_recent_events=1),
    "after": lambda service: service.get_session(KEY, after_seq=1),
    "or create": lambda service: service.get_or_create_session(KEY),
    "list": lambda service: service.list_sessions(KEY.user),
    "page": lambda service: service.list_sessions(
        KEY.user, cursor="WzkwMDcxOTkyNTQ3NDA5OTEsInMiXQ=="
    ),
    "events": lambda service: service.get_events(KEY),
    "newest": lambda service: service.get_events(KEY, newest_first=True, limit=2),
    "filtered": lambda service: service.get_events(KEY, author="agent"),
    "by id": lambda service: service.get_events(KEY, around="e2", limit=1),
    "by seq": lambda service: service.get_events(KEY, around=2, limit=3),
    "app": lambda service: service.get_app_state("app"),
    "user": lambda service: service.get_user_state(UserKey("app", "user")),
}
# What else a read may answer if the damage has taken its very subject away.
ABSENT = (EventNotFoundError, SessionNotFoundError)

OTHER_BYTES = st.sampled_from(
    [b"", b"\0", b"{", b"null", b"1e999", b"-1", b"1.5", b"nan", b"inf", b"0x10", b"1_0", b"\xff",
     b"9" * 400, b'"\\ud800"', b"[" * 3000, b'{"v":2,"id":"e","timestamp":"x"}', b" 1", b"+1",
     b'{"v":1,"id":"e1","timestamp":"2026-01-01T00:00:00Z"}', b"9007199254740993",
     b'{"v":1,"id":"","timestamp":"0001-01-01T00:00:00+23:59","author":"a"}']
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Cut bytes short, flip one, put some in, or put others in their place."""
    place = draw(st.integers(0, max(0, len(data) - 1)))
    match draw(st.sampled_from(["cut", "flip", "insert", "other", "any"])):
        case "cut":
            return data[:place]
        case "flip" if data:
            bit = 1 << draw(st.integers(0, 7))
            return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
        case "insert":
            return data[:place] + draw(st.binary(min_size=1, max_size=4)) + data[place:]
        case "other":
            return draw(OTHER_BYTES)
    return draw(st.binary(max_size=40))


class Stage:
    """A server with a session on it, which can be damaged and mended."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.client = redis.Redis.from_url(url)
        self.client.flushall()
        self.service = RedisSessionService.from_url(url)
        self.run(self._store())
        self.kept = {name: as_bytes(self.client.dump(name)) for name in self.client.keys("*")}
        self.right = {name: self.run(read(self.service)) for name, read in READS.items()}

    def run(self, awaitable: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            async with asyncio.timeout(5):
                return await awaitable

        return self.runner.run(wait())

    async def _store(self) -> None:
        await self.service.create_session(KEY, STATE)
        await self.service.append_events(KEY, EVENTS)

    def mend(self) -> None:
        self.client.flushall()
        for name, data in self.kept.items():
            self.client.restore(name, 0, data)

    def answers(self) -> dict[str, object]:
        """Read in every way; what is neither an answer nor an error of ours fails here."""
        found: dict[str, object] = {}
        for name, read in READS.items():
            try:
                found[name] = self.run(read(self.service))
            except (CodecError, *ABSENT) as exc:
                found[name] = exc
        assert all(len(str(each)) < 2000 for each in found.values() if isinstance(each, Exception))
        return found

    def close(self) -> None:
        self.run(self.service.aclose())
        self.client.flushall()
        self.client.close()
        self.runner.close()


@pytest.fixture(scope="module")
def stage(valkey_url: str) -> Iterator[Stage]:
    prepared = Stage(valkey_url)
    yield prepared
    prepared.close()


HASHES = ("session:{app:user}:session", "userdata:{app:user}", "appdata:{app}")
SETS = ("events:{app:user}:session", "eventids:{app:user}:session", "sessions:{app:user}")


@settings(
    derandomize=True,
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_damage_stays_where_it_is(stage: Stage, data: st.DataObject) -> None:
    """Whatever one damaged field, member or score does, all that is returned besides is right."""
    stage.mend()
    name = data.draw(st.sampled_from(HASHES + SETS))
    if name in HASHES:
        _damage_hash(stage.client, name, data)
    else:
        _damage_set(stage.client, name, data)
    for answer in stage.answers().values():
        _check_shape(answer)


def _damage_hash(client: redis.Redis, name: str, data: st.DataObject) -> None:
    fields = as_fields(client.hgetall(name))
    field = data.draw(st.sampled_from(sorted(fields)))
    if data.draw(st.booleans()):
        client.hset(name, field, data.draw(damaged(fields[field])))
        return
    client.hdel(name, field)
    if data.draw(st.booleans()):
        client.hset(name, data.draw(damaged(field)), fields[field])


def _damage_set(client: redis.Redis, name: str, data: st.DataObject) -> None:
    members = dict(as_members(client.zrange(name, 0, -1, withscores=True)))
    member = data.draw(st.sampled_from(sorted(members)))
    scores = [0, -1, 0.5, 1e300, float("inf"), float("-inf"), 2**53, members[member] + 1]
    if data.draw(st.booleans()):
        client.zadd(name, {member: data.draw(st.sampled_from(scores))})
        return
    client.zrem(name, member)
    if data.draw(st.booleans()):
        client.zadd(name, {data.draw(damaged(member)): members[member]})


def _check_shape(answer: object) -> None:
    """Check what holds of any answer: types, and positions that are dense."""
    match answer:
        case Session():
            _check_events(answer.events)
            assert answer.key == KEY
            assert answer.last_seq >= len(answer.events)
            assert answer.created_at.tzinfo is not None
        case [Event(), *_]:
            events = [event for event in answer if isinstance(event, Event)]
            assert len(events) == len(answer)
            _check_events(sorted(events, key=lambda event: event.seq))


def _check_events(events: list[Event]) -> None:
    for event in events:
        assert type(event) is Event
        assert event.id
        assert event.author
        assert event.timestamp.tzinfo is not None
        assert event.seq >= 1


@settings(
    derandomize=True,
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_a_damaged_event_is_replaced_or_an_event(stage: Stage, data: st.DataObject) -> None:
    """Its neighbours and all state are as they were; who asks for it alone gets it, or an error."""
    stage.mend()
    name = "events:{app:user}:session"
    members = as_members(stage.client.zrange(name, 0, -1, withscores=True))
    number = data.draw(st.integers(0, 2))
    member, score = members[number]
    broken = data.draw(damaged(member))
    if broken in dict(members):
        return
    stage.client.zrem(name, member)
    stage.client.zadd(name, {broken: score})
    found = stage.answers()
    for how in ("list", "page", "app", "user"):
        assert found[how] == stage.right[how]
    session, right = found["session"], stage.right["session"]
    assert isinstance(session, Session)
    assert session.state == right.state
    assert [event.seq for event in session.events] == [1, 2, 3]
    read = session.events[number]
    if number == 1 and read.error is not None and read.error.type == UNREADABLE:
        for how in ("by id", "by seq"):
            assert isinstance(found[how], CodecError)
            assert "the stored event 2 is unreadable" in str(found[how])
    session.events[number] = right.events[number]
    assert session.events == right.events
    if number != 2:
        assert found["last"] == stage.right["last"]
    if number == 0:
        assert found["after"] == stage.right["after"]
        assert found["newest"] == stage.right["newest"]


@pytest.mark.parametrize("name", [*HASHES, *SETS])
@pytest.mark.parametrize("kind", ["string", "list", "set", "zset", "hash", "gone"])
def test_keys_of_other_types(stage: Stage, name: str, kind: str) -> None:
    """Somebody else's key in our place is an error that says so; an absent one leaves the rest."""
    stage.mend()
    own = as_bytes(stage.client.type(name)).decode()
    stage.client.delete(name)
    match kind:
        case "string":
            stage.client.set(name, "x")
        case "list":
            stage.client.rpush(name, "x")
        case "set":
            stage.client.sadd(name, "x")
        case "zset":
            stage.client.zadd(name, {"x": 1})
        case "hash":
            stage.client.hset(name, "x", "1")
    found = stage.answers()
    for answer in found.values():
        _check_shape(answer)
    if kind not in (own, "gone"):
        assert [answer for answer in found.values() if isinstance(answer, CodecError)]


@pytest.mark.parametrize(
    "number",
    [b"nan", b"inf", b"0x10", b"-1", b"1.5", b"1e3", b"9" * 400, b"", b" 3", b"2", b"x",
     b"9007199254740992", None],
    ids=lambda number: f"{number!r:.20}",
)  # fmt: skip
def test_a_count_that_is_none(stage: Stage, number: bytes | None) -> None:
    """Positions follow from it, so that no read of the log goes without it."""
    stage.mend()
    name = "session:{app:user}:session"
    if number is None:
        stage.client.hdel(name, "count")
    else:
        stage.client.hset(name, "count", number)
    found = stage.answers()
    for how in ("session", "last", "after", "or create", "events", "newest", "by id", "by seq"):
        assert isinstance(found[how], CodecError), how
        assert "damaged" in str(found[how])


@pytest.mark.parametrize("field", ["created", "updated", "revision"])
@pytest.mark.parametrize("number", [b"-1", b"1.5", b"1_0", b"9" * 30, b"9" * 5000, "٣".encode()],
                         ids=lambda number: f"{number[:9]!r}-{len(number)}")  # fmt: skip
def test_numbers_that_are_none(stage: Stage, field: str, number: bytes) -> None:
    """What Python would read as a number, or as a moment that no calendar has, is not ours."""
    stage.mend()
    stage.client.hset("session:{app:user}:session", field, number)
    found = stage.answers()
    for how in ("session", "last", "or create"):
        assert isinstance(found[how], CodecError), how
        assert field in str(found[how])
    page = found["list"]
    assert isinstance(page, SessionPage)
    assert page.sessions == []
    assert [each.key for each in page.unreadable] == [KEY]
    assert field in page.unreadable[0].reason


@pytest.mark.parametrize("score", [-1, 0.5, 1e300, float("inf"), float("-inf"), 2**53])
def test_activity_that_is_none(stage: Stage, score: float) -> None:
    """A list of sessions says so, and the session itself is still there."""
    stage.mend()
    stage.client.zadd("sessions:{app:user}", {"session": score})
    found = stage.answers()
    assert isinstance(found["list"], CodecError)
    assert "an activity is" in str(found["list"])
    assert found["session"] == stage.right["session"]


@pytest.mark.parametrize("position", [1, 3, 2.5, 4, 1e300, float("inf"), -1])
def test_an_id_that_leads_elsewhere(stage: Stage, position: float) -> None:
    """Asked for one event by its id, a read never answers with another."""
    stage.mend()
    stage.client.zadd("eventids:{app:user}:session", {"e2": position})
    assert isinstance(stage.answers()["by id"], CodecError | EventNotFoundError)


def test_a_damaged_index_hinders_no_creation(stage: Stage) -> None:
    """What a creation prunes on its way is housekeeping; its failure is not the creation's."""
    stage.mend()

    async def create() -> None:
        async with RedisSessionService.from_url(
            f"unix://{stage.client.connection_pool.connection_kwargs['path']}", session_ttl=60
        ) as service:
            for number in range(64):
                await service.create_session(SessionKey("app", "user", str(number)))

    stage.client.zadd("sessions:{app:user}", {b"\xff": 1})
    stage.run(create())
    stage.mend()


@QUICK
@given(st.sampled_from(GOLDEN).flatmap(damaged) | st.binary(max_size=200), st.integers(0, 9))
def test_bytes_are_an_event_or_an_error(data: bytes, seq: int) -> None:
    """A ValueError at anything that is none, alone or in a run, and no other."""
    try:
        event = decode_event(data, seq)
    except ValueError:
        with pytest.raises(ValueError, match=r"\w"):
            decode_events([data, GOLDEN[0]], [1, 2])
        placeholder = unreadable_event(data, 7, "why")
        _check_events([placeholder])
        assert (placeholder.seq, placeholder.content) == (7, "")
    else:
        _check_events([msgspec.structs.replace(event, seq=1)])
        assert [each.seq for each in decode_events([data, GOLDEN[0]], [1, 4])] == [1, 4]


def nested(depth: int) -> bytes:
    inside = b"[" * depth + b"]" * depth
    return GOLDEN[0].removesuffix(b"}") + b',"metadata":{"k":' + inside + b"}}"


def readable(depth: int) -> bool:
    try:
        decode_event(nested(depth))
    except ValueError:
        return False
    return True


async def test_events_nested_to_the_edge() -> None:
    """One that can just be read alone, and not in a run, a level deeper, is no error."""
    edge = bisect_left(range(1, 1_000_000), True, key=lambda depth: not readable(depth))
    async with MemorySubject() as subject:
        service = subject.service()
        await service.create_session(KEY)
        for depth in range(edge - 40, edge + 5):
            await service.backend.append(KEY, [Entry(str(depth), 1, nested(depth))])
            assert len(await service.get_events(KEY, newest_first=True, limit=1)) == 1


@QUICK
@given(st.dictionaries(st.text(max_size=3), OTHER_BYTES | st.binary(max_size=20), max_size=3))
def test_bytes_are_values_or_an_error(scope: dict[str, bytes]) -> None:
    """A CodecError at anything that is no value, which names it."""
    with suppress(CodecError):
        assert decode_scope(scope, KEY).keys() == scope.keys()


@settings(derandomize=True, max_examples=200, deadline=None)
@given(OTHER_BYTES | st.binary(max_size=60), OTHER_BYTES | st.binary(max_size=60))
def test_memory_that_is_damaged(payload: bytes, value: bytes) -> None:
    """The memory backend keeps bytes too; a service over it finds the same errors."""

    async def store_and_read() -> None:
        async with MemorySubject() as subject:
            service = subject.service()
            await service.create_session(KEY)
            entry = Entry("e", 1, payload, Changes(session={"n": value}))
            await service.backend.append(KEY, [entry])
            _check_shape(await service.get_events(KEY))
            with suppress(CodecError):
                _check_shape(await service.get_session(KEY))

    asyncio.run(store_and_read())
