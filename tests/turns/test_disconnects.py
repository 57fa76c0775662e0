"""Many turns whose readers disconnect at any moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import anyio
import pytest

from agentsession import AgentContext, Event, Runner, SessionKey
from agentsession.runner import OnDisconnect
from agentsession.testing import Subject
from turns.test_runs import is_free, tasks
from turns.worker import APP, USER, plan
from turns.workers import check_pairs, check_turns

TURNS, AT_ONCE, SESSIONS = 1000, 40, 25


async def agent(context: AgentContext) -> AsyncIterator[Event]:
    """Say what is planned, with pauses as a model and tools make them."""
    dice = random.Random(context.message.id)
    for event in plan():
        for _ in range(dice.choice((0, 1, 5, 30))):
            await asyncio.sleep(0)
        yield event


@pytest.mark.parametrize("on_disconnect", ["cancel", "detach"])
async def test_readers_disconnect(
    subject: Subject, on_disconnect: OnDisconnect, request: pytest.FixtureRequest
) -> None:
    """The log is whole, every turn has an outcome, and no task, lease or waiter is left."""
    service = subject.service(event_limit=None)
    runner = Runner(APP, agent, service, on_disconnect=on_disconnect, wait=600)
    dice = random.Random(5)
    limit = anyio.CapacityLimiter(AT_ONCE)
    # All of them on one server, and fewer where little differs.
    number = TURNS if "valkey" in request.node.name else TURNS // 5

    async def one(count: int) -> None:
        # Where the store is a disk, most have gone before it has answered once; some stay.
        session, patience = f"s{count % SESSIONS}", dice.randrange(300 if count % 7 else 10_000)
        async with limit:
            run = runner.run(USER, session, Event(author="user", content="Go.", id=f"m{count}"))
            with anyio.move_on_after(30 if count % 10 == 0 else None) as scope:
                async with anyio.create_task_group() as group:

                    async def read() -> None:
                        async for _ in run:
                            pass
                        group.cancel_scope.cancel()

                    group.start_soon(read)
                    for _ in range(patience):
                        await asyncio.sleep(0)
                    group.cancel_scope.cancel()
            assert not scope.cancelled_caught

    async with anyio.create_task_group() as everybody:
        for count in range(number):
            everybody.start_soon(one, count)
    await runner.aclose()
    counted = dict.fromkeys(("completed", "cancelled"), 0)
    for session in range(SESSIONS):
        key = SessionKey(APP, USER, f"s{session}")
        found = await service.get_session(key)
        if found is None:
            continue  # Every one of its readers had gone before its turn came.
        check_turns(found.events)
        check_pairs(await service.get_history(key))
        for event in found.events:
            if event.outcome:
                counted[event.outcome] += 1
        assert await is_free(service, key)
    assert not tasks()
    assert counted["completed"]
    assert counted["cancelled"] or on_disconnect == "detach"
