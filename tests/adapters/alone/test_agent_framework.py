"""Agent Framework's history, by the framework's own agents, workflows and providers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("agent_framework", reason="agent-framework-core is not installed")

import anyio
from agent_framework import (
    Agent,
    AgentExecutor,
    Content,
    InMemoryHistoryProvider,
    Message,
    WorkflowBuilder,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.canonical import said_in
from adapters.frameworks import agent_framework as framework
from adapters.frameworks.agent_framework import ScriptedClient, calls, message_of, says
from adapters.processes import ROOT, program
from agentsession import Data, Event, SessionKey, SessionService, Text, ToolCall, ToolResult
from agentsession import open_service as open_store
from agentsession.adapters import agent_framework as adapter
from agentsession.adapters.agent_framework import HistoryProvider
from agentsession.blocking import open_service
from agentsession.demo import SHIPPED_CONVERSATIONS
from agentsession.errors import EventTooLargeError
from agentsession.events import Media, Part, Reasoning
from agentsession.messages import openai_chat

KEY = SessionKey("app", "user", "chat")
BESIDE = ROOT.parent / "shared" / "data" / "airline_conversations.jsonl"
DOT = "iVBORw0KGgo="


@pytest.fixture
def history(service: SessionService) -> HistoryProvider:
    return HistoryProvider(service, app_name=KEY.app_name, user_id=KEY.user_id)


def dicts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [message.to_dict() for message in messages]


def texts(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages]


def conversations() -> list[list[dict[str, Any]]]:
    path = BESIDE if BESIDE.is_file() else SHIPPED_CONVERSATIONS
    return [json.loads(line)["messages"] for line in path.read_text("utf-8").splitlines()]


async def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"It rains in {city}."


# -- what is stored


ANNOTATION: Any = {"type": "citation", "title": "t", "url": "https://example.org"}
CALL = Content.from_function_call("c1", "look", arguments='{"a": 1}')
PICTURE = [Content.from_text("see"), Content.from_data(b"x", "image/png")]
EVERYTHING = [
    Content.from_text("Hello", annotations=[ANNOTATION]),
    Content.from_text(""),
    Content.from_text_reasoning(text="Hm.", protected_data="sealed", id="r1"),
    Content.from_text_reasoning(protected_data="sealed"),
    Content.from_data(b"\x89PNG", "image/png", name="dot"),
    Content.from_uri("https://example.org/a.pdf", media_type="application/pdf"),
    Content.from_uri("data:text/plain,a%20b", media_type="text/plain"),
    CALL,
    Content.from_function_call("c2", "look", arguments={"a": [1, None, 2.5]}),
    Content.from_function_call("c3", "look"),
    Content.from_function_result("c1", result="found"),
    Content.from_function_result("c2", result={"n": 1}),
    Content.from_function_result("c3", result="no", exception="ValueError: secret"),
    Content.from_function_result(
        "c3", result=[Content.from_text("see"), Content.from_data(b"x", "image/png")]
    ),
    Content.from_error(message="it broke", error_code="500"),
    Content.from_usage({"input_token_count": 3}),
    Content.from_hosted_file("file_1"),
    Content.from_function_approval_request("a1", CALL),
    Content.from_function_approval_response(approved=True, id="a1", function_call=CALL),
    Content.from_mcp_server_tool_call("m1", "search", server_name="s", arguments={"q": "x"}),
]


@pytest.mark.parametrize("content", EVERYTHING, ids=lambda each: f"{EVERYTHING.index(each)}")
async def test_a_message_comes_back_as_it_was(history: HistoryProvider, content: Content) -> None:
    """Whatever is in it: what the framework's own serialization keeps is kept."""
    message = Message(
        "assistant",
        [content],
        author_name="helper",
        message_id="m1",
        additional_properties={"mood": ["good", {"n": 1}]},
    )
    await history.save_messages("chat", [message])
    (found,) = await history.get_messages("chat")
    assert found.to_dict() == Message.from_dict(message.to_dict()).to_dict() == message.to_dict()


