"""What is exported from one backend and imported into another one is the same there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeAlias

import pytest

from agentsession.demo._player import APP_NAME, replay
from agentsession.testing import MemorySubject, Subject
from harness import servers
from harness.files import SQLiteSubject
from harness.subjects import RedisSubject
from transfer.worlds import World, exported, exported_with_report, imported, seen
from turns.recordings import recordings

Pair: TypeAlias = tuple[Subject, Subject]

# One kind of server is enough beside a file, which asks nothing of it.
WAYS = [(one, "memory") for one in ("sqlite", *servers.kinds())] + [("sqlite", servers.kinds()[0])]
WAYS += [(there, here) for here, there in WAYS]
# Files take longer, so there are fewer worlds in them.
RANDOM = [(way, seed) for way in WAYS for seed in range(3 if "sqlite" in way else 12)]
NAMES = [f"{' to '.join(way)}-{seed}" for way, seed in RANDOM]


@pytest.fixture(params=WAYS, ids=" to ".join)
async def pair(request: pytest.FixtureRequest, server_urls: dict[str, str]) -> AsyncIterator[Pair]:
    """Two of memory, a file and a server, in either direction."""

    def subject(kind: str) -> Subject:
        if kind == "memory":
            return MemorySubject()
        return SQLiteSubject() if kind == "sqlite" else RedisSubject(server_urls[kind])

    here, there = map(subject, request.param)
    async with here, there:
        yield here, there


@pytest.mark.parametrize("limit", [None, 5, 8])
@pytest.mark.parametrize(("pair", "seed"), RANDOM, indirect=["pair"], ids=NAMES)
async def test_random_sessions_are_the_same_elsewhere(
    pair: Pair, seed: int, limit: int | None
) -> None:
    """Events, positions, states of all scopes and of each moment, turns; and the same bytes."""
    here, there = pair
    world = World(here, seed, limit)
    await world.make()
    first, counts = await exported_with_report(world.service)
    assert (counts.problems, counts.sessions) == ([], len(world.keys))
    service = there.service(event_limit=None)
    report = await imported(service, first)
    assert report.problems == []
    assert (report.sessions, report.events) == (counts.sessions, counts.events)
    await there.advance(1)
    assert await exported(service) == first
    for key in world.keys:
        assert await seen(there, service, key) == await seen(here, world.service, key)


async def test_conversations_are_the_same_elsewhere(pair: Pair) -> None:
    """Recorded ones, played turn by turn with their calls of tools; also in the way back."""
    here, there = pair
    services = [here.service(event_limit=None) for _ in range(2)]
    recorded = recordings()
    report = await replay(recorded, services, services[0], lambda: None)
    assert report.differences == []
    first, counts = await exported_with_report(services[0], APP_NAME)
    assert (counts.sessions, counts.problems) == (len(recorded), [])
    service, back = there.service(event_limit=None), here.service(event_limit=None)
    await imported(service, first)
    second = await exported(service, APP_NAME)
    assert second == first
    await imported(back, second, to_app="back")
    third = await exported(back, "back")
    assert third.replace(b'"app_name":"back"', b'"app_name":"%b"' % APP_NAME.encode()) == first
