"""MCP: the ``EventStore`` of a server, with which its clients resume streams that were cut off.

::

    server = MCPServer("tools")
    app = server.streamable_http_app(event_store=EventStore(service, app_name="tools"))
    app.add_middleware(SessionScope)

It is no conversation. Messages of the protocol are kept as they are: each is an event with one
:class:`~agentsession.Data`, of the type ``application/vnd.mcp.message+json``, in a session for each
stream. A stream is that of one request, or the one of all that belongs to no request. Its session
is deleted by its time to live, as every session is.

Servers call their streams by the ids of requests, which every client counts from 0. So a store has
to know to which MCP session a stream belongs, and the protocol's package does not tell it:
:class:`SessionScope` does. Without it a client could be sent what was meant for another one.

It needs an extra: ``pip install 'agentsession[mcp]'``. It works with versions 1 and 2 of ``mcp``;
version 1 takes the store as ``FastMCP("tools", event_store=...)``.
"""

from __future__ import annotations

import re
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

import anyio

from agentsession._extras import what_to_install

try:
    from mcp import types
    from mcp.server.streamable_http import EventMessage
    from mcp.server.streamable_http import EventStore as _EventStore
except ImportError as _cause:
    raise ImportError(what_to_install("this adapter", "mcp", _cause)) from _cause

from agentsession.adapters._sessions.logs import Service, add, awaitable
from agentsession.errors import CodecError, EventNotFoundError, SessionNotFoundError
from agentsession.events import Data, Event, new_id
from agentsession.sessions import SessionKey, UserKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from mcp.server.streamable_http import EventCallback
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["EventStore", "SessionScope"]

_MESSAGE: Final = "application/vnd.mcp.message+json"
_AUTHOR: Final = "mcp"
_HEADER: Final = b"mcp-session-id"
_PAGE: Final = 100
# Between two looks for what is being stored, in seconds.
_PAUSE: Final = 0.001
# A position in a log, of which none is ever as large as what has more digits.
_SEQ: Final = re.compile("[1-9][0-9]{0,15}")


class _Scope:
    """To which MCP session the streams of a request, and of what it has started, belong.

    Args:
        name: The MCP session's id; something unique as long as the server has not given one.
    """

    def __init__(self, name: str) -> None:
        self.name = name


_scope: Final[ContextVar[_Scope]] = ContextVar("agentsession MCP session")


class SessionScope:
    """ASGI middleware that tells an :class:`EventStore` which MCP session it is called for.

    The task in which a server serves an MCP session is started by the session's first request. It
    inherits from that what this middleware learns when the request is answered: the session's id.

    Args:
        app: The server's application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own = _Scope(_named_in(scope["headers"]) or new_id())

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                own.name = _named_in(message.get("headers", ())) or own.name
            await send(message)

        before = _scope.set(own)
        try:
            await self._app(scope, receive, answer)
        finally:
            _scope.reset(before)


def _named_in(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the MCP session that a request or an answer names; empty if it names none."""
    return next((value.decode("latin-1") for name, value in headers if name == _HEADER), "")


