"""Google ADK on the store: its runner, what it expects of a service, what bites elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("google.adk")

import anyio
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events import Event, EventActions
from google.adk.events.event import NodeInfo
from google.adk.events.event_actions import EventCompaction
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService, InMemorySessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai.types import (
    Blob,
    Content,
    FileData,
    FunctionCall,
    FunctionResponse,
    GenerateContentResponseUsageMetadata,
    Part,
)

from adapters.frameworks.gemini_events import said_by
from adapters.processes import program
from adapters.programs.adk_agent import agent_of, weather
from agentsession import (
    DELETE,
    SessionKey,
    SessionService,
    Text,
    ToolCall,
    ToolResult,
    UserKey,
    open_service,
)
from agentsession import Event as OurEvent
from agentsession.adapters import google_adk
from agentsession.adapters._sessions import logs
from agentsession.blocking import open_service as open_blocking
from agentsession.errors import EventTooLargeError, StateValueError
from agentsession.events import Data, EventError, Media, Reasoning
from agentsession.messages import openai_chat

KEY = SessionKey("app", "user", "chat")
WHERE: dict[str, Any] = {"app_name": "app", "user_id": "user", "session_id": "chat"}


@pytest.fixture
def adk(service: SessionService) -> google_adk.SessionService:
    return google_adk.SessionService(service)


def words(text: str, author: str = "user", **fields: Any) -> Event:
    role = "user" if author == "user" else "model"
    return Event(author=author, content=Content(role=role, parts=[Part(text=text)]), **fields)


def change(**delta: Any) -> Event:
    return Event(author="helper", actions=EventActions(state_delta=delta))


def texts(session: Session | None) -> list[str]:
    assert session is not None
    return [
        part.text or ""
        for event in session.events
        for part in (event.content.parts if event.content else None) or ()
    ]


async def loaded(adk: BaseSessionService, **config: Any) -> Session:
    found = await adk.get_session(**WHERE, config=GetSessionConfig(**config) if config else None)
    assert found is not None
    return found


async def run(runner: Runner, text: str, session_id: str = "chat") -> str:
    said = ""
    async for event in runner.run_async(
        user_id="user",
        session_id=session_id,
        new_message=Content(role="user", parts=[Part(text=text)]),
    ):
        if event.is_final_response() and event.content and event.content.parts:
            said = event.content.parts[0].text or ""
    return said


def runner_of(adk: BaseSessionService, tool: Callable[..., Any] = weather) -> Runner:
    return Runner(
        app_name="app", agent=agent_of(tool), session_service=adk, auto_create_session=True
    )


# -- the runner


async def test_a_conversation_with_tools(service: SessionService) -> None:
    """Each turn goes on where the last one ended, for the framework and for every other reader."""
    for turn in range(3):
        # New objects each time, as a process that was started anew has them.
        runner = runner_of(google_adk.SessionService(service))
        assert await run(runner, f"turn {turn}") == f"turn {turn}: {4 * turn + 3}"
    events = await service.get_events(KEY)
    assert [event.author for event in events] == ["user", "helper", "helper", "helper"] * 3
    assert [call.arguments for event in events for call in event.tool_calls] == [
        {"city": "Oslo", "day": None}
    ] * 3
    assert [each.result for event in events for each in event.tool_results] == [
        "It rains in Oslo."
    ] * 3
    history = await service.get_history(KEY, max_turns=1)
    assert [event.text for event in history] == ["turn 2", "", "", "turn 2: 11"]


def test_two_processes_write_to_one_session(valkey_url: str, store_prefix: str) -> None:
    """Nothing is lost, nothing is there twice, and nobody dies of a stale session."""
    where = (valkey_url, store_prefix, "chat")
    with program("google_adk_turns", *where) as one, program("google_adk_turns", *where) as two:
        one.say("first")
        assert one.answer() == {"at": "tool"}
        one.say()
        assert one.answer() == {"said": "first: 3"}
        for turn in range(5):
            one.say(f"one {turn}")
            two.say(f"two {turn}")
            for each in (one, two):
                assert each.answer() == {"at": "tool"}
                each.say()
            assert one.answer()["said"].startswith(f"one {turn}: ")
            assert two.answer()["said"].startswith(f"two {turn}: ")
    with open_blocking(valkey_url, key_prefix=store_prefix) as service:
        events = service.get_events(KEY)
    asked = [event.text for event in events if event.author == "user"]
    turns = sorted(f"{name} {turn}" for name in ("one", "two") for turn in range(5))
    assert sorted(asked) == ["first", *turns]
    assert len(events) == 44
    results = [each.call_id for event in events for each in event.tool_results]
    assert len(results) == len(set(results)) == 11


def test_run_has_a_loop_for_each_turn(store_url: str, store_prefix: str) -> None:
    """In a thread of its own; one session service goes through all of them."""
    with open_blocking(store_url, key_prefix=store_prefix) as service:
        runner = runner_of(google_adk.SessionService(service))
        for turn in range(3):
            message = Content(role="user", parts=[Part(text=f"turn {turn}")])
            events = list(runner.run(user_id="user", session_id="chat", new_message=message))
            assert texts_of(events)[-1] == f"turn {turn}: {4 * turn + 3}"


def texts_of(events: list[Event]) -> list[str]:
    return [
        part.text or "" for event in events if event.content for part in event.content.parts or ()
    ]


def test_threads_share_a_session_service(store_url: str, store_prefix: str) -> None:
    """Each with a loop of its own."""
    with open_blocking(store_url, key_prefix=store_prefix) as service:
        adk = google_adk.SessionService(service)
        asyncio.run(adk.create_session(**WHERE))

        async def write(name: str) -> None:
            session = await loaded(adk)
            for number in range(10):
                await adk.append_event(session, words(f"{name}{number}"))

        def in_a_loop(name: str) -> None:
            asyncio.run(write(name))

        threads = [threading.Thread(target=in_a_loop, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = texts(asyncio.run(loaded(adk)))
        assert sorted(found) == sorted(f"{name}{number}" for name in "abcd" for number in range(10))
        assert [each for each in found if each[0] == "a"] == [f"a{n}" for n in range(10)]


# -- sessions


async def test_a_session_that_does_not_exist(adk: BaseSessionService) -> None:
    """It is none, and deleting it is no error; so is one without an id."""
    assert await adk.get_session(**WHERE) is None
    assert await adk.get_session(app_name="app", user_id="user", session_id=" ") is None
    await adk.delete_session(**WHERE)
    await adk.delete_session(app_name="app", user_id="user", session_id="")
    assert (await adk.list_sessions(app_name="app", user_id="user")).sessions == []
    assert (await adk.list_sessions(app_name="app")).sessions == []


async def test_a_session_is_made_read_and_deleted(adk: BaseSessionService) -> None:
    """What is made is what is read."""
    made = await adk.create_session(**WHERE, state={"key": "value", "none": None})
    assert (made.app_name, made.user_id, made.id) == ("app", "user", "chat")
    assert made.state == {"key": "value", "none": None}
    assert made.events == []
    assert await adk.get_session(**WHERE) == made
    await adk.delete_session(**WHERE)
    assert await adk.get_session(**WHERE) is None


async def test_ids_are_stripped_or_made(adk: BaseSessionService) -> None:
    """In every call."""
    made = await adk.create_session(app_name="app", user_id="user", session_id=" chat ")
    assert made.id == "chat"
    padded = {**WHERE, "session_id": "chat\n"}
    assert await adk.get_session(**padded) == made
    await adk.delete_session(**padded)
    assert await adk.get_session(**WHERE) is None
    blank = await adk.create_session(app_name="app", user_id="user", session_id="  ")
    none = await adk.create_session(app_name="app", user_id="user")
    assert len({blank.id, none.id, ""}) == 3


async def test_an_id_in_use_is_refused(adk: BaseSessionService) -> None:
    """And what is stored stays as it is, state of the user included."""
    await adk.create_session(**WHERE, state={"user:a": 1})
    with pytest.raises(AlreadyExistsError, match="chat already exists"):
        await adk.create_session(**WHERE, state={"user:a": 2})
    assert (await loaded(adk)).state == {"user:a": 1}


async def test_lists_are_oldest_first_and_without_events(adk: BaseSessionService) -> None:
    """By the last update, of one user and of all users of an application."""
    for user in ("ada", "bob"):
        for name in ("one", "two"):
            await adk.create_session(
                app_name="app", user_id=user, session_id=name, state={"name": name, "user:u": user}
            )
    await adk.create_session(app_name="other", user_id="ada", session_id="three")
    first = await adk.get_session(app_name="app", user_id="ada", session_id="one")
    assert first is not None
    await adk.append_event(first, words("hello"))
    ours = (await adk.list_sessions(app_name="app", user_id="ada")).sessions
    assert [(each.id, each.events) for each in ours] == [("two", []), ("one", [])]
    assert [each.state for each in ours] == [
        {"name": "two", "user:u": "ada"},
        {"name": "one", "user:u": "ada"},
    ]
    everybodys = (await adk.list_sessions(app_name="app")).sessions
    assert [(each.user_id, each.id) for each in everybodys] == [
        ("ada", "two"),
        ("bob", "one"),
        ("bob", "two"),
        ("ada", "one"),
    ]


async def test_lists_are_whole(adk: BaseSessionService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a page."""
    monkeypatch.setattr(logs, "_PAGE", 3)
    async with asyncio.TaskGroup() as tasks:
        for user in ("ada", "bob"):
            for number in range(7):
                tasks.create_task(
                    adk.create_session(app_name="app", user_id=user, session_id=f"s{number}")
                )
    assert len((await adk.list_sessions(app_name="app")).sessions) == 14
    assert len((await adk.list_sessions(app_name="app", user_id="bob")).sessions) == 7


