"""No copy of a write has an effect after its call was answered or given up.

What a client sends can be held up on the way, longer than the client waits: it comes again over a
new connection and is answered there, others write, their writes are acknowledged, and then the
first copy reaches the server. Here a proxy holds it up: each step of each call, one after the
other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from msgspec import Struct

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.backend import Before
from agentsession.clock import to_microseconds
from agentsession.errors import (
    AgentSessionError,
    BackendUnavailableError,
    OutcomeUnknownError,
    RevisionConflictError,
    SessionExistsError,
    SessionNotFoundError,
)
from agentsession.redis._links.cluster import ClusterLink
from harness import servers
from harness.proxy import Hold, Proxy, proxied, proxied_nodes

LIMIT = 10
# How many ids a log remembers besides those of the events that it holds, and more than any store
# may remember of calls by their number alone.
MANY = 1000

Do = Callable[[RedisSessionService, SessionKey], Awaitable[Any]]


def say(words: str, **state: object) -> Event:
    return Event(author="user", content=words, state_delta=state)


# -- what is called


async def create(service: RedisSessionService, key: SessionKey) -> None:
    await service.create_session(key, {"n": 1, "user:n": 1, "app:n": 1})


async def open_(service: RedisSessionService, key: SessionKey) -> None:
    await service.get_or_create_session(key, {"n": 1, "user:n": 1, "app:n": 1})


async def delete(service: RedisSessionService, key: SessionKey) -> None:
    await service.delete_session(key)


async def erase(service: RedisSessionService, key: SessionKey) -> None:
    await service.delete_user(key.user)


async def append(service: RedisSessionService, key: SessionKey) -> None:
    await service.append_event(key, say("late", **{"n": 1, "user:n": 1, "app:n": 1}))


async def append_two(service: RedisSessionService, key: SessionKey) -> None:
    await service.append_events(key, [say("late", n=1), say("later", **{"user:n": 1, "app:n": 1})])


async def append_at_3(service: RedisSessionService, key: SessionKey) -> None:
    await service.append_event(key, say("late", n=1), expected_revision=3)


async def update(service: RedisSessionService, key: SessionKey) -> None:
    await service.update_session_state(key, {"n": 1, "user:n": 1, "app:n": 1})


async def update_user(service: RedisSessionService, key: SessionKey) -> None:
    await service.update_user_state(key.user, {"n": 1})


async def update_app(service: RedisSessionService, key: SessionKey) -> None:
    await service.update_app_state(key.app_name, {"n": 1})


async def note(service: RedisSessionService, key: SessionKey) -> None:
    await service.backend.note_past(key, [Before(1, {"n": b"late"})])


# -- what others do before and in between


async def nothing(service: RedisSessionService, key: SessionKey) -> None:
    """Leave all as it is."""


async def make(service: RedisSessionService, key: SessionKey) -> None:
    await service.create_session(key, {"n": 2, "user:n": 2, "app:n": 2})
    await service.append_event(key, say("kept"))


async def make_anew(service: RedisSessionService, key: SessionKey) -> None:
    await service.delete_session(key)
    await make(service, key)


async def make_anew_after_erasure(service: RedisSessionService, key: SessionKey) -> None:
    await service.delete_user(key.user)
    await make(service, key)


async def delete_and_write(service: RedisSessionService, key: SessionKey) -> None:
    await service.delete_session(key)
    await write_elsewhere(service, key)


async def write_elsewhere(service: RedisSessionService, key: SessionKey) -> None:
    await service.update_user_state(key.user, {"n": 2})
    await service.update_app_state(key.app_name, {"n": 2})


async def write(service: RedisSessionService, key: SessionKey) -> None:
    await service.update_session_state(key, {"n": 2, "user:n": 2, "app:n": 2})


async def write_twice(service: RedisSessionService, key: SessionKey) -> None:
    await service.append_event(key, say("kept"))
    await service.append_event(key, say("kept too"))


async def fill_the_log(service: RedisSessionService, key: SessionKey) -> None:
    for number in (MANY, 2 * LIMIT, 100):
        await service.append_events(key, [say("kept", n=2) for _ in range(number)])
    await write_elsewhere(service, key)


async def write_often(service: RedisSessionService, key: SessionKey) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(MANY + 1):
            group.create_task(service.update_user_state(key.user, {"n": 2}))


async def write_often_for_all(service: RedisSessionService, key: SessionKey) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(MANY + 1):
            group.create_task(service.update_app_state(key.app_name, {"n": 2}))


async def make_anew_and_write_often(service: RedisSessionService, key: SessionKey) -> None:
    await write_often(service, key)
    await make_anew(service, key)


async def delete_and_write_often(service: RedisSessionService, key: SessionKey) -> None:
    await service.delete_session(key)
    await write_elsewhere(service, key)
    await write_often(service, key)


class Case(Struct, frozen=True):
    """What is there, which call is held up, how it may be refused, and what others do since."""

    given: Do
    call: Do
    since: Do
    refused: tuple[type[AgentSessionError], ...] = ()


# An append that finds its session gone after a lost reply may have been the last one before.
GONE = (SessionNotFoundError, OutcomeUnknownError)

CASES = {
    "deletion": Case(make, delete, make_anew),
    "deletion of nothing": Case(nothing, delete, make),
    "deletion, long ago": Case(make, delete, make_anew_and_write_often),
    "deletion before an erasure": Case(make, delete, make_anew_after_erasure),
    "erasure": Case(make, erase, make),
    "erasure of nobody": Case(nothing, erase, make),
    "creation": Case(nothing, create, delete_and_write),
    "creation, long ago": Case(nothing, create, delete_and_write_often),
    "creation before an erasure": Case(nothing, create, erase),
    "creation that was refused": Case(make, create, delete_and_write, (SessionExistsError,)),
    "opening that made": Case(nothing, open_, delete_and_write),
    "opening that found": Case(make, open_, delete_and_write),
    "opening before an erasure": Case(make, open_, erase),
    "append": Case(make, append, write),
    "append, long ago": Case(make, append, fill_the_log),
    "append before a new life": Case(make, append, make_anew),
    "append before an erasure": Case(make, append, make_anew_after_erasure),
    "append to nothing": Case(nothing, append, make, GONE),
    "append that came too early": Case(create, append_at_3, write_twice, (RevisionConflictError,)),
    "batch": Case(make, append_two, write),
    "batch, long ago": Case(make, append_two, fill_the_log),
    "batch before a new life": Case(make, append_two, make_anew),
    "batch to nothing": Case(nothing, append_two, make, GONE),
    "update": Case(make, update, write),
    "update before a new life": Case(make, update, make_anew),
    "update before an erasure": Case(make, update, make_anew_after_erasure),
    "update of nothing": Case(nothing, update, make, (SessionNotFoundError,)),
    "note": Case(make, note, write),
    "note before a new life": Case(make, note, make_anew),
    "note before an erasure": Case(make, note, make_anew_after_erasure),
    "note to nothing": Case(nothing, note, make, (SessionNotFoundError,)),
    "update of a user": Case(nothing, update_user, write_elsewhere),
    "update of a user before an erasure": Case(make, update_user, erase),
    "update of a user, long ago": Case(nothing, update_user, write_often),
    "update of an application": Case(nothing, update_app, write_elsewhere),
    "update of an application, long ago": Case(nothing, update_app, write_often_for_all),
}
WRITES = (create, open_, delete, erase, append, append_two, update, note, update_user, update_app)


class Place(Struct):
    """A server or a cluster, behind proxies."""

    url: str
    proxies: list[Proxy]

    def hold(self, after: int | None = None) -> Hold:
        """Hold up a piece of what anybody sends from now on, or all."""
        hold = Hold(after)
        for proxy in self.proxies:
            proxy.holding = hold
        return hold

    def open(self, timeout: float = 10) -> RedisSessionService:
        return RedisSessionService.from_url(self.url, timeout=timeout, session_event_limit=LIMIT)


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    with servers.cluster(public=False) as running:
        yield running


@asynccontextmanager
async def place_of(request: pytest.FixtureRequest, kind: str) -> AsyncIterator[Place]:
    if kind == "cluster":
        cluster = request.getfixturevalue("cluster")
        async with proxied_nodes(cluster.nodes) as proxies:
            yield Place(cluster.url, proxies)
    else:
        url = request.getfixturevalue("server_urls")[kind]
        async with proxied(url) as proxy:
            yield Place(proxy.url, [proxy])


# It takes long, and the scripts do the same on the oldest server, as the conformance checks see.
SERVERS = sorted(servers.binaries().keys() - {servers.OLDEST})


@pytest.fixture(params=[*SERVERS, "cluster"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Every server but the oldest, and a cluster."""
    async with place_of(request, request.param) as found:
        yield found


