"""tRPC-Agent on the store: its runner, what it expects of a service, what bites elsewhere."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("trpc_agent_sdk")

from google.genai.types import Content, FunctionCall, FunctionResponse, Part
from trpc_agent_sdk.cancel import cleanup_incomplete_function_calls
from trpc_agent_sdk.events import Event
from trpc_agent_sdk.models import LlmRequest, LlmResponse
from trpc_agent_sdk.runners import Runner
from trpc_agent_sdk.sessions import (
    Session,
    SessionServiceConfig,
    SessionSummarizer,
    SummarizerSessionManager,
)
from trpc_agent_sdk.types import EventActions
from trpc_agent_sdk.utils import user_key

from adapters.frameworks.gemini_events import said_by
from adapters.processes import program
from adapters.programs.trpc_agent import ScriptedModel, agent_of, answer, weather
from agentsession import Event as OurEvent
from agentsession import SessionKey, SessionService, Text, ToolCall, ToolResult, open_service
from agentsession.adapters import trpc_agent
from agentsession.adapters._trpc_agent.changes import Piece, merged, runs_of, unchanged
from agentsession.blocking import open_service as open_blocking
from agentsession.errors import EventTooLargeError, SessionNotFoundError, StateValueError
from agentsession.messages import openai_chat

KEY = SessionKey("app", "user", "chat")
WHERE: dict[str, Any] = {"app_name": "app", "user_id": "user", "session_id": "chat"}


@pytest.fixture
def trpc(service: SessionService) -> trpc_agent.SessionService:
    return trpc_agent.SessionService(service)


def words(text: str, author: str = "user", **fields: Any) -> Event:
    role = "user" if author == "user" else "model"
    return Event(author=author, content=Content(role=role, parts=[Part(text=text)]), **fields)


def change(**delta: Any) -> Event:
    return Event(author="helper", actions=EventActions(state_delta=delta))


def texts(events: list[Event]) -> list[str]:
    return [event.get_text() for event in events]


async def loaded(trpc: trpc_agent.SessionService) -> Any:
    found = await trpc.get_session(**WHERE)
    assert found is not None
    return found


async def session_with(trpc: trpc_agent.SessionService, *said: str) -> Any:
    session = await trpc.create_session(**WHERE)
    for text in said:
        await trpc.append_event(session, words(text))
    return session


async def run(runner: Runner, text: str) -> str:
    said = ""
    async for event in runner.run_async(
        user_id="user",
        session_id="chat",
        new_message=Content(role="user", parts=[Part(text=text)]),
    ):
        said = event.get_text() or said
    return said


def runner_of(trpc: trpc_agent.SessionService, tool: Callable[..., Any] = weather) -> Runner:
    return Runner(app_name="app", agent=agent_of(tool), session_service=trpc)


# -- the runner


async def test_a_conversation_with_tools(service: SessionService) -> None:
    """Each turn goes on where the last one ended, for the framework and for every other reader."""
    for turn in range(3):
        # New objects each time, as a process that was started anew has them.
        trpc = trpc_agent.SessionService(service)
        assert await run(runner_of(trpc), f"turn {turn}") == f"turn {turn}: {4 * turn + 3}"
        assert (await loaded(trpc)).conversation_count == turn + 1
    events = await service.get_events(KEY)
    assert [event.author for event in events] == ["user", "helper", "helper", "helper"] * 3
    assert [call.arguments for event in events for call in event.tool_calls] == [
        {"city": "Oslo"}
    ] * 3
    assert [each.result for event in events for each in event.tool_results] == [
        "It rains in Oslo."
    ] * 3
    history = await service.get_history(KEY, max_turns=1)
    assert [event.text for event in history] == ["turn 2", "", "", "turn 2: 11"]


def test_two_processes_write_to_one_session(valkey_url: str, store_prefix: str) -> None:
    """From their first turn on, which makes it: nothing is lost, and nothing is there twice."""
    where = (valkey_url, store_prefix, "chat")
    with program("trpc_agent_turns", *where) as one, program("trpc_agent_turns", *where) as two:
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
    assert sorted(asked) == sorted(f"{name} {turn}" for name in ("one", "two") for turn in range(5))
    assert len(events) == 40
    results = [each.call_id for event in events for each in event.tool_results]
    assert len(results) == len(set(results)) == 10


class Summing(ScriptedModel):
    """Says the same of any conversation."""

    async def _generate_async_impl(
        self, request: LlmRequest, stream: bool = False, ctx: Any = None
    ) -> AsyncGenerator[LlmResponse, None]:
        yield answer(Part(text="It rained."))


def summarized(store: Any) -> trpc_agent.SessionService:
    """Sessions that are summarized after each turn, but for their newest events."""
    summarizer = SessionSummarizer(
        Summing(),
        check_summarizer_functions=[lambda session: len(session.events) > 6],
        keep_recent_count=4,
    )
    return trpc_agent.SessionService(store, SummarizerSessionManager(Summing(), summarizer))


async def test_the_frameworks_summaries_are_stored(service: SessionService) -> None:
    """The model is shown them in the next turn, in this process and in another one."""
    for turn in range(3):
        trpc = summarized(service)
        await run(runner_of(trpc), f"turn {turn}")
        assert await trpc.get_session_summary(await loaded(trpc)) == (
            "It rained." if turn else None
        )
    session = await loaded(trpc_agent.SessionService(service))
    assert "It rained." in session.events[0].get_text()
    assert [event.get_text() for event in session.events[1:]] == ["turn 2", "", "", "turn 2: 7"]
    said = [event.get_text() for event in session.historical_events]
    assert [said[0], said[5]] == ["turn 0", "turn 1"]
    assert "It rained." in (await service.get_history(KEY))[0].text


def test_summaries_have_a_loop_of_their_own(store_url: str, store_prefix: str) -> None:
    """Where the runner makes them after the turn, in a thread."""

    async def turns(trpc: trpc_agent.SessionService) -> None:
        runner = Runner(
            app_name="app", agent=agent_of(), session_service=trpc, defer_post_turn_processing=True
        )
        for turn in range(2):
            await run(runner, f"turn {turn}")
        await runner.close()

    with open_blocking(store_url, key_prefix=store_prefix) as service:
        asyncio.run(turns(summarized(service)))
        session = asyncio.run(loaded(trpc_agent.SessionService(service)))
        assert "It rained." in session.events[0].get_text()
        assert len([*session.events, *session.historical_events]) == 9


# -- sessions


async def test_a_session_that_does_not_exist(trpc: trpc_agent.SessionService) -> None:
    """It is none, and deleting it is no error."""
    assert await trpc.get_session(**WHERE) is None
    assert await trpc.get_session(**{**WHERE, "session_id": ""}) is None
    await trpc.delete_session(**WHERE)
    await trpc.delete_session(**{**WHERE, "session_id": " "})
    assert (await trpc.list_sessions(app_name="app")).sessions == []


async def test_a_session_is_made_read_and_deleted(trpc: trpc_agent.SessionService) -> None:
    """What is made is what is read."""
    made = await trpc.create_session(**WHERE, state={"key": "value", "none": None, "temp:t": 1})
    assert isinstance(made, Session)
    assert (made.app_name, made.user_id, made.id) == ("app", "user", "chat")
    assert made.save_key == user_key("app", "user")
    assert made.state == {"key": "value", "none": None}
    assert await trpc.get_session(**WHERE) == made
    await trpc.delete_session(**WHERE)
    assert await trpc.get_session(**WHERE) is None


async def test_blank_ids_are_made(trpc: trpc_agent.SessionService) -> None:
    """And others are stripped."""
    made = [
        await trpc.create_session(app_name="app", user_id="user", session_id=session_id)
        for session_id in (None, "", " \n", " chat ")
    ]
    assert len({each.id for each in made}) == 4
    assert made[-1].id == "chat"
    assert all(each.id.strip() for each in made)


async def test_an_id_in_use_gives_what_is_there(trpc: trpc_agent.SessionService) -> None:
    """The framework's own services erase it; its SQL service merges state, and so it is here."""
    session = await session_with(trpc, "Hello")
    again = await trpc.create_session(**WHERE)
    assert again == await loaded(trpc)
    assert texts(again.events) == ["Hello"]
    merged_too = await trpc.create_session(**WHERE, state={"a": 1, "user:b": 2})
    assert merged_too.state == {"a": 1, "user:b": 2}
    assert texts(merged_too.events) == texts(session.events)


