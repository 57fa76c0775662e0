"""The messages of Anthropic's Messages API.

====================================== =============================================================
message, or block of one               event, or part of one
====================================== =============================================================
``user``, ``system``                   that author; a string, or parts; the author
                                       ``"developer"`` is said as ``system``
``assistant``                          the agent's name as the author
``user`` with results alone            author ``"tool"``
``text``                               :class:`~agentsession.Text`
``thinking``, ``redacted_thinking``    :class:`~agentsession.events.Reasoning`; the signature, or
                                       the encrypted data, in ``provider_data``
``image``, ``document`` that is a PDF  :class:`~agentsession.events.Media`
``tool_use``                           :class:`~agentsession.ToolCall`
``tool_result``                        :class:`~agentsession.ToolResult`
any other, as of the provider's tools  :class:`~agentsession.Data`, verbatim
====================================== =============================================================

What belongs to this format alone is kept under ``"anthropic"``: in ``provider_data`` of a part, and
in ``metadata`` of an event. Fields of an answer that no request takes, such as its usage, are kept
there too, and not sent.

Results of several calls become one message, as the API wants it. No form have: reasoning without a
signature of this provider, media of an agent, media of other types than images and PDF, arguments
that are no object (they are sent within one, and told), and any other ``provider_data``. Events
and messages without content are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

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

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from anthropic.types import MessageParam

__all__ = ["from_messages", "to_messages"]

_KEY: Final = "anthropic"

# What stands for what this version does not know: a block, or a message of an unknown role.
_BLOCK: Final = "application/vnd.anthropic.block+json"
_MESSAGE: Final = "application/vnd.anthropic.message+json"

_PDF: Final = "application/pdf"
_SHOWN: Final = ("image/jpeg", "image/png", "image/gif", "image/webp", _PDF)
_ROLES: Final = {"user": "user", "system": "system", "developer": "system"}


def to_messages(events: Iterable[Event]) -> Converted[MessageParam]:
    """Make messages for a request of events, such as a history.

    Args:
        events: In their order. Every call needs its result right behind it, as in a history; and
            the API wants the user to begin, as ``from_user=True`` gives it.

    Returns:
        The messages; in ``lost`` what they cannot say.
    """
    converted: Converted[Any] = Converted()
    answers: list[Any] | None = None  # of the last message, if it is one of results alone
    for event in events:
        if event.content and not event.partial:
            for message in _Said(event, converted.lost).messages():
                copied, is_answer = plain(message), _is_answer(message)
                if is_answer and answers is not None:
                    answers += copied["content"]
                    continue
                converted.append(copied)
                answers = copied["content"] if is_answer else None
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
        ValueError: A message lacks what it must have, or a field has the wrong type.
    """
    return read(_Heard, messages, agent)


def _is_answer(message: Mapping[str, Any]) -> bool:
    """Tell a message of results alone."""
    blocks = items(message.get("content"))
    return (
        message.get("role") == "user"
        and bool(blocks)
        and (all(kind_of(each) == "tool_result" for each in blocks))
    )


