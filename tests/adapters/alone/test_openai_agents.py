"""OpenAI Agents on the store: its runner, what it expects of a session, what bites elsewhere."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("agents")

import anyio
from agents import Agent, RunConfig, Runner, function_tool
from agents.memory import OpenAIResponsesCompactionSession, Session, SessionSettings
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message, function_call
from openai import AsyncOpenAI

from adapters.canonical import Said
from adapters.frameworks.openai_agents import said_by
from adapters.processes import program
from agentsession import (
    Event,
    InMemorySessionService,
    SessionKey,
    SessionService,
    ToolCall,
    ToolResult,
    UserKey,
)
from agentsession import Runner as OurRunner
from agentsession import open_service as open_service_here
from agentsession.adapters.openai_agents import AgentSession
from agentsession.blocking import BlockingSessionService, open_service
from agentsession.errors import EventLoopError, LeaseLostError
from agentsession.events import Reasoning, Text

KEY = SessionKey("app", "user", "chat")
QUIET = RunConfig(tracing_disabled=True)


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def words(items: Sequence[Any]) -> list[Any]:
    return [item["content"] for item in items]


@function_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"It rains in {city}."


def last_said(call: ModelCall) -> list[Any]:
    """Say how many items the model was shown, and which came last."""
    return [assistant_message(f"{len(call.input)} items")]


def agent_of(*steps: Any) -> Agent[None]:
    return Agent(name="helper", model=ScriptedModel(steps), tools=[weather])


# -- the runner


async def test_a_conversation_with_tools(service: SessionService) -> None:
    """Each turn goes on where the last one ended, for the framework and for every other reader."""
    for turn in range(3):
        # A new object each time, as a process that was started anew has it.
        agent = agent_of(
            [function_call("weather", {"city": "Oslo"}, call_id=f"call {turn}")],
            ModelStep.respond(last_said),
        )
        session = AgentSession(service, KEY)
        result = await Runner.run(agent, f"turn {turn}", session=session, run_config=QUIET)
        assert result.final_output == f"{4 * turn + 3} items"
    events = await service.get_events(KEY)
    assert [event.author for event in events] == ["user", "assistant", "tool", "assistant"] * 3
    assert [call.arguments for event in events for call in event.tool_calls] == [
        {"city": "Oslo"}
    ] * 3
    assert [each.result for event in events for each in event.tool_results] == [
        "It rains in Oslo."
    ] * 3
    history = await service.get_history(KEY, max_turns=1)
    assert [event.text for event in history] == ["turn 2", "", "", "11 items"]


async def test_a_stream_is_stored_as_any_turn(service: SessionService) -> None:
    """What was streamed is there once it ends."""
    session = AgentSession(service, KEY)
    result = Runner.run_streamed(
        agent_of([assistant_message("Hello!")]), "Hi", session=session, run_config=QUIET
    )
    async for _ in result.stream_events():
        pass
    assert [said_by(dict(item)) for item in await session.get_items()] == [
        [("text", "user", "Hi")],
        [("text", "assistant", "Hello!")],
    ]


def test_two_processes_write_to_one_session(valkey_url: str, store_prefix: str) -> None:
    """Nothing is lost, and nothing is there twice."""
    where = (valkey_url, store_prefix, "chat")
    with (
        program("openai_agents_turns", *where) as one,
        program("openai_agents_turns", *where) as two,
    ):
        for turn in range(5):
            one.say(f"one {turn}")
            two.say(f"two {turn}")
            for each in (one, two):
                assert each.answer() == {"at": "tool"}
                each.say()
            assert one.answer()["said"].startswith(f"one {turn}: ")
            assert two.answer()["said"].startswith(f"two {turn}: ")
    with open_service(valkey_url, key_prefix=store_prefix) as service:
        events = service.get_events(KEY)
    texts = [event.text for event in events if event.author == "user"]
    assert sorted(texts) == sorted(f"{name} {turn}" for name in ("one", "two") for turn in range(5))
    assert len(events) == 40
    results = [each.call_id for event in events for each in event.tool_results]
    assert len(results) == len(set(results)) == 10


# -- loops and threads


def blocking(url: str, prefix: str) -> BlockingSessionService:
    return open_service(url, key_prefix=prefix, session_event_limit=None)


@pytest.fixture
def default_loop() -> Iterator[None]:
    """The loop of this thread that ``run_sync`` takes, and leaves open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.usefixtures("default_loop")
