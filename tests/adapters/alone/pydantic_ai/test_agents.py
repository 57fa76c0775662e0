"""Agents of the framework, which save their conversations."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel

from adapters.alone.pydantic_ai.conversing import KEY, store_of
from adapters.processes import program
from agentsession import SessionService, blocking
from agentsession.adapters.pydantic_ai import ConversationStore


def weather_model(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    last = messages[-1]
    assert isinstance(last, ModelRequest)
    if any(isinstance(part, UserPromptPart) for part in last.parts):
        return ModelResponse([ToolCallPart("weather", {"city": "Oslo"}, f"call {len(messages)}")])
    return ModelResponse([TextPart(f"{len(messages)} messages")])


def weather_agent() -> Agent[None, str]:
    agent = Agent(FunctionModel(weather_model), system_prompt="Be brief.")

    @agent.tool_plain
    def weather(city: str) -> str:
        return f"It rains in {city}."

    return agent


async def test_a_conversation_with_tools(service: SessionService) -> None:
    """Each turn goes on where the last one ended, for the framework and for every other reader."""
    for turn in range(3):
        # A new object each time, as a process that was started anew has it.
        store = store_of(service)
        conversation = await store.load("chat") or Conversation(conversation_id="chat")
        result = await weather_agent().run(f"turn {turn}", conversation=conversation)
        assert result.output == f"{4 * turn + 3} messages"
        await store.save(result)
    events = await service.get_events(KEY)
    turns = ["user", "assistant", "tool", "assistant"] * 3
    assert [event.author for event in events] == ["system", *turns]
    assert [call.arguments for event in events for call in event.tool_calls] == [
        {"city": "Oslo"}
    ] * 3
    assert [each.result for event in events for each in event.tool_results] == [
        "It rains in Oslo."
    ] * 3
    history = await service.get_history(KEY, max_turns=1)
    assert [event.text for event in history] == ["turn 2", "", "", "11 messages"]
    loaded = await store_of(service).load("chat")
    assert loaded is not None
    assert loaded.usage.requests == 6
    assert loaded.messages == result.all_messages()


async def test_a_stream_is_stored_as_any_turn(store: ConversationStore) -> None:
    """What was streamed is there once it is saved."""

    async def stream(
        messages: list[ModelMessage], _: AgentInfo
    ) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        if isinstance(messages[-1].parts[-1], UserPromptPart):
            yield {0: DeltaToolCall("weather", '{"city": "Os', tool_call_id="call")}
            yield {0: DeltaToolCall(json_args='lo"}')}
        else:
            for word in ("It ", "rains."):
                yield word

    agent = Agent(FunctionModel(stream_function=stream))

    @agent.tool_plain
    def weather(city: str) -> str:
        return f"It rains in {city}."

    async with agent.run_stream("Hi") as streamed:
        async for _ in streamed.stream_text():
            pass
    conversation = Conversation(conversation_id="chat", messages=streamed.all_messages())
    await store.save(conversation)
    loaded = await store.load("chat")
    assert loaded is not None
    assert loaded.messages == conversation.messages
    assert [type(part).__name__ for each in loaded.messages for part in each.parts] == [
        "UserPromptPart",
        "ToolCallPart",
        "ToolReturnPart",
        "TextPart",
    ]


async def test_a_run_that_waits_goes_on_elsewhere(service: SessionService) -> None:
    """What a paused run waits for is in the record, with its metadata."""

    def agent_of() -> Agent[None, str | DeferredToolRequests]:
        agent = Agent(TestModel(), output_type=[str, DeferredToolRequests])

        @agent.tool_plain(requires_approval=True)
        def pay(amount: int) -> str:
            return f"paid {amount}"

        return agent

    result = await agent_of().run("Pay!", conversation=Conversation(conversation_id="chat"))
    await store_of(service).save(result)
    loaded = await store_of(service).load("chat")
    assert loaded is not None
    assert loaded.deferred_tool_requests == result.output
    [call] = loaded.deferred_tool_requests.approvals
    approved = await agent_of().run(
        conversation=loaded,
        deferred_tool_results=DeferredToolResults(approvals={call.tool_call_id: True}),
    )
    await store_of(service).save(approved)
    again = await store_of(service).load("chat")
    assert again is not None
    assert again.deferred_tool_requests is None
    returned = [
        part for m in again.messages for part in m.parts if isinstance(part, ToolReturnPart)
    ]
    assert [part.content for part in returned] == ["paid 0"]


def test_a_process_that_was_killed_goes_on(valkey_url: str, store_prefix: str) -> None:
    """In the middle of a call of a tool: what was saved before is there, once."""
    where = (valkey_url, store_prefix, "chat")
    with program("pydantic_ai_turns", *where) as first:
        first.say("one")
        assert first.answer() == {"at": "tool"}
        first.say()
        assert first.answer() == {"said": "one: 3", "conflicts": 0}
        first.say("two")
        assert first.answer() == {"at": "tool"}
        first.kill()
    with program("pydantic_ai_turns", *where) as second:
        second.say("three")
        assert second.answer() == {"at": "tool"}
        second.say()
        assert second.answer() == {"said": "three: 7", "conflicts": 0}
    with blocking.open_service(valkey_url, key_prefix=store_prefix) as service:
        events = service.get_events(KEY)
    assert [event.text for event in events] == [
        "one",
        "",
        "",
        "one: 3",
        "three",
        "",
        "",
        "three: 7",
    ]


def test_two_processes_write_to_one_conversation(valkey_url: str, store_prefix: str) -> None:
    """Whoever comes second is told, and runs the turn again: nothing is lost, nothing twice."""
    where = (valkey_url, store_prefix, "chat")
    with (
        program("pydantic_ai_turns", *where) as one,
        program("pydantic_ai_turns", *where) as two,
    ):
        for turn in range(3):
            one.say(f"one {turn}")
            two.say(f"two {turn}")
            for each in (one, two):
                assert each.answer() == {"at": "tool"}
            one.say()
            assert one.answer()["conflicts"] == 0
            two.say()
            assert two.answer() == {"at": "tool"}, "it conflicts, and runs again"
            two.say()
            assert two.answer() == {"said": f"two {turn}: {8 * turn + 7}", "conflicts": 1}
    with blocking.open_service(valkey_url, key_prefix=store_prefix) as service:
        events = service.get_events(KEY)
    texts = [event.text for event in events if event.author == "user"]
    assert texts == [f"{name} {turn}" for turn in range(3) for name in ("one", "two")]
    results = [each.call_id for event in events for each in event.tool_results]
    assert len(events) == 24
    assert len(results) == len(set(results)) == 6
