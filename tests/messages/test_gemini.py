"""Contents of Google's Gemini API: there and back, by the provider's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agentsession import Data, Event, Text, ToolCall, ToolResult
from agentsession.demo import SHIPPED_CONVERSATIONS
from agentsession.events import Media, Part, Reasoning
from agentsession.history import View
from agentsession.messages import Loss, openai_chat
from agentsession.messages.gemini import from_messages, to_messages
from messages.checking import check_all_is_said, check_types, stored

CONTENT: TypeAdapter[Any] = TypeAdapter(types.Content)
"""It refuses what it does not know."""

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
values = st.recursive(
    words | st.integers(-9, 9) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
base64 = st.sampled_from(["QUJD", "-_8=", "+/8="])
beside = st.sampled_from(
    [
        {},
        {"thoughtSignature": "QUJD"},
        {"videoMetadata": {"fps": 1.0}},
        {"partMetadata": {"a": [1]}, "thought": False},
    ]
)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def part(kind: str, value: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda one, more: {kind: one, **more}, value, beside)


responses = st.one_of(
    st.dictionaries(words, values, max_size=2),
    st.builds(lambda name, value: {name: value}, st.sampled_from(["result", "error"]), values),
    st.builds(lambda value: {"result": {"result": value}}, values),
    st.builds(lambda value: {"result": {"error": value}}, values),
)
everywhere = st.one_of(
    part("text", words),
    part("inlineData", some(mimeType=st.just("image/png"), data=base64, displayName=words)),
    part("fileData", some(mimeType=st.just("a/b"), fileUri=st.just("gs://a"), displayName=words)),
    part("executableCode", st.just({"code": "1", "language": "PYTHON"})),
    part("codeExecutionResult", st.just({"outcome": "OUTCOME_OK", "output": "1"})),
    part("toolCall", st.just({"id": "t", "toolType": "GOOGLE_SEARCH_WEB"})),
)
calls = part(
    "functionCall",
    some(
        id=st.sampled_from(["c1", "c2"]),
        name=st.sampled_from(["f", "g"]),
        args=st.dictionaries(words, values, max_size=2),
        willContinue=st.booleans(),
    ),
)
results = part(
    "functionResponse",
    some(
        id=st.sampled_from(["c1", "c2", "c3"]),
        name=st.sampled_from(["f", "g"]),
        response=responses,
        scheduling=st.just("SILENT"),
    ),
)
thoughts = st.builds(lambda one: {**one, "thought": True}, part("text", words | st.just("")))
contents = st.one_of(
    st.builds(
        lambda parts: {"role": "model", "parts": parts},
        st.lists(everywhere | calls | thoughts, min_size=1, max_size=4),
    ),
    st.builds(
        lambda parts, last: {"role": "user", "parts": [*parts, last]},
        st.lists(everywhere | results, max_size=3),
        everywhere,
    ),
    st.builds(lambda parts: {"parts": parts}, st.lists(everywhere, min_size=1, max_size=2)),
    st.builds(
        lambda parts: {"role": "function", "parts": parts},
        st.lists(results, min_size=1, max_size=2),
    ),
)


@given(st.lists(contents, max_size=4))
def test_contents_come_back(given_contents: list[dict[str, Any]]) -> None:
    """From a store, and equal to the letter; the strategy makes nothing but what the types know."""
    for content in given_contents:
        check_types(CONTENT, content)
    events = from_messages(given_contents)
    assert events.lost == []
    back = to_messages(stored(events))
    assert (list(back), back.lost) == (given_contents, [])


@given(st.lists(contents, max_size=4))
def test_models_come_back(given_contents: list[dict[str, Any]]) -> None:
    """Of the provider's package, which writes bytes in its own way."""
    models = [CONTENT.validate_python(content) for content in given_contents]
    back = to_messages(stored(from_messages(models)))
    assert [CONTENT.validate_python(content) for content in back] == models


