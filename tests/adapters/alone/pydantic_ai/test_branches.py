"""Histories that are rewritten, and conversations that are forked."""

from __future__ import annotations

import pytest

pytest.importorskip("pydantic_ai")

import anyio
from pydantic_ai import DeferredToolRequests
from pydantic_ai.conversation_store import ConversationConflict, ConversationRecord
from pydantic_ai.exceptions import UserError
from pydantic_ai.usage import RunUsage

from adapters.alone.pydantic_ai.conversing import (
    KEY,
    answered,
    in_the_log,
    said_in,
    saved,
    talk,
    words,
)
from agentsession import Event, SessionKey, SessionService
from agentsession.adapters.pydantic_ai import ConversationStore


async def test_an_answer_is_made_anew(store: ConversationStore, service: SessionService) -> None:
    """The history that is left stays, with its entries under their ids."""
    conversation = await saved(store, "chat", *"abcd")
    whole = await store.load_entries("chat")
    branch = await store.branch("chat", at=3, expected_revision=conversation.revision)
    assert words(branch.messages) == list("abc")
    branch.messages += [answered("D")]
    await store.save(branch)
    assert await in_the_log(service) == ["a", "b", "c", "D"]
    record = await store.read_record("chat")
    assert record is not None
    assert whole is not None
    assert record.branches == [whole[-1].id]
    assert await store.read_history(record.branches[0]) == whole
    # A string, as it comes from a database, will do.
    back = await store.branch(
        "chat", from_entry=str(whole[-1].id), expected_revision=record.revision
    )
    assert await store.load_entries("chat") == whole
    assert await in_the_log(service) == list("abcd")
    back.messages += talk("e")
    await store.save(back)
    record = await store.read_record("chat")
    assert record is not None
    [left] = record.branches
    assert words([each.message for each in await store.read_history(left)]) == [*"abc", "D"]


async def test_what_a_branch_refuses(store: ConversationStore) -> None:
    """What is not there, and what has changed since."""
    conversation = await saved(store, "chat", *"abcd")
    other = await saved(store, "other", "x")
    [elsewhere] = await store.load_entries("other") or []
    revision = conversation.revision
    for wrong in ({"at": 5}, {"at": -1}, {"from_entry": "none"}, {}, {"at": 1, "from_entry": "x"}):
        with pytest.raises(UserError):
            await store.branch("chat", **wrong, expected_revision=revision)
    with pytest.raises(UserError, match="not in the history"):
        await store.branch("chat", from_entry=elsewhere.id, expected_revision=revision)
    with pytest.raises(ConversationConflict):
        await store.branch("chat", at=1, expected_revision=other.revision)
    with pytest.raises(UserError, match="not in the store"):
        await store.branch("none", at=0, expected_revision=None)
    assert await said_in(store) == list("abcd")


async def test_deferred_requests_stay_with_their_history(store: ConversationStore) -> None:
    """They go when the history that asked for them is left, by this store or by anything else."""
    conversation = await saved(store, "chat", *"abcd")
    conversation.deferred_tool_requests = DeferredToolRequests()
    await store.save(conversation)
    same = await store.branch("chat", at=4, expected_revision=conversation.revision)
    assert same.deferred_tool_requests is not None
    other = await store.branch("chat", at=2, expected_revision=same.revision)
    assert other.deferred_tool_requests is None


@pytest.mark.parametrize("order", ["chat one two", "two one chat", "one chat two"])
async def test_forks_live_on_their_own(store: ConversationStore, order: str) -> None:
    """A fork and a fork of it have the entries under their ids, whichever is deleted first."""
    await saved(store, "chat", *"abcd")
    entries = await store.load_entries("chat")
    assert entries is not None
    one = await store.fork("chat", at=3, new_conversation_id="one")
    one.messages += [answered("D")]
    await store.save(one)
    await store.fork("one", new_conversation_id="two")
    expected = {"chat": list("abcd"), "one": [*"abc", "D"], "two": [*"abc", "D"]}
    assert (await store.load_entries("one") or [])[:3] == entries[:3]
    record = await store.read_record("one")
    assert record is not None
    assert (record.forked_from, record.forked_at) == ("chat", entries[2].id)
    for gone in order.split():
        for conversation_id, said in expected.items():
            assert await said_in(store, conversation_id) == said
        await store.delete(gone)
        del expected[gone]
        assert await said_in(store, gone) is None
    with pytest.raises(LookupError):
        await store.read_entry(str(entries[0].id))


