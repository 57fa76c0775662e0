"""Writes of two steps on a cluster: what happens between them, and what callers are told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import redis.asyncio
from msgspec import Struct

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.errors import (
    BackendUnavailableError,
    OutcomeUnknownError,
    ReadTooLargeError,
)
from harness import servers
from harness.proxy import Proxy, proxied_nodes

EVERY = {"n": 1, "user:n": 1, "app:n": 1}


class Place(Struct):
    """A cluster, and a session whose state is on another node than its application's."""

    url: str
    key: SessionKey
    of_user: Proxy
    of_app: Proxy

    @asynccontextmanager
    async def losing(
        self, write: Coroutine[Any, Any, Any], *, once: Callable[[], bool] = lambda: True
    ) -> AsyncIterator[asyncio.Task[Any]]:
        """Carry out a write's first step and lose its reply, which is the first one *once* that is
        so; after the block it is repeated.
        """
        lost = asyncio.Event()

        def loses() -> bool:
            if lost.is_set() or not once():
                return False
            self.of_user.freeze()
            lost.set()
            return True

        self.of_user.loses = loses  # type: ignore[method-assign]  # for this write
        call = asyncio.create_task(write)
        async with asyncio.timeout(10):
            await lost.wait()
        yield call
        self.of_user.thaw()


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    """Clients come to it by proxies."""
    with servers.cluster(2, public=False) as running:
        yield running


