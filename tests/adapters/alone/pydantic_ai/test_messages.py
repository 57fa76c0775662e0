"""The messages of Pydantic AI as events, and events as its messages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai import messages as framework
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse

from adapters.canonical import said_in
from adapters.frameworks import pydantic_ai as matrix
from adapters.processes import ROOT
from agentsession import Data, Event, SessionKey, SessionService, Text, ToolCall, ToolResult
from agentsession.adapters.pydantic_ai import ConversationStore
from agentsession.events import Media, Part, Reasoning
from agentsession.messages import openai_chat

KEY = SessionKey("app", "user", "chat")
DATA = ROOT.parent / "shared" / "data" / "airline_conversations.jsonl"
TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
PNG = b"\x89PNG\xff\xfe\xfb??>"


def store_of(service: SessionService) -> ConversationStore:
    return ConversationStore(service, app_name="app", user_id="user")


@dataclass
class Report:
    city: str
    rain: bool


REQUESTS: list[framework.ModelRequestPart] = [
    framework.CapabilityLoadDeltaPart(loaded=["weather"]),
    framework.SystemPromptPart("Be brief."),
    framework.UserPromptPart("Hi"),
    framework.UserPromptPart(
        [
            "Look:",
            framework.TextContent("a text", metadata={"page": 1}),
            framework.BinaryImage(PNG, media_type="image/png"),
            framework.ImageUrl("https://example.com/a.png"),
            framework.DocumentUrl("https://example.com/file", media_type="application/pdf"),
            framework.CachePoint(),
            framework.UploadedFile("file-1", provider_name="openai"),
        ]
    ),
    framework.ToolReturnPart("weather", {"city": "Oslo", "days": [1, None]}, "call 1"),
    framework.ToolReturnPart("weather", "no such city", "call 2", outcome="failed"),
    framework.ToolReturnPart("weather", None, "call 3", metadata={"kept": True}),
    framework.UserPromptPart("And tomorrow?"),
]
ANSWERS: list[framework.ModelResponsePart] = [
    framework.ThinkingPart("Hm.", signature="sig", provider_name="anthropic"),
    framework.ThinkingPart("Hm.", id="rs_1", provider_name="openai"),
    framework.TextPart("Let me see."),
    framework.ToolCallPart("weather", '{"city":  "Oslo"}', "call 4"),
    framework.ToolCallPart("weather", {"city": "Rome"}, "call 5"),
    framework.ToolCallPart("weather", "not json", "call 6"),
    framework.ToolCallPart("weather", None, "call 7"),
    framework.FilePart(framework.BinaryImage(PNG, media_type="image/png")),
]


def a_bit_of_everything() -> list[ModelMessage]:
    search = framework.NativeToolCallPart("web_search", {"query": "rain"}, "native")
    found = framework.NativeToolReturnPart("web_search", {"found": []}, "native")
    return [
        ModelRequest(REQUESTS, instructions="Be kind.", metadata={"tag": "x"}),
        ModelResponse(
            [*ANSWERS, search, found], model_name="m", finish_reason="stop", timestamp=TIME
        ),
        ModelRequest([]),
        ModelResponse([]),
    ]


async def stored(service: SessionService, messages: list[ModelMessage]) -> list[Event]:
    conversation = Conversation(conversation_id="chat", messages=messages)
    await store_of(service).save(conversation)
    return await service.get_events(KEY)


async def test_messages_come_back_as_they_were(service: SessionService) -> None:
    """Whatever is in them, also after something else has stored more, and in a fork."""
    messages = a_bit_of_everything()
    await stored(service, messages)
    loaded = await store_of(service).load("chat")
    assert loaded is not None
    assert loaded.messages == messages
    await service.append_event(KEY, Event(author="user", content="more"))
    fork = await store_of(service).fork("chat", at=4)
    assert fork.messages == messages
    prompt = loaded.messages[0].parts[3]
    assert isinstance(prompt, framework.UserPromptPart)
    assert isinstance(prompt.content[2], framework.BinaryImage)
    assert prompt.content[2].data == PNG


async def test_others_see_the_parts(service: SessionService) -> None:
    """Who says what, and nothing of what is the framework's alone."""
    events = await stored(service, a_bit_of_everything())
    assert [(event.author, event.content) for event in events[:3]] == [
        ("system", [events[0].content[0], Text("Be brief.")]),
        (
            "user",
            [
                Text("Hi"),
                Text("Look:"),
                Text("a text"),
                Media.from_bytes(PNG, "image/png"),
                Media("image/png", uri="https://example.com/a.png"),
                Media("application/pdf", uri="https://example.com/file"),
                events[1].content[-1],
            ],
        ),
        (
            "tool",
            [
                ToolResult("call 1", {"city": "Oslo", "days": [1, None]}, "weather"),
                ToolResult("call 2", "no such city", "weather", is_error=True),
                ToolResult("call 3", None, "weather"),
            ],
        ),
    ]
    for part in (events[0].content[0], events[1].content[-1]):
        assert isinstance(part, Data)
    assert (events[3].author, events[3].content) == ("user", "And tomorrow?")
    assert (events[4].author, events[4].timestamp) == ("assistant", TIME)
    *parts, search, found = list(events[4].content)
    assert parts == [
        Reasoning("Hm.", {"anthropic": {"signature": "sig"}}),
        Reasoning("Hm."),
        Text("Let me see."),
        ToolCall("call 4", "weather", {"city": "Oslo"}),
        ToolCall("call 5", "weather", {"city": "Rome"}),
        ToolCall("call 6", "weather", "not json"),
        ToolCall("call 7", "weather", {}),
        Media.from_bytes(PNG, "image/png"),
    ]
    assert isinstance(search, Data)
    assert isinstance(found, Data)
    assert [(event.author, event.content) for event in events[5:]] == [
        ("user", []),
        ("assistant", []),
    ]


