"""Who waits is told of news, and finds out by asking where nobody tells."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio

from agentsession import Event, SessionKey, open_service
from agentsession.leases import Lease
from agentsession.redis._backend import RedisBackend
from agentsession.testing import Subject
from harness import servers

# In seconds: whoever is not told asks after three.
SOON = 2.0


async def _in_line(lease: Lease) -> asyncio.Task[None]:
    """Let a lease stand in line, with an ear for news."""
    task = asyncio.create_task(lease.acquire())
    backend = lease._leasing.backend  # type: ignore[attr-defined]  # to look on
    with anyio.fail_after(30):
        while lease._attempt < 2 or not _listens(backend):  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)
    return task


def _listens(backend: Any) -> bool:
    """Tell whether news would reach the process."""
    if not isinstance(backend, RedisBackend):
        return True
    return "<Inbox open" in repr(backend._calls.inbox) and backend._calls.inbox._line._heard


async def test_a_waiter_is_woken(subject: Subject) -> None:
    """Whether the lease is given back, ends with a turn, or the waiter before goes."""
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    for end in ("release", "outcome", "leave"):
        holder = service.lease(subject.key)
        await holder.acquire()
        first, second = other.lease(subject.key), other.lease(subject.key)
        waiting = [await _in_line(each) for each in (first, second)]
        with anyio.fail_after(SOON):
            if end == "leave":
                waiting[0].cancel()
                await asyncio.wait(waiting[:1])
                await holder.release()
                await waiting[1]
            else:
                if end == "outcome":
                    event = Event(author="agent", outcome="completed")
                    await service.append_event(subject.key, event, lease=holder)
                else:
                    await holder.release()
                await waiting[0]
                await first.release()
                await waiting[1]
        await second.release()


async def test_a_holder_is_told_to_stop(subject: Subject) -> None:
    """And so is one that is interrupted, and one whose lease was taken."""
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    lease = service.lease(subject.key, ttl=600)
    async with lease:
        with anyio.fail_after(SOON + 1):  # It listens after one second.
            assert await other.stop_run(subject.key)
            assert await lease.wait_until_told() == "cancelled"
    lease = service.lease(subject.key, ttl=600)
    async with lease:
        with anyio.fail_after(SOON + 1):
            await other.lease(subject.key, when_busy="interrupt", grace=0).acquire()
            assert await lease.wait_until_told() in ("interrupted", "lost")
        with anyio.fail_after(SOON):
            while not lease.lost:
                await asyncio.sleep(0.001)


async def test_news_come_again_after_the_connection_was_lost() -> None:
    """What came meanwhile is found out when there is a connection again."""
    with servers.running(servers.binaries()["valkey"]) as server:
        async with open_service(server.url) as service, open_service(server.url) as other:
            key = SessionKey("app", "user", "session")
            await other.create_session(key)
            for _ in range(3):
                holder = other.lease(key)
                await holder.acquire()
                waiting = service.lease(key)
                task = await _in_line(waiting)
                assert server.ask("CLIENT", "KILL", "TYPE", "pubsub")
                await holder.release()
                with anyio.fail_after(SOON):
                    await task
                await waiting.release()
