"""pydantic-ai: ``ConversationStore`` beside ``InMemoryConversationStore``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_ai import ModelRequest
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import InMemoryConversationStore

from agentsession import Event
from agentsession.adapters._pydantic_ai.to_events import events_of, own_of
from agentsession.adapters._pydantic_ai.to_messages import load_messages
from agentsession.adapters.pydantic_ai import ConversationStore
from agentsession.events import new_id
from benchmarks.cases import Setup
from benchmarks.contestants.adapters import base
from benchmarks.contestants.adapters.base import Adapter, Store, serve
from benchmarks.driver import APP, USER
from benchmarks.messages import Message


class Conversations(Store):
    """A store, and the conversations that are saved to it again and again."""

    conversations: Any

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._held: dict[str, Conversation] = {}

    async def create(self, session: str) -> None:
        self._held[session] = Conversation(conversation_id=session)

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        held = self._held[session]
        held.messages.extend(_request(message) for message in messages)
        await self.conversations.save(held)

    async def read(self, session: str) -> int:
        return len((await self.conversations.load(session)).messages)


class Ours(Adapter, Conversations):
    """``ConversationStore``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.conversations = ConversationStore(self.service, app_name=APP, user_id=USER)

    async def create(self, session: str) -> None:
        await self.service.create_session(self.key(session))
        await super().create(session)

    def to_events(self, message: Message) -> object:
        return events_of([(new_id(), _request(message))], "assistant")

    def from_events(self, stored: Sequence[Event]) -> object:
        return load_messages([own_of(event)["message"] for event in stored])


class InMemory(base.InMemory, Conversations):
    """``InMemoryConversationStore``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.conversations = InMemoryConversationStore()


def _request(message: Message) -> ModelRequest:
    return ModelRequest.user_text_prompt(message.text)


if __name__ == "__main__":
    serve(Ours, {"InMemoryConversationStore": InMemory})
