"""What a server holds, read past the library.

redis-py types its replies for clients that decode and for those that do not. The clients of the
tests do not decode, and these functions check it.
"""

from __future__ import annotations

import redis.asyncio


def as_bytes(reply: object) -> bytes:
    """Return a reply that is bytes."""
    assert isinstance(reply, bytes), reply
    return reply


def as_members(reply: object) -> list[tuple[bytes, float]]:
    """Return the members of a sorted set with their scores, as a range gives them."""
    assert isinstance(reply, list), reply
    return [(as_bytes(member), float(score)) for member, score in reply]


def as_fields(reply: object) -> dict[bytes, bytes]:
    """Return the fields of a hash with their values."""
    assert isinstance(reply, dict), reply
    return {as_bytes(name): as_bytes(value) for name, value in reply.items()}


async def names_in(client: redis.asyncio.Redis, pattern: str = "*") -> list[bytes]:
    """Return the names of all keys that match."""
    return [as_bytes(name) for name in await client.keys(pattern)]


async def contents_of(client: redis.asyncio.Redis, pattern: str = "*") -> dict[bytes, bytes]:
    """Return all keys that match, each with what DUMP says of it."""
    return {name: as_bytes(await client.dump(name)) for name in await names_in(client, pattern)}