async def test_what_is_for_the_framework_alone_is_no_event_of_its_own(
    service: SessionService,
) -> None:
    """It stands with what others can read."""
    books = framework.CapabilityLoadDeltaPart(loaded=["weather"])
    prompt = framework.UserPromptPart("Hi")
    events = await stored(
        service,
        [ModelRequest([books, prompt]), ModelRequest([prompt, books]), ModelRequest([books])],
    )
    assert [event.author for event in events] == ["user"] * 3
    assert [event.text for event in events] == ["Hi", "Hi", ""]


async def test_the_agents_name_is_the_author(service: SessionService) -> None:
    """Of what a model says, if the application gives it."""
    store = ConversationStore(service, app_name="app", user_id="user", agent="concierge")
    messages: list[ModelMessage] = [ModelResponse([framework.TextPart("Hello")])]
    await store.save(Conversation(conversation_id="chat", messages=messages))
    assert [event.author for event in await service.get_events(KEY)] == ["concierge"]


async def test_feedback_is_what_the_model_is_told(service: SessionService) -> None:
    """A retry of a call is its result, any other is words of the user's side."""
    retry = framework.RetryFeedbackPart("Say it in JSON.", retry=framework.RetryInfo("no_output"))
    with pytest.warns(Warning, match="deprecated"):
        old = framework.RetryPromptPart("Wrong city.", tool_name="weather", tool_call_id="call")
    with pytest.warns(Warning, match="deprecated"):
        old_words = framework.RetryPromptPart("Wrong.")
    events = await stored(service, [ModelRequest([old, retry, old_words])])
    tool, user = events
    assert tool.content == [ToolResult("call", old.model_response(), "weather", is_error=True)]
    assert user.text == retry.model_response() + old_words.model_response()
    assert len(await store_of(service).load_entries("chat") or []) == 1


async def test_speech_and_summaries_are_words(service: SessionService) -> None:
    """What was said is there for whoever cannot play it."""
    sound = framework.BinaryContent(b"wav", media_type="audio/wav")
    spoken = framework.SpeechPart(speaker="user", transcript="Hello?", audio=sound)
    answer = framework.SpeechPart(speaker="assistant", transcript="Hi.")
    unheard = framework.SpeechPart(speaker="user", audio=sound)
    messages: list[ModelMessage] = [
        ModelRequest([framework.CompactionPart("They met."), spoken, unheard]),
        ModelResponse([framework.CompactionPart("They spoke."), answer]),
    ]
    asked, answered = await stored(service, messages)
    assert asked.content == [
        Text("They met."),
        Text("Hello?"),
        Media.from_bytes(b"wav", "audio/wav"),
        Media.from_bytes(b"wav", "audio/wav"),
    ]
    assert answered.content == [Text("They spoke."), Text("Hi.")]
    loaded = await store_of(service).load("chat")
    assert loaded is not None
    assert loaded.messages == messages


async def test_values_that_json_has_no_form_for(service: SessionService) -> None:
    """They are stored as the framework writes them, and read as it reads them."""
    result = framework.ToolReturnPart("report", Report("Oslo", rain=True), "call")
    raw = framework.ToolReturnPart("raw", b"\xff\xfe", "raw")
    await stored(service, [ModelRequest([result, raw])])
    loaded = await store_of(service).load("chat")
    assert loaded is not None
    first, second = loaded.messages[0].parts
    assert isinstance(first, framework.ToolReturnPart)
    assert first.content == {"city": "Oslo", "rain": True}
    assert isinstance(second, framework.ToolReturnPart)
    assert second.content == "__4="


