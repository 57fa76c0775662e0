"""Models as JSON: by themselves, and as pydantic and FastAPI take them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from fastapi import Body, FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from agentsession.codec import encode_event, unreadable_event
from agentsession.events import (
    Data,
    Event,
    EventError,
    Media,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from agentsession.sessions import Session, SessionKey, SessionPage, UnreadableSession, UserKey
from agentsession.state import DELETE

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
KEY = SessionKey("shop", "ann", "chat-1")
VALUES = {"a": 1, "user:b": b"\x00\xff", "app:c": {"$bytes": "x"}, "d": {"$json": 1}, "e": None}
EVENT = Event(
    author="agent",
    content=[
        Text("Let me "),
        Reasoning("hm", {"signature": "c2ln"}),
        Text("look."),
        ToolCall("c1", "search", {"to": "LIS"}),
        ToolCall("c2", "now"),
        ToolResult("c1", [1]),
        Media.from_bytes(b"\x89PNG", "image/png"),
        Data({"seat": "12A"}),
    ],
    timestamp=MOMENT,
    state_delta=VALUES | {"gone": DELETE},
    metadata={"model": "m"},
    error=EventError("boom", "E"),
    seq=3,
)
SESSION = Session(
    key=KEY,
    state=VALUES,
    events=[EVENT],
    created_at=MOMENT,
    updated_at=MOMENT,
    revision=4,
    last_seq=3,
    incarnation="i",
)
PAGE = SessionPage(
    sessions=[SESSION],
    next_cursor="next",
    unreadable=[UnreadableSession(key=KEY, reason="of a newer format")],
)
OF_EACH = {
    type(each).__name__: each
    for each in (EVENT, SESSION, PAGE, KEY, KEY.user, *PAGE.unreadable, *EVENT.content, EVENT.error)
}
each_model = pytest.mark.parametrize("model", OF_EACH.values(), ids=OF_EACH)


@each_model
def test_a_model_comes_back_from_its_json(model: Any) -> None:
    """Equal and of the same types, all the way through text."""
    plain = json.loads(json.dumps(model.to_dict(), allow_nan=False))
    assert plain == model.to_dict()
    back = type(model).from_dict(plain)
    assert back == model
    assert repr(back) == repr(model)
    assert type(model).from_dict(plain | {"unknown": 1}) == model


@given(st.dictionaries(st.text(), st.binary() | st.none() | st.dictionaries(st.text(), st.none())))
def test_any_state_comes_back(state: dict[str, Any]) -> None:
    """Whatever a value looks like; what is temporary is nobody else's."""
    kept = {name: value for name, value in state.items() if not name.startswith("temp:")}
    event = Event(author="user", state_delta=state)
    assert Event.from_dict(json.loads(json.dumps(event.to_dict()))).state_delta == kept


def test_what_is_temporary_is_left_out() -> None:
    """It may be any object, which JSON has no form for."""
    session = Session(
        key=KEY,
        state={"temp:a": object(), "b": 1},
        created_at=MOMENT,
        updated_at=MOMENT,
        revision=1,
    )
    assert session.to_dict()["state"] == {"b": 1}
    assert session.state.keys() == {"temp:a", "b"}
    assert "state_delta" not in Event(author="user").to_dict()
    assert (
        Event(author="user", state_delta={"temp:a": object()}).to_dict().get("state_delta") is None
    )


def test_an_event_is_the_json_that_is_stored() -> None:
    """So that a log which is exported is what a store holds, and an event of the future is too."""
    assert json.loads(encode_event(EVENT)) == EVENT.to_dict()
    unreadable = unreadable_event(b"{}", 7, "why")
    assert Event.from_dict(unreadable.to_dict()) == unreadable


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        (Event, {}, "no Event: Object missing required field `author`"),
        (Event, {"author": ""}, r"no Event: .*length >= 1 - at `\$.author`"),
        (Event, {"author": "a", "timestamp": "2026-01-02T03:04:05"}, "timestamp"),
        (Event, {"author": "a", "content": [{"type": "odd"}]}, "odd"),
        (Event, {"author": "a", "v": 2}, "2"),
        (Event, {"author": "a", "state_delta": {"b": {"$bytes": "?"}}}, "value of state"),
        (
            Session,
            {"key": {"app_name": "a"}},
            "no Session: Object missing required field `user_id`",
        ),
        (Session, SESSION.to_dict() | {"events": 5}, "events"),
        (Session, SESSION.to_dict() | {"state": {"b": {"$bytes": 5}}}, "value of state"),
        (SessionKey, {"app_name": "a", "user_id": ""}, "user_id must not be empty"),
        (SessionPage, {}, "no SessionPage"),
    ],
)
def test_what_is_none_is_refused(kind: Any, data: dict[str, Any], said: str) -> None:
    """The error says where it is, and what is wrong."""
    with pytest.raises(ValueError, match=said):
        kind.from_dict(data)


@pytest.mark.parametrize("wrong", [None, [], "text", b"{}", 5], ids=ascii)
def test_a_model_is_made_of_a_dict(wrong: Any) -> None:
    """The error says of what."""
    with pytest.raises(TypeError, match="Event is made of a dict, not "):
        Event.from_dict(wrong)