async def test_lists_are_whole_and_without_events(trpc: trpc_agent.SessionService) -> None:
    """Of one user, and of all users of an application."""
    for user, name in (("a", "b:c"), ("a:b", "c"), ("*", "c"), ("a", "*")):
        made = await trpc.create_session(
            app_name="app", user_id=user, session_id=name, state={"user:u": user, "n": name}
        )
        await trpc.append_event(made, words("hello"))
    await trpc.create_session(app_name="other", user_id="a", session_id="x")
    ours = (await trpc.list_sessions(app_name="app", user_id="a")).sessions
    assert sorted(each.id for each in ours) == ["*", "b:c"]
    everybodys: list[Any] = (await trpc.list_sessions(app_name="app")).sessions
    assert len(everybodys) == 4
    assert all(each.events == [] for each in everybodys)
    assert all(each.state == {"user:u": each.user_id, "n": each.id} for each in everybodys)


# -- state and events


async def test_state_has_three_scopes(trpc: trpc_agent.SessionService) -> None:
    """Of any JSON value, which comes back of its own type."""
    first = await trpc.create_session(**WHERE, state={"app:a": 1, "user:u": True, "s": 1.5})
    await trpc.append_event(first, change(**{"app:a": {"b": [None]}, "user:u": None, "temp:t": 1}))
    assert first.state == {"app:a": {"b": [None]}, "user:u": None, "s": 1.5, "temp:t": 1}
    assert (await loaded(trpc)).state == {"app:a": {"b": [None]}, "user:u": None, "s": 1.5}
    assert first.events[0].actions.state_delta == {"app:a": {"b": [None]}, "user:u": None}
    other = await trpc.create_session(app_name="app", user_id="bob", session_id="other")
    assert other.state == {"app:a": {"b": [None]}}