@pytest.fixture
async def other(place: Place) -> AsyncIterator[RedisSessionService]:
    """Somebody else, of whom nothing is held up."""
    async with place.open() as service:
        yield service


async def sight(service: RedisSessionService, key: SessionKey) -> dict[str, object]:
    """All that there is to see of a session, its user and its application."""
    return {
        "session": await service.get_session(key),
        "sessions": await service.list_sessions(key.user),
        "user": await service.get_user_state(key.user),
        "app": await service.get_app_state(key.app_name),
        "past": await past(service, key),
    }


async def past(service: RedisSessionService, key: SessionKey) -> object:
    """What the state of a session was, if it is there."""
    with suppress(SessionNotFoundError):
        return (await service.backend.read_past(key, after=0, limit=1000)).earlier
    return None


async def past_for(service: RedisSessionService) -> None:
    """Wait until all that has happened is past by the service's knowledge of the servers' clocks.

    It is behind them by what a reply took to come. Until then a session that was just made looks
    younger than a call that follows, whose repeat then ends with an unknown outcome.
    """
    link = service.backend._calls._link  # type: ignore[attr-defined]  # it is Redis
    links = link._nodes.values() if isinstance(link, ClusterLink) else [link]
    present = to_microseconds(datetime.now(UTC))  # Theirs too: they run on this machine.
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while any(0 < each._clock.at(loop.time()) <= present for each in links):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("name", CASES)
async def test_what_comes_after_the_answer_does_nothing(
    place: Place, other: RedisSessionService, name: str
) -> None:
    """Whatever the call did, and however much was written since."""
    case = CASES[name]
    async with place.open() as service:
        for step in count():
            key = SessionKey(f"{name} {step}", "user", "session")
            await service.get_session(key)
            await case.given(other, key)
            await past_for(service)
            hold = place.hold(after=step)
            if case.refused:
                with pytest.raises(case.refused):
                    await case.call(service, key)
            else:
                await case.call(service, key)
            if not hold.kept:
                break
            await case.since(other, key)
            before = await sight(other, key)
            await hold.deliver()
            assert await sight(other, key) == before, f"step {step} of the call"
    assert step > 0