async def test_ids_reach_nobody_elses_sessions(adk: BaseSessionService) -> None:
    """Colons and wildcards are characters like others."""
    for user, name in (("a", "b:c"), ("a:b", "c"), ("*", "c"), ("a", "*")):
        made = await adk.create_session(app_name="app", user_id=user, session_id=name)
        await adk.append_event(made, words(f"{user} {name}"))
    for user, name in (("a", "b:c"), ("a:b", "c"), ("*", "c"), ("a", "*")):
        found = await adk.get_session(app_name="app", user_id=user, session_id=name)
        assert texts(found) == [f"{user} {name}"]
    assert len((await adk.list_sessions(app_name="app", user_id="*")).sessions) == 1
    await adk.delete_session(app_name="app", user_id="a", session_id="*")
    assert len((await adk.list_sessions(app_name="app")).sessions) == 3


# -- state


async def test_state_has_three_scopes(adk: BaseSessionService) -> None:
    """What belongs to the user, and to the application, shows in each of their sessions."""
    first = await adk.create_session(**WHERE, state={"app:a": 1, "user:u": 1, "s": 1})
    await adk.append_event(first, change(**{"app:a": 2, "user:u": None, "s": {"deep": [None]}}))
    assert first.state == {"app:a": 2, "user:u": None, "s": {"deep": [None]}}
    assert (await loaded(adk)).state == first.state
    second = await adk.create_session(app_name="app", user_id="user", session_id="second")
    assert second.state == {"app:a": 2, "user:u": None}
    third = await adk.create_session(app_name="app", user_id="bob", session_id="third")
    assert third.state == {"app:a": 2}
    assert await adk.get_user_state(app_name="app", user_id="user") == {"u": None}
    assert await adk.get_user_state(app_name="app", user_id="nobody") == {}


