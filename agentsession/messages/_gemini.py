"""A Gemini content on its way to an event, and an event on its way to contents."""

from __future__ import annotations

import re
from itertools import groupby
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
from agentsession.messages._converting import Incoming, Outgoing, is_mapping, items, mapping

if TYPE_CHECKING:
    from collections import defaultdict, deque
    from collections.abc import Iterator, Mapping

    from agentsession.messages._converted import Loss

__all__ = ["Heard", "Said", "is_answer"]

_KEY: Final = "gemini"

# What stands for what this version does not know: a part, or a content of an unknown role.
_PART: Final = "application/vnd.gemini.part+json"
_CONTENT: Final = "application/vnd.gemini.content+json"

# What a part can be; each part is one of them.
_KINDS: Final = frozenset(
    {
        "text",
        "functionCall",
        "functionResponse",
        "inlineData",
        "fileData",
        "executableCode",
        "codeExecutionResult",
        "toolCall",
        "toolResponse",
    }
)
# Authors who are no agents; the tool's results are said by the user.
_USERS: Final = frozenset({"user", "tool", "system", "developer"})
# The fields of a response that hold what the tool gave back, if there is one field.
_HOLDERS: Final = ("result", "error")
_UNKNOWN: Final = "application/octet-stream"

_base64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_to_url_safe: Final = str.maketrans("+/", "-_")
_from_url_safe: Final = str.maketrans("-_", "+/")


def is_answer(content: Mapping[str, Any]) -> bool:
    """Tell a content of results alone."""
    parts = items(content.get("parts"))
    return (
        content.get("role") == "user"
        and bool(parts)
        and all("functionResponse" in mapping(each) for each in parts)
    )