async def test_state_is_patched_without_an_event(trpc: trpc_agent.SessionService) -> None:
    """In the scope that the name says; what others have changed stays."""
    one = await session_with(trpc, "Hello")
    two = await loaded(trpc)
    await trpc.update_session_state(one, {"a": 1, "user:u": 1, "temp:t": 1})
    await trpc.update_session_state(two, {"b": 2})
    assert one.state == {"a": 1, "user:u": 1, "temp:t": 1}
    found = await loaded(trpc)
    assert found.state == {"a": 1, "b": 2, "user:u": 1}
    assert texts(found.events) == ["Hello"]
    await trpc.update_session(one)
    assert (await loaded(trpc)).state == {"a": 1, "b": 2, "user:u": 1}
    with pytest.raises(StateValueError):
        await trpc.update_session_state(one, {"x": float("nan")})
    assert "x" not in one.state


EVENTS = (
    words("Hello", invocation_id="i", branch="a.b", timestamp=1_700_000_000.123456, visible=False),
    Event(
        author="helper",
        content=Content(
            role="model",
            parts=[
                Part(function_call=FunctionCall(id="c", name="f", args={"a": None, "b": [1.5]})),
                Part(text="so", thought=True, thought_signature=b"\xfb\xff"),
            ],
        ),
        long_running_tool_ids={"c"},
        request_id="r",
        parent_invocation_id="p",
        tag="t",
        filter_key="k",
        requires_completion=True,
        version=3,
        object="graph.node.start",
        model_flags=2,
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
        ),
        custom_metadata={"none": None},
        error_code="BAD",
        error_message="It went wrong.",
    ),
    Event(author="", content=Content(parts=[Part(text="nobody")])),
)


@pytest.mark.parametrize("event", EVENTS, ids=range(len(EVENTS)))
async def test_events_come_back_equal(trpc: trpc_agent.SessionService, event: Event) -> None:
    """With all that is in them; a None is a value."""
    session = await trpc.create_session(**WHERE)
    event = event.model_copy(deep=True)
    assert await trpc.append_event(session, event) is event
    assert session.events == [event]
    assert session.last_update_time == event.timestamp
    found = await loaded(trpc)
    assert found.events == [event]
    assert found.last_update_time == event.timestamp


async def test_chunks_of_a_stream_are_not_stored(trpc: trpc_agent.SessionService) -> None:
    """Nor do they show in the session at hand."""
    session = await trpc.create_session(**WHERE)
    chunk = words("Hel", "helper", partial=True)
    assert await trpc.append_event(session, chunk) is chunk
    assert (session.events, (await loaded(trpc)).events) == ([], [])


async def test_a_repeat_is_stored_once(trpc: trpc_agent.SessionService) -> None:
    """And another event of the same id is another event."""
    session = await trpc.create_session(**WHERE)
    event = change(n=1)
    for each in (event, event, change(n=2), event.model_copy(deep=True)):
        await trpc.append_event(session, each)
    other = words("other", id=event.id)
    await trpc.append_event(session, other)
    found = await loaded(trpc)
    assert found.events == session.events
    assert (len(found.events), found.state) == (3, {"n": 2})


