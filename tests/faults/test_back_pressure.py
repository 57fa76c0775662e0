"""A server that hangs fills no memory: who is too much waits, and who gives up leaves nothing."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Struct

from agentsession import Event, RedisSessionService, SessionKey
from harness import servers

MEBIBYTE = 1 << 20
# What may be under way, and what else a service needs while it sends.
BOUND = 64 * MEBIBYTE
MARGIN = 16 * MEBIBYTE
# One object for all callers, so that what is measured is not theirs.
LARGE = "x" * 1_000_000
# One value that takes longer to encode than a step.
SLOW = ["x" * 900_000, *[0] * 40_000]
PATIENCE = 30.0
# What is sent stands in the buffers of sockets, which hold some MB.
SENT = 16 * MEBIBYTE


class Place(Struct):
    """A server, or the node of a cluster that has a user's data."""

    url: str
    node: servers.Server


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Server]:
    """One for all tests here, which leave it as it was."""
    with servers.running(servers.binaries()["valkey"]) as running:
        yield running


@pytest.fixture(params=["server", "cluster"])
def place(request: pytest.FixtureRequest, key: SessionKey) -> Place:
    found = request.getfixturevalue(request.param)
    node = found.owner(f"{{app:{key.user_id}}}") if request.param == "cluster" else found
    return Place(found.url, node)


@pytest.fixture
def key(request: pytest.FixtureRequest) -> SessionKey:
    return SessionKey("app", request.node.name, "session")


@asynccontextmanager
async def stopped(place: Place, key: SessionKey) -> AsyncIterator[RedisSessionService]:
    """A service with a session, whose server does nothing for now."""
    async with RedisSessionService.from_url(place.url, timeout=PATIENCE) as service:
        await service.create_session(key)
        await service.append_event(key, Event(author="user", content="first"))
        place.node.freeze()
        try:
            yield service
        finally:
            place.node.thaw()
        await service.delete_user(key.user)


async def append(service: RedisSessionService, key: SessionKey, _: int) -> None:
    await service.append_event(key, Event(author="user", content=LARGE))


async def append_three(service: RedisSessionService, key: SessionKey, _: int) -> None:
    events = [Event(author="user", content=LARGE) for _ in range(3)]
    await service.append_events(key, events)


async def append_twenty(service: RedisSessionService, key: SessionKey, _: int) -> None:
    """Encoding it takes several steps, between which others begin with theirs."""
    events = [Event(author="user", content=LARGE) for _ in range(20)]
    await service.append_events(key, events)


async def update_twenty(service: RedisSessionService, key: SessionKey, _: int) -> None:
    await service.update_session_state(key, {f"{n}": LARGE for n in range(20)})


async def update(service: RedisSessionService, key: SessionKey, _: int) -> None:
    await service.update_session_state(key, {"n": LARGE})


async def open_(service: RedisSessionService, key: SessionKey, number: int) -> None:
    """It looks whether the session is there, with what it would make it with at hand."""
    another = SessionKey(key.app_name, key.user_id, f"{number}")
    await service.get_or_create_session(another, {"n": LARGE})


async def open_with_twenty(service: RedisSessionService, key: SessionKey, number: int) -> None:
    another = SessionKey(key.app_name, key.user_id, f"{number}")
    await service.get_or_create_session(another, {f"{n}": LARGE for n in range(20)})


async def update_slowly(service: RedisSessionService, key: SessionKey, _: int) -> None:
    """Encoding one value takes longer than a step."""
    await service.update_user_state(key.user, {"n": SLOW})


async def append_for_all(service: RedisSessionService, key: SessionKey, _: int) -> None:
    """On a cluster the application's state follows in a second step."""
    await service.append_event(key, Event(author="user", state_delta={"app:n": LARGE}))


async def update_for_all(service: RedisSessionService, key: SessionKey, _: int) -> None:
    await service.update_session_state(key, {f"app:{n}": LARGE for n in range(20)})


async def create_for_all(service: RedisSessionService, key: SessionKey, number: int) -> None:
    another = SessionKey(key.app_name, key.user_id, f"{number}")
    await service.create_session(another, {f"app:{n}": LARGE for n in range(20)})


async def create(service: RedisSessionService, key: SessionKey, number: int) -> None:
    another = SessionKey(key.app_name, key.user_id, f"{number}")
    await service.create_session(another, {"n": LARGE})


async def settle() -> None:
    """Let everybody go as far as they get by themselves."""
    for _ in range(300):
        await asyncio.sleep(0)


@asynccontextmanager
async def callers(calls: list[Awaitable[Any]]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """So many at once, cancelled in the end."""

    async def made(call: Awaitable[Any]) -> None:
        await call

    tasks = [asyncio.create_task(made(call)) for call in calls]
    try:
        await settle()
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


Call = Callable[[RedisSessionService, SessionKey, int], Awaitable[None]]


# The size of each in MiB, rounded up.
SIZES: dict[Call, int] = {
    append: 1, append_three: 3, append_twenty: 20, update: 1, update_twenty: 20, update_slowly: 1,
    create: 1, open_: 1, open_with_twenty: 20,
    append_for_all: 2, update_for_all: 20, create_for_all: 20,
}  # fmt: skip


@pytest.mark.parametrize("call", SIZES)
async def test_what_waits_for_a_hung_server_is_bounded(
    place: Place, key: SessionKey, call: Call
) -> None:
    """In bytes, whichever the call, however many callers there are."""
    number = 100 if SIZES[call] > 1 or call is update_slowly else 300
    async with stopped(place, key) as service:
        tracemalloc.start()
        try:
            async with callers([call(service, key, n) for n in range(number)]):
                _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # One call may go over the bound, by as much as it takes.
    assert peak < BOUND + SIZES[call] * MEBIBYTE + MARGIN, f"{peak // MEBIBYTE} MiB"


async def test_a_caller_who_is_cancelled_leaves_nothing(place: Place, key: SessionKey) -> None:
    """No task, and nothing that would be carried out later; only what was sent by then may be."""
    size, number = 20_000, 3000
    async with stopped(place, key) as service:
        before = len(asyncio.all_tasks())
        events = [Event(author="user", content="x" * size) for _ in range(number)]
        async with callers([service.append_event(key, event) for event in events]) as tasks:
            assert not any(task.done() for task in tasks)
        await settle()
        assert len(asyncio.all_tasks()) < before + 10
        place.node.thaw()
        last = await service.append_event(key, Event(author="user", content="last"))
        session = await service.get_session(key, num_recent_events=1)
        assert session is not None
        # The last call has come behind all that was sent before it.
        assert session.events == [last]
        assert session.last_seq < SENT // size


@pytest.mark.on_both_loops
async def test_who_gives_up_holds_up_nobody(place: Place, key: SessionKey) -> None:
    """What a cancelled caller had in memory does not count any more, also if it was sent for."""
    async with stopped(place, key) as service:
        calls = [open_with_twenty(service, key, n) for n in range(10)]
        async with callers(list(calls)):
            assert service.backend.crowded
        await settle()
        assert not service.backend.crowded


@pytest.mark.on_both_loops
async def test_who_waits_in_line_gets_his_turn(place: Place, key: SessionKey) -> None:
    """When the server goes on, all calls are carried out, once each."""
    number = 100
    async with stopped(place, key) as service:
        events = [Event(author="user", content=f"{n} {LARGE}") for n in range(number)]
        calls = [asyncio.create_task(service.append_event(key, event)) for event in events]
        await settle()
        place.node.thaw()
        assert sorted([(await call).seq for call in calls]) == list(range(2, number + 2))
