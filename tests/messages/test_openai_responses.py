"""Items of OpenAI's Responses API: there and back, by the provider's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseInputItemParam,
    ResponseOutputMessage,
)
from pydantic import TypeAdapter

from agentsession import Data, Event, Text, ToolCall, ToolResult
from agentsession.demo import SHIPPED_CONVERSATIONS
from agentsession.events import Media, Part, Reasoning
from agentsession.history import View
from agentsession.messages import Loss, openai_chat
from agentsession.messages.openai_responses import from_messages, to_messages
from messages.checking import check_all_is_said, check_types, stored

PARAM: TypeAdapter[Any] = TypeAdapter(ResponseInputItemParam)

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
typed = st.sampled_from([{}, {"type": "message"}])
statuses = st.sampled_from([{}, {"status": "completed"}])


def part(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


texts = st.builds(lambda text: part("input_text", text=text), words)
inputs = st.one_of(
    texts,
    st.builds(
        lambda place: part("input_image", detail="low", **place),
        st.sampled_from(
            [
                {"image_url": "https://a/b.png"},
                {"image_url": "data:image/png;base64,QUJD"},
                {"file_id": "file-1"},
            ]
        ),
    ),
    st.builds(
        lambda place, name: part("input_file", **place, **name),
        st.sampled_from(
            [
                {"file_id": "file-1"},
                {"file_id": "file-1", "detail": "low"},
                {"file_url": "https://a/b.pdf"},
                {"file_url": "https://a/b.pdf", "detail": "high"},
                {"file_data": "data:application/pdf;base64,QUJD"},
                {"file_data": "data:image/png;base64,QUJD"},
                {"file_data": "QUJD", "detail": "low"},
                {"file_data": "data:application/pdf;base64,QUJD", "file_id": "f"},
                {},
            ]
        ),
        st.sampled_from([{}, {"filename": "a.pdf"}, {"filename": ""}]),
    ),
)
outputs = st.one_of(
    st.builds(lambda text: part("output_text", text=text, annotations=[]), words),
    st.builds(lambda text: part("refusal", refusal=text), words),
)
arguments = st.sampled_from(
    ['{"a":1}', '{"a": 1}', "{}", "[1]", '"a"', "", "{", "NaN", '{"a":1e999}']
)
items = st.one_of(
    st.builds(
        lambda role, content, more: {"role": role, "content": content, **more},
        st.sampled_from(["user", "system", "developer"]),
        words | st.lists(inputs, min_size=1, max_size=3),
        typed,
    ),
    st.builds(
        lambda content, more: {"role": "assistant", "content": content, **more},
        words | st.lists(texts, min_size=1, max_size=2),
        st.sampled_from([{}, {"phase": "commentary"}]),
    ),
    st.builds(
        lambda content: {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "content": content,
        },
        st.lists(outputs, min_size=1, max_size=3),
    ),
    st.builds(
        lambda text, more: part("function_call", call_id="c1", name="f", arguments=text, **more),
        arguments | words,
        st.sampled_from([{}, {"id": "fc_1", "status": "completed"}, {"namespace": "n"}]),
    ),
    st.builds(
        lambda text: part("custom_tool_call", call_id="c2", name="f", input=text, id="x"), words
    ),
    st.builds(
        lambda output, more: part("function_call_output", call_id="c1", output=output, **more),
        words | st.lists(inputs, min_size=1, max_size=2),
        st.sampled_from([{}, {"id": "o", "status": "completed"}, {"name": "f"}]),
    ),
    st.builds(lambda output: part("custom_tool_call_output", call_id="c2", output=output), words),
    st.builds(
        lambda texts_of_it, more: part(
            "reasoning",
            id="rs_1",
            summary=[{"type": "summary_text", "text": text} for text in texts_of_it],
            **more,
        ),
        st.lists(words, max_size=2),
        st.sampled_from([{}, {"encrypted_content": "abc"}]),
    ),
    st.just(
        part(
            "web_search_call",
            id="ws_1",
            status="completed",
            action={"type": "search", "query": "a", "queries": ["a"]},
        )
    ),
    st.just(part("item_reference", id="msg_0")),
)


@given(st.lists(items, max_size=4))
def test_items_come_back(given_items: list[dict[str, Any]]) -> None:
    """From a store, and equal to the letter; the strategy makes nothing but what the types know."""
    for item in given_items:
        check_types(PARAM, item)
    events = from_messages(given_items)
    assert events.lost == []
    back = to_messages(stored(events))
    assert (list(back), back.lost) == (given_items, [])


def test_recorded_conversations_of_the_other_format_are_said() -> None:
    """Real ones: the types take them, and each word, call and result of them is there."""
    for line in SHIPPED_CONVERSATIONS.read_text(encoding="utf-8").splitlines():
        recorded = json.loads(line)["messages"]
        found = to_messages(View().of(stored(openai_chat.from_messages(recorded))))
        assert {loss.why for loss in found.lost} <= {
            "provider_data of another format has no form here"
        }
        for item in found:
            check_types(PARAM, item)
        said: list[Any] = list(found)
        calls = [call for message in recorded for call in message.get("tool_calls") or []]
        made = [each for each in said if each.get("type") == "function_call"]
        assert [each["call_id"] for each in made] == [call["id"] for call in calls]
        assert [each["content"] for each in said if each.get("role") == "user"] == [
            each["content"] for each in recorded if each["role"] == "user"
        ]
        answers = [each["output"] for each in said if each.get("type") == "function_call_output"]
        assert answers == [each["content"] for each in recorded if each["role"] == "tool"]


def test_an_answer_is_taken_as_the_package_gives_it() -> None:
    """The models of the provider's output."""
    call = ResponseFunctionToolCall(
        type="function_call",
        call_id="c",
        name="f",
        arguments='{"a": 1}',
        id="fc",
        status="completed",
    )
    message = ResponseOutputMessage.model_validate(
        {
            "id": "msg",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        }
    )
    said, called = from_messages([message, call], agent="helper")
    assert (said.author, said.text) == ("helper", "Hello")
    assert called.tool_calls[0].arguments == {"a": 1}
    assert list(to_messages([said, called])) == [
        message.model_dump(exclude_none=True),
        call.model_dump(exclude_none=True),
    ]


parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, words, st.none() | st.just({"anthropic": {"x": 1}})),
    st.builds(Reasoning, words),
    st.builds(
        Media,
        st.sampled_from(["image/png", "audio/mpeg", "application/pdf"]),
        data=st.just("QUJD"),
    ),
    st.builds(Media, st.sampled_from(["image/png", "text/plain"]), uri=st.just("gs://a")),
    st.builds(Media, st.sampled_from(["image/png", "text/plain"])),
    st.builds(
        ToolCall, st.just("c"), st.just("f"), st.sampled_from([{}, {"a": [1]}, "words", [1], 5])
    ),
    st.builds(
        ToolResult,
        st.just("c"),
        st.sampled_from(["words", None, {"a": 1}, [part("input_text", text="a")], [], [1]]),
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
    for item in found:
        check_types(PARAM, item)
    check_all_is_said(events, found)


def test_the_order_of_an_event_is_kept() -> None:
    """What an agent of any format says before a call comes before it."""
    event = Event(author="agent", content=[Text("a"), ToolCall("c", "f"), Text("b")])
    assert list(to_messages([event])) == [
        {"role": "assistant", "content": "a"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"role": "assistant", "content": "b"},
    ]
    asked = Event(author="user", content=[Text("a"), ToolResult("c", 1), Text("b")])
    assert list(to_messages([asked])) == [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"role": "user", "content": [{"type": "input_text", "text": "b"}]},
    ]