def test_run_sync_and_other_loops_share_a_session(store_url: str, store_prefix: str) -> None:
    """One session object goes through all of them."""
    with blocking(store_url, store_prefix) as service:
        session = AgentSession(service, KEY)
        for turn in range(3):
            agent = agent_of(ModelStep.respond(last_said))
            result = Runner.run_sync(agent, "Hi", session=session, run_config=QUIET)
            assert result.final_output == f"{2 * turn + 1} items"
        assert len(asyncio.run(session.get_items())) == 6


def test_threads_share_a_session(store_url: str, store_prefix: str) -> None:
    """Each with loops of its own; each pop gets another item."""
    with blocking(store_url, store_prefix) as service:
        session = AgentSession(service, KEY)

        async def write(name: str) -> None:
            for number in range(20):
                await session.add_items([user(f"{name}{number}")])

        def run(name: str) -> None:
            asyncio.run(write(name))

        threads = [threading.Thread(target=run, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        items = words(asyncio.run(session.get_items()))
        assert sorted(items) == sorted(f"{name}{number}" for name in "abcd" for number in range(20))


async def test_a_service_of_another_loop_says_what_to_take(service: SessionService) -> None:
    """Not a strange error of a socket."""
    session = AgentSession(service, KEY)
    await session.get_items()

    def elsewhere() -> None:
        with pytest.raises(EventLoopError, match=r"agentsession\.blocking"):
            asyncio.run(session.get_items())

    await asyncio.to_thread(elsewhere)


# -- items


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
ITEMS: tuple[Any, ...] = (
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": "gAAAA==",
    },
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
        "provider_data": {"model": "x", "n": None},
    },
    {
        "type": "function_call",
        "call_id": "c",
        "name": "f",
        "arguments": ' {"a":1.0,  "b": 1e3}',
        "id": "fc",
    },
    {
        "type": "function_call_output",
        "call_id": "c",
        "output": [{"type": "input_text", "text": "x"}],
    },
    {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "ls -l"},
    {"type": "custom_tool_call_output", "call_id": "d", "output": "total 0"},
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "xyz"},
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
    {
        "type": "mcp_approval_request",
        "id": "m",
        "arguments": "{}",
        "name": "t",
        "server_label": "s",
    },
    {
        "role": "user",
        "content": [
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"}
        ],
    },
    {"role": "developer", "content": "Be brief."},
    {"type": "item_reference", "id": "msg_9"},
    {"id": "msg_9"},
    {"role": "user", "content": None, "strange": True},
)


async def test_items_come_back_as_they_were(service: SessionService) -> None:
    """Ids, what is encrypted, provider data, arguments to the letter; also what is malformed."""
    session = AgentSession(service, KEY)
    await session.add_items([*ITEMS])
    found = await AgentSession(service, KEY).get_items()
    assert json.dumps(found) == json.dumps(ITEMS)


@given(
    item=st.dictionaries(st.sampled_from(["type", "role", "content", "id", "x"]), JSON, max_size=4)
)
@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_anything_that_is_json_comes_back(item: Any) -> None:
    """As every session of the framework keeps it."""
    with open_service("memory://") as service:
        session = AgentSession(service, KEY)
        asyncio.run(session.add_items([item]))
        assert json.dumps(asyncio.run(session.get_items())) == json.dumps([item])


async def test_others_see_the_parts(service: SessionService) -> None:
    """Not a blob: text, thoughts, calls with arguments that were parsed, results."""
    await AgentSession(service, KEY).add_items([*ITEMS[:4]])
    events = await service.get_events(KEY)
    content = [event.content for event in events]
    assert isinstance(content[0], list)
    assert isinstance(content[0][0], Reasoning)
    assert content[0][0].text == "Hm."
    assert events[1].text == "Hi"
    assert isinstance(content[2], list)
    assert isinstance(content[2][0], ToolCall)
    assert content[2][0].arguments == {"a": 1.0, "b": 1000.0}
    assert [each.call_id for each in events[3].tool_results] == ["c"]


