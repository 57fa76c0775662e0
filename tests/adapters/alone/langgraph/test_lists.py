"""Lists of checkpoints."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="LangGraph is not installed")


from adapters.alone.langgraph.checkpoints import THREAD, checkpoint, ids, listed, put
from adapters.operations import Operations
from agentsession import SessionKey, SessionService
from agentsession.adapters.langgraph import Checkpointer


async def test_lists_filter_by_any_metadata(service: SessionService) -> None:
    """By values that JSON has no word for as well, and by names that are not there."""
    saver = Checkpointer(service)
    for number in range(40):
        made = checkpoint(number)
        metadata: Any = {"odd": number % 2 == 1, "parts": [number % 3, "x"], "step": number}
        await saver.aput(THREAD, made, metadata, {})
    odd = [f"{number:08}" for number in range(39, -1, -2)]
    assert await ids(saver, THREAD, filter={"odd": True}) == odd
    assert await ids(saver, THREAD, filter={"odd": True}, limit=3) == odd[:3]
    parts = await ids(saver, THREAD, filter={"odd": True, "parts": [0, "x"]})
    assert parts == [f"{number:08}" for number in range(39, -1, -1) if number % 6 == 3]
    assert len(await ids(saver, THREAD, filter={"never": None})) == 40
    assert await ids(saver, THREAD, filter={"never": 1}) == []


async def test_a_list_without_a_thread_has_those_of_all(service: SessionService) -> None:
    """Of the application, in one order; sessions of other things are left alone."""
    saver = Checkpointer(service)
    await service.create_session(SessionKey("langgraph", "ann", "chat"))
    for number in range(12):
        await put(saver, number, {"configurable": {"thread_id": f"t{number % 3}"}})
    found = await listed(saver, None, limit=5)
    assert [each.config["configurable"]["thread_id"] for each in found] == [
        f"t{number % 3}" for number in range(11, 6, -1)
    ]
    assert len(await ids(saver, None, filter={"step": 7})) == 1


async def test_a_list_can_be_of_one_checkpoint(service: SessionService) -> None:
    """As the other savers have it."""
    saver = Checkpointer(service)
    for number in range(5):
        config = await put(saver, number)
    assert await ids(saver, config) == ["00000004"]


async def test_a_list_ends_when_its_thread_is_deleted(service: SessionService) -> None:
    """In the middle; what was read before that is given still."""
    saver = Checkpointer(service)
    for number in range(50):
        await put(saver, number)
    seen = 0
    async for _ in saver.alist(THREAD):
        seen += 1
        if seen == 1:
            await Checkpointer(service).adelete_thread("t")
    assert seen < 50


async def test_a_list_takes_few_calls(
    service: SessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints are stored one after the other, so that the log is read rather than looked in.

    Unless that would take too much memory.
    """
    asked = Operations()
    saver, counted = Checkpointer(service), SessionService(service.backend, observers=[asked])
    config = THREAD
    for number in range(60):
        config = await put(saver, number, config, value="x" * 1000)
        for task in range(2):
            await saver.aput_writes(config, [("a", task)], str(task))
    expected = await ids(saver, THREAD)
    assert len(expected) == 60
    for limit, calls in ((1, 1), (10, 2), (None, 4)):
        asked.names.clear()
        found = await listed(Checkpointer(counted), THREAD, limit=limit)
        assert [each.checkpoint["id"] for each in found] == expected[:limit]
        assert all(len(each.pending_writes or ()) == 2 for each in found)
        assert len(asked.names) == calls
    monkeypatch.setattr("agentsession.adapters._langgraph.log._HELD", 1)
    assert await ids(Checkpointer(service), THREAD) == expected