def test_a_custom_tool_is_answered_as_one() -> None:
    """By a result of any agent's, which knows nothing of it."""
    call = part("custom_tool_call", call_id="c", name="f", input="x")
    events = [*from_messages([call]), Event(author="tool", content=[ToolResult("c", "y")])]
    assert list(to_messages(events)) == [
        call,
        {"type": "custom_tool_call_output", "call_id": "c", "output": "y"},
    ]


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
            ToolCall("c", "f", provider_data={"anthropic": {}}),
        ],
    )
    asked = Event(
        id="u", author="user", content=[Media("image/png", uri="https://a", provider_data=5)]
    )
    foreign = "provider_data of another format has no form here"
    assert to_messages([event, asked]).lost == [
        Loss("event 'e', content[0]", "a Reasoning of the author 'agent' has no form"),
        Loss(
            "event 'e', content[1]",
            "that a result is an error has no form; only the result itself has",
        ),
        Loss("event 'e', content[2]", "a Media of the author 'agent' has no form"),
        Loss("event 'e', content[3]", foreign),
        Loss("event 'e', content[4]", foreign),
        Loss("event 'u', content[0]", foreign),
    ]


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        ("words", r"messages\[1\] must be a dict or a model, not str"),
        ({}, r"messages\[1\]: type must be a str, and it is missing"),
        ({"role": "user"}, r"messages\[1\]: content must be a str or list, and it is missing"),
        ({"role": "user", "content": [{"text": "x"}]}, "type must be a str, and it is missing"),
        ({"role": "user", "content": ["x"]}, "parts and calls are dicts, and one is a str"),
        ({"type": "function_call", "name": "f"}, "call_id must be a str, and it is missing"),
        ({"type": "function_call", "call_id": "c"}, "name must be a str, and it is missing"),
        (
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": {}},
            "arguments must be a str, and it is of type dict",
        ),
    ],
)
def test_wrong_items_say_which(item: Any, problem: str) -> None:
    """And what is wrong with it."""
    with pytest.raises((TypeError, ValueError), match=problem):
        from_messages([{"role": "user", "content": "hi"}, item])


# Of each, whether it is a medium that other formats understand.
PLACES: list[tuple[dict[str, Any], bool]] = [
    ({"file_id": "file-1"}, True),
    ({"file_id": "file-1", "file_url": "https://a"}, True),
    ({"file_url": "https://a/b.pdf"}, True),
    ({"file_url": "https://a/b.pdf", "file_data": "QUJD"}, False),
    ({"file_data": "data:application/pdf;base64,QUJD"}, True),
    ({"file_data": "data:application/pdf;base64,QUJD", "file_id": "f"}, True),
    ({"file_data": "data:audio/wav;base64,QUJD"}, False),
    ({}, False),
]


@pytest.mark.parametrize(("place", "is_medium"), PLACES, ids=str)
@pytest.mark.parametrize("more", [{}, {"filename": "a.pdf"}, {"filename": ""}, {"detail": "low"}])
def test_files_come_back(place: dict[str, Any], is_medium: bool, more: dict[str, Any]) -> None:
    """Each form of them; an address of its own stays one."""
    item = {"role": "user", "content": [part("input_file", **place, **more)]}
    (event,) = from_messages([item])
    found = event.content[0]
    if is_medium and more.get("filename") != "":
        assert isinstance(found, Media)
        assert found.uri == place.get("file_url", "")
        assert bool(found.data) == ("file_data" in place)
    else:
        assert isinstance(found, Data)
    assert list(to_messages(stored([event]))) == [item]


def test_what_is_kept_of_a_message_is_not_said_of_a_result() -> None:
    """Nor is a field without a value kept at all."""
    item = {
        "role": "user",
        "type": "message",
        "status": None,
        "content": [part("input_text", text="a")],
    }
    (event,) = from_messages([item])
    assert event.metadata == {"openai_responses": {"fields": {"type": "message"}}}
    both = Event(
        author="user", content=[*event.content, ToolResult("c", 1)], metadata=event.metadata
    )
    assert list(to_messages([both])) == [
        {"role": "user", "type": "message", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
    ]


def test_sounds_have_no_form() -> None:
    """The API takes them elsewhere, not in its items."""
    event = Event(id="e", author="user", content=[Media("audio/wav", data="QUJD")])
    found = to_messages([event])
    assert list(found) == []
    assert found.lost == [Loss("event 'e', content[0]", "a Media of the author 'user' has no form")]
