"""Events that hold Gemini contents, for the frameworks that have them: ADK and tRPC-Agent."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from google.genai.types import (
    Blob,
    Content,
    ExecutableCode,
    FunctionCall,
    FunctionResponse,
    GenerateContentResponseUsageMetadata,
    Language,
    Part,
)

from adapters.canonical import Said, medium
from agentsession import SessionKey


async def write(
    adapter: Any, event_type: Callable[..., Any], key: SessionKey, messages: list[dict[str, Any]]
) -> None:
    """Store messages through a session service, each as the event that a runner makes of one."""
    where: dict[str, Any] = {
        "app_name": key.app_name,
        "user_id": key.user_id,
        "session_id": key.session_id,
    }
    session = await adapter.get_session(**where) or await adapter.create_session(**where)
    tools = {call.id: call.name for event in session.events for call in event.get_function_calls()}
    for message in messages:
        author = "assistant" if message["role"] == "tool" else message["role"]
        event = event_type(author=author, content=content_of(message, tools))
        tools.update((call.id, call.name) for call in event.get_function_calls())
        await adapter.append_event(session, event)


def content_of(message: dict[str, Any], tools: dict[str, str]) -> Content:
    role, content = message["role"], message.get("content")
    if role == "tool":
        call_id = message["tool_call_id"]
        answer = FunctionResponse(id=call_id, name=tools[call_id], response={"result": content})
        return Content(role="user", parts=[Part(function_response=answer)])
    parts = [Part(text=content)] if content else []
    for call in message.get("tool_calls") or ():
        name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
        parts.append(Part(function_call=FunctionCall(id=call["id"], name=name, args=arguments)))
    return Content(role="model" if role == "assistant" else "user", parts=parts)


async def store(adapter: Any, key: SessionKey, event: Any) -> None:
    """Store an event as it is."""
    session = await adapter.create_session(
        app_name=key.app_name, user_id=key.user_id, session_id=key.session_id
    )
    await adapter.append_event(session, event)


async def objects(adapter: Any, key: SessionKey) -> list[Any]:
    """Read what a runner would show its model."""
    session = await adapter.get_session(
        app_name=key.app_name, user_id=key.user_id, session_id=key.session_id
    )
    return [] if session is None else list(session.events)


async def read(adapter: Any, key: SessionKey) -> list[Said]:
    """Read what a runner would show its model."""
    return [each for event in await objects(adapter, key) for each in said_by(event)]


def said_by(event: Any) -> Iterator[Said]:
    role = event.author if event.author in {"user", "system"} else "assistant"
    for part in event.content.parts if event.content else ():
        if part.function_call:
            call = part.function_call
            yield ("call", call.id, call.name, call.args)
        elif part.function_response:
            yield _result(part.function_response)
        elif part.thought:
            signature = part.thought_signature
            yield ("reasoning", part.text, signature and base64.b64encode(signature).decode())
        elif part.inline_data:
            blob = part.inline_data
            data = base64.b64encode(blob.data).decode()
            yield ("media", role, blob.mime_type, data, blob.display_name or "")
        elif part.file_data:
            file = part.file_data
            yield medium(role, file.mime_type, file.file_uri, file.display_name)
        elif part.text:
            yield ("text", role, part.text)
        else:
            yield ("other", part)


def _result(answer: FunctionResponse) -> Said:
    response = answer.response or {}
    match [*response]:
        case ["result" | "error" as holder]:
            return ("failure" if holder == "error" else "result", answer.id, response[holder])
        case _:
            return ("result", answer.id, response)


def marks(events: list[Any]) -> Iterator[Said]:
    """Yield what stands beside what is said."""
    for event in events:
        yield "author", event.author
        yield "time", datetime.fromtimestamp(event.timestamp, UTC)
        if event.invocation_id:
            yield "turn", event.invocation_id
        if event.error_code:
            yield "error", event.error_code, event.error_message
        if event.actions.state_delta:
            yield "state", event.actions.state_delta
        if event.content:
            yield "role", event.content.role
        for part in event.content.parts if event.content else ():
            if part.function_call:
                yield "arguments", part.function_call.args
                if part.thought_signature:
                    yield "signature", base64.b64encode(part.thought_signature).decode()


def told(events: list[Any]) -> list[Any]:
    """Return what is said to be left out."""
    notes = (event.custom_metadata or {} for event in events)
    return [why for note in notes for why in note.get("agentsession_lost", ())]


def own_objects(event_type: Callable[..., Any]) -> dict[str, Any]:
    """Make an event of each kind, of a part of that kind."""
    signature = base64.b64decode("SIGNATURE+++")
    answers = {"result": {"result": "RESULT"}, "failure": {"error": "RESULT"}}
    parts = {
        "words": Part(text="WORDS"),
        "reasoning": Part(text="THOUGHTS", thought=True),
        "other signature": Part(text="thoughts", thought=True, thought_signature=signature),
        "image": Part(inline_data=Blob(data=base64.b64decode("SU1BR0VE"), mime_type="image/png")),
        "call": Part(function_call=FunctionCall(id="c1", name="find", args={"id": 7})),
        "hosted": Part(executable_code=ExecutableCode(code="HOSTED", language=Language.PYTHON)),
    }
    parts |= {
        kind: Part(function_response=FunctionResponse(id="c1", name="find", response=answer))
        for kind, answer in answers.items()
    }
    made = {
        kind: event_type(
            author="planner",
            content=Content(role="user" if kind in answers else "model", parts=[part]),
        )
        for kind, part in parts.items()
    }
    made["author"] = event_type(
        author="AUTHOR", content=Content(role="model", parts=[Part(text="Hi")])
    )
    made["usage"] = event_type(
        author="planner",
        content=Content(role="model", parts=[Part(text="Hi")]),
        usage_metadata=GenerateContentResponseUsageMetadata(prompt_token_count=86420),
    )
    return made
