"""The stores that take what is imported: this process's memory, a file, and a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import redis.asyncio

from agentsession import SessionService, open_service


@pytest.fixture(params=["memory", "sqlite", "server"])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionService]:
    """A service with nothing stored, without a limit of events."""
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/the store.db"}
    url = urls.get(request.param) or request.getfixturevalue("valkey_url")
    prefix = f"here-{uuid4().hex}:"
    async with open_service(url, key_prefix=prefix, session_event_limit=None) as opened:
        yield opened


@pytest.fixture
async def source(valkey_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the server that is read from, which is empty."""
    async with redis.asyncio.Redis.from_url(valkey_url) as client:
        await client.flushdb()
        yield client
        await client.flushdb()
