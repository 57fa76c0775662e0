"""How often a turn waits for the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentsession import AgentContext, Event, RedisSessionService, Runner, SessionService
from agentsession.redis._links.link import Link


class Trips:
    """Counts round trips: calls that begin while others are under way travel with them."""

    def __init__(self, service: SessionService) -> None:
        backend: Any = service.backend
        self.number = 0
        self._under_way = 0
        self._link: Link = backend._calls._link
        backend._calls._link = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    async def run(self, *args: Any, **options: Any) -> Any:
        self.number += not self._under_way
        self._under_way += 1
        try:
            return await self._link.run(*args, **options)
        finally:
            self._under_way -= 1


@pytest.mark.parametrize(
    ("known", "own_end", "trips"),
    [(True, False, 1 + 3 + 1), (True, True, 1 + 3), (False, False, 3 + 3 + 1)],
    ids=["usual", "its own end", "new session"],
)
async def test_a_turn_has_few_round_trips(
    valkey_url: str, *, known: bool, own_end: bool, trips: int
) -> None:
    """One to begin, one an event, and one to end: as many as without a lease.

    Without one it was a load, an append of the message, and one an event; a new session took one
    more, and takes two more now.
    """

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        for number in range(3):
            yield Event(
                author="agent",
                content=str(number),
                outcome="completed" if own_end and number == 2 else "",
            )

    async with RedisSessionService.from_url(valkey_url, key_prefix="trips:") as service:
        runner = Runner("app", agent, service)
        await runner.run("user", "before", "hi").result()
        counted = Trips(service)
        await runner.run("user", "before" if known else "", "hi").result()
        assert counted.number == trips