class EventStore(_EventStore):
    """An ``EventStore`` of MCP, kept by a service.

    Ids of events name their stream, in ASCII characters, and are never given twice. An id resumes
    a stream of its own MCP session only. To resume a short stream takes one read.

    Args:
        service: Where streams are kept.
        app_name: The application.
        session_id: The MCP session of a transport that is made by hand. Servers that make their
            transports themselves have one store for all, without it, and :class:`SessionScope`.

    Raises:
        TypeError: *service* is no service, or an id no string.
        ValueError: An id is empty.
    """

    def __init__(self, service: Service, *, app_name: str, session_id: str | None = None) -> None:
        self._service = awaitable(service)
        self._app_name = app_name
        self._own = None if session_id is None else _Scope(session_id)
        self._stored_last = ""  # The id of an event.
        self._under_way: Counter[SessionKey] = Counter()  # Events that are being stored.
        UserKey(app_name, "-" if session_id is None else session_id)  # Refuses what is no id.

    def __repr__(self) -> str:
        return f"<EventStore {self._app_name!r} of {self._service!r}>"

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        """Add a message to the end of a stream, and return its id.

        Args:
            stream_id: The stream.
            message: The message; ``None`` for an id from which the stream can be resumed, which is
                not replayed itself.

        Raises:
            EventTooLargeError: The message is over the service's ``max_event_size``.
            RuntimeError: It is not known to which MCP session the stream belongs.
        """
        key = self._key(stream_id)
        event = Event(author=_AUTHOR, content=[] if message is None else [_data(message)])
        self._under_way[key] += 1
        try:
            (stored,) = await add(self._service, key, [event])
            self._stored_last = stored.id
        finally:
            self._under_way -= Counter([key])
        return _event_id(_quoted(stream_id), stored)

    async def replay_events_after(
        self, last_event_id: str, send_callback: EventCallback
    ) -> str | None:
        """Send what came after an event in its stream.

        Args:
            last_event_id: The id of the event.
            send_callback: Is given the messages in their order, with their ids.

        Returns:
            The stream; ``None``, and nothing is sent, if the event is not stored, or not any more,
            or belongs to another MCP session.

        Raises:
            CodecError: A message cannot be read.
            RuntimeError: It is not known which MCP session asks.
        """
        stream, _, place = last_event_id.partition(":")
        seq, _, name = place.partition(":")
        stream_id = unquote(stream)
        key, quoted = self._key(stream_id), _quoted(stream_id)
        if not _SEQ.fullmatch(seq):
            return None
        try:
            async for event in self._after(key, int(seq), name):
                for message in _messages_of(event):
                    await send_callback(EventMessage(message, _event_id(quoted, event)))
        except (EventNotFoundError, SessionNotFoundError):
            return None
        return stream_id

    async def _after(self, key: SessionKey, seq: int, event_id: str) -> AsyncIterator[Event]:
        """Yield what comes after an event; also what this store adds while it is read.

        Raises:
            EventNotFoundError: The log does not hold the event at that place.
        """
        limit = min(_PAGE, self._service.always_readable)
        after = seq - 1
        while True:
            stored_last = self._stored_last
            page = await self._service.get_events(key, after_seq=after, limit=limit)
            if after < seq and not _begins_with(page, seq, event_id):
                raise EventNotFoundError(key, event_id)
            for event in page:
                if event.error is not None:
                    raise CodecError(key, event.error.message)
                after = event.seq
                if after > seq:
                    yield event
            # What is stored while a page is read and sent reaches the client in no other way: the
            # server hands it to no connection that is not there when it has been stored. A store
            # may read while it writes, so what is under way now may be in no page yet.
            if key in self._under_way:
                await anyio.sleep(_PAUSE)
            elif len(page) < limit and self._stored_last == stored_last:
                return

    def _key(self, stream_id: str) -> SessionKey:
        """Return where a stream is, of the MCP session that this is called for."""
        own = self._own or _scope.get(None)
        if own is None:
            msg = (
                "it is not known to which MCP session a stream belongs: add the middleware, "
                "app.add_middleware(SessionScope), or give each transport an EventStore with its "
                "session_id"
            )
            raise RuntimeError(msg)
        # The id of a request may be empty, and that of a session may not.
        return SessionKey(self._app_name, own.name, f"stream:{stream_id}")


def _quoted(stream_id: str) -> str:
    return quote(stream_id, safe="")


def _event_id(quoted: str, event: Event) -> str:
    """Return what names an event by its stream, and its place there."""
    return f"{quoted}:{event.seq}:{event.id}"


def _begins_with(page: list[Event], seq: int, event_id: str) -> bool:
    """Tell whether a page begins with an event; one that cannot be read may be it."""
    if not page or page[0].seq != seq:
        return False
    return page[0].id == event_id or page[0].error is not None


def _data(message: types.JSONRPCMessage) -> Data:
    # As mcp itself writes it: what was set, if only to null.
    return Data(message.model_dump(mode="json", by_alias=True, exclude_unset=True), _MESSAGE)


def _messages_of(event: Event) -> list[types.JSONRPCMessage]:
    return [
        _message_of(part.data)
        for part in event.content
        if isinstance(part, Data) and part.media_type == _MESSAGE
    ]


def _message_of(data: object) -> types.JSONRPCMessage:
    union = getattr(types, "jsonrpc_message_adapter", None)
    if union is None:
        return types.JSONRPCMessage.model_validate(data)
    message: types.JSONRPCMessage = union.validate_python(data)  # From version 2 on it is no class.
    return message