async def test_a_change_within_a_value_of_state_is_stored(
    trpc: trpc_agent.SessionService,
) -> None:
    """However the value came into the session at hand."""
    await trpc.create_session(**WHERE, state={"made": {"n": [1]}})
    session = await loaded(trpc)
    await trpc.append_event(session, change(appended={"n": [1]}))
    await trpc.update_session_state(session, {"updated": {"n": [1]}})
    for value in session.state.values():
        value["n"].append(2)
    await trpc.update_session(session)
    names = ("made", "appended", "updated")
    assert (await loaded(trpc)).state == {name: {"n": [1, 2]} for name in names}
    for value in session.state.values():
        value["n"].append(3)
    await trpc.update_session(session)
    assert (await loaded(trpc)).state == {name: {"n": [1, 2, 3]} for name in names}


async def test_what_was_taken_away_can_be_appended_again(trpc: trpc_agent.SessionService) -> None:
    """Its id is stored, but whoever loads the session would miss it."""
    session = await session_with(trpc, "a", "b")
    for _ in range(2):
        event = session.events.pop()
        await trpc.update_session(session)
        assert texts((await loaded(trpc)).events) == ["a"]
        for _ in range(2):
            await trpc.append_event(session, event)
        assert texts((await loaded(trpc)).events) == texts(session.events) == ["a", "b"]


async def test_a_session_that_is_gone_says_so(trpc: trpc_agent.SessionService) -> None:
    """The framework's own services only warn, and what was said is lost."""
    session = await session_with(trpc, "Hello")
    await trpc.delete_session(**WHERE)
    for _ in range(2):
        with pytest.raises(SessionNotFoundError):
            await trpc.append_event(session, words("x"))
        with pytest.raises(SessionNotFoundError):
            await trpc.update_session(session)
        with pytest.raises(SessionNotFoundError):
            await trpc.update_session_state(session, {"a": 1})
        assert (texts(session.events), session.state) == (["Hello"], {})
        # One that was made anew under its id is another session.
        await trpc.create_session(**WHERE)
    assert (await loaded(trpc)).events == []


async def test_an_event_that_is_too_large_changes_nothing(trpc: trpc_agent.SessionService) -> None:
    """The error says how large it was."""
    session = await trpc.create_session(**WHERE)
    with pytest.raises(EventTooLargeError):
        await trpc.append_event(session, words("x" * 2_000_000, actions={"state_delta": {"a": 1}}))
    assert (session.events, session.state) == ([], {})


async def test_two_holders_lose_nothing(trpc: trpc_agent.SessionService) -> None:
    """Of what they append, and of state."""
    await trpc.create_session(**WHERE)
    one, two = await loaded(trpc), await loaded(trpc)
    for number in range(3):
        await trpc.append_event(one, words(f"one {number}", actions={"state_delta": {"1": number}}))
        await trpc.append_event(two, words(f"two {number}", actions={"state_delta": {"2": number}}))
    assert texts(one.events) == ["one 0", "one 1", "one 2"]
    found = await loaded(trpc)
    assert texts(found.events) == [f"{name} {n}" for n in range(3) for name in ("one", "two")]
    assert found.state == {"1": 2, "2": 2}


# -- the limits of a configuration


async def test_a_window_is_what_is_loaded_and_no_more(service: SessionService) -> None:
    """What it leaves out is stored, whatever is appended to what was loaded."""
    whole = trpc_agent.SessionService(service)
    await session_with(whole, *map(str, range(50)))
    narrow = trpc_agent.SessionService(
        service, session_config=SessionServiceConfig(num_recent_events=10, ttl={"enable": False})
    )
    session = await loaded(narrow)
    assert texts(session.events) == [str(n) for n in range(40, 50)]
    await narrow.append_event(session, words("50"))
    assert texts((await loaded(whole)).events) == [str(n) for n in range(51)]
    summary = words("so far", "system")
    session.compact_events(summary, session.events[7].id, compaction_id="c")
    await narrow.update_session(session)
    assert texts((await loaded(whole)).events) == [
        *(str(n) for n in range(40)),
        *("so far", "48", "49", "50"),
    ]


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_limit_leaves_the_rest_in_history(service: SessionService, keeps: bool) -> None:
    """Or out of the session; nothing of it is lost in the store."""
    config = SessionServiceConfig(
        max_events=3, store_historical_events=keeps, ttl={"enable": False}
    )
    trpc = trpc_agent.SessionService(service, session_config=config)
    session = await session_with(trpc, *"abcde")
    for each in (session, await loaded(trpc)):
        assert texts(each.events) == ["c", "d", "e"]
        assert texts(each.historical_events) == (["a", "b"] if keeps else [])
    session.state["x"] = 1
    await trpc.update_session(session)
    found = await loaded(trpc)
    assert texts(found.events) == ["c", "d", "e"]
    assert texts(found.historical_events) == (["a", "b"] if keeps else [])
    whole = await loaded(trpc_agent.SessionService(service))
    assert texts(whole.historical_events + whole.events) == list("abcde")


