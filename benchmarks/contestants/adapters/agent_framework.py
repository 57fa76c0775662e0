"""agent-framework: ``HistoryProvider`` beside ``FileHistoryProvider``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent_framework import Content, FileHistoryProvider
from agent_framework import Message as Said

from agentsession import Event
from agentsession.adapters import agent_framework
from benchmarks.cases import Setup
from benchmarks.contestants.adapters.base import Adapter, OnFile, Store, serve
from benchmarks.driver import APP, USER
from benchmarks.messages import Message


class History(Store):
    """A history provider."""

    provider: Any

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        await self.provider.save_messages(session, [_message(message) for message in messages])

    async def read(self, session: str) -> int:
        return len(await self.provider.get_messages(session))


class Ours(Adapter, History):
    """``HistoryProvider`` of this project."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.provider = agent_framework.HistoryProvider(self.service, app_name=APP, user_id=USER)

    async def create(self, session: str) -> None:
        await self.service.create_session(self.key(session))

    def to_events(self, message: Message) -> object:
        events = agent_framework._events([_message(message)])  # noqa: SLF001
        # The digests by which it knows what is stored already.
        return agent_framework._said_in(events)  # noqa: SLF001

    def from_events(self, stored: Sequence[Event]) -> object:
        return [each for event in stored for each in agent_framework._messages(event, [])]  # noqa: SLF001


class OnFiles(OnFile, History):
    """``FileHistoryProvider``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.provider = FileHistoryProvider(self.file.parent)


def _message(message: Message) -> Said:
    return Said("user", [Content.from_text(message.text)])


if __name__ == "__main__":
    serve(Ours, {"FileHistoryProvider": OnFiles})
