"""Checkpoints as the tests store and find them."""

from __future__ import annotations

from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    Checkpoint,
    CheckpointTuple,
    empty_checkpoint,
)

from agentsession import Data, SessionKey, SessionService
from agentsession.adapters.langgraph import Checkpointer
from agentsession.events import Event

THREAD: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
KEY = SessionKey("langgraph", "t", "t")
LARGE = "x" * 5_000_000

Options: TypeAlias = dict[str, Any]


def checkpoint(number: int, /, **values: Any) -> Checkpoint:
    """A checkpoint whose id has a place in an order, with a version for each value."""
    made = empty_checkpoint()
    made["id"] = f"{number:08}"
    made["channel_values"] = values
    made["channel_versions"] = dict.fromkeys(values, f"{number:032}.0")
    return made


async def put(
    saver: Checkpointer, number: int, config: RunnableConfig = THREAD, /, **values: Any
) -> RunnableConfig:
    made = checkpoint(number, **values)
    return await saver.aput(config, made, {"step": number}, made["channel_versions"])


async def listed(
    saver: BaseCheckpointSaver[str], *args: Any, **kwargs: Any
) -> list[CheckpointTuple]:
    return [each async for each in saver.alist(*args, **kwargs)]


async def ids(saver: BaseCheckpointSaver[str], *args: Any, **kwargs: Any) -> list[str]:
    return [each.checkpoint["id"] for each in await listed(saver, *args, **kwargs)]


async def newest(
    saver: BaseCheckpointSaver[str], config: RunnableConfig = THREAD
) -> CheckpointTuple:
    found = await saver.aget_tuple(config)
    assert found is not None
    return found


async def events_of(service: SessionService, key: SessionKey = KEY) -> list[Event]:
    session = await service.get_session(key)
    return [] if session is None else session.events


def kind(event: Event) -> str:
    """What a thread's event holds."""
    part = event.content[0]
    assert isinstance(part, Data)
    return part.media_type.removeprefix("application/vnd.langgraph.")


def places(found: CheckpointTuple) -> list[tuple[str, str, Any]]:
    assert found.pending_writes is not None
    return found.pending_writes
