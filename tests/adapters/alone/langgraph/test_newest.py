"""Which checkpoint is the newest, and what it costs to know."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="LangGraph is not installed")

from langchain_core.runnables import RunnableConfig

from adapters.alone.langgraph.checkpoints import (
    THREAD,
    checkpoint,
    ids,
    newest,
    places,
    put,
)
from adapters.operations import Operations
from agentsession import InMemorySessionService, SessionService
from agentsession.adapters.langgraph import Checkpointer


async def test_the_newest_is_the_largest_id_and_not_the_last_one_stored(
    service: SessionService,
) -> None:
    """Clocks of two machines differ; every other saver of LangGraph goes by the id."""
    await put(Checkpointer(service), 2, value="two")
    await put(Checkpointer(service), 1, value="one")
    for saver in (Checkpointer(service), Checkpointer(service)):
        assert (await newest(saver)).checkpoint["channel_values"] == {"value": "two"}
        assert await ids(saver, THREAD) == ["00000002", "00000001"]


@pytest.mark.parametrize("seed", range(8))
async def test_lists_are_in_the_order_of_ids_whatever_that_of_the_log(seed: int) -> None:
    """With every limit, from every cursor, and with entries that were stored twice."""
    chance = random.Random(seed)
    numbers = list(range(60))
    for _ in range(chance.randrange(80)):  # nearly in order, or not at all
        place = chance.randrange(59)
        numbers[place], numbers[place + 1] = numbers[place + 1], numbers[place]
    async with InMemorySessionService(session_event_limit=None) as service:
        for number in numbers:
            made = checkpoint(number)
            await Checkpointer(service).aput(THREAD, made, {}, {})
        await Checkpointer(service).aput(THREAD, made, {}, {})
        saver = Checkpointer(service)
        expected = [f"{number:08}" for number in range(59, -1, -1)]
        assert await ids(saver, THREAD) == expected
        for limit in (0, 1, 2, 17, 60, 99):
            assert await ids(saver, THREAD, limit=limit) == expected[:limit]
        before = {"configurable": {"checkpoint_id": "00000030"}}
        assert await ids(saver, THREAD, before=before, limit=20) == expected[30:50]
        assert (await newest(saver)).checkpoint["id"] == "00000059"


async def test_reading_the_newest_costs_the_same_however_long_the_thread_is() -> None:
    """Also in a process that knows nothing of it, and behind what a subgraph has stored."""
    asked = Operations()
    async with InMemorySessionService(session_event_limit=None, observers=[asked]) as service:
        saver = Checkpointer(service)

        async def cost(config: RunnableConfig = THREAD) -> int:
            before = len(asked.names)
            await newest(Checkpointer(service), config)
            return len(asked.names) - before

        for number in range(20):
            await put(saver, number, value="x" * 1000)
        short = await cost()
        for number in range(20, 1000):
            await put(saver, number, value="x" * 1000)
        assert await cost() == short
        child: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": "child"}}
        for number in range(300):
            await put(saver, number, child)
        assert await cost(child) <= short
        # A hundred times as much lies behind it, and it takes a few dozen looks by id.
        assert await cost() < short + 60
        assert (await newest(Checkpointer(service))).checkpoint["id"] == "00000999"


async def test_the_newest_is_read_in_one_call_with_the_writes_of_a_task(
    service: SessionService,
) -> None:
    """They are at the end of the log; for those of many tasks it is read a little further."""
    asked = Operations()
    saver, counted = Checkpointer(service), SessionService(service.backend, observers=[asked])
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    for number in range(20):
        config = await put(saver, number, config, value="x" * 1000)
    for number, calls in ((0, 1), (1, 1), (2, 1), (3, 2), (12, 3)):
        tasks = [f"{task:02}" for task in range(number)]
        for task in tasks:
            await saver.aput_writes(config, [("a", task)], task)
        asked.names.clear()
        found = await newest(Checkpointer(counted))
        assert [value for _, _, value in places(found)] == tasks
        assert len(asked.names) == calls, number


async def test_the_first_checkpoint_of_a_thread_takes_three_calls() -> None:
    """The session is made, the namespace is noted, and the checkpoint is stored."""
    asked = Operations()
    async with InMemorySessionService(session_event_limit=None, observers=[asked]) as service:
        saver = Checkpointer(service)
        config = await put(saver, 1)
        assert len(asked.names) == 3
        await saver.aput_writes(config, [("a", 1)], "task")
        await put(saver, 2, config)
        assert len(asked.names) == 5


async def test_a_namespace_without_checkpoints_is_known_at_once() -> None:
    """Each call of a subgraph asks for one, and a thread is long."""
    asked = Operations()
    async with InMemorySessionService(session_event_limit=None, observers=[asked]) as service:
        saver = Checkpointer(service)
        for number in range(200):
            await put(saver, number)
        before = len(asked.names)
        child: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": "new|child"}}
        assert await Checkpointer(service).aget_tuple(child) is None
        assert len(asked.names) - before <= 3
