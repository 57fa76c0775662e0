"""Pydantic AI, for the conversations that move between frameworks."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from pydantic_ai import messages as framework
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelMessage
from pydantic_ai.usage import RequestUsage

from adapters.canonical import Said, medium
from agentsession import SessionKey
from agentsession.adapters._sessions.logs import Service
from agentsession.adapters.pydantic_ai import ConversationStore


def store_of(service: Service, key: SessionKey) -> ConversationStore:
    return ConversationStore(service, app_name=key.app_name, user_id=key.user_id)


async def write(service: Service, key: SessionKey, messages: list[dict[str, Any]]) -> None:
    """Store messages as an agent's runs do: loaded, added to and saved, turn by turn."""
    store = store_of(service, key)
    for turn in turns_of(messages):
        conversation = await store.load(key.session_id)
        conversation = conversation or Conversation(conversation_id=key.session_id)
        conversation.messages += messages_of(turn)
        await store.save(conversation)


def turns_of(messages: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Cut messages into turns, which a user's message begins; what comes first goes with it."""
    turn: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "user" and any(each["role"] != "system" for each in turn):
            yield turn
            turn = []
        turn.append(message)
    yield turn


def messages_of(messages: Iterable[dict[str, Any]]) -> Iterator[ModelMessage]:
    """Make the framework's messages: what a model is told at once is one request."""
    names: dict[str, str] = {}
    for is_answer, group in groupby(messages, lambda message: message["role"] == "assistant"):
        if is_answer:
            for message in group:
                answer = framework.ModelResponse([*answer_parts(message)])
                names |= {call.tool_call_id: call.tool_name for call in answer.tool_calls}
                yield answer
        else:
            yield framework.ModelRequest([request_part(message, names) for message in group])


def answer_parts(message: dict[str, Any]) -> Iterator[framework.ModelResponsePart]:
    if message.get("content"):
        yield framework.TextPart(message["content"])
    for call in message.get("tool_calls") or ():
        function = call["function"]
        yield framework.ToolCallPart(function["name"], function["arguments"], call["id"])


def request_part(message: dict[str, Any], names: dict[str, str]) -> framework.ModelRequestPart:
    content = message["content"]
    match message["role"]:
        case "system":
            return framework.SystemPromptPart(content)
        case "tool":
            call_id = message["tool_call_id"]
            return framework.ToolReturnPart(names.get(call_id, ""), content, call_id)
        case _:
            return framework.UserPromptPart(content)


async def store(service: Service, key: SessionKey, message: ModelMessage) -> None:
    """Store a message as it is."""
    conversation = Conversation(conversation_id=key.session_id)
    conversation.messages.append(message)
    await store_of(service, key).save(conversation)


async def objects(service: Service, key: SessionKey) -> list[Any]:
    """Read what a run would go on from."""
    conversation = await store_of(service, key).load(key.session_id)
    assert conversation is not None
    return conversation.messages


async def read(service: Service, key: SessionKey) -> list[Said]:
    """Read what a run would go on from."""
    return [line for message in await objects(service, key) for line in said_by(message)]


def said_by(message: ModelMessage) -> Iterator[Said]:
    for part in message.parts:
        match part:
            case framework.SystemPromptPart():
                yield "text", "system", part.content
            case framework.UserPromptPart(content=str(words)):
                yield "text", "user", words
            case framework.UserPromptPart():
                for content in part.content:
                    yield (
                        ("text", "user", content)
                        if isinstance(content, str)
                        else _medium("user", content)
                    )
            case framework.ToolReturnPart():
                kind = "failure" if part.outcome == "failed" else "result"
                yield kind, part.tool_call_id, part.content
            case framework.ThinkingPart():
                yield "reasoning", part.content, part.signature
            case framework.FilePart():
                yield _medium("assistant", part.content)
            case framework.TextPart():
                yield "text", "assistant", part.content
            case framework.ToolCallPart(args=str(args)):
                yield "call", part.tool_call_id, part.tool_name, json.loads(args)
            case framework.ToolCallPart():
                yield "call", part.tool_call_id, part.tool_name, part.args
            case _:
                yield "other", part


def _medium(role: str, content: Any) -> Said:
    match content:
        case framework.BinaryContent():
            data = base64.b64encode(content.data).decode()
            return ("media", role, content.media_type, data, "")
        case framework.FileUrl():
            return medium(role, content.media_type, content.url)
        case _:
            return ("other", content)


def marks(messages: list[ModelMessage]) -> Iterator[Said]:
    """Yield what stands beside what is said."""
    for message in messages:
        yield "time", message.timestamp
        for part in message.parts:
            match part:
                case framework.SystemPromptPart():
                    yield "role", "system"
                case framework.UserPromptPart():
                    yield "role", "user"
                case framework.ToolCallPart():
                    yield "arguments", part.args
                case _:
                    pass


def told(messages: list[ModelMessage]) -> list[Any]:
    """Return what is said to be left out."""
    notes = (message.metadata or {} for message in messages)
    return [part for note in notes for part in note.get("agentsession", ())]


OBJECTS: dict[str, ModelMessage] = {
    "words": framework.ModelRequest([framework.UserPromptPart("WORDS")]),
    "reasoning": framework.ModelResponse([framework.ThinkingPart("THOUGHTS")]),
    "signature": framework.ModelResponse(
        [framework.ThinkingPart("thoughts", signature="SIGNATURE", provider_name="anthropic")]
    ),
    "other signature": framework.ModelResponse(
        [framework.ThinkingPart("thoughts", signature="SIGNATURE", provider_name="google")]
    ),
    "image": framework.ModelRequest(
        [
            framework.UserPromptPart(
                [framework.BinaryContent(base64.b64decode("SU1BR0VE"), media_type="image/png")]
            )
        ]
    ),
    "call": framework.ModelResponse([framework.ToolCallPart("find", {"id": 7}, "c1")]),
    "result": framework.ModelRequest([framework.ToolReturnPart("find", "RESULT", "c1")]),
    "failure": framework.ModelRequest(
        [framework.ToolReturnPart("find", "RESULT", "c1", outcome="failed")]
    ),
    "hosted": framework.ModelResponse(
        [framework.NativeToolCallPart("web_search", {"q": "HOSTED"}, "h1")]
    ),
    "usage": framework.ModelResponse(
        [framework.TextPart("Hi")], usage=RequestUsage(input_tokens=86420)
    ),
}
