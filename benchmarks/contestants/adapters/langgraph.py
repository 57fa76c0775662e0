"""langgraph: ``Checkpointer`` beside ``AsyncSqliteSaver`` and ``AsyncRedisSaver``.

A checkpoint holds the 20 messages of its thread, and each append is one that has changed them: the
framework stores the whole list again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver

from agentsession import Event, SessionKey
from agentsession.adapters._langgraph import checkpoints, objects, records
from agentsession.adapters._langgraph.access import Access
from agentsession.adapters.langgraph import Checkpointer
from benchmarks.cases import Setup
from benchmarks.contestants.adapters import base
from benchmarks.contestants.adapters.base import Adapter, OnFile, Store, serve
from benchmarks.driver import APP
from benchmarks.messages import Message

_MESSAGES = 20
_METADATA = {"source": "loop", "step": 1, "parents": {}}


class Saver(Store):
    """A saver, and the last checkpoint of each thread."""

    saver: Any

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._configs: dict[str, Any] = {}
        self._versions: dict[str, Any] = {}

    async def create(self, session: str) -> None:
        self._configs[session] = _config(session)

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        before = self._versions.get(session)
        version = self._versions[session] = self.saver.get_next_version(before, None)
        checkpoint = _checkpoint(messages[0], version)
        self._configs[session] = await self.saver.aput(
            self._configs[session], checkpoint, _METADATA, {"messages": version}
        )

    async def read(self, session: str) -> int:
        found = await self.saver.aget_tuple(_config(session))
        return len(found.checkpoint["channel_values"]["messages"])


class Ours(Adapter, Saver):
    """``Checkpointer``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.saver = Checkpointer(self.service, app_name=APP)
        self._loaded: Any = None

    def key(self, session: str) -> SessionKey:
        return SessionKey(APP, session, session)

    async def seed(self, sessions: Sequence[str]) -> None:
        await super().seed(sessions)
        access = Access(self.key, APP)
        self._loaded = await checkpoints.get(self.service, access, sessions[0], "", "")

    def to_events(self, message: Message) -> object:
        version = self.saver.get_next_version(None, None)
        checkpoint: Any = _checkpoint(message, version)
        metadata: Any = _METADATA
        serde = self.saver.serde
        new = objects.new_checkpoint(
            serde, _config("thread"), checkpoint, metadata, {"messages": version}
        )
        slots = {name: records.Slot(*packed) for name, packed in new.changed.items()}
        record = records.CheckpointRecord(new.checkpoint, new.metadata, channels=slots)
        return records.to_events(
            new.checkpoint_id, "checkpoint", record, self.service.max_event_size
        )

    def from_events(self, stored: Sequence[Event]) -> object:  # noqa: ARG002 - it is loaded
        record = records.joined(self._loaded.event, (), records.CheckpointRecord)
        return record, objects.tuple_of(self.saver.serde, self._loaded)

    async def bare_read(self, session: str) -> int:
        # What a checkpoint consists of is at the end of the log.
        found = await self.service.get_session(self.key(session), num_recent_events=_PIECES)
        return _MESSAGES if found is not None and len(found.events) == _PIECES else 0


# The checkpoint with the value that has changed, and the entry in the list of checkpoints.
_PIECES = 2


class OnSQLite(OnFile, Saver):
    """``AsyncSqliteSaver``."""

    def __init__(self, setup: Setup, url: str) -> None:
        import aiosqlite  # noqa: PLC0415 - only it needs this
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # noqa: PLC0415 - only it needs this

        super().__init__(setup, url)
        self._connection = aiosqlite.connect(self.file)
        self.saver = AsyncSqliteSaver(self._connection)

    async def aclose(self) -> None:
        await self._connection.close()
        await super().aclose()


class OnRedis(Saver):
    """``AsyncRedisSaver``, which needs the server's modules for JSON and search."""

    def __init__(self, setup: Setup, url: str) -> None:
        from langgraph.checkpoint.redis.aio import AsyncRedisSaver  # noqa: PLC0415 - only it needs this

        super().__init__(setup, url)
        self.saver = AsyncRedisSaver(url)

    async def seed(self, sessions: Sequence[str]) -> None:
        await self.saver.asetup()
        await super().seed(sessions)

    async def aclose(self) -> None:
        await self.saver.__aexit__(None, None, None)


class InMemory(base.InMemory, Saver):
    """``InMemorySaver``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.saver = InMemorySaver()


def _config(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def _checkpoint(message: Message, version: Any) -> Any:
    said = [HumanMessage(message.text, id=str(number)) for number in range(_MESSAGES)]
    return {
        **empty_checkpoint(),
        "channel_values": {"messages": said},
        "channel_versions": {"messages": version},
    }


if __name__ == "__main__":
    own: dict[str, type[Store]] = {
        "AsyncSqliteSaver": OnSQLite,
        "AsyncRedisSaver": OnRedis,
        "InMemorySaver": InMemory,
    }
    serve(Ours, own)
