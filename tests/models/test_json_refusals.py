"""Models as JSON: what is refused rather than changed, and which model it is that is meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import TypeAdapter, ValidationError

from agentsession.codec import encode_event
from agentsession.errors import StateValueError
from agentsession.events import (
    Content,
    Data,
    Event,
    EventError,
    Media,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from agentsession.sessions import Session, SessionKey, SessionPage, UnreadableSession
from agentsession.state import DELETE

KEY = SessionKey("app", "user", "session")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
EVENT = Event(author="user", content="hi", state_delta={"a": b"\x00", "temp:b": "secret"})
SESSION = Session(
    key=KEY,
    state={"a": b"\x00", "temp:c": "secret"},
    events=[EVENT],
    created_at=MOMENT,
    updated_at=MOMENT,
    revision=2,
    last_seq=1,
)
PARTS = (
    Text("x"),
    Reasoning(),
    Media("a/b", "s3://x"),
    ToolCall("c", "n"),
    ToolResult("c", {"a": 1}),
    Data(1),
)
each_part = pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        (UnreadableSession | Session, SESSION),
        (EventError | Session, SESSION),
        (EventError | Event, EVENT),
        (SessionKey | Event | None, EVENT),
    ],
)
def test_a_union_writes_the_model_that_it_holds(kind: Any, model: Any) -> None:
    """The first member that could write any struct used to write them all."""
    adapter = TypeAdapter(list[kind])
    assert json.loads(adapter.dump_json([model])) == [model.to_dict()]
    assert adapter.dump_python([model]) == [model.to_dict()]
    assert adapter.validate_python([model])[0] is model


def test_fastapi_answers_with_one_of_several() -> None:
    """As an error or as a session, each in its own JSON."""
    app = FastAPI()

    @app.get("/{which}")
    async def get(which: str) -> EventError | Session:
        return SESSION if which == "session" else EventError("boom")

    client = TestClient(app)
    assert client.get("/session").json() == SESSION.to_dict()
    assert client.get("/error").json() == {"message": "boom"}


@each_part
def test_a_part_says_which_it_is(part: Any) -> None:
    """Without its type it could be another one that has the same names."""
    plain = part.to_dict()
    assert type(part).from_dict(plain) == part
    kind = plain.pop("type")
    with pytest.raises(ValueError, match=f"has no 'type', which must be '{kind}'"):
        type(part).from_dict(plain)
    with pytest.raises(ValueError, match="Invalid value"):
        type(part).from_dict(plain | {"type": "other"})
    assert "type" in TypeAdapter(type(part)).json_schema()["required"]


def test_no_part_is_made_of_what_says_nothing() -> None:
    """A result without its type is refused, and not an empty thought; a session is none either."""
    with pytest.raises(ValidationError):
        TypeAdapter(Content).validate_python([{"call_id": "c1", "result": {}}])
    session = TypeAdapter(Reasoning | Session).validate_python(SESSION.to_dict())
    assert isinstance(session, Session)
    assert session.key == KEY
    assert TypeAdapter(Content).validate_python([{"type": "text", "text": "x"}]) == [Text("x")]


# What a log would refuse too, and where it is.
UNFIT: dict[str, tuple[Any, tuple[str | int, ...]]] = {
    "bytes": (b"x", ()),
    "a number that is none": (float("nan"), ()),
    "keys that are numbers": ({1: 2}, ()),
    "a deletion inside": ({"x": [DELETE]}, ("x", 0)),
    "a tuple": ((1, 2), ()),
    "a moment": (MOMENT, ()),
    "a decimal": (Decimal(1), ()),
    "half of a pair": ("\ud800", ()),
}


def with_metadata(value: Any) -> Event:
    return Event(author="user", metadata={"m": value}, partial=True)


def with_delta(value: Any) -> Event:
    return Event(author="user", state_delta={"m": {"n": value}})


def with_arguments(value: Any) -> Event:
    return Event(author="user", content=[Text("x"), ToolCall("c", "n", {"m": value})])


HOLDERS: dict[str, tuple[Callable[[Any], Event], tuple[str | int, ...]]] = {
    "metadata": (with_metadata, ("metadata", "m")),
    "state": (with_delta, ("m", "n")),
    "arguments": (with_arguments, ("content", 1, "arguments", "m")),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_stored_is_not_written_either(holder: str, name: str) -> None:
    """A partial event reaches its reader by its JSON alone, which is not to change it."""
    value, inside = UNFIT[name]
    make, path = HOLDERS[holder]
    with pytest.raises(StateValueError) as refused:
        make(value).to_dict()
    assert refused.value.path == path + inside
    with pytest.raises(StateValueError) as stored:
        encode_event(make(value))
    assert stored.value.reason == refused.value.reason


def test_whatever_holds_such_a_value_is_not_written() -> None:
    """A part by itself, and a session with its state, its events, and its page."""
    with pytest.raises(StateValueError, match=r"result\['x'\]"):
        ToolResult("c", {"x": b""}).to_dict()
    bad = Session(
        key=KEY, state={"a": {"b": b""}}, created_at=MOMENT, updated_at=MOMENT, revision=1
    )
    with pytest.raises(StateValueError, match=r"a\['b'\]"):
        bad.to_dict()
    with pytest.raises(StateValueError):
        SessionPage(sessions=[bad]).to_dict()
    bad.state, bad.events = {}, [with_metadata(b"")]
    with pytest.raises(StateValueError, match=r"events\[0\]\['metadata'\]\['m'\]"):
        bad.to_dict()
    bad.state, bad.events = {5: 1}, []  # type: ignore[dict-item]  # on purpose
    with pytest.raises(StateValueError, match="a name must be a str"):
        bad.to_dict()


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"author": ""}, "author"),
        ({"author": 5}, "author"),
        ({"timestamp": MOMENT.replace(tzinfo=None)}, "timestamp"),
        ({"timestamp": "now"}, "timestamp"),
        ({"timestamp": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))}, "out of range"),
        ({"content": (Text("x"),)}, "content"),
        ({"content": [ToolCall("", "n")]}, "call_id"),
        ({"state_delta": []}, "state_delta"),
    ],
)
def test_a_field_of_the_wrong_type_is_not_written(wrong: dict[str, Any], problem: str) -> None:
    """Nor is it stored."""
    event = Event(**{"author": "user"} | wrong)
    with pytest.raises(ValueError, match=problem):
        event.to_dict()
    with pytest.raises(ValueError, match=problem):
        encode_event(event)


def test_moments_are_told_in_utc() -> None:
    """An offset may have seconds, for which ISO 8601 has no place."""
    moment = MOMENT.astimezone(timezone(timedelta(minutes=19, seconds=32)))
    event = Event(author="user", timestamp=moment)
    assert event.to_dict()["timestamp"] == "2026-01-02T03:04:05.678901Z"
    assert Event.from_dict(event.to_dict()).timestamp == moment
    session = Session(key=KEY, created_at=moment, updated_at=moment, revision=1)
    assert Session.from_dict(session.to_dict()) == session


@pytest.mark.parametrize(
    "wrong",
    [
        {"created_at": "2026-01-02T03:04:05"},
        {"updated_at": "2026-01-02T03:04:05"},
        {"revision": -1},
        {"last_seq": -1},
        {"events": 5},
        {"events": [5]},
    ],
)
def test_a_session_that_no_store_would_give_is_refused(wrong: dict[str, Any]) -> None:
    """Its moments are aware, and its counts count."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Session.from_dict(SESSION.to_dict() | wrong)


