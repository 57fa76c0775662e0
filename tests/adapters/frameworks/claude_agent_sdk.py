"""The Claude Agent SDK, for the conversations that move between frameworks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from adapters.canonical import Said, medium
from agentsession import SessionKey
from agentsession.adapters._sessions.logs import Service
from agentsession.adapters.claude_agent_sdk import SessionStore
from agentsession.events import new_id
from agentsession.messages import anthropic, openai_chat


async def write(service: Service, key: SessionKey, messages: list[dict[str, Any]]) -> None:
    """Store messages as a mirror of Claude Code does: entries, each the child of another."""
    store = SessionStore(service, app_name=key.app_name)
    parent = None
    for entry in entries_of(messages, key.session_id):
        parent, entry["parentUuid"] = entry["uuid"], parent
        place: Any = {"project_key": key.user_id, "session_id": key.session_id}
        await store.append(place, [entry])


def entries_of(messages: list[dict[str, Any]], session_id: str) -> list[Any]:
    entries: list[Any] = []
    for number, message in enumerate(messages):
        (said,) = anthropic.to_messages(openai_chat.from_messages([message]))
        if said["role"] == "assistant" and isinstance(said["content"], str):
            said["content"] = [{"type": "text", "text": said["content"]}]
        entries.append(
            {
                "type": said["role"],
                "uuid": _uuid(),
                "sessionId": session_id,
                "timestamp": f"2026-01-02T03:{number // 60:02}:{number % 60:02}.000Z",
                "cwd": "/project",
                "message": said,
            }
        )
    return entries


def _uuid() -> str:
    digits = new_id()
    return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])


async def store(service: Service, key: SessionKey, entry: Any) -> None:
    """Store an entry as it is."""
    place: Any = {"project_key": key.user_id, "session_id": key.session_id}
    await SessionStore(service, app_name=key.app_name).append(place, [entry])


async def objects(service: Service, key: SessionKey) -> list[Any]:
    """Read what would be resumed."""
    store = SessionStore(service, app_name=key.app_name)
    loaded = await store.load({"project_key": key.user_id, "session_id": key.session_id})
    entries: list[Any] = [] if loaded is None else loaded
    return entries


async def read(service: Service, key: SessionKey) -> list[Said]:
    """Read what would be resumed."""
    entries = await objects(service, key)
    return [said for entry in entries if "message" in entry for said in said_by(entry["message"])]


def said_by(message: dict[str, Any]) -> list[Said]:
    role, content = message["role"], message["content"]
    if isinstance(content, str):
        return [("text", role, content)]
    return [_said(role, block) for block in content]


def _said(role: str, block: dict[str, Any]) -> Said:
    match block:
        case {"type": "text", "text": words}:
            return ("text", role, words)
        case {"type": "tool_use", "id": call_id, "name": name, "input": arguments}:
            return ("call", call_id, name, arguments)
        case {"type": "tool_result", "tool_use_id": call_id, "content": result, **own}:
            return ("failure" if own.get("is_error") else "result", call_id, result)
        case {"type": "thinking", "thinking": words, "signature": signature}:
            return ("reasoning", words, signature)
        case {"type": "image" | "document" as kind, "source": source, **own}:
            return _medium(role, f"{kind}/*", source, own.get("title"))
        case _:
            return ("other", block)


def _medium(role: str, kind: str, source: dict[str, str], name: str | None) -> Said:
    if source["type"] == "url":
        return medium(role, kind, source["url"], name)
    return ("media", role, source["media_type"], source["data"], name or "")


def marks(entries: list[Any]) -> Iterator[Said]:
    """Yield what stands beside what is said."""
    for entry in entries:
        yield "role", entry["message"]["role"]
        yield "time", datetime.fromisoformat(entry["timestamp"])
        for block in entry["message"]["content"]:
            if "input" in block:
                yield "arguments", block["input"]


def told(entries: Any) -> list[Any]:
    """Return what is said to be left out."""
    return list(entries.lost) if entries else []


def entry_of(role: str, content: list[Any], **fields: Any) -> dict[str, Any]:
    message = {"role": role, "content": content, **fields}
    return {"type": role, "uuid": _uuid(), "message": message}


OBJECTS: dict[str, Any] = {
    "words": entry_of("user", [{"type": "text", "text": "WORDS"}]),
    "reasoning": entry_of(
        "assistant", [{"type": "thinking", "thinking": "THOUGHTS", "signature": "s"}]
    ),
    "signature": entry_of(
        "assistant", [{"type": "thinking", "thinking": "", "signature": "SIGNATURE"}]
    ),
    "image": entry_of(
        "user",
        [
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "SU1BR0VE"},
            }
        ],
    ),
    "call": entry_of(
        "assistant", [{"type": "tool_use", "id": "c1", "name": "find", "input": {"id": 7}}]
    ),
    "result": entry_of("user", [{"type": "tool_result", "tool_use_id": "c1", "content": "RESULT"}]),
    "failure": entry_of(
        "user",
        [{"type": "tool_result", "tool_use_id": "c1", "content": "RESULT", "is_error": True}],
    ),
    "hosted": entry_of(
        "assistant",
        [{"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"q": "HOSTED"}}],
    ),
    "usage": entry_of("assistant", [{"type": "text", "text": "Hi"}], usage={"input_tokens": 86420}),
}