@pytest.mark.parametrize("given", [nothing, make], ids=["absent", "present"])
async def test_what_comes_after_the_deadline_does_nothing(
    place: Place, other: RedisSessionService, given: Do
) -> None:
    """Every copy of every write that was given up, however many there are."""
    keys = {write: SessionKey(f"{write.__name__} {given.__name__}", "u", "s") for write in WRITES}
    for key in keys.values():
        await given(other, key)
    before = [await sight(other, key) for key in keys.values()]
    async with place.open(timeout=0.3) as service:
        for key in keys.values():
            await service.get_session(key)
        hold = place.hold()

        async def give_up(write: Do, key: SessionKey) -> None:
            with pytest.raises((OutcomeUnknownError, BackendUnavailableError)):
                await write(service, key)

        async with asyncio.TaskGroup() as group:
            for write, key in keys.items():
                group.create_task(give_up(write, key))
        await hold.deliver()
        assert hold.kept
    assert [await sight(other, key) for key in keys.values()] == before


async def test_who_waits_longer_is_not_harmed(place: Place, other: RedisSessionService) -> None:
    """Of two calls whose bytes come late the one that was given up does nothing."""
    key = SessionKey("waiting", "user", "session")
    await make(other, key)
    async with place.open(timeout=0.3) as hasty, place.open() as patient:
        for service in (hasty, patient):
            await service.get_session(key)
        hold = place.hold()
        waiting = asyncio.create_task(patient.append_event(key, say("patient")))
        with pytest.raises((OutcomeUnknownError, BackendUnavailableError)):
            await hasty.append_event(key, say("hasty"))
        await hold.deliver()
        assert (await waiting).seq == 2
        words = [event.content for event in await other.get_events(key)]
        assert words == ["kept", "patient"]


async def test_a_creation_is_not_refused_for_what_came_after_it(valkey_url: str) -> None:
    """It has made its session; then others have deleted that, and made another one."""
    key = SessionKey("creation", "user", "session")
    async with (
        proxied(valkey_url) as proxy,
        RedisSessionService.from_url(proxy.url) as service,
        RedisSessionService.from_url(valkey_url) as other,
    ):
        # The server learns the script, so that the reply that is lost is the call's.
        await service.create_session(SessionKey("creation", "user", "another"))
        proxy.lose_replies = 1
        call = asyncio.create_task(service.create_session(key, {"user:n": 1}))
        async with asyncio.timeout(10):
            while not proxy.lost_replies:
                await asyncio.sleep(0)
        proxy.freeze()
        assert await other.get_user_state(key.user) == {"n": 1}
        await make_anew(other, key)
        before = await sight(other, key)
        proxy.thaw()
        with pytest.raises(SessionNotFoundError):
            await call
        assert await sight(other, key) == before