async def test_what_others_have_stored_is_shown(service: SessionService) -> None:
    """One event may be several items, or none."""
    await store_of_others(service)
    session = AgentSession(service, KEY)
    found: list[Said] = []
    for item in await session.get_items():
        found += said_by(dict(item))
    assert found == OF_OTHERS
    assert len(await session.get_items(limit=2)) == 2


async def store_of_others(service: SessionService) -> None:
    await service.create_session(KEY)
    await service.append_events(
        KEY,
        [
            Event(author="user", content="Weather?"),
            Event(
                author="helper",
                content=[Text("Let me see."), ToolCall("c1", "weather", {"city": "Oslo"})],
            ),
            Event(author="tool", content=[ToolResult("c1", {"sky": "grey"}, "weather")]),
            Event(author="helper", content="Grey."),
            Event(author="helper", metadata={"ends": True}),
        ],
    )


OF_OTHERS: list[Said] = [
    ("text", "user", "Weather?"),
    ("text", "assistant", "Let me see."),
    ("call", "c1", "weather", {"city": "Oslo"}),
    ("result", "c1", '{"sky":"grey"}'),
    ("text", "assistant", "Grey."),
]


# -- limits and settings


@pytest.mark.parametrize(
    ("given_settings", "limit", "seen"),
    [
        (None, None, 5),
        (None, 2, 2),
        (None, 0, 0),
        (None, -1, 0),
        (None, 9, 5),
        ({"limit": 3}, None, 3),
        ({"limit": 3}, 4, 4),
        ({"limit": 0}, None, 0),
        (SessionSettings(limit=1), None, 1),
        ({}, None, 5),
    ],
)
async def test_limits(
    service: SessionService, given_settings: Any, limit: int | None, seen: int
) -> None:
    """An explicit one beats the settings; 0 is none, not all; the newest, oldest first."""
    session = AgentSession(service, KEY, session_settings=given_settings)
    await session.add_items([user(str(n)) for n in range(5)])
    assert words(await session.get_items(limit)) == [str(n) for n in range(5 - seen, 5)]


async def test_settings_may_be_changed_to_a_dict(service: SessionService) -> None:
    """The framework allows it."""
    session = AgentSession(service, KEY)
    await session.add_items([user("a"), user("b")])
    session.session_settings = {"limit": 1}  # type: ignore[assignment]
    assert words(await session.get_items()) == ["b"]


def test_an_unknown_setting_is_refused() -> None:
    """As the framework's own sessions do."""
    with pytest.raises(TypeError, match="limits"):
        AgentSession(InMemorySessionService(), KEY, session_settings={"limits": 1})
    with pytest.raises(TypeError, match="an adapter takes a SessionService"):
        AgentSession("redis://localhost", KEY)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a SessionKey"):
        AgentSession(InMemorySessionService(), "chat")  # type: ignore[arg-type]


async def test_it_is_a_session_of_theirs(service: SessionService) -> None:
    """Its ids are ours; without one it gets one, and nothing is made before it is used."""
    session: Session = AgentSession(service, SessionKey("app", "user"))
    assert isinstance(session, Session)
    assert len(session.session_id) == 32
    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.clear_session()
    await session.add_items([])
    assert (await service.list_sessions(UserKey("app", "user"))).sessions == []
    await session.add_items([user("a")])
    assert (await service.list_sessions("app")).sessions[0].id == session.session_id


async def test_many_items_at_once(service: SessionService) -> None:
    """More than a step takes."""
    session = AgentSession(service, KEY)
    await session.add_items([user(str(n)) for n in range(2345)])
    assert words(await session.get_items()) == [str(n) for n in range(2345)]
    assert words(await session.get_items(1500)) == [str(n) for n in range(845, 2345)]


