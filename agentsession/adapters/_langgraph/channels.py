"""What was written to channels that keep their changes instead of their value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentsession.adapters._langgraph.checkpoints import newest
from agentsession.adapters._langgraph.records import Write, counting, piece_id

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agentsession.adapters._langgraph.access import Access, Thread
    from agentsession.adapters._langgraph.log import Log
    from agentsession.adapters._langgraph.records import CheckpointRecord, Packed, Pieces
    from agentsession.service import SessionService

__all__ = ["ChannelHistory", "history"]


@dataclass
class ChannelHistory:
    """What was written to a channel since it last had a value, and the value.

    Attributes:
        steps: What was written at each checkpoint, the newest checkpoint first.
        seed: The value, if it ever had one.
    """

    steps: list[list[Write]] = field(default_factory=list[list[Write]])
    seed: Packed | None = None


async def history(
    service: SessionService,
    access: Access,
    thread_id: str,
    namespace: str,
    checkpoint_id: str,
    channels: Collection[str],
) -> dict[str, ChannelHistory]:
    """Return the value of each channel in the nearest checkpoint before one, and what came since.

    Deleted checkpoints count: what they have written is part of those that came after them.

    Raises:
        CheckpointIncompleteError: A checkpoint on the way was trimmed.
    """

    async def walk(thread: Thread, log: Log) -> dict[str, ChannelHistory]:
        histories = {channel: ChannelHistory() for channel in channels}
        record = await _record(thread, log, thread_id, namespace, checkpoint_id)
        left = set(channels)
        while record is not None and record.parent and left:
            place = namespace, record.parent
            await log.reach_back_to(piece_id(*place, 0))
            pieces = await log.pieces(*place)
            record = pieces.record
            if record is not None:
                await _add_step(log, place, record, pieces, histories, left)
        return histories

    found = await access.reading(service, access.key_of(thread_id), walk)
    return {channel: ChannelHistory() for channel in channels} if found is None else found


async def _record(
    thread: Thread, log: Log, thread_id: str, namespace: str, checkpoint_id: str
) -> CheckpointRecord | None:
    """Return a checkpoint, or the newest one."""
    if checkpoint_id:
        return (await log.pieces(namespace, checkpoint_id)).record
    loaded = await newest(thread, log, thread_id, namespace)
    return None if loaded is None else loaded.record


async def _add_step(
    log: Log,
    place: tuple[str, str],
    record: CheckpointRecord,
    pieces: Pieces,
    histories: Mapping[str, ChannelHistory],
    left: set[str],
) -> None:
    """Add what was written at a checkpoint; the channels that have a value there are done."""
    writes = counting(pieces.writes)
    for channel in left:
        step = [write for write in writes if write.channel == channel]
        histories[channel].steps.append(step)
    slots = {name: slot for name, slot in record.channels.items() if name in left}
    for channel, packed in (await log.values(*place, slots)).items():
        histories[channel].seed = packed
        left.discard(channel)
