"""Nodes that leave a cluster: what they still say misleads nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import anyio.to_thread
import pytest

from agentsession import RedisSessionService, SessionKey
from agentsession.redis._links.cluster import ClusterLink
from harness import servers
from harness.insides import link_of


@pytest.fixture
def cluster() -> Iterator[servers.Cluster]:
    """Of one test, which takes it apart."""
    with servers.cluster() as running:
        yield running


def key_at(cluster: servers.Cluster, node: servers.Node) -> SessionKey:
    users = (f"user-{n}" for n in range(1000))
    return SessionKey(
        "app", next(user for user in users if cluster.owner(f"{{app:{user}}}") is node), "session"
    )


async def test_who_was_idle_while_a_node_left_finds_the_others(cluster: servers.Cluster) -> None:
    """The node says that it does not serve the slot, and not who does; its connection is closed."""
    leaving = cluster.nodes[0]
    key = key_at(cluster, leaving)
    async with RedisSessionService.from_url(cluster.url, timeout=5) as service:
        assert await service.get_session(key) is None
        await anyio.to_thread.run_sync(cluster.remove, leaving)
        async with asyncio.timeout(4):
            await service.create_session(key)
            link = link_of(service)
            assert isinstance(link, ClusterLink)
            while len(link._nodes) > 2:
                await asyncio.sleep(0.01)


async def test_a_node_that_left_is_not_believed(cluster: servers.Cluster) -> None:
    """Its map is empty; also if the URL names it first, and the others after it."""
    leaving = cluster.nodes[0]
    key = key_at(cluster, leaving)
    await anyio.to_thread.run_sync(cluster.remove, leaving)
    for _ in range(3):
        async with RedisSessionService.from_url(cluster.url, timeout=5) as service:
            async with asyncio.timeout(4):
                await service.get_or_create_session(key)


async def test_a_cluster_of_nobody_is_told(cluster: servers.Cluster) -> None:
    """A node that is in no cluster answers, and the error says what with."""
    leaving = cluster.nodes[0]
    await anyio.to_thread.run_sync(cluster.remove, leaving)
    url = f"redis+cluster://{servers.LOOPBACK}:{leaving.port}"
    async with RedisSessionService.from_url(url, timeout=1) as service:
        with pytest.raises(Exception, match="is in no cluster"):
            await service.get_session(SessionKey("app", "user", "session"))
