"""What flows is not hung: bytes that come in, or leave, are life, however long the rest takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.redis._core.request import Command
from harness.insides import link_of
from harness.proxy import Proxy, proxied

pytestmark = pytest.mark.on_both_loops

# Four events take two fifths of the deadline, and more than a connection may be silent.
RATE = 2_000_000
SIZE = 1_000_000
NUMBER = 4
TIMEOUT = 5.0


@pytest.fixture
def key(request: pytest.FixtureRequest) -> SessionKey:
    return SessionKey("flow", request.node.name, "session")


@pytest.fixture
async def proxy(valkey_url: str) -> AsyncIterator[Proxy]:
    async with proxied(valkey_url) as started:
        yield started


def large(number: int) -> Event:
    return Event(author="user", content=f"{number}" + "x" * SIZE)


async def test_a_reply_that_flows_is_waited_for(proxy: Proxy, key: SessionKey) -> None:
    """It comes over one connection, and so do the answers to small calls behind it."""
    async with RedisSessionService.from_url(proxy.url, timeout=TIMEOUT) as service:
        await service.create_session(key)
        await service.append_events(key, [large(n) for n in range(NUMBER)])
        await service.get_events(key, limit=1)  # A script that is not known is sent again, later.
        proxy.rate = RATE
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(service.get_events(key))
            await asyncio.sleep(0)
            small = group.create_task(service.append_event(key, Event(author="user")))
        assert [event.content[0] for event in reading.result()] == ["0", "1", "2", "3"]
        assert small.result().seq == NUMBER + 1
    assert proxy.connections == 1


async def test_a_command_that_flows_is_waited_for(proxy: Proxy, key: SessionKey) -> None:
    """It leaves over one connection, and so do small calls behind it."""
    async with RedisSessionService.from_url(proxy.url, timeout=TIMEOUT) as service:
        await service.create_session(key)
        proxy.rate = RATE
        async with asyncio.TaskGroup() as group:
            events = [large(n) for n in range(NUMBER)]
            before = proxy.passed["up"]
            writing = group.create_task(service.append_events(key, events))
            while proxy.passed["up"] == before:  # Until it leaves, other calls may come before it.
                await asyncio.sleep(0.001)
            small = group.create_task(service.append_event(key, Event(author="user")))
        assert [event.seq for event in writing.result()] == [1, 2, 3, 4]
        assert small.result().seq == NUMBER + 1
    assert proxy.connections == 1


@pytest.mark.parametrize("way", ["up", "down"])
async def test_what_flows_no_more_is_left_in_time(proxy: Proxy, key: SessionKey, way: str) -> None:
    """A connection that hangs amid a command or a reply is given up, and another one does it."""
    async with RedisSessionService.from_url(proxy.url, timeout=TIMEOUT) as service:
        await service.create_session(key)
        events = [large(n) for n in range(NUMBER)]
        if way == "down":
            await service.append_events(key, events)
        proxy.rate = RATE
        before = proxy.passed[way]
        call = asyncio.create_task(
            service.append_events(key, events) if way == "up" else service.get_events(key)
        )
        async with asyncio.timeout(TIMEOUT):
            while proxy.passed[way] < before + SIZE // 2:
                await asyncio.sleep(0.001)
        proxy.hung, proxy.rate = proxy.connections, 0
        assert [event.seq for event in await call] == [1, 2, 3, 4]
        assert len(await service.get_events(key)) == NUMBER
    assert proxy.connections == 2


async def test_a_question_of_the_link_ends_no_connection_that_flows(
    proxy: Proxy, key: SessionKey
) -> None:
    """It has a deadline of its own, sooner than it is known whether the connection is hung."""
    async with RedisSessionService.from_url(proxy.url, timeout=4) as service:
        await service.create_session(key)
        await service.append_event(key, Event(author="user", content="x" * SIZE))
        await service.get_events(key, limit=1)
        link = link_of(service)
        proxy.rate = SIZE // 2  # So that it comes in lumps, some a second.
        reading = asyncio.create_task(service.get_events(key))
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in range(5, 75)]
        await asyncio.sleep(0)
        for n, answer in enumerate(answers, 5):
            link.submit(Command(("PING",), answer, loop.time() + n / 50))
        assert len(await reading) == 1
        for answer in answers:
            await asyncio.wait([answer])
            answer.exception()
    assert proxy.connections == 1
