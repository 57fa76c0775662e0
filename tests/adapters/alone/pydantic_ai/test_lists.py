"""Lists, entries and deletes."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
)
from pydantic_ai.exceptions import UserError

from adapters.alone.pydantic_ai.conversing import KEY, asked, said_in, saved, store_of, talk
from agentsession import Event, SessionKey, SessionService
from agentsession.adapters._pydantic_ai import conversations
from agentsession.adapters.pydantic_ai import ConversationStore
from agentsession.errors import BackendUnavailableError


async def test_the_one_saved_last_is_listed_first(store: ConversationStore) -> None:
    """By the time of the save, and not more than asked for."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in (3, 1, 4, 0, 2):
        record = ConversationRecord(
            conversation_id=str(number),
            head_id=None,
            updated_at=start + timedelta(minutes=number),
            scope="odd" if number % 2 else None,
        )
        await store.write_record(record, expected_revision=None)

    async def listed(**how: Any) -> list[str]:
        return [each.conversation_id for each in await store.list_conversations(**how)]

    assert await listed() == ["4", "3", "2", "1", "0"]
    assert await listed(limit=2) == ["4", "3"]
    assert await listed(limit=0) == []
    assert await listed(limit=9, scope="odd") == ["3", "1"]
    assert await listed(scope="none") == []
    with pytest.raises(UserError, match="negative"):
        await listed(limit=-1)


