"""Several processes on one thread."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="LangGraph is not installed")

from langchain_core.runnables import RunnableConfig

from adapters.alone.langgraph.checkpoints import (
    THREAD,
    checkpoint,
    ids,
    listed,
    newest,
    places,
    put,
)
from agentsession import SessionService
from agentsession.adapters.langgraph import Checkpointer


async def test_two_processes_on_one_thread_lose_no_checkpoint(service: SessionService) -> None:
    """Both take the same numbers again and again."""
    savers = Checkpointer(service), Checkpointer(service)

    async def store(saver: Checkpointer, numbers: range) -> None:
        for number in numbers:
            await put(saver, number, value=f"{number} " * 100)

    async with asyncio.TaskGroup() as group:
        group.create_task(store(savers[0], range(0, 60, 2)))
        group.create_task(store(savers[1], range(1, 60, 2)))
    for saver in (*savers, Checkpointer(service)):
        found = await listed(saver, THREAD)
        assert [int(each.checkpoint["id"]) for each in found] == list(range(59, -1, -1))
        assert all(
            each.checkpoint["channel_values"]["value"].startswith(str(int(each.checkpoint["id"])))
            for each in found
        )


async def test_subgraphs_that_begin_at_once_are_all_known(service: SessionService) -> None:
    """Each adds its namespace to a list that they share."""
    savers = Checkpointer(service), Checkpointer(service)
    async with asyncio.TaskGroup() as group:
        for number in range(40):
            config: RunnableConfig = {
                "configurable": {"thread_id": "t", "checkpoint_ns": f"child:{number}"}
            }
            group.create_task(put(savers[number % 2], number, config))
    everything: RunnableConfig = {"configurable": {"thread_id": "t"}}
    assert await ids(Checkpointer(service), everything) == [f"{n:08}" for n in range(39, -1, -1)]


async def test_what_is_forgotten_is_looked_up(service: SessionService) -> None:
    """A process remembers some namespaces and checkpoints of a thread, and there may be more."""
    saver = Checkpointer(service)
    for turn in range(2):
        for number in range(40):
            config: RunnableConfig = {
                "configurable": {"thread_id": "t", "checkpoint_ns": f"child:{number}"}
            }
            stored = await put(saver, turn, config)
            await saver.aput_writes(stored, [("a", number)], "task")
            await saver.aput_writes(stored, [("a", -1), ("b", number)], "task")
    for number in range(40):
        config = {"configurable": {"thread_id": "t", "checkpoint_ns": f"child:{number}"}}
        assert await ids(saver, config) == ["00000001", "00000000"]
        written = places(await newest(saver, config))
        assert written == [("task", "a", number), ("task", "b", number)]


async def test_a_thread_that_is_made_anew_begins_anew(service: SessionService) -> None:
    """What a process remembers of the old one does not reach the new one."""
    stale = Checkpointer(service)
    for number in range(20):
        config = await put(stale, number, value="old " * 100)
    await stale.aput_writes(config, [("a", 1)], "task")
    await Checkpointer(service).adelete_thread("t")
    await put(Checkpointer(service), 3, value="new " * 100)
    made = checkpoint(21, value="newer " * 100)
    made["channel_versions"] = {"value": f"{19:032}.0"}
    await stale.aput(config, made, {}, {})
    await stale.aput_writes(config, [("a", 2)], "task")
    for saver in (stale, Checkpointer(service)):
        assert await ids(saver, THREAD) == ["00000021", "00000003"]
        found = await newest(saver)
        assert found.checkpoint["channel_values"] == {"value": "newer " * 100}


async def test_a_thread_that_was_deleted_elsewhere_is_gone(service: SessionService) -> None:
    """By id too, for a process that has just read it."""
    saver = Checkpointer(service)
    config = await put(saver, 1)
    await newest(saver, config)
    await Checkpointer(service).adelete_thread("t")
    assert await saver.aget_tuple(config) is None
    assert await ids(saver, THREAD) == []
