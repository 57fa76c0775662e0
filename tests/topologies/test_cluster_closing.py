"""A cluster's link that is closed while a node is lost, or sends calls on."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
import redis
from redis.asyncio.connection import Connection as TcpConnection

from agentsession import RedisSessionService, SessionKey
from agentsession._journal import Journal
from agentsession.redis._core.errors import NotSentError, ServerError
from agentsession.redis._core.request import Command, Request
from agentsession.redis._links.cluster import ClusterLink
from agentsession.redis._links.endpoint import Endpoint
from agentsession.redis._links.server import ServerLink
from agentsession.redis._scripts import load
from harness import servers


def key_at(cluster: servers.Cluster, node: servers.Node) -> SessionKey:
    users = (f"user-{n}" for n in range(1000))
    return SessionKey(
        "app", next(user for user in users if cluster.owner(f"{{app:{user}}}") is node), "session"
    )


def give_away(cluster: servers.Cluster, lost: servers.Node, heir: servers.Node) -> None:
    """Give a lost node's slots to another one, as an operator does where there is no replica."""
    heirs_id = cluster.id_of(heir)
    slots = [
        slot
        for first, last, primary, *_ in heir.ask("CLUSTER", "SLOTS")
        for slot in range(first, last + 1)
        if primary[1] == lost.port
    ]
    for node in cluster.nodes:
        if node is not lost:
            with redis.Redis(unix_socket_path=str(node.socket)) as client:
                pipeline = client.pipeline(transaction=False)
                for slot in slots:
                    pipeline.execute_command("CLUSTER", "SETSLOT", slot, "NODE", heirs_id)
                pipeline.execute()


async def test_closing_waits_for_who_takes_a_lost_node_over() -> None:
    """The other nodes can be asked who it is, though no call needs them any more."""
    with servers.cluster(options=["--cluster-require-full-coverage", "no"]) as cluster:
        lost, heir, _ = cluster.nodes
        keys = [key_at(cluster, node) for node in reversed(cluster.nodes)]
        service = RedisSessionService.from_url(cluster.url, timeout=20)
        for key in keys:
            await service.create_session(key)
        lost.stop()
        call = asyncio.create_task(service.get_session(keys[-1]))
        closing = asyncio.create_task(service.aclose())
        await asyncio.sleep(0)
        await anyio.to_thread.run_sync(give_away, cluster, lost, heir)
        assert await call is None
        await closing


async def test_who_is_met_while_closing_is_closed_too() -> None:
    """A node may send a call on as long as its own connection is open."""
    with servers.cluster() as cluster:
        place, other = [(servers.LOOPBACK, node.port) for node in cluster.nodes[:2]]
        link = ClusterLink(
            Endpoint(TcpConnection(host=place[0], port=place[1])),
            [place],
            timeout=5,
            journal=Journal("agentsession.redis"),
        )
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        request = Request(load("delete"), ["{k}"], [], future, 1e9)

        async def send_on() -> None:
            link._backlog.enter(request.size)
            link._redirect(place, request, ServerError(f"MOVED 1 {other[0]}:{other[1]}"))

        link._nodes[place] = ServerLink(
            Endpoint(TcpConnection(host=place[0], port=place[1])), timeout=5, closed=send_on
        )
        tasks = asyncio.all_tasks()
        await link.aclose()
        with pytest.raises(NotSentError):
            await future
        assert asyncio.all_tasks() == tasks
        assert link._nodes == {}


async def test_closing_that_is_cancelled_closes() -> None:
    """As where the map is read by a link of its own, and the cluster's is closed meanwhile."""
    with servers.alone() as node:
        link = ServerLink(Endpoint(TcpConnection(host=servers.LOOPBACK, port=node.port)), timeout=5)
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[Any] = loop.create_future()
        link.submit(Command(("PING",), asked, loop.time() + 5))
        await asked
        connection = link._connection
        assert connection is not None
        closing = asyncio.create_task(link.let_go())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert connection.closed
