"""Repeats, deletions, pruning and copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="LangGraph is not installed")

from langchain_core.runnables import RunnableConfig

from adapters.alone.langgraph.checkpoints import (
    KEY,
    THREAD,
    checkpoint,
    events_of,
    ids,
    kind,
    listed,
    newest,
    put,
)
from agentsession import SessionService
from agentsession.adapters.langgraph import Checkpointer
from agentsession.errors import BackendUnavailableError, SessionExistsError
from agentsession.events import Event


async def test_a_repeat_of_a_checkpoint_stores_nothing(service: SessionService) -> None:
    """It may be one whose answer was lost."""
    saver, made = Checkpointer(service), checkpoint(1, value="v" * 20_000)
    await saver.aput(THREAD, made, {}, made["channel_versions"])
    await put(saver, 2)
    await saver.aput(THREAD, made, {}, made["channel_versions"])
    assert await ids(saver, THREAD) == ["00000002", "00000001"]
    kinds = [kind(event) for event in await events_of(service)]
    assert (kinds.count("value"), kinds.count("checkpoint")) == (1, 2)


async def test_a_checkpoint_never_changes(service: SessionService) -> None:
    """Rather than keep one and drop the other in silence."""
    await put(Checkpointer(service), 1, value="one")
    with pytest.raises(ValueError, match="'00000001' of namespace '' is stored with other content"):
        await put(Checkpointer(service), 1, value="another")
    assert (await newest(Checkpointer(service))).checkpoint["channel_values"] == {"value": "one"}


async def test_a_deleted_checkpoint_does_not_come_back(service: SessionService) -> None:
    """To store it again is an error, and no success that nobody sees."""
    saver, made = Checkpointer(service), checkpoint(1)
    await saver.aput(THREAD, made, {"run_id": "r"}, {})
    await saver.adelete_for_runs(["r"])
    with pytest.raises(ValueError, match="was deleted"):
        await saver.aput(THREAD, made, {"run_id": "r"}, {})


async def test_what_a_deleted_run_has_made_is_gone_and_the_state_before_it_is_back(
    service: SessionService,
) -> None:
    """As when a run is rolled back; the next run goes on from there."""
    saver, config = Checkpointer(service), THREAD
    for number in range(60):
        made = checkpoint(number, value=number)
        metadata: Any = {"run_id": "first" if number < 20 else "second"}
        config = await saver.aput(config, made, metadata, made["channel_versions"])
    await Checkpointer(service).adelete_for_runs(["second", "unknown"])
    for each in (saver, Checkpointer(service)):
        assert (await newest(each)).checkpoint["id"] == "00000019"
        assert len(await ids(each, THREAD)) == 20
        assert await each.aget_tuple(config) is None
    await put(saver, 70, (await newest(saver)).config)
    assert (await newest(Checkpointer(service))).checkpoint["id"] == "00000070"


async def test_a_thread_of_which_all_was_deleted_has_no_state(service: SessionService) -> None:
    """As one that never was; and it goes on from there."""
    saver = Checkpointer(service)
    for number in range(40):
        await saver.aput(THREAD, checkpoint(number), {"run_id": "r"}, {})
    await saver.adelete_for_runs(["r"])
    assert await saver.aget_tuple(THREAD) is None
    assert await ids(saver, THREAD) == []
    await put(saver, 40)
    assert await ids(saver, THREAD) == ["00000040"]


async def test_pruning_twice_does_nothing_twice(service: SessionService) -> None:
    """What was hidden is not hidden again, and values of before are still there."""
    saver = Checkpointer(service)
    first = checkpoint(0, value="v" * 1000)
    config = await saver.aput(THREAD, first, {}, first["channel_versions"])
    for number in range(1, 30):
        made = checkpoint(number, value="v" * 1000)
        made["channel_versions"] = first["channel_versions"]
        config = await saver.aput(config, made, {}, {})
    await saver.aprune(["t"])
    length = len(await events_of(service))
    await Checkpointer(service).aprune(["t", "unknown"])
    assert len(await events_of(service)) == length
    [left] = await listed(saver, THREAD)
    assert left.checkpoint["id"] == "00000029"
    assert left.checkpoint["channel_values"] == {"value": "v" * 1000}


async def test_pruning_needs_a_strategy_that_is_known(service: SessionService) -> None:
    """And nothing is deleted before it is checked."""
    saver = Checkpointer(service)
    await put(saver, 1)
    with pytest.raises(ValueError, match="'keep_latest' or 'delete', not 'all'"):
        await saver.aprune(["t"], strategy="all")
    assert await ids(saver, THREAD) == ["00000001"]


async def test_a_copy_is_there_whole_or_not_at_all(service: SessionService) -> None:
    """More than one append of it, and a target that exists stays as it is."""
    saver, config = Checkpointer(service), THREAD
    for number in range(600):
        config = await put(saver, number, config, value=f"{number} " * 100)
    append, left = service.append_events, 3

    async def failing(session: Any, events: Sequence[Event], **options: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            raise BackendUnavailableError(KEY, "no room")
        return await append(session, events, **options)

    target: RunnableConfig = {"configurable": {"thread_id": "copy", "checkpoint_ns": ""}}
    service.append_events = failing  # type: ignore[assignment,method-assign]
    with pytest.raises(BackendUnavailableError):
        await saver.acopy_thread("t", "copy")
    service.append_events = append  # type: ignore[method-assign]
    assert await ids(saver, target) == []
    await saver.acopy_thread("t", "copy")
    assert [
        (each.checkpoint, each.metadata, each.pending_writes)
        for each in await listed(saver, target)
    ] == [
        (each.checkpoint, each.metadata, each.pending_writes)
        for each in await listed(saver, THREAD)
    ]
    with pytest.raises(SessionExistsError):
        await saver.acopy_thread("t", "copy")
    await put(saver, 700, target)
    assert (await newest(saver)).checkpoint["id"] == "00000599"
    page = await service.list_sessions("langgraph", limit=100)
    assert sorted(session.id for session in page.sessions) == ["copy", "t"]
