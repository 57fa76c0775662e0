"""What other users of the sessions do to conversations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai import DeferredToolRequests
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict
from pydantic_ai.messages import ModelRequest, SystemPromptPart, UserPromptPart

from adapters.alone.pydantic_ai.conversing import (
    KEY,
    answered,
    in_the_log,
    said_in,
    saved,
    talk,
    words,
)
from agentsession import AgentContext, Event, SessionKey, SessionService, Text, ToolCall, ToolResult
from agentsession import Runner as OurRunner
from agentsession.adapters.pydantic_ai import ConversationStore
from agentsession.errors import SessionBusyError
from agentsession.events import Part


async def test_what_others_add_is_there(store: ConversationStore, service: SessionService) -> None:
    """It is part of the history, and a conversation that was loaded before is stale."""
    await service.create_session(KEY)
    assert await store.load("chat") is None, "nobody has said anything"
    conversation = await saved(store, "chat", "a", "b")
    conversation.deferred_tool_requests = DeferredToolRequests()
    await store.save(conversation)
    await service.append_events(
        KEY, [Event(author="user", content="c"), Event(author="helper", content="d")]
    )
    conversation.messages += talk("stale")
    with pytest.raises(ConversationConflict):
        await store.save(conversation)
    loaded = await store.load("chat")
    assert loaded is not None
    assert words(loaded.messages) == list("abcd")
    assert loaded.usage.requests == 1
    assert loaded.deferred_tool_requests is None
    loaded.messages += talk("e")
    await store.save(loaded)
    assert await said_in(store) == list("abcde")
    await service.append_event(KEY, Event(author="user", content="f"))
    entries = await store.load_entries("chat", limit=3)
    assert entries is not None
    assert words([entry.message for entry in entries]) == ["d", "e", "f"]
    assert await store.read_entry(str(entries[-1].id)) == replace(
        entries[-1], parent_id=entries[-2].id
    )


async def test_a_session_of_others_is_a_conversation(
    store: ConversationStore, service: SessionService
) -> None:
    """It can be loaded, listed, gone on with, branched, forked and deleted."""
    await service.create_session(SessionKey("app", "user", "empty"), {"plan": "b"})
    await service.create_session(KEY, {"plan": "a"})
    events = [
        Event(author="user" if n % 2 else "helper", content=word)
        for n, word in enumerate("abcdef", 1)
    ]
    await service.append_events(KEY, events)
    record = await store.read_record("chat")
    session = await service.get_session(KEY)
    assert record is not None
    assert session is not None
    assert (record.head_id, record.updated_at) == (events[-1].id, session.updated_at)
    assert [each.conversation_id for each in await store.list_conversations()] == ["chat"]
    assert await store.list_conversations(scope="x") == []
    fork = await store.fork("chat", at=4, new_conversation_id="fork")
    branch = await store.branch("chat", at=2, expected_revision=record.revision)
    assert (words(fork.messages), words(branch.messages)) == (list("abcd"), list("ab"))
    branch.messages += talk("C")
    await store.save(branch)
    assert await said_in(store) == ["a", "b", "C"]
    assert await said_in(store, "fork") == list("abcd")
    record = await store.read_record("chat")
    assert record is not None
    back = await store.branch(
        "chat", from_entry=record.branches[0], expected_revision=record.revision
    )
    assert words(back.messages) == list("abcdef") == await in_the_log(service)
    assert [e.id for e in await store.load_entries("chat") or []] == [e.id for e in events]
    session = await service.get_session(KEY)
    assert session is not None
    assert session.state["plan"] == "a"
    await store.delete("chat")
    assert await service.get_session(KEY) is None


async def test_others_take_back_half_a_message(
    store: ConversationStore, service: SessionService
) -> None:
    """Of a request that is several events the rest is shown as what it is."""
    both = ModelRequest([SystemPromptPart("Be brief."), UserPromptPart("Hi")])
    await store.save(Conversation(conversation_id="chat", messages=[both]))
    await service.rewind(KEY, to_seq=1, restore_state=False)
    assert await said_in(store) == ["Be brief."]
    loaded = await store.load("chat")
    assert loaded is not None
    loaded.messages += talk("Hello")
    await store.save(loaded)
    assert await said_in(store) == ["Be brief.", "Hello"]
    record = await store.read_record("chat")
    assert record is not None
    back = await store.branch(
        "chat", from_entry=record.branches[0], expected_revision=record.revision
    )
    assert back.messages == [both]
    assert await in_the_log(service) == ["Be brief.", "Hi"]


async def test_what_others_take_back_is_a_branch(
    store: ConversationStore, service: SessionService
) -> None:
    """The history that was left can be gone back to, and what was loaded before is stale."""
    conversation = await saved(store, "chat", *"abcd")
    entries = await store.load_entries("chat")
    assert entries is not None
    await service.rewind(KEY, to_seq=2, restore_state=False)
    conversation.messages += talk("stale")
    with pytest.raises(ConversationConflict):
        await store.save(conversation)
    await service.append_event(KEY, Event(author="user", content="C"))
    record = await store.read_record("chat")
    assert record is not None
    assert record.branches == [entries[-1].id]
    assert await said_in(store) == ["a", "b", "C"]
    await store.branch("chat", from_entry=record.branches[0], expected_revision=record.revision)
    assert await said_in(store) == list("abcd")
    await service.rewind(KEY, to_seq=0)
    assert await said_in(store) == []


async def test_what_is_said_again_is_not_done_again(
    store: ConversationStore, service: SessionService
) -> None:
    """State that an event has changed, and the turn that it was of, are left alone."""
    await service.create_session(KEY)
    events = [
        Event(author="user", content="a", invocation_id="turn"),
        Event(author="helper", content="b", invocation_id="turn", state_delta={"cart": 1}),
        Event(author="user", content="c"),
    ]
    await service.append_events(KEY, events)
    record = await store.read_record("chat")
    assert record is not None
    await store.branch("chat", at=0, expected_revision=record.revision)
    await service.update_session_state(KEY, {"cart": 2})
    record = await store.read_record("chat")
    assert record is not None
    await store.branch("chat", from_entry=record.branches[0], expected_revision=record.revision)
    session = await service.get_session(KEY)
    assert session is not None
    assert session.state["cart"] == 2
    again = [event for event in session.events if event.content]
    assert [event.text for event in again] == list("abc")
    assert {event.invocation_id for event in again} == {""}


async def test_a_fork_of_others_is_a_conversation(
    store: ConversationStore, service: SessionService
) -> None:
    """It is of the same scope, has a revision of its own, and says where it comes from."""
    conversation = await saved(store, "chat", *"abcd", scope="ada")
    await service.fork(KEY, SessionKey("app", "user", "fork"), at_seq=4)
    assert await store.load("fork", scope="bob") is None
    fork = await store.load("fork", scope="ada")
    assert fork is not None
    assert fork.revision != conversation.revision
    record = await store.read_record("fork")
    assert record is not None
    assert record.forked_from == "chat"
    fork.messages += talk("e")
    await store.save(fork)
    assert await said_in(store, "fork") == list("abcde")
    assert await said_in(store) == list("abcd")


class Speaks:
    """An agent of the library's own that answers in several events."""

    async def __call__(self, context: AgentContext) -> AsyncIterator[Event]:
        yield Event(author="helper", content=[ToolCall("call", "weather", {"city": "Oslo"})])
        yield Event(author="tool", content=[ToolResult("call", "rain")])
        yield Event(author="helper", content="It rains.")


