"""Conversations as the tests write and read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationStore as AnyStore
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.usage import RunUsage

from agentsession import SessionKey, SessionService, blocking
from agentsession.adapters.pydantic_ai import ConversationStore

KEY = SessionKey("app", "user", "chat")


def store_of(service: SessionService | blocking.BlockingSessionService) -> ConversationStore:
    return ConversationStore(service, app_name="app", user_id="user")


def asked(text: str) -> ModelMessage:
    return ModelRequest([UserPromptPart(text)])


def answered(text: str) -> ModelMessage:
    return ModelResponse([TextPart(text)])


def talk(*words: str) -> list[ModelMessage]:
    """Questions and answers, in turn."""
    return [answered(text) if n % 2 else asked(text) for n, text in enumerate(words)]


def words(messages: Sequence[ModelMessage]) -> list[Any]:
    return [part.content for message in messages for part in message.parts]  # type: ignore[union-attr]


async def saved(store: AnyStore, conversation_id: str, *said: str, **more: Any) -> Conversation:
    """A conversation with these words, saved anew."""
    conversation = Conversation(
        conversation_id=conversation_id, messages=talk(*said), usage=RunUsage(requests=1)
    )
    await store.save(conversation, **more)
    return conversation


async def said_in(store: AnyStore, conversation_id: str = "chat") -> list[Any] | None:
    conversation = await store.load(conversation_id)
    return None if conversation is None else words(conversation.messages)


async def in_the_log(service: SessionService, key: SessionKey = KEY) -> list[str]:
    return [event.text for event in await service.get_events(key, limit=1000) if event.content]
