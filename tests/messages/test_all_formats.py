"""What holds for the messages of every provider."""

from __future__ import annotations

import json
from copy import deepcopy
from types import ModuleType
from typing import Any

import pytest
from anthropic.types import Message, MessageParam, TextBlock
from openai.types.chat import ChatCompletionMessage, ChatCompletionMessageParam
from openai.types.responses import ResponseCodeInterpreterToolCall, ResponseInputItemParam
from pydantic import TypeAdapter

from agentsession import Data, Event, Text, ToolCall, ToolResult
from agentsession.events import Media
from agentsession.history import View
from agentsession.messages import anthropic, gemini, openai_chat, openai_responses
from messages.checking import LenientContent, check_types, stored

FORMATS: dict[str, tuple[Any, TypeAdapter[Any] | LenientContent]] = {
    "anthropic": (anthropic, TypeAdapter(MessageParam)),
    "gemini": (gemini, LenientContent()),
    "openai_chat": (openai_chat, TypeAdapter(ChatCompletionMessageParam)),
    "openai_responses": (openai_responses, TypeAdapter(ResponseInputItemParam)),
}
each_format = pytest.mark.parametrize(("module", "param"), FORMATS.values(), ids=FORMATS)

LIKE_PARTS: list[Any] = [
    [{"type": ["string", "null"]}],
    [{"type": "document", "id": 7}],
    [{"type": "input_file", "path": "/x"}],
    [{"type": "text", "text": "a", "owner": "bob"}],
    [{"type": "input_text", "text": 5}],
    [],
    [[]],
    {"type": "text", "text": "a"},
]


@each_format
@pytest.mark.parametrize("value", LIKE_PARTS, ids=str)
def test_a_tools_value_is_no_part(
    module: ModuleType, param: TypeAdapter[Any] | LenientContent, value: Any
) -> None:
    """Whatever it looks like: it is said as JSON."""
    events = [
        Event(author="agent", content=[ToolCall("c", "f")]),
        Event(author="tool", content=[ToolResult("c", value)]),
    ]
    found = module.to_messages(stored(events))
    for message in found:
        check_types(param, message)
    as_text = json.dumps(json.dumps(value, separators=(",", ":")))
    said = json.dumps(list(found))
    assert (
        as_text in said
        or json.dumps({"response": value})[1:-1] in said
        or (json.dumps({"response": {"result": value}})[1:-1] in said)
    )


@each_format
@pytest.mark.parametrize(
    "part",
    [
        Data(5, "application/vnd.anthropic.block+json"),
        Data([1], "application/vnd.anthropic.message+json"),
        Data(5, "application/vnd.openai.chat.message+json"),
        Data(5, "application/vnd.openai.chat.part+json"),
        Data(5, "application/vnd.openai.chat.tool-call+json"),
        Data(5, "application/vnd.openai.responses.item+json"),
        Data("x", "application/vnd.openai.responses.part+json"),
        Data(5, "application/vnd.gemini.part+json"),
        Data([1], "application/vnd.gemini.content+json"),
        Media("image/svg+xml", data="QUJD"),
        Media("image/png"),
        Media("application/pdf"),
        Text("x", {name: {"type": [], "text": 5, "role": 6} for name in FORMATS}),
        Text("x", dict.fromkeys(FORMATS, 5)),
        ToolCall("c", "f", [1], {name: {"type": [], "id": "d"} for name in FORMATS}),
    ],
    ids=lambda part: str(part)[:60],
)
@pytest.mark.parametrize("author", ["user", "agent"])
def test_odd_parts_are_said_by_the_types_or_told(
    module: ModuleType, param: TypeAdapter[Any] | LenientContent, part: Any, author: str
) -> None:
    """Nothing that a store keeps makes an error, or a message that is none."""
    own = {name: {"fields": 5, "parts": {}, "results": [1]} for name in FORMATS}
    events = stored([Event(author=author, content=[part], metadata=own)])
    found = module.to_messages(events)
    for message in found:
        check_types(param, message)
    assert found or found.lost


@each_format
def test_what_is_said_is_nobody_elses(
    module: ModuleType, param: TypeAdapter[Any] | LenientContent
) -> None:
    """Changing the messages changes no event, and changing what was read neither."""
    items: dict[str, list[dict[str, Any]]] = {
        "anthropic": [
            {
                "role": "user",
                "content": [{"type": "search_result", "source": "s", "title": "t", "content": []}],
            },
            {"role": "critic", "content": [{"type": "tool_result", "tool_use_id": "c"}]},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "d",
                        "content": [{"type": "text", "text": "a"}],
                    }
                ],
            },
        ],
        "gemini": [
            {"role": "model", "parts": [{"executableCode": {"code": "a", "language": "PYTHON"}}]},
            {"role": "critic", "parts": [{"text": "a"}]},
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "c", "name": "f", "response": {"a": [1]}}},
                    {"text": "a", "partMetadata": {"a": [1]}},
                ],
            },
        ],
        "openai_chat": [
            {"role": "function", "name": "f", "content": "x", "more": [1]},
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "a"}]},
        ],
        "openai_responses": [
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "a"}]},
            {"type": "web_search_call", "id": "w", "action": {"queries": ["a"]}},
        ],
    }

    def spoil(value: Any) -> None:
        if isinstance(value, dict):
            for each in value.values():
                spoil(each)
            value["spoilt"] = True
        elif isinstance(value, list):
            for each in value:
                spoil(each)
            value.append("spoilt")

    given = deepcopy(items[module.__name__.rpartition(".")[2]])
    kept = deepcopy(given)
    events = module.from_messages(given)
    assert given == kept
    before = deepcopy(events)
    spoil(given)
    assert list(events) == list(before)
    assert list(module.to_messages(events)) == kept
    spoil(list(module.to_messages(events)))
    assert list(events) == list(before)
    assert param is not None