async def test_a_turn_of_our_runner_is_cut(
    store: ConversationStore, service: SessionService
) -> None:
    """A branch and a fork may begin in the middle of a turn, where the log cannot go back to."""
    runner = OurRunner("app", Speaks(), service)
    for text in ("one", "two"):
        await runner.run("user", "chat", text).result()
    loaded = await store.load("chat")
    assert loaded is not None
    assert [type(message).__name__ for message in loaded.messages] == [
        "ModelRequest",
        "ModelResponse",
        "ModelRequest",
        "ModelResponse",
    ] * 2
    entries = await store.load_entries("chat")
    assert entries is not None
    for at in (8, 6, 5):
        fork = await store.fork("chat", at=at)
        assert await store.load_entries(fork.conversation_id) == entries[:at]
    branch = await store.branch("chat", at=6, expected_revision=loaded.revision)
    assert branch.messages == loaded.messages[:6]
    assert await store.load_entries("chat") == entries[:6]
    branch.messages += [answered("Sorry?")]
    await store.save(branch)
    record = await store.read_record("chat")
    assert record is not None
    await store.branch("chat", from_entry=record.branches[0], expected_revision=record.revision)
    assert await store.load_entries("chat") == entries


async def test_an_event_of_several_messages_is_cut(
    store: ConversationStore, service: SessionService
) -> None:
    """What a model said and what it was told are two messages, also if they are one event."""
    await service.create_session(KEY)
    mixed: list[Part] = [
        Text("Let me see."),
        ToolCall("call", "weather", {"city": "Oslo"}),
        ToolResult("call", "rain"),
        Text("It rains."),
    ]
    silent = [Event(author="helper", state_delta={"n": n}) for n in range(4)]
    said = Event(author="user", content="Hi"), Event(author="helper", content=mixed)
    await service.append_events(KEY, [said[0], *silent, said[1]])
    entries = await store.load_entries("chat")
    assert entries is not None
    assert [type(entry.message).__name__ for entry in entries] == [
        "ModelRequest",
        "ModelResponse",
        "ModelRequest",
        "ModelResponse",
    ]
    for limit in range(1, 5):
        assert await store.load_entries("chat", limit=limit) == entries[-limit:]
    for entry in entries:
        assert await store.read_entry(str(entry.id)) == entry
    for at in range(5):
        fork = await store.fork("chat", at=at)
        assert await store.load_entries(fork.conversation_id) == entries[:at]
    record = await store.read_record("chat")
    assert record is not None
    branch = await store.branch("chat", at=3, expected_revision=record.revision)
    assert await store.load_entries("chat") == entries[:3]
    branch.messages += [answered("Sun!")]
    await store.save(branch)
    record = await store.read_record("chat")
    assert record is not None
    await store.branch("chat", from_entry=record.branches[0], expected_revision=record.revision)
    assert await store.load_entries("chat") == entries


async def test_a_lease_keeps_others_out(store: ConversationStore, service: SessionService) -> None:
    """While a turn has the session for itself, a save says so, and can be made afterwards."""
    conversation = await saved(store, "chat", "a", "b")
    conversation.messages += talk("c")
    async with service.lease(KEY, exclusive=True):
        with pytest.raises(SessionBusyError):
            await store.save(conversation)
    await store.save(conversation)
    assert await said_in(store) == list("abc")
