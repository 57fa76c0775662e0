"""mcp: ``EventStore``. The framework has no store of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcp.types import JSONRPCMessage
from pydantic import TypeAdapter

from agentsession import Event, SessionKey
from agentsession.adapters import mcp
from benchmarks.cases import Setup
from benchmarks.contestants.adapters.base import Adapter, serve
from benchmarks.driver import APP, USER
from benchmarks.messages import Message

# In version 1 it is a class, and later a union.
_ADAPTER: TypeAdapter[Any] = TypeAdapter(JSONRPCMessage)


class Ours(Adapter):
    """``EventStore``: an append stores a message, a read replays a stream from its first one on."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._store = mcp.EventStore(self.service, app_name=APP, session_id=USER)
        self._first: dict[str, str] = {}

    def key(self, session: str) -> SessionKey:
        return SessionKey(APP, USER, f"stream:{session}")

    async def create(self, session: str) -> None:
        self._first[session] = await self._store.store_event(session, None)

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        for message in messages:
            await self._store.store_event(session, _message(message))

    async def read(self, session: str) -> int:
        found: list[Any] = []

        async def keep(message: Any) -> None:
            found.append(message)

        await self._store.replay_events_after(self._first[session], keep)
        return len(found)

    def to_events(self, message: Message) -> object:
        return mcp._data(_message(message))  # noqa: SLF001

    def from_events(self, stored: Sequence[Event]) -> object:
        return [mcp._messages_of(event) for event in stored]  # noqa: SLF001

    async def bare_read(self, session: str) -> int:
        return len(await self.service.get_events(self.key(session), after_seq=1))


def _message(message: Message) -> Any:
    params = {"level": "info", "data": message.text}
    fields = {"jsonrpc": "2.0", "method": "notifications/message", "params": params}
    return _ADAPTER.validate_python(fields)


if __name__ == "__main__":
    serve(Ours, {})
