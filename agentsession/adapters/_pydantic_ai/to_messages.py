"""Events as messages of Pydantic AI: what the framework has stored, and what others have."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import msgspec
from pydantic_ai import messages as framework
from pydantic_ai.messages import ModelMessagesTypeAdapter

from agentsession.events import Event, Media, Part, Reasoning, Text, ToolCall, ToolResult
from agentsession.messages._converting import mapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic_ai.messages import ModelMessage, ModelRequestPart, ModelResponsePart, UserContent

__all__ = ["load_messages", "messages_of", "name_results"]

_LEFT_OUT: Final = "agentsession"
_SPEAKERS: Final = ("user", "system", "developer")


def load_messages(originals: Sequence[Any]) -> list[ModelMessage]:
    """Make messages of what events keep of them.

    Raises:
        ValueError: One of them is none, or of a version that this one cannot read.
    """
    return ModelMessagesTypeAdapter.validate_json(msgspec.json.encode(originals))


def messages_of(event: Event) -> list[ModelMessage]:
    """Make messages of an event that something else has stored; none if it has no content.

    There are several where an agent's event has both what a model says and what it is told.
    What has no form in a message is in its ``metadata``, under ``"agentsession"``.
    """
    is_asked = event.author in _SPEAKERS
    parts: list[Part] = (
        [Text(event.content)] if isinstance(event.content, str) else [*event.content]
    )
    if not event.content:
        return []
    return [
        _request(event, group) if to_model else _response(event, group)
        for to_model, group in groupby(parts, lambda part: is_asked or isinstance(part, ToolResult))
    ]


def _request(event: Event, parts: Iterable[Part]) -> ModelMessage:
    made: list[ModelRequestPart] = []
    left_out: list[Part] = []
    for is_result, group in groupby(parts, lambda part: isinstance(part, ToolResult)):
        if is_result:
            made += [_return(part, event) for part in group if isinstance(part, ToolResult)]
        elif event.author == "user":
            made += _prompt(group, event, left_out)
        else:
            made += _system_prompts(group, event, left_out)
    return framework.ModelRequest(made, timestamp=event.timestamp, metadata=_metadata(left_out))


def _return(result: ToolResult, event: Event) -> ModelRequestPart:
    return framework.ToolReturnPart(
        result.name,
        result.result,
        result.call_id,
        timestamp=event.timestamp,
        outcome="failed" if result.is_error else "success",
    )


def _prompt(
    parts: Iterable[Part], event: Event, left_out: list[Part]
) -> Iterator[ModelRequestPart]:
    content: list[UserContent] = []
    for part in parts:
        made = part.text if isinstance(part, Text) else _file(part)
        if made is None:
            left_out.append(part)
        else:
            content.append(made)
    match content:
        case []:
            return
        case [str(text)]:
            yield framework.UserPromptPart(text, timestamp=event.timestamp)
        case _:
            yield framework.UserPromptPart(content, timestamp=event.timestamp)


def _system_prompts(
    parts: Iterable[Part], event: Event, left_out: list[Part]
) -> Iterator[ModelRequestPart]:
    for part in parts:
        if isinstance(part, Text):
            yield framework.SystemPromptPart(part.text, timestamp=event.timestamp)
        else:
            left_out.append(part)


def _file(part: Part) -> UserContent | None:
    if not isinstance(part, Media):
        return None
    if part.data:
        return _binary(part)
    if not part.uri:
        return None
    kind, _, precise = part.media_type.partition("/")
    media_type = None if precise in ("", "*") else part.media_type
    match kind:
        case "image":
            return framework.ImageUrl(part.uri, media_type=media_type)
        case "audio":
            return framework.AudioUrl(part.uri, media_type=media_type)
        case "video":
            return framework.VideoUrl(part.uri, media_type=media_type)
        case _:
            return framework.DocumentUrl(part.uri, media_type=media_type)


def _binary(media: Media) -> framework.BinaryContent | None:
    try:
        content = framework.BinaryContent(media.to_bytes(), media_type=media.media_type)
    except ValueError:
        return None  # No base64: it is told as what has no form.
    return framework.BinaryContent.narrow_type(content)


def _response(event: Event, parts: Iterable[Part]) -> ModelMessage:
    made: list[ModelResponsePart] = []
    left_out: list[Part] = []
    for part in parts:
        match part:
            case Text():
                made.append(framework.TextPart(part.text))
            case Reasoning():
                made.append(_thinking(part))
            case ToolCall():
                made.append(framework.ToolCallPart(part.name, _args(part), part.call_id))
            case Media() if part.data and (content := _binary(part)):
                made.append(framework.FilePart(content))
            case _:
                left_out.append(part)
    return framework.ModelResponse(made, timestamp=event.timestamp, metadata=_metadata(left_out))


def _thinking(part: Reasoning) -> ModelResponsePart:
    signature = mapping(mapping(part.provider_data).get("anthropic")).get("signature")
    if not isinstance(signature, str):
        return framework.ThinkingPart(part.text)
    return framework.ThinkingPart(part.text, signature=signature, provider_name="anthropic")


def _args(call: ToolCall) -> str | dict[str, Any]:
    if isinstance(call.arguments, (str, dict)):
        return call.arguments  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - any JSON
    return msgspec.json.encode(call.arguments).decode()


def _metadata(left_out: list[Part]) -> dict[str, Any] | None:
    return {_LEFT_OUT: msgspec.to_builtins(left_out)} if left_out else None


def name_results(messages: Iterable[ModelMessage]) -> None:
    """Give results of tools the name of the tool that was called, where they have none."""
    names: dict[str, str] = {}
    for message in messages:
        for part in message.parts:
            if isinstance(part, framework.ToolCallPart):
                names[part.tool_call_id] = part.tool_name
            elif isinstance(part, framework.ToolReturnPart) and not part.tool_name:
                _name(part, names)


def _name(result: framework.ToolReturnPart[Any], names: Mapping[str, str]) -> None:
    result.tool_name = names.get(result.tool_call_id, "")