async def test_a_fork_of_all_carries_usage_and_requests(store: ConversationStore) -> None:
    """And one of a part does not."""
    conversation = await saved(store, "chat", *"ab")
    conversation.deferred_tool_requests = DeferredToolRequests()
    await store.save(conversation)
    whole = await store.fork("chat")
    assert (whole.usage.requests, whole.deferred_tool_requests) == (1, DeferredToolRequests())
    part = await store.fork("chat", at=1)
    assert (part.usage.requests, part.deferred_tool_requests) == (0, None)
    for fork in (whole, part):
        assert await store.load(fork.conversation_id) == fork
    empty = await store.fork("chat", at=0, new_conversation_id="empty")
    assert (empty.messages, await said_in(store, "empty")) == ([], [])
    assert await said_in(store) == ["a", "b"]


async def test_a_fork_carries_the_state(store: ConversationStore, service: SessionService) -> None:
    """It is a fork of the session, with what the application has stored of it."""
    conversation = await saved(store, "chat", "a", "b")
    await service.update_session_state(KEY, {"cart": ["book"]})
    conversation.messages += talk("c", "d")
    await store.save(conversation)
    await service.update_session_state(KEY, {"cart": ["book", "pen"]})
    await store.save(conversation)
    await store.fork("chat", new_conversation_id="whole")
    await store.fork("chat", at=3, new_conversation_id="part")
    for conversation_id, cart in (("whole", ["book", "pen"]), ("part", ["book"])):
        session = await service.get_session(SessionKey("app", "user", conversation_id))
        assert session is not None
        assert session.state["cart"] == cart


async def test_a_fork_of_a_left_branch(store: ConversationStore) -> None:
    """From its end, and from its middle."""
    conversation = await saved(store, "chat", *"abcd")
    branch = await store.branch("chat", at=1, expected_revision=conversation.revision)
    branch.messages += [answered("B")]
    await store.save(branch)
    record = await store.read_record("chat")
    assert record is not None
    entries = await store.read_history(record.branches[0])
    await store.fork("chat", from_entry=entries[3].id, new_conversation_id="end")
    await store.fork("chat", from_entry=str(entries[2].id), new_conversation_id="middle")
    assert await store.load_entries("end") == entries
    assert await store.load_entries("middle") == entries[:3]
    await store.delete("chat")
    assert await store.load_entries("end") == entries


async def test_a_fork_needs_an_id_of_its_own(store: ConversationStore) -> None:
    """A used one is left as it is."""
    await saved(store, "chat", "a", "b")
    await saved(store, "used", "x")
    with pytest.raises(ConversationConflict):
        await store.fork("chat", new_conversation_id="used")
    with pytest.raises(ConversationConflict):
        await store.fork("chat", at=0, new_conversation_id="used")
    assert await said_in(store, "used") == ["x"]
    with pytest.raises(UserError, match="not in the store"):
        await store.fork("none")


async def test_a_fork_of_what_is_deleted_meanwhile(store: ConversationStore) -> None:
    """It is a conflict, and leaves no conversation."""
    await saved(store, "chat", *"abcd")
    record = await store.read_record("chat")
    entries = await store.read_history(record.head_id) if record else []
    await store.delete("chat")
    for head in (entries[3].id, entries[1].id, str(entries[1].id)):
        fork = ConversationRecord(conversation_id="fork", head_id=head)
        with pytest.raises(ConversationConflict):
            await store.write_record(fork, expected_revision=None)
        assert await store.load("fork") is None
    await saved(store, "chat", "new")
    with pytest.raises(ConversationConflict):
        await store.write_record(
            ConversationRecord(conversation_id="fork", head_id=entries[1].id),
            expected_revision=None,
        )
    assert [each.conversation_id for each in await store.list_conversations()] == ["chat"]


