"""While slots move, and while nodes hang: what is known is said, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import pytest
from redis.asyncio.cluster import RedisCluster

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.errors import BackendError, BackendUnavailableError
from agentsession.redis._core.slots import slot_of
from harness import servers

NUMBER = 20


def tag(key: SessionKey) -> str:
    """Name a key in the slot of a user's data."""
    return f"{{{key.app_name}:{key.user_id}}}"


@pytest.fixture
async def other(cluster: servers.Cluster) -> AsyncIterator[RedisSessionService]:
    async with RedisSessionService.from_url(cluster.url) as service:
        yield service


@asynccontextmanager
async def moving(cluster: servers.Cluster, key: SessionKey) -> AsyncIterator[servers.Move]:
    """The slot of a user's data on its way, with one key moved and the others not."""
    move = servers.Move(cluster, tag(key))
    move.begin()
    assert move.move_a_key(f"sessions:{tag(key)}")  # which every call needs
    try:
        yield move
    finally:
        move.move_all_keys()
        move.end()


Call = Callable[[RedisSessionService, SessionKey], Coroutine[Any, Any, object]]
EVERY = {"n": 1, "user:n": 1, "app:n": 1}
CALLS: dict[str, Call] = {
    "create": lambda service, key: service.create_session(
        SessionKey(key.app_name, key.user_id, "new"), EVERY
    ),
    "open": lambda service, key: service.get_or_create_session(key, EVERY),
    "append": lambda service, key: service.append_event(key, say("x")),
    "batch": lambda service, key: service.append_events(key, [say("x"), say("y")]),
    "update": lambda service, key: service.update_session_state(key, EVERY),
    "delete": lambda service, key: service.delete_session(key),
    "erase": lambda service, key: service.delete_user(key.user),
    "get": lambda service, key: service.get_session(key),
}
each_call = pytest.mark.parametrize("name", CALLS)


def say(words: str) -> Event:
    return Event(author="user", content=words, state_delta=EVERY)


@each_call
async def test_a_move_is_waited_for(
    cluster: servers.Cluster, other: RedisSessionService, name: str
) -> None:
    """A call whose keys are in part on their way goes through when the move has ended."""
    key = SessionKey("app", f"{name} waits", "session")
    await other.create_session(key, {"user:n": 0})
    await other.append_event(key, say("first"))
    tried = cluster.redirections("TRYAGAIN")
    async with moving(cluster, key):
        calling = asyncio.create_task(CALLS[name](other, key))
        came = lambda: cluster.redirections("TRYAGAIN") > tried  # noqa: E731
        await anyio.to_thread.run_sync(servers.eventually, came)
    await calling
    await other.delete_user(key.user)


@each_call
async def test_a_move_that_does_not_end_is_no_unknown_outcome(
    cluster: servers.Cluster, other: RedisSessionService, name: str
) -> None:
    """Nothing was run, so nothing was written, and that is said, whenever the time is up."""
    key = SessionKey("app", f"{name} gives up", "session")
    await other.create_session(key, {"user:n": 0})
    await other.append_event(key, say("first"))
    before = await other.get_session(key)
    raised: list[BaseException] = []
    async with RedisSessionService.from_url(cluster.url, timeout=1) as hasty:
        await hasty.get_session(key)

        async def give_up() -> None:
            with pytest.raises(BackendError) as failure:
                await CALLS[name](hasty, key)
            raised.append(failure.value)

        async with moving(cluster, key), asyncio.TaskGroup() as group:
            for _ in range(NUMBER):
                group.create_task(give_up())
    assert {type(each) for each in raised} == {BackendUnavailableError}
    assert await other.get_session(key) == before
    await other.delete_user(key.user)


