"""Sentinel: found by URL, and failovers that nobody notices but by a pause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import anyio.to_thread
import pytest
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.errors import BackendError, BackendUnavailableError
from agentsession.redis import register_redis_instance, unregister_redis_instance
from agentsession.redis._addresses import read_url
from agentsession.redis._links.sentinel import SentinelEndpoint
from harness import servers
from harness.writing import writing

KEY = SessionKey("app", "user", "session")
SECRET = "s3cr3t/@:?"
ENCODED = "s3cr3t%2F%40%3A%3F"


@pytest.fixture(scope="module")
def topology() -> Iterator[servers.Sentinels]:
    """One that nobody kills."""
    with servers.sentinels() as running:
        yield running


def opener(topology: servers.Sentinels, ack_replicas: int = 0) -> Callable[[], RedisSessionService]:
    return lambda: RedisSessionService.from_url(
        topology.url, session_event_limit=None, timeout=10, ack_replicas=ack_replicas
    )


async def in_thread(fact: Callable[[], bool]) -> None:
    """Wait until a fact holds, while the services work on."""
    await anyio.to_thread.run_sync(servers.eventually, fact, 30)


@pytest.mark.parametrize("fault", ["stop", "freeze"])
async def test_a_lost_primary_is_a_pause(
    fault: str, record_property: Callable[[str, object], None]
) -> None:
    """Killed or frozen: no call fails, no event is doubled, and none is lost that a replica had."""
    with servers.sentinels() as topology:
        async with writing(opener(topology)) as account:
            await account.go_on()
            settled = set(account.acknowledged)
            old = topology.primary()
            await anyio.to_thread.run_sync(old.settle, 2)
            getattr(old, fault)()
            await account.go_on()
        assert topology.primary() is not old
        async with opener(topology)() as service:
            missing = await account.missing(service)
            assert missing & settled == set()
        if fault == "freeze":
            # When it wakes up it is still a primary, for a while, and nobody listens to it.
            old.thaw()
            await in_thread(lambda: not old.is_primary())
            async with opener(topology)() as service:
                assert await account.missing(service) == missing
    record_property("longest call", account.longest)
    record_property("acknowledged and lost", f"{len(missing)} of {len(account.acknowledged)}")
    assert account.longest < 10


async def test_what_a_replica_acknowledged_survives(
    record_property: Callable[[str, object], None],
) -> None:
    """With ``ack_replicas`` no acknowledged event is lost with the primary, without any pause."""
    with servers.sentinels() as topology:
        async with writing(opener(topology, ack_replicas=1)) as account:
            await account.go_on()
            topology.primary().stop()
            await account.go_on()
        async with opener(topology)() as service:
            assert await account.missing(service) == set()
    record_property("longest call", account.longest)
    record_property("acknowledged", len(account.acknowledged))


async def test_a_failover_on_purpose_is_a_pause(topology: servers.Sentinels) -> None:
    """A primary that is demoted while it is written to is left for the new one."""
    async with writing(opener(topology)) as account:
        await account.go_on()
        old = topology.primary()
        topology.sentinels[0].ask("SENTINEL", "FAILOVER", topology.SERVICE)
        await in_thread(lambda: topology.primary() is not old and not old.is_primary())
        await account.go_on()
        settled = set(account.acknowledged)
        await account.go_on()
    async with opener(topology)() as service:
        assert await account.missing(service) & (set(account.acknowledged) - settled) == set()


async def test_a_service_may_start_during_a_failover(topology: servers.Sentinels) -> None:
    """A primary that is down when a service starts is waited for, since the sentinels know it."""
    old = topology.primary()
    await in_thread(topology.followers_are_ready)
    old.freeze()
    try:
        async with opener(topology)() as service:
            session = await service.get_or_create_session(KEY)
            assert (await service.append_event(session, Event(author="a", content="x"))).seq > 0
        assert topology.primary() is not old
    finally:
        old.thaw()
    await in_thread(lambda: not old.is_primary())


async def test_what_cannot_be_reached_fails_at_once(topology: servers.Sentinels) -> None:
    """A wrong name, wrong addresses and wrong passwords are told apart, without waiting."""
    nowhere = servers.free_ports(1)[0]
    hosts = topology.url.partition("://")[2].partition("/")[0]
    wrong = {
        f"redis+sentinel://{hosts}/nobody": "know no service 'nobody'",
        f"redis+sentinel://127.0.0.1:{nowhere}/mymaster": "no sentinel answers at 127.0.0.1",
        f"redis+sentinel://127.0.0.1:{topology.servers[0].port}/m": "is no sentinel",
        f"redis+sentinel://a:{ENCODED}@{hosts}/mymaster": "username-password",
        f"{topology.url}?sentinel_username=a&sentinel_password={ENCODED}": (
            r"\?sentinel_username=user&sentinel_password=password"
        ),
    }
    for url, words in wrong.items():
        started = time.monotonic()
        async with RedisSessionService.from_url(url, timeout=30) as service:
            with pytest.raises(BackendUnavailableError, match=words) as raised:
                await service.create_session(KEY)
            assert time.monotonic() - started < 15
            told = f"{raised.value!s} {raised.value!r} {raised.value.__cause__!r} {service!r}"
            assert "s3cr3t" not in told


async def test_servers_and_sentinels_have_their_own_passwords(topology: servers.Sentinels) -> None:
    """Both are given in the URL; the sentinels' user needs no right but to ask for primaries."""
    for server in topology.servers:
        server.ask("ACL", "SETUSER", "writer", "on", f">{SECRET}", "~*", "+@all")
    for sentinel in topology.sentinels:
        sentinel.ask("ACL", "SETUSER", "asker", "on", f">{SECRET}1", "+sentinel|masters")
    hosts = topology.url.partition("://")[2]
    url = (
        f"redis+sentinel://writer:{ENCODED}@{hosts}/0"
        f"?sentinel_username=asker&sentinel_password={ENCODED}1"
    )
    async with RedisSessionService.from_url(url) as service:
        await service.get_or_create_session(KEY)
        assert "s3cr3t" not in repr(service)
        assert "user=writer" in topology.primary().ask("CLIENT", "LIST")
    for sentinel in topology.sentinels:
        sentinel.ask("ACL", "SETUSER", "asker", "-sentinel|masters")
    async with RedisSessionService.from_url(url) as service:
        with pytest.raises(BackendError, match="sentinel"):
            await service.get_session(KEY)


