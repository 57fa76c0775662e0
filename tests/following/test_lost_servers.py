"""Servers that are lost, or lose what was stored, and connections that are cut, while followed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import anyio.to_thread
import pytest

from agentsession import Event, RedisSessionService, SessionKey, SessionService
from agentsession.errors import BackendUnavailableError
from agentsession.subscriptions import Ended, Followed, Missed, SessionNews, Subscription
from harness import servers
from harness.proxy import Proxy, proxied

KEY = SessionKey("app", "user", "session")
SOON = 30.0


def say(words: str) -> Event:
    return Event(author="user", content=words)


@pytest.fixture
def server() -> Iterator[servers.Server]:
    with servers.running(servers.binaries()["valkey"]) as running:
        yield running


@pytest.fixture
async def proxy(server: servers.Server) -> AsyncIterator[Proxy]:
    async with proxied(server.url) as started:
        yield started


def opened(url: str, timeout: float = 10) -> RedisSessionService:
    return RedisSessionService.from_url(url, timeout=timeout, session_event_limit=None)


async def take(items: Subscription, number: int) -> list[Followed]:
    async with asyncio.timeout(SOON):
        return [await anext(items) for _ in range(number)]


def restart(server: servers.Server) -> None:
    server.stop()
    server.start()


@pytest.mark.parametrize("others", [0, 1, 2, 3])
@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "busy"])
async def test_a_log_that_lost_events_is_another_one(
    server: servers.Server, others: int, waits: bool
) -> None:
    """However many have come in the place of those that the follower has had."""
    async with opened(server.url) as service, opened(server.url) as other:
        await service.create_session(KEY)
        await service.append_events(KEY, [say("1"), say("2"), say("3")])
        server.ask("SAVE")
        async with other.subscribe(KEY) as items:
            await service.append_events(KEY, [say("4"), say("5")])
            await take(items, 5)
            waiting = asyncio.ensure_future(anext(items)) if waits else None
            await asyncio.sleep(0)
            await anyio.to_thread.run_sync(restart, server)
            for n in range(others):
                await service.append_event(KEY, say(f"{n}'"))
            async with asyncio.timeout(SOON):
                assert await (waiting or anext(items)) == Ended("replaced")


async def test_a_server_that_comes_back_is_followed_on(server: servers.Server) -> None:
    """Within the timeout nobody notices; a longer one is an error, and iterating anew goes on."""
    async with opened(server.url) as service, opened(server.url, timeout=1) as hasty:
        await service.create_session(KEY)
        async with hasty.subscribe(KEY) as items, hasty.subscribe_user(KEY.user) as news:
            await service.append_event(KEY, say("1"))
            await take(items, 1)
            async with asyncio.timeout(SOON):
                assert await anext(news) == Missed()
                while await anext(news) == Missed():
                    pass  # Until what was written is told.
            server.ask("SAVE")
            waiting = asyncio.ensure_future(take(items, 1))
            await anyio.to_thread.run_sync(restart, server)
            await service.append_event(KEY, say("2"))
            assert [getattr(each, "content", each) for each in await waiting] == ["2"]
            async with asyncio.timeout(SOON):
                while await anext(news) != Missed():
                    pass
            large = "3" * 20_000  # So it is not told with the news, and has to be read.
            await service.append_event(KEY, say(large))
            server.ask("SAVE")
            server.stop()
            with pytest.raises(BackendUnavailableError):
                await take(items, 1)
            await anyio.to_thread.run_sync(server.start)
            await service.append_event(KEY, say("4"))
            assert [getattr(each, "content", each) for each in await take(items, 2)] == [large, "4"]


async def write(service: SessionService, number: int) -> None:
    for n in range(1, number + 1):
        await service.append_event(KEY, say(f"{n}"))


@pytest.mark.parametrize("seed", range(3))
async def test_connections_that_are_cut_lose_and_double_nothing(
    server: servers.Server, proxy: Proxy, seed: int
) -> None:
    """Wherever they are cut, of chunks too: those of a stream never come after its whole event."""
    choice = random.Random(seed)
    number = 60
    async with opened(server.url) as service, opened(proxy.url) as other:
        await service.create_session(KEY)

        async def cut() -> None:
            while True:
                proxy.cut_after(**{choice.choice(["up", "down"]): choice.randrange(1, 3000)})
                await asyncio.sleep(choice.random() / 20)

        async def speak() -> None:
            for n in range(1, number + 1):
                for part in "ab":
                    chunk = Event(author="agent", content=part, partial=True, stream_id=f"{n}")
                    await service.append_event(KEY, chunk)
                    await asyncio.sleep(0.002)
                whole = Event(author="agent", content=f"{n}", stream_id=f"{n}")
                await service.append_event(KEY, whole)

        async with other.subscribe(KEY) as items, asyncio.TaskGroup() as group:
            cutting = group.create_task(cut())
            group.create_task(speak())
            over: list[str] = []
            parts: list[str] = []
            async with asyncio.timeout(2 * SOON):
                while len(over) < number:
                    item = await anext(items)
                    assert isinstance(item, Event)
                    if item.partial:
                        assert item.stream_id not in over
                        parts.append(item.id)
                    else:
                        over.append(item.text)
            cutting.cancel()
        assert over == [f"{n}" for n in range(1, number + 1)]
        assert len(parts) == len(set(parts))
        proxy.calm()


async def test_a_follower_that_hangs_holds_up_nobody(server: servers.Server, proxy: Proxy) -> None:
    """Its connection takes nothing; the writer goes on, and it reads on from the log later."""
    async with opened(server.url) as service, opened(proxy.url) as other:
        await service.create_session(KEY)
        async with other.subscribe(KEY) as items:
            await service.append_event(KEY, say("1"))
            await take(items, 1)
            proxy.freeze()
            loop = asyncio.get_running_loop()
            started = loop.time()
            for n in range(2, 300):
                chunk = Event(author="agent", content="x" * 1000, partial=True)
                await service.append_event(KEY, chunk)
                await service.append_event(KEY, say(f"{n}"))
            assert loop.time() - started < SOON / 3
            proxy.thaw()
            seen = [1]
            while seen[-1] < 299:
                (item,) = await take(items, 1)
                assert isinstance(item, Event)
                if not item.partial:
                    seen.append(item.seq)
            assert seen == [*range(1, 300)]


@pytest.mark.parametrize("fault", ["stop", "freeze"])
async def test_a_failover_is_followed(fault: str) -> None:
    """What the replicas had is followed on, as far as they had it; and chunks come again."""
    with servers.sentinels() as topology:
        async with opened(topology.url, 20) as service, opened(topology.url, 20) as other:
            await service.create_session(KEY)
            async with other.subscribe(KEY) as items, other.subscribe_user(KEY.user) as news:
                await service.append_events(KEY, [say("1"), say("2")])
                await take(items, 2)
                primary = topology.primary()
                await anyio.to_thread.run_sync(primary.settle, 2)
                following = asyncio.ensure_future(take(items, 1))
                getattr(primary, fault)()
                await service.append_event(KEY, say("3"))
                (item,) = await following
                assert isinstance(item, Event)
                assert item.seq == 3
                async with asyncio.timeout(SOON):
                    assert await anext(news) == Missed()
                    while not item.partial:
                        chunk = Event(author="agent", content="x", partial=True)
                        await service.append_event(KEY, chunk)
                        with suppress(TimeoutError):
                            async with asyncio.timeout(0.2):
                                item = await anext(items)
                        assert isinstance(item, Event)
                    await service.delete_session(KEY)
                    while await anext(news) != SessionNews(KEY, "deleted"):
                        pass
