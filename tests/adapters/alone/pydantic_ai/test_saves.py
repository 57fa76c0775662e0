"""What is saved, and comes back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai.conversation import Conversation, ConversationTypeAdapter
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.usage import RunUsage

from adapters.alone.pydantic_ai.conversing import (
    KEY,
    asked,
    in_the_log,
    said_in,
    saved,
    talk,
    words,
)
from agentsession import Event, SessionService
from agentsession.adapters._pydantic_ai.entries import EntryId
from agentsession.adapters.pydantic_ai import ConversationStore


async def test_each_message_is_stored_once(
    store: ConversationStore, service: SessionService
) -> None:
    """A save appends what is new, and says what it stored."""
    conversation = await saved(store, "chat", "a", "b")
    first = conversation.revision
    assert first == (await store.read_record("chat")).revision  # type: ignore[union-attr]
    conversation.messages += talk("c", "d")
    entries = await store.save(conversation)
    assert conversation.revision != first
    assert words([entry.message for entry in entries]) == ["c", "d"]
    assert await store.load_entries("chat", limit=2) == entries
    assert await store.save(conversation) == []
    assert await in_the_log(service) == ["a", "b", "c", "d"]


async def test_the_record_comes_back_as_it_was(store: ConversationStore) -> None:
    """Every field, to the microsecond."""
    usage = RunUsage(requests=3, input_tokens=5, details={"reasoning": 7})
    record = ConversationRecord(
        conversation_id="chat",
        head_id="e",
        usage=usage,
        scope="channel",
        forked_from="other",
        forked_at="x",
        updated_at=datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    )
    entry = ConversationEntry(id="e", parent_id=None, message=asked("a"))
    await store.write_record(record, new_entries=[entry], expected_revision=None)
    assert await store.read_record("chat") == record
    assert await store.read_records() == [record]


async def test_what_comes_out_is_not_shared(store: ConversationStore) -> None:
    """Who changes what was loaded, or saved, changes nothing that is stored."""
    conversation = await saved(store, "chat", "a", "b")
    conversation.messages.clear()
    loaded = await store.load("chat")
    assert loaded is not None
    loaded.usage.requests = 99
    loaded.messages.clear()
    again = await store.load("chat")
    assert again is not None
    assert (words(again.messages), again.usage.requests) == (["a", "b"], 1)


async def test_an_id_holds_nothing_of_what_is_saved_later(store: ConversationStore) -> None:
    """Who keeps ids keeps no events with them."""
    await saved(store, "chat", "a", "b")
    record = await store.read_record("chat")
    assert record is not None
    head = record.head_id
    assert isinstance(head, EntryId)
    entry = ConversationEntry(parent_id=head, message=asked("c"))
    update = ConversationRecord(conversation_id="chat", head_id=entry.id)
    await store.write_record(update, new_entries=[entry], expected_revision=record.revision)
    assert (head.seen.session.events, head.seen.session.state) == ([], {})


async def test_a_conversation_without_messages(store: ConversationStore) -> None:
    """It is a conversation as any other: its record is stored alone."""
    await saved(store, "chat")
    loaded = await store.load("chat")
    assert loaded is not None
    assert loaded.messages == []
    loaded.messages += talk("a", "b")
    await store.save(loaded)
    assert await said_in(store) == ["a", "b"]
    assert await store.load("none") is None
    assert await store.load_entries("none") is None


async def test_usage_alone_is_saved(store: ConversationStore, service: SessionService) -> None:
    """A save without new messages shows nothing new to readers of the log."""
    conversation = await saved(store, "chat", "a", "b")
    conversation.usage.requests = 5
    await store.save(conversation)
    loaded = await store.load("chat")
    assert loaded is not None
    assert loaded.usage.requests == 5
    loaded.messages += talk("c")
    await store.save(loaded)
    assert await in_the_log(service) == ["a", "b", "c"]
    assert [event.text for event in await service.get_history(KEY)] == ["a", "b", "c"]


async def test_a_stale_conversation_is_refused_whole(
    store: ConversationStore, service: SessionService
) -> None:
    """Nothing of it is stored, whatever it is: older, new under a used id, deleted, made anew."""
    await saved(store, "chat", "a", "b")
    one, two = await store.load("chat"), await store.load("chat")
    assert one is not None
    assert two is not None
    one.messages += talk("c")
    two.messages += talk("d")
    await store.save(one)
    for stale in (two, Conversation(conversation_id="chat", messages=talk("e"))):
        with pytest.raises(ConversationConflict) as refused:
            await store.save(stale)
        assert refused.value.conversation_id == "chat"
    assert await in_the_log(service) == ["a", "b", "c"]
    await store.delete("chat")
    with pytest.raises(ConversationConflict):
        await store.save(one)
    assert await store.load("chat") is None
    await saved(store, "chat", "f")
    with pytest.raises(ConversationConflict):
        await store.save(one)
    assert await in_the_log(service) == ["f"]


@pytest.mark.parametrize("branches", [False, True], ids=["appends", "branches"])
async def test_what_comes_right_behind_a_save_is_a_conflict(
    store: ConversationStore,
    service: SessionService,
    monkeypatch: pytest.MonkeyPatch,
    branches: bool,
) -> None:
    """What was saved is known, but not that somebody has written before its writer could look."""
    conversation = await saved(store, "chat", "a", "b")
    backend_append = service.backend.append

    async def with_another(*args: Any, **how: Any) -> Any:
        monkeypatch.undo()
        receipt = await backend_append(*args, **how)
        await service.append_event(KEY, Event(author="user", content="theirs"))
        return receipt

    conversation.messages[branches:] = talk("c", "d")
    monkeypatch.setattr(service.backend, "append", with_another)
    conversation.new_message_index = None
    await store.save(conversation)
    conversation.messages += talk("e")
    with pytest.raises(ConversationConflict):
        await store.save(conversation)
    assert (await in_the_log(service))[-2:] == ["d", "theirs"]


async def test_a_window_reaches_over_what_shows_nothing(
    store: ConversationStore, service: SessionService
) -> None:
    """Saves of usage alone, and a branch that was left, take room in the log."""
    conversation = await saved(store, "chat", *"abcd")
    branch = await store.branch("chat", at=3, expected_revision=conversation.revision)
    branch.messages += talk("e")
    for _ in range(5):
        await store.save(branch)
    assert await said_in(store) == ["a", "b", "c", "e"]
    entries = await store.load_entries("chat")
    assert entries is not None
    for limit in range(6):
        window = await store.load_entries("chat", limit=limit)
        assert window == entries[len(entries) - min(limit, 4) :]
    await service.append_event(KEY, Event(author="user", content="theirs"))
    window = await store.load_entries("chat", limit=2)
    assert window is not None
    assert words([entry.message for entry in window]) == ["e", "theirs"]
    assert window[0].parent_id == entries[2].id


async def test_of_two_who_write_at_once_one_is_refused(
    store: ConversationStore, service: SessionService
) -> None:
    """Also after both have found the conversation unchanged, and with the very same record."""
    record = ConversationRecord(conversation_id="chat", head_id=None)
    await store.write_record(record, expected_revision=None)
    with pytest.raises(ConversationConflict):
        await store.write_record(record, expected_revision=None)
    stored = await store.read_record("chat")
    assert stored is not None
    for number, text in enumerate("ab"):
        entry = ConversationEntry(parent_id=stored.head_id, message=asked(text))
        update = ConversationRecord(conversation_id="chat", head_id=entry.id)
        write = store.write_record(update, new_entries=[entry], expected_revision=stored.revision)
        if number:
            with pytest.raises(ConversationConflict):
                await write
        else:
            await write
    assert await in_the_log(service) == ["a"]


async def test_a_record_can_be_changed_in_place(store: ConversationStore) -> None:
    """Whoever writes records himself may keep the revision."""
    await saved(store, "chat", "a", "b")
    for number in range(3):
        record = await store.read_record("chat")
        assert record is not None
        record.usage.requests = number
        await store.write_record(record, expected_revision=record.revision)
        stored = await store.read_record("chat")
        assert stored is not None
        assert stored.usage.requests == number


async def test_scopes_keep_conversations_apart(store: ConversationStore) -> None:
    """A conversation of another scope is one that is not there, for reading and for writing."""
    await saved(store, "chat", "a", "b", scope="ada")
    assert await store.load("chat", scope="bob") is None
    assert await store.load_entries("chat", scope="bob") is None
    await store.delete("chat", scope="bob")
    loaded = await store.load("chat", scope="ada")
    assert loaded is not None
    loaded.messages += talk("c")
    with pytest.raises(ConversationConflict):
        await store.save(loaded, scope="bob")
    with pytest.raises(UserError, match="not in the store"):
        await store.branch("chat", at=0, expected_revision=loaded.revision, scope="bob")
    with pytest.raises(UserError, match="not in the store"):
        await store.fork("chat", source_scope="bob")
    await store.save(loaded)
    record = await store.read_record("chat")
    assert record is not None
    assert record.scope == "ada"
    fork = await store.fork("chat")
    assert await said_in(store, fork.conversation_id) == ["a", "b", "c"]
    assert len(await store.list_conversations(scope="ada")) == 2
    await store.fork("chat", new_conversation_id="bobs", scope="bob")
    assert [each.conversation_id for each in await store.list_conversations(scope="bob")] == [
        "bobs"
    ]


async def test_a_window_is_saved_to_the_whole(store: ConversationStore) -> None:
    """A conversation of which the end was loaded is added to, not replaced by the window."""
    await saved(store, "chat", *"abcdef")
    for limit in range(8):
        entries = await store.load_entries("chat", limit=limit)
        assert entries is not None
        assert words([entry.message for entry in entries]) == list("abcdef")[6 - min(limit, 6) :]
        if limit and entries:
            whole = await store.load_entries("chat")
            assert whole is not None
            assert entries == whole[-limit:], "also their ids, and the parent of the first"
    window = await store.load("chat", limit=2)
    assert window is not None
    window.messages += talk("g", "h")
    await store.save(window)
    assert await said_in(store) == list("abcdefgh")
    with pytest.raises(UserError, match="negative"):
        await store.load("chat", limit=-1)


async def test_a_window_that_was_serialized(store: ConversationStore) -> None:
    """Only the stored messages that it says it holds are compared; what differs is a branch."""
    await saved(store, "chat", *"abcdef")
    window = await store.load("chat", limit=3)
    assert window is not None
    window = ConversationTypeAdapter.validate_json(ConversationTypeAdapter.dump_json(window))
    window.messages[1] = asked("E")
    window.messages += talk("g")
    assert len(await store.save(window)) == 3
    assert await said_in(store) == ["a", "b", "c", "d", "E", "f", "g"]


async def test_a_rewritten_history_is_a_branch(
    store: ConversationStore, service: SessionService
) -> None:
    """As a compacted one: the log is the new history, and the old one can be gone back to."""
    conversation = await saved(store, "chat", *"abcdef")
    conversation.messages[:4] = talk("a, b, c and d", "I see")
    await store.save(conversation)
    assert await in_the_log(service) == ["a, b, c and d", "I see", "e", "f"]
    record = await store.read_record("chat")
    assert record is not None
    [tip] = record.branches
    assert words([each.message for each in await store.read_history(tip)]) == list("abcdef")
    back = await store.branch("chat", from_entry=tip, expected_revision=record.revision)
    assert words(back.messages) == list("abcdef") == await said_in(store)
    assert await in_the_log(service) == list("abcdef")
    record = await store.read_record("chat")
    assert record is not None
    assert len(record.branches) == 1
    conversation = Conversation(
        conversation_id="chat", messages=talk("a"), revision=record.revision
    )
    await store.save(conversation)
    assert await said_in(store) == ["a"]
