"""The messages of Pydantic AI as events.

==================================== =============================================================
part of a message                    event, or part of one
==================================== =============================================================
system prompt                        the author ``"system"``
user prompt, speech of the user,     the author ``"user"``; files are
feedback, a summary                  :class:`~agentsession.events.Media`
tool return                          the author ``"tool"``: :class:`~agentsession.ToolResult`, with
                                     ``is_error`` for every outcome but ``"success"``
text, speech of the model, a summary the agent's name as the author: :class:`~agentsession.Text`
thinking                             :class:`~agentsession.events.Reasoning`
tool call                            :class:`~agentsession.ToolCall`
file                                 :class:`~agentsession.events.Media`
any other, as of the provider's      :class:`~agentsession.Data`, verbatim
tools, and of the framework's books
==================================== =============================================================

A request may hold what several authors say. Then it is one event for each of them, and the message
itself stands beside the last one. Instructions, settings and usage are in the message alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from pydantic_ai import messages as framework
from pydantic_ai.messages import ModelMessagesTypeAdapter
from pydantic_core import PydanticSerializationError

from agentsession.adapters._items.originals import original_of, with_original
from agentsession.clock import utc_now
from agentsession.events import (
    Content,
    Data,
    Event,
    Media,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from agentsession.messages._converting import items, mapping
from agentsession.messages._openai import read_arguments
from agentsession.state import check_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from pydantic_ai.messages import ModelMessage, ModelRequestPart

__all__ = ["FRAMEWORK", "events_of", "own_of"]

FRAMEWORK: Final = "pydantic_ai"
"""Where an event keeps what is the framework's."""

_PART: Final = "application/vnd.pydantic-ai.part+json"

_Said: TypeAlias = tuple[str, list[Part]]


def own_of(event: Event) -> Mapping[str, Any]:
    """Return what an event keeps for this framework; nothing if something else has stored it."""
    return mapping(original_of(event, FRAMEWORK))


def events_of(entries: Sequence[tuple[str, ModelMessage]], agent: str) -> list[Event]:
    """Make the events of messages.

    Args:
        entries: The messages in their order, each with the id of its entry.
        agent: The author of what the model says.

    Returns:
        One event or more of each. The last one of them has the entry's id and the message; those
        before it have the entry's id as ``"of"``.

    Raises:
        StateValueError: A text in them is no valid Unicode.
    """
    messages = [message for _, message in entries]
    try:
        data = ModelMessagesTypeAdapter.dump_json(messages)
    except PydanticSerializationError:
        # Which says neither where it is nor what to do.
        check_json(ModelMessagesTypeAdapter.dump_python(messages, mode="json"), ("messages",))
        raise
    originals = msgspec.json.decode(data)
    return [
        event
        for (entry_id, message), original in zip(entries, originals, strict=True)
        for event in _events_of_one(entry_id, message, original, agent)
    ]


def _events_of_one(
    entry_id: str, message: ModelMessage, original: Any, agent: str
) -> Iterator[Event]:
    said = _said_by(message, original, agent)
    time = _aware(message.timestamp)
    for number, (author, parts) in enumerate(said, 1):
        event = Event(author=author, content=_content(parts), timestamp=time)
        if number == len(said):
            own = {"id": entry_id, "message": original}
            yield msgspec.structs.replace(with_original(event, FRAMEWORK, own), id=entry_id)
        else:
            lead = with_original(event, FRAMEWORK, {"of": entry_id})
            yield msgspec.structs.replace(lead, id=f"{entry_id}.{number}")


def _aware(time: datetime | None) -> datetime:
    return utc_now() if time is None or time.tzinfo is None else time


def _content(parts: list[Part]) -> Content:
    match parts:
        case [Text(text=text, provider_data=None)]:
            return text
        case _:
            return parts