async def test_temporary_state_lives_in_the_session_at_hand(adk: BaseSessionService) -> None:
    """Agents of the same run see it; neither state nor events keep it."""
    session = await adk.create_session(**WHERE, state={"temp:x": 0, "k": 1})
    assert session.state == {"k": 1}
    event = change(**{"temp:x": object(), "k": 2})
    stored = await adk.append_event(session, event)
    assert session.state["k"] == 2
    assert "temp:x" in session.state
    assert stored.actions.state_delta == {"k": 2}
    assert session.events[0].actions.state_delta == {"k": 2}
    found = await loaded(adk)
    assert found.state == {"k": 2}
    assert found.events[0].actions.state_delta == {"k": 2}


async def test_state_that_json_cannot_hold_is_coerced(
    adk: BaseSessionService, caplog: pytest.LogCaptureFixture
) -> None:
    """As the framework's own services do it: what has a form gets it, the rest its repr, told."""
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    await adk.create_session(**WHERE, state={"at": moment, "f": len, "kept": (1, 2)})
    session = await loaded(adk)
    assert session.state == {
        "at": "2026-01-02T00:00:00Z",
        "f": "<built-in function len>",
        "kept": [1, 2],
    }
    assert "JSON cannot hold a builtin_function_or_method" in caplog.text
    caplog.clear()
    await adk.append_event(session, change(at=moment, f=len, call=Part(text="x")))
    assert (await loaded(adk)).state == {
        "at": "2026-01-02T00:00:00Z",
        "f": "<built-in function len>",
        "kept": [1, 2],
        "call": Part(text="x").model_dump(mode="json", by_alias=True),
    }
    assert "JSON cannot hold" in caplog.text


async def test_state_that_cannot_be_stored_changes_nothing(adk: BaseSessionService) -> None:
    """Neither the store nor the session at hand."""
    session = await adk.create_session(**WHERE)
    with pytest.raises(StateValueError, match="nan"):
        await adk.append_event(session, change(**{"x": float("nan"), "temp:y": 1}))
    assert (session.events, session.state) == ([], {})
    assert await loaded(adk) == session


