"""Clusters: slots that move while they are followed, nodes that are lost, and old ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import anyio.to_thread
import pytest
from redis.asyncio.connection import Connection

from agentsession import Event, RedisSessionService, SessionKey, SessionService
from agentsession.redis._links.endpoint import Endpoint
from agentsession.redis._links.sharded import ShardedInbox
from agentsession.subscriptions import Ended, Followed, Missed, SessionNews, Subscription
from harness import servers
from harness.insides import link_of

SOON = 30.0


def say(words: str) -> Event:
    return Event(author="user", content=words)


def tag(key: SessionKey) -> str:
    return f"{{{key.app_name}:{key.user_id}}}"


@pytest.fixture(scope="module", params=sorted(servers.binaries()))
def any_cluster(request: pytest.FixtureRequest) -> Iterator[servers.Cluster]:
    """Nodes of every kind of server; those of before version 7 have no channels of slots."""
    with servers.cluster(binary=servers.binaries()[request.param]) as running:
        yield running


async def in_thread(work: Callable[[], object]) -> None:
    await anyio.to_thread.run_sync(work)


async def up_to(items: Subscription, last: str) -> list[Followed]:
    taken: list[Followed] = []
    async with asyncio.timeout(SOON):
        while True:
            item = await anext(items)
            taken.append(item)
            if isinstance(item, Event) and item.text == last:
                return taken


async def told(service: SessionService, items: Subscription) -> None:
    """Wait until chunks come through, and drop them."""
    async with asyncio.timeout(SOON):
        while True:
            await service.append_event(
                items.key, Event(author="x", content="test", partial=True, stream_id="test")
            )
            try:
                async with asyncio.timeout(0.3):
                    item = await anext(items)
            except TimeoutError:
                continue
            if isinstance(item, Event) and item.partial:
                break


async def until_the_map_is_read(service: RedisSessionService) -> None:
    async with asyncio.timeout(SOON):
        while link_of(service)._reading is not None:
            await asyncio.sleep(0.01)


async def test_slots_that_move_are_followed(any_cluster: servers.Cluster) -> None:
    """Back and forth, in the middle of what is said: each event once, and chunks again soon."""
    cluster = any_cluster
    key = SessionKey("app", f"moving-{random.random()}", "session")
    async with (
        RedisSessionService.from_url(cluster.url, session_event_limit=None) as service,
        RedisSessionService.from_url(cluster.url, session_event_limit=None) as other,
    ):
        await service.create_session(key)
        over = False

        async def write() -> None:
            number = 0
            while not over:
                number += 1
                await service.append_event(key, say(f"{number}"))
                await asyncio.sleep(0.002)
            await service.append_event(key, say("last"))

        async with other.subscribe(key) as items, other.subscribe_user(key.user) as news:
            writing = asyncio.ensure_future(write())
            following = asyncio.ensure_future(up_to(items, "last"))
            for _ in range(4):
                move = servers.Move(cluster, tag(key))
                await in_thread(move.begin)
                await asyncio.sleep(0.02)
                await in_thread(move.move_all_keys)
                await in_thread(move.end)
                await asyncio.sleep(0.05)
            over = True
            await writing
            taken = await following
            seqs = [item.seq for item in taken if isinstance(item, Event)]
            assert seqs == [*range(1, len(seqs) + 1)]
            await told(service, items)
            async with asyncio.timeout(SOON):
                while await anext(news) != Missed():
                    pass
                await service.delete_session(key)
                while await anext(news) != SessionNews(key, "deleted"):
                    pass
                while not isinstance(item := await anext(items), Ended):
                    assert isinstance(item, Event)
                    assert item.partial


async def test_following_again_and_again_reads_no_map(any_cluster: servers.Cluster) -> None:
    """Nothing has moved, so no node is asked what has."""
    cluster = any_cluster
    key = SessionKey("app", "again", "session")

    def asked() -> int:
        counts = [node.ask("INFO", "commandstats") for node in cluster.nodes]
        names = ("cmdstat_cluster", "cmdstat_cluster|slots")
        return sum(each[name]["calls"] for each in counts for name in names if name in each)

    async with RedisSessionService.from_url(cluster.url) as service:
        await service.create_session(key)
        async with service.subscribe(key) as items:
            await told(service, items)
            await until_the_map_is_read(service)
        before = asked()
        for _ in range(10):
            async with service.subscribe(key) as items:
                await told(service, items)
            assert link_of(service)._reading is None
        assert asked() == before
        await service.delete_session(key)
        assert link_of(service).news.listeners == 0


async def test_a_slot_that_moved_before_is_found(any_cluster: servers.Cluster) -> None:
    """Who follows a user makes no call that would tell of the new owner."""
    cluster = any_cluster
    key = SessionKey("app", "moved", "session")
    async with (
        RedisSessionService.from_url(cluster.url) as service,
        RedisSessionService.from_url(cluster.url) as other,
    ):
        await service.create_session(key)
        await other.get_session(key)
        await until_the_map_is_read(other)
        move = servers.Move(cluster, tag(key))
        for step in (move.begin, move.move_all_keys, move.end):
            await in_thread(step)
        async with other.subscribe_user(key.user) as news, asyncio.timeout(SOON):
            assert [await anext(news), await anext(news)] == [Missed(), Missed()]
            item: SessionNews | Missed = Missed()
            while item != SessionNews(key, "written"):
                if item == Missed():  # Which may come once more, in place of what came before.
                    await service.append_event(key, say("x"))
                item = await anext(news)
            owner = servers.LOOPBACK, cluster.owner(tag(key)).port
            while [*link_of(other).news._lines] != [owner]:
                await asyncio.sleep(0.01)


async def test_an_inbox_that_is_closed_connects_no_more() -> None:
    """Though the map is read at that moment, by which it would find where to connect."""
    host = servers.LOOPBACK, servers.free_ports(1)[0]
    owners: list[tuple[str, int] | None] = [None]
    endpoint = Endpoint(Connection(host=host[0], port=host[1]))
    inbox = ShardedInbox(lambda _: owners[-1], endpoint.at, 1, read_the_map=lambda: None)
    with inbox.listen("sessions:{a:b}", "session", lambda _: None):
        assert inbox.has_homeless
        before = asyncio.all_tasks()
        await inbox.aclose()
        owners.append(host)
        inbox.rearrange()
        assert asyncio.all_tasks() == before


async def test_a_node_that_is_lost_is_followed_by_its_replica() -> None:
    """What the replica has is followed on; and chunks come again."""
    with servers.cluster(replicas=True) as cluster:
        key = SessionKey("app", "user", "session")
        async with (
            RedisSessionService.from_url(cluster.url, timeout=30) as service,
            RedisSessionService.from_url(cluster.url, timeout=30) as other,
        ):
            await service.create_session(key)
            async with other.subscribe(key) as items:
                await service.append_event(key, say("1"))
                await up_to(items, "1")
                lost = cluster.owner(tag(key))
                await in_thread(lambda: lost.settle(1, f"settled{tag(key)}"))
                await in_thread(lost.stop)
                following = asyncio.ensure_future(up_to(items, "3"))
                await service.append_event(key, say("2"))
                await service.append_event(key, say("3"))
                seqs = [getattr(item, "seq", item) for item in await following]
                assert seqs == [2, 3]
                await told(service, items)


async def test_what_is_followed_is_let_go(any_cluster: servers.Cluster) -> None:
    """A service that is closed while its slots move leaves no task behind."""
    cluster = any_cluster
    before = asyncio.all_tasks()
    for number in range(5):
        key = SessionKey("app", f"closing {number}", "session")
        async with RedisSessionService.from_url(cluster.url) as service:
            await service.create_session(key)
            items = service.subscribe(key)
            await items.__aenter__()
            move = servers.Move(cluster, tag(key))
            await in_thread(move.begin)
            await in_thread(move.move_all_keys)
            await in_thread(move.end)
            await asyncio.sleep(0.01 * number)
        assert asyncio.all_tasks() == before
        assert not link_of(service).news.listeners
