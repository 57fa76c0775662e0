"""Limits and damage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationEntry, ConversationRecord

from adapters.alone.pydantic_ai.conversing import KEY, asked, said_in, saved, store_of, talk, words
from agentsession import Event, SessionKey, SessionService, codec, open_service
from agentsession.adapters.pydantic_ai import ConversationStore
from agentsession.errors import CodecError, EventTooLargeError


async def test_long_conversations(store_url: str, store_prefix: str) -> None:
    """Of more messages, and more bytes, than one read returns."""
    async with open_service(
        store_url, key_prefix=store_prefix, session_event_limit=None, max_read_size=1 << 20
    ) as service:
        store = store_of(service)
        conversation = Conversation(conversation_id="chat")
        said: list[str] = []
        for part in range(3):
            said += [f"{part} {n} {'x' * 900 * part}" for n in range(500)]
            conversation.messages = conversation.messages + talk(*said[-500:])
            await store.save(conversation)
        assert await said_in(store) == said
        record = await store.read_record("chat")
        assert record is not None
        branch = await store.branch("chat", at=2, expected_revision=record.revision)
        assert words(branch.messages) == said[:2]
        fork = await store.fork("chat", new_conversation_id="fork")
        assert len(fork.messages) == 2
        branch.messages += talk(*["y"] * 1001)
        with pytest.raises(ValueError, match="fewer new messages at first"):
            await store.save(branch)
        entries = [ConversationEntry(parent_id=record.head_id, message=asked("y"))]
        for _ in range(1000):
            entries.append(replace(entries[0], id=uuid4().hex, parent_id=entries[-1].id))
        with pytest.raises(ValueError, match="'large'"):
            await store.write_record(
                ConversationRecord(conversation_id="large", head_id=entries[-1].id),
                new_entries=entries,
                expected_revision=None,
            )
        assert await store.load("large") is None
        assert await said_in(store) == said[:2]


async def test_messages_that_were_trimmed(store_url: str, store_prefix: str) -> None:
    """The history begins with what is left; it is gone on with, rewritten and forked."""
    async with open_service(store_url, key_prefix=store_prefix, session_event_limit=10) as service:
        store = store_of(service)
        conversation = await saved(store, "chat", "0", "0")
        first = await store.load_entries("chat")
        for turn in range(1, 12):
            conversation.messages += talk(str(turn), str(turn))
            await store.save(conversation)
        assert await said_in(store) == [str(turn) for turn in range(7, 12) for _ in "ab"]
        entries = await store.load_entries("chat")
        assert entries is not None
        assert first is not None
        assert entries[0].parent_id is None
        for gone in (first[0].id, str(first[0].id)):
            with pytest.raises(LookupError):
                await store.read_entry(gone)
        fork = await store.fork("chat", at=4)
        assert await said_in(store, fork.conversation_id) == ["7", "7", "8", "8"]
        rewritten = Conversation(
            conversation_id="chat", messages=talk("new", "new"), revision=conversation.revision
        )
        await store.save(rewritten)
        assert await said_in(store) == ["new", "new"]


async def test_what_is_too_large_is_refused(
    store: ConversationStore, service: SessionService
) -> None:
    """And nothing is stored, also if it is one message of several."""
    conversation = await saved(store, "chat", "a", "b")
    conversation.messages += talk("c", "x" * service.max_event_size)
    with pytest.raises(EventTooLargeError):
        await store.save(conversation)
    with pytest.raises(EventTooLargeError):
        await saved(store, "new", "c", "x" * service.max_event_size)
    assert await said_in(store) == ["a", "b"]
    assert await store.load("new") is None
    assert len(await store.list_conversations()) == 1
    await saved(store, "new", "c")


async def test_what_cannot_be_read_says_so(
    store: ConversationStore, service: SessionService
) -> None:
    """A record, and a message, that something has damaged."""
    await saved(store, "chat", "a", "b")
    await saved(store, "good", "x")
    for damage in ("nonsense", {"last_seq": 3, "record": {"head_id": 3}}):
        await service.update_session_state(KEY, {"pydantic_ai": damage})
        with pytest.raises(CodecError, match=r"'chat'.*no record of Pydantic AI"):
            await store.load("chat")
    assert [each.conversation_id for each in await store.list_conversations()] == ["good"]
    damaged = Event(
        author="user", metadata={"pydantic_ai": {"id": "e", "message": {"kind": "none"}}}
    )
    await service.append_event(SessionKey("app", "user", "good"), damaged)
    with pytest.raises(CodecError, match="message of Pydantic AI cannot be read"):
        await store.load("good")


async def test_an_event_of_a_later_version_says_so(
    service: SessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not left out of the history as if it had not been said."""
    store = store_of(service)
    conversation = await saved(store, "chat", "a", "b")
    with monkeypatch.context() as patched:
        patched.setattr(codec, "decode_events", unreadable)
        patched.setattr(codec, "decode_event", unreadable)
        with pytest.raises(CodecError, match="event 2 cannot be read"):
            await store.load("chat")
    assert await said_in(store) == words(conversation.messages)


def unreadable(*_: Any) -> Any:
    raise ValueError