async def test_readers_see_the_parts_of_messages(
    service: SessionService, history: HistoryProvider
) -> None:
    """An agent's conversation is a conversation for everybody who reads the log."""
    result = Content.from_function_result("c1", result="found")
    await history.save_messages(
        "chat",
        [
            Message("system", ["Be brief."]),
            Message("user", ["Look.", Content.from_data(b"\x89PNG", "image/png", name="dot")]),
            Message(
                "assistant",
                [
                    Content.from_text_reasoning(text="Hm."),
                    "I look.",
                    Content.from_usage({"input_token_count": 3}),
                    CALL,
                ],
                author_name="helper",
            ),
            Message("tool", [result]),
            Message("assistant", [Content.from_hosted_file("f")], author_name="user"),
        ],
    )
    events = await service.get_events(KEY)
    assert [event.author for event in events] == ["system", "user", "helper", "tool", "assistant"]
    assert events[1].content == [Text("Look."), Media.from_bytes(b"\x89PNG", "image/png", "dot")]
    assert events[2].content == [
        Reasoning("Hm."),
        Text("I look."),
        ToolCall("c1", "look", '{"a": 1}'),
    ]
    assert events[3].content == [ToolResult("c1", "found", "look")]
    hosted = Content.from_hosted_file("f").to_dict()
    assert events[4].content == [Data(hosted, "application/vnd.agent-framework.content+json")]


async def test_a_result_says_whether_the_tool_failed(
    service: SessionService, history: HistoryProvider
) -> None:
    """Other frameworks tell their models so; what the exception said stays with the host."""
    failed = Content.from_function_result("c1", result="Error", exception="secret")
    shown = Content.from_function_result("c2", result=PICTURE)
    await history.save_messages("chat", [Message("tool", [failed, shown])])
    (event,) = await service.get_events(KEY)
    assert [result.is_error for result in event.tool_results] == [True, False]
    assert "secret" not in str(event)
    assert [item["type"] for item in event.tool_results[1].result] == ["text", "data"]


async def test_what_an_agent_adds_to_annotations_for_itself_is_left_out(
    history: HistoryProvider,
) -> None:
    """A provider's own objects cannot be stored, and the framework's stores leave them out too."""
    annotation: Any = {**ANNOTATION, "raw_representation": object()}
    text = Content.from_text("x", annotations=[annotation], raw_representation=object())
    await history.save_messages("chat", [Message("assistant", [text], raw_representation=object())])
    (found,) = await history.get_messages("chat")
    assert found.contents[0].annotations == [ANNOTATION]
    assert "raw_representation" in annotation


@pytest.mark.parametrize("session_id", [None, ""])
async def test_a_history_without_a_session_is_refused(
    history: HistoryProvider, session_id: str | None
) -> None:
    """One history for all who name no session would mix up their conversations."""
    with pytest.raises(ValueError, match="create_session"):
        await history.get_messages(session_id)
    with pytest.raises(ValueError, match="create_session"):
        await history.save_messages(session_id, [Message("user", ["Hello"])])


async def test_a_session_is_made_with_its_first_message(
    service: SessionService, history: HistoryProvider
) -> None:
    """To read, or to store nothing, leaves nothing behind."""
    assert await history.get_messages("chat") == []
    await history.save_messages("chat", [])
    assert await service.get_session(KEY) is None


async def test_users_are_told_by_a_function(service: SessionService) -> None:
    """One agent serves all users of an application."""
    history = HistoryProvider(service, app_name="app", user_id=lambda each: each.partition("/")[0])
    await history.save_messages("ada/1", [Message("user", ["Hello"])])
    assert await service.get_session(SessionKey("app", "ada", "ada/1"))


async def test_thousands_of_messages_are_stored(history: HistoryProvider) -> None:
    """A conversation of any length can be brought along."""
    messages = [Message("user", [f"{n}"]) for n in range(2500)]
    await history.save_messages("chat", messages)
    assert texts(await history.get_messages("chat")) == texts(messages)
    await history.save_messages("chat", [*messages, Message("user", ["new"])])
    assert texts(await history.get_messages("chat"))[2499:] == ["2499", "new"]