class _Said(Outgoing):
    """An event on its way to messages."""

    def __init__(self, event: Event, lost: list[Loss]) -> None:
        super().__init__(event, lost, _KEY)

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the messages of the event."""
        author, content = self.event.author, self.event.content
        role = _ROLES.get(author, "assistant")
        if isinstance(content, str):
            yield {"role": role, "content": content}
            return
        blocks: list[dict[str, Any]] = []
        answers: list[dict[str, Any]] = []
        for self.number, part in enumerate(content):
            match part:
                case ToolResult():
                    answers.append(self._answer(part))
                case Data() if part.media_type == _MESSAGE and is_mapping(part.data):
                    yield part.data
                case _:
                    blocks += self._blocks(part, role)
        if role == "user":
            # Where it is, results come before what the user says, as the API demands.
            answers, blocks = [], [*answers, *blocks]
        if blocks:
            yield {"role": role, "content": blocks}
        if answers:
            yield {"role": "user", "content": answers}

    def _answer(self, result: ToolResult) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": result.call_id}
        content = result.result
        if content is not None:
            if not (isinstance(content, str) or self._are_blocks(result)):
                content = msgspec.json.encode(content).decode()
            block["content"] = content
        if result.is_error:
            block["is_error"] = True
        return {**mapping(mapping(self.own.get("results")).get(result.call_id)), **block}

    def _are_blocks(self, result: ToolResult) -> bool:
        """Tell a result that is the content of a block from any other list."""
        if self.is_of_parts(result.call_id):
            return isinstance(result.result, list)
        blocks = items(result.result)
        return bool(blocks) and all(
            mapping(each).keys() == {"type", "text"}
            and kind_of(each) == "text"
            and isinstance(each["text"], str)
            for each in blocks
        )

    def _blocks(self, part: Part, role: str) -> Iterator[dict[str, Any]]:
        """Yield what a part is in a message, if it can be there."""
        own = self.own_of(part)
        match part:
            case Text() if part.text or own:
                self.note_foreign(part)
                yield {**own, "type": "text", "text": part.text}
            case ToolCall() if role == "assistant":
                self.note_foreign(part)
                yield {
                    **own,
                    "type": "tool_use",
                    "id": part.call_id,
                    "name": part.name,
                    "input": self._input(part),
                }
            case Reasoning() if role == "assistant" and "signature" in own:
                yield {**own, "type": "thinking", "thinking": part.text}
            case Reasoning() if role == "assistant" and "data" in own:
                yield {**own, "type": "redacted_thinking"}
            case Data() if part.media_type == _BLOCK and is_mapping(part.data):
                yield part.data
            case Media() if role == "user" and _is_shown(part):
                self.note_foreign(part)
                yield _medium(part, own)
            case Text():
                self.lose("the API takes no empty text")
            case Media() if role == "user":
                self.lose(f"media of the type {part.media_type} have no form")
            case _:
                kind = type(part).__name__
                self.lose(f"a {kind} of the author {self.event.author!r} has no form")

    def _input(self, call: ToolCall) -> dict[str, Any]:
        arguments = call.arguments
        if isinstance(arguments, str):
            try:
                arguments = msgspec.json.decode(arguments)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                arguments = call.arguments
        if is_mapping(arguments):
            return dict(mapping(arguments))
        self.lose("arguments are an object; these are sent as its 'arguments'")
        return {"arguments": arguments}


class _Heard(Incoming):
    """A message on its way to an event."""

    def __init__(
        self, message: dict[str, Any], number: int, tools: Mapping[str, str], agent: str
    ) -> None:
        super().__init__(message, number, tools, agent)
        fields = {
            name: value
            for name, value in message.items()
            if name not in {"role", "content"} and value is not None
        }
        self._own: dict[str, Any] = {"fields": fields} if fields else {}

    def event(self) -> Event:
        role = self.field("role", str)
        if role not in {"user", "assistant", "system"}:
            return Event(author=role, content=[Data(dict(self.message), _MESSAGE)])
        found = self.field("content", str, list)
        content: Content = found if isinstance(found, str) else [self._part(each) for each in found]
        author = self.agent if role == "assistant" else role
        if role == "user" and not isinstance(content, str) and content:
            answers = all(isinstance(part, ToolResult) for part in content)
            author = "tool" if answers else "user"
        return Event(
            author=author, content=content, metadata={_KEY: self._own} if self._own else {}
        )

    def _part(self, block: Any) -> Part:
        """Read a block; what is not known is kept as it is."""
        self.field("type", str, of=block)
        match block:
            case {"type": "text", "text": str(text), **extras}:
                return Text(text, {_KEY: extras} if extras else None)
            case {"type": "thinking", "thinking": str(text), **own} if "signature" in own:
                return Reasoning(text, {_KEY: own})
            case {"type": "redacted_thinking", **own} if "data" in own:
                return Reasoning("", {_KEY: own})
            case {
                "type": "tool_use",
                "id": str(call_id),
                "name": str(name),
                "input": arguments,
                **extras,
            } if call_id and is_mapping(arguments):
                return ToolCall(
                    call_id, name, dict(mapping(arguments)), {_KEY: extras} if extras else None
                )
            case {"type": "tool_result", "tool_use_id": str(call_id), **extras} if call_id:
                return self._result(call_id, extras)
            case {"type": "image", "source": source, **extras}:
                return _image(mapping(source), extras) or Data(dict(block), _BLOCK)
            case {"type": "document", "source": source, **extras}:
                return _document(mapping(source), extras) or Data(dict(block), _BLOCK)
            case _:
                return Data(dict(block), _BLOCK)

    def _result(self, call_id: str, fields: dict[Any, Any]) -> ToolResult:
        content = fields.pop("content", None)
        is_error = fields.pop("is_error", False)
        if not (content is None or isinstance(content, (str, list))):
            self.refuse(f"content of a result is a str or a list, not a {type(content).__name__}")
        if isinstance(content, list):
            self._own.setdefault("parts", []).append(call_id)
        if fields:
            self._own.setdefault("results", {})[call_id] = fields
        return ToolResult(call_id, content, self.tools.get(call_id, ""), is_error=is_error is True)


def _is_shown(media: Media) -> bool:
    if media.data:
        return media.media_type in _SHOWN
    return bool(media.uri) and media.media_type.startswith(("image/", _PDF))


def _medium(media: Media, own: Mapping[str, Any]) -> dict[str, Any]:
    source: dict[str, Any]
    if media.data:
        source = {"type": "base64", "media_type": media.media_type, "data": media.data}
    else:
        source = {"type": "url", "url": media.uri}
    if media.media_type == _PDF:
        title = {"title": media.name} if media.name else {}
        return {**own, "type": "document", "source": source, **title}
    return {**own, "type": "image", "source": source}


def _image(source: Mapping[str, Any], extras: dict[Any, Any]) -> Media | None:
    data = {_KEY: extras} if extras else None
    match source:
        case {"type": "base64", "media_type": str(kind), "data": str(content), **others} if (
            kind in _SHOWN and content and not others
        ):
            return Media(kind, data=content, provider_data=data)
        case {"type": "url", "url": str(url), **others} if url and not others:
            return Media("image/*", uri=url, provider_data=data)
        case _:
            return None


def _document(source: Mapping[str, Any], extras: dict[Any, Any]) -> Media | None:
    title = extras.get("title") or ""
    if not isinstance(title, str):
        return None
    own = {name: value for name, value in extras.items() if name != "title" or not title}
    data = {_KEY: own} if own else None
    match source:
        case {
            "type": "base64",
            "media_type": "application/pdf",
            "data": str(content),
            **others,
        } if content and not others:
            return Media(_PDF, data=content, name=title, provider_data=data)
        case {"type": "url", "url": str(url), **others} if url and not others:
            return Media(_PDF, uri=url, name=title, provider_data=data)
        case _:
            return None
