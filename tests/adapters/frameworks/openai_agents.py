"""OpenAI Agents, for the conversations that move between frameworks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from adapters.canonical import Said, medium
from agentsession import SessionKey
from agentsession.adapters._sessions.logs import Service
from agentsession.adapters.openai_agents import AgentSession


async def write(service: Service, key: SessionKey, messages: list[dict[str, Any]]) -> None:
    """Store messages as the framework's runner does, each as the items that its models make."""
    session = AgentSession(service, key)
    for message in messages:
        await session.add_items(items_of(message))


def items_of(message: dict[str, Any]) -> list[Any]:
    role, content = message["role"], message.get("content")
    if role == "tool":
        call_id = message["tool_call_id"]
        return [{"type": "function_call_output", "call_id": call_id, "output": content}]
    if role != "assistant":
        return [{"role": role, "content": content}]
    text: dict[str, Any] = {
        "type": "output_text",
        "text": content,
        "annotations": [],
        "logprobs": [],
    }
    said = {"type": "message", "id": "msg_1", "role": role, "status": "completed"}
    return [
        *([{**said, "content": [text]}] if content else []),
        *(
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": call["id"],
                "name": call["function"]["name"],
                "arguments": call["function"]["arguments"],
                "status": "completed",
            }
            for call in message.get("tool_calls") or ()
        ),
    ]


async def store(service: Service, key: SessionKey, item: Any) -> None:
    """Store an item as it is."""
    await AgentSession(service, key).add_items([item])


async def objects(service: Service, key: SessionKey) -> list[Any]:
    """Read what a runner would show its model."""
    return await AgentSession(service, key).get_items()


async def read(service: Service, key: SessionKey) -> list[Said]:
    """Read what a runner would show its model."""
    return [said for item in await objects(service, key) for said in said_by(dict(item))]


def said_by(item: dict[str, Any]) -> list[Said]:
    match item:
        case {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}:
            return [("call", call_id, name, json.loads(arguments))]
        case {"type": "function_call_output", "call_id": call_id, "output": output}:
            return [("result", call_id, _words(output))]
        case {"type": "reasoning", "summary": summary, **own}:
            return [("reasoning", _words(summary), own.get("encrypted_content"))]
        case {"role": role, "content": str(content)}:
            return [("text", role, content)]
        case {"role": role, "content": content}:
            return [_said(role, part) for part in content]
        case _:
            return [("other", item)]


def _words(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content)


def _said(role: str, part: dict[str, Any]) -> Said:
    match part:
        case {"type": "input_text" | "output_text", "text": words}:
            return ("text", role, words)
        case {"type": "input_image", "image_url": url}:
            return medium(role, "image/*", url)
        case {"type": "input_file", **fields}:
            url = fields.get("file_data") or fields["file_url"]
            return medium(role, "", url, fields.get("filename"))
        case _:
            return ("other", part)


def marks(items: list[dict[str, Any]]) -> Iterator[Said]:
    """Yield what stands beside what is said."""
    for item in items:
        if "role" in item:
            yield "role", item["role"]
        if "arguments" in item:
            yield "arguments", item["arguments"]


def told(items: Any) -> list[Any]:
    """Return what is said to be left out."""
    return list(items.lost)


OBJECTS: dict[str, Any] = {
    "words": {"role": "user", "content": "WORDS"},
    "reasoning": {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "THOUGHTS"}],
    },
    "other signature": {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "encrypted_content": "SIGNATURE",
    },
    "image": {
        "role": "user",
        "content": [{"type": "input_image", "image_url": "data:image/png;base64,SU1BR0VE"}],
    },
    "call": {"type": "function_call", "call_id": "c1", "name": "find", "arguments": '{"id": 7}'},
    "result": {"type": "function_call_output", "call_id": "c1", "output": "RESULT"},
    "hosted": {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "HOSTED"},
    },
}
