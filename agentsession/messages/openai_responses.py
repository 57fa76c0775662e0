"""The items of OpenAI's Responses API: what a request takes as its input, and what it gives.

====================================== =============================================================
item, or part of one                   event, or part of one
====================================== =============================================================
a message                              its role as the author, the agent's name for ``assistant``;
                                       a string, or parts
``input_text``, ``output_text``,       :class:`~agentsession.Text`
``refusal``
``input_image``, ``input_file``        :class:`~agentsession.events.Media`
``function_call``,                     :class:`~agentsession.ToolCall`
``custom_tool_call``
their outputs                          author ``"tool"``, a :class:`~agentsession.ToolResult`
``reasoning``                          :class:`~agentsession.events.Reasoning`; the item in
                                       ``provider_data``, since the API wants it back as it was
any other, as of the provider's tools  :class:`~agentsession.Data`, verbatim
====================================== =============================================================

What belongs to this format alone is kept under ``"openai_responses"``: in ``provider_data`` of a
part, and in ``metadata`` of an event.

No form have: ``is_error`` of a result, reasoning of other formats, media of an agent, sounds, and
any other ``provider_data``. Events without content are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

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
from agentsession.messages._converted import Converted, Loss
from agentsession.messages._converting import (
    Incoming,
    Outgoing,
    is_mapping,
    items,
    kind_of,
    mapping,
    plain,
    read,
)
from agentsession.messages._openai import (
    arguments_text,
    file_data,
    image,
    read_arguments,
    result_content,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from openai.types.responses import ResponseInputItemParam

__all__ = ["from_messages", "to_messages"]

_KEY: Final = "openai_responses"
_SPEAKERS: Final = ("user", "system", "developer")

# What stands for what this version does not know: an item, a part of a message.
_ITEM: Final = "application/vnd.openai.responses.item+json"
_PART: Final = "application/vnd.openai.responses.part+json"

# Which field of a part holds its words.
_WORDS: Final = {"input_text": "text", "output_text": "text", "refusal": "refusal"}


def to_messages(events: Iterable[Event]) -> Converted[ResponseInputItemParam]:
    """Make items for the input of a request of events, such as a history.

    Args:
        events: In their order.

    Returns:
        The items; in ``lost`` what they cannot say.
    """
    converted: Converted[Any] = Converted()
    custom: set[str] = set()
    for event in events:
        if event.content and not event.partial:
            converted.extend(map(plain, _Said(event, converted.lost, custom).items()))
    return converted


def from_messages(
    messages: Iterable[Mapping[str, Any] | object], *, agent: str = "assistant"
) -> Converted[Event]:
    """Make events of items, one of each.

    Args:
        messages: Items as the input of a request takes them, or as the output of an answer holds
            them: dicts, or the models of the provider's package.
        agent: The author of what the assistant says.

    Returns:
        The events, with new ids. Nothing is lost, since what an event has no place for is kept in
        it and comes back from :func:`to_messages`.

    Raises:
        TypeError: An item is no dict and no model.
        ValueError: An item lacks what it must have, or a field has the wrong type.
    """
    return read(_Heard, messages, agent)


class _Said(Outgoing):
    """An event on its way to items.

    Args:
        event: The event.
        lost: Takes what cannot be said.
        custom: The ids of calls of custom tools so far.
    """

    def __init__(self, event: Event, lost: list[Loss], custom: set[str]) -> None:
        super().__init__(event, lost, _KEY)
        self._custom = custom
        self._role = event.author if event.author in _SPEAKERS else "assistant"

    def items(self) -> Iterator[dict[str, Any]]:
        """Yield the items of the event: messages, and in between what is an item by itself."""
        content = self.event.content
        if isinstance(content, str):
            yield self._message(content)
            return
        parts: list[dict[str, Any]] = []
        for self.number, part in enumerate(content):
            said = self._part(part)
            if said is not None:
                parts.append(said)
                continue
            item = self._item(part)
            if item is None:
                continue
            if parts:
                yield self._message(parts)
                parts = []
            yield item
        if parts:
            yield self._message(parts)

    def _message(self, content: str | list[dict[str, Any]]) -> dict[str, Any]:
        return {**self.fields, "role": self._role, "content": content}

    def _part(self, part: Part) -> dict[str, Any] | None:
        """Return what a part is in the content of a message, if it can be there."""
        own = self.own_of(part)
        match part:
            case Text() if self._role != "assistant" or own:
                self.note_foreign(part)
                kind = kind_of(own) if self._role == "assistant" else ""
                kind = kind if kind in _WORDS else "input_text"
                return {**own, "type": kind, _WORDS[kind]: part.text}
            case Data() if part.media_type == _PART and is_mapping(part.data):
                return dict(mapping(part.data))
            case Media() if self._role == "user" and _is_shown(part, own):
                self.note_foreign(part)
                return _medium(part, own)
            case _:
                return None

    def _item(self, part: Part) -> dict[str, Any] | None:
        """Return what a part is by itself; ``None``, and a note, if it has no form."""
        own = self.own_of(part)
        match part:
            case Text():  # An agent's, of another format.
                self.note_foreign(part)
                return self._message(part.text)
            case Data() if part.media_type == _ITEM and is_mapping(part.data):
                return dict(mapping(part.data))
            case Reasoning() if is_mapping(own.get("item")):
                return dict(mapping(own["item"]))
            case ToolCall() if self._role == "assistant":
                self.note_foreign(part)
                return self._call(part, own)
            case ToolResult():
                return self._output(part)
            case _:
                kind = type(part).__name__
                self.lose(f"a {kind} of the author {self.event.author!r} has no form")
                return None

    def _call(self, call: ToolCall, own: Mapping[str, Any]) -> dict[str, Any]:
        is_custom = kind_of(own) == "custom_tool_call"
        kind = "custom_tool_call" if is_custom else "function_call"
        item = {"type": kind, "call_id": call.call_id, "name": call.name}
        text = arguments_text(call.arguments, own.get("arguments"))
        if is_custom:
            self._custom.add(call.call_id)
            return {**own, **item, "input": text}
        self._custom.discard(call.call_id)
        return {**own, **item, "arguments": text}

    def _output(self, result: ToolResult) -> dict[str, Any]:
        if result.is_error:
            self.lose("that a result is an error has no form; only the result itself has")
        is_custom = result.call_id in self._custom
        of_parts = self.is_of_parts(result.call_id)
        # What is kept of one item belongs to that one.
        fields: Mapping[str, Any] = self.fields if len(self.event.content) == 1 else {}
        return {
            "type": "custom_tool_call_output" if is_custom else "function_call_output",
            **fields,
            "call_id": result.call_id,
            "output": result_content(result.result, "input_text", of_parts=of_parts),
        }


class _Heard(Incoming):
    """An item on its way to an event."""

    def event(self) -> Event:
        content: Content
        author, own, fields = self.agent, dict[str, Any](), dict[str, Any]()
        match self.message:
            case {"type": "function_call" | "custom_tool_call"}:
                content = [self._call()]
            case {
                "type": "function_call_output" | "custom_tool_call_output" as kind,
                "call_id": str(call_id),
                "output": str() | list(),
            } if call_id:
                output, fields = self.message["output"], self._others("type", "call_id", "output")
                if kind != "function_call_output":
                    fields["type"] = kind
                if isinstance(output, list):
                    own["parts"] = [call_id]
                name = fields.get("name", self.tools.get(call_id, ""))
                author = "tool"
                content = [ToolResult(call_id, output, name if isinstance(name, str) else "")]
            case {"type": "reasoning"}:
                summary = [mapping(each).get("text") for each in items(self.message.get("summary"))]
                text = "\n\n".join(each for each in summary if isinstance(each, str))
                content = [Reasoning(text, {_KEY: {"item": dict(self.message)}})]
            case {"role": "user" | "system" | "developer" | "assistant" as role} if (
                self.message.get("type") in {None, "message"}
            ):
                found = self.field("content", str, list)
                fields = self._others("role", "content")
                author = self.agent if role == "assistant" else role
                content = found if isinstance(found, str) else self._parts(found, role)
            case _:
                self.field("id" if self.message.keys() == {"id"} else "type", str)
                content = [Data(dict(self.message), _ITEM)]
        if fields:
            own["fields"] = fields
        return Event(author=author, content=content, metadata={_KEY: own} if own else {})

    def _others(self, *placed: str) -> dict[str, Any]:
        """Return the fields of the item besides these."""
        return {
            name: value
            for name, value in self.message.items()
            if name not in placed and value is not None
        }

    def _call(self) -> Part:
        call_id, name = self.field("call_id", str), self.field("name", str)
        own = self._others("call_id", "name", "type", "arguments", "input")
        if self.message["type"] == "custom_tool_call":
            arguments: Any = self.field("input", str)
            own["type"] = "custom_tool_call"
        else:
            text = self.field("arguments", str)
            arguments, is_exact = read_arguments(text)
            if not is_exact:
                own["arguments"] = text
        return ToolCall(call_id, name, arguments, {_KEY: own} if own else None)

    def _parts(self, parts: list[Any], role: str) -> list[Part]:
        return [self._part(each, role) for each in parts]

    def _part(self, part: Any, role: str) -> Part:
        """Read one part of a message's content; what is not known is kept as it is."""
        self.field("type", str, of=part)
        match part:
            case {"type": "input_text", "text": str(text), **extras} if role != "assistant":
                return Text(text, {_KEY: extras} if extras else None)
            case {"type": "input_text" | "output_text" as kind, "text": str(text), **extras}:
                return Text(text, {_KEY: {"type": kind, **extras}})
            case {"type": "refusal", "refusal": str(text), **extras}:
                return Text(text, {_KEY: {"type": "refusal", **extras}})
            case {"type": "input_image", "image_url": str(url), **own} if url and role == "user":
                return image(url, {_KEY: own})
            case {"type": "input_file", **fields} if role == "user":
                return _file(fields) or Data(dict(part), _PART)
            case _:
                return Data(dict(part), _PART)