async def test_a_message_that_is_too_large_is_refused_by_name(history: HistoryProvider) -> None:
    """Whoever stores pictures learns what to change; the others of the call are not there."""
    with pytest.raises(EventTooLargeError, match="max_event_size"):
        await history.save_messages(
            "chat", [Message("user", ["a"]), Message("user", ["x" * 600_000])]
        )
    assert await history.get_messages("chat") == []


async def test_large_messages_are_saved_beside_large_ones(history: HistoryProvider) -> None:
    """The newest messages, which are read before others are stored, may be over the read limit."""
    messages = [Message("user", [f"{n}" + "x" * 450_000]) for n in range(80)]
    for first in range(0, 80, 40):
        await history.save_messages("chat", messages[first : first + 40])
    await history.save_messages("chat", [*messages, Message("user", ["new"])])
    assert [text[:3] for text in texts(await history.get_messages("chat"))][-2:] == ["79x", "new"]


# -- what is stored already


SAID = st.builds(
    lambda role, text, name: Message(role, [text], message_id=name),
    st.sampled_from(["user", "assistant"]),
    st.sampled_from("ab"),
    st.sampled_from([None, None, "1", "2"]),
)


@pytest.mark.parametrize("kept", [2, 32])
@given(saves=st.lists(st.lists(SAID, max_size=4), max_size=5))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_stored_already_is_left_out_as_the_framework_does_it(
    kept: int, saves: list[Any]
) -> None:
    """Whatever is saved after whatever, however much of it is remembered or has to be read."""

    async def check() -> None:
        state: dict[str, Any] = {}
        theirs = InMemoryHistoryProvider()
        async with open_store("memory://") as service:
            history = HistoryProvider(service, app_name="app", user_id="user")
            for messages in saves:
                await theirs.save_messages("chat", messages, state=state)
                await history.save_messages("chat", messages)
                assert dicts(await history.get_messages("chat")) == dicts(state.get("messages", []))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(adapter, "_KEPT", kept)
        anyio.run(check)


async def test_a_transcript_that_others_have_begun_is_not_stored_again(
    service: SessionService, history: HistoryProvider
) -> None:
    """A workflow hands over what it has read, also what another framework has stored."""
    await service.create_session(KEY)
    call: list[Part] = [Text("I look."), ToolCall("c", "look"), ToolResult("c", "found")]
    await service.append_events(
        KEY, [Event(author="user", content="Hello"), Event(author="helper", content=call)]
    )
    read = await history.get_messages("chat")
    assert [message.role for message in read] == ["user", "assistant", "tool"]
    await history.save_messages("chat", [*read, Message("user", ["new"])])
    assert dicts(await history.get_messages("chat"))[:3] == dicts(read)
    assert len(await service.get_events(KEY)) == 3


async def test_events_without_a_message_hide_no_messages(
    service: SessionService, history: HistoryProvider
) -> None:
    """What is stored is looked for behind the ends of turns, which say nothing."""
    turns = [Message(role, [f"{n}"]) for n in range(5) for role in ("user", "assistant")]
    await history.save_messages("chat", turns)
    for _ in range(30):
        await service.append_event(KEY, Event(author="helper", outcome="completed"))
    await history.save_messages("chat", [*turns[4:], Message("user", ["new"])])
    assert texts(await history.get_messages("chat")) == [*texts(turns), "new"]
    for _ in range(30):
        await service.append_event(KEY, Event(author="helper", outcome="completed"))
    others = [Message("user", ["x"]), Message("user", ["new"]), Message("user", ["y"])]
    await history.save_messages("chat", others)
    assert texts(await history.get_messages("chat")) == [*texts(turns), "new", "x", "new", "y"]


