"""What runs, leases and inboxes say of themselves, and on which connections news come."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from agentsession import Event, InMemorySessionService, RedisSessionService, Runner, SessionKey
from agentsession.redis import register_redis_instance, unregister_redis_instance
from turns.test_runs import Steps, say, until

KEY = SessionKey("app", "user", "words")


async def _takes_turns(service: RedisSessionService) -> None:
    """Let one wait for another, and be told."""
    await service.get_or_create_session(KEY)
    holder, waiter = service.lease(KEY), service.lease(KEY)
    await holder.acquire()
    waiting = asyncio.create_task(waiter.acquire())
    backend: Any = service.backend
    inbox = backend._calls.inbox
    await until(lambda: "<Inbox open" in repr(inbox) and inbox._line._heard)
    inbox.reconnect()
    await until(lambda: "<Inbox closed" in repr(inbox))
    await until(lambda: "<Inbox open" in repr(inbox) and inbox._line._heard)
    await holder.release()
    with anyio.fail_after(10):
        await waiting
    assert await service.stop_run(KEY)
    with anyio.fail_after(10):
        assert await waiter.wait_until_told() == "cancelled"
        assert await waiter.wait_until_told() == "cancelled"
    told: list[str] = []
    waiter.when_told(told.append)
    assert told == ["cancelled"]
    await waiter.release()
    await waiter.release()
    await service.delete_session(KEY)


async def test_news_come_on_any_kind_of_link(valkey_url: str) -> None:
    """One connection, several, and one that is shared by name."""
    register_redis_instance("words", url=valkey_url)
    try:
        for service in (
            RedisSessionService.from_url(valkey_url),
            RedisSessionService.from_url(valkey_url, connections=2),
            RedisSessionService(instance="words"),
        ):
            async with service:
                await _takes_turns(service)
    finally:
        unregister_redis_instance("words")


async def test_what_is_shown() -> None:
    """The state, and whose it is."""
    steps = Steps()
    async with InMemorySessionService() as service:
        lease = service.lease(KEY, run_id="r")
        assert repr(lease).startswith("<ServiceLease new run_id='r' of SessionKey(")
        run = Runner("app", steps, service).run("user", "words", "hi")
        assert repr(run).startswith(f"<Run new id={run.id!r} of SessionKey(")
        await run.start()
        assert repr(run).startswith("<Run running")
        steps.go(3)
        await run.result()
        assert repr(run).startswith("<Run completed")
        await lease.release()
        with pytest.raises(RuntimeError, match="a lease is used once"):
            await lease.acquire()


async def test_what_a_run_and_a_runner_refuse() -> None:
    """In words that say what to do."""
    wrong: Any = "stay"
    with pytest.raises(ValueError, match="on_disconnect must be 'cancel' or 'detach', not 'stay'"):
        Runner("app", Steps(), on_disconnect=wrong)
    with pytest.raises(ValueError, match="when_busy must be one of"):
        Runner("app", Steps(), when_busy=wrong)
    runner = Runner("app", Steps())
    run = runner.run("user", "words", "hi")
    with pytest.raises(RuntimeError, match="the run was not started; write 'await run"):
        run.read()
    await run.cancel()
    with pytest.raises(RuntimeError, match="the run was cancelled before it began"):
        await run.result()
    assert (run.outcome, run.session_id) == ("", "words")
    await runner.aclose()


async def test_a_turn_whose_state_is_too_large_for_its_end() -> None:
    """Is stored without an event first."""

    async def agent(context: Any) -> Any:
        yield say("one")
        context.state["large"] = "x" * 1500

    async with InMemorySessionService(max_event_size=1000, max_value_size=2000) as service:
        run = Runner("app", agent, service).run("user", "words", "hi")
        await run.result()
        session = await service.get_session(run.key)
        assert session is not None
        assert (run.outcome, session.state) == ("completed", {"large": "x" * 1500})


async def test_a_plain_batch_of_a_turn() -> None:
    """Chunks come back as they were, whole events as they are stored."""
    async with InMemorySessionService() as service:
        await service.create_session(KEY)
        async with service.lease(KEY, run_id="r") as lease:
            events = [Event(author="a", partial=True), Event(author="a", content="x")]
            chunk, stored = await service.append_events(KEY, events, lease=lease)
            assert (chunk.seq, stored.seq, stored.invocation_id) == (0, 1, "r")
