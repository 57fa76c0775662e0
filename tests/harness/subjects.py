"""The Redis backend as the conformance checks want it."""

from __future__ import annotations

import secrets

import redis.asyncio

from agentsession.backend import Backend
from agentsession.redis._addresses import read_url
from agentsession.redis._backend import RedisBackend
from agentsession.redis._targets.making import LinkOptions, link_to
from agentsession.retention import Retention
from agentsession.testing import Subject
from harness.raw import as_bytes


class RedisSubject(Subject):
    """A key prefix of its own on a real server.

    Time passes by moving the expiry of every key, since no server lets a test move its clock.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.prefix = f"test-{secrets.token_hex(8)}:"
        self.client = redis.asyncio.Redis.from_url(url)

    def open(self, retention: Retention) -> Backend:
        link = link_to(read_url(self.url), {}, LinkOptions(timeout=10))
        return RedisBackend(retention, link, key_prefix=self.prefix)

    async def keys(self) -> list[bytes]:
        return [key async for key in self.client.scan_iter(f"{self.prefix}*", count=1000)]

    async def advance(self, seconds: float) -> None:
        for key in await self.keys():
            left = await self.client.pttl(key)
            if left >= 0:
                # A time to live that is over deletes the key.
                await self.client.pexpire(key, left - round(seconds * 1000))
            await self._move_lease(key, -round(seconds * 1_000_000))

    async def _move_lease(self, key: bytes, microseconds: int) -> None:
        """Move the moments of a session's lease and of the line of those who wait for it."""
        if not key.decode().removeprefix(self.prefix).startswith("session:"):
            return
        lease = await self.client.hget(key, "lease")
        if lease is not None and len(words := as_bytes(lease).split()) > 1:
            for place in (3, 7):  # when it ends, and when its turn was told to stop
                if int(words[place]):
                    words[place] = str(int(words[place]) + microseconds).encode()
            await self.client.hset(key, "lease", b" ".join(words))
        line = await self.client.hget(key, "line")
        if line is not None:
            places = [place.split(b",") for place in as_bytes(line).split()]
            moved = [
                b",".join([*rest, str(int(kept) + microseconds).encode()]) for *rest, kept in places
            ]
            await self.client.hset(key, "line", b" ".join(moved))

    async def set_clock_back(self, seconds: float) -> None:
        microseconds = round(seconds * 1_000_000)
        for key in await self.keys():
            kind = key.decode().removeprefix(self.prefix).partition(":")[0]
            if kind in ("sessions", "events"):
                for member in await self.client.zrange(key, 0, -1):
                    await self.client.zincrby(key, microseconds, as_bytes(member))
            elif kind == "session":
                for field in ("created", "updated", "last"):
                    await self.client.hincrby(key, field, microseconds)
                await self._move_lease(key, microseconds)

    async def unexpiring(self) -> list[str]:
        return [key.decode() for key in await self.keys() if await self.client.pttl(key) == -1]

    async def __aexit__(self, *exc_info: object) -> None:
        await super().__aexit__(*exc_info)
        keys = await self.keys()
        if keys:
            await self.client.unlink(*keys)
        await self.client.aclose()
