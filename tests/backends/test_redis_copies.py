"""A call whose reply was lost is sent again, and its first copy may arrive late: yet it runs once.

In between others write, and their writes were acknowledged: no copy may undo them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.redis.backend import RedisBackend
from agentsession.redis.connection import MultiplexedLink
from agentsession.redis.scripts import Script
from agentsession.retention import Retention
from agentsession.service import SessionService

KEY = SessionKey("app", "user", "session")


class Remembering(MultiplexedLink):
    """Remembers what it sent, to send it to the letter once more."""

    last: tuple[Script, Any, Any]

    async def run(self, script, keys, args):
        self.last = (script, keys, args)
        return await super().run(script, keys, args)

    async def send_a_copy(self) -> None:
        await super().run(*self.last)


@pytest.fixture
def link(valkey_url: str) -> Remembering:
    pool = redis.asyncio.ConnectionPool.from_url(valkey_url)
    return Remembering(pool, owned=True, timeout=10)


@pytest.fixture
async def one(link: Remembering, prefix: str) -> AsyncIterator[SessionService]:
    async with SessionService(RedisBackend(Retention(), link, key_prefix=prefix)) as service:
        await service.create_session(KEY)
        yield service


@pytest.fixture
async def other(valkey_url: str, prefix: str) -> AsyncIterator[SessionService]:
    async with RedisSessionService.from_url(valkey_url, key_prefix=prefix) as service:
        yield service


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name}:"


Write = Callable[[SessionService, int], Awaitable[Any]]
UPDATES: dict[str, Write] = {
    "session": lambda service, n: service.update_session_state(
        KEY, {"n": n, "user:n": n, "app:n": n}
    ),
    "user": lambda service, n: service.update_user_state(KEY.user, {"n": n}),
    "app": lambda service, n: service.update_app_state("app", {"n": n}),
}


@pytest.mark.parametrize("write", UPDATES.values(), ids=UPDATES)
async def test_a_copy_of_an_update_undoes_nothing(
    one: SessionService, other: SessionService, link: Remembering, write: Write
) -> None:
    """What was written after an update stays, though the update is run again."""
    await write(one, 1)
    await write(other, 2)
    before = await other.get_session(KEY)
    await link.send_a_copy()
    assert await other.get_session(KEY) == before
    await write(one, 3)
    session = await other.get_session(KEY)
    assert session is not None
    assert set(session.state.values()) == {3}


async def test_a_copy_of_a_deletion_deletes_nothing_new(
    one: SessionService, other: SessionService, link: Remembering
) -> None:
    """A session that is made after a deletion stays, with its acknowledged events."""
    await one.delete_session(KEY)
    session = await other.create_session(KEY)
    await other.append_event(session, Event(author="user", content="kept"))
    await link.send_a_copy()
    assert await other.get_session(KEY) == session
    await one.delete_session(KEY)
    assert await other.get_session(KEY) is None


async def test_a_copy_of_a_creation_makes_nothing_again(
    one: SessionService, other: SessionService, link: Remembering
) -> None:
    """A session that was deleted stays so, and what its creation wrote elsewhere is not redone."""
    new = SessionKey("app", "user", "new")
    for make in (one.create_session, one.get_or_create_session):
        await make(new, {"user:n": 1})
        await other.delete_session(new)
        await other.update_user_state(new.user, {"n": 2})
        await link.send_a_copy()
        assert await other.get_session(new) is None
        assert await other.get_user_state(new.user) == {"n": 2}


async def test_what_is_remembered_of_calls_goes_by_itself(
    one: SessionService, valkey_url: str, prefix: str
) -> None:
    """It has an expiry though nothing else has, it is bounded, and erasure takes a user's along."""
    for n in range(1010):
        await one.update_user_state(KEY.user, {"n": n})
    await one.update_app_state("app", {"n": 1})
    names = [f"{prefix}usercalls:{{app:user}}", f"{prefix}appcalls:{{app}}"]
    async with redis.asyncio.Redis.from_url(valkey_url) as client:
        assert [await client.zcard(name) for name in names] == [1000, 1]
        for name in names:
            assert 500_000 < await client.pttl(name) <= 600_000
        await one.delete_user(KEY.user)
        assert [await client.exists(name) for name in names] == [0, 1]
