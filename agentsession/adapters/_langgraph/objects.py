"""Bytes of LangGraph's objects, and objects of bytes; the one module here that knows LangGraph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
    get_checkpoint_metadata,
    writes_sort_key,
)

from agentsession.adapters._langgraph.checkpoints import NewCheckpoint
from agentsession.adapters._langgraph.listing import Wanted
from agentsession.adapters._langgraph.records import Packed, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import ChannelVersions, PendingWrite
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from agentsession.adapters._langgraph.channels import ChannelHistory
    from agentsession.adapters._langgraph.records import Loaded

__all__ = [
    "config_of",
    "delta_history",
    "named_place",
    "new_checkpoint",
    "new_writes",
    "place_of",
    "tuple_of",
    "wanted",
]


def place_of(config: RunnableConfig) -> tuple[str, str, str]:
    """Return the thread, the namespace and the checkpoint that a config names; the last may be "".

    Raises:
        ValueError: It names no thread.
    """
    names = config.get("configurable", {})
    thread_id = names.get("thread_id")
    if thread_id is None or thread_id == "":
        msg = "config names no thread: pass {'configurable': {'thread_id': …}}"
        raise ValueError(msg)
    return str(thread_id), names.get("checkpoint_ns") or "", get_checkpoint_id(config) or ""


def named_place(config: RunnableConfig) -> tuple[str, str, str]:
    """Return the same of a config that has to name a checkpoint.

    Raises:
        ValueError: It names no thread, or no checkpoint.
    """
    thread_id, namespace, checkpoint_id = place_of(config)
    if not checkpoint_id:
        msg = f"config names no checkpoint of thread {thread_id!r:.80}: it lacks 'checkpoint_id'"
        raise ValueError(msg)
    return thread_id, namespace, checkpoint_id


def config_of(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    """Make a config that names a checkpoint."""
    return {
        "configurable": {
            "thread_id": thread_id,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
        }
    }


def new_checkpoint(
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> NewCheckpoint:
    """Make bytes of a checkpoint, and of the values that have changed."""
    _, namespace, parent = place_of(config)
    values, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
    rest = {name: value for name, value in checkpoint.items() if name != "channel_values"}
    completed = get_checkpoint_metadata(config, metadata)
    run_id = completed.get("run_id")
    return NewCheckpoint(
        namespace=namespace,
        checkpoint_id=checkpoint["id"],
        parent=parent,
        checkpoint=_packed(serde, rest),
        metadata=_packed(serde, completed),
        run_id=run_id if isinstance(run_id, str) else "",
        versions={channel: versions.get(channel) for channel in values},
        changed={each: _packed(serde, values[each]) for each in new_versions if each in values},
        pack=lambda channel: _packed(serde, values[channel]),
    )


def new_writes(
    serde: SerializerProtocol, writes: Iterable[tuple[str, Any]], task_id: str, task_path: str
) -> list[Write]:
    """Make bytes of what a task has written."""
    return [
        Write(
            task_id=task_id,
            index=WRITES_IDX_MAP.get(channel, index),
            channel=channel,
            value=_packed(serde, value),
            task_path=task_path,
        )
        for index, (channel, value) in enumerate(writes)
    ]


def tuple_of(serde: SerializerProtocol, loaded: Loaded) -> CheckpointTuple:
    """Make a checkpoint of its bytes."""
    record, place = loaded.record, (loaded.thread_id, loaded.namespace)
    rest = serde.loads_typed(record.checkpoint)
    values = {channel: serde.loads_typed(packed) for channel, packed in loaded.values.items()}
    return CheckpointTuple(
        config=config_of(*place, loaded.checkpoint_id),
        checkpoint=cast("Checkpoint", {**rest, "channel_values": values}),
        metadata=serde.loads_typed(record.metadata),
        parent_config=config_of(*place, record.parent) if record.parent else None,
        pending_writes=[*_in_order(serde, loaded.writes)],
    )


def delta_history(serde: SerializerProtocol, found: ChannelHistory) -> DeltaChannelHistory:
    """Make what was written to a channel of its bytes, the oldest first."""
    writes = [write for step in reversed(found.steps) for write in _in_order(serde, step)]
    if found.seed is None:
        return {"writes": writes}
    return {"writes": writes, "seed": serde.loads_typed(found.seed)}


def wanted(
    serde: SerializerProtocol,
    config: RunnableConfig | None,
    filters: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> Wanted:
    """Make of the arguments of ``list()`` what is to be listed."""
    thread_id, namespace, checkpoint_id = None, None, ""
    if config is not None:
        thread_id, _, checkpoint_id = place_of(config)
        namespace = config.get("configurable", {}).get("checkpoint_ns")
    return Wanted(
        thread_id=thread_id,
        namespace=namespace,
        checkpoint_id=checkpoint_id,
        before=(get_checkpoint_id(before) or "") if before else "",
        metadata=_matching(serde, filters) if filters else None,
        limit=limit,
    )


def _matching(serde: SerializerProtocol, filters: Mapping[str, Any]) -> Callable[[Packed], bool]:
    """Return what tells whether metadata has the values that are asked for."""

    def matches(packed: Packed) -> bool:
        metadata = serde.loads_typed(packed)
        return all(metadata.get(name) == value for name, value in filters.items())

    return matches


def _in_order(serde: SerializerProtocol, writes: Sequence[Write]) -> Iterator[PendingWrite]:
    """Make the writes of one step, in the order in which LangGraph applies them."""
    for write in sorted(writes, key=_sort_key):
        yield write.task_id, write.channel, serde.loads_typed(write.value)


def _sort_key(write: Write) -> tuple[str, str, int]:
    return writes_sort_key(write.task_path, write.task_id, write.index)


def _packed(serde: SerializerProtocol, value: object) -> Packed:
    return Packed(*serde.dumps_typed(value))