async def test_what_others_have_stored_is_shown(service: SessionService) -> None:
    """As what a model may be shown, with calls paired and results named."""
    await service.create_session(KEY)
    asks: list[Part] = [
        Text("Look:"),
        Media("image/png", uri="https://example.com/a.png"),
        Media("audio/*", uri="https://example.com/a.mp3"),
        Media("video/mp4", uri="https://example.com/a"),
        Media("application/pdf", uri="https://example.com/a"),
        Media.from_bytes(PNG, "image/png"),
    ]
    says: list[Part] = [
        Reasoning("Hm.", {"anthropic": {"signature": "sig"}}),
        Reasoning("Ha."),
        Text("Let me see."),
        ToolCall("1", "weather", {"city": "Oslo"}),
        ToolCall("2", "weather", '{"city":'),
        ToolCall("3", "weather", [1]),
        Media.from_bytes(PNG, "image/png"),
    ]
    events = [
        Event(author="system", content="Be brief."),
        Event(author="user", content="Hi"),
        Event(author="user", content=asks),
        Event(author="helper", content=says),
        Event(author="tool", content=[ToolResult("1", {"rain": True}), ToolResult("2", "no", "w")]),
        Event(author="tool", content=[ToolResult("3", "broken", is_error=True)]),
        Event(author="helper", content="It rains."),
        Event(author="helper", state_delta={"a": 1}),
    ]
    events = await service.append_events(KEY, events)
    loaded = await store_of(service).load("chat")
    assert loaded is not None
    times = iter(event.timestamp for event in events)
    user = framework.UserPromptPart
    expected: list[ModelMessage] = [
        ModelRequest(
            [framework.SystemPromptPart("Be brief.", timestamp=(t := next(times)))], timestamp=t
        ),
        ModelRequest([user("Hi", timestamp=(t := next(times)))], timestamp=t),
        ModelRequest(
            [
                user(
                    [
                        "Look:",
                        framework.ImageUrl("https://example.com/a.png", media_type="image/png"),
                        framework.AudioUrl("https://example.com/a.mp3"),
                        framework.VideoUrl("https://example.com/a", media_type="video/mp4"),
                        framework.DocumentUrl(
                            "https://example.com/a", media_type="application/pdf"
                        ),
                        framework.BinaryImage(PNG, media_type="image/png"),
                    ],
                    timestamp=(t := next(times)),
                )
            ],
            timestamp=t,
        ),
        ModelResponse(
            [
                framework.ThinkingPart("Hm.", signature="sig", provider_name="anthropic"),
                framework.ThinkingPart("Ha."),
                framework.TextPart("Let me see."),
                framework.ToolCallPart("weather", {"city": "Oslo"}, "1"),
                framework.ToolCallPart("weather", '{"city":', "2"),
                framework.ToolCallPart("weather", "[1]", "3"),
                framework.FilePart(framework.BinaryImage(PNG, media_type="image/png")),
            ],
            timestamp=next(times),
        ),
        ModelRequest(
            [
                framework.ToolReturnPart(
                    "weather", {"rain": True}, "1", timestamp=(t := next(times))
                ),
                framework.ToolReturnPart("w", "no", "2", timestamp=t),
            ],
            timestamp=t,
        ),
        ModelRequest(
            [
                framework.ToolReturnPart(
                    "weather", "broken", "3", timestamp=(t := next(times)), outcome="failed"
                )
            ],
            timestamp=t,
        ),
        ModelResponse([framework.TextPart("It rains.")], timestamp=next(times)),
    ]
    assert loaded.messages == expected
    again = await store_of(service).load("chat")
    assert again is not None
    assert again.messages == loaded.messages, "a message is the same at every read"


async def test_what_has_no_form_is_told(service: SessionService) -> None:
    """It is in the message's metadata, where the application finds it and no model does."""
    await service.create_session(KEY)
    card = Data({"card": 1}, "application/card")
    no_file = Media("image/png", provider_data={"openai_chat": {"file_id": "f"}})
    broken = Media("image/png", data="no base64!")
    odd: list[Part] = [card, no_file, broken, Reasoning("?")]
    unsaid: list[Part] = [card, Media("image/png", uri="x:y"), broken]
    for author, parts in (("user", odd), ("system", odd), ("helper", unsaid)):
        await service.append_event(KEY, Event(author=author, content=parts))
    loaded = await store_of(service).load("chat")
    assert loaded is not None
    found = [(len(m.parts), len((m.metadata or {})["agentsession"])) for m in loaded.messages]
    assert found == [(0, 4), (0, 4), (0, 3)]
    told = (loaded.messages[0].metadata or {})["agentsession"]
    assert told[0] == {"type": "data", "data": {"card": 1}, "media_type": "application/card"}
    json.dumps(told)
    await store_of(service).fork("chat", new_conversation_id="fork")


async def test_recorded_conversations(service: SessionService) -> None:
    """Written by the framework and by others, each is read as what was recorded."""
    if not DATA.exists():
        pytest.skip("the recorded conversations are not beside this checkout")
    for number, line in enumerate(DATA.read_text().splitlines()[:20]):
        messages = json.loads(line)["messages"]
        key = SessionKey("app", "user", f"framework {number}")
        await matrix.write(service, key, messages)
        assert await matrix.read(service, key) == said_in(messages)
        told = openai_chat.to_messages(await service.get_events(key, limit=1000))
        assert said_in([dict(message) for message in told]) == said_in(messages)
        assert told.lost == []
        key = SessionKey("app", "user", f"others {number}")
        await service.create_session(key)
        await service.append_events(key, openai_chat.from_messages(messages))
        assert await matrix.read(service, key) == said_in(messages)