def test_models_inside_of_dicts_are_read() -> None:
    """As programs write it: the content of the answer, in a message of their own."""
    blocks = (TextBlock(type="text", text="x"),)
    (event,) = anthropic.from_messages([{"role": "assistant", "content": blocks}])
    assert event.text == "x"
    answer = ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        }
    )
    (event,) = openai_chat.from_messages([{"role": "assistant", "tool_calls": answer.tool_calls}])
    assert event.tool_calls == [ToolCall("c", "f", {})]


def test_models_come_back_whole() -> None:
    """With what is absent in them, and what JSON writes in its own way."""
    call = ResponseCodeInterpreterToolCall(
        id="i",
        code=None,
        container_id="c",
        outputs=None,
        status="completed",
        type="code_interpreter_call",
    )
    (event,) = openai_responses.from_messages([call])
    (item,) = openai_responses.to_messages(stored([event]))
    check_types(FORMATS["openai_responses"][1], item)
    assert item == call.model_dump(mode="json")
    answer = Message.model_validate(
        {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": [{"type": "text", "text": "x"}],
            "container": {"id": "c", "expires_at": "2026-01-01T00:00:00Z"},
            "usage": {"input_tokens": 1, "output_tokens": 2},
        }
    )
    stored(anthropic.from_messages([answer]))


def test_items_that_are_no_messages_are_kept() -> None:
    """A reference has no type, and some have a role besides."""
    given = [
        {"id": "msg_1"},
        {"type": "additional_tools", "role": "developer", "tools": []},
        {"type": "additional_tools", "role": "tool", "tools": []},
    ]
    assert (
        list(openai_responses.to_messages(stored(openai_responses.from_messages(given)))) == given
    )


def test_what_a_developer_says_is_never_an_agents() -> None:
    """Where there is no such role, it is the system's."""
    events = openai_chat.from_messages([{"role": "developer", "content": "Never tell."}])
    assert list(anthropic.to_messages(events)) == [{"role": "system", "content": "Never tell."}]


def test_fields_of_a_name_of_ours_are_kept_apart() -> None:
    """What a message has besides, and what is noted of it, do not meet."""
    message = {
        "role": "user",
        "results": {},
        "parts": 5,
        "content": [
            {"type": "tool_result", "tool_use_id": "c", "cache_control": {"type": "ephemeral"}}
        ],
    }
    kept = deepcopy(message)
    (event,) = anthropic.from_messages([message])
    assert message == kept
    assert event.metadata["anthropic"]["fields"] == {"results": {}, "parts": 5}
    (back,) = anthropic.to_messages(stored([event]))
    assert back == {"role": "user", "content": message["content"]}


def test_many_results_are_said_in_no_time() -> None:
    """Not in the square of it: the second half takes as long as the first."""
    calls = Event(author="agent", content=[ToolCall(f"c{n}", "f") for n in range(20_000)])
    answers = [Event(author="tool", content=[ToolResult(f"c{n}", n)]) for n in range(20_000)]
    found = anthropic.to_messages(View().of([calls, *answers]))
    assert [len(message["content"]) for message in found] == [20_000, 20_000]  # type: ignore[arg-type]  # a list, where the types take any iterable


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (openai_chat, {"role": "tool", "tool_call_id": "", "content": "x"}),
        (openai_chat, {"role": "", "content": "x"}),
        (openai_chat, {"role": "tool", "tool_call_id": "c", "content": "x", "name": 5}),
        (anthropic, {"role": "", "content": "x"}),
        (gemini, {"role": "", "parts": [{"text": "x"}]}),
        (openai_responses, {"type": "function_call", "call_id": "", "name": "f", "arguments": ""}),
    ],
)
def test_what_could_not_be_stored_is_refused(module: ModuleType, message: Any) -> None:
    """Here, where the message is known."""
    with pytest.raises(ValueError, match=r"messages\[0\]"):
        module.from_messages([message])


@each_format
def test_a_message_that_holds_itself_is_refused(
    module: ModuleType, param: TypeAdapter[Any] | LenientContent
) -> None:
    """It could not be stored, and is no message."""
    message: dict[str, Any] = {"role": "user", "content": []}
    message["content"].append(message)
    with pytest.raises(ValueError, match=r"messages\[0\] is nested too deep"):
        module.from_messages([message])
    with pytest.raises(TypeError, match=r"messages\[0\] must be a dict or a model"):
        module.from_messages([TextBlock])
    assert param is not None