@given(st.lists(st.lists(results, min_size=1, max_size=2), min_size=1, max_size=3))
def test_results_become_one_content(groups: list[list[dict[str, Any]]]) -> None:
    """However they were stored: the API wants the results of all calls of an answer in one."""
    events = from_messages([{"role": "user", "parts": group} for group in groups])
    (content,) = to_messages(stored(events))
    assert content == {"role": "user", "parts": [each for group in groups for each in group]}


@given(responses)
def test_a_result_is_the_same_to_all_readers(response: dict[str, Any]) -> None:
    """What a tool gave back is no wrapping of this API's, and it is wrapped again."""
    (event,) = from_messages(
        [{"role": "user", "parts": [{"functionResponse": {"id": "c", "response": response}}]}]
    )
    if isinstance(event.content[0], ToolResult):
        (result,) = event.tool_results
        made = Event(author="tool", content=[result])
        (content,) = to_messages([made])
        (again,) = from_messages([content])
        assert again.tool_results[0].result == result.result


def response_of(result: Any, *, is_error: bool = False) -> Any:
    (content,) = to_messages(
        [Event(author="tool", content=[ToolResult("c", result, "f", is_error=is_error)])]
    )
    return content["parts"][0]["functionResponse"]["response"]


def test_a_result_is_an_object_and_wrapped_if_it_is_none() -> None:
    """As the provider's agents do it; an error where the API has one."""
    assert response_of("words") == {"result": "words"}
    assert response_of({"a": 1}) == {"a": 1}
    assert response_of([1]) == {"result": [1]}
    assert response_of(None) == {"result": None}
    assert response_of({"result": 1}) == {"result": {"result": 1}}
    assert response_of({"error": 1}) == {"result": {"error": 1}}
    assert response_of("no", is_error=True) == {"error": "no"}


def test_calls_without_ids_are_paired() -> None:
    """By their tools, in order; with ids that are the same each time."""
    given_contents = [
        {
            "role": "model",
            "parts": [
                {"functionCall": {"name": "f", "args": {"a": 1}}},
                {"functionCall": {"name": "g"}},
                {"functionCall": {"name": "f", "args": {"a": 2}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"result": 1}}},
                {"functionResponse": {"name": "f", "response": {"result": 2}}},
                {"functionResponse": {"name": "g", "response": {"result": 3}}},
                {"functionResponse": {"name": "h", "response": {"result": 4}}},
            ],
        },
    ]
    asks, answers = from_messages(given_contents)
    one, two, three = (call.call_id for call in asks.tool_calls)
    assert len({one, two, three}) == 3
    found = {result.call_id: result.result for result in answers.tool_results}
    assert found == {one: 1, three: 2, two: 3, "h-1.3": 4}
    again = from_messages(given_contents)
    assert [event.content for event in again] == [asks.content, answers.content]
    assert list(to_messages(stored([asks, answers]))) == given_contents


def test_a_result_gets_the_name_of_its_tool() -> None:
    """Both ways: the API demands it, and other formats have none."""
    events = [
        Event(author="agent", content=[ToolCall("c", "f")]),
        Event(author="tool", content=[ToolResult("c", 1)]),
    ]
    said = to_messages(events)
    answer = said[1]["parts"][0]["functionResponse"]
    assert answer == {"id": "c", "name": "f", "response": {"result": 1}}
    del answer["name"]
    assert from_messages(said)[1].tool_results == [ToolResult("c", 1, "f")]


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
            "arguments are an object; these are sent as its 'arguments'",
            "the author 'system' has no role; it is said as the user's",
        }
        for content in found:
            check_types(CONTENT, content)
        parts = [each for content in found for each in content["parts"]]
        asked = [call for message in recorded for call in message.get("tool_calls") or []]
        made = [each["functionCall"] for each in parts if "functionCall" in each]
        assert [(each["id"], each["name"], each["args"]) for each in made] == [
            (call["id"], call["function"]["name"], openai_arguments(call["function"]["arguments"]))
            for call in asked
        ]
        answers = [each["functionResponse"] for each in parts if "functionResponse" in each]
        assert [each["response"] for each in answers] == [
            {"result": each["content"]} for each in recorded if each["role"] == "tool"
        ]
        assert all(each["name"] for each in answers)


