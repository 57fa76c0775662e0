"""Events as the messages of AG-UI, and what is new in these as content of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ag_ui.core import (
    ActivityMessage,
    AssistantMessage,
    AudioPart,
    ContentPart,
    DataSource,
    DocumentPart,
    FunctionCall,
    ImagePart,
    Message,
    ReasoningMessage,
    TextPart,
    ToolMessage,
    UrlSource,
    UserMessage,
    VideoPart,
)
from ag_ui.core import ToolCall as Call

from agentsession.events import Content, Data, Media, Reasoning, Text, ToolCall, ToolResult
from agentsession.history import effective
from agentsession.ui._parts import (
    Names,
    gathered,
    is_said_by_user,
    message_id,
    parts_of,
    text_of,
    words_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentsession.events import Event, Part

__all__ = [
    "Activity",
    "activity_of",
    "content_of",
    "error_of",
    "result_id",
    "said_content",
    "text_in",
    "thought_id",
    "to_messages",
]

Activity: TypeAlias = tuple[str, dict[str, Any]]
"""The type of an activity, and its content."""

_KINDS: Final[Mapping[str, type[ImagePart | AudioPart | VideoPart]]] = {
    "image": ImagePart,
    "audio": AudioPart,
    "video": VideoPart,
}


# -- events as messages


def to_messages(events: Sequence[Event]) -> list[Message]:
    """Return events as messages.

    Each event of an agent that says something is one, with its calls; thoughts, files, data and
    errors are messages of their own. It is what a client holds that has read the turn's stream.

    Args:
        events: Some of a log, in its order. What was taken back, and chunks, are left out.
    """
    messages: list[Message] = []
    names, runs = Names(), set[str]()
    for event in effective(events):
        if not event.partial:
            _add(messages, event, names.of(event), begins=event.invocation_id not in runs)
            names.pass_over(event)
            runs.add(event.invocation_id)
    return messages


def _add(messages: list[Message], event: Event, name: str, *, begins: bool) -> None:
    parts = gathered(event.content)
    if is_said_by_user(event):
        if parts or begins:
            messages.append(UserMessage(id=message_id(event), content=said_content(event)))
    else:
        _add_said(messages, name, parts)
    for part in parts_of(event.content):
        if isinstance(part, ToolResult):
            _insert(messages, event, part)
    if event.error is not None:
        kind, content = error_of(event)
        messages.append(
            ActivityMessage(id=f"{event.id}-error", activity_type=kind, content=content)
        )


def _add_said(messages: list[Message], name: str, parts: Sequence[Part]) -> None:
    """Add what an agent said, in the order in which its messages begin."""
    said: AssistantMessage | None = None
    for number, part in enumerate(parts):
        if isinstance(part, Reasoning):
            messages.append(ReasoningMessage(id=thought_id(name, number), content=part.text))
        elif isinstance(part, Media | Data):
            kind, content = activity_of(part)
            messages.append(
                ActivityMessage(id=f"{name}-{number}", activity_type=kind, content=content)
            )
        else:
            if said is None:
                said = AssistantMessage(id=name)
                messages.append(said)
            if isinstance(part, Text):
                said.content = (said.content or "") + part.text
            elif isinstance(part, ToolCall):
                function = FunctionCall(name=part.name, arguments=words_of(part))
                said.tool_calls = [
                    *(said.tool_calls or ()),
                    Call(id=part.call_id, function=function),
                ]


def _insert(messages: list[Message], event: Event, result: ToolResult) -> None:
    """Put a result behind the call that it answers, and behind results of other calls there.

    A newer result of a call takes the place of the older one, and its id.
    """
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if isinstance(message, AssistantMessage) and any(
            call.id == result.call_id for call in message.tool_calls or ()
        ):
            break
    else:
        return
    place += 1
    answer = ToolMessage(
        id=result_id(event.invocation_id or event.id, result.call_id),
        tool_call_id=result.call_id,
        content=text_of(result.result),
        metadata={"isError": True} if result.is_error else None,
    )
    for message in messages[place:]:
        if not isinstance(message, ToolMessage):
            break
        if message.tool_call_id == result.call_id:
            messages[place] = answer.model_copy(update={"id": message.id})
            return
        place += 1
    messages.insert(place, answer)


def thought_id(name: str, number: int) -> str:
    """Name the message with thoughts, as no message of another kind is named.

    One that was taken back stays as an empty one, which another message must not meet.
    """
    return f"{name}-thought-{number}"


def result_id(run_id: str, call_id: str) -> str:
    """Name the message with the result of a call."""
    return f"{run_id}:{call_id}"


def activity_of(part: Media | Data) -> Activity:
    """Return a file or data of an agent; the words of an assistant have no place for them."""
    if isinstance(part, Data):
        return part.media_type or "data", {"data": part.data}
    where = {"uri": part.uri} if part.uri else {"data": part.data}
    return "file", {"mediaType": part.media_type, "name": part.name, **where}


def error_of(event: Event) -> Activity:
    """Return the error of an event, which is none of the stream."""
    assert event.error is not None  # noqa: S101 - for the type checker
    return "error", {"message": event.error.message, "type": event.error.type}


def said_content(event: Event) -> str | list[ContentPart]:
    """Return what a user says."""
    parts = parts_of(event.content)
    if all(isinstance(part, Text) for part in parts):
        return event.text
    return [_said(part) for part in parts if isinstance(part, Text | Media | Data)]


def _said(part: Text | Media | Data) -> ContentPart:
    if isinstance(part, Text):
        return TextPart(text=part.text)
    if isinstance(part, Data):
        return TextPart(text=text_of(part.data), metadata={"mediaType": part.media_type})
    source: UrlSource | DataSource = DataSource(value=part.data, mime_type=part.media_type)
    if part.uri:
        source = UrlSource(value=part.uri, mime_type=part.media_type)
    kind = _KINDS.get(part.media_type.partition("/")[0], DocumentPart)
    return kind(source=source, metadata={"filename": part.name} if part.name else None)


# -- what is new in messages


def content_of(message: UserMessage) -> Content:
    """Return what a user says as content.

    Raises:
        ValueError: There is nothing, or something that cannot be kept.
    """
    if isinstance(message.content, str):
        if not message.content:
            msg = "the message is empty"
            raise ValueError(msg)
        return message.content
    parts = [_part_of(part) for part in message.content]
    if not parts:
        msg = "the message has no parts"
        raise ValueError(msg)
    return parts[0].text if len(parts) == 1 and isinstance(parts[0], Text) else [*parts]


def _part_of(part: ContentPart) -> Text | Media:
    if isinstance(part, TextPart):
        return Text(part.text)
    source = part.source
    name = _name_in(part.metadata)
    if isinstance(source, DataSource):
        if not source.mime_type:
            msg = "a file says of which type it is"
            raise ValueError(msg)
        return Media(source.mime_type, data=source.value, name=name)
    if isinstance(source, UrlSource):
        kind = "application/octet-stream" if isinstance(part, DocumentPart) else f"{part.type}/*"
        return Media(source.mime_type or kind, uri=source.value, name=name)
    msg = "a file that only a provider can read has no place here"
    raise ValueError(msg)


def _name_in(metadata: Any) -> str:
    try:
        return str(metadata["filename"])
    except (KeyError, TypeError):
        return ""


def text_in(content: str | Sequence[ContentPart]) -> str:
    """Return the words of what a tool gave back."""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, TextPart))
