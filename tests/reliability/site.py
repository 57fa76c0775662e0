"""Where a run takes place: a server of its own, a proxy before it, and what is kept there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio
from msgspec import Struct
from proxy import Proxy, proxied
from servers import Server, running

from agentsession import Event, RedisSessionService
from reliability.plan import shared_sessions

PREFIX = "trial:"
TTL = 3600.0
# Every write is on disk before it is acknowledged.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
_PATIENCE = 10.0


class Terms(Struct, frozen=True, kw_only=True):
    """How a service is opened, by every process alike.

    Attributes:
        limit: The most events of a session.
        timeout: Seconds that an operation may take.
    """

    limit: int | None = None
    timeout: float = 20.0

    def open(self, url: str) -> RedisSessionService:
        return RedisSessionService.from_url(
            url,
            key_prefix=PREFIX,
            timeout=self.timeout,
            session_event_limit=self.limit,
            session_ttl=TTL,
            user_state_ttl=TTL,
            app_state_ttl=TTL,
        )


class Kept(Struct, kw_only=True):
    """What a server holds.

    Attributes:
        expiries: Every key under the prefix, with the moment at which it expires, in milliseconds
            since the epoch; -1 for never.
        logs: The ids of the events in every key that holds a log, in its order.
        strangers: All other keys with their contents.
    """

    expiries: dict[str, int] = {}
    logs: dict[str, list[str]] = {}
    strangers: dict[str, bytes] = {}


class Site:
    """A server, and the proxy through which workers reach it."""

    def __init__(self, server: Server, proxy: Proxy) -> None:
        self.server = server
        self.proxy = proxy

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[redis.asyncio.Redis]:
        """A connection that goes around the proxy."""
        async with redis.asyncio.Redis.from_url(self.server.url) as client:
            yield client

    async def house_strangers(self) -> None:
        """Store what is not the run's: the same sessions without the prefix."""
        async with RedisSessionService.from_url(self.server.url) as service:
            for key in shared_sessions():
                session = await service.create_session(key, {"a": 1, "user:b": 1, "app:c": 1})
                await service.append_event(session, Event(author="stranger"))

    async def look(self) -> Kept:
        """Read everything that the server holds, without the library."""
        kept = Kept()
        async with self.admin() as client:
            names = [name.decode() for name in await client.keys("*")]
            own = [name for name in names if name.startswith(PREFIX)]
            kept.expiries = await _expiries(client, own)
            for name in own:
                if name.startswith(f"{PREFIX}events:"):
                    payloads = await client.zrange(name, 0, -1)
                    kept.logs[name] = [json.loads(payload)["id"] for payload in payloads]
            for name in set(names).difference(own):
                kept.strangers[name] = await client.dump(name)
        return kept

    async def connections_left(self) -> list[str]:
        """Wait until nobody is connected any more, and return those who will not go."""
        deadline = time.monotonic() + _PATIENCE
        async with self.admin() as client:
            own = await client.client_id()
            while True:
                others = [each for each in await client.client_list() if int(each["id"]) != own]
                if not others or time.monotonic() > deadline:
                    return [f"left over: connection {each}" for each in others]
                await asyncio.sleep(0.005)


async def _expiries(client: redis.asyncio.Redis, names: list[str]) -> dict[str, int]:
    """Read when keys expire, all in one moment: old servers tell only how long they live."""
    async with client.pipeline(transaction=True) as pipe:
        pipe.time()
        for name in names:
            pipe.pttl(name)
        (seconds, microseconds), *lives = await pipe.execute()
    now = seconds * 1000 + microseconds // 1000
    return {
        name: now + left if left >= 0 else left for name, left in zip(names, lives, strict=True)
    }


@asynccontextmanager
async def opened(binary: str, *options: str, seed: int = 0) -> AsyncIterator[Site]:
    with running(binary, *options) as server:
        async with proxied(server.url, seed=seed) as proxy:
            yield Site(server, proxy)


async def tasks_left(before: set[asyncio.Task[object]]) -> list[str]:
    """Wait until no tasks but those of before are left, and return those that will not end."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        others = asyncio.all_tasks() - before
        if not others or time.monotonic() > deadline:
            return [f"left over: task {each.get_name()}" for each in others]
        await asyncio.sleep(0.005)