any_parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, words, st.none() | st.just({"openai_chat": {"x": 1}})),
    st.builds(Reasoning, words | st.just("")),
    st.builds(
        Media, st.sampled_from(["image/png", "audio/mpeg"]), data=st.sampled_from(["QUJD", ""])
    ),
    st.builds(Media, st.just("text/plain"), uri=st.just("gs://a")),
    st.builds(
        ToolCall,
        st.just("c"),
        st.just("f"),
        st.sampled_from([{}, {"a": [1]}, "words", '{"a":1}', [1], 5]),
    ),
    st.builds(
        ToolResult,
        st.just("c"),
        st.sampled_from(["words", None, {"a": 1}, [{"text": "a"}], [], [1]]),
        is_error=st.booleans(),
    ),
    st.builds(Data, st.just({"a": 1})),
)


@given(
    st.lists(
        st.builds(
            Event,
            author=st.sampled_from(["user", "system", "agent", "tool"]),
            content=words | st.lists(any_parts, max_size=4),
        ),
        max_size=4,
    )
)
def test_what_is_said_is_a_request_and_what_is_not_is_told(events: list[Event]) -> None:
    """Whatever is in them, the provider's types take what is made; each part is there or lost."""
    found = to_messages(events)
    for content in found:
        check_types(CONTENT, content)
    texts = [
        Event(id=event.id, author=event.author, content=[each])
        for event in events
        for each in event.content
        if isinstance(each, Text)
    ]
    check_all_is_said(texts, found)
    lost = {loss.where for loss in found.lost}
    said = json.dumps(found)
    for event in events:
        for number, each in enumerate(() if isinstance(event.content, str) else event.content):
            if f"event {event.id!r}, content[{number}]" not in lost:
                match each:
                    case Reasoning(text):
                        assert json.dumps(text) in said
                    case Media():
                        assert (each.data or each.uri) in said
                    case ToolCall() | ToolResult():
                        assert f'"id": "{each.call_id}"' in said
                    case Data():
                        pytest.fail(f"{each} is neither said nor lost")
                    case Text():
                        pass


def test_losses_say_what_and_where() -> None:
    """By the event and the part; what can be said in another form is said."""
    event = Event(
        id="e",
        author="agent",
        content=[
            Reasoning("", {"openai_responses": {"item": {}}}),
            Media("image/png"),
            Data(1),
            ToolCall("c", "f", [1]),
        ],
    )
    asks = Event(id="u", author="user", content=[ToolCall("d", "f")])
    orders = Event(id="s", author="system", content="Be brief.")
    found = to_messages([event, asks, orders])
    assert found.lost == [
        Loss("event 'e', content[0]", "a Reasoning of the author 'agent' has no form"),
        Loss("event 'e', content[1]", "media without a place have no form"),
        Loss("event 'e', content[2]", "a Data of the author 'agent' has no form"),
        Loss("event 'e', content[3]", "arguments are an object; these are sent as its 'arguments'"),
        Loss("event 'u', content[0]", "a ToolCall of the author 'user' has no form"),
        Loss("event 's', author", "the author 'system' has no role; it is said as the user's"),
    ]
    assert list(found) == [
        {
            "role": "model",
            "parts": [{"functionCall": {"id": "c", "name": "f", "args": {"arguments": [1]}}}],
        },
        {"role": "user", "parts": [{"text": "Be brief."}]},
    ]