async def test_a_log_that_was_trimmed(store_url: str, store_prefix: str) -> None:
    """What is left is all there is; to look for more of it ends."""
    options: Any = {"key_prefix": store_prefix, "session_event_limit": 3}
    async with open_service_here(store_url, **options) as service:
        session = AgentSession(service, KEY)
        await session.add_items([user(str(n)) for n in range(10)])
        left = words(await session.get_items())
        assert left == words(await session.get_items(limit=8))
        assert left[-1] == "9"
        snapshot = await session._get_compaction_snapshot(8)
        assert snapshot is not None
        assert snapshot.complete
        assert words(snapshot.items) == left
        assert await session.pop_item() == user("9")
        await session.clear_session()
        assert await session.get_items(limit=8) == []


# -- popping and clearing


async def test_pop_takes_the_newest(service: SessionService) -> None:
    """Down to none; then the next item is the first again."""
    session = AgentSession(service, KEY)
    await session.add_items([*ITEMS[:3]])
    assert [await session.pop_item() for _ in range(4)] == [*ITEMS[2::-1], None]
    await session.add_items([user("again")])
    assert words(await session.get_items()) == ["again"]


async def test_each_pop_gets_another_item(service: SessionService) -> None:
    """Also while others add: no item is popped twice, and none is lost."""
    session = AgentSession(service, KEY)
    await session.add_items([user(str(n)) for n in range(20)])
    popped: list[Any] = []

    async def pop() -> None:
        popped.append(await session.pop_item())

    async with anyio.create_task_group() as group:
        for number in range(20, 30):
            group.start_soon(pop)
            group.start_soon(session.add_items, [user(str(number))])
    left = words(await session.get_items())
    assert len(popped) == 10
    assert sorted([*words(popped), *left], key=int) == [str(n) for n in range(30)]


async def test_a_pop_that_comes_late_reads_no_more_than_it_pops(service: SessionService) -> None:
    """Many at once would read the whole session each, again and again."""
    session = AgentSession(service, KEY)
    await session.add_items([user(str(n)) for n in range(100)])
    read: list[int] = []
    get_session = service.get_session

    async def note(*args: Any, **kwargs: Any) -> Any:
        found = await get_session(*args, **kwargs)
        read.append(len(found.events) if found else 0)
        if len(read) == 1:  # Somebody else is faster.
            await AgentSession(service, KEY).pop_item()
        return found

    service.get_session = note  # type: ignore[method-assign]
    assert await session.pop_item() == user("98")
    assert max(read) == 2


async def test_items_over_the_limit_of_a_read(store_url: str, store_prefix: str) -> None:
    """Whoever asks for the newest ones gets them, as whoever asks for all does."""
    options: Any = {"key_prefix": store_prefix, "max_read_size": 100_000, "max_event_size": 40_000}
    async with open_service_here(store_url, **options) as service:
        session = AgentSession(service, KEY)
        for number in range(12):
            await session.add_items([user(f"{number}" + "x" * 15_000)])
        assert await session.get_items(8) == (await session.get_items())[-8:]
        snapshot = await session._get_compaction_snapshot(8)
        assert snapshot is not None
        await service.update_session_state(KEY, {"seen": True})  # The revision is another one.
        assert await snapshot.replace_suffix(len(snapshot.items) - 1, [user("end")])
        assert words(await session.get_items())[-1] == "end"


async def test_a_part_of_an_event_of_others_is_popped(service: SessionService) -> None:
    """An item is less than an event there; the rest of it stays."""
    await store_of_others(service)
    session = AgentSession(service, KEY)
    popped: list[Said] = []
    while item := await session.pop_item():
        popped += said_by(dict(item))
        left = [said for each in await session.get_items() for said in said_by(dict(each))]
        assert left == OF_OTHERS[: len(left)]
        assert left + popped[::-1] == OF_OTHERS
    assert popped[::-1] == OF_OTHERS


