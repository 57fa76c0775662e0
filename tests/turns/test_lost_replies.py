"""Where the answer to what begins a turn was lost, nobody is told that nothing was stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentsession import AgentContext, Event, RedisSessionService, Runner, SessionKey
from agentsession.backend import WhenBusy
from agentsession.errors import LeaseLostError, SessionBusyError
from harness.proxy import Proxy, proxied
from turns.test_runs import say

KEY = SessionKey("app", "user", "session")
MESSAGE = Event(author="user", id="of the first", content="hello")


def freeze_when_a_reply_is_lost(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Have the network hold everything back once a reply is lost, and tell when."""
    lost, loses = asyncio.Event(), proxy.loses

    def loses_and_freezes() -> bool:
        if not loses():
            return False
        proxy.freeze()
        lost.set()
        return True

    monkeypatch.setattr(proxy, "loses", loses_and_freezes)
    return lost


@asynccontextmanager
async def two_services(url: str) -> AsyncIterator[tuple[RedisSessionService, Proxy, Any]]:
    """One service behind a proxy, and another one beside it, on a server that has the scripts."""
    options: dict[str, Any] = {"key_prefix": "lost-replies:", "timeout": 60}
    async with (
        proxied(url) as proxy,
        RedisSessionService.from_url(proxy.url, **options) as first,
        RedisSessionService.from_url(url, **options) as second,
    ):
        await second.delete_session(KEY)
        await second.create_session(KEY)
        before = first.lease(SessionKey("app", "user", "before"))
        await first.begin_turn(before, say("hello"))
        await before.release()
        yield first, proxy, second


@pytest.mark.parametrize("when_busy", ["reject", "queue"])
async def test_a_turn_that_was_taken_over_meanwhile_is_not_refused(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch, when_busy: WhenBusy
) -> None:
    """It has begun, and its message is in the log."""
    async with two_services(valkey_url) as (first, proxy, second):
        lost = freeze_when_a_reply_is_lost(proxy, monkeypatch)
        proxy.lose_replies = 1
        lease = first.lease(KEY, run_id="one", when_busy=when_busy, wait=0.05)
        beginning = asyncio.create_task(first.begin_turn(lease, MESSAGE))
        await lost.wait()
        other = second.lease(KEY, run_id="two", when_busy="interrupt", grace=0)
        await second.begin_turn(other, say("stop"))
        proxy.thaw()
        with pytest.raises(LeaseLostError, match="its message is stored") as caught:
            await beginning
        assert caught.value.has_begun
        log = await second.get_events(KEY)
        assert [(event.id, event.outcome) for event in log] == [
            (MESSAGE.id, ""),
            (log[1].id, "interrupted"),
            (log[2].id, ""),
        ]
        # A repeat has no doubt: nothing of it can have been stored.
        with pytest.raises(SessionBusyError):
            await first.begin_turn(first.lease(KEY, run_id="one", when_busy="reject"), MESSAGE)
        await other.release()


@pytest.mark.parametrize("is_over", [True, False], ids=["free again", "busy still"])
async def test_a_run_that_was_taken_over_meanwhile_is_not_run_again(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch, *, is_over: bool
) -> None:
    """Its message is stored and its turn was closed, which is what whoever runs it gets."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        pytest.fail("the turn was closed before its agent could run")
        yield say("")

    async with two_services(valkey_url) as (first, proxy, second):
        lost = freeze_when_a_reply_is_lost(proxy, monkeypatch)
        proxy.lose_replies = 1
        running = Runner("app", agent, first, when_busy="reject").run("user", "session", MESSAGE)
        result = asyncio.create_task(running.result())
        await lost.wait()
        other = second.lease(KEY, when_busy="interrupt", grace=0)
        await second.begin_turn(other, say("stop"))
        if is_over:
            await other.release()
        proxy.thaw()
        assert [event.text for event in await result] == []
        assert running.outcome == "interrupted"
        await other.release()