def _said_by(message: ModelMessage, original: Any, agent: str) -> list[_Said]:
    """Return who says what in a message; at least one says something, or nothing."""
    if isinstance(message, framework.ModelResponse):
        answer = [part for each in original["parts"] for part in _answer(each)]
        return [(agent, answer)]
    asked = list(map(_asked, message.parts, original["parts"]))
    said: list[_Said] = []
    # What is for the framework alone stands with what others can read.
    author = next((each for each, _ in asked if each), "user")
    for each, parts in asked:
        author = each or author
        if not said or said[-1][0] != author:
            said.append((author, []))
        said[-1][1].extend(parts)
    return said or [(author, [])]


def _asked(part: ModelRequestPart, said: Any) -> _Said:
    """Return what a part of a request says, and who; nobody, if it is for the framework alone."""
    match said:
        case {"part_kind": "system-prompt", "content": str(text)}:
            return "system", [Text(text)]
        case {"part_kind": "user-prompt", "content": str(text)}:
            return "user", [Text(text)]
        case {"part_kind": "user-prompt", "content": content}:
            return "user", [made for each in items(content) for made in _user_content(each)]
        case {"part_kind": "speech"}:
            return "user", [*_speech(said)]
        case {"part_kind": "compaction", "content": str(text)}:
            return "user", [Text(text)]
        case {"part_kind": "tool-return", "tool_call_id": str(call_id)} if call_id:
            is_error = said.get("outcome", "success") != "success"
            return "tool", [ToolResult(call_id, said["content"], said["tool_name"], is_error)]
        case {"part_kind": "retry-prompt", "tool_name": str(name), "tool_call_id": str(call_id)}:
            return "tool", [ToolResult(call_id, _feedback(part), name, is_error=True)]
        case {"part_kind": "retry-prompt" | "retry-feedback"}:
            return "user", [Text(_feedback(part))]
        case _:
            return "", [Data(said, _PART)]


def _feedback(part: ModelRequestPart) -> str:
    """Return what a model is told of an answer that was no use."""
    told: str = getattr(part, "model_response")()  # noqa: B009 - versions differ in who has it
    return told


def _user_content(said: Any) -> Iterator[Part]:
    match said:
        case str():
            yield Text(said)
        case {"kind": "text-content" | "structured-content", "content": str(text)}:
            yield Text(text)
        case {"kind": "cache-point"}:
            return
        case _:
            yield _media(said) or Data(said, _PART)


def _media(said: Any) -> Media | None:
    """Read a file, or the address of one."""
    match said:
        case {"kind": "binary", "data": str(data), "media_type": str(media_type)} if media_type:
            return Media(media_type, data=_plain_base64(data))
        case {"kind": str(kind), "url": str(url)} if url:
            media_type = said.get("media_type") or f"{kind.removesuffix('-url')}/*"
            return Media(media_type, uri=url)
        case _:
            return None


def _plain_base64(data: str) -> str:
    """Return base64 in the usual alphabet; the framework writes the one for addresses."""
    return data.replace("-", "+").replace("_", "/")


def _speech(said: Mapping[str, Any]) -> Iterator[Part]:
    if said.get("transcript"):
        yield Text(said["transcript"])
    audio = _media(said.get("audio"))
    if audio is not None:
        yield audio


def _answer(said: Any) -> Iterator[Part]:
    """Yield what a part of a response says."""
    match said:
        case {"part_kind": "text" | "compaction", "content": str(text)}:
            yield Text(text)
        case {"part_kind": "thinking", "content": str(text)}:
            yield Reasoning(text, _thinking_data(said))
        case {"part_kind": "tool-call", "tool_call_id": str(call_id)} if call_id:
            yield ToolCall(call_id, said["tool_name"], _arguments(said.get("args")))
        case {"part_kind": "speech"}:
            yield from _speech(said)
        case {"part_kind": "file", "content": content}:
            yield _media(content) or Data(said, _PART)
        case _:
            yield Data(said, _PART)


def _thinking_data(said: Mapping[str, Any]) -> Any:
    """Return what Anthropic wants back with thoughts, where ``messages.anthropic`` looks for it."""
    if said.get("provider_name") == "anthropic" and said.get("signature") and said["content"]:
        return {"anthropic": {"signature": said["signature"]}}
    return None


def _arguments(args: Any) -> Any:
    if isinstance(args, str):
        return read_arguments(args)[0] if args else {}
    return {} if args is None else args