async def test_a_turn_of_our_runner_is_popped_from(service: SessionService) -> None:
    """Its log cannot go back into the middle of a turn, so what is left of it is no turn."""

    async def echo(context: Any) -> AsyncIterator[Event]:
        yield Event(author="echo", content="one")
        yield Event(author="echo", content="two")

    runner = OurRunner("app", echo, service)
    for turn in range(2):
        async for _ in runner.run("user", "chat", f"turn {turn}"):
            pass
    session = AgentSession(service, KEY)
    assert said_by(dict(await session.pop_item() or {})) == [("text", "assistant", "two")]
    found = [said for each in await session.get_items() for said in said_by(dict(each))]
    assert [text for _, _, text in found] == ["turn 0", "one", "two", "turn 1", "one"]
    async for _ in runner.run("user", "chat", "turn 2"):
        pass
    assert len(await session.get_items()) == 8


async def test_a_turn_that_runs_loses_the_session(service: SessionService) -> None:
    """It stores nothing behind what was taken back from it."""
    go_on, asked = anyio.Event(), anyio.Event()

    async def slow(context: Any) -> AsyncIterator[Event]:
        yield Event(author="slow", content="one")
        asked.set()
        await go_on.wait()
        yield Event(author="slow", content="two")

    runner = OurRunner("app", slow, service)
    run = runner.run("user", "chat", "Hi")
    await run.start()
    await asked.wait()
    session = AgentSession(service, KEY)
    assert said_by(dict(await session.pop_item() or {})) == [("text", "assistant", "one")]
    go_on.set()
    with pytest.raises(LeaseLostError):
        await run.result()
    assert words(await session.get_items()) == ["Hi"]
    await runner.aclose()


async def test_what_is_put_back_changes_no_state_again(service: SessionService) -> None:
    """A copy says again what was said; what it did to state was done, and may be old by now."""
    await service.create_session(KEY)
    turn = [
        Event(author="user", content="Hi", invocation_id="turn"),
        Event(author="bot", content="one", invocation_id="turn", state_delta={"n": 1}),
        Event(author="bot", content="two", invocation_id="turn", outcome="completed"),
    ]
    await service.append_events(KEY, turn)
    await service.update_session_state(KEY, {"n": 2})
    await AgentSession(service, KEY).pop_item()
    found = await service.get_session(KEY)
    assert found is not None
    assert found.state == {"n": 2}
    assert [event.text for event in found.events] == ["Hi", "one"]


async def test_clear_keeps_the_session(service: SessionService) -> None:
    """Its state stays, and so does what was said, for those who look for it."""
    session = AgentSession(service, KEY)
    await session.add_items([user("a"), user("b")])
    await service.update_session_state(KEY, {"name": "Ada"})
    await session.clear_session()
    assert await session.get_items() == []
    await session.add_items([user("c")])
    assert words(await session.get_items()) == ["c"]
    found = await service.get_session(KEY)
    assert found is not None
    assert found.state == {"name": "Ada"}
    assert [event.text for event in await service.get_events(KEY, raw=True)] == ["a", "b", "", "c"]


# -- compaction


async def test_compaction_replaces_all(service: SessionService) -> None:
    """After each turn, in one step, by what the user's function makes of it."""
    seen: list[int] = []

    async def compact(items: list[Any]) -> list[Any] | None:
        seen.append(len(items))
        return [user(f"{len(items)} items")] if len(items) > 4 else None

    session = AgentSession(service, KEY, compact=compact)
    for turn in range(4):
        agent = agent_of([assistant_message(f"answer {turn}")])
        await Runner.run(agent, f"turn {turn}", session=session, run_config=QUIET)
    assert seen == [2, 4, 6, 3]
    assert words(await session.get_items())[0] == "6 items"


async def test_what_is_added_meanwhile_stays(service: SessionService) -> None:
    """At the end, after what it was compacted to."""
    other = AgentSession(service, KEY)

    async def compact(items: list[Any]) -> list[Any]:
        await other.add_items([user("meanwhile")])
        return [user("short")]

    session = AgentSession(service, KEY, compact=compact)
    await session.add_items([user("a"), user("b")])
    await session.run_compaction()
    assert words(await session.get_items()) == ["short", "meanwhile"]


async def test_what_is_taken_back_meanwhile_stays_away(
    service: SessionService, caplog: pytest.LogCaptureFixture
) -> None:
    """A summary of it would bring it back; so the history stays as it is, and a line says so."""
    other = AgentSession(service, KEY)

    async def compact(items: list[Any]) -> list[Any]:
        await other.pop_item()
        return [user("short")]

    session = AgentSession(service, KEY, compact=compact)
    await session.add_items([user("a"), user("b")])
    await session.run_compaction()
    assert words(await session.get_items()) == ["a"]
    assert "stays as it is" in caplog.text