# -- events

CALL = FunctionCall(id="c", name="f", args={"a": None, "b": [1.5, {"c": "d"}]})
EVENTS: tuple[Event, ...] = (
    words("Hello", invocation_id="i", branch="a.b", timestamp=1_700_000_000.123456),
    Event(
        author="helper",
        content=Content(role="model", parts=[Part(function_call=CALL)]),
        long_running_tool_ids={"c", "a", "b"},
    ),
    Event(
        author="helper",
        content=Content(
            role="user",
            parts=[
                Part(function_response=FunctionResponse(id="c", name="f", response={"a": None}))
            ],
        ),
        actions=EventActions(
            skip_summarization=True,
            state_delta={"none": None, "deep": {"none": None}},
            artifact_delta={"file": 3},
            transfer_to_agent="other",
            escalate=False,
            requested_tool_confirmations={"c": ToolConfirmation(hint="sure?", payload={"a": 1})},
            agent_state={"step": None},
            end_of_agent=True,
            route=["a", 1],
        ),
    ),
    Event(
        author="helper",
        content=Content(
            role="model",
            parts=[
                Part(text="so", thought=True, thought_signature=b"\xfb\xff\x00"),
                Part(inline_data=Blob(data=b"\x00\xfb\xff", mime_type="image/png")),
                Part(file_data=FileData(file_uri="gs://a", mime_type="text/plain")),
            ],
        ),
        usage_metadata=GenerateContentResponseUsageMetadata(prompt_token_count=5),
        custom_metadata={"none": None, "deep": [{"a": None}]},
        turn_complete=True,
        partial=False,
        interrupted=False,
        model_version="m",
        error_code="BAD",
        error_message="It went wrong.",
    ),
    Event(
        author="helper",
        output={"answer": None},
        isolation_scope="s",
        node_info=NodeInfo(path="a/b"),
    ),
    Event(author="", content=Content(parts=[Part(text="nobody")])),
    Event(author="helper", content=Content(role="model", parts=[])),
    Event(author="user", actions=EventActions(rewind_before_invocation_id="gone")),
)


@pytest.mark.parametrize("event", EVENTS, ids=range(len(EVENTS)))
async def test_events_come_back_equal(adk: BaseSessionService, event: Event) -> None:
    """With all that is in them; a None is a value."""
    session = await adk.create_session(**WHERE)
    event = event.model_copy(deep=True)
    assert await adk.append_event(session, event) is event
    assert session.events == [event]
    assert (await loaded(adk)).events == [event]


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | names
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(names, values, max_size=2)
any_part = st.one_of(
    st.builds(
        Part,
        text=names,
        thought=st.none() | st.booleans(),
        thought_signature=st.none() | st.binary(max_size=4),
    ),
    st.builds(
        lambda call: Part(function_call=call),
        st.builds(FunctionCall, id=st.none() | names, name=names, args=st.none() | objects),
    ),
    st.builds(
        lambda answer: Part(function_response=answer),
        st.builds(FunctionResponse, id=st.none() | names, name=names, response=objects),
    ),
    st.builds(
        lambda blob: Part(inline_data=blob),
        st.builds(Blob, data=st.binary(max_size=4), mime_type=st.just("a/b")),
    ),
)
any_event = st.builds(
    Event,
    author=st.sampled_from(["user", "helper", ""]),
    content=st.none()
    | st.builds(
        Content,
        role=st.sampled_from([None, "user", "model"]),
        parts=st.none() | st.lists(any_part, max_size=3),
    ),
    actions=st.builds(
        EventActions,
        state_delta=st.dictionaries(names.filter(lambda name: ":" not in name), values, max_size=2),
        agent_state=st.none() | objects,
    ),
    custom_metadata=st.none() | objects,
    output=values,
    timestamp=st.floats(1, 4e9),
)


