"""A process of followers: ``python -m reliability.following.followers ORDERS``.

It prints a line when all of them follow. Then it reads a line, with the end of each session's log,
waits until its followers have come there, and prints what they were given, one a line.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from random import Random

import msgspec
from msgspec import Struct

from agentsession import RedisSessionService
from agentsession.errors import BackendUnavailableError
from agentsession.subscriptions import Ended, Subscription, Trimmed
from reliability.following.checker import Record, words
from reliability.following.place import key_of, lines_of_input

# In seconds, until the next attempt where the store cannot be reached.
_REST = 0.05


class Orders(Struct, frozen=True, kw_only=True):
    """What a process is to follow.

    Attributes:
        url: Where.
        name: Of the process.
        sessions: Of each follower, which session.
        timeout: Seconds that a call may take.
        reopening: How likely one goes on by another subscription, after each item.
    """

    url: str
    name: str
    sessions: list[int]
    timeout: float
    reopening: float


class _Follower:
    def __init__(self, service: RedisSessionService, record: Record, reopening: float) -> None:
        self.record = record
        self.begun = asyncio.Event()
        self._service = service
        self._reopening = reopening
        self._random = Random(record.follower)
        self._position = 0
        self._end: str | None = None
        self._items: Subscription | None = None

    async def come_to(self, end: str) -> None:
        """End when the last that the follower was given is this; "" for nothing."""
        self._end = end
        if self._is_done and self._items is not None:
            await self._items.aclose()

    @property
    def _is_done(self) -> bool:
        # Not by the position: in a log that is lost there may be as many events, or more.
        return self._end == (self.record.given[-1] if self.record.given else "")

    async def work(self) -> None:
        while not self._is_done:
            try:
                await self._follow()
            except BackendUnavailableError:
                self.record.unavailable += 1
                await asyncio.sleep(_REST)

    async def _follow(self) -> None:
        items = self._service.subscribe(key_of(self.record.session), after_seq=self._position)
        async with items:
            self._items = items
            self.begun.set()
            while True:
                try:
                    return await self._take(items)
                except BackendUnavailableError:
                    # Iterating anew goes on where it was.
                    self.record.unavailable += 1
                    await asyncio.sleep(_REST)

    async def _take(self, items: Subscription) -> None:
        """Take what comes, for as long as it is to be by the same subscription."""
        async for item in items:
            if isinstance(item, Ended):
                self.record.replaced += 1
                self.record.given.clear()
                self._position = 0
                return
            self.record.trimmed += isinstance(item, Trimmed)
            self.record.given.append(words(item))
            self._position = items.position
            if self._is_done:
                return
            if self._random.random() < self._reopening:
                self.record.reopened += 1
                return


async def follow(orders: Orders) -> None:
    """Do what the orders say."""
    async with (
        RedisSessionService.from_url(
            orders.url, session_event_limit=None, timeout=orders.timeout
        ) as service,
        asyncio.TaskGroup() as group,
    ):
        followers = [
            _Follower(
                service, Record(follower=f"{orders.name}f{n}", session=session), orders.reopening
            )
            for n, session in enumerate(orders.sessions)
        ]
        tasks = [group.create_task(each.work()) for each in followers]
        for each in followers:
            await each.begun.wait()
        print("ready", flush=True)
        line = await anext(lines_of_input())
        ends: Mapping[int, str] = msgspec.json.decode(line, type=dict[int, str])
        for each in followers:
            await each.come_to(ends[each.record.session])
        await asyncio.wait(tasks)
        for each in followers:
            print(msgspec.json.encode(each.record).decode())


if __name__ == "__main__":
    asyncio.run(follow(msgspec.json.decode(sys.argv[1], type=Orders)))