async def test_old_events_are_left_out(service: SessionService) -> None:
    """By the framework's clock."""
    config = SessionServiceConfig(event_ttl_seconds=60, ttl={"enable": False})
    trpc = trpc_agent.SessionService(service, session_config=config)
    session = await trpc.create_session(**WHERE)
    await trpc.append_event(session, words("old", timestamp=1_000.0))
    await trpc.append_event(session, words("new"))
    assert texts((await loaded(trpc)).events) == ["new"]


async def test_a_time_to_live_is_the_services(
    service: SessionService, caplog: pytest.LogCaptureFixture
) -> None:
    """A configuration that has one is told that it is not used."""
    trpc = trpc_agent.SessionService(service, session_config=SessionServiceConfig())
    assert "give the service a session_ttl" in caplog.text
    caplog.clear()
    assert not trpc_agent.SessionService(service).session_config.need_ttl_expire()
    assert caplog.text == ""
    assert "SessionService on" in repr(trpc)
    await trpc.close()


# -- update_session


def compacted(session: Any, kept: int, text: str = "so far") -> None:
    """Replace all but the newest events by a summary."""
    boundary = session.events[-kept - 1].id
    session.compact_events(words(text, "system"), boundary, compaction_id=text)


async def test_a_summary_takes_the_place_of_events(service: SessionService) -> None:
    """For readers of other frameworks too; what it replaces is history, and stays so."""
    trpc = trpc_agent.SessionService(service)
    session = await session_with(trpc, *"abcde")
    compacted(session, 2)
    await trpc.update_session(session)
    found = await loaded(trpc)
    assert texts(found.events) == ["so far", "d", "e"]
    assert found.events == session.events
    assert texts(found.historical_events) == ["a", "b", "c"]
    assert found.historical_events == session.historical_events
    assert [event.text for event in await service.get_events(KEY)] == ["so far", "d", "e"]
    await trpc.append_event(session, words("f"))
    compacted(session, 1, "still")
    await trpc.update_session(session)
    found = await loaded(trpc)
    assert texts(found.events) == ["still", "f"]
    assert texts(found.historical_events) == ["a", "b", "c", "so far", "d", "e"]
    assert found == session
    config = SessionServiceConfig(ttl={"enable": False})
    bare = trpc_agent.SessionService(service, session_config=config)
    assert (await loaded(bare)).historical_events == []


async def test_an_update_without_a_change_writes_nothing(service: SessionService) -> None:
    """Not even a revision."""
    trpc = trpc_agent.SessionService(service)
    session = await session_with(trpc, "a", "b")
    compacted(session, 1)
    await trpc.update_session(session)
    before = await service.get_session(KEY)
    await trpc.update_session(session)
    await trpc.update_session(await loaded(trpc))
    after = await service.get_session(KEY)
    assert before is not None
    assert after is not None
    assert before.revision == after.revision


async def test_an_update_keeps_what_others_have_added(trpc: trpc_agent.SessionService) -> None:
    """Events and state, however old the session at hand is."""
    session = await session_with(trpc, *"abc")
    session.state.update(mine=1, both=1)
    await trpc.update_session(session)
    other = await loaded(trpc)
    await trpc.append_event(other, words("x", actions={"state_delta": {"theirs": 2, "both": 2}}))
    await trpc.append_event(session, words("d"))
    compacted(session, 1)
    del session.state["mine"]
    await trpc.update_session(session)
    found = await loaded(trpc)
    assert texts(found.events) == ["so far", "x", "d"]
    assert texts(found.historical_events) == ["a", "b", "c"]
    assert found.state == {"theirs": 2, "both": 2}