def _is_shown(media: Media, own: Mapping[str, Any]) -> bool:
    return bool(media.data or media.uri or own) and not media.media_type.startswith("audio/")


def _medium(media: Media, own: Mapping[str, Any]) -> dict[str, Any]:
    url = f"data:{media.media_type};base64,{media.data}" if media.data else media.uri
    if media.media_type.startswith("image/"):
        return {
            "detail": "auto",
            **own,
            "type": "input_image",
            **({"image_url": url} if url else {}),
        }
    place = {"file_data" if media.data else "file_url": url} if url else {}
    named = {"filename": media.name} if media.name else {}
    return {**own, "type": "input_file", **place, **named}


def _file(fields: dict[Any, Any]) -> Media | None:
    """Read a file by its id, its address or its bytes; ``None`` if it has another form."""
    own = dict(fields)
    name = own.pop("filename", "")
    if not isinstance(name, str) or (name == "" and "filename" in fields):
        return None
    match own:
        case {"file_id": str(), **others} if not {"file_data", "file_url"} & others.keys():
            return Media("application/octet-stream", name=name, provider_data={_KEY: own})
        case {"file_url": str(url), **others} if url and "file_data" not in others:
            data = {_KEY: others} if others else None
            return Media("application/octet-stream", uri=url, name=name, provider_data=data)
        case {"file_data": str(url), **others} if found := file_data(url):
            data = {_KEY: others} if others else None
            return Media(found[0], data=found[1], name=name, provider_data=data)
        case _:
            return None
