"""The conformance checks on a cluster of three nodes, and what its nodes do to calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio.to_thread
import pytest
from redis.asyncio.cluster import RedisCluster

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.backend import Backend
from agentsession.errors import (
    BackendError,
    BackendUnavailableError,
    ClosedError,
    CodecError,
    OutcomeUnknownError,
)
from agentsession.redis import register_redis_instance, unregister_redis_instance
from agentsession.redis._cluster import ClusterBackend
from agentsession.redis._targets.making import LinkOptions, link_to
from agentsession.retention import Retention
from agentsession.testing import CHECKS, Check
from harness import servers
from harness.insides import link_of
from harness.subjects import RedisSubject
from harness.writing import writing


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    """Three nodes on loopback that share the slots, and one without any."""
    with servers.cluster(spare=1) as running:
        yield running


class ClusterSubject(RedisSubject):
    """A key prefix of its own on a cluster."""

    def __init__(self, cluster: servers.Cluster) -> None:
        super().__init__("redis://127.0.0.1:0")
        self.client = RedisCluster(servers.LOOPBACK, cluster.nodes[0].port)  # type: ignore[assignment]  # near enough

    def open(self, retention: Retention) -> Backend:
        link = link_to(self.client, {}, LinkOptions(timeout=10))
        return ClusterBackend(retention, link, key_prefix=self.prefix)

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


@pytest.mark.on_both_loops
async def test_a_cancelled_call_leaves_the_client_whole(subject: ClusterSubject) -> None:
    """A storm of cancellations mixes up no replies of the client that is shared."""
    async with RedisSessionService(subject.client, key_prefix=subject.prefix) as service:
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


async def test_a_repeat_within_a_batch_changes_no_state(subject: ClusterSubject) -> None:
    """What an event that is stored changes is changed, in the second step as in the first."""
    service = subject.service()
    key = SessionKey("app", "user", "s")
    await service.create_session(key)
    stored = Event(author="a", id="one", state_delta={"n": 1})
    repeat = Event(author="a", id="one", state_delta={"n": 2, "app:n": 2})
    await service.append_events(key, [stored, repeat])
    session = await service.get_session(key)
    assert session is not None
    assert session.state == {"n": 1}


@pytest.mark.parametrize("kind", [BackendUnavailableError, BackendError, CodecError])
async def test_a_failure_between_the_steps_is_told(
    subject: ClusterSubject, monkeypatch: pytest.MonkeyPatch, kind: type[BackendError | CodecError]
) -> None:
    """If the session was written and its second step fails, the error does not claim otherwise."""
    service = subject.service()
    key = SessionKey("app", "user", "s")
    await service.create_session(key)
    event = Event(author="a", content="x", state_delta={"app:n": 1})
    with monkeypatch.context() as patch:

        async def fail(*_: object) -> None:
            raise kind(key, "cut")

        patch.setattr(service.backend, "_second_step", fail)
        with pytest.raises(OutcomeUnknownError, match="repeat it"):
            await service.append_event(key, event)
    assert (await service.append_event(key, event)).seq == 1
    assert await service.get_app_state("app") == {"n": 1}


EVERY = {"n": 1, "user:n": 1, "app:n": 1}
WRITES: dict[str, Callable[[RedisSessionService, SessionKey], Awaitable[Any]]] = {
    "append": lambda service, key: service.append_event(key, Event(author="a", state_delta=EVERY)),
    "update": lambda service, key: service.update_session_state(key, EVERY),
    "create": lambda service, key: service.create_session(
        SessionKey(key.app_name, key.user_id, "new"), EVERY
    ),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("sent", [False, True], ids=["not sent", "sent"])
async def test_a_cancelled_write_takes_both_steps_or_none(
    cluster: servers.Cluster, write: str, sent: bool
) -> None:
    """What was not sent is not sent; what was goes on to its end, though nobody waits for it."""
    app = f"{write} {sent}"
    of_app = cluster.owner(f"{{{app}}}")
    user = next(f"u{n}" for n in range(99) if cluster.owner(f"{{{app}:u{n}}}") is not of_app)
    key = SessionKey(app, user, "s")
    async with RedisSessionService.from_url(cluster.url) as other:
        await other.create_session(key)
        service = RedisSessionService.from_url(cluster.url)
        node = cluster.owner(f"{{{key.app_name}:{key.user_id}}}")
        if sent:
            await service.get_session(key)
            node.freeze()
        call = asyncio.ensure_future(WRITES[write](service, key))
        async with asyncio.timeout(10):
            while sent and "in_flight=1" not in repr(
                link_of(service)._nodes[servers.LOOPBACK, node.port]
            ):
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        node.thaw()
        await service.aclose()
        shown = {**await other.get_app_state(key.app_name), **await other.get_user_state(key.user)}
        assert shown == ({"n": 1} if sent else {})
        assert await other.get_app_state(key.app_name) == await other.get_user_state(key.user)


async def test_a_creation_that_prunes_takes_both_steps(
    cluster: servers.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller is cancelled while the list of sessions is pruned, which every 64th does."""
    async with RedisSessionService.from_url(cluster.url, session_ttl=60) as other:
        for n in range(63):
            await other.create_session(SessionKey("pruning", "user", f"{n}"))
        service = RedisSessionService.from_url(cluster.url, session_ttl=60)
        assert isinstance(service.backend, ClusterBackend)
        pruned: list[object] = []

        async def prune(*_: object) -> None:
            pruned.append(call.cancel())
            await asyncio.sleep(0)

        monkeypatch.setattr(service.backend._listing, "prune", prune)
        key = SessionKey("pruning", "user", "last")
        call = asyncio.create_task(service.create_session(key, {"app:n": 1}))
        await asyncio.wait([call])
        await service.aclose()
        assert pruned
        assert await other.get_app_state("pruning") == {"n": 1}