def test_the_parts_of_an_event_are_at_hand() -> None:
    """Its words, its tool calls and their results."""
    assert EVENT.text == "Let me look."
    assert EVENT.tool_calls == [ToolCall("c1", "search", {"to": "LIS"}), ToolCall("c2", "now")]
    assert EVENT.tool_results == [ToolResult("c1", [1])]
    plain = Event(author="user", content="hello")
    assert (plain.text, plain.tool_calls, plain.tool_results) == ("hello", [], [])
    assert Event(author="user").text == Event(author="user", content=[]).text == ""


def test_media_holds_bytes() -> None:
    """In base64; what is elsewhere says where."""
    assert Media.from_bytes(b"\x00\xff", "a/b", "n") == Media("a/b", data="AP8=", name="n")
    assert Media.from_bytes(b"\x00\xff", "a/b").to_bytes() == b"\x00\xff"
    with pytest.raises(ValueError, match=r"it is at 's3://bucket'"):
        Media("a/b", "s3://bucket").to_bytes()
    with pytest.raises(ValueError, match=r"padding|characters"):
        Media("a/b", data="A").to_bytes()


class Answer(BaseModel):
    session: Session
    events: list[Event] = []


@each_model
def test_pydantic_takes_a_model_as_it_is(model: Any) -> None:
    """As an object and as its JSON, and gives it back as its JSON."""
    adapter = TypeAdapter(type(model))
    assert adapter.validate_python(model) is model
    assert adapter.validate_python(model.to_dict()) == model
    assert adapter.validate_json(adapter.dump_json(model)) == model
    assert adapter.dump_python(model) == model.to_dict()


def test_a_pydantic_model_holds_models() -> None:
    """Nested ones too; what is none is a validation error with its place."""
    answer = Answer(session=SESSION, events=[EVENT])
    assert Answer.model_validate_json(answer.model_dump_json()) == answer
    with pytest.raises(ValidationError, match=r"events\.0\n.*no Event"):
        Answer.model_validate({"session": SESSION, "events": [{"author": ""}]})
    with pytest.raises(ValidationError, match="made of a dict, not int"):
        Answer.model_validate({"session": 5})


def test_the_json_schema_is_real() -> None:
    """Each model stands in it once, under its name, with its fields and what they are."""
    schema = Answer.model_json_schema()
    defined = schema["$defs"]
    parts = ["Text", "Reasoning", "Media", "ToolCall", "ToolResult", "Data"]
    assert defined.keys() == {"Session", "SessionKey", "Event", "EventError", "Rewind", *parts}
    assert schema["properties"]["session"] == {"$ref": "#/$defs/Session"}
    event = defined["Event"]
    assert event["description"].startswith("One entry of a session's log.")
    assert event["required"] == ["author"]
    assert event["properties"]["author"] == {"minLength": 1, "title": "Author", "type": "string"}
    assert event["properties"]["timestamp"]["format"] == "date-time"
    words, listed = event["properties"]["content"]["anyOf"]
    assert words == {"type": "string"}
    assert listed["items"]["anyOf"] == [{"$ref": f"#/$defs/{part}"} for part in parts]
    assert defined["ToolCall"]["properties"]["type"]["const"] == "tool_call"
    assert Answer.model_json_schema(mode="serialization") == schema


def test_fastapi_takes_models_as_they_are() -> None:
    """As answers and as bodies, and its document refers to each by its name."""
    app = FastAPI()

    @app.post("/events")
    async def add(event: Annotated[Event, Body()]) -> Session:
        return Session(
            key=KEY, events=[event], created_at=MOMENT, updated_at=MOMENT, revision=1, last_seq=1
        )

    @app.get("/events")
    async def events() -> list[Event]:
        return [EVENT]

    client = TestClient(app)
    answer = client.post("/events", json={"author": "user", "content": "hello"})
    assert Session.from_dict(answer.json()).events[0].content == "hello"
    assert client.get("/events").json() == [EVENT.to_dict()]
    refused = client.post("/events", json={"author": ""})
    assert refused.status_code == 422
    assert "$.author" in refused.json()["detail"][0]["msg"]
    paths = client.get("/openapi.json").json()["paths"]["/events"]
    body = paths["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Event"}


def test_pydantic_is_not_imported() -> None:
    """Only pydantic itself asks for what it needs."""
    code = "import sys, agentsession.codec; print('pydantic_core' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_a_session_is_shown_in_short() -> None:
    """Whose it is and how much is in it, not all that it holds."""
    assert repr(SESSION) == (
        "Session('chat-1' of user 'ann' in app 'shop': revision 4, 1 of 3 events, "
        "state ['a', 'user:b', 'app:c', 'd', 'e'])"
    )
    long = Session(
        key=SessionKey("a" * 9999, "u", "s"),
        state={f"name-{n}": "x" * 9999 for n in range(999)},
        created_at=MOMENT,
        updated_at=MOMENT,
        revision=1,
    )
    assert len(repr(long)) < 400
    assert UserKey("a", "b").to_dict() == {"app_name": "a", "user_id": "b"}
