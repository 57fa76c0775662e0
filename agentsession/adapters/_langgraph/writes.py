"""Writes of tasks, which wait at a checkpoint for the end of its step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentsession.adapters._langgraph.access import Access, Numbering, Thread, append
from agentsession.adapters._langgraph.records import piece_id, to_events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.adapters._langgraph.log import Log
    from agentsession.adapters._langgraph.records import Write
    from agentsession.events import Event
    from agentsession.service import SessionService

__all__ = ["put_writes"]


async def put_writes(
    service: SessionService,
    access: Access,
    thread_id: str,
    namespace: str,
    checkpoint_id: str,
    writes: Sequence[Write],
) -> None:
    """Store what a task has written, in one step; what is stored already is not stored again.

    The checkpoint itself may come later.
    """
    place = namespace, checkpoint_id

    async def write(thread: Thread, log: Log) -> None:
        numbering = thread.numberings.used(place)
        if numbering is None:
            numbering = thread.remember(place, await log.pieces(*place))
        new = [each for each in writes if numbering.lacks(each)]
        if new:
            number = await _store(service, thread, log, place, numbering, new)
            await _fill(service, thread, place, numbering, number)
            numbering.add(new)

    await access.writing(service, thread_id, write)


async def _store(
    service: SessionService,
    thread: Thread,
    log: Log,
    place: tuple[str, str],
    numbering: Numbering,
    writes: Sequence[Write],
) -> int:
    """Store writes under a number that nobody else has taken, and return it."""

    async def gets(number: int) -> bool:
        events = to_events(piece_id(*place, number), "writes", writes, service.max_event_size)
        *_, stored = await append(service, thread.session, events)
        return (stored.timestamp, stored.content) == (events[-1].timestamp, events[-1].content)

    if not numbering.next:
        # The checkpoint itself may be under way in this process.
        async with numbering.first:
            if not numbering.next:
                is_first = await gets(0)
                numbering.next = 1
                if is_first:
                    return 0
    while True:
        number = numbering.take()
        is_there = await gets(number)
        numbering.unsure.discard(number)
        if is_there:
            return number
        last, _ = await log.last(lambda each: piece_id(*place, each), number)
        numbering.next = max(numbering.next, last + 1)


async def _fill(
    service: SessionService,
    thread: Thread,
    place: tuple[str, str],
    numbering: Numbering,
    number: int,
) -> None:
    """Leave no gap before a number: who reads the list stops at the first one.

    Other tasks of this process have taken numbers at the same time, and may fail to use them. One
    that comes too late for its number because of this takes another one.
    """
    gaps = sorted(each for each in numbering.unsure if each < number)
    if gaps:
        fillers: list[Event] = []
        for each in gaps:
            fillers += to_events(piece_id(*place, each), "writes", [], service.max_event_size)
        await append(service, thread.session, fillers)
        numbering.unsure.difference_update(gaps)
