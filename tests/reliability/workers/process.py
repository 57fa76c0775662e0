"""Workers in a process of their own.

``python -m reliability.workers.process`` prints what they record.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec import Struct

from agentsession import SessionService
from agentsession.errors import BackendUnavailableError
from reliability.history import Operation, encoded
from reliability.site import Terms
from reliability.workers.plan import Planner
from reliability.workers.worker import Worker


class Orders(Struct, frozen=True, kw_only=True):
    """What the workers of one process are to do.

    Attributes:
        url: Where they work.
        terms: How their service is opened.
        seed: What decides their steps, together with their names.
        workers: Their names, unique in the run.
        operations: How many calls each makes.
        cancelling: How likely a call is to be cancelled.
    """

    url: str
    terms: Terms
    seed: int
    workers: list[str]
    operations: int
    cancelling: float


def _print(operation: Operation) -> None:
    sys.stdout.buffer.write(encoded(operation))
    sys.stdout.buffer.flush()


async def work(orders: Orders, record: Callable[[Operation], None] = _print) -> None:
    """Open a service and let its workers do what they have to."""
    async with orders.terms.open(orders.url) as service:
        await _connect(service)
        async with asyncio.TaskGroup() as group:
            for name in orders.workers:
                planner = Planner(orders.seed, name, cancelling=orders.cancelling)
                worker = Worker(name, service, record, grace=orders.terms.grace)
                group.create_task(worker.work(planner.steps(orders.operations)))


async def _connect(service: SessionService) -> None:
    """Connect, however often; a first attempt that fails is told at once and not made again."""
    while True:
        with suppress(BackendUnavailableError):
            await service.get_app_state("app")
            return
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(work(msgspec.json.decode(sys.argv[1], type=Orders)))
