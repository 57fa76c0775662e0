"""What followers are told by a store in memory that sweeps, and erases, piece by piece."""

from __future__ import annotations

import asyncio

import pytest

from agentsession import SessionKey, SessionService, UserKey
from agentsession.memory import MemoryBackend
from agentsession.retention import Retention
from agentsession.subscriptions import Ended, Missed, SessionNews, UserSubscription
from agentsession.testing import ManualClock

SOON = 10.0


def stage() -> tuple[SessionService, MemoryBackend, ManualClock]:
    clock = ManualClock()
    retention = Retention.of(
        session_event_limit=None,
        session_ttl=60,
        app_state_ttl=None,
        user_state_ttl=None,
        refresh_ttl_on_read=False,
    )
    backend = MemoryBackend(retention, clock=clock)
    return SessionService(backend), backend, clock


async def test_what_the_sweeper_frees_has_expired() -> None:
    """A follower is told so at once, and not that somebody has deleted it."""
    service, backend, clock = stage()
    key = SessionKey("app", "user", "session")
    async with service:
        await service.create_session(key)
        async with service.subscribe(key) as items, service.subscribe_user(key.user) as news:
            assert await anext(news) == Missed()
            clock.advance(61)
            await backend.sweep()
            async with asyncio.timeout(SOON):
                assert await anext(items) == Ended("expired")
            await service.create_session(key)
            async with asyncio.timeout(SOON):
                assert await anext(news) == SessionNews(key, "created")


async def follow(news: UserSubscription) -> dict[SessionKey, bool]:
    """Note which sessions are there, up to the one that is named "last"."""
    there: dict[SessionKey, bool] = {}
    async with asyncio.timeout(SOON):
        async for each in news:
            if isinstance(each, Missed):
                there.clear()
            elif each.key.session_id == "last":
                break
            else:
                there[each.key] = each.what != "deleted"
    return there


@pytest.mark.parametrize("number", [900, 20_000])
@pytest.mark.parametrize("how", ["sweep", "erase"])
async def test_what_is_made_anew_while_others_are_freed_is_not_told_as_gone(
    how: str, number: int
) -> None:
    """News come in the order in which things happened, however long the rest takes."""
    service, backend, clock = stage()
    user = UserKey("app", "user")
    keys = [SessionKey("app", "user", f"{n}") for n in range(number)]
    async with service:
        for key in keys:
            await service.create_session(key)
        async with service.subscribe_user(user) as news:
            following = asyncio.ensure_future(follow(news))
            clock.advance(61 if how == "sweep" else 0)
            freeing = asyncio.ensure_future(
                backend.sweep() if how == "sweep" else service.delete_user(user)
            )
            await asyncio.sleep(0)
            made = set()
            for key in keys[::50]:
                await service.get_or_create_session(key)
                made.add(key)
                await asyncio.sleep(0)
            await freeing
            await service.create_session(SessionKey("app", "user", "last"))
            there = await following
            assert not [key.session_id for key in made if not there.get(key, True)]