async def test_an_agent_that_goes_on_saves_without_reading(
    service: SessionService, history: HistoryProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has saved last is known, so that a turn costs one write."""
    await history.save_messages("chat", [Message("user", [f"{n}"]) for n in range(40)])
    monkeypatch.setattr(service, "get_or_create_session", None)
    for n in range(40, 50):
        await history.save_messages("chat", [Message("user", [f"{n}"])])
    assert len(history._known._known) == 1
    assert texts(await history.get_messages("chat")) == [f"{n}" for n in range(50)]


async def test_what_is_known_is_bounded_and_never_believed(
    service: SessionService, history: HistoryProvider
) -> None:
    """Others write to sessions, delete them and make them anew: the store is asked each time."""
    for number in range(300):
        await history.save_messages(f"{number}", [Message("user", ["a"])])
    assert len(history._known._known) < 300
    other = HistoryProvider(service, app_name="app", user_id="user")
    await history.save_messages("chat", [Message("user", ["a"])])
    await other.save_messages("chat", [Message("assistant", ["b"])])
    await history.save_messages("chat", [Message("assistant", ["b"]), Message("user", ["c"])])
    assert texts(await history.get_messages("chat")) == ["a", "b", "c"]
    await service.delete_session(KEY)
    await history.save_messages("chat", [Message("user", ["c"])])
    assert texts(await history.get_messages("chat")) == ["c"]


async def test_what_others_took_back_is_stored_again(
    history: HistoryProvider, service: SessionService
) -> None:
    """What a provider remembers as stored is so only if nobody has written since."""
    run = [Message("user", ["Hello"]), Message("assistant", ["Hi"])]
    await history.save_messages("chat", run)
    await service.rewind(KEY, to_seq=0)
    await history.save_messages("chat", run)
    assert texts(await history.get_messages("chat")) == ["Hello", "Hi"]
    await service.delete_session(KEY)
    await history.save_messages("chat", [*run, Message("user", ["Again"])])
    assert texts(await history.get_messages("chat")) == ["Hello", "Hi", "Again"]


async def test_savers_at_once_lose_nothing_and_store_nothing_twice(
    store_url: str, store_prefix: str
) -> None:
    """Agents of several processes save to one session, each transcript twice."""
    options: Any = {"key_prefix": store_prefix, "session_event_limit": None}
    async with open_store(store_url, **options) as one, open_store(store_url, **options) as two:
        services = [one, one] if store_url == "memory://" else [one, two]
        providers = [HistoryProvider(each, app_name="app", user_id="user") for each in services]
        turns = [[f"question {n}", f"answer {n}"] for n in range(12)]
        async with anyio.create_task_group() as tasks:
            for number, (asked, answered) in enumerate(turns):
                messages = [
                    Message("user", [asked], message_id=asked),
                    Message("assistant", [answered], message_id=answered),
                ]
                tasks.start_soon(providers[number % 2].save_messages, "chat", messages)
        found = texts(await providers[0].get_messages("chat"))
        assert sorted(found[::2]) == sorted(turn[0] for turn in turns)
        assert [text.replace("question", "answer") for text in found[::2]] == found[1::2]


async def test_one_transcript_from_two_processes_is_stored_once(
    store_url: str, store_prefix: str
) -> None:
    """What is stored already is looked for in the step in which the rest is stored."""
    options: Any = {"key_prefix": store_prefix}
    async with open_store(store_url, **options) as one, open_store(store_url, **options) as two:
        services = [one, one] if store_url == "memory://" else [one, two]
        providers = [HistoryProvider(each, app_name="app", user_id="user") for each in services]
        messages = [Message("user", ["a"]), Message("assistant", ["b"])]
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(providers[number % 2].save_messages, "chat", messages)
        assert texts(await providers[0].get_messages("chat")) == ["a", "b"]


def test_agents_on_other_loops_and_threads_are_served(store_url: str, store_prefix: str) -> None:
    """A blocking service takes any loop: one a turn, as asyncio.run gives it."""
    with open_service(store_url, key_prefix=store_prefix) as service:
        history = HistoryProvider(service, app_name="app", user_id="user")

        def turn(number: int) -> None:
            anyio.run(history.save_messages, "chat", [Message("user", [f"{number}"])])

        with ThreadPoolExecutor() as threads:
            list(threads.map(turn, range(8)))
        assert sorted(texts(anyio.run(history.get_messages, "chat"))) == [f"{n}" for n in range(8)]


# -- agents


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("each_call", [False, True])
async def test_an_agent_goes_on_with_its_conversation(
    service: SessionService, stream: bool, each_call: bool
) -> None:
    """Several turns with tools, each by a new agent: the model sees all that was said."""

    async def turn(asked: str, *answers: framework.Answer) -> list[Message]:
        client = ScriptedClient(*answers)
        history = HistoryProvider(service, app_name="app", user_id="user")
        agent = Agent(
            client,
            tools=[weather],
            context_providers=[history],
            require_per_service_call_history_persistence=each_call,
        )
        session = agent.create_session(session_id="chat")
        if stream:
            streamed = agent.run(asked, session=session, stream=True)
            _ = [update async for update in streamed]
            await streamed.get_final_response()
        else:
            await agent.run(asked, session=session)
        assert client.answers == []
        return client.saw[-1]

    await turn("And Oslo?", calls("c1", "weather", city="Oslo"), says("Rain in Oslo."))
    await turn("Thanks", says("Welcome."))
    saw = await turn("And Rome?", calls("c2", "weather", city="Rome"), says("Rain in Rome."))
    said = [line for message in saw for line in framework.said_by(message)]
    assert said == [
        ("text", "user", "And Oslo?"),
        ("call", "c1", "weather", {"city": "Oslo"}),
        ("result", "c1", "It rains in Oslo."),
        ("text", "assistant", "Rain in Oslo."),
        ("text", "user", "Thanks"),
        ("text", "assistant", "Welcome."),
        ("text", "user", "And Rome?"),
        ("call", "c2", "weather", {"city": "Rome"}),
        ("result", "c2", "It rains in Rome."),
    ]
    assert await framework.read(service, KEY) == [*said, ("text", "assistant", "Rain in Rome.")]


async def test_agents_of_a_workflow_store_each_message_once(service: SessionService) -> None:
    """Agents hand the whole conversation on, and each keeps it in a session of its own."""
    agents = []
    for name in ("writer", "critic"):
        history = HistoryProvider(service, app_name="app", user_id=name)
        client = ScriptedClient(*[says(f"{name} {n}") for n in range(2)])
        agents.append(Agent(client, name=name, context_providers=[history]))
    writer, critic = (
        AgentExecutor(agent, session=agent.create_session(session_id="chat")) for agent in agents
    )
    workflow = WorkflowBuilder(start_executor=writer).add_edge(writer, critic).build()
    for asked in ("one", "two"):
        await workflow.run(Message("user", [asked]))
    for name in ("writer", "critic"):
        history = HistoryProvider(service, app_name="app", user_id=name)
        found = texts(await history.get_messages("chat"))
        assert len(found) == len(set(found)), found


def test_a_killed_agent_goes_on_where_it_was(valkey_url: str, store_prefix: str) -> None:
    """A turn that died at its tool is not there; all turns before it are."""
    arguments = ("agent_framework_turns", valkey_url, store_prefix, "chat")
    with program(*arguments) as first:
        for asked in ("one", "two"):
            first.say(asked)
            assert first.answer() == {"at": "tool"}
            if asked == "one":
                first.say()
                assert first.answer() == {"said": "one: 3", "saw": 3}
    with program(*arguments) as second:
        second.say("three")
        assert second.answer() == {"at": "tool"}
        second.say()
        assert second.answer() == {"said": "three: 7", "saw": 7}


def test_two_processes_on_one_session_lose_nothing(valkey_url: str, store_prefix: str) -> None:
    """Turns at the same time stand one after the other in the log, each whole."""
    arguments = ("agent_framework_turns", valkey_url, store_prefix, "chat")
    with program(*arguments) as first, program(*arguments) as second:
        for asked in ("one", "two"):
            for each, name in ((first, "a"), (second, "b")):
                each.say(f"{name} {asked}")
                assert each.answer() == {"at": "tool"}
            for each in (first, second):
                each.say()
            for each in (first, second):
                assert "said" in each.answer()

    async def check() -> None:
        async with open_store(valkey_url, key_prefix=store_prefix) as service:
            lines = await framework.read(service, SessionKey("app", "user", "chat"))
            turns = [lines[first : first + 4] for first in range(0, 16, 4)]
            assert sorted(turn[0][2] for turn in turns) == ["a one", "a two", "b one", "b two"]
            for asked, call, result, said in turns:
                assert call[1] == result[1] == f"call {asked[2]}"
                assert said[2].startswith(asked[2])

    anyio.run(check)


# -- what others have stored


async def test_conversations_of_others_are_read(service: SessionService) -> None:
    """Texts, calls, results and their order arrive as messages of the framework."""
    for number, messages in enumerate(conversations()):
        key = SessionKey("app", "user", f"{number}")
        await service.create_session(key)
        await service.append_events(key, openai_chat.from_messages(messages))
        assert await framework.read(service, key) == said_in(messages)


async def test_conversations_are_read_by_others(service: SessionService) -> None:
    """All that is said reaches whoever reads parts, and comes back as the same objects."""
    for number, messages in enumerate(conversations()):
        key = SessionKey("app", "user", f"{number}")
        await framework.write(service, key, messages)
        session: Any = await service.get_session(key)
        assert said_in(openai_chat.to_messages(session.events)) == said_in(messages)  # type: ignore[arg-type]
        assert await framework.read(service, key) == said_in(messages)
        history = HistoryProvider(service, app_name="app", user_id="user")
        written = [message_of(message, f"{n}") for n, message in enumerate(messages)]
        assert dicts(await history.get_messages(f"{number}")) == dicts(written)


async def test_parts_of_others_become_contents(
    service: SessionService, history: HistoryProvider
) -> None:
    """Whatever can be said is said, and what cannot is named."""
    await service.create_session(KEY)
    parts: list[Part] = [
        Reasoning("Hm."),
        Reasoning("", {"anthropic": {"data": "sealed"}}),
        Text(""),
        Media("image/png", uri="https://example.org/a.png"),
        Media("image/png", data=DOT, name="dot"),
        ToolCall("c1", "look", {"a": 1}),
        ToolCall("c2", "look", [1]),
        Data({"card": 1}),
    ]
    results = [
        ToolResult("c1", [{"n": 1}]),
        ToolResult("c2", "no", is_error=True),
        ToolResult("c3"),
    ]
    await service.append_events(
        KEY,
        [
            Event(author="developer", content="Be brief."),
            Event(author="helper", content=parts, id="said"),
            Event(author="tool", content=[*results]),
            Event(author="helper", outcome="completed"),
        ],
    )
    messages: Any = await history.get_messages("chat")
    assert [message.role for message in messages] == ["system", "assistant", "tool"]
    said = messages[1]
    assert (said.author_name, said.message_id) == ("helper", "said")
    assert [content.type for content in said.contents] == [
        "text_reasoning",
        "uri",
        "data",
        "function_call",
        "function_call",
    ]
    assert said.contents[2].uri == f"data:image/png;base64,{DOT}"
    assert [content.arguments for content in said.contents[3:]] == [{"a": 1}, "[1]"]
    answers = messages[2].contents
    assert [content.result for content in answers[:2]] == ['[{"n":1}]', "no"]
    assert [content.exception is None for content in answers] == [True, False, True]
    assert ["said" in loss.where for loss in messages.lost] == [True, True]


async def test_messages_that_a_compaction_has_excluded_can_be_left_out(
    service: SessionService, history: HistoryProvider
) -> None:
    """The framework's own stores have this option."""
    excluded = Message("user", ["old"], additional_properties={"_excluded": True})
    await history.save_messages("chat", [excluded, Message("user", ["new"])])
    short = HistoryProvider(service, app_name="app", user_id="user", skip_excluded=True)
    assert texts(await history.get_messages("chat")) == ["old", "new"]
    assert texts(await short.get_messages("chat")) == ["new"]


def test_only_a_service_and_proper_ids_are_taken() -> None:
    """A mistake is told where it is made."""
    with pytest.raises(TypeError, match="takes a SessionService"):
        HistoryProvider(object(), app_name="app", user_id="user")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="user_id must not be empty"):
        HistoryProvider(open_store("memory://"), app_name="app", user_id="")
