"""The conformance checks on a cluster of three nodes, through redis-py's cluster client."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
import servers
from redis.asyncio.cluster import RedisCluster
from subjects import RedisSubject

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.backend import Backend
from agentsession.errors import BackendUnavailableError, OutcomeUnknownError
from agentsession.redis.cluster import ClusterBackend, ClusterLink
from agentsession.retention import Retention
from agentsession.testing import CHECKS, Check


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def cluster_port() -> Iterator[int]:
    """Three nodes on loopback that share the slots; the port of one of them."""
    binary = servers.binaries()["valkey"]
    ports = [free_port() for _ in range(3)]
    with tempfile.TemporaryDirectory(prefix="agentsession-") as folder:
        nodes = []
        for number, port in enumerate(ports):
            place = Path(folder) / str(number)
            place.mkdir()
            node = servers.Server(
                binary, place, "--port", str(port), "--cluster-enabled", "yes",
                "--cluster-port", str(free_port()), "--bind", "127.0.0.1",
            )  # fmt: skip
            node.start()
            nodes.append(node)
        try:
            for number, node in enumerate(nodes):
                first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
                with redis.Redis(unix_socket_path=str(node.socket)) as client:
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                    bus = client.config_get("cluster-port")["cluster-port"]
                    for other in nodes[:number]:
                        with redis.Redis(unix_socket_path=str(other.socket)) as peer:
                            peer.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[number], bus)
            for node in nodes:
                with redis.Redis(unix_socket_path=str(node.socket)) as client:
                    servers.eventually(
                        lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO"))
                    )
                    servers.eventually(
                        lambda: (
                            str(client.execute_command("CLUSTER", "NODES")).count("connected") >= 3
                        )
                    )
            yield ports[0]
        finally:
            for node in nodes:
                node.stop()


class ClusterSubject(RedisSubject):
    """A key prefix of its own on a cluster."""

    def __init__(self, port: int) -> None:
        super().__init__("redis://127.0.0.1:0")
        self.client = RedisCluster("127.0.0.1", port)  # type: ignore[assignment]  # near enough

    def open(self, retention: Retention) -> Backend:
        link = ClusterLink(self.client, timeout=10)  # type: ignore[arg-type]  # as above
        return ClusterBackend(retention, link, key_prefix=self.prefix)  # type: ignore[arg-type]  # as above

    async def __aexit__(self, *exc_info: object) -> None:
        for service in self._services:
            await service.aclose()
        for key in await self.keys():
            await self.client.unlink(key)
        await self.client.aclose()


@pytest.fixture
async def subject(cluster_port: int) -> AsyncIterator[ClusterSubject]:
    async with ClusterSubject(cluster_port) as fresh:
        yield fresh


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance_on_a_cluster(check: Check, subject: ClusterSubject) -> None:
    """The backend keeps the promise on a cluster too."""
    await check(subject)


async def test_a_cancelled_call_leaves_the_client_whole(subject: ClusterSubject) -> None:
    """A storm of cancellations mixes up no replies of the client that is shared."""
    async with RedisSessionService(subject.client, key_prefix=subject.prefix) as service:  # type: ignore[arg-type]  # as above
        keys = [SessionKey("app", f"user {n}", "s") for n in range(10)]
        for key in keys:
            await service.create_session(key, {"mine": key.user_id})

        async def check(n: int) -> None:
            key = keys[n % 10]
            session = await service.get_session(key)
            assert session is not None
            assert session.state == {"mine": key.user_id}
            await service.append_event(key, Event(author="a", content=str(n)))

        for _ in range(5):
            calls = [asyncio.create_task(check(n)) for n in range(50)]
            for n, call in enumerate(calls):
                if n % 5 == 0:
                    await asyncio.sleep(0)
                if n % 3:
                    call.cancel()
            for call in calls:
                await asyncio.wait([call])
                assert call.cancelled() or call.exception() is None
    assert await subject.client.ping()


async def test_a_failure_between_the_steps_is_told(
    subject: ClusterSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the session was written and its second step fails, the error does not claim otherwise."""
    service = subject.service()
    key = SessionKey("app", "user", "s")
    await service.create_session(key)
    event = Event(author="a", content="x", state_delta={"app:n": 1})
    with monkeypatch.context() as patch:

        async def fail(*_: object) -> None:
            raise BackendUnavailableError(key, "cut")

        patch.setattr(service.backend, "_second_step", fail)
        with pytest.raises(OutcomeUnknownError, match="repeat it"):
            await service.append_event(key, event)
    assert (await service.append_event(key, event)).seq == 1
    assert await service.get_app_state("app") == {"n": 1}