async def test_state_is_not_folded_again(trpc: trpc_agent.SessionService) -> None:
    """An event that is stored once more changes no state, as it is."""
    session = await session_with(trpc, "a", "b")
    await trpc.append_event(session, change(n=1, **{"user:u": 1}))
    other = await loaded(trpc)
    await trpc.append_event(other, change(n=2, **{"user:u": 2}))
    compacted(session, 1)
    await trpc.update_session(session)
    found = await loaded(trpc)
    assert found.state == {"n": 2, "user:u": 2}
    assert [event.actions.state_delta.get("n") for event in found.events] == [None, 1, 2]


async def test_an_update_may_empty_a_session(trpc: trpc_agent.SessionService) -> None:
    """With a change of state beside it."""
    session = await session_with(trpc, "a", "b")
    session.events.clear()
    session.state["n"] = 1
    session.conversation_count = 7
    await trpc.update_session(session)
    found = await loaded(trpc)
    assert (found.events, found.state, found.conversation_count) == ([], {"n": 1}, 7)
    await trpc.append_event(session, words("c"))
    assert texts((await loaded(trpc)).events) == ["c"]
    compacted_too = await loaded(trpc)
    compacted_too.events[0].content.parts[0].text = "C"
    await trpc.update_session(compacted_too)
    assert texts((await loaded(trpc)).events) == ["C"]


class DeletedMeanwhile(SessionService):
    """Somebody deletes the session between two reads of it."""

    async def get_events(self, session_or_key: Any, **options: Any) -> list[OurEvent]:
        await self.delete_session(session_or_key)
        return await super().get_events(session_or_key, **options)


async def test_a_session_may_go_while_it_is_read(service: SessionService) -> None:
    """Then there is none."""
    trpc = trpc_agent.SessionService(service)
    session = await session_with(trpc, "a", "b")
    compacted(session, 1)
    await trpc.update_session(session)
    assert len((await loaded(trpc)).historical_events) == 1
    racing = trpc_agent.SessionService(DeletedMeanwhile(service.backend))
    assert await racing.get_session(**WHERE) is None
    assert await trpc.get_session(**WHERE) is None


async def test_what_carries_state_alone_does_not_pile_up(service: SessionService) -> None:
    """It shows to nobody, and goes with the events after which it was stored."""
    trpc = trpc_agent.SessionService(service)
    session = await session_with(trpc, "a", "b", "c")
    for number in range(3):
        session.events.pop()
        session.state["n"] = number
        await trpc.update_session(session)
        await trpc.append_event(session, words(f"d{number}"))
    session.events[0].content.parts[0].text = "A"
    await trpc.update_session(session)
    assert texts((await loaded(trpc)).events) == ["A", "b", "d2"]
    assert [event.text for event in await service.get_events(KEY)] == ["A", "b", "d2"]
    assert (await loaded(trpc)).state == {"n": 2}


async def test_an_event_of_others_is_history_once(service: SessionService) -> None:
    """Also if the framework has several events of it."""
    trpc = trpc_agent.SessionService(service)
    await service.create_session(KEY)
    event = OurEvent(author="agent", content=[ToolCall("c", "f"), ToolResult("c", 1), Text("One.")])
    await service.append_event(KEY, event)
    session = await loaded(trpc)
    assert len(session.events) == 3
    compacted(session, 0)
    await trpc.update_session(session)
    found = await loaded(trpc)
    assert found.historical_events == session.historical_events
    assert len(found.historical_events) == 3


async def test_an_update_of_state_alone_leaves_events(service: SessionService) -> None:
    """State of other scopes is not part of it."""
    trpc = trpc_agent.SessionService(service)
    session = await trpc.create_session(**WHERE, state={"user:u": 1, "gone": 1})
    session.state.update({"user:u": 2, "app:a": 2, "temp:t": 2, "n": 2})
    del session.state["gone"]
    await trpc.update_session(session)
    assert (await loaded(trpc)).state == {"user:u": 1, "n": 2}
    assert await service.get_events(KEY, raw=True) == []