def test_the_json_schema_knows_what_counts() -> None:
    """A number that counts is not negative."""
    fields = TypeAdapter(Session).json_schema()["properties"]
    assert fields["revision"]["minimum"] == fields["last_seq"]["minimum"] == 0
    assert fields["created_at"]["format"] == "date-time"


def test_what_is_made_of_a_dict_shares_nothing_with_it() -> None:
    """Neither is changed with the other."""
    plain = Event(
        author="user",
        content=[Data({"a": [1]})],
        metadata={"m": {"n": [1]}},
        state_delta={"s": [1], "j": {"$x": [1]}},
    ).to_dict()
    before = json.dumps(plain)
    event = Event.from_dict(plain)
    event.metadata["m"]["n"].append(2)
    event.state_delta["s"].append(2)
    event.state_delta["j"]["$x"].append(2)
    assert isinstance(event.content[0], Data)
    event.content[0].data["a"].append(2)
    assert json.dumps(plain) == before
    state: dict[str, dict[str, list[int]]] = {"a": {"b": []}}
    session = Session.from_dict(SESSION.to_dict() | {"state": state})
    session.state["a"]["b"].append(1)
    assert state == {"a": {"b": []}}


def test_models_are_taken_as_they_are_inside() -> None:
    """With values that look like the form of others in JSON, and are none."""
    event = Event(author="user", state_delta={"a": b"", "b": {"$json": 1}})
    session = Session.from_dict(SESSION.to_dict() | {"events": [event], "key": KEY})
    assert session.events[0] is event
    assert event.state_delta == {"a": b"", "b": {"$json": 1}}
    page = SessionPage.from_dict({"sessions": [session, session.to_dict()]})
    assert page.sessions[0] is session
    assert page.sessions[1] == session


def test_what_contains_itself_is_refused() -> None:
    """It has no end, and no form in JSON."""
    metadata: dict[str, Any] = {}
    metadata["m"] = metadata
    with pytest.raises(ValueError, match="Event"):
        Event.from_dict({"author": "user", "metadata": metadata})
    with pytest.raises(StateValueError, match="contains itself"):
        Event(author="user", metadata=metadata).to_dict()


def test_media_may_be_empty() -> None:
    """A file of no bytes is one; what is elsewhere is not here."""
    assert Media.from_bytes(b"", "a/b").to_bytes() == b""
    with pytest.raises(ValueError, match="it is at 'x:y'"):
        Media("a/b", "x:y").to_bytes()
