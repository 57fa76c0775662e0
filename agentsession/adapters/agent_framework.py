"""Microsoft Agent Framework: the ``HistoryProvider`` that its agents keep conversations in.

::

    history = HistoryProvider(service, app_name="shop", user_id="ada")
    agent = Agent(client, context_providers=[history])
    await agent.run("Where is my parcel?", session=agent.create_session(session_id="chat"))

======================================== =======================================================
content of a message                     part of an event
======================================== =======================================================
``text``                                 :class:`~agentsession.Text`
``text_reasoning``                       :class:`~agentsession.events.Reasoning`
``data``, ``uri``                        :class:`~agentsession.events.Media`
``function_call``                        :class:`~agentsession.ToolCall`
``function_result``                      :class:`~agentsession.ToolResult`
``usage``                                none; it is in the original
any other                                :class:`~agentsession.Data`, of the type
                                         ``application/vnd.agent-framework.content+json``
======================================== =======================================================

It needs an extra: ``pip install 'agentsession[agent-framework]'``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from agentsession._extras import what_to_install

try:
    from agent_framework import Content, Message
    from agent_framework import HistoryProvider as _HistoryProvider
except ImportError as _cause:
    raise ImportError(what_to_install("this adapter", "agent-framework", _cause)) from _cause

from agentsession.adapters._items.originals import original_of, with_original
from agentsession.adapters._sessions.known import Known
from agentsession.adapters._sessions.logs import Service, awaitable, read
from agentsession.errors import ReadTooLargeError, RevisionConflictError, SessionNotFoundError
from agentsession.events import (
    UNREADABLE,
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
from agentsession.messages._converting import is_mapping
from agentsession.retention import LARGEST
from agentsession.sessions import Session, SessionKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["HistoryProvider"]

_FRAMEWORK: Final = "agent_framework"
_CONTENT: Final = "application/vnd.agent-framework.content+json"
_BATCH: Final = 1000
# How many messages of a session's end to remember: more than most runs save.
_KEPT: Final = 32

# Authors that say what kind of message it is; an agent of such a name is called otherwise.
_ROLES: Final = {"user": "user", "system": "system", "developer": "system", "tool": "tool"}


class HistoryProvider(_HistoryProvider):
    """A ``HistoryProvider`` of Agent Framework, kept by a service.

    A message that an agent stores is an event, with the message beside it, and comes back equal to
    what was stored. What others have stored in the session comes as messages too.

    The messages of one call are added in one step, up to 1,000 of them. What of them is stored
    already is left out, by the rule of the framework's own providers: agents of a workflow hand
    over the whole conversation, of which only the new end is to be stored.

    Args:
        service: Where sessions are kept.
        app_name: The application.
        user_id: Whose sessions they are: the user, or a function that returns the user of a
            session id.
        source_id: The name of this provider among those of an agent.
        load_messages: Whether agents get what is stored; the other options are the framework's too.
        store_inputs: Whether to store what agents are asked.
        store_context_messages: Whether to store what other providers add.
        store_context_from: Store that only from providers of these names.
        store_outputs: Whether to store what agents answer.
        skip_excluded: Whether to leave out messages that a compaction has marked as excluded.

    Raises:
        TypeError: *service* is no service, or an id is no string.
        ValueError: An id is empty.
    """

    def __init__(
        self,
        service: Service,
        *,
        app_name: str,
        user_id: str | Callable[[str], str],
        source_id: str = "agentsession",
        load_messages: bool = True,
        store_inputs: bool = True,
        store_context_messages: bool = False,
        store_context_from: set[str] | None = None,
        store_outputs: bool = True,
        skip_excluded: bool = False,
    ) -> None:
        super().__init__(
            source_id,
            load_messages=load_messages,
            store_inputs=store_inputs,
            store_context_messages=store_context_messages,
            store_context_from=store_context_from,
            store_outputs=store_outputs,
        )
        self.skip_excluded = skip_excluded
        self._service = awaitable(service)
        self._user_id = user_id
        self._known: Known[_End] = Known()
        self._app_name = SessionKey(app_name, "-" if callable(user_id) else user_id).app_name

    def __repr__(self) -> str:
        return f"<HistoryProvider {self._app_name!r} of {self._service!r}>"

    async def get_messages(
        self,
        session_id: str | None,
        *,
        state: dict[str, Any] | None = None,  # noqa: ARG002 - the framework passes it
        **kwargs: Any,  # noqa: ARG002 - as above
    ) -> list[Message]:
        """Return the messages of a session, oldest first; none if there is no session.

        Args:
            session_id: The session.
            state: The framework's; it is not needed.
            **kwargs: As *state*.

        Returns:
            A list with an attribute ``lost``: what others have stored in the session that no
            message can say.

        Raises:
            ValueError: There is no session id.
        """
        session = await read(self._service, self._key(session_id))
        messages: Converted[Message] = Converted()
        for event in [] if session is None else session.events:
            messages += [
                message
                for message in _messages(event, messages.lost)
                if not (self.skip_excluded and message.additional_properties.get("_excluded"))
            ]
        return messages

    async def save_messages(
        self,
        session_id: str | None,
        messages: Sequence[Message],
        *,
        state: dict[str, Any] | None = None,  # noqa: ARG002 - the framework passes it
        **kwargs: Any,  # noqa: ARG002 - as above
    ) -> None:
        """Add messages to the end of a session, which is made if there is none.

        Args:
            session_id: The session.
            messages: The messages; those at their beginning that are stored already are left out.
            state: The framework's; it is not needed.
            **kwargs: As *state*.

        Raises:
            EventTooLargeError: A message is too large: an event holds its parts and the message
                beside them, so that a message may take about half of ``max_event_size``.
            SessionBusyError: A turn of somebody else has an exclusive lease.
            ValueError: There is no session id.
        """
        key = self._key(session_id)
        events = _events(messages)
        said = _said_in(events)
        while events:
            end = self._known.take(key)
            is_known = end is not None and (end.is_all or len(end.said) > len(said))
            if end is None or not is_known:
                end = await self._end(key, len(said))
            stored = _stored_already(end.said, said)
            if is_known and stored == len(said):
                continue  # No write would tell whether the end is that still.
            try:
                await self._append(end.session, events[stored:])
            except (RevisionConflictError, SessionNotFoundError):
                continue  # Somebody has written meanwhile: perhaps the same messages.
            self._known.keep(key, end.with_added(said[stored:]))
            return

    def _key(self, session_id: str | None) -> SessionKey:
        if not session_id:
            msg = (
                "a history belongs to a session: run the agent with "
                "session=agent.create_session(session_id=...)"
            )
            raise ValueError(msg)
        user_id = self._user_id(session_id) if callable(self._user_id) else self._user_id
        return SessionKey(self._app_name, user_id, session_id)

    async def _end(self, key: SessionKey, most: int) -> _End:
        """Read the end of a session, with more messages than *most*; or all of it."""
        look = most + 1
        session: Session | None
        while True:
            try:
                session = await self._service.get_or_create_session(key, num_recent_events=look)
            except ReadTooLargeError:
                session = await read(self._service, key)
                look = LARGEST
            if session is not None:
                said, is_all = _said_in(session.events), len(session.events) < look
                if is_all or len(said) > most:
                    return _End(session, said, is_all)
            look *= 2

    async def _append(self, session: Session, events: Sequence[Event]) -> None:
        """Append if nobody has written to the session; more than a batch takes several steps."""
        session.events = []
        for first in range(0, len(events), _BATCH):
            batch = events[first : first + _BATCH]
            await self._service.append_events(session, batch, expected_revision=session.revision)
            session.events = []


# -- what is stored already


class _Said(NamedTuple):
    """What is equal of equal messages, and whether it is a user's without an id.

    Users say the same thing twice, so that such a message alone is no repeat.
    """

    name: str
    is_question: bool


class _End(NamedTuple):
    """A session without its events, and its newest messages; all of them if *is_all*."""

    session: Session
    said: list[_Said]
    is_all: bool

    def with_added(self, said: list[_Said]) -> _End:
        """Return the end after these were added, as far as it is kept."""
        kept = [*self.said, *said]
        return _End(self.session, kept[-_KEPT:], self.is_all and len(kept) <= _KEPT)


def _said_in(events: Iterable[Event]) -> list[_Said]:
    found: list[_Said] = []
    for event in events:
        original = original_of(event, _FRAMEWORK)
        if original is None:
            messages = _messages(event, [])
            found += [_Said(message.message_id or event.id, False) for message in messages]  # noqa: FBT003
            continue
        name = original.get("message_id")
        is_question = not name and original["role"] == "user"
        found.append(_Said(name or _digest(original), is_question))
    return found


def _digest(original: dict[str, Any]) -> str:
    """Return what stands for all that a message says."""
    said = json.dumps([original["role"], original["contents"]], sort_keys=True, default=str)
    return f"sha256:{hashlib.sha256(said.encode()).hexdigest()}"


def _stored_already(before: Sequence[_Said], new: Sequence[_Said]) -> int:
    """Return how many of these messages, from the first, a session holds at its end.

    If it holds fewer messages than there are, they may stand anywhere among them: that is a
    transcript with something before it.

    Args:
        before: The newest messages of the session, more than *new*; or all.
        new: What is to be stored.
    """
    if not before:
        return 0
    size, is_question = len(before), before[-1].is_question
    for first in range(len(new) - size + 1):
        if new[first : first + size] == before:
            if not first and size == 1 and is_question:
                break
            return first + size
    for size in range(min(len(before), len(new)), 1 if is_question else 0, -1):
        if before[-size:] == new[:size]:
            return size
    return 0


# -- messages to events


def _events(messages: Iterable[Message]) -> list[Event]:
    tools: dict[str, str] = {}
    events: list[Event] = []
    for message in messages:
        original = message.to_dict()
        content = list(_parts(original["contents"], tools))
        events.append(
            with_original(Event(author=_author_of(message), content=content), _FRAMEWORK, original)
        )
    return events


def _author_of(message: Message) -> str:
    if message.role != "assistant":
        return message.role
    name = message.author_name
    return name if name and name not in _ROLES else "assistant"


def _parts(contents: Iterable[dict[str, Any]], tools: dict[str, str]) -> Iterator[Part]:
    """Yield what every reader can see of the contents of a message.

    Args:
        contents: The contents.
        tools: The names of the tools that were called before, by call id; it grows.
    """
    for content in contents:
        match content:
            case {"type": "usage"}:
                continue
            case {"type": "text", "text": str(text)}:
                yield Text(text)
            case {"type": "text_reasoning"}:
                yield Reasoning(content.get("text", ""))
            case {"type": "data" | "uri", "uri": str(uri)} if media := _media(uri, content):
                yield media
            case {"type": "function_call", "call_id": str(call_id), "name": str(name)} if (
                call_id and name
            ):
                tools[call_id] = name
                yield ToolCall(call_id, name, content.get("arguments", {}))
            case {"type": "function_result", "call_id": str(call_id)} if call_id:
                yield _result(call_id, content, tools.get(call_id, ""))
            case _:
                yield Data(content, _CONTENT)


def _result(call_id: str, content: dict[str, Any], name: str) -> ToolResult:
    """Make a result of what the tool has said, or of all that it gave if some of it is no text."""
    items = content.get("items", ())
    only_text = all(item["type"] == "text" for item in items)
    result = content.get("result") if only_text else items
    return ToolResult(call_id, result, name, is_error="exception" in content)


def _media(uri: str, content: dict[str, Any]) -> Media | None:
    media_type = content.get("media_type") or "application/octet-stream"
    name = content.get("name", "")
    if not uri.startswith("data:"):
        return Media(media_type, uri=uri, name=name) if uri else None
    header, _, data = uri.removeprefix("data:").partition(",")
    try:
        raw = base64.b64decode(data) if header.endswith(";base64") else unquote_to_bytes(data)
    except binascii.Error:
        return None
    return Media.from_bytes(raw, media_type, name)


# -- events to messages


def _messages(event: Event, lost: list[Loss]) -> Iterator[Message]:
    """Yield the message of an event, or those that say what it holds."""
    original = original_of(event, _FRAMEWORK)
    if original is not None:
        yield Message.from_dict(original)
        return
    if event.error is not None and event.error.type == UNREADABLE:
        lost.append(Loss(f"event {event.id!r}", event.error.message))
        return
    parts = [Text(event.content)] if isinstance(event.content, str) else event.content
    results = [part for part in parts if isinstance(part, ToolResult)]
    said = [part for part in parts if not isinstance(part, ToolResult)]
    contents = [content for part in said for content in _contents(part, event, lost)]
    role = _ROLES.get(event.author, "assistant")
    if contents:
        name = event.author if role == "assistant" and event.author != role else None
        yield Message(role, contents, author_name=name, message_id=event.id)
    if results:
        message_id = f"{event.id}:results" if contents else event.id
        yield Message("tool", [_answer(result) for result in results], message_id=message_id)


def _contents(part: Part, event: Event, lost: list[Loss]) -> Iterator[Content]:
    """Yield the content of a part, if it can be said."""
    if isinstance(part, Text) and not part.text:
        return
    content = _content(part)
    if content is None:
        kind = type(part).__name__
        lost.append(Loss(f"event {event.id!r}", f"a {kind} like this has no form here"))
        return
    if getattr(part, "provider_data", None):
        lost.append(Loss(f"event {event.id!r}", "provider_data has no form here"))
    yield content


def _content(part: Part) -> Content | None:
    """Return what a part is; ``None`` if it has no form."""
    match part:
        case Text():
            return Content.from_text(part.text)
        case Reasoning() if part.text:
            return Content.from_text_reasoning(text=part.text)
        case Media():
            uri = part.uri or f"data:{part.media_type};base64,{part.data}"
            return Content.from_uri(uri, media_type=part.media_type, name=part.name or None)
        case ToolCall():
            return Content.from_function_call(part.call_id, part.name, arguments=_said(part))
        case _:
            return None


def _said(call: ToolCall) -> str | dict[str, Any]:
    if is_mapping(call.arguments):
        return dict(call.arguments)
    return call.arguments if isinstance(call.arguments, str) else _json(call.arguments)


def _answer(result: ToolResult) -> Content:
    said = result.result
    if said is not None and not isinstance(said, str):
        said = _json(said)
    failure = (said or "the tool failed") if result.is_error else None
    return Content.from_function_result(result.call_id, result=said, exception=failure)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
