"""Several who write to a conversation, and calls that are cut off."""

from __future__ import annotations

import copy
import pickle
import random
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("pydantic_ai")

import anyio
from pydantic_ai import Agent
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
)
from pydantic_ai.models.test import TestModel

from adapters.alone.pydantic_ai.conversing import (
    KEY,
    asked,
    in_the_log,
    said_in,
    saved,
    store_of,
    talk,
    words,
)
from agentsession import Event, SessionKey, SessionService, open_service
from agentsession.adapters.pydantic_ai import ConversationStore
from harness.proxy import proxied


async def test_twelve_who_save_at_once(service: SessionService) -> None:
    """Each of them loads and saves until it is let through: all is there, once."""
    rounds = 4

    async def write(name: int) -> None:
        store = store_of(service)
        for number in range(rounds):
            while True:
                conversation = await store.load("chat") or Conversation(conversation_id="chat")
                conversation.messages += talk(f"{name} {number}", "yes")
                try:
                    await store.save(conversation)
                except ConversationConflict:
                    continue
                break

    async with anyio.create_task_group() as group:
        for name in range(12):
            group.start_soon(write, name)
    said = await said_in(store_of(service))
    assert said is not None
    assert said[1::2] == ["yes"] * 12 * rounds
    questions = said[::2]
    assert sorted(questions) == sorted(f"{a} {b}" for a in range(12) for b in range(rounds))
    for name in range(12):
        own = [each for each in questions if each.startswith(f"{name} ")]
        assert own == [f"{name} {number}" for number in range(rounds)]


async def test_state_that_changes_meanwhile_is_no_conflict(
    store: ConversationStore, service: SessionService
) -> None:
    """What an application keeps beside the conversation is its own business."""
    conversation = await saved(store, "chat", "a", "b")
    record = await store.read_record("chat")
    assert record is not None
    await service.update_session_state(KEY, {"cart": 1})
    # What was read is older than the change: the save has to look again.
    entry = ConversationEntry(parent_id=record.head_id, message=asked("c"))
    update = replace(record, head_id=entry.id, revision="new")
    await store.write_record(update, new_entries=[entry], expected_revision=conversation.revision)
    assert await said_in(store) == list("abc")
    session = await service.get_session(KEY)
    assert session is not None
    assert session.state["cart"] == 1