@pytest.mark.parametrize("write", WRITES)
async def test_closing_waits_for_both_steps(cluster: servers.Cluster, write: str) -> None:
    """Also if the first one is not answered yet."""
    key = SessionKey(f"closing {write}", "user", "s")
    async with RedisSessionService.from_url(cluster.url) as other:
        await other.create_session(key)
        service = RedisSessionService.from_url(cluster.url)
        await service.get_session(key)
        node = cluster.owner(f"{{{key.app_name}:{key.user_id}}}")
        node.freeze()
        call = asyncio.ensure_future(WRITES[write](service, key))
        async with asyncio.timeout(10):
            while "in_flight=1" not in repr(service):
                await asyncio.sleep(0)
        closing = asyncio.create_task(service.aclose())
        for _ in range(10):
            await asyncio.sleep(0)
        node.thaw()
        await closing
        await call
        assert await other.get_app_state(key.app_name) == {"n": 1}


def opener(cluster: servers.Cluster) -> Callable[[], RedisSessionService]:
    return lambda: RedisSessionService.from_url(cluster.url, session_event_limit=None, timeout=10)


@pytest.mark.on_both_loops
@pytest.mark.parametrize("fault", ["stop", "freeze"])
async def test_a_lost_primary_is_a_pause(
    fault: str, record_property: Callable[[str, object], None]
) -> None:
    """Killed or frozen: no call fails, no event is doubled, and none is lost that a replica had."""
    with servers.cluster(replicas=True) as cluster:
        async with writing(opener(cluster)) as account:
            await account.go_on()
            settled = set(account.acknowledged)
            tag = "settled:{app:user 0}"
            old = cluster.owner(tag)
            await anyio.to_thread.run_sync(old.settle, 1, tag)
            getattr(old, fault)()
            await account.go_on()
        assert cluster.owner(tag) is not old
        async with opener(cluster)() as service:
            missing = await account.missing(service)
            assert missing & settled == set()
    record_property("longest call", account.longest)
    record_property("acknowledged and lost", f"{len(missing)} of {len(account.acknowledged)}")
    assert account.longest < 10


async def test_a_slot_moves_while_it_is_written_to(cluster: servers.Cluster) -> None:
    """Neither the move of each key nor the time between is noticed, and nothing is lost."""
    codes = ("ASK", "MOVED", "TRYAGAIN")
    before = {code: cluster.redirections(code) for code in codes}
    async with writing(opener(cluster)) as account:
        await account.go_on()
        for back in (False, True):
            move = servers.Move(cluster, "{app:user 0}")
            move.begin()
            await account.go_on()
            tried = cluster.redirections("TRYAGAIN")
            move.move_a_key("session:{app:user 0}:s")
            between = lambda tried=tried: cluster.redirections("TRYAGAIN") > tried  # noqa: E731
            await anyio.to_thread.run_sync(servers.eventually, between)
            move.move_all_keys()
            await account.go_on(3)
            move.end()
            await account.go_on()
            assert cluster.owner("{app:user 0}") is move.target, back
    assert all(cluster.redirections(code) > count for code, count in before.items())
    async with opener(cluster)() as service:
        assert await account.missing(service) == set()
        for key in account.keys:
            await service.delete_user(key.user)


@pytest.mark.parametrize("known", [True, False])
async def test_a_node_that_takes_a_slot_over_can_be_asked(
    subject: ClusterSubject, cluster: servers.Cluster, known: bool
) -> None:
    """Calls reach it at once, also if it has had no slots before."""
    key = SessionKey("app", f"asked {known}", "s")
    service = subject.service()
    await service.create_session(key, {"user:a": 1})
    await service.append_event(key, Event(author="a", content="x", id="1"))
    move = servers.Move(cluster, f"{{app:asked {known}}}", None if known else cluster.nodes[-1])
    move.begin()
    move.move_all_keys()
    try:
        async with asyncio.timeout(5):
            assert (await service.append_event(key, Event(author="a", content="y"))).seq == 2
            assert (
                await service.append_event(key, Event(author="a", content="x", id="1"))
            ).seq == 1
    finally:
        move.end()
    assert (await service.append_event(key, Event(author="a", content="z"))).seq == 3