@asynccontextmanager
async def compaction_server() -> AsyncIterator[tuple[AsyncOpenAI, list[dict[str, Any]]]]:
    """Answer ``responses.compact`` as OpenAI does, with a message that says how much there was."""
    asked: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.split("content-length:")[1].split("\r\n")[0])
        request = json.loads(await reader.readexactly(size))
        asked.append(request)
        text = f"{len(request['input'])} items"
        answer = {
            "id": "resp_1",
            "object": "response.compaction",
            "created_at": 1,
            "output": [
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": text}],
                }
            ],
            "usage": {
                "input_tokens": 1,
                "output_tokens": 1,
                "total_tokens": 2,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        }
        body = json.dumps(answer).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}") as client:
            yield client, asked


async def test_the_frameworks_compaction_takes_one_step(service: SessionService) -> None:
    """By hand, and after a turn by itself: of what the model has seen, and nothing of others."""
    async with compaction_server() as (client, asked):
        inner = AgentSession(service, KEY)
        session = OpenAIResponsesCompactionSession(
            "chat",
            inner,
            client=client,
            compaction_mode="input",
            should_trigger_compaction=lambda _: True,
        )
        await inner.add_items([user(str(n)) for n in range(3)])
        await session.run_compaction({"force": True})
        assert words(await inner.get_items()) == [[{"type": "input_text", "text": "3 items"}]]
        marks = [e for e in await service.get_events(KEY, raw=True) if e.rewind]
        assert len(marks) == 1
        await Runner.run(
            agent_of([assistant_message("answer")]), "more", session=session, run_config=QUIET
        )
        assert len(asked) == 2
        assert words(await inner.get_items()) == [[{"type": "input_text", "text": "3 items"}]]
        # In the same step: the log never was without a history.
        raw = await service.get_events(KEY, raw=True)
        assert [event.rewind is not None for event in raw][-2:] == [True, False]


async def test_a_suffix_is_replaced_if_it_is_the_end_still(service: SessionService) -> None:
    """And the older items stay; state that changes meanwhile is no hindrance."""
    session = AgentSession(service, KEY)
    await session.add_items([user(str(n)) for n in range(6)])
    snapshot = await session._get_compaction_snapshot(4)
    assert snapshot is not None
    assert not snapshot.complete
    assert words(snapshot.items) == ["2", "3", "4", "5"]
    await service.update_session_state(KEY, {"a": 1})
    assert await snapshot.replace_suffix(1, [user("short")])
    assert words(await session.get_items()) == ["0", "1", "2", "short"]
    stale = await session._get_compaction_snapshot(10)
    assert stale is not None
    assert stale.complete
    await session.add_items([user("late")])
    assert not await stale.replace_suffix(0, [user("shorter")])
    assert words(await session.get_items()) == ["0", "1", "2", "short", "late"]


async def test_a_session_that_is_gone_is_not_compacted(service: SessionService) -> None:
    """Whoever deletes it meanwhile has the last word."""

    async def compact(items: list[Any]) -> list[Any]:
        await service.delete_session(KEY)
        return [user("short")]

    session = AgentSession(service, KEY, compact=compact)
    await session.add_items([user("a")])
    await session.run_compaction()
    assert await service.get_session(KEY) is None
    await session.run_compaction()
    await AgentSession(service, KEY).run_compaction()
    assert await session._atomic_replace_items([user("new")])
    assert words(await session.get_items()) == ["new"]


async def test_a_session_with_items_of_its_own_is_left_to_its_class(
    service: SessionService,
) -> None:
    """A subclass may change what goes in and out; the framework then goes through its methods."""

    class Shouting(AgentSession):
        pass

    session = Shouting(service, KEY)
    await session.add_items([user("a")])
    assert await session._get_compaction_snapshot(1) is None
    assert not await session._atomic_replace_items([user("b")])
