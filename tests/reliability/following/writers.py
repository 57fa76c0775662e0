"""A process of writers: ``python -m reliability.following.writers ORDERS``.

It prints a line when they begin. They write until its input ends, and then print what came of it.
"""

from __future__ import annotations

import asyncio
import sys
from random import Random

import msgspec
from msgspec import Struct

from agentsession import Event, RedisSessionService
from agentsession.errors import BackendError, EventGoneError, RewindError
from reliability.following.place import key_of, lines_of_input

_MOST_AT_ONCE = 5
_MOST_BACK = 20
# In seconds, until the next attempt.
_REST = 0.02


class Orders(Struct, frozen=True, kw_only=True):
    """What a process is to write.

    Attributes:
        url: Where.
        name: Of the process.
        sessions: How many there are.
        writers: How many write.
        pause: Seconds that each rests after a call.
        timeout: Seconds that a call may take.
        ack_replicas: How many replicas must have what is acknowledged.
    """

    url: str
    name: str
    sessions: int
    writers: int
    pause: float
    timeout: float
    ack_replicas: int


class Account(Struct, kw_only=True):
    """What writers did.

    Attributes:
        acknowledged: Of each session, the ids of the events that are stored, as they were told.
        rewinds: How often they went back.
        repeats: How often a call was made again, because it had failed.
    """

    acknowledged: dict[int, list[str]] = {}
    rewinds: int = 0
    repeats: int = 0


class _Writer:
    def __init__(
        self, service: RedisSessionService, orders: Orders, name: str, account: Account
    ) -> None:
        self._service = service
        self._orders = orders
        self._random = Random(name)
        self._name = name
        self._account = account
        self._number = 0
        self.is_told_to_stop = False

    async def work(self) -> None:
        while not self.is_told_to_stop:
            session = self._random.randrange(self._orders.sessions)
            if self._random.random() < 0.1:
                await self._go_back(session)
            else:
                await self._append(session)
            await asyncio.sleep(self._orders.pause * self._random.uniform(0.5, 1.5))

    def _events(self) -> list[Event]:
        number = self._random.choice((1, 1, 1, self._random.randint(1, _MOST_AT_ONCE)))
        self._number += number
        numbers = range(self._number - number, self._number)
        return [Event(id=f"{self._name} {each}", author="agent", content="x") for each in numbers]

    async def _append(self, session: int) -> None:
        events = self._events()
        while True:
            try:
                await self._service.append_events(key_of(session), events)
            except EventGoneError:
                # It was stored by an attempt that failed, and taken back since.
                return
            except BackendError:
                self._account.repeats += 1
                await asyncio.sleep(_REST)
            else:
                ids = [event.id for event in events]
                self._account.acknowledged.setdefault(session, []).extend(ids)
                return

    async def _go_back(self, session: int) -> None:
        """Go back to some event; not where that was taken back before, or it fails."""
        key = key_of(session)
        try:
            found = await self._service.get_events(key, limit=_MOST_BACK, newest_first=True)
            if found:
                to_seq = self._random.choice(found).seq
                restores = self._random.random() < 0.5
                await self._service.rewind(key, to_seq=to_seq, restore_state=restores)
                self._account.rewinds += 1
        except RewindError:
            pass
        except BackendError:
            self._account.repeats += 1


async def write(orders: Orders) -> None:
    """Do what the orders say."""
    account = Account()
    async with (
        RedisSessionService.from_url(
            orders.url,
            session_event_limit=None,
            timeout=orders.timeout,
            ack_replicas=orders.ack_replicas,
        ) as service,
        asyncio.TaskGroup() as group,
    ):
        writers = [
            _Writer(service, orders, f"{orders.name}w{number}", account)
            for number in range(orders.writers)
        ]
        for each in writers:
            group.create_task(each.work())
        print("ready", flush=True)
        async for _ in lines_of_input():
            pass
        for each in writers:
            each.is_told_to_stop = True
    print(msgspec.json.encode(account).decode())


if __name__ == "__main__":
    asyncio.run(write(msgspec.json.decode(sys.argv[1], type=Orders)))
