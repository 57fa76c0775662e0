"""strands: ``Storage`` beside ``LocalFileStorage``.

It stores bytes under keys, here as many as 20 messages take: each append replaces them, as the
framework's session manager does.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from strands.storage import InMemoryStorage, LocalFileStorage

from agentsession import Event, SessionKey
from agentsession.adapters.strands import Storage
from benchmarks.cases import Setup
from benchmarks.contestants.adapters import base
from benchmarks.contestants.adapters.base import Adapter, OnFile, Store, serve
from benchmarks.driver import APP, USER
from benchmarks.messages import Message, words

_MESSAGES = 20


class Bytes(Store):
    """A storage."""

    storage: Any

    async def create(self, session: str) -> None:
        await self.append(session, (words(self.setup.size),))

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        await self.storage.write(session, _bytes(messages[0]))

    async def read(self, session: str) -> int:
        return len(json.loads(await self.storage.read(session)))


class Ours(Adapter, Bytes):
    """``Storage`` of this project."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.storage = self._storage = Storage(self.service, app_name=APP, user_id=USER)
        self._state = self._parts(words(setup.size))

    def key(self, session: str) -> SessionKey:
        return SessionKey(APP, f"strands:data:{USER}", session)

    def to_events(self, message: Message) -> object:
        return self._parts(message)

    def _parts(self, message: Message) -> Any:
        return self._storage._parts(_bytes(message))  # noqa: SLF001

    def from_events(self, stored: Sequence[Event]) -> object:  # noqa: ARG002 - it is state
        parts = [text for text in self._state.values() if isinstance(text, str)]
        return json.loads(b64decode("".join(parts)))

    async def bare_append(
        self,
        session: str,
        events: Sequence[Event],  # noqa: ARG002 - it is state
    ) -> None:
        await self.service.update_session_state(self.key(session), self._state)

    async def bare_read(self, session: str) -> int:
        found = await self.service.get_session(self.key(session), num_recent_events=0)
        return _MESSAGES if found is not None and found.state else 0


class OnFiles(OnFile, Bytes):
    """``LocalFileStorage``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.storage = LocalFileStorage(str(self.file.parent))


class InMemory(base.InMemory, Bytes):
    """``InMemoryStorage``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.storage = InMemoryStorage()


def _bytes(message: Message) -> bytes:
    return json.dumps([{"role": "user", "content": [{"text": message.text}]}] * _MESSAGES).encode()


if __name__ == "__main__":
    serve(Ours, {"LocalFileStorage": OnFiles, "InMemoryStorage": InMemory})
