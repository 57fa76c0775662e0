"""The values of checkpoints: each version is stored once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="LangGraph is not installed")

from langchain_core.runnables import RunnableConfig

from adapters.alone.langgraph.checkpoints import (
    LARGE,
    THREAD,
    Options,
    checkpoint,
    events_of,
    kind,
    listed,
    newest,
    put,
)
from agentsession import Data, InMemorySessionService, SessionService
from agentsession.adapters.langgraph import Checkpointer


async def test_a_value_is_stored_when_it_changes_and_not_again(service: SessionService) -> None:
    """What a graph stores does not grow with the square of its steps."""
    saver = Checkpointer(service)
    document, config = "d" * 100_000, THREAD
    for number in range(30):
        made = checkpoint(number, document=document, number=number)
        made["channel_versions"] = {"document": "1.0", "number": f"{number}.0"}
        changed: Options = {"number": f"{number}.0"} if number else made["channel_versions"]
        config = await saver.aput(config, made, {}, changed)
    assert sum(len(msgspec.json.encode(event)) for event in await events_of(service)) < 250_000
    for each in await listed(Checkpointer(service), THREAD):
        values = each.checkpoint["channel_values"]
        assert values == {"document": document, "number": int(each.checkpoint["id"])}


async def test_values_of_any_size_come_back_in_later_checkpoints(service: SessionService) -> None:
    """Some are in the event of the checkpoint in which they changed, and some beside it."""
    sizes = {"tiny": 10, "small": 5_000, "middle": 10_000, "more": 10_000, "large": 100_000}
    values = {name: name[0] * size for name, size in sizes.items()}
    config = THREAD
    for number in range(12):
        made = checkpoint(number, **values, number=number)
        made["channel_versions"] = {**dict.fromkeys(values, "1.0"), "number": f"{number}.0"}
        changed: Options = {"number": f"{number}.0"} if number else made["channel_versions"]
        saver = Checkpointer(service)
        if number % 2:
            await newest(saver)
        config = await saver.aput(config, made, {}, changed)
    await Checkpointer(service).acopy_thread("t", "copy")
    for thread_id in ("t", "copy"):
        for each in await listed(saver, {"configurable": {"thread_id": thread_id}}):
            number = int(each.checkpoint["id"])
            assert each.checkpoint["channel_values"] == {**values, "number": number}
    events = await events_of(service)
    assert [kind(event) for event in events].count("value") == 2
    assert sum(len(msgspec.json.encode(event)) for event in events) < 2 * sum(sizes.values())


async def test_a_value_is_never_taken_from_another_branch(service: SessionService) -> None:
    """Two branches of a thread may give one version of a channel different values."""
    saver = Checkpointer(service)
    root = await put(saver, 1, value="r" * 500)
    for number, words in ((2, "left " * 100), (3, "right " * 100)):
        made = checkpoint(number, value=words)
        made["channel_versions"] = {"value": 2}
        await saver.aput(root, made, {}, {"value": 2})
    found = {each.checkpoint["id"]: each for each in await listed(saver, THREAD)}
    assert found["00000002"].checkpoint["channel_values"] == {"value": "left " * 100}
    assert found["00000003"].checkpoint["channel_values"] == {"value": "right " * 100}


async def test_a_value_that_is_said_to_be_stored_and_is_not_is_stored(
    service: SessionService,
) -> None:
    """A checkpoint comes back with its values, also if its parent is not here."""
    made = checkpoint(5, value="v" * 1000)
    config: RunnableConfig = {"configurable": {**THREAD["configurable"], "checkpoint_id": "gone"}}
    await Checkpointer(service).aput(config, made, {}, {})
    found = await newest(Checkpointer(service))
    assert found.checkpoint["channel_values"] == {"value": "v" * 1000}
    assert found.parent_config is not None


@pytest.mark.parametrize("where", ["value", "write", "metadata"])
async def test_what_is_larger_than_an_event_is_stored_in_parts(
    where: str, service: SessionService
) -> None:
    """Five megabytes, where an event takes one."""
    saver = Checkpointer(service)
    made = checkpoint(1, value=LARGE if where == "value" else "small")
    metadata: Any = {"note": LARGE} if where == "metadata" else {}
    config = await saver.aput(THREAD, made, metadata, made["channel_versions"])
    await saver.aput_writes(config, [("channel", LARGE if where == "write" else "small")], "task")
    await saver.acopy_thread("t", "copy")
    for thread_id in ("t", "copy"):
        found = await newest(Checkpointer(service), {"configurable": {"thread_id": thread_id}})
        assert found.checkpoint["channel_values"] == made["channel_values"]
        assert {**found.metadata} == metadata
        assert found.pending_writes is not None
        assert [write[2] for write in found.pending_writes] == [
            LARGE if where == "write" else "small"
        ]


async def test_a_checkpoint_of_more_than_one_append_is_there_whole(store_url: str) -> None:
    """A thousand channels: values go ahead, and count when the checkpoint does."""
    if store_url != "memory://":
        pytest.skip("the cut into appends is the same on every store")
    async with InMemorySessionService(session_event_limit=None) as service:
        values = {f"channel {number}": f"{number} " * 200 for number in range(1200)}
        await put(Checkpointer(service), 1, **values)
        assert (await newest(Checkpointer(service))).checkpoint["channel_values"] == values


async def test_other_readers_see_bytes_and_no_conversation(service: SessionService) -> None:
    """A media type says what they are."""
    config = await put(Checkpointer(service), 1, value="v" * 1000)
    await Checkpointer(service).aput_writes(config, [("a", 1)], "task")
    for event in await events_of(service):
        part = event.content[0]
        assert isinstance(part, Data)
        assert part.media_type.startswith("application/vnd.langgraph.")
        assert not event.text
