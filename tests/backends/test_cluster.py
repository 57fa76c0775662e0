"""The conformance checks on a cluster of three nodes, through redis-py's cluster client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import servers
from redis.asyncio.cluster import RedisCluster
from subjects import RedisSubject

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.backend import Backend
from agentsession.errors import BackendUnavailableError, OutcomeUnknownError
from agentsession.redis.cluster import ClusterBackend
from agentsession.redis.cluster_link import ClusterLink
from agentsession.retention import Retention
from agentsession.testing import CHECKS, Check


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    """Three nodes on loopback that share the slots."""
    with servers.cluster() as running:
        yield running


class ClusterSubject(RedisSubject):
    """A key prefix of its own on a cluster."""

    def __init__(self, cluster: servers.Cluster) -> None:
        super().__init__("redis://127.0.0.1:0")
        self.client = RedisCluster(servers.LOOPBACK, cluster.nodes[0].port)  # type: ignore[assignment]  # near enough

    def open(self, retention: Retention) -> Backend:
        link = ClusterLink(self.client, owned=False, timeout=10)  # type: ignore[arg-type]  # as above
        return ClusterBackend(retention, link, key_prefix=self.prefix)  # type: ignore[arg-type]  # as above

    async def __aexit__(self, *exc_info: object) -> None:
        for service in self._services:
            await service.aclose()
        for key in await self.keys():
            await self.client.unlink(key)
        await self.client.aclose()


@pytest.fixture
async def subject(cluster: servers.Cluster) -> AsyncIterator[ClusterSubject]:
    async with ClusterSubject(cluster) as fresh:
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