async def test_what_comes_between_is_seen(
    store: ConversationStore, service: SessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a conversation and the write: a change of state, and an event."""
    conversation = await saved(store, "chat", "a", "b")
    append, between = service.append_events, [{"cart": 1}]

    async def after_others(*args: Any, **how: Any) -> Any:
        if between:
            await service.update_session_state(KEY, between.pop())
        return await append(*args, **how)

    monkeypatch.setattr(service, "append_events", after_others)
    conversation.messages += talk("c")
    await store.save(conversation)
    between.append({"cart": 2})
    await store.delete_record("chat", expected_revision=str(conversation.revision))
    assert await service.get_session(KEY) is None

    get_or_create = service.get_or_create_session

    async def after_another(key: SessionKey, **how: Any) -> Any:
        await get_or_create(key)
        await append(key, [Event(author="user", content="first")])
        return await get_or_create(key, **how)

    monkeypatch.setattr(service, "get_or_create_session", after_another)
    with pytest.raises(ConversationConflict):
        await saved(store, "chat", "a", "b")
    assert await said_in(store) == ["first"]


async def test_a_conversation_that_is_deleted_while_it_is_branched(
    store: ConversationStore, service: SessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a conflict, and makes no other one."""
    conversation = await saved(store, "chat", *"abcd")
    await store.branch("chat", at=2, expected_revision=conversation.revision)
    record = await store.read_record("chat")
    assert record is not None
    record.head_id, get_events = record.branches[0], service.get_events

    async def deleted_first(*args: Any, **how: Any) -> Any:
        await service.delete_session(KEY)
        return await get_events(*args, **how)

    monkeypatch.setattr(service, "get_events", deleted_first)
    with pytest.raises(ConversationConflict):
        await store.write_record(record, expected_revision=record.revision)
    assert await service.get_session(KEY) is None


async def test_a_cancelled_save_is_whole_or_not_at_all(service: SessionService) -> None:
    """Wherever it is cut off; what was loaded before can tell."""
    store = store_of(service)
    conversation = await saved(store, "chat", "a", "b")
    dice = random.Random(7)
    for number in range(30):
        loaded = await store.load("chat")
        assert loaded is not None
        before = words(loaded.messages)
        new = [f"q {number}", f"a {number}"]
        loaded.messages += talk(*new)
        with anyio.move_on_after(dice.random() * 0.002):
            await store.save(loaded)
        assert await said_in(store) in (before, before + new)
    del conversation


async def test_a_reply_that_is_lost(valkey_url: str, store_prefix: str) -> None:
    """A save whose reply does not come is made again, and there once."""
    async with (
        proxied(valkey_url) as proxy,
        open_service(proxy.url, key_prefix=store_prefix, session_event_limit=None) as service,
    ):
        store = store_of(service)
        await saved(store, "chat", "a")
        for number, text in enumerate("bcd", 1):
            record = await store.read_record("chat")
            assert record is not None
            entry = ConversationEntry(parent_id=record.head_id, message=asked(text))
            update = ConversationRecord(conversation_id="chat", head_id=entry.id)
            proxy.lose_replies = 1
            await store.write_record(update, new_entries=[entry], expected_revision=record.revision)
            assert proxy.lost_replies == number
            assert (await store.read_record("chat")).revision == update.revision  # type: ignore[union-attr]
        assert await said_in(store) == list("abcd")
        assert await in_the_log(service) == list("abcd")


async def test_how_often_the_server_is_asked(valkey_url: str, store_prefix: str) -> None:
    """Loading takes one round trip; saving what was loaded or saved one, what is new four."""
    async with (
        proxied(valkey_url) as proxy,
        open_service(proxy.url, key_prefix=store_prefix, session_event_limit=None) as service,
    ):
        store = store_of(service)
        await saved(store, "other", "a")  # So that the server has its scripts.
        asked_before = proxy.round_trips

        def round_trips() -> int:
            nonlocal asked_before
            asked_before, before = proxy.round_trips, asked_before
            return asked_before - before

        await saved(store, "chat", "a", "b")
        assert round_trips() == 4
        loaded = await store.load("chat")
        assert loaded is not None
        assert round_trips() == 1
        result = await Agent(TestModel()).run("c", conversation=loaded)
        await store.save(result)
        assert round_trips() == 1
        conversation = result.conversation
        for number in range(3):
            conversation.messages += talk(f"d{number}")
            await store.save(conversation)
            assert round_trips() == 1
        for limit in (1, 3, 100):
            window = await store.load("chat", limit=limit)
            assert round_trips() == 1
            entries = await store.load_entries("chat", limit=limit)
            assert round_trips() == 1
            assert window is not None
            assert entries is not None
            assert [entry.message for entry in entries] == window.messages
            assert window.messages == conversation.messages[-limit:]
        branch = await store.branch("chat", at=1, expected_revision=conversation.revision)
        round_trips()
        branch.messages += talk("e")
        await store.save(branch)
        assert round_trips() == 1
        assert pickle.loads(pickle.dumps(loaded.revision)) == loaded.revision
        assert type(copy.deepcopy(loaded.revision)) is str


async def test_a_rewritten_history_that_has_changed_meanwhile(store: ConversationStore) -> None:
    """What is compared with it is gone, or is another one: a conflict, and nothing stored."""
    for deleted in (True, False):
        await saved(store, "chat", *"abcd")
        loaded = await store.load("chat")
        assert loaded is not None
        await store.delete("chat")
        if not deleted:
            await saved(store, "chat", "x")
        loaded.messages[1:] = talk("z")
        with pytest.raises(ConversationConflict):
            await store.save(loaded)
        assert await said_in(store) == (None if deleted else ["x"])
