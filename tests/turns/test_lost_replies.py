"""Where the answer to what begins a turn was lost, nobody is told that nothing was stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anyio import wait_all_tasks_blocked

from agentsession import AgentContext, Event, RedisSessionService, Runner, SessionKey
from agentsession.backend import Claim, Receipt, WhenBusy
from agentsession.errors import (
    BackendUnavailableError,
    ClosedError,
    LeaseLostError,
    OutcomeUnknownError,
    RunNotFoundError,
    SessionBusyError,
    SessionNotFoundError,
)
from agentsession.events import Outcome
from harness.proxy import Hold, Proxy, proxied
from turns.test_runs import CALL, say

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
        assert not await first.stop_run(KEY)
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


@pytest.mark.parametrize("is_known", [False, True], ids=["new message", "known message"])
async def test_a_turn_that_was_refused_is_refused_again_when_the_answer_was_lost(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    """It never had the session, also if its message is in the log from before."""
    async with two_services(valkey_url) as (first, proxy, second):
        if is_known:
            before = second.lease(KEY, run_id="one")
            await second.begin_turn(before, MESSAGE)
            await before.release()
        holder = second.lease(KEY, run_id="two")
        await second.begin_turn(holder, say("hello"))
        log = await second.get_events(KEY, raw=True)
        lost = freeze_when_a_reply_is_lost(proxy, monkeypatch)
        proxy.lose_replies = 1
        lease = first.lease(KEY, run_id="one", when_busy="reject")
        beginning = asyncio.create_task(first.begin_turn(lease, MESSAGE))
        await lost.wait()
        proxy.thaw()
        with pytest.raises(SessionBusyError, match="two"):
            await beginning
        assert await second.get_events(KEY, raw=True) == log
        await holder.release()


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


@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize(
    "then", [BackendUnavailableError(KEY, "it went away"), LeaseLostError(KEY)]
)
async def test_what_fails_once_the_message_may_be_stored_does_not_say_that_nothing_was(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch, then: Exception, *, is_stored: bool
) -> None:
    """That is true of the call that failed, and not of the whole beginning."""
    async with two_services(valkey_url) as (first, _, _):
        append, calls = first.backend.append, 0

        async def fails(*args: Any, **options: Any) -> Receipt:
            nonlocal calls
            calls += 1
            if calls == 1 and is_stored:
                await append(*args, **options)
            if calls == 1:
                raise OutcomeUnknownError(KEY, "no answer")
            if calls == 2:
                raise then
            return await append(*args, **options)

        monkeypatch.setattr(first.backend, "append", fails)
        lease = first.lease(KEY, run_id="one")
        with pytest.raises((LeaseLostError, OutcomeUnknownError)) as caught:
            await first.begin_turn(lease, MESSAGE)
        error = caught.value
        if isinstance(then, LeaseLostError):
            assert isinstance(error, LeaseLostError)
            assert error.has_begun == is_stored
        else:
            assert "may be stored" in str(error)
            assert "it went away" in str(error)


async def test_a_service_that_is_closed_while_a_turn_begins_has_not_stored_nothing(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is stored, and its turn is closed before the service is."""
    async with two_services(valkey_url) as (first, proxy, second):
        lost = freeze_when_a_reply_is_lost(proxy, monkeypatch)
        proxy.lose_replies = 1
        lease = first.lease(KEY, run_id="one")
        beginning = asyncio.create_task(first.begin_turn(lease, MESSAGE))
        await lost.wait()
        closing = asyncio.create_task(first.aclose())
        await wait_all_tasks_blocked()
        proxy.thaw()
        with pytest.raises(OutcomeUnknownError, match="may be stored") as caught:
            await beginning
        assert isinstance(caught.value.__cause__, ClosedError)
        await closing
        log = await second.get_events(KEY)
        assert [event.outcome for event in log] == ["", "cancelled"]
        assert log[0].id == MESSAGE.id


async def take_and_close_nothing(second: RedisSessionService) -> None:
    """Take the session over, and stand still before what was left is closed."""
    claim = Claim(
        owner=second.backend.new_owner(), run_id="two", ttl=60_000, when_busy="interrupt", grace=0
    )
    assert (await second.backend.acquire(KEY, claim, 1)).unended is not None


async def take_back_and_begin(second: RedisSessionService) -> None:
    await second.rewind(KEY, to_seq=0)
    await second.begin_turn(second.lease(KEY, run_id="two"), say("again"))