async def test_many_conversations(
    store: ConversationStore, service: SessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of sessions hide none of them, whoever has written to them, and whatever is deleted."""
    monkeypatch.setattr(conversations, "PAGE", 3)
    monkeypatch.setattr("agentsession.adapters.pydantic_ai.PAGE", 3)
    for number in range(20):
        await saved(store, f"{number}", "a")
        other = SessionKey("app", "user", f"other {number}")
        await service.create_session(other)
        await service.append_event(other, Event(author="user", content="x"))
    listed = [each.conversation_id for each in await store.list_conversations()]
    assert listed == [name for n in reversed(range(20)) for name in (f"other {n}", f"{n}")]
    assert [e.conversation_id for e in await store.list_conversations(limit=5)] == listed[:5]


async def test_sessions_that_go_while_they_are_read(
    store: ConversationStore, service: SessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not there, rather than an error."""
    for name in ("chat", "other"):
        await service.create_session(SessionKey("app", "user", name))
        await service.append_event(SessionKey("app", "user", name), Event(author="u", content="x"))
    get_events = service.get_events

    async def deleted_first(session: Any, **how: Any) -> Any:
        await service.delete_session(KEY)
        return await get_events(session, **how)

    with monkeypatch.context() as patched:
        patched.setattr(service, "get_events", deleted_first)
        assert [each.conversation_id for each in await store.list_conversations()] == ["other"]
    await service.create_session(KEY)
    await service.append_event(KEY, Event(author="user", content="x"))
    monkeypatch.setattr(service, "get_events", deleted_first)
    assert await store.read_record("chat") is None


async def test_ids_that_are_plain_strings(store: ConversationStore) -> None:
    """An entry is found by its id alone, in a history and in a branch that was left."""
    conversation = await saved(store, "chat", *"abcd")
    for number in range(20):
        await saved(store, f"other {number}", "x")
    entries = await store.load_entries("chat")
    assert entries is not None
    await store.branch("chat", at=1, expected_revision=conversation.revision)
    for entry in entries:
        for entry_id in (str(entry.id), pickle.loads(pickle.dumps(entry.id)), entry.id):
            assert await store.read_entry(entry_id) == entry
        assert type(copy.deepcopy(entry.id)) is str
    assert await store.read_history(str(entries[2].id)) == entries[:3]
    for missing in ("none", "", "none#1"):
        with pytest.raises(LookupError):
            await store.read_entry(missing)
    assert await store.read_history(None) == []


async def test_a_record_of_nowhere_is_refused(store: ConversationStore) -> None:
    """A head that is not stored is a conflict; entries that are no chain are a mistake."""
    missing = ConversationRecord(conversation_id="chat", head_id="none")
    with pytest.raises(ConversationConflict):
        await store.write_record(missing, expected_revision=None)
    one = ConversationEntry(parent_id=None, message=asked("a"))
    two = ConversationEntry(parent_id=None, message=asked("b"))
    for head in (one.id, two.id):
        record = ConversationRecord(conversation_id="chat", head_id=head)
        with pytest.raises(ValueError, match="must follow one after the other"):
            await store.write_record(record, new_entries=[one, two], expected_revision=None)
    assert await store.load("chat") is None
    assert await store.list_conversations() == []


async def test_an_entry_is_not_stored_twice(store: ConversationStore) -> None:
    """An id that is used is said to be, and not taken for a repeat."""
    conversation = await saved(store, "chat", "a", "b")
    one, two = await store.load_entries("chat") or []
    for parent in (two.id, one.id, None):
        again = ConversationEntry(id=str(two.id), parent_id=parent, message=asked("c"))
        with pytest.raises(ValueError, match="is stored already"):
            await store.write_record(
                ConversationRecord(conversation_id="chat", head_id=again.id),
                new_entries=[again],
                expected_revision=conversation.revision,
            )
    assert await said_in(store) == ["a", "b"]


async def test_a_delete_is_of_the_revision_that_was_read(
    store: ConversationStore, service: SessionService
) -> None:
    """What was saved since is not deleted by whoever has not seen it."""
    conversation = await saved(store, "chat", "a", "b")
    before = str(conversation.revision)
    conversation.messages += talk("c")
    await store.save(conversation)
    with pytest.raises(ConversationConflict):
        await store.delete_record("chat", expected_revision=before)
    assert await said_in(store) == list("abc")
    await service.update_session_state(KEY, {"cart": 1})
    await store.delete_record("chat", expected_revision=str(conversation.revision))
    with pytest.raises(ConversationConflict):
        await store.delete_record("chat", expected_revision=str(conversation.revision))
    assert await service.get_session(KEY) is None
    await store.delete("chat")


async def test_what_is_saved_during_a_delete_stays(
    store: ConversationStore, service: SessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever deletes has not seen it; then the framework looks again, and deletes what it saw."""
    conversation = await saved(store, "chat", "a", "b")
    before, append = str(conversation.revision), service.append_events

    async def after_a_save(*args: Any, **how: Any) -> Any:
        monkeypatch.setattr(service, "append_events", append)
        conversation.messages += talk("c")
        await store.save(conversation)
        return await append(*args, **how)

    monkeypatch.setattr(service, "append_events", after_a_save)
    with pytest.raises(ConversationConflict):
        await store.delete_record("chat", expected_revision=before)
    assert await said_in(store) == list("abc")
    monkeypatch.setattr(service, "append_events", after_a_save)
    await store.delete("chat")
    assert await service.get_session(KEY) is None


@pytest.mark.parametrize("look", [True, False])
async def test_a_delete_that_was_cut_off_is_finished(
    service: SessionService, monkeypatch: pytest.MonkeyPatch, *, look: bool
) -> None:
    """After its first step the conversation is gone for everybody; the next who looks erases it."""
    store = store_of(service)
    await saved(store, "chat", "secret", "b")

    async def fail(*_: Any) -> None:
        raise BackendUnavailableError(KEY, "cut off")

    with monkeypatch.context() as patched:
        patched.setattr(service, "delete_session", fail)
        with pytest.raises(BackendUnavailableError):
            await store.delete("chat")
    session = await service.get_session(KEY)
    assert session is not None
    assert [event for event in session.events if event.content] == []
    assert await store.list_conversations() == []
    record = ConversationRecord(conversation_id="chat", head_id=None)
    if look:
        assert await store.load("chat") is None
        assert await service.get_session(KEY) is None
    await store.write_record(record, expected_revision=None)
    assert await said_in(store) == []
    assert [event.text for event in await service.get_events(KEY, raw=True)] == [""]


async def test_what_comes_after_a_cut_off_delete_is_there(
    service: SessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes to the session then begins a new conversation in it."""
    store = store_of(service)
    await saved(store, "chat", "secret", "b", scope="ada")

    async def fail(*_: Any) -> None:
        raise BackendUnavailableError(KEY, "cut off")

    with monkeypatch.context() as patched:
        patched.setattr(service, "delete_session", fail)
        with pytest.raises(BackendUnavailableError):
            await store.delete("chat")
    await service.append_event(KEY, Event(author="user", content="new"))
    assert await said_in(store) == ["new"]
    record = await store.read_record("chat")
    assert record is not None
    assert record.scope is None