async def test_a_new_event_is_stored_once(service: SessionService) -> None:
    """By an update of the session in which it stands, and not by an append that follows."""
    trpc = trpc_agent.SessionService(service)
    session = await session_with(trpc, "a")
    new = words("b")
    new.actions.state_delta = {"n": 1, "user:u": 1}
    session.events.append(new)
    session.state["own"] = 2
    await trpc.update_session(session)
    assert (await loaded(trpc)).state == {"n": 1, "user:u": 1, "own": 2}
    for holder in (session, session, await loaded(trpc)):
        await trpc.append_event(holder, new)
        assert texts(holder.events) == ["a", "b"]
        assert texts((await loaded(trpc)).events) == ["a", "b"]
    assert [event.text for event in await service.get_events(KEY)] == ["a", "b"]
    session.events[-1].content.parts[0].text = "B"
    await trpc.update_session(session)
    assert texts((await loaded(trpc)).events) == ["a", "B"]
    assert (await loaded(trpc)).state == {"n": 1, "user:u": 1, "own": 2}


async def test_a_new_event_that_others_have_taken_away_is_stored(
    trpc: trpc_agent.SessionService,
) -> None:
    """Under another id, since its own belongs to what was taken back."""
    session = await session_with(trpc, "a")
    other = await loaded(trpc)
    new = words("b")
    await trpc.append_event(other, new)
    other.events.pop()
    await trpc.update_session(other)
    session.events.append(new)
    await trpc.update_session(session)
    assert texts((await loaded(trpc)).events) == ["a", "b"]


async def test_a_session_made_by_hand_replaces_all(trpc: trpc_agent.SessionService) -> None:
    """It knows nothing of what is stored; history that is nowhere else is kept as it is."""
    await session_with(trpc, "a", "b")
    made = Session(
        id="chat",
        app_name="app",
        user_id="user",
        save_key=user_key("app", "user"),
        events=[words("x")],
        historical_events=[words("y"), words("z")],
        state={"n": 1},
    )
    await trpc.update_session(made)
    found = await loaded(trpc)
    assert (texts(found.events), texts(found.historical_events)) == (["x"], ["y", "z"])
    assert found.state == {"n": 1}
    await trpc.append_event(made, words("w"))
    assert texts((await loaded(trpc)).events) == ["x", "w"]
    compacted(found, 0)
    await trpc.update_session(found)
    again = await loaded(trpc)
    assert texts(again.historical_events) == ["y", "z", "x"]
    assert texts(again.events) == ["so far", "w"]


async def test_a_copy_of_a_session_is_as_good(trpc: trpc_agent.SessionService) -> None:
    """The framework copies them."""
    session = await session_with(trpc, *"abc")
    for each in (copy.deepcopy(session), session.model_copy()):
        await trpc.append_event(await loaded(trpc), words("x"))
        each.events = each.events[-1:]
        await trpc.update_session(each)
        assert texts((await loaded(trpc)).events)[:2] == ["c", "x"]


async def test_calls_that_were_cut_off_are_taken_out(trpc: trpc_agent.SessionService) -> None:
    """As the framework does it when a run is cancelled: no call without a result is left over."""
    session = await session_with(trpc, "go")
    call = Part(function_call=FunctionCall(id="c", name="f", args={}))
    asks = Event(author="helper", content=Content(role="model", parts=[Part(text="I ask"), call]))
    await trpc.append_event(session, asks)
    await cleanup_incomplete_function_calls(session)
    await trpc.append_event(session, words("cancelled", "helper"))
    found = await loaded(trpc)
    assert found.events == session.events
    assert texts(found.events) == ["go", "I ask", "cancelled"]
    assert [event.get_function_calls() for event in found.events] == [[], [], []]


async def test_updates_at_once_lose_nothing(trpc: trpc_agent.SessionService) -> None:
    """Summaries by one holder while others append."""
    await session_with(trpc, *"abcdef")

    async def append(name: str) -> None:
        session = await loaded(trpc)
        for number in range(10):
            await trpc.append_event(session, words(f"{name}{number}"))

    async def summarize() -> None:
        for number in range(5):
            session = await loaded(trpc)
            compacted(session, 3, f"summary {number}")
            await trpc.update_session(session)

    async with asyncio.TaskGroup() as tasks:
        for name in "xyz":
            tasks.create_task(append(name))
        tasks.create_task(summarize())
    found = await loaded(trpc)
    said = texts([*found.historical_events, *found.events])
    for name in "xyz":
        assert [each for each in said if each[0] == name] == [f"{name}{n}" for n in range(10)]
    assert sorted(each for each in said if each in "abcdef") == list("abcdef")
    assert sum(each.startswith("summary") for each in said) == 5


# -- what became of a log


class Some:
    """An event of a framework."""

    def __init__(self, name: str) -> None:
        self.id = name

    def __repr__(self) -> str:
        return self.id


