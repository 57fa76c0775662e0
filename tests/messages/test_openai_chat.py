"""Messages of OpenAI's Chat Completions: there and back, by the provider's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage, ChatCompletionMessageParam
from pydantic import TypeAdapter

from agentsession import Data, Event, Text, ToolCall, ToolResult
from agentsession.demo import SHIPPED_CONVERSATIONS
from agentsession.events import EventError, Media, Part, Reasoning
from agentsession.history import View
from agentsession.messages import Loss
from agentsession.messages.openai_chat import from_messages, to_messages
from messages.checking import check_all_is_said, check_types, stored

PARAM: TypeAdapter[Any] = TypeAdapter(ChatCompletionMessageParam)

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
names = st.sampled_from(["bob", "ann-1"])
encoded = st.sampled_from(["QUJD", "AA=="])


def part(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


text_parts = st.builds(lambda text: part("text", text=text), words)
user_parts = st.one_of(
    text_parts,
    st.builds(
        lambda url, detail: part("image_url", image_url={"url": url, **detail}),
        st.sampled_from(
            ["https://a/b.png?x=1", "http://a/b", "data:image/png;base64,QUJD", "data:;base64,QUJD"]
        ),
        st.sampled_from([{}, {"detail": "low"}]),
    ),
    st.builds(
        lambda data, kind: part("input_audio", input_audio={"data": data, "format": kind}),
        encoded,
        st.sampled_from(["wav", "mp3"]),
    ),
    st.builds(
        lambda file: part("file", file=file),
        st.sampled_from(
            [
                {"file_id": "file-1"},
                {"file_id": "file-1", "filename": "a.pdf"},
                {"file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"},
                {"file_data": "data:image/png;base64,QUJD", "filename": "a.png"},
                {"file_data": "QUJD", "filename": "a.pdf"},
                {"filename": "nothing"},
            ]
        ),
    ),
)
said = st.builds(lambda name: {} if name is None else {"name": name}, st.none() | names)
arguments = st.one_of(
    st.sampled_from(
        [
            '{"a":1}',
            '{"a": 1}',
            "{}",
            "[1]",
            '"a"',
            "",
            "{",
            "NaN",
            '{"a":1e999}',
            '{"a":"\\ud800"}',
        ]
    ),
    words,
    st.builds(json.dumps, st.dictionaries(words, words | st.integers() | st.none(), max_size=2)),
)
calls = st.one_of(
    st.builds(
        lambda call_id, text: {
            "id": call_id,
            "type": "function",
            "function": {"name": "f", "arguments": text},
        },
        st.sampled_from(["c1", "c2"]),
        arguments,
    ),
    st.builds(
        lambda text: {"id": "c3", "type": "custom", "custom": {"name": "f", "input": text}}, words
    ),
)
messages = st.one_of(
    st.builds(
        lambda role, content, name: {"role": role, "content": content, **name},
        st.sampled_from(["system", "developer"]),
        words | st.lists(text_parts, min_size=1, max_size=3),
        said,
    ),
    st.builds(
        lambda content, name: {"role": "user", "content": content, **name},
        words | st.lists(user_parts, min_size=1, max_size=4),
        said,
    ),
    st.builds(
        lambda content, refusal, tool_calls, more: {
            "role": "assistant",
            "content": content,
            **({} if refusal is None else {"refusal": refusal}),
            **({"tool_calls": tool_calls} if tool_calls else {}),
            **more,
        },
        st.none()
        | words
        | st.lists(
            text_parts | st.builds(lambda text: part("refusal", refusal=text), words),
            min_size=1,
            max_size=3,
        ),
        st.none() | words,
        st.lists(calls, max_size=3),
        st.sampled_from([{}, {"name": "bob"}, {"audio": {"id": "audio-1"}}]),
    ).filter(lambda each: any(each.get(name) for name in ("content", "refusal", "tool_calls"))),
    st.builds(
        lambda content: {"role": "tool", "tool_call_id": "c1", "content": content},
        words | st.lists(text_parts, min_size=1, max_size=2),
    ),
    st.builds(lambda content: {"role": "function", "name": "f", "content": content}, words),
    st.just({"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}),
)


@given(st.lists(messages, max_size=4))
def test_messages_come_back(given_messages: list[dict[str, Any]]) -> None:
    """From a store, and equal to the letter; the strategy makes nothing but what the types know."""
    for message in given_messages:
        check_types(PARAM, message)
    events = from_messages(given_messages)
    assert events.lost == []
    back = to_messages(stored(events))
    assert (list(back), back.lost) == (given_messages, [])


def test_recorded_conversations_come_back() -> None:
    """Real ones; of a result's message the name of the tool is its call's."""
    for line in SHIPPED_CONVERSATIONS.read_text(encoding="utf-8").splitlines():
        recorded = json.loads(line)["messages"]
        events = stored(from_messages(recorded))
        for message in recorded:
            if message["role"] == "tool":
                message.pop("name", None)
        back = to_messages(View().of(events))
        assert (list(back), back.lost) == (recorded, [])
        for message in back:
            check_types(PARAM, message)


def test_an_answer_is_taken_as_the_package_gives_it() -> None:
    """A model of the provider's; what no request takes is kept, and told."""
    answer = ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": "Hello",
            "annotations": [],
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
            ],
        }
    )
    (event,) = from_messages([answer], agent="helper")
    assert (event.author, event.text) == ("helper", "Hello")
    assert event.tool_calls == [ToolCall("c", "f", {"a": 1})]
    assert event.metadata == {"openai_chat": {"fields": {"annotations": []}}}
    (back,) = to_messages([event])
    check_types(PARAM, back)
    assert (back["content"], "annotations" in back) == ("Hello", False)


parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, words, st.none() | st.just({"anthropic": {"x": 1}})),
    st.builds(Reasoning, words),
    st.builds(
        Media,
        st.sampled_from(["image/png", "audio/mpeg", "audio/ogg", "application/pdf"]),
        data=st.just("QUJD"),
    ),
    st.builds(
        Media, st.sampled_from(["image/png", "audio/wav", "text/plain"]), uri=st.just("gs://a")
    ),
    st.builds(
        ToolCall, st.just("c"), st.just("f"), st.sampled_from([{}, {"a": [1]}, "words", [1], 5])
    ),
    st.builds(
        ToolResult,
        st.just("c"),
        st.sampled_from(["words", None, {"a": 1}, [part("text", text="a")], [], [1]]),
        is_error=st.booleans(),
    ),
    st.builds(Data, st.just({"a": 1})),
)
events_of_all_kinds = st.lists(
    st.builds(
        Event,
        author=st.sampled_from(["user", "system", "agent", "tool"]),
        content=words | st.lists(parts, max_size=4),
    ),
    max_size=4,
)


@given(events_of_all_kinds)
def test_what_is_said_is_a_request_and_what_is_not_is_told(events: list[Event]) -> None:
    """Whatever is in them, the provider's types take what is made; each part is there or lost."""
    found = to_messages(events)
    for message in found:
        check_types(PARAM, message)
    check_all_is_said(events, found)
    for event in events:
        if isinstance(event.content, str):
            role = event.author if event.author in {"user", "system"} else "assistant"
            assert {"role": role, "content": event.content} in found


def test_losses_say_what_and_where() -> None:
    """By the event and the part."""
    event = Event(
        id="e",
        author="agent",
        content=[
            Reasoning("so"),
            ToolResult("c", 1, is_error=True),
            Media("image/png", uri="https://a"),
            Text("x", {"anthropic": {}}),
        ],
    )
    assert to_messages([event]).lost == [
        Loss("event 'e', content[0]", "a Reasoning of the author 'agent' has no form"),
        Loss(
            "event 'e', content[1]",
            "that a result is an error has no form; only the result itself has",
        ),
        Loss("event 'e', content[2]", "a Media of the author 'agent' has no form"),
        Loss("event 'e', content[3]", "provider_data of another format has no form here"),
    ]


