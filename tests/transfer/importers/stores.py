"""What tests of importers look at."""

from __future__ import annotations

import io
from typing import Any

from redis.asyncio import Redis

from agentsession import SessionService
from agentsession.transfer import export_to


async def everything(service: SessionService, app: str) -> bytes:
    """Return all that a service holds of an application."""
    file = io.BytesIO()
    await export_to(service, app, file)
    return file.getvalue()


async def dump(client: Redis) -> dict[bytes, Any]:
    """Return what a server holds besides what was imported into it, and whether it expires."""
    found: dict[bytes, Any] = {}
    async for key in client.scan_iter():
        if key.startswith(b"here-"):
            continue
        found[key] = (await _value(client, key), await client.pttl(key) >= 0)
    return found


async def _value(client: Redis, key: bytes) -> Any:
    match await client.type(key):
        case b"hash":
            return await client.hgetall(key)
        case b"zset":
            return await client.zrange(key, 0, -1, withscores=True)
        case b"list":
            return await client.lrange(key, 0, -1)
        case _:
            return await client.get(key)