def pieces_of(log: str) -> list[Piece[Some]]:
    return [Piece(OurEvent(author="a", seq=seq), [Some(name)]) for seq, name in enumerate(log, 1)]


def after(log: str, wanted: str, known: str | None) -> tuple[str, int]:
    stored = pieces_of(log)
    by_name = {piece.made[0].id: piece.made[0] for piece in stored}
    found = merged(stored, [by_name.get(name) or Some(name) for name in wanted], known)
    names = "".join(each.made[0].id if isinstance(each, Piece) else each.id for each in found)
    return names, unchanged(stored, found)


@pytest.mark.parametrize(
    ("log", "wanted", "known", "result"),
    [
        ("abc", "abc", "abc", ("abc", 3)),
        ("abc", "abS", "abc", ("abS", 2)),
        ("abc", "Sc", "abc", ("Sc", 0)),
        ("abc", "", "abc", ("", 0)),
        ("abc", "ab", "ab", ("abc", 3)),
        ("abxc", "Sc", "abc", ("Sxc", 0)),
        ("abx", "S", "ab", ("Sx", 0)),
        ("oab", "Sb", "ab", ("oSb", 1)),
        ("oabx", "S", "ab", ("oSx", 1)),
        ("abc", "X", None, ("X", 0)),
        ("abc", "cab", None, ("cab", 0)),
        ("axb", "ab", "ab", ("axb", 3)),
        ("", "ab", "", ("ab", 0)),
    ],
)
def test_a_log_is_merged(log: str, wanted: str, known: str | None, result: tuple[str, int]) -> None:
    """What is wanted, and what others have added, each where it was."""
    assert after(log, wanted, known) == result


@given(st.text("abcdef", max_size=6), st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_what_is_unknown_stays_in_its_order(log: str, data: st.DataObject) -> None:
    """Whatever is wanted of the rest."""
    log = "".join(dict.fromkeys(log))
    known = data.draw(st.sets(st.sampled_from(log))) if log else set[str]()
    wanted = "".join(data.draw(st.lists(st.sampled_from([*sorted(known), "X"]), max_size=6)))
    names, _ = after(log, wanted, "".join(known))
    others = [name for name in log if name not in known]
    assert [name for name in names if name in others] == others
    assert [name for name in names if name not in others] == list(wanted)


def test_places_are_written_as_runs() -> None:
    """In their order."""
    assert runs_of([1, 2, 3, 5, 4, 6, 7]) == [[1, 3], [5, 5], [4, 4], [6, 7]]
    assert runs_of([]) == []


# -- what others have stored


async def test_events_of_others_arrive(service: SessionService) -> None:
    """As the framework's own, with calls paired; an agent takes for its own what it is told to."""
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
    trpc = trpc_agent.SessionService(service, agent="helper")
    session = await loaded(trpc)
    assert [each for event in session.events for each in said_by(event)] == [
        ("text", "system", "Be brief."),
        ("text", "user", "Weather?"),
        ("text", "assistant", "I look."),
        ("call", "c", "weather", {}),
        ("result", "c", "Rain."),
        ("text", "assistant", "It rains."),
    ]
    assert [event.author for event in session.events] == ["system", "user", *["helper"] * 3]
    assert await run(runner_of(trpc), "And now?") == "And now?: 7"
    session = await loaded(trpc)
    compacted(session, 2)
    await trpc.update_session(session)
    found = await loaded(trpc)
    assert found.historical_events == session.historical_events
    assert len(found.historical_events) == 7


async def test_a_large_log_is_read_in_pieces(store_url: str, store_prefix: str) -> None:
    """Historical events too."""
    async with open_service(
        store_url, key_prefix=store_prefix, max_event_size=10_000, max_read_size=30_000
    ) as service:
        trpc = trpc_agent.SessionService(service)
        session = await session_with(trpc, *(f"{n} {'x' * 1000}" for n in range(40)))
        assert (await loaded(trpc)).events == session.events
        compacted(session, 1)
        await trpc.update_session(session)
        found = await loaded(trpc)
        assert found.historical_events == session.historical_events
        assert len(found.historical_events) == 39


async def test_it_takes_a_service_of_ours() -> None:
    """And says what it was given instead."""
    with pytest.raises(TypeError, match="an adapter takes a SessionService"):
        trpc_agent.SessionService("redis://localhost")  # type: ignore[arg-type]
