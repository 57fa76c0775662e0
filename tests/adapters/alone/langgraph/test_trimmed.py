"""Checkpoints of which the limit of events has taken a part."""

from __future__ import annotations

import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="LangGraph is not installed")

from langchain_core.runnables import RunnableConfig

from adapters.alone.langgraph.checkpoints import (
    KEY,
    LARGE,
    THREAD,
    Options,
    checkpoint,
    events_of,
    ids,
    newest,
    put,
)
from agentsession import InMemorySessionService, SessionService, open_service
from agentsession.adapters.langgraph import Checkpointer, CheckpointIncompleteError
from agentsession.events import Event


async def test_a_service_that_would_trim_checkpoints_is_refused() -> None:
    """Before anything is stored."""
    async with InMemorySessionService() as service:
        with pytest.raises(ValueError, match=r"keeps 1,000 events .* session_event_limit=None"):
            await put(Checkpointer(service), 1)
        assert await service.get_session(KEY) is None


async def test_what_another_process_has_trimmed_is_an_error_and_no_other_state(
    store_url: str, store_prefix: str, service: SessionService
) -> None:
    """A value that a checkpoint needs, the checkpoint, or the beginning of the lists."""
    saver = Checkpointer(service)
    first = checkpoint(0, value="v" * 1000)
    config = await saver.aput(THREAD, first, {}, first["channel_versions"])
    for number in range(1, 10):
        made = checkpoint(number, value="v" * 1000, other=number)
        made["channel_versions"] = {**first["channel_versions"], "other": number}
        config = await saver.aput(config, made, {}, {"other": number})
    await trim(store_url, store_prefix, service, 12)
    for each in (saver, Checkpointer(service)):
        with pytest.raises(CheckpointIncompleteError, match="the value of channel 'value'"):
            await each.aget_tuple(THREAD)
        with pytest.raises(CheckpointIncompleteError, match="session_event_limit=None"):
            await each.aget_tuple({"configurable": {"thread_id": "t", "checkpoint_id": "00000001"}})
    made = checkpoint(10, value="w" * 1000)
    await saver.aput(config, made, {}, made["channel_versions"])
    assert (await newest(Checkpointer(service))).checkpoint["id"] == "00000010"
    await trim(store_url, store_prefix, service, 2)
    with pytest.raises(CheckpointIncompleteError, match="'00000010' of namespace '' lacks itself"):
        await newest(Checkpointer(service))


async def test_what_is_left_of_a_thread_is_found(
    store_url: str, store_prefix: str, service: SessionService
) -> None:
    """Where its lists have lost their beginnings, and others have stored since."""
    saver = Checkpointer(service)
    for number in range(20):
        await put(saver, number)
    child: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": "child"}}
    for number in range(20, 40):
        await put(saver, number, child)
    await trim(store_url, store_prefix, service, 62)
    assert (await newest(Checkpointer(service))).checkpoint["id"] == "00000019"
    left = [f"{number:08}" for number in range(19, 9, -1)]
    assert await ids(Checkpointer(service), THREAD) == left
    everything: RunnableConfig = {"configurable": {"thread_id": "t"}}
    assert (await ids(Checkpointer(service), everything))[20:] == left
    other: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": "other"}}
    assert await Checkpointer(service).aget_tuple(other) is None


async def test_a_checkpoint_leans_on_no_parent_that_is_gone(
    store_url: str, store_prefix: str, service: SessionService
) -> None:
    """It has its values at hand, and stores those that it cannot name."""
    first = checkpoint(1, value="v" * 1000)
    config = await Checkpointer(service).aput(THREAD, first, {}, first["channel_versions"])
    await trim(store_url, store_prefix, service, 1)
    made = checkpoint(2, value="v" * 1000)
    made["channel_versions"] = first["channel_versions"]
    await Checkpointer(service).aput(config, made, {}, {})
    found = await newest(Checkpointer(service))
    assert found.checkpoint["channel_values"] == {"value": "v" * 1000}


async def test_writes_of_which_a_part_is_gone_are_an_error(
    store_url: str, store_prefix: str, service: SessionService
) -> None:
    """Without them a task would be run again, or its result be lost."""
    saver = Checkpointer(service)
    config: RunnableConfig = {
        "configurable": {**THREAD["configurable"], "checkpoint_id": "00000001"}
    }
    await saver.aput_writes(config, [("a", LARGE)], "task")
    await put(saver, 1)
    await trim(store_url, store_prefix, service, len(await events_of(service)))
    with pytest.raises(CheckpointIncompleteError, match="lacks a part of its writes"):
        await newest(Checkpointer(service))


async def trim(url: str, prefix: str, service: SessionService, limit: int) -> None:
    """Append an event as a process that has a limit would."""
    event = Event(author="user", content="hello")
    if url == "memory://":
        retention = service.backend.retention
        service.backend.retention = type(retention)(event_limit=limit)
        await service.append_event(KEY, event)
        service.backend.retention = retention
        return
    options: Options = {"key_prefix": prefix, "session_event_limit": limit}
    async with open_service(url, **options) as limited:
        await limited.append_event(KEY, event)