async def test_what_is_not_known_is_said() -> None:
    """A lost reply is not forgotten over later refusals; without one, nothing was written."""
    key = SessionKey("app", "user 0", "s")
    with servers.cluster() as cluster:
        for node in cluster.nodes:  # nobody shall notice but the client
            node.ask("CONFIG", "SET", "cluster-node-timeout", 60_000)
        async with RedisSessionService.from_url(cluster.url, timeout=1) as service:
            await service.create_session(key)
            owner = cluster.owner("{app:user 0}")
            owner.freeze()
            call = asyncio.create_task(service.append_event(key, Event(author="a", content="x")))
            await asyncio.sleep(0.4)  # sent by then; nothing here tells when
            owner.stop()
            with pytest.raises(OutcomeUnknownError):
                await call
            with pytest.raises(BackendUnavailableError, match="nothing was written"):
                await service.append_event(key, Event(author="a", content="y"))


async def test_closing_ends_in_time_and_tells_callers(cluster: servers.Cluster) -> None:
    """A frozen node holds a close up as long as a call may take, a cancelled close not at all."""
    key = SessionKey("app", "user 0", "s")
    owner = cluster.owner("{app:user 0}")
    tasks = len(asyncio.all_tasks())
    for cancelled in (False, True):
        service = RedisSessionService.from_url(cluster.url, timeout=30 if cancelled else 1)
        await service.get_or_create_session(key)
        owner.freeze()
        try:
            call = asyncio.create_task(service.append_event(key, Event(author="a", content="x")))
            await asyncio.sleep(0)
            closing = asyncio.create_task(service.aclose())
            await asyncio.sleep(0)
            if cancelled:
                closing.cancel()
            async with asyncio.timeout(10):
                await asyncio.wait([closing])
                with pytest.raises((OutcomeUnknownError, BackendUnavailableError)):
                    await call
        finally:
            owner.thaw()
        assert closing.cancelled() is cancelled
        assert len(asyncio.all_tasks()) == tasks


async def test_a_service_owns_the_cluster_client_of_its_url(cluster: servers.Cluster) -> None:
    """Nothing connects before the first call, and nothing stays connected after the last."""

    def clients() -> int:
        lines = [line for node in cluster.nodes for line in node.ask("CLIENT", "LIST").splitlines()]
        return sum("lib-name=agentsession" in line for line in lines)

    before = clients()
    service = await anyio.to_thread.run_sync(opener(cluster))
    assert clients() == before
    await service.get_session(SessionKey("app", "nobody", "s"))
    assert clients() > before
    await service.aclose()
    await anyio.to_thread.run_sync(servers.eventually, lambda: clients() == before)
    with pytest.raises(ClosedError):
        await service.get_session(SessionKey("app", "nobody", "s"))


async def test_a_client_that_decodes_is_as_good(cluster: servers.Cluster) -> None:
    """What a client does to replies elsewhere does nothing to ours."""
    client = RedisCluster(servers.LOOPBACK, cluster.nodes[0].port, decode_responses=True)
    key = SessionKey("decoded", "user", "s")
    async with RedisSessionService(client) as service:
        session = await service.get_or_create_session(key, {"b": b"\xff"})
        assert session.state == {"b": b"\xff"}
        await service.delete_session(key)
    await client.aclose()


async def test_what_cannot_be_reached_fails_at_once(
    cluster: servers.Cluster,
) -> None:
    """Wrong addresses, servers and passwords are told apart, without waiting."""
    nowhere = f"127.0.0.1:{servers.free_ports(1)[0]}"
    hosts = cluster.url.partition("://")[2]
    key = SessionKey("app", "user", "s")
    with servers.alone() as node:
        wrong = {
            f"redis+cluster://{nowhere}": "cannot be reached",
            f"redis+cluster://127.0.0.1:{node.port}": "cluster support disabled",
            f"redis+cluster://a:s3cr3t%2F@{hosts}": "username-password",
        }
        for url, words in wrong.items():
            started = time.monotonic()
            async with RedisSessionService.from_url(url, timeout=30) as service:
                with pytest.raises(BackendError, match=words) as raised:
                    await service.create_session(key)
                assert time.monotonic() - started < 15
                told = f"{raised.value!s} {raised.value!r} {raised.value.__cause__!r} {service!r}"
                assert "s3cr3t" not in told
    owner = cluster.owner("{app:user}")
    other = next(node for node in cluster.nodes if node is not owner)
    async with RedisSessionService.from_url(f"redis://127.0.0.1:{other.port}") as service:
        with pytest.raises(BackendError, match=r"redis\+cluster://"):
            await service.create_session(key)


async def test_a_name_can_stand_for_it(cluster: servers.Cluster) -> None:
    """A named instance takes the URL too, and stands for a cluster then."""
    register_redis_instance("spread", url=cluster.url)
    key = SessionKey("named", "user", "s")
    try:
        async with RedisSessionService(instance="spread") as service:
            assert (await service.create_session(key, {"app:x": 1})).state == {"app:x": 1}
            await service.delete_user(key.user)
            await service.delete_app_state("named", "x")
    finally:
        unregister_redis_instance("spread")