class Said(Outgoing):
    """An event on its way to contents.

    Args:
        event: The event.
        lost: Takes what cannot be said.
        tools: The names of the tools that were called so far, by call id.
    """

    def __init__(self, event: Event, lost: list[Loss], tools: dict[str, str]) -> None:
        super().__init__(event, lost, _KEY)
        self._tools = tools
        self._role = "user" if event.author in _USERS else "model"

    def contents(self) -> Iterator[dict[str, Any]]:
        """Yield the contents of the event: parts of the model, and in between what it was given."""
        if self.event.author in {"system", "developer"}:
            self.lose(
                f"the author {self.event.author!r} has no role; it is said as the user's", "author"
            )
        content = self.event.content
        parts = [Text(content)] if isinstance(content, str) else content
        said: list[tuple[str, dict[str, Any]]] = []
        for self.number, part in enumerate(parts):
            if isinstance(part, Data) and part.media_type == _CONTENT and is_mapping(part.data):
                said.append(("", dict(mapping(part.data))))
            elif (one := self._part(part)) is not None:
                said.append(("user" if isinstance(part, ToolResult) else self._role, one))
        for role, group in groupby(said, key=lambda each: each[0]):
            if role:
                yield self._content(role, [part for _, part in group])
            else:
                yield from (whole for _, whole in group)

    def _content(self, role: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
        if "role" not in self.own:
            return {**self.fields, "role": role, "parts": parts}
        own = self.own["role"]
        named = {"role": own} if isinstance(own, str) else {}
        return {**self.fields, **named, "parts": parts}

    def _part(self, part: Part) -> dict[str, Any] | None:
        """Return what a part is; ``None``, and a note, if it has no form."""
        own = self.own_of(part)
        match part:
            case Text():
                self.note_foreign(part)
                return {**_beside(own), "text": part.text}
            case Reasoning() if self._role == "model" and (part.text or own):
                self.note_foreign(part)
                return {**_beside(own), "thought": True, "text": part.text}
            case ToolCall() if self._role == "model":
                self.note_foreign(part)
                return {**_beside(own), "functionCall": self._call(part, own)}
            case ToolResult():
                return self._answer(part)
            case Data() if part.media_type == _PART and is_mapping(part.data):
                return dict(mapping(part.data))
            case Media() if part.data or part.uri:
                self.note_foreign(part)
                return {**_beside(own), **_medium(part, own)}
            case Media():
                self.lose("media without a place have no form")
            case _:
                kind = type(part).__name__
                self.lose(f"a {kind} of the author {self.event.author!r} has no form")
        return None

    def _call(self, call: ToolCall, own: Mapping[str, Any]) -> dict[str, Any]:
        note = mapping(own.get("functionCall"))
        fields: dict[str, Any] = {"id": call.call_id, "name": call.name}
        self._tools[call.call_id] = call.name
        if call.arguments != {} or not _lacked(note, "args"):
            fields["args"] = self._arguments(call)
        if _lacked(note, "id"):
            del fields["id"]
        return {**mapping(note.get("fields")), **fields}

    def _arguments(self, call: ToolCall) -> dict[str, Any]:
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

    def _answer(self, result: ToolResult) -> dict[str, Any]:
        own = mapping(mapping(self.own.get("results")).get(result.call_id))
        note = mapping(own.get("functionResponse"))
        fields: dict[str, Any] = {}
        if not _lacked(note, "id"):
            fields["id"] = result.call_id
        if not _lacked(note, "name"):
            fields["name"] = result.name or self._tools.get(result.call_id, "")
        if result.result is not None or not _lacked(note, "response"):
            fields["response"] = _response(result, is_held=note.get("is_held") is True)
        return {**_beside(own), "functionResponse": {**mapping(note.get("fields")), **fields}}


def _beside(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a part says beside that what it is."""
    return {name: value for name, value in own.items() if name not in _KINDS}


def _lacked(note: Mapping[str, Any], field: str) -> bool:
    """Tell whether a field was not there when it was read."""
    return field in items(note.get("absent"))


def _response(result: ToolResult, *, is_held: bool) -> dict[str, Any]:
    """Return a result as an object, so that it is read as the same result again."""
    value = result.result
    if result.is_error:
        return {"error": value}
    fields = mapping(value)
    if is_mapping(value) and not is_held and not _is_holder(fields):
        return dict(fields)
    return {"result": value}


def _is_holder(fields: Mapping[str, Any]) -> bool:
    """Tell an object whose only field holds what a tool gave back."""
    return len(fields) == 1 and any(name in fields for name in _HOLDERS)


def _read_response(response: object) -> tuple[Any, bool, bool]:
    """Return what a tool gave back, whether it is an error, and whether an object was held."""
    fields = mapping(response)
    if not _is_holder(fields):
        return response, False, False
    ((holder, value),) = fields.items()
    is_error = holder == "error"
    is_held = is_mapping(value) and not is_error and not _is_holder(mapping(value))
    return value, is_error, is_held


def _medium(media: Media, own: Mapping[str, Any]) -> dict[str, Any]:
    kind = "fileData" if media.uri else "inlineData"
    note = mapping(own.get(kind))
    fields = dict(mapping(note.get("fields")))
    if not _lacked(note, "mimeType"):
        fields["mimeType"] = media.media_type
    if media.name:
        fields["displayName"] = media.name
    if media.uri:
        fields["fileUri"] = media.uri
    else:
        is_url_safe = note.get("is_url_safe") is True
        fields["data"] = media.data.translate(_to_url_safe) if is_url_safe else media.data
    return {kind: fields}


class Heard(Incoming):
    """A content on its way to an event.

    Args:
        unnamed: The calls without ids that have no results yet: their ids, by tool.
        message: The content.
        number: See :class:`Incoming`, and so are the others.
        tools: See there.
        agent: See there.
        place: What tells the content from others in the ids that its calls are given.
    """

    def __init__(
        self,
        unnamed: defaultdict[str, deque[str]],
        message: dict[str, Any],
        number: int,
        tools: Mapping[str, str],
        agent: str,
        place: str = "",
    ) -> None:
        super().__init__(message, number, tools, agent)
        self._unnamed = unnamed
        self._place = place or str(number)
        self._own: dict[str, Any] = {}
        self._results: set[str] = set()
        if fields := _others(message, "role", "parts"):
            self._own["fields"] = fields

    def event(self) -> Event:
        role = self.message.get("role")
        if not (role is None or (isinstance(role, str) and role)):
            self.refuse(f"role must be a str that is not empty, not {role!r:.40}")
        if isinstance(role, str) and role not in {"user", "model", "function"}:
            return Event(author=role, content=[Data(dict(self.message), _CONTENT)])
        if role not in {"user", "model"}:
            self._own["role"] = role
        content = self._content(role == "model")
        author = self.agent if role == "model" else "user"
        if content and all(isinstance(part, ToolResult) for part in content):
            author = "tool"
        metadata = {_KEY: self._own} if self._own else {}
        return Event(author=author, content=content, metadata=metadata)

    def _content(self, is_model: bool) -> Content:  # noqa: FBT001 - the only one
        found: list[Any] = []
        if self.message.get("parts") is not None:
            found = self.field("parts", list)
        parts = [self._part(part, index, is_model=is_model) for index, part in enumerate(found)]
        match parts:
            case [Text(text=text, provider_data=None)] if text:
                return text
            case _:
                return parts

    def _part(self, part: Any, index: int, *, is_model: bool) -> Part:
        """Read one part; what is not known, or where it does not belong, is kept as it is."""
        if not is_mapping(part):
            self.refuse(f"parts are dicts, and one is a {type(part).__name__}")
        fields = _others(part)
        kinds = fields.keys() & _KINDS
        kind = kinds.pop() if len(kinds) == 1 else ""
        beside = {name: value for name, value in fields.items() if name != kind}
        found: Part | None = None
        thing = mapping(fields.get(kind))
        match kind:
            case "text":
                found = _text(fields["text"], beside, is_model=is_model)
            case "functionCall" if is_model and thing:
                found = self._call(thing, beside, index)
            case "functionResponse" if not is_model and thing:
                found = self._result(thing, beside, index)
            case "inlineData" | "fileData" if thing:
                found = _media(kind, thing, beside)
            case _:
                pass
        return found or Data(dict(mapping(part)), _PART)

    def _call(self, call: Mapping[str, Any], own: dict[str, Any], index: int) -> Part | None:
        call_id, name, arguments = call.get("id"), call.get("name"), call.get("args")
        if not (isinstance(name, str) and (arguments is None or is_mapping(arguments))):
            return None
        if not isinstance(call_id, str) or not call_id:
            call_id = f"{name or 'call'}-{self._place}.{index}"
            self._unnamed[name].append(call_id)
        if note := _note(call, "id", "name", "args"):
            own["functionCall"] = note
        data = {_KEY: own} if own else None
        return ToolCall(call_id, name, dict(mapping(arguments)), data)

    def _result(self, answer: Mapping[str, Any], own: dict[str, Any], index: int) -> Part | None:
        name, response = answer.get("name"), answer.get("response")
        if not (name is None or isinstance(name, str)):
            return None
        if not (response is None or is_mapping(response)):
            return None
        call_id = answer.get("id")
        if not isinstance(call_id, str) or not call_id:
            call_id = self._waiting(name or "", index)
        if call_id in self._results:
            return None  # There is one place for what is kept of it.
        self._results.add(call_id)
        value, is_error, is_held = _read_response(response)
        if note := _note(answer, "id", "name", "response") | ({"is_held": True} if is_held else {}):
            own["functionResponse"] = note
        if own:
            self._own.setdefault("results", {})[call_id] = own
        name = self.tools.get(call_id, "") if name is None else name
        return ToolResult(call_id, value, name, is_error=is_error)

    def _waiting(self, name: str, index: int) -> str:
        """Return the id of the oldest call of a tool without id and result; else a new one."""
        waiting = self._unnamed[name]
        return waiting.popleft() if waiting else f"{name or 'call'}-{self._place}.{index}"


def _others(owner: Mapping[str, Any], *placed: str) -> dict[str, Any]:
    """Return the fields besides these; the API takes one that is null for one that is not there."""
    return {
        name: value for name, value in owner.items() if name not in placed and value is not None
    }


def _note(owner: Mapping[str, Any], *placed: str) -> dict[str, Any]:
    """Note what a call, a result or a medium has besides these fields, and which it lacks."""
    note: dict[str, Any] = {}
    if fields := _others(owner, *placed):
        note["fields"] = fields
    if absent := [name for name in placed if owner.get(name) is None]:
        note["absent"] = absent
    return note


def _text(text: object, own: dict[str, Any], *, is_model: bool) -> Part | None:
    if not isinstance(text, str):
        return None
    if own.get("thought") is not True:
        return Text(text, {_KEY: own} if own else None)
    del own["thought"]
    if not is_model or not (text or own):
        return None
    return Reasoning(text, {_KEY: own} if own else None)


def _media(kind: str, medium: Mapping[str, Any], own: dict[str, Any]) -> Part | None:
    place = "fileUri" if kind == "fileData" else "data"
    media_type, name = medium.get("mimeType", _UNKNOWN), medium.get("displayName", "")
    found = medium.get(place)
    if not all(isinstance(each, str) for each in (media_type, name, found)):
        return None
    if not (media_type and found):
        return None
    note = _note(medium, "mimeType", place, *(["displayName"] if name else []))
    if kind == "inlineData" and not _base64.fullmatch(found):
        found = found.translate(_from_url_safe)
        if not _base64.fullmatch(found):
            return None
        note["is_url_safe"] = True
    if note:
        own[kind] = note
    data = {_KEY: own} if own else None
    if kind == "fileData":
        return Media(media_type, uri=found, name=name, provider_data=data)
    return Media(media_type, data=found, name=name, provider_data=data)