@pytest.mark.parametrize("meanwhile", [take_and_close_nothing, take_back_and_begin])
@pytest.mark.parametrize("when_busy", ["reject", "queue"])
async def test_a_run_whose_message_is_stored_is_not_refused(
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: Callable[[RedisSessionService], Awaitable[None]],
    when_busy: WhenBusy,
) -> None:
    """Also where the log does not tell how its turn ended, or does not show the message."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        pytest.fail("another turn has the session")
        yield say("")

    async with two_services(valkey_url) as (first, proxy, second):
        lost = freeze_when_a_reply_is_lost(proxy, monkeypatch)
        proxy.lose_replies = 1
        runner = Runner("app", agent, first, when_busy=when_busy, wait=0.05)
        result = asyncio.create_task(runner.run("user", "session", MESSAGE).result())
        await lost.wait()
        await meanwhile(second)
        proxy.thaw()
        with pytest.raises(LeaseLostError) as caught:
            await result
        assert caught.value.has_begun
        assert MESSAGE.id in [event.id for event in await second.get_events(KEY, raw=True)]


async def test_a_run_that_is_cancelled_while_its_message_is_stored_has_an_end_in_the_log(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts it is told that it never began, and not that nothing was stored."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        pytest.fail("the run was cancelled before its agent could run")
        yield say("")

    async with two_services(valkey_url) as (first, proxy, second):
        lost = freeze_when_a_reply_is_lost(proxy, monkeypatch)
        proxy.lose_replies = 1
        run = Runner("app", agent, first).run("user", "session", MESSAGE)
        starting = asyncio.create_task(run.start())
        await lost.wait()
        cancelling = asyncio.create_task(run.cancel())
        await wait_all_tasks_blocked()
        proxy.thaw()
        with pytest.raises(RuntimeError, match="cancelled before it began"):
            await starting
        await cancelling
        log = await second.get_events(KEY)
        assert [event.outcome for event in log] == ["", "cancelled"]
        assert (log[0].id, run.outcome) == (MESSAGE.id, "cancelled")


@pytest.mark.parametrize("run_id", ["one", None])
async def test_a_turn_that_ended_as_it_was_told_was_told(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch, run_id: str | None
) -> None:
    """That it was over when the lost answer came again is what the call was for."""
    async with two_services(valkey_url) as (first, proxy, second):
        lease = second.lease(KEY, run_id="one")
        await second.begin_turn(lease, say("hello"))
        lost = freeze_when_a_reply_is_lost(proxy, monkeypatch)
        proxy.lose_replies = 1
        stopping = asyncio.create_task(first.stop_run(KEY, run_id))
        await lost.wait()
        assert (await second.backend.renew(KEY, lease.owner, 15_000)).stop == "cancelled"
        await lease.release()
        await second.begin_turn(second.lease(KEY, run_id="two"), say("next"))
        proxy.thaw()
        assert await stopping
        with pytest.raises(RunNotFoundError):
            await first.stop_run(KEY, "one")
        assert await second.stop_run(KEY, "two")


async def test_a_turn_that_was_not_to_be_told_is_not_by_a_lost_answer(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repeat tells nobody, whoever runs by now, and says so."""
    async with two_services(valkey_url) as (first, proxy, second):
        lost = freeze_when_a_reply_is_lost(proxy, monkeypatch)
        proxy.lose_replies = 1
        stopping = asyncio.create_task(first.stop_run(KEY))
        await lost.wait()
        lease = second.lease(KEY, run_id="two")
        await second.begin_turn(lease, say("next"))
        proxy.thaw()
        assert not await stopping
        assert (await second.backend.renew(KEY, lease.owner, 15_000)).stop == ""
        await lease.release()


async def take_over(second: RedisSessionService) -> None:
    await second.begin_turn(
        second.lease(KEY, run_id="two", when_busy="interrupt", grace=0), say("x")
    )


async def make_anew(second: RedisSessionService) -> None:
    await second.delete_session(KEY)
    await second.create_session(KEY)


async def take_back(second: RedisSessionService) -> None:
    await second.rewind(KEY, to_seq=0)


@pytest.mark.parametrize("fault", ["lost answer", "late copy"])
@pytest.mark.parametrize("meanwhile", [take_over, make_anew, take_back])
@pytest.mark.parametrize("outcome", ["", "waiting", "completed"])
async def test_what_a_turn_writes_is_stored_as_its_writer_is_told(
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    meanwhile: Callable[[RedisSessionService], Awaitable[None]],
    outcome: Outcome,
) -> None:
    """Once if it was acknowledged, and not at all if it was refused, whatever comes late."""
    async with two_services(valkey_url) as (first, proxy, second):
        lease = first.lease(KEY, run_id="one")
        await first.begin_turn(lease, MESSAGE)
        lost, hold = freeze_when_a_reply_is_lost(proxy, monkeypatch), Hold(after=0)
        keeps = hold.keeps

        def keeps_and_freezes() -> bool:
            kept = keeps()
            if kept:
                proxy.freeze()
                lost.set()
            return kept

        monkeypatch.setattr(hold, "keeps", keeps_and_freezes)
        if fault == "lost answer":
            proxy.lose_replies = 1
        else:
            proxy.holding = hold
        event = Event(author="agent", id="written", content=[CALL], outcome=outcome)
        writing = asyncio.create_task(first.append_event(KEY, event, lease=lease))
        await lost.wait()
        await meanwhile(second)
        proxy.thaw()
        try:
            seq = (await writing).seq
        except (LeaseLostError, OutcomeUnknownError, SessionNotFoundError):
            seq = 0
        await hold.deliver()
        log = await second.get_events(KEY, raw=True)
        assert [each.seq for each in log if each.id == event.id] == ([seq] if seq else [])
        # What was stored before the answer was lost is acknowledged, unless it is gone.
        assert (seq == 2) == (fault == "lost answer" and meanwhile is not make_anew)
