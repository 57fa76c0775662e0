"""Fixtures: a server of one test, to do anything to, and what stands around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis.asyncio

from harness import servers
from harness.proxy import Proxy, proxied


@pytest.fixture
def binary() -> str:
    """The program of the server; a module may ask for every one that there is."""
    return servers.binaries()["valkey"]


@pytest.fixture
def server(binary: str) -> Iterator[servers.Server]:
    """A server of one test."""
    with servers.running(binary) as running:
        yield running


@pytest.fixture
async def admin(server: servers.Server) -> AsyncIterator[redis.asyncio.Redis]:
    """A client that does what the library does not."""
    async with redis.asyncio.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
async def proxy(server: servers.Server) -> AsyncIterator[Proxy]:
    """A way to the server that can be disturbed."""
    async with proxied(server.url) as started:
        yield started
