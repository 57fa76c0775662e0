"""Writes of tasks, before and after their checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="LangGraph is not installed")

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from adapters.alone.langgraph.checkpoints import (
    KEY,
    THREAD,
    checkpoint,
    events_of,
    kind,
    newest,
    places,
    put,
)
from agentsession import SessionService
from agentsession.adapters._langgraph.records import piece_id
from agentsession.adapters.langgraph import Checkpointer
from agentsession.backend import Entry
from agentsession.errors import BackendUnavailableError, CodecError
from agentsession.events import Event


async def test_writes_are_stored_once_for_each_task_and_index(service: SessionService) -> None:
    """By this process or another; nothing is added to the log, and the first value stays."""
    config = await put(Checkpointer(service), 1)
    await Checkpointer(service).aput_writes(config, [("a", 1), ("b", 2)], "task")
    length = len(await events_of(service))
    saver = Checkpointer(service)
    await saver.aput_writes(config, [("a", 3), ("b", 4)], "task")
    await saver.aput_writes(config, [("a", 3), ("b", 4)], "task")
    assert len(await events_of(service)) == length
    assert places(await newest(saver)) == [("task", "a", 1), ("task", "b", 2)]
    await saver.aput_writes(config, [("a", 3), ("b", 4), ("c", 5)], "task")
    assert places(await newest(saver)) == [("task", "a", 1), ("task", "b", 2), ("task", "c", 5)]


async def test_of_two_that_write_the_same_the_first_counts(service: SessionService) -> None:
    """Both have looked before, and neither has seen the other's."""
    savers = Checkpointer(service), Checkpointer(service)
    config = await put(savers[0], 1)
    for saver in savers:
        await newest(saver)
    for number, saver in enumerate(savers):
        await saver.aput_writes(config, [("a", number)], "task")
    for saver in (*savers, Checkpointer(service)):
        assert places(await newest(saver)) == [("task", "a", 0)]


async def test_of_special_writes_the_last_one_counts(service: SessionService) -> None:
    """Interrupts and errors are written anew when a task runs again."""
    config = await put(Checkpointer(service), 1)
    for attempt in ("first", "second"):
        saver = Checkpointer(service)
        await saver.aput_writes(config, [(INTERRUPT, attempt), (ERROR, attempt)], "task")
    written = {channel: value for _, channel, value in places(await newest(Checkpointer(service)))}
    assert written == {INTERRUPT: "second", ERROR: "second"}


async def test_writes_come_in_the_order_in_which_steps_apply_them(service: SessionService) -> None:
    """By the paths of their tasks, then by task and index, whoever was first."""
    saver = Checkpointer(service)
    config = await put(saver, 1)
    for task, path in (("1", "~3"), ("2", "~1"), ("3", "~2"), ("0", "")):
        await saver.aput_writes(config, [("x", task), ("y", task)], task, path)
    assert [write[:2] for write in places(await newest(saver))] == [
        (task, channel) for task in ("0", "2", "3", "1") for channel in ("x", "y")
    ]


async def test_writes_may_come_before_their_checkpoint(service: SessionService) -> None:
    """LangGraph stores both in the background."""
    saver = Checkpointer(service)
    config: RunnableConfig = {
        "configurable": {**THREAD["configurable"], "checkpoint_id": "00000001"}
    }
    await saver.aput_writes(config, [("a", 1)], "task")
    assert await saver.aget_tuple(THREAD) is None
    for number in range(2, 12):
        await put(saver, number)
    await put(saver, 1)
    found = await newest(Checkpointer(service), config)
    assert places(found) == [("task", "a", 1)]


class Held:
    """Holds up the first append of some kind that a service is asked for, or lets it fail."""

    def __init__(self, service: SessionService, what: str) -> None:
        self._append = service.append_events
        self._what = what
        self._arrived, self._go = asyncio.Event(), asyncio.Event()
        self.fails = False
        service.append_events = self._held  # type: ignore[assignment,method-assign]

    async def _held(self, session: Any, events: Sequence[Event], **options: Any) -> Any:
        if self._what in map(kind, events) and not self._arrived.is_set():
            self._arrived.set()
            await self._go.wait()
            if self.fails:
                raise BackendUnavailableError(KEY, "no room")
        return await self._append(session, events, **options)

    async def arrived(self) -> None:
        await self._arrived.wait()

    def go(self, *, fails: bool = False) -> None:
        self.fails = fails
        self._go.set()


async def test_writes_of_another_process_may_come_before_their_checkpoint(
    service: SessionService,
) -> None:
    """And whoever reads the newest one has them, however far before it they are."""
    config: RunnableConfig = {
        "configurable": {**THREAD["configurable"], "checkpoint_id": "00000009"}
    }
    for task in ("1", "2"):
        await Checkpointer(service).aput_writes(config, [("a", task)], task)
    for number in range(8):
        await put(Checkpointer(service), number)
    made = checkpoint(9)
    for _ in range(2):
        await Checkpointer(service).aput(THREAD, made, {}, {})
    await Checkpointer(service).aput_writes(config, [("a", "3")], "3")
    for saver in (Checkpointer(service), Checkpointer(service)):
        assert [value for _, _, value in places(await newest(saver))] == ["1", "2", "3"]
        found = await newest(saver, config)
        assert [value for _, _, value in places(found)] == ["1", "2", "3"]
    with pytest.raises(ValueError, match="is stored with other content"):
        await put(Checkpointer(service), 9, value="another")
    kinds = [kind(event) for event in await events_of(service)]
    assert (kinds.count("checkpoint"), kinds.count("writes")) == (9, 3)