@asynccontextmanager
async def unassigned(cluster: servers.Cluster, key: SessionKey) -> AsyncIterator[None]:
    """Take a user's slot from its node, so that nobody owns it."""
    slot, owner = slot_of(tag(key)), cluster.owner(tag(key))
    for node in cluster.nodes:
        node.ask("CLUSTER", "DELSLOTS", slot)
    try:
        yield
    finally:
        owner.ask("CLUSTER", "ADDSLOTS", slot)
        is_well = lambda node: "cluster_state:ok" in node.ask("CLUSTER", "INFO")  # noqa: E731
        well = lambda: all(map(is_well, cluster.nodes))  # noqa: E731
        await anyio.to_thread.run_sync(servers.eventually, well)


async def test_a_call_that_no_node_serves_ends_at_its_deadline(
    cluster: servers.Cluster, other: RedisSessionService
) -> None:
    """Nobody owns its slot, and it is said in time that nothing was written."""
    key = SessionKey("app", "homeless", "session")
    await other.create_session(key)
    loop = asyncio.get_running_loop()
    async with (
        unassigned(cluster, key),
        RedisSessionService.from_url(cluster.url, timeout=0.5) as hasty,
    ):
        start = loop.time()
        with pytest.raises(BackendUnavailableError):
            await hasty.append_event(key, say("x"))
        assert 0.4 < loop.time() - start < 5
        timers = len(loop._scheduled)  # type: ignore[attr-defined]  # no public way to count them
        calls = [asyncio.create_task(hasty.append_event(key, say("x"))) for _ in range(50)]
        await asyncio.wait(calls)
        assert {type(call.exception()) for call in calls} == {BackendUnavailableError}
        assert len(loop._scheduled) < timers + 25  # type: ignore[attr-defined]
    session = await other.get_session(key)
    assert session is not None
    assert session.events == []
    await other.delete_user(key.user)


@asynccontextmanager
async def complaints() -> AsyncIterator[list[str]]:
    """What the loop is told of that nobody else was."""
    loop = asyncio.get_running_loop()
    before, told = loop.get_exception_handler(), []
    gc.collect()
    loop.set_exception_handler(lambda _, context: told.append(str(context)))
    try:
        yield told
        for _ in range(10):  # What was let go of comes to its end.
            await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(before)


@pytest.mark.parametrize("ending", ["timed out", "cancelled", "closed"])
async def test_no_failure_is_left_for_the_loop_to_tell(
    cluster: servers.Cluster, ending: str
) -> None:
    """Whatever became of calls on a node that hangs, all of it was told to their callers."""
    key = SessionKey("app", ending, "session")
    owner = cluster.owner(tag(key))
    timeout = 0.3 if ending == "timed out" else 1
    async with (
        complaints() as told,
        RedisSessionService.from_url(cluster.url, timeout=timeout) as service,
    ):
        await service.create_session(key)

        async def fail() -> None:
            with pytest.raises(BackendError):
                await service.append_event(key, say("x"))

        owner.freeze()
        try:
            calls = [asyncio.create_task(fail()) for _ in range(NUMBER)]
            await asyncio.sleep(0)
            if ending == "cancelled":
                for call in calls:
                    call.cancel()
            if ending == "closed":
                closing = asyncio.create_task(service.aclose())
                await asyncio.sleep(0)
                closing.cancel()
                await asyncio.wait([closing])
            await asyncio.wait(calls)
        finally:
            owner.thaw()
        for call in calls:
            assert call.cancelled() == (ending == "cancelled")
            assert call.cancelled() or call.exception() is None
    assert told == []


async def test_a_client_that_was_handed_in_stays_open(
    cluster: servers.Cluster,
) -> None:
    """Two services use it, one after the other, and in the end it is as good as before."""
    key = SessionKey("app", "client", "session")
    client = RedisCluster(servers.LOOPBACK, cluster.nodes[0].port)
    try:
        for number in range(2):
            async with RedisSessionService(client) as service:
                await service.get_or_create_session(key)
                assert (await service.append_event(key, say("x"))).seq == number + 1
            assert await client.ping()
            assert await client.set(f"{number}", "x")
            assert await client.get(f"{number}") == b"x"
    finally:
        await client.aclose()
