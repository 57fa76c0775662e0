"""What was before is lost, or is somebody else's: an error says so, and nothing is taken for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis.asyncio

from agentsession import Event, RedisSessionService, Session, SessionKey
from agentsession.errors import CodecError

KEY = SessionKey("app", "user", "session")
NEW = SessionKey("app", "user", "new")


def say(number: int) -> Event:
    return Event(author="user", content=str(number), state_delta={"n": number})


@pytest.fixture
async def client(valkey_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(valkey_url) as opened:
        yield opened


@pytest.fixture
async def service(valkey_url: str) -> AsyncIterator[RedisSessionService]:
    """Hold a session that has gone back, from 5 to 3."""
    async with RedisSessionService.from_url(valkey_url, key_prefix="lost:") as opened:
        await opened.delete_user(KEY.user)
        await opened.create_session(KEY, {"n": 0})
        await opened.append_events(KEY, [say(number) for number in range(1, 6)])
        await opened.rewind(KEY, to_seq=3)
        await opened.append_event(KEY, say(7))
        yield opened
        await opened.delete_user(KEY.user)


async def lose(client: redis.asyncio.Redis, kind: str, how: str) -> None:
    name = f"lost:{kind}:{{app:user}}:session"
    assert await client.unlink(name) == 1
    if how == "of another type":
        await client.set(name, "x")


async def whole(service: RedisSessionService) -> Session:
    session = await service.get_session(KEY)
    assert session is not None
    return session


@pytest.mark.parametrize("how", ["gone", "of another type"])
async def test_what_was_taken_back_is_not_seen_again(
    service: RedisSessionService, client: redis.asyncio.Redis, how: str
) -> None:
    """Where it is not known any more what that was, nothing is read but all that is stored."""
    await lose(client, "taken", how)
    for read in (
        lambda: service.get_session(KEY),
        lambda: service.get_session(KEY, num_recent_events=1),
        lambda: service.get_or_create_session(KEY),
        lambda: service.get_events(KEY),
        lambda: service.get_events(KEY, newest_first=True),
        lambda: service.get_history(KEY),
        lambda: service.rewind(KEY, to_seq=3),
        lambda: service.append_events(KEY, [say(8)], rewind_to=3),
        lambda: service.fork(KEY, NEW),
    ):
        with pytest.raises(CodecError):
            await read()
    raw = await service.get_events(KEY, raw=True)
    assert [event.seq for event in raw] == [1, 2, 3, 4, 5, 6, 7]
    if how == "gone":
        await service.append_event(KEY, say(8))
    await service.delete_session(KEY)
    assert await service.get_session(KEY) is None


@pytest.mark.parametrize("kind", ["changes", "before"])
@pytest.mark.parametrize("how", ["gone", "of another type"])
async def test_state_of_then_is_not_made_up(
    service: RedisSessionService, client: redis.asyncio.Redis, kind: str, how: str
) -> None:
    """Who would go back is told, and who reads on finds all as it was."""
    before = await whole(service)
    await lose(client, kind, how)
    for call in (
        lambda: service.rewind(KEY, to_seq=3),
        lambda: service.append_events(KEY, [say(8)], rewind_to=3),
        lambda: service.fork(KEY, NEW),
    ):
        with pytest.raises(CodecError):
            await call()
    assert await whole(service) == before
    if how == "of another type":
        quiet = Event(author="user", content="8")
        for event in (say(8), Event(author="user", state_delta={"m": 1})):
            with pytest.raises(CodecError):
                await service.append_event(KEY, event)
        with pytest.raises(CodecError):
            await service.append_events(KEY, [quiet, say(9)])
        with pytest.raises(CodecError):
            await service.update_session_state(KEY, {"n": 1})
        assert await whole(service) == before
    await service.append_event(KEY, Event(author="user", content="8"))
    assert (await whole(service)).events[:-1] == before.events