async def test_a_copy_of_what_is_deleted_meanwhile(service: SessionService) -> None:
    """As above, where a fork is a copy: for another user, and of a branch that was left."""
    store = ConversationStore(service, app_name="app", user_id=lambda name: name[0])
    conversation = await saved(store, "ada", *"abcd")
    await store.branch("ada", at=2, expected_revision=conversation.revision)
    record = await store.read_record("ada")
    assert record is not None
    await store.delete("ada")
    for name, head in (("bob", record.head_id), ("anne", record.branches[0])):
        with pytest.raises(ConversationConflict):
            await store.write_record(
                ConversationRecord(conversation_id=name, head_id=head), expected_revision=None
            )
        assert await store.load(name) is None
    assert await store.list_conversations() == []


async def test_a_record_names_its_head_by_a_plain_string(store: ConversationStore) -> None:
    """Its history is searched for, and forked as any other."""
    await saved(store, "chat", *"abcd")
    entries = await store.load_entries("chat")
    assert entries is not None
    fork = ConversationRecord(conversation_id="fork", head_id=str(entries[2].id))
    await store.write_record(fork, expected_revision=None)
    assert await store.load_entries("fork") == entries[:3]
    with pytest.raises(ConversationConflict):
        await store.write_record(
            ConversationRecord(conversation_id="new", head_id=fork.head_id),
            expected_revision="none",
        )


async def test_a_fork_that_was_cut_off_is_completed(
    store: ConversationStore, service: SessionService
) -> None:
    """What a crash leaves between its two steps is completed by the same call."""
    conversation = await saved(store, "chat", *"abcd")
    conversation.deferred_tool_requests = DeferredToolRequests()
    await store.save(conversation)
    new = SessionKey("app", "user", "fork")
    await service.fork(KEY, new, at_seq=3)
    assert await said_in(store, "fork") == list("abc")
    with pytest.raises(ConversationConflict):
        await store.fork("chat", at=2, new_conversation_id="fork")
    await store.fork("chat", at=3, new_conversation_id="fork")
    record = await store.read_record("fork")
    assert record is not None
    assert (record.forked_from, record.usage) == ("chat", RunUsage())
    with pytest.raises(ConversationConflict):
        await store.fork("chat", at=3, new_conversation_id="fork")


async def test_of_two_forks_to_one_id_one_is_refused(store: ConversationStore) -> None:
    """Whichever comes first; the other one changes nothing."""
    await saved(store, "chat", *"abcd")
    results: list[str] = []

    async def fork(at: int) -> None:
        try:
            await store.fork("chat", at=at, new_conversation_id="fork")
        except ConversationConflict:
            results.append("conflict")
        else:
            results.append("made")

    async with anyio.create_task_group() as group:
        for at in (2, 2, 3, 4):
            group.start_soon(fork, at)
    assert sorted(results) == ["conflict", "conflict", "conflict", "made"]
    record = await store.read_record("fork")
    assert record is not None
    assert record.forked_from == "chat"


async def test_one_store_for_several_users(service: SessionService) -> None:
    """Ids of conversations tell their users; a fork may be another user's."""
    store = ConversationStore(
        service, app_name="app", user_id=lambda conversation_id: conversation_id.split("/")[0]
    )
    await saved(store, "ada/1", "a", "b")
    await saved(store, "bob/1", "x")
    assert await service.get_session(SessionKey("app", "ada", "ada/1")) is not None
    await store.fork("ada/1", new_conversation_id="bob/2")
    assert await store.load_entries("bob/2") == await store.load_entries("ada/1")
    await service.create_session(SessionKey("app", "ada", "bob/3"))
    await service.append_event(
        SessionKey("app", "ada", "bob/3"), Event(author="user", content="out of reach")
    )
    listed = [each.conversation_id for each in await store.list_conversations()]
    assert sorted(listed) == ["ada/1", "bob/1", "bob/2"]
    [entry] = await store.load_entries("bob/1") or []
    assert await store.read_entry(str(entry.id)) == entry