@pytest.mark.parametrize("connections", [1, 3])
async def test_closing_closes_all(topology: servers.Sentinels, connections: int) -> None:
    """Neither a task nor a connection is left, to the servers or to the sentinels."""

    def clients() -> int:
        nodes = [*topology.servers, *topology.sentinels]
        lines = [line for node in nodes for line in node.ask("CLIENT", "LIST").splitlines()]
        ours = ("lib-name=redis-py", "lib-name=agentsession")
        return sum(any(name in line for name in ours) for line in lines if "/s:0" not in line)

    before, tasks = clients(), len(asyncio.all_tasks())
    service = RedisSessionService.from_url(topology.url, connections=connections)
    assert clients() == before
    for number in range(10):
        await service.get_session(SessionKey("app", str(number), "s"))
    assert clients() > before
    await service.aclose()
    assert len(asyncio.all_tasks()) == tasks
    await in_thread(lambda: clients() == before)


async def test_a_name_can_stand_for_it(topology: servers.Sentinels) -> None:
    """A named instance takes the URL too."""
    register_redis_instance("watched", url=topology.url)
    try:
        async with RedisSessionService(instance="watched") as service:
            assert await service.get_session(SessionKey("app", "nobody", "s")) is None
    finally:
        unregister_redis_instance("watched")


async def test_no_sentinel_is_forgotten(topology: servers.Sentinels) -> None:
    """Though many ask at once while the first one does not answer, all three stay known."""
    (nowhere,) = servers.free_ports(1)
    address = read_url(topology.url.replace("://", f"://127.0.0.1:{nowhere},"))
    endpoint = SentinelEndpoint(Connection(), address, {"retry": Retry(NoBackoff(), 0)})
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(endpoint._sentinel.discover_master(topology.SERVICE))
    assert len(set(map(id, endpoint._sentinel.sentinels))) == 4
    await endpoint.aclose()
