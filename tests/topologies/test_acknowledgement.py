"""How far a write has got when it returns: replicas, disk, and what is told if it has not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.backend import Backend
from agentsession.errors import (
    OutcomeUnknownError,
    RevisionConflictError,
    SessionExistsError,
    SessionNotFoundError,
)
from agentsession.redis._addresses import read_url
from agentsession.redis._backend import RedisBackend
from agentsession.redis._core.acknowledgement import Acknowledgement
from agentsession.redis._targets.making import LinkOptions, link_to
from agentsession.retention import Retention
from agentsession.testing import CHECKS, Check
from harness import servers
from harness.subjects import RedisSubject

KEY = SessionKey("app", "user", "session")


def say(words: str, **fields: Any) -> Event:
    return Event(author="user", content=words, **fields)


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[servers.Node]]:
    """A primary and one replica, both with all that they acknowledge on disk."""
    with servers.replicated(1, "--appendonly", "yes", "--appendfsync", "always") as started:
        yield started


@pytest.fixture
def primary(nodes: list[servers.Node]) -> Iterator[servers.Node]:
    yield nodes[0]
    nodes[1].thaw()
    nodes[0].ask("FLUSHALL")


@pytest.fixture
def replica(nodes: list[servers.Node]) -> servers.Node:
    return nodes[1]


def calls(node: servers.Node, command: str) -> int:
    stats = node.ask("INFO", "commandstats")
    return int(stats[f"cmdstat_{command}"]["calls"]) if f"cmdstat_{command}" in stats else 0


class AcknowledgedSubject(RedisSubject):
    """The multiplexed connection, with a barrier behind what it writes."""

    def open(self, retention: Retention) -> Backend:
        options = LinkOptions(timeout=10, acknowledgement=Acknowledgement(1))
        link = link_to(read_url(self.url), {}, options)
        return RedisBackend(retention, link, key_prefix=self.prefix)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance_with_acknowledgement(check: Check, primary: servers.Node) -> None:
    """Barriers between the replies change nothing about any promise."""
    async with AcknowledgedSubject(primary.url) as subject:
        await check(subject)


@pytest.mark.on_both_loops
async def test_a_write_waits_for_replicas_and_reads_do_not(
    primary: servers.Node, replica: servers.Node
) -> None:
    """While a replica hangs, writes wait and reads go on; then the writes return, in order."""
    async with RedisSessionService.from_url(primary.url, ack_replicas=1) as service:
        session = await service.create_session(KEY)
        replica.freeze()
        writes = [asyncio.create_task(service.append_event(session, say(str(n)))) for n in range(5)]
        async with asyncio.timeout(5):
            while len(await service.get_events(KEY)) < 5:
                pass
        assert not any(write.done() for write in writes)
        replica.thaw()
        assert [(await write).seq for write in writes] == [1, 2, 3, 4, 5]


async def test_reads_wait_for_one_barrier_at_most(
    primary: servers.Node, replica: servers.Node
) -> None:
    """However many writes wait for a replica that hangs, each sent by itself."""
    async with RedisSessionService.from_url(primary.url, ack_replicas=1) as service:
        session = await service.create_session(KEY)
        await service.append_event(session, say("first"))
        replica.freeze()
        writes = []
        for n in range(30):
            writes.append(asyncio.create_task(service.append_event(session, say(str(n)))))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        async with asyncio.timeout(1.5):
            assert await service.get_session(KEY) is not None
        replica.thaw()
        assert [(await write).seq for write in writes] == [*range(2, 32)]


async def test_what_was_refused_waits_for_nobody(
    primary: servers.Node, replica: servers.Node
) -> None:
    """Nothing was written that could be lost, and the error says what is wrong."""
    async with RedisSessionService.from_url(primary.url, ack_replicas=1) as service:
        await service.create_session(KEY)
        absent = SessionKey("app", "user", "absent")
        replica.freeze()
        async with asyncio.timeout(5):
            with pytest.raises(SessionExistsError):
                await service.create_session(KEY)
            with pytest.raises(RevisionConflictError):
                await service.append_event(KEY, say("x"), expected_revision=99)
            with pytest.raises(SessionNotFoundError):
                await service.update_session_state(absent, {"n": 1})
        replica.thaw()


async def test_what_replicas_do_not_get_is_told(
    primary: servers.Node, replica: servers.Node
) -> None:
    """At the deadline the outcome is unknown, for a repeat too, until the replica has it."""
    event = say("once")
    async with RedisSessionService.from_url(primary.url, ack_replicas=1, timeout=2) as service:
        await service.create_session(KEY)
        replica.freeze()
        for _ in range(2):
            with pytest.raises(OutcomeUnknownError, match=r"0 of 1 replicas have it.*repeat it"):
                await service.append_event(KEY, event)
        assert "in_flight=0" in repr(service) or await service.get_session(KEY) is not None
        replica.thaw()
        async with asyncio.timeout(10):
            while True:
                try:
                    stored = await service.append_event(KEY, event)
                except OutcomeUnknownError:
                    continue  # The replica has to catch up first.
                break
        assert stored.seq == 1
        assert [each.content for each in await service.get_events(KEY)] == ["once"]


async def test_a_server_without_an_append_only_file_is_told(valkey_url: str) -> None:
    """No repeat helps there, so the advice is another one."""
    async with RedisSessionService.from_url(valkey_url, ack_fsync=True) as service:
        with pytest.raises(OutcomeUnknownError, match="Set appendonly yes on the server, or leave"):
            await service.create_session(KEY)


@pytest.mark.on_both_loops
async def test_concurrent_writes_share_a_barrier(primary: servers.Node) -> None:
    """What was sent together is waited for together, and reads ask for nothing."""
    async with RedisSessionService.from_url(primary.url, ack_fsync=True) as service:
        await service.create_session(KEY)
        primary.ask("CONFIG", "RESETSTAT")
        async with asyncio.TaskGroup() as group:
            for n in range(200):
                group.create_task(service.append_event(KEY, say(str(n))))
        assert 1 <= calls(primary, "waitaof") < 100
        primary.ask("CONFIG", "RESETSTAT")
        for _ in range(5):
            await service.get_session(KEY, num_recent_events=1)
        assert calls(primary, "waitaof") == 0
        assert [event.seq for event in await service.get_events(KEY, limit=1000)] == list(
            range(1, 201)
        )


@pytest.mark.on_both_loops
async def test_a_connection_lost_while_waiting_repeats_the_write(
    primary: servers.Node, replica: servers.Node
) -> None:
    """What was answered and not acknowledged is sent again, and is there once."""
    async with RedisSessionService.from_url(primary.url, ack_replicas=1) as service:
        await service.create_session(KEY)
        replica.freeze()
        write = asyncio.create_task(service.append_event(KEY, say("x", state_delta={"n": 1})))
        async with asyncio.timeout(5):
            while not await service.get_events(KEY):
                pass
        primary.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        replica.thaw()
        assert (await write).seq == 1
        assert len(await service.get_events(KEY)) == 1


WRITES: dict[str, Callable[[RedisSessionService], Awaitable[object]]] = {
    "append": lambda service: service.append_event(KEY, say("x")),
    "create": lambda service: service.create_session(SessionKey("app", "user", "new")),
    "get or create": lambda service: service.get_or_create_session(SessionKey("app", "u", "new")),
    "update session": lambda service: service.update_session_state(KEY, {"n": 1}),
    "update user": lambda service: service.update_user_state(KEY.user, {"n": 1}),
    "update app": lambda service: service.update_app_state("app", {"n": 1}),
    "delete": lambda service: service.delete_session(KEY),
    "delete user": lambda service: service.delete_user(KEY.user),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_repeat_on_another_connection_is_not_acknowledged_sooner(
    primary: servers.Node,
    replica: servers.Node,
    write: Callable[[RedisSessionService], Awaitable[object]],
) -> None:
    """WAIT speaks of what its connection wrote, so that a repeat has to write as well."""
    async with RedisSessionService.from_url(primary.url, ack_replicas=1, timeout=30) as service:
        await service.create_session(KEY)
        replica.freeze()
        call = asyncio.ensure_future(write(service))
        for _ in range(3):
            waited = calls(primary, "wait")
            async with asyncio.timeout(10):
                while calls(primary, "wait") < waited + 3:
                    await asyncio.sleep(0.001)
            assert not call.done()
            primary.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        replica.thaw()
        await call


async def test_closing_ends_what_waits(primary: servers.Node, replica: servers.Node) -> None:
    """A write that nobody will acknowledge any more ends with the service, saying so."""
    service = RedisSessionService.from_url(primary.url, ack_replicas=1, timeout=0.5)
    await service.create_session(KEY)
    replica.freeze()
    write = asyncio.create_task(service.append_event(KEY, say("x")))
    await asyncio.sleep(0)
    await service.aclose()
    with pytest.raises(OutcomeUnknownError):
        await write
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("agentsession")]


@pytest.mark.parametrize("kind", sorted(servers.binaries()))
async def test_a_server_that_cannot_is_told_at_once(kind: str) -> None:
    """Without an append-only file or the command the error says why, and the write is there."""
    with servers.running(servers.binaries()[kind]) as server:
        async with RedisSessionService.from_url(server.url, ack_fsync=True, timeout=30) as service:
            with pytest.raises(OutcomeUnknownError, match=r"written.*(WAITAOF|waitaof)"):
                await service.create_session(KEY)
            assert await service.get_session(KEY) is not None


async def test_services_of_one_name_are_acknowledged_each_as_it_asks(
    primary: servers.Node, replica: servers.Node
) -> None:
    """A named instance shares connections among those alone that want the same of them."""
    from agentsession.redis import register_redis_instance, unregister_redis_instance

    register_redis_instance("shared", url=primary.url)
    try:
        quick = RedisSessionService(instance="shared")
        sure = RedisSessionService(instance="shared", ack_replicas=1, timeout=0.5)
        async with quick, sure:
            await quick.create_session(KEY)
            replica.freeze()
            await quick.append_event(KEY, say("x"))
            with pytest.raises(OutcomeUnknownError):
                await sure.append_event(KEY, say("y"))
    finally:
        unregister_redis_instance("shared")


async def test_a_cluster_acknowledges_too() -> None:
    """On a cluster the write and what waits for it share a connection."""
    with servers.cluster(1, replicas=True) as cluster:
        async with RedisSessionService.from_url(cluster.url, ack_replicas=1, timeout=2) as service:
            await service.create_session(KEY, {"app:n": 1, "n": 1})
            event = say("once", state_delta={"n": 2, "app:n": 2})
            assert (await service.append_event(KEY, event)).seq == 1
            cluster.nodes[1].freeze()
            with pytest.raises(OutcomeUnknownError, match="0 of 1 replicas"):
                await service.append_event(KEY, say("more"))
            cluster.nodes[1].thaw()
            assert (await service.append_event(KEY, event)).seq == 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"ack_replicas": -1}, "0 or more"),
        ({"ack_replicas": True}, "must be an int"),
        ({"ack_replicas": 1.5}, "must be an int"),
        ({"ack_fsync": 1}, "True or False"),
    ],
)
def test_options_are_checked(options: dict[str, object], problem: str) -> None:
    """A wrong option is refused when the service is made."""
    with pytest.raises((TypeError, ValueError), match=problem):
        RedisSessionService.from_url("redis://localhost", **options)  # type: ignore[arg-type]  # the mistake