def test_arguments_that_were_changed_are_said_as_they_are() -> None:
    """The text that a model wrote is kept for its form, and is not what counts."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    (event,) = from_messages([{"role": "assistant", "content": None, "tool_calls": [call]}])
    (made,) = event.tool_calls
    assert made.arguments == {"a": 1}
    made.arguments["a"] = 2
    (message,) = to_messages([event])
    assert message["tool_calls"][0]["function"]["arguments"] == '{"a":2}'  # type: ignore[typeddict-item,index]  # the key is of this kind of message


def test_what_has_nothing_to_say_is_left_out() -> None:
    """Chunks, and errors without words."""
    events = [
        Event(author="agent", content="", partial=True),
        Event(author="agent", error=EventError("it failed")),
    ]
    found = to_messages(events)
    assert (list(found), found.lost) == ([], [])


def test_thoughts_of_other_providers_come_back() -> None:
    """Some want them back under this name, which is none of OpenAI's."""
    message = {"role": "assistant", "content": "so", "reasoning_content": "since"}
    (event,) = from_messages([message])
    assert event.content[0] == Reasoning("since", {"openai_chat": {"field": "reasoning_content"}})
    assert list(to_messages([event])) == [message]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("words", r"messages\[1\] must be a dict or a model, not str"),
        ({}, r"messages\[1\]: role must be a str, and it is missing"),
        ({"role": "user"}, r"messages\[1\]: content must be a str or list, and it is missing"),
        ({"role": "user", "content": 5}, "content must be a str or list, and it is of type int"),
        ({"role": "tool", "content": "x"}, "tool_call_id must be a str, and it is missing"),
        ({"role": "user", "content": [{"text": "x"}]}, "type must be a str, and it is missing"),
        (
            {"role": "user", "content": ["x"]},
            r"messages\[1\]: parts and calls are dicts, and one is a str",
        ),
        ({"role": "assistant", "tool_calls": [{}]}, "id must be a str, and it is missing"),
        ({"role": "assistant", "tool_calls": "x"}, "tool_calls must be a list"),
        ({"role": "assistant", "refusal": 5}, "refusal must be a str"),
    ],
)
def test_wrong_messages_say_which(message: Any, problem: str) -> None:
    """And what is wrong with it."""
    with pytest.raises((TypeError, ValueError), match=problem):
        from_messages([{"role": "user", "content": "hi"}, message])


def test_a_message_has_one_refusal() -> None:
    """A second one is a part of what is said; a user's is a text."""
    refusal = Text("no", {"openai_chat": {"field": "refusal"}})
    agent = Event(author="agent", content=[refusal, refusal])
    user = Event(author="user", content=[refusal])
    found = to_messages([agent, user])
    for message in found:
        check_types(PARAM, message)
    assert list(found) == [
        {"role": "assistant", "content": [part("refusal", refusal="no")], "refusal": "no"},
        {"role": "user", "content": "no"},
    ]


def test_arguments_of_another_type_are_other_arguments() -> None:
    """Though Python takes them for equal."""
    call = ToolCall("c", "f", {"a": True}, {"openai_chat": {"arguments": '{"a": 1}'}})
    (message,) = to_messages([Event(author="agent", content=[call])])
    assert message["tool_calls"][0]["function"]["arguments"] == '{"a":true}'  # type: ignore[typeddict-item,index]  # the key is of this kind of message


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [part("hologram", hologram={"depth": 3})]},
        {"role": "user", "content": [part("file", file={"file_id": "f-1", "filename": "a"})]},
        {"role": "user", "content": [part("file", file={"file_id": 1})]},
        {"role": "user", "content": [part("file", file={"file_id": "f", "file_data": "x"})]},
        {"role": "user", "content": [part("file", file={"file_id": "f", "other": "x"})]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "telepathy", "telepathy": {"of": "x"}}],
        },
    ],
)
def test_what_is_not_known_yet_comes_back(message: dict[str, Any]) -> None:
    """To the letter, stored in between: a newer provider says more than this version knows."""
    events = from_messages([message])
    assert not events.lost
    back = to_messages(stored(events))
    assert not back.lost
    assert [*back] == [message]