async def test_writes_wait_for_their_checkpoint_if_it_is_under_way(
    service: SessionService,
) -> None:
    """LangGraph stores both at once, and then the checkpoint is the first piece of its list."""
    saver = Checkpointer(service)
    config = await put(saver, 1)
    held = Held(service, "checkpoint")
    storing = asyncio.create_task(put(saver, 2, config))
    await held.arrived()
    config = {"configurable": {**THREAD["configurable"], "checkpoint_id": "00000002"}}
    writing = [
        asyncio.create_task(saver.aput_writes(config, [("a", task)], task)) for task in ("1", "2")
    ]
    done, _ = await asyncio.wait(writing, timeout=0.01)
    assert not done
    held.go()
    await asyncio.gather(storing, *writing)  # noqa: TID251 - they run already
    kinds = [kind(event) for event in await events_of(service)]
    assert kinds[-4:] == ["checkpoint", "index", "writes", "writes"]
    assert [value for _, _, value in places(await newest(Checkpointer(service)))] == ["1", "2"]


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_a_checkpoint_that_was_not_stored_holds_up_no_writes(
    how: str, service: SessionService
) -> None:
    """They are stored before it, and it is stored after them when it comes again."""
    saver = Checkpointer(service)
    config = await put(saver, 1)
    held = Held(service, "checkpoint")
    storing = asyncio.create_task(put(saver, 2, config))
    await held.arrived()
    later: RunnableConfig = {
        "configurable": {**THREAD["configurable"], "checkpoint_id": "00000002"}
    }
    writing = asyncio.create_task(saver.aput_writes(later, [("a", 1)], "task"))
    if how == "fails":
        held.go(fails=True)
    else:
        storing.cancel()
    with pytest.raises((BackendUnavailableError, asyncio.CancelledError)):
        await storing
    await writing
    assert (await newest(Checkpointer(service))).checkpoint["id"] == "00000001"
    await put(saver, 2, config)
    await saver.aput_writes(later, [("a", 2)], "another")
    for each in (saver, Checkpointer(service)):
        found = await newest(each)
        assert found.checkpoint["id"] == "00000002"
        assert [value for _, _, value in places(found)] == [2, 1]


async def test_nobody_takes_a_number_before_the_first_one_is_stored(
    service: SessionService,
) -> None:
    """Else the checkpoint could come between, and who reads it would miss what came before."""
    saver = Checkpointer(service)
    await put(saver, 1)
    config: RunnableConfig = {
        "configurable": {**THREAD["configurable"], "checkpoint_id": "00000002"}
    }
    held = Held(service, "writes")
    first = asyncio.create_task(saver.aput_writes(config, [("a", 1)], "1"))
    await held.arrived()
    second = asyncio.create_task(saver.aput_writes(config, [("a", 2)], "2"))
    await asyncio.wait([second], timeout=0.01)
    await put(Checkpointer(service), 2)
    held.go()
    await asyncio.wait([first, second])
    assert [value for _, _, value in places(await newest(Checkpointer(service)))] == [1, 2]


async def test_writes_that_cannot_be_read_are_an_error(service: SessionService) -> None:
    """At the end of the log as anywhere else; without them a task would be run again."""
    saver = Checkpointer(service)
    config = await put(saver, 1)
    await saver.aput_writes(config, [("a", 1)], "1")
    unreadable = Entry(piece_id("", "00000001", 2), 1, b"{}")
    await service.backend.append(KEY, [unreadable])
    await saver.aput_writes(config, [("a", 3)], "3")
    with pytest.raises(CodecError, match="unreadable"):
        await newest(Checkpointer(service))


async def test_tasks_that_write_at_once_lose_nothing(service: SessionService) -> None:
    """In one process, and in two."""
    savers = Checkpointer(service), Checkpointer(service)
    config = await put(savers[0], 1)
    async with asyncio.TaskGroup() as group:
        for number in range(60):
            saver = savers[number % 2]
            group.create_task(saver.aput_writes(config, [("a", number)], f"{number:02}"))
    written = [value for _, _, value in places(await newest(Checkpointer(service)))]
    assert written == list(range(60))


async def test_a_write_that_fails_hides_none_that_come_after_it(service: SessionService) -> None:
    """Others have taken later numbers, and who reads a list stops at the first gap."""
    saver = Checkpointer(service)
    config = await put(saver, 1)
    append, arrived, failed = service.append_events, asyncio.Event(), asyncio.Event()

    async def failing(session: Any, events: Sequence[Event], **options: Any) -> Any:
        if kind(events[-1]) == "writes" and not arrived.is_set():
            arrived.set()
            await failed.wait()
            raise BackendUnavailableError(KEY, "no room")
        return await append(session, events, **options)

    service.append_events = failing  # type: ignore[assignment,method-assign]
    first = asyncio.create_task(saver.aput_writes(config, [("a", 1)], "first"))
    await arrived.wait()
    await saver.aput_writes(config, [("a", 2)], "second")
    failed.set()
    with pytest.raises(BackendUnavailableError):
        await first
    assert places(await newest(Checkpointer(service))) == [("second", "a", 2)]
    await saver.aput_writes(config, [("a", 1)], "first")
    assert [value for _, _, value in places(await newest(Checkpointer(service)))] == [1, 2]
