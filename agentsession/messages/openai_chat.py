"""The messages of OpenAI's Chat Completions, which many other providers take too.

====================================== =============================================================
message                                event
====================================== =============================================================
``user``, ``system``, ``developer``    that author; a string, or parts
``assistant``                          the agent's name as the author; words, calls, a refusal
``tool``                               author ``"tool"``, a :class:`~agentsession.ToolResult`
``image_url``, ``input_audio``,        :class:`~agentsession.events.Media`
``file``
``refusal``                            :class:`~agentsession.Text`, marked in ``provider_data``
``reasoning_content`` of others        :class:`~agentsession.events.Reasoning`
what this version does not know        :class:`~agentsession.Data`, verbatim
====================================== =============================================================

What belongs to this format alone is kept under ``"openai_chat"``: in ``provider_data`` of a part,
and in ``metadata`` of an event.

Fields of an answer that no request takes, such as annotations, are kept and not sent.

No form have: ``is_error`` of a result, what an agent says that is no words and no call, media by
address that are no image, reasoning of other formats, and any other ``provider_data``. Events
and messages without content are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

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

    from openai.types.chat import ChatCompletionMessageParam

__all__ = ["from_messages", "to_messages"]

_KEY: Final = "openai_chat"
_SPEAKERS: Final = ("user", "system", "developer")

# What stands for what this version does not know: a message, a part of one, a call.
_MESSAGE: Final = "application/vnd.openai.chat.message+json"
_PART: Final = "application/vnd.openai.chat.part+json"
_CALL: Final = "application/vnd.openai.chat.tool-call+json"

_AUDIO: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_FORMATS: Final = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}

# The fields of a message that have a place of their own in an event.
_PLACED: Final = frozenset(
    {"role", "content", "tool_calls", "tool_call_id", "refusal", "reasoning_content"}
)
# The others that a request takes.
_TAKEN: Final = {"assistant": ("name", "audio"), "tool": ()}
_NAME: Final = ("name",)


def to_messages(events: Iterable[Event]) -> Converted[ChatCompletionMessageParam]:
    """Make messages for a request of events, such as a history.

    Args:
        events: In their order. Every call needs its result right behind it, as in a history.

    Returns:
        The messages; in ``lost`` what they cannot say.
    """
    converted: Converted[Any] = Converted()
    for event in events:
        if event.content and not event.partial:
            converted.extend(map(plain, _Said(event, converted.lost).messages()))
    return converted


def from_messages(
    messages: Iterable[Mapping[str, Any] | object], *, agent: str = "assistant"
) -> Converted[Event]:
    """Make events of messages, one of each.

    Args:
        messages: Messages as a request takes them, or as an answer holds them: dicts, or the
            models of the provider's package.
        agent: The author of what the assistant says.

    Returns:
        The events, with new ids. Nothing is lost, since what an event has no place for is kept in
        it and comes back from :func:`to_messages`.

    Raises:
        TypeError: A message is no dict and no model.
        ValueError: A message lacks what its role demands, or a field has the wrong type.
    """
    return read(_Heard, messages, agent)


class _Said(Outgoing):
    """An event on its way to messages."""

    def __init__(self, event: Event, lost: list[Loss]) -> None:
        super().__init__(event, lost, _KEY)

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the messages of the event."""
        author, content = self.event.author, self.event.content
        role = author if author in _SPEAKERS else "assistant"
        if isinstance(content, str):
            yield {"role": role, "content": content, **self._extras(role)}
            return
        words: list[dict[str, Any]] = []
        fields: dict[str, Any] = {}
        calls: list[dict[str, Any]] = []
        answers: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for self.number, part in enumerate(content):
            match part:
                case ToolResult():
                    answers.append(self._answer(part))
                case Data() if part.media_type == _MESSAGE and is_mapping(part.data):
                    others.append(part.data)
                case Data() if part.media_type == _CALL and is_mapping(part.data):
                    calls.append(part.data)
                case ToolCall() if role == "assistant":
                    calls.append(self._call(part))
                case Text() if self._is_field(part, role, "refusal", fields):
                    fields["refusal"] = part.text
                case Reasoning() if self._is_field(part, role, "reasoning_content", fields):
                    fields["reasoning_content"] = part.text
                case _:
                    words += self._words(part, role)
        message = {"role": role, "content": self._content(words), **self._extras(role), **fields}
        if calls:
            message["tool_calls"] = calls
        said = [message] if words or calls or fields else []
        yield from [*said, *answers] if role == "assistant" else [*answers, *said]
        yield from others

    def _is_field(self, part: Part, role: str, name: str, taken: Mapping[str, Any]) -> bool:
        """Tell what stands in a field of its own, of which a message has one."""
        return role == "assistant" and name not in taken and self.own_of(part).get("field") == name

    def _content(self, words: list[dict[str, Any]]) -> str | list[dict[str, Any]] | None:
        """Give words the form that they had, which is a string for most."""
        if not words:
            return None
        if len(words) == 1 and words[0].keys() == {"type", "text"} and "is_list" not in self.own:
            return cast("str", words[0]["text"])
        return words

    def _extras(self, role: str) -> dict[str, Any]:
        """Return the fields of the message that an event has no place for."""
        taken = _TAKEN.get(role, _NAME)
        return {name: self.fields[name] for name in taken if name in self.fields}

    def _answer(self, result: ToolResult) -> dict[str, Any]:
        if result.is_error:
            self.lose("that a result is an error has no form; only the result itself has")
        of_parts = self.is_of_parts(result.call_id)
        content = result_content(result.result, "text", of_parts=of_parts)
        return {"role": "tool", "tool_call_id": result.call_id, "content": content}

    def _call(self, call: ToolCall) -> dict[str, Any]:
        self.note_foreign(call)
        own = self.own_of(call)
        if own.get("type") == "custom":
            custom = {"name": call.name, "input": arguments_text(call.arguments, None)}
            return {"id": call.call_id, "type": "custom", "custom": custom}
        arguments = arguments_text(call.arguments, own.get("arguments"))
        function = {"name": call.name, "arguments": arguments}
        return {"id": call.call_id, "type": "function", "function": function}

    def _words(self, part: Part, role: str) -> Iterator[dict[str, Any]]:
        """Yield what a part is in the content of a message, if it can be there."""
        own = self.own_of(part)
        match part:
            case Text():
                self.note_foreign(part)
                is_refusal = role == "assistant" and own.get("field") in {"part", "refusal"}
                kind = "refusal" if is_refusal else "text"
                extras = {name: value for name, value in own.items() if name != "field"}
                yield {**extras, "type": kind, kind: part.text}
            case Data() if part.media_type == _PART and is_mapping(part.data):
                yield part.data
            case Media() if role == "user":
                self.note_foreign(part)
                yield from self._media(part, own)
            case _:
                kind = type(part).__name__
                self.lose(f"a {kind} of the author {self.event.author!r} has no form")

    def _media(self, media: Media, own: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        url = f"data:{media.media_type};base64,{media.data}" if media.data else media.uri
        named = {"filename": media.name} if media.name else {}
        if "file_id" in own or (
            media.data and not media.media_type.startswith(("image/", "audio/"))
        ):
            data = {"file_data": url} if media.data else {}
            yield {"type": "file", "file": {**own, **data, **named}}
        elif media.media_type.startswith("image/") and url:
            yield {"type": "image_url", "image_url": {**own, "url": url}}
        elif media.media_type in _FORMATS and media.data:
            sound = {"data": media.data, "format": _FORMATS[media.media_type]}
            yield {"type": "input_audio", "input_audio": sound}
        else:
            self.lose(f"{media.media_type} at an address, or of this type, has no form")


class _Heard(Incoming):
    """A message on its way to an event."""

    def __init__(
        self, message: dict[str, Any], number: int, tools: Mapping[str, str], agent: str
    ) -> None:
        super().__init__(message, number, tools, agent)
        self._fields = {
            name: value
            for name, value in message.items()
            if name not in _PLACED and value is not None
        }
        self._own: dict[str, Any] = {}

    def event(self) -> Event:
        role = self.field("role", str)
        content: Content
        match role:
            case "user" | "system" | "developer":
                author, content = role, self._content(self.field("content", str, list))
            case "assistant" if self.message.get("function_call") is None:
                author, content = self.agent, self._answer()
            case "tool":
                author, content = "tool", self._result()
            case _:
                return Event(author=role, content=[Data(dict(self.message), _MESSAGE)])
        own = {**self._own, **({"fields": self._fields} if self._fields else {})}
        return Event(author=author, content=content, metadata={_KEY: own} if own else {})

    def _content(self, content: str | list[Any]) -> Content:
        if isinstance(content, str):
            return content
        parts = [self._part(each) for each in content]
        if len(parts) == 1 and isinstance(parts[0], Text) and parts[0].provider_data is None:
            self._own["is_list"] = True
        return parts

    def _answer(self) -> Content:
        """Read what an assistant says: words, a refusal, calls."""
        content = self.message.get("content")
        refusal = self.message.get("refusal")
        thoughts = self.message.get("reasoning_content")
        calls: list[Any] = []
        if self.message.get("tool_calls") is not None:
            calls = self.field("tool_calls", list)
        if isinstance(content, str) and refusal is None and thoughts is None and not calls:
            return content
        parts: list[Part] = []
        if thoughts is not None:
            parts.append(Reasoning(self.field("reasoning_content", str), _in("reasoning_content")))
        if content is not None:
            words = self._content(self.field("content", str, list))
            parts += [Text(words)] if isinstance(words, str) else words
        if refusal is not None:
            parts.append(Text(self.field("refusal", str), _in("refusal")))
        parts += [self._call(each) for each in calls]
        return parts

    def _result(self) -> list[Part]:
        call_id = self.field("tool_call_id", str)
        content = self.field("content", str, list)
        name = self._fields.pop("name", self.tools.get(call_id, ""))
        if not isinstance(name, str):
            self.refuse(f"name must be a str, and it is of type {type(name).__name__}")
        if isinstance(content, list):
            self._own["parts"] = [call_id]
        return [ToolResult(call_id, content, name)]

    def _call(self, call: Any) -> Part:
        call_id = self.field("id", str, of=call)
        match call:
            case {"function": {"name": str(name), "arguments": str(text)}}:
                arguments, is_exact = read_arguments(text)
                data = None if is_exact else {_KEY: {"arguments": text}}
                return ToolCall(call_id, name, arguments, data)
            case {"custom": {"name": str(name), "input": str(text)}}:
                return ToolCall(call_id, name, text, {_KEY: {"type": "custom"}})
            case _:
                return Data(dict(call), _CALL)

    def _part(self, part: Any) -> Part:
        """Read one part of a message's content; what is not known is kept as it is."""
        self.field("type", str, of=part)
        match part:
            case {"type": "text", "text": str(text), **extras}:
                return Text(text, {_KEY: extras} if extras else None)
            case {"type": "refusal", "refusal": str(text), **extras}:
                return Text(text, {_KEY: {**extras, "field": "part"}})
            case {"type": "image_url", "image_url": {"url": str(url), **extras}, **others} if (
                url and not others
            ):
                return image(url, {_KEY: extras} if extras else None)
            case {
                "type": "input_audio",
                "input_audio": {"data": str(data), "format": str(form), **extras},
                **others,
            } if form in _AUDIO and data and not (extras or others):
                return Media(_AUDIO[form], data=data)
            case {"type": "file", "file": file, **others} if not others:
                return _file(mapping(file)) or Data(dict(part), _PART)
            case _:
                return Data(dict(part), _PART)


def _in(field: str) -> dict[str, Any]:
    """Say in which field of a message a part was."""
    return {_KEY: {"field": field}}


def _file(file: Mapping[str, Any]) -> Media | None:
    """Read a file by its id or its bytes; ``None`` if it has another form."""
    name, data, file_id = (file.get(each, "") for each in ("filename", "file_data", "file_id"))
    if not all(isinstance(each, str) for each in (name, data, file_id)):
        return None
    if file.keys() - {"filename", "file_data", "file_id"} or bool(data) == bool(file_id):
        return None
    if file_id:
        return Media(
            "application/octet-stream", name=name, provider_data={_KEY: {"file_id": file_id}}
        )
    found = file_data(data)
    return None if found is None else Media(found[0], data=found[1], name=name)