def test_what_an_agent_does_and_gets_alternates() -> None:
    """An event may hold a call, its result and what is made of it; the API has roles for each."""
    event = Event(
        author="agent", content=[ToolCall("c", "f"), ToolResult("c", 1, "f"), Text("One.")]
    )
    assert [content["role"] for content in to_messages([event])] == ["model", "user", "model"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("words", r"contents?|messages\[1\] must be a dict or a model, not str"),
        ({"role": 5}, r"messages\[1\]: role must be a str that is not empty, not 5"),
        ({"role": "user", "parts": 5}, "parts must be a list, and it is of type int"),
        ({"role": "user", "parts": ["x"]}, "parts are dicts, and one is a str"),
    ],
)
def test_wrong_contents_say_which(content: Any, problem: str) -> None:
    """And what is wrong with it."""
    with pytest.raises((TypeError, ValueError), match=problem):
        from_messages([{"role": "user", "parts": [{"text": "hi"}]}, content])


@pytest.mark.parametrize(
    ("role", "odd"),
    [
        ("model", {}),
        ("model", {"text": 5}),
        ("model", {"text": "a", "functionCall": {"name": "f"}}),
        ("model", {"functionCall": {"id": "c"}}),
        ("model", {"functionCall": {"name": "f", "args": [1]}}),
        ("model", {"functionCall": 5}),
        ("model", {"functionResponse": {"name": "f", "response": {}}}),
        ("model", {"newThing": {"a": 1}}),
        ("user", {"functionCall": {"name": "f"}}),
        ("user", {"functionResponse": {"name": "f", "response": 5}}),
        ("user", {"functionResponse": {"name": 5}}),
        ("user", {"functionResponse": {}}),
        ("user", {"text": "so", "thought": True}),
        ("user", {"inlineData": {"mimeType": "a/b", "data": "!"}}),
        ("user", {"inlineData": {"mimeType": "", "data": "QUJD"}}),
        ("user", {"fileData": {"mimeType": 5, "fileUri": "gs://a"}}),
    ],
)
def test_odd_parts_are_kept_as_they_are(role: str, odd: dict[str, Any]) -> None:
    """What is not known, or not there where the API has it, comes back."""
    content = {"role": role, "parts": [odd]}
    (event,) = from_messages([content])
    assert isinstance(event.content[0], Data)
    assert list(to_messages(stored([event]))) == [content]


def test_a_content_of_an_unknown_role_is_kept() -> None:
    """As it is."""
    content = {"role": "critic", "parts": [{"text": "no"}]}
    (event,) = from_messages([content])
    assert event.author == "critic"
    assert list(to_messages(stored([event]))) == [content]


def test_fields_that_are_null_are_not_there() -> None:
    """As the API has it."""
    (event,) = from_messages([{"role": None, "parts": [{"text": "x", "thought": None}]}])
    assert (event.author, event.content) == ("user", "x")
    assert list(to_messages([event])) == [{"parts": [{"text": "x"}]}]


def test_media_are_what_other_formats_have_too() -> None:
    """Their type, their name and their address; base64 is the one that all others read."""
    content = {
        "role": "model",
        "parts": [
            {"inlineData": {"mimeType": "image/png", "data": "-_8=", "displayName": "a.png"}},
            {"fileData": {"fileUri": "gs://a"}},
        ],
    }
    (event,) = from_messages([content], agent="painter")
    assert event.author == "painter"
    image, file = list[Any](event.content)
    assert isinstance(image, Media)
    assert isinstance(file, Media)
    assert (image.to_bytes(), image.name) == (b"\xfb\xff", "a.png")
    assert (file.uri, file.media_type) == ("gs://a", "application/octet-stream")
    assert list(to_messages(stored([event]))) == [content]


def test_signatures_are_kept_where_they_belong() -> None:
    """Beside the thought, the words or the call that they sign, since a model wants them back."""
    content = {
        "role": "model",
        "parts": [
            {"text": "so", "thought": True, "thoughtSignature": "QUJD"},
            {"functionCall": {"id": "c", "name": "f", "args": {}}, "thoughtSignature": "QUJE"},
        ],
    }
    (event,) = from_messages([content])
    assert event.content == [
        Reasoning("so", {"gemini": {"thoughtSignature": "QUJD"}}),
        ToolCall("c", "f", {}, {"gemini": {"thoughtSignature": "QUJE"}}),
    ]
    assert list(to_messages(stored([event]))) == [content]