@given(st.lists(any_event, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_events_come_back_equal(events: list[Event]) -> None:
    """Whatever they hold that JSON can hold."""

    async def check() -> None:
        async with open_service("memory://") as service:
            adk = google_adk.SessionService(service)
            session = await adk.create_session(**WHERE)
            for event in events:
                await adk.append_event(session, event)
            found = await loaded(adk)
            assert found.events == session.events == events
            assert found.state == session.state

    asyncio.run(check())


async def test_chunks_of_a_stream_are_not_stored(adk: BaseSessionService) -> None:
    """Nor do they show in the session at hand."""
    session = await adk.create_session(**WHERE)
    chunk = words("Hel", "helper", partial=True)
    assert await adk.append_event(session, chunk) is chunk
    assert session.events == []
    assert (await loaded(adk)).events == []


async def test_a_repeat_is_stored_once(adk: BaseSessionService) -> None:
    """From the same object, from another one, and from another process."""
    session = await adk.create_session(**WHERE)
    event = change(n=1)
    await adk.append_event(session, event)
    await adk.append_event(session, event)
    elsewhere = await loaded(adk)
    await adk.append_event(session, change(n=2))
    await adk.append_event(elsewhere, event.model_copy(deep=True))
    assert len(session.events) == 2
    assert len(elsewhere.events) == 1
    found = await loaded(adk)
    assert (len(found.events), found.state) == (2, {"n": 2})


async def test_what_is_appended_at_once_is_held_once(adk: BaseSessionService) -> None:
    """Whoever of those that append the same event is answered first."""
    session = await adk.create_session(**WHERE)
    one, two = change(n=1), change(n=2)
    async with anyio.create_task_group() as tasks:
        for event in (one, two, one, two, one):
            tasks.start_soon(adk.append_event, session, event)
    for event in (one, two):
        await adk.append_event(session, event)
    assert sorted(event.id for event in session.events) == sorted([one.id, two.id])
    assert len((await loaded(adk)).events) == 2


async def test_an_append_takes_no_longer_for_what_is_at_hand(adk: BaseSessionService) -> None:
    """Of the events at hand none is looked at, unless the event was stored before."""

    class Unread(list[Event]):
        def __iter__(self) -> Iterator[Event]:
            raise AssertionError

    session = await adk.create_session(**WHERE)
    session.events = held = Unread()
    for number in range(3):
        await adk.append_event(session, change(n=number))
    assert session.events is held
    assert len(held) == 3
    with pytest.raises(AssertionError):
        await adk.append_event(session, held[0])


async def test_what_others_appended_first_is_held_too(adk: BaseSessionService) -> None:
    """An event that two bring is stored once, and is in the sessions at hand of both."""
    session, elsewhere = await adk.create_session(**WHERE), await loaded(adk)
    event = change(n=1)
    await adk.append_event(elsewhere, event.model_copy(deep=True))
    await adk.append_event(session, change(n=2))
    for _ in range(2):
        await adk.append_event(session, event)
    assert [each.actions.state_delta["n"] for each in session.events] == [2, 1]
    assert len((await loaded(adk)).events) == 2


async def test_another_event_of_the_same_id_is_another_event(adk: BaseSessionService) -> None:
    """And it too is stored once."""
    session = await adk.create_session(**WHERE)
    given_events = [words(text, id="e") for text in ("one", "two", "three", "two")]
    for event in given_events:
        event.timestamp = 5.0
        await adk.append_event(session, event)
    assert texts(session) == ["one", "two", "three"]
    found = await loaded(adk)
    assert texts(found) == ["one", "two", "three"]
    assert [event.id for event in found.events] == ["e", "e", "e"]


async def test_an_update_is_as_late_as_its_event(adk: BaseSessionService) -> None:
    """By the event's own clock, in the session at hand and when it is loaded."""
    session = await adk.create_session(**WHERE)
    for moment in (session.last_update_time + 10, session.last_update_time - 10):
        await adk.append_event(session, words("x", timestamp=moment))
        assert session.last_update_time == moment
        assert (await loaded(adk)).last_update_time == moment
        assert (await loaded(adk, num_recent_events=0)).last_update_time == moment


@pytest.mark.parametrize("first", [1.0, 4e9])
async def test_the_newest_events_are_returned(
    adk: BaseSessionService, first: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number and by time, whatever the clock says; as the framework's own service does it."""
    monkeypatch.setattr(google_adk, "_SOME", 2)
    theirs = InMemorySessionService()
    for each in (adk, theirs):
        session = await each.create_session(**WHERE)
        for number in range(10):
            await each.append_event(
                session, words(str(number), id=f"e{number}", timestamp=first + number)
            )
    for most in (None, 0, 3, 10, 50):
        for moment in (None, 0.0, first, first + 3.5, first + 4, first + 9, first + 100):
            config = {"num_recent_events": most, "after_timestamp": moment}
            assert (await loaded(adk, **config)).events == (await loaded(theirs, **config)).events


async def test_a_session_that_is_gone_says_so(adk: BaseSessionService) -> None:
    """In the framework's words; the session at hand stays as it is."""
    session = await adk.create_session(**WHERE)
    await adk.delete_session(**WHERE)
    event = change(**{"temp:a": 1, "b": 2})
    with pytest.raises(SessionNotFoundError, match="Session chat not found"):
        await adk.append_event(session, event)
    assert (session.events, session.state) == ([], {})
    assert event.actions.state_delta == {"temp:a": 1, "b": 2}
    assert await adk.get_session(**WHERE) is None


async def test_a_session_made_anew_is_another_one(adk: BaseSessionService) -> None:
    """Nothing of a run that began before is stored in it; a session made by hand is for any."""
    session = await adk.create_session(**WHERE)
    await adk.append_event(session, words("old", invocation_id="i"))
    await adk.delete_session(**WHERE)
    await adk.create_session(**WHERE)
    summary = summary_of(session.events[0], session.events[0], "s")
    rewind = Event(author="user", actions=EventActions(rewind_before_invocation_id="i"))
    for event in (words("late"), summary, rewind):
        with pytest.raises(SessionNotFoundError):
            await adk.append_event(session.model_copy(deep=True), event)
    assert (await loaded(adk)).events == []
    by_hand = Session(app_name="app", user_id="user", id="chat")
    await adk.append_event(by_hand, words("new"))
    assert texts(await loaded(adk)) == ["new"]


async def test_an_event_that_is_too_large_changes_nothing(adk: BaseSessionService) -> None:
    """The error says how large it was."""
    session = await adk.create_session(**WHERE)
    with pytest.raises(EventTooLargeError):
        await adk.append_event(session, words("x" * 2_000_000))
    assert session.events == []


async def test_a_stale_session_loses_nothing(adk: BaseSessionService) -> None:
    """It gets its own events; those of others, and their state, are there when it is loaded."""
    await adk.create_session(**WHERE, state={"n": 0})
    one, two = await loaded(adk), await loaded(adk)
    for number in range(3):
        await adk.append_event(
            one, words(f"one {number}", actions={"state_delta": {"one": number}})
        )
        await adk.append_event(
            two, words(f"two {number}", actions={"state_delta": {"two": number}})
        )
    assert texts(one) == ["one 0", "one 1", "one 2"]
    assert one.state == {"n": 0, "one": 2}
    found = await loaded(adk)
    assert texts(found) == [f"{name} {n}" for n in range(3) for name in ("one", "two")]
    assert found.state == {"n": 0, "one": 2, "two": 2}


async def test_parallel_branches_share_a_session_at_hand(adk: BaseSessionService) -> None:
    """As parallel agents do."""
    session = await adk.create_session(**WHERE)
    async with asyncio.TaskGroup() as tasks:
        for number in range(30):
            tasks.create_task(adk.append_event(session, words(str(number), branch=f"b{number}")))
    assert len(session.events) == 30
    assert (await loaded(adk)).events == session.events


# -- what the framework does with a whole log


def summary_of(first: Event, last: Event, text: str) -> Event:
    compaction = EventCompaction(
        start_timestamp=first.timestamp,
        end_timestamp=last.timestamp,
        compacted_content=Content(role="model", parts=[Part(text=text)]),
    )
    return Event(author="user", actions=EventActions(compaction=compaction))


async def test_a_summary_is_stored(adk: BaseSessionService) -> None:
    """And comes back equal."""
    session = await adk.create_session(**WHERE)
    for number in range(3):
        await adk.append_event(session, words(str(number)))
    summary = summary_of(session.events[0], session.events[1], "so far")
    await adk.append_event(session, summary)
    await adk.append_event(session, summary)
    assert session.events[-1] == summary
    assert (await loaded(adk)).events == session.events


async def test_a_summary_hides_nothing_that_others_said(
    adk: BaseSessionService, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out, and the run goes on."""
    session = await adk.create_session(**WHERE)
    await adk.append_event(session, words("0", timestamp=100))
    await adk.append_event(await loaded(adk), words("theirs", timestamp=101))
    await adk.append_event(session, words("1", timestamp=102))
    summary = summary_of(session.events[0], session.events[1], "so far")
    assert await adk.append_event(session, summary) is summary
    assert texts(session) == ["0", "1"]
    assert len(session.events) == 2
    assert texts(await loaded(adk)) == ["0", "theirs", "1"]
    assert "would hide 1 events" in caplog.text
    harmless = summary_of(session.events[1], session.events[1], "the end")
    await adk.append_event(session, harmless)
    assert (await loaded(adk)).events[-1] == harmless
    assert issubclass(StaleSessionError, ValueError)


async def test_a_summary_of_a_session_that_is_gone(adk: BaseSessionService) -> None:
    """Is refused like any event."""
    session = await adk.create_session(**WHERE)
    await adk.append_event(session, words("0"))
    await adk.delete_session(**WHERE)
    with pytest.raises(SessionNotFoundError):
        await adk.append_event(session, summary_of(session.events[0], session.events[0], "s"))


async def test_a_rewind_takes_events_back(service: SessionService) -> None:
    """For other readers too; state is what the framework computes."""
    adk = google_adk.SessionService(service)
    runner = runner_of(adk)
    for turn in range(3):
        await run(runner, f"turn {turn}")
    session = await loaded(adk)
    await adk.append_event(session, change(n=1))
    second = [e.invocation_id for e in session.events if e.author == "user"][1]
    await runner.rewind_async(user_id="user", session_id="chat", rewind_before_invocation_id=second)
    assert [event.text for event in await service.get_history(KEY)][:1] == ["turn 0"]
    assert [event.text for event in await service.get_events(KEY)] == [
        "turn 0",
        "",
        "",
        "turn 0: 3",
        "",
    ]
    assert (await loaded(adk)).state == {"n": None}
    assert await run(runner, "again") == "again: 7"
    first = session.events[0].invocation_id
    await runner.rewind_async(user_id="user", session_id="chat", rewind_before_invocation_id=first)
    assert texts(await loaded(adk)) == []
    assert await run(runner, "anew") == "anew: 3"


async def test_a_rewind_spares_another_event_of_the_same_id(adk: BaseSessionService) -> None:
    """A turn may begin with an id that an older event has; what is before the turn stays."""
    session = await adk.create_session(**WHERE)
    for event in (
        words("a", id="same", invocation_id="1"),
        words("b", invocation_id="2"),
        words("c", id="same", invocation_id="3"),
        words("d", invocation_id="3"),
    ):
        await adk.append_event(session, event)
    rewind = Event(author="user", actions=EventActions(rewind_before_invocation_id="3"))
    await adk.append_event(session, rewind)
    assert [event.invocation_id for event in (await loaded(adk)).events] == ["1", "2", ""]


async def test_a_rewind_to_what_is_gone_is_an_event(adk: BaseSessionService) -> None:
    """As the framework has it: it takes back nothing."""
    session = await adk.create_session(**WHERE)
    await adk.append_event(session, words("0", invocation_id="i"))
    for gone in ("other", "i"):
        session.events[0].id = "gone"
        rewind = Event(author="user", actions=EventActions(rewind_before_invocation_id=gone))
        await adk.append_event(session, rewind)
    found = await loaded(adk)
    assert texts(found) == ["0"]
    assert len(found.events) == 3


# -- what others have stored


@pytest.fixture
async def talk(service: SessionService) -> SessionService:
    """A conversation of another framework."""
    await service.create_session(KEY)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "Rain."},
        {"role": "assistant", "content": "It rains."},
    ]
    await service.append_events(KEY, openai_chat.from_messages(messages))
    return service


async def test_events_of_others_arrive(talk: SessionService) -> None:
    """As the framework's own, with calls paired, and written by whoever called."""
    session = await loaded(google_adk.SessionService(talk))
    assert [each for event in session.events for each in said_by(event)] == [
        ("text", "system", "Be brief."),
        ("text", "user", "Weather?"),
        ("text", "assistant", "I look."),
        ("call", "c", "weather", {}),
        ("result", "c", "Rain."),
        ("text", "assistant", "It rains."),
    ]
    assert [event.author for event in session.events] == [
        *("system", "user", "assistant", "assistant", "assistant")
    ]
    answers = [answer for event in session.events for answer in event.get_function_responses()]
    assert [answer.name for answer in answers] == ["weather"]
    assert all(event.custom_metadata is None for event in session.events)


async def test_a_conversation_of_others_goes_on(talk: SessionService) -> None:
    """The agent takes for its own what it is told to; the model is shown it as such."""
    adk = google_adk.SessionService(talk, agent="helper")
    assert await run(runner_of(adk), "And now?") == "And now?: 8"
    session = await loaded(adk)
    assert [event.author for event in session.events[2:5]] == ["helper"] * 3
    assert (await loaded(google_adk.SessionService(talk))).events[2].author == "assistant"


async def test_one_event_of_others_may_be_several(service: SessionService) -> None:
    """The framework has a role for each: a call, its result and words cannot be one."""
    await service.create_session(KEY)
    event = OurEvent(
        id="e",
        author="agent",
        invocation_id="i",
        branch="b",
        timestamp=datetime.fromtimestamp(5, UTC),
        content=[ToolCall("c", "f", {"a": 1}), ToolResult("c", {"b": 2}), Text("Two.")],
        state_delta={"n": 1, "gone": DELETE},
    )
    await service.append_event(KEY, event)
    session = await loaded(google_adk.SessionService(service))
    assert [each.id for each in session.events] == ["e", "e.1", "e.2"]
    assert {(each.invocation_id, each.branch, each.timestamp) for each in session.events} == {
        ("i", "b", 5.0)
    }
    assert [each.actions.state_delta for each in session.events] == [
        {"n": 1, "gone": None},
        {},
        {},
    ]
    assert [each for event in session.events for each in said_by(event)] == [
        ("call", "c", "f", {"a": 1}),
        ("result", "c", {"b": 2}),
        ("text", "assistant", "Two."),
    ]


async def test_what_has_no_form_is_named(service: SessionService) -> None:
    """In the event's metadata; what has one is there."""
    await service.create_session(KEY)
    event = OurEvent(
        id="e",
        author="agent",
        content=[
            Reasoning("", {"anthropic": {"data": "x"}}),
            Text("Hello"),
            Media("image/png", data="-"),
            Data({"card": 1}),
        ],
        error=EventError("It broke.", "Broken"),
    )
    await service.append_event(KEY, event)
    session = await loaded(google_adk.SessionService(service))
    (found,) = session.events
    assert (found.error_code, found.error_message) == ("Broken", "It broke.")
    assert found.custom_metadata is not None
    lost = found.custom_metadata["agentsession_lost"]
    assert "a Reasoning of the author 'agent' has no form" in lost[0]
    assert "a Data of the author 'agent' has no form" in lost[1]


async def test_an_original_of_another_version_is_made_of_its_parts(
    service: SessionService, caplog: pytest.LogCaptureFixture
) -> None:
    """It hides nothing but what it holds, and says so."""
    adk = google_adk.SessionService(service)
    session = await adk.create_session(**WHERE)
    await adk.append_event(session, words("Hello"))
    newer = OurEvent(
        author="helper",
        content="Hi",
        metadata={"google_adk": {"author": "helper", "actions": {"invented": 1}}},
    )
    await service.append_event(KEY, newer)
    assert texts(await loaded(adk)) == ["Hello", "Hi"]
    assert "cannot read its original" in caplog.text


async def test_calls_without_ids_are_paired_for_others(service: SessionService) -> None:
    """The framework gives ids, and events made by hand may have none."""
    adk = google_adk.SessionService(service)
    session = await adk.create_session(**WHERE)
    call = Part(function_call=FunctionCall(name="f", args={}))
    answer = Part(function_response=FunctionResponse(name="f", response={"result": 1}))
    for _ in range(2):
        await adk.append_event(
            session, Event(author="helper", content=Content(role="model", parts=[call]))
        )
        await adk.append_event(
            session, Event(author="helper", content=Content(role="user", parts=[answer]))
        )
    events = await service.get_events(KEY)
    asked = [call.call_id for event in events for call in event.tool_calls]
    assert len(set(asked)) == 2
    assert [each.call_id for event in events for each in event.tool_results] == asked
    assert (await loaded(adk)).events == session.events


async def test_what_was_taken_back_is_not_seen(service: SessionService) -> None:
    """Of a session that another framework has rewound."""
    adk = google_adk.SessionService(service)
    session = await adk.create_session(**WHERE)
    for text in ("one", "two", "three"):
        await adk.append_event(session, words(text))
    await service.rewind(KEY, to_seq=1)
    assert texts(await loaded(adk)) == ["one"]
    forked = SessionKey("app", "user", "forked")
    await service.fork(KEY, forked)
    found = await adk.get_session(app_name="app", user_id="user", session_id="forked")
    assert texts(found) == ["one"]


async def test_the_log_may_be_larger_than_one_read(store_url: str, store_prefix: str) -> None:
    """It is read in pieces."""
    async with open_service(
        store_url, key_prefix=store_prefix, max_event_size=10_000, max_read_size=30_000
    ) as service:
        adk = google_adk.SessionService(service)
        session = await adk.create_session(**WHERE)
        for number in range(40):
            await adk.append_event(session, words(f"{number} {'x' * 2000}"))
        assert texts(await loaded(adk)) == texts(session)
        assert texts(await loaded(adk, num_recent_events=30)) == texts(session)[-30:]
        assert texts(await loaded(adk, after_timestamp=0.0)) == texts(session)


async def test_it_takes_a_service_of_ours(service: SessionService) -> None:
    """And says what it is."""
    assert "SessionService on" in repr(google_adk.SessionService(service))
    with pytest.raises(TypeError, match="an adapter takes a SessionService"):
        google_adk.SessionService("redis://localhost")  # type: ignore[arg-type]
    await google_adk.SessionService(service).flush()
    await service.update_user_state(UserKey("app", "user"), {"a": 1})