@pytest.fixture
async def place(cluster: servers.Cluster, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    app = request.node.name
    of_app = cluster.owner(f"{{{app}}}")
    user = next(
        f"user-{n}" for n in range(100) if cluster.owner(f"{{{app}:user-{n}}}") is not of_app
    )
    async with proxied_nodes(cluster.nodes) as proxies:
        at = dict(zip(cluster.nodes, proxies, strict=True))
        (other,) = [node for node in cluster.nodes if node is not of_app]
        yield Place(cluster.url, SessionKey(app, user, "s"), at[other], at[of_app])


@pytest.fixture
async def service(place: Place) -> AsyncIterator[RedisSessionService]:
    async with RedisSessionService.from_url(place.url, session_event_limit=2, timeout=5) as made:
        await made.create_session(place.key)
        # So that the first reply is no longer that a node does not know a script.
        await made.append_event(place.key, Event(author="a"))
        await made.update_session_state(place.key, {"warm": True})
        await made.get_app_state(place.key.app_name)
        yield made


async def test_what_a_batch_has_trimmed_itself_takes_its_second_step(
    place: Place, service: RedisSessionService
) -> None:
    """Also if it is repeated since its reply was lost, and does not find its first events."""
    names = ["first", "second", "third"]
    events = [Event(author="a", id=name, state_delta={f"app:{name}": 1}) for name in names]
    async with place.losing(service.append_events(place.key, events)) as call:
        pass
    assert [event.seq for event in await call] == [2, 3, 4]
    assert await service.get_app_state(place.key.app_name) == dict.fromkeys(names, 1)


async def test_a_repeat_on_a_busy_machine_takes_no_second_step(
    place: Place, service: RedisSessionService
) -> None:
    """A call that was sent once has not stored what is there, however late its answer is read."""
    first = [Event(author="a", id=name) for name in ("first", "second", "third")]
    other = Event(author="a", id="first", state_delta={"app:other": 1})
    read_late: list[bool] = []

    def loses() -> bool:
        if not read_late:
            time.sleep(0.2)  # The machine is busy with something else.
            read_late.append(True)
        return False

    await service.append_events(place.key, first)
    place.of_user.loses = loses  # type: ignore[method-assign]  # for this call
    assert (await service.append_event(place.key, other)).seq == 2
    assert read_late
    assert await service.get_app_state(place.key.app_name) == {}


@pytest.mark.parametrize("cancelled", [False, True], ids=["waiting", "cancelled"])
async def test_an_update_of_a_session_that_is_gone_takes_its_second_step(
    cluster: servers.Cluster, place: Place, service: RedisSessionService, cancelled: bool
) -> None:
    """It was carried out before the session went, and its caller learns as much as is known."""
    async with place.losing(service.update_session_state(place.key, EVERY)) as call:
        cluster.owner(f"{{{place.key.app_name}:{place.key.user_id}}}").ask(
            "UNLINK", f"session:{{{place.key.app_name}:{place.key.user_id}}}:s"
        )
        if cancelled:
            call.cancel()
    if cancelled:
        await asyncio.wait([call])
        assert call.cancelled()
    else:
        with pytest.raises(OutcomeUnknownError, match="deleted since"):
            await call
    async with asyncio.timeout(10):
        while not (state := await service.get_app_state(place.key.app_name)):
            await asyncio.sleep(0.01)
    assert state == await service.get_user_state(place.key.user) == {"n": 1}


@pytest.mark.parametrize("cancelled", [False, True], ids=["waiting", "cancelled"])
async def test_a_session_that_cannot_be_read_whole_takes_its_second_step(
    place: Place, cluster: servers.Cluster, cancelled: bool
) -> None:
    """Others have appended more than one read may return, until its creation is repeated."""
    key = SessionKey(place.key.app_name, place.key.user_id, "new")
    node = cluster.owner(f"{{{key.app_name}:{key.user_id}}}")
    async with (
        RedisSessionService.from_url(place.url, max_event_size=1000, max_read_size=1000) as service,
        redis.asyncio.Redis(unix_socket_path=str(node.socket)) as behind_the_proxy,
    ):
        await service.create_session(place.key)
        tag = f"{{{key.app_name}:{key.user_id}}}:{key.session_id}"
        opening = service.get_or_create_session(key, EVERY)
        made = partial(node.ask, "EXISTS", f"session:{tag}")
        async with place.losing(opening, once=made) as call:
            created = int(await behind_the_proxy.hget(f"session:{tag}", "created") or 0)
            for n in range(1, 4):
                await behind_the_proxy.zadd(f"events:{tag}", {f"{n}" + "x" * 900: created + n})
                await behind_the_proxy.zadd(f"eventids:{tag}", {f"{n}": created + n})
            await behind_the_proxy.hset(f"session:{tag}", mapping={"count": 3, "revision": 2})
            if cancelled:
                call.cancel()
        await asyncio.wait([call])
        assert call.cancelled() == cancelled
        assert cancelled or isinstance(call.exception(), ReadTooLargeError)
        async with asyncio.timeout(10):
            while not (state := await service.get_app_state(key.app_name)):
                await asyncio.sleep(0.01)
        assert state == await service.get_user_state(key.user) == {"n": 1}
        with pytest.raises(ReadTooLargeError):
            await service.get_session(key)


@pytest.mark.parametrize(
    ("method", "step"),
    [("create_session", 1), ("create_session", 2), ("get_or_create_session", 2)],
)
async def test_a_creation_in_part_says_what_to_do(
    cluster: servers.Cluster, place: Place, method: str, step: int
) -> None:
    """It cannot be repeated: the session may be there, and who opens it sets the names anew."""
    tag = f"{{{place.key.app_name}:{place.key.user_id}}}"
    node = cluster.owner(tag)

    def freezes_what_follows() -> bool:
        if int(node.ask("EXISTS", f"session:{tag}:s")):
            place.of_app.freeze()
        return False

    async with RedisSessionService.from_url(place.url, timeout=1) as service:
        await service.create_session(SessionKey(place.key.app_name, place.key.user_id, "warm"))
        await service.get_app_state(place.key.app_name)
        await service.get_user_state(place.key.user)
        if step == 1:
            place.of_user.lose_replies = 1_000
        else:
            place.of_user.loses = freezes_what_follows  # type: ignore[method-assign]  # just then
        with pytest.raises(OutcomeUnknownError, match=r"session 's', .*names anew"):
            await getattr(service, method)(place.key, EVERY)
        place.of_user.loses = lambda: False  # type: ignore[method-assign]  # as above
        place.of_app.thaw()
        place.of_user.lose_replies = 0
        session = await service.get_or_create_session(place.key)
        assert session.state == {"n": 1, "user:n": 1}


@pytest.mark.parametrize("lost", [False, True], ids=["not sent", "reply lost"])
async def test_nothing_is_made_if_the_list_of_users_is_out_of_reach(
    place: Place, lost: bool
) -> None:
    """The error says so, and not that the outcome is unknown: a user on the list is no session."""
    async with RedisSessionService.from_url(place.url, timeout=1) as service:
        await service.create_session(SessionKey(place.key.app_name, place.key.user_id, "warm"))
        if lost:
            place.of_app.lose_replies = 1_000
        else:
            place.of_app.freeze()
        with pytest.raises(BackendUnavailableError, match="nothing was made"):
            await service.create_session(place.key, EVERY)
        with pytest.raises(BackendUnavailableError, match="nothing was made"):
            await service.update_user_state(place.key.user, {"n": 1})
        place.of_app.thaw()
        place.of_app.lose_replies = 0
        assert await service.get_session(place.key) is None
        assert await service.get_user_state(place.key.user) == {}
