"""Servers that refuse to tell: followers look for themselves, and are told when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.redis._links import inbox
from agentsession.subscriptions import Missed, SessionNews
from harness import servers

KEY = SessionKey("app", "user", "session")
SOON = 20.0


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Node]:
    with servers.alone() as running:
        yield running


def say(words: str) -> Event:
    return Event(author="user", content=words)


def allow(server: servers.Server, *denied: str) -> str:
    """Make a user who may do all but this, and return the URL to log in with."""
    server.ask("ACL", "SETUSER", "follower", "reset", "on", ">s3cret", "~*", "&*", "+@all", *denied)
    return server.url.replace("unix://", "unix://follower:s3cret@")


DENIED = {"subscribe": ("-subscribe",), "channels": ("resetchannels",)}


@pytest.mark.parametrize("name", DENIED)
async def test_who_may_not_listen_is_told_to_look(
    server: servers.Node, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then; and hears the news once the rights are there."""
    monkeypatch.setattr(inbox, "_BETWEEN_PINGS", 0.05)
    monkeypatch.setattr(inbox, "_BEFORE_ASKING_AGAIN", 0.1)
    url = allow(server, *DENIED[name])
    async with (
        RedisSessionService.from_url(server.url) as service,
        RedisSessionService.from_url(url) as other,
    ):
        await service.create_session(KEY)
        async with other.subscribe_user(KEY.user) as news, other.subscribe(KEY) as items:
            async with asyncio.timeout(SOON):
                assert [await anext(news) for _ in range(4)] == [Missed()] * 4
                await service.append_event(KEY, say("1"))
                item = await anext(items)
                assert isinstance(item, Event)
                assert item.text == "1"
                allow(server)
                while await anext(news) == Missed():
                    await service.append_event(KEY, say("more"))
                monkeypatch.undo()
                await service.append_event(KEY, Event(author="a", content="x", partial=True))
                while isinstance(item, Event) and not item.partial:
                    item = await anext(items)
        await service.delete_session(KEY)


@pytest.mark.parametrize("denied", [("-publish",), ("resetchannels",)])
async def test_who_may_not_tell_writes_all_the_same(
    server: servers.Node, denied: tuple[str, ...]
) -> None:
    """Chunks are lost, and what is stored is found by looking."""
    url = allow(server, *denied)
    async with (
        RedisSessionService.from_url(url) as service,
        RedisSessionService.from_url(server.url, session_ttl=0.4) as other,
    ):
        await service.create_session(KEY)
        async with other.subscribe(KEY) as items:
            await service.append_event(KEY, Event(author="a", content="x", partial=True))
            await service.append_event(KEY, say("1"))
            async with asyncio.timeout(SOON):
                item = await anext(items)
            assert isinstance(item, Event)
            assert item.text == "1"
            async with service.lease(KEY) as lease:
                await service.append_event(KEY, say("2"), lease=lease)
        await service.delete_session(KEY)


async def test_who_may_not_stop_listening_hears_no_more(server: servers.Node) -> None:
    """Without the right to unsubscribe the server goes on telling; nobody is called for that."""
    url = allow(server, "-unsubscribe")
    async with (
        RedisSessionService.from_url(server.url) as service,
        RedisSessionService.from_url(url) as other,
    ):
        await service.create_session(KEY)
        for _ in range(3):
            async with other.subscribe_user(KEY.user) as news:
                async with asyncio.timeout(SOON):
                    assert await anext(news) == Missed()
                    assert await anext(news) in (Missed(), SessionNews(KEY, "written"))
                    await service.append_event(KEY, say("x"))
                    while await anext(news) != SessionNews(KEY, "written"):
                        pass
        await service.delete_session(KEY)
