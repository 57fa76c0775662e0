"""Events of tRPC-Agent-Go as it writes them, made into events; pure."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentsession.adapters._items.originals import with_original
from agentsession.events import UNREADABLE as UNREADABLE_TYPE
from agentsession.events import Data, Event, EventError
from agentsession.messages import openai_chat
from agentsession.messages._converting import items, mapping
from agentsession.transfer.importers._account import UNREADABLE, decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["FRAMEWORK", "event_of", "moment_of", "nanoseconds_of", "state_of", "value_of"]

FRAMEWORK: Final = "trpc_agent_go"
"""Under this name an event keeps the event that it was made of."""

_MESSAGE: Final = "application/vnd.trpc-agent-go.message+json"
_SPEAKERS: Final = frozenset({"user", "system", "assistant", "tool"})
_time: Final = re.compile(r"(.{19})(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def event_of(told: dict[str, Any], read: Callable[[bytes], Any]) -> tuple[Event, list[str]]:
    """Make an event of one.

    Args:
        told: The event.
        read: Makes a value of state of its bytes.

    Returns:
        The event, and of what kinds there is something in it that has no part here. The event
        keeps all of it beside its parts.

    Raises:
        ValueError: It is none.
    """
    event_id = told.get("id") or hashlib.blake2b(_encoded(told), digest_size=16).hexdigest()
    message, lost = _message(told)
    said, is_known = _said(message)
    if not is_known:
        lost.append("the parts of messages that are none of OpenAI's")
    event = Event(
        id=event_id,
        author=told.get("author") or said.author,
        timestamp=moment_of(told.get("timestamp")),
        invocation_id=told.get("invocationId") or "",
        branch=told.get("branch") or "",
        content=said.content,
        state_delta=state_of(told.get("stateDelta"), read),
        metadata=said.metadata,
        error=_error(told.get("error")),
    )
    return with_original(event, FRAMEWORK, told), lost


def _encoded(told: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(told, order="deterministic")


def _message(told: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Return what an event says, and what kinds of it are left to the original."""
    choices = items(told.get("choices"))
    lost = ["the parts of choices after the first"] if len(choices) > 1 else []
    if not choices:
        return {}, lost
    choice = mapping(choices[0])
    message, delta = mapping(choice.get("message")), mapping(choice.get("delta"))
    return (message if _says_something(message) else delta), lost


def _says_something(message: Mapping[str, Any]) -> bool:
    return any(value for name, value in message.items() if name != "role")


def _said(message: Mapping[str, Any]) -> tuple[Event, bool]:
    """Read a message by way of OpenAI's, which it is like; tell whether that could be done."""
    if not _says_something(message):
        return Event(author="agent"), True
    try:
        return openai_chat.from_messages([_as_openai(message)], agent="agent")[0], True
    except UNREADABLE:
        return Event(author="agent", content=[Data(dict(message), _MESSAGE)]), False


def _as_openai(message: Mapping[str, Any]) -> dict[str, Any]:
    role = message.get("role") or "assistant"
    if role not in _SPEAKERS:
        msg = f"there is no role {role!r:.40}"
        raise ValueError(msg)
    content: Any = message.get("content", "")
    if parts := items(message.get("content_parts")):
        words = [{"type": "text", "text": content}] if content else []
        content = [*words, *(_part(mapping(each)) for each in parts)]
    if role == "tool":
        named = {"name": message["tool_name"]} if message.get("tool_name") else {}
        return {
            "role": role,
            "tool_call_id": message.get("tool_id"),
            "content": content,
            **named,
        }
    told: dict[str, Any] = {"role": role, "content": content or None}
    if role != "assistant":
        return {**told, "content": content}
    if calls := items(message.get("tool_calls")):
        told["tool_calls"] = [_call(mapping(each)) for each in calls]
    if thoughts := message.get("reasoning_content"):
        told["reasoning_content"] = thoughts
    return told


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = mapping(call.get("function"))
    # Without arguments Go leaves them out.
    named = {"name": function.get("name"), "arguments": function.get("arguments", "")}
    return {"id": call.get("id"), "type": "function", "function": named}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part as OpenAI has it; one of another kind stays as it is."""
    match part:
        case {"type": "image", "image": {"url": str(url), **others}} if url:
            detail = {"detail": others["detail"]} if others.get("detail") else {}
            return {"type": "image_url", "image_url": {"url": url, **detail}}
        case {"type": "image", "image": {"data": str(data), "format": str(form)}} if data and form:
            return {"type": "image_url", "image_url": {"url": f"data:image/{form};base64,{data}"}}
        case {"type": "audio", "audio": {"data": str(data), "format": str(form)}}:
            return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
        case _:
            return dict(part)


def _error(told: Any) -> EventError | None:
    error = mapping(told)
    message, kind = error.get("message") or "", error.get("type") or ""
    if not (message or kind):
        return None
    return EventError(message, "" if kind == UNREADABLE_TYPE else kind)


def state_of(told: Any, read: Callable[[bytes], Any]) -> dict[str, Any]:
    """Read state, whose values are bytes in base64.

    Raises:
        ValueError: It is none.
    """
    return dict(_values(mapping(told), read))


def _values(told: Mapping[str, Any], read: Callable[[bytes], Any]) -> Iterator[tuple[str, Any]]:
    for name, value in told.items():
        if value is None:
            yield name, None
        elif isinstance(value, str):
            yield name, read(base64.b64decode(value, validate=True))
        else:
            msg = f"state {name!r:.80} is not in base64, but of type {type(value).__name__}"
            raise ValueError(msg)


def value_of(data: bytes, *, is_json: bool) -> Any:
    """Make a value of state of its bytes: JSON if it is and is wanted, else text, else bytes."""
    if is_json:
        try:
            return msgspec.json.decode(data)
        except UNREADABLE:
            pass
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def moment_of(text: Any) -> datetime:
    """Read a time; its nanoseconds are cut off.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(text, str):
        msg = f"a time is missing, or is none: {text!r:.40}"
        raise ValueError(msg)  # noqa: TRY004 - of what was read, and no argument
    return datetime.fromisoformat(text).astimezone(UTC)


def nanoseconds_of(data: bytes) -> int:
    """Return the time of an event in nanoseconds; 0 if it has none."""
    try:
        text = decoded(data).get("timestamp", "")
        seconds = int(moment_of(text).replace(microsecond=0).timestamp())
    except UNREADABLE:
        return 0
    found = _time.fullmatch(text)
    return seconds * 10**9 + int(((found and found[2]) or "").ljust(9, "0"))
