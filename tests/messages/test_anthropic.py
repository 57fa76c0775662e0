"""Messages of Anthropic's Messages API: there and back, by the provider's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import Message, MessageParam
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agentsession import Data, Event, Text, ToolCall, ToolResult
from agentsession.demo import SHIPPED_CONVERSATIONS
from agentsession.events import Media, Part, Reasoning
from agentsession.history import NO_RESULT, View
from agentsession.messages import Loss, openai_chat
from agentsession.messages.anthropic import from_messages, to_messages
from messages.checking import check_all_is_said, check_types, stored

PARAM: TypeAdapter[Any] = TypeAdapter(MessageParam)

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
cached = st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}])


def block(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


texts = st.builds(lambda text, more: block("text", text=text, **more), words, cached)
images = st.builds(
    lambda source, more: block("image", source=source, **more),
    st.sampled_from(
        [
            {"type": "base64", "media_type": "image/png", "data": "QUJD"},
            {"type": "url", "url": "https://a/b.png"},
        ]
    ),
    cached,
)
documents = st.builds(
    lambda source, more: block("document", source=source, **more),
    st.sampled_from(
        [
            {"type": "base64", "media_type": "application/pdf", "data": "QUJD"},
            {"type": "url", "url": "https://a/b.pdf"},
            {"type": "text", "media_type": "text/plain", "data": "words"},
        ]
    ),
    st.sampled_from([{}, {"title": "a.pdf"}, {"title": ""}, {"context": "c", "title": "t"}]),
)
results = st.builds(
    lambda call_id, content, more: block("tool_result", tool_use_id=call_id, **content, **more),
    st.sampled_from(["c1", "c2"]),
    st.builds(
        lambda content: {"content": content},
        words | st.lists(texts | images, min_size=1, max_size=2),
    )
    | st.just({}),
    cached | st.just({"is_error": True}),
)
said = st.one_of(
    texts,
    st.builds(lambda text, mark: block("thinking", thinking=text, signature=mark), words, words),
    st.builds(lambda data: block("redacted_thinking", data=data), words),
    st.builds(
        lambda arguments, more: block("tool_use", id="c1", name="f", input=arguments, **more),
        st.dictionaries(words, words | st.integers(-9, 9) | st.none(), max_size=2),
        cached,
    ),
    st.just(block("server_tool_use", id="s1", name="web_search", input={"query": "a"})),
    st.just(block("web_search_tool_result", tool_use_id="s1", content=[])),
)
asked = st.lists(texts | images | documents, min_size=1, max_size=3)
messages = st.one_of(
    st.builds(lambda content: {"role": "user", "content": content}, words | asked),
    st.builds(
        lambda answers, more: {"role": "user", "content": [*answers, *more]},
        st.lists(results, min_size=1, max_size=3, unique_by=lambda each: each["tool_use_id"]),
        asked,
    ),
    st.builds(
        lambda content: {"role": "assistant", "content": content},
        words | st.lists(said, min_size=1, max_size=4),
    ),
    st.builds(lambda content: {"role": "system", "content": content}, words),
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


@given(
    st.lists(
        st.lists(results, min_size=1, max_size=2, unique_by=lambda each: each["tool_use_id"]),
        min_size=1,
        max_size=3,
    )
)
def test_results_become_one_message(groups: list[list[dict[str, Any]]]) -> None:
    """However they were stored: the API wants all results of an answer's calls in one."""
    given_messages = [{"role": "user", "content": group} for group in groups]
    events = from_messages(given_messages)
    assert {event.author for event in events} == {"tool"}
    (message,) = to_messages(stored(events))
    assert message == {"role": "user", "content": [each for group in groups for each in group]}


def openai_arguments(text: str) -> Any:
    """Read them; one recording holds some that are cut off."""
    try:
        return json.loads(text)
    except ValueError:
        return {"arguments": text}


def test_recorded_conversations_of_another_provider_are_said() -> None:
    """Real ones: the types take them, and each word, call and result of them is there."""
    for line in SHIPPED_CONVERSATIONS.read_text(encoding="utf-8").splitlines():
        recorded = json.loads(line)["messages"]
        found = to_messages(View().of(stored(openai_chat.from_messages(recorded))))
        assert {loss.why for loss in found.lost} <= {
            "provider_data of another format has no form here",
            "the API takes no empty text",
            "arguments are an object; these are sent as its 'arguments'",
        }
        for message in found:
            check_types(PARAM, message)
        blocks = [
            each for message in found for each in message["content"] if isinstance(each, dict)
        ]
        calls = [call for message in recorded for call in message.get("tool_calls") or []]
        made = [each for each in blocks if each["type"] == "tool_use"]
        assert [each["id"] for each in made] == [call["id"] for call in calls]
        assert [each["input"] for each in made] == [
            openai_arguments(call["function"]["arguments"]) for call in calls
        ]
        answers = [each["content"] for each in blocks if each["type"] == "tool_result"]
        assert answers == [each["content"] for each in recorded if each["role"] == "tool"]


def test_an_answer_is_taken_as_the_package_gives_it() -> None:
    """A model of the provider's; what no request takes is kept, and told."""
    answer = Message.model_validate(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": [
                {"type": "thinking", "thinking": "so", "signature": "abc"},
                {"type": "text", "text": "Hello"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
            ],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 1, "output_tokens": 2},
        }
    )
    (event,) = from_messages([answer], agent="helper")
    assert (event.author, event.text) == ("helper", "Hello")
    assert event.tool_calls == [ToolCall("c", "f", {"a": 1})]
    assert event.content[0] == Reasoning("so", {"anthropic": {"signature": "abc"}})
    assert event.metadata["anthropic"]["fields"]["model"] == "claude"
    stored([event])
    back = to_messages([event])
    assert back[0]["content"] == [
        {"type": "thinking", "thinking": "so", "signature": "abc"},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
    ]
    assert back.lost == []


parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, words, st.none() | st.just({"openai_chat": {"x": 1}})),
    st.builds(Reasoning, words),
    st.builds(
        Media,
        st.sampled_from(["image/png", "audio/mpeg", "application/pdf"]),
        data=st.just("QUJD"),
    ),
    st.builds(Media, st.sampled_from(["image/png", "text/plain"]), uri=st.just("gs://a")),
    st.builds(
        ToolCall,
        st.just("c"),
        st.just("f"),
        st.sampled_from([{}, {"a": [1]}, "words", '{"a":1}', [1], 5]),
    ),
    st.builds(
        ToolResult,
        st.just("c"),
        st.sampled_from(["words", None, {"a": 1}, [block("text", text="a")], [], [1]]),
        is_error=st.booleans(),
    ),
    st.builds(Data, st.just({"a": 1})),
)


@given(
    st.lists(
        st.builds(
            Event,
            author=st.sampled_from(["user", "system", "agent", "tool"]),
            content=words | st.lists(parts, max_size=4),
        ),
        max_size=4,
    )
)
def test_what_is_said_is_a_request_and_what_is_not_is_told(events: list[Event]) -> None:
    """Whatever is in them, the provider's types take what is made; each part is there or lost."""
    found = to_messages(events)
    for message in found:
        if message["role"] != "system":
            check_types(PARAM, message)
    check_all_is_said(events, found)


def test_losses_say_what_and_where() -> None:
    """By the event and the part; what can be said in another form is said."""
    event = Event(
        id="e",
        author="agent",
        content=[
            Reasoning("so"),
            Media("image/png", uri="https://a"),
            Text("", None),
            ToolCall("c", "f", [1]),
        ],
    )
    asks = Event(id="u", author="user", content=[Media("audio/wav", data="QUJD")])
    found = to_messages([event, asks])
    assert found.lost == [
        Loss("event 'e', content[0]", "a Reasoning of the author 'agent' has no form"),
        Loss("event 'e', content[1]", "a Media of the author 'agent' has no form"),
        Loss("event 'e', content[2]", "the API takes no empty text"),
        Loss("event 'e', content[3]", "arguments are an object; these are sent as its 'arguments'"),
        Loss("event 'u', content[0]", "media of the type audio/wav have no form"),
    ]
    assert list(found) == [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"arguments": [1]}}],
        }
    ]


def test_a_call_that_was_cut_off_is_said_with_its_end() -> None:
    """In one message with the results that there are, as the API wants it."""
    log = [
        Event(author="user", content="go"),
        Event(author="agent", content=[ToolCall("a", "f"), ToolCall("b", "f")]),
        Event(author="tool", content=[ToolResult("b", {"x": 1})]),
    ]
    assert list(to_messages(View(from_user=True).of(log)))[-1] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "b", "content": '{"x":1}'},
            {"type": "tool_result", "tool_use_id": "a", "content": NO_RESULT, "is_error": True},
        ],
    }


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("words", r"messages\[1\] must be a dict or a model, not str"),
        ({}, r"messages\[1\]: role must be a str, and it is missing"),
        ({"role": "user"}, r"messages\[1\]: content must be a str or list, and it is missing"),
        ({"role": "user", "content": 5}, "content must be a str or list, and it is of type int"),
        ({"role": "user", "content": [{"text": "x"}]}, "type must be a str, and it is missing"),
        ({"role": "user", "content": ["x"]}, "parts and calls are dicts, and one is a str"),
        (
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c", "content": 5}],
            },
            "content of a result is a str or a list, not a int",
        ),
    ],
)
def test_wrong_messages_say_which(message: Any, problem: str) -> None:
    """And what is wrong with it."""
    with pytest.raises((TypeError, ValueError), match=problem):
        from_messages([{"role": "user", "content": "hi"}, message])


def test_a_message_of_an_unknown_role_is_kept() -> None:
    """As it is."""
    message = {"role": "critic", "content": "no"}
    (event,) = from_messages([message])
    assert event.author == "critic"
    assert list(to_messages(stored([event]))) == [message]


def test_media_are_what_other_formats_have_too() -> None:
    """Their type, their name and their address; what is of this API alone is beside them."""
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "QUJD"}
    odd = {"type": "base64", "media_type": "model/gltf", "data": "QUJD"}
    message = {
        "role": "user",
        "content": [
            {"type": "document", "source": pdf, "title": "a.pdf"},
            {"type": "document", "source": pdf, "title": "a.pdf", "context": "c"},
            {"type": "image", "source": {"type": "url", "url": "https://a"}},
            {"type": "image", "source": odd},
        ],
    }
    (event,) = from_messages([message])
    assert event.content == [
        Media("application/pdf", data="QUJD", name="a.pdf"),
        Media(
            "application/pdf",
            data="QUJD",
            name="a.pdf",
            provider_data={"anthropic": {"context": "c"}},
        ),
        Media("image/*", uri="https://a"),
        Data({"type": "image", "source": odd}, "application/vnd.anthropic.block+json"),
    ]
    assert list(to_messages([event])) == [message]


def test_what_other_formats_keep_is_told() -> None:
    """It has no form here, and the words have."""
    event = Event(id="e", author="agent", content=[Text("x", {"openai_chat": {}})])
    found = to_messages([event])
    assert list(found) == [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]
    assert found.lost == [
        Loss("event 'e', content[0]", "provider_data of another format has no form here")
    ]
