"""The stores that adapters are tested on: this process's memory, a file, and a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from agentsession import SessionService, open_service

STORES = ("memory", "sqlite", "server")


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of each store; the server is the tests' own."""
    if request.param == "memory":
        return "memory://"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/the store.db"
    url: str = request.getfixturevalue("valkey_url")
    return url


@pytest.fixture
def store_prefix() -> str:
    """Keys of one test, apart from those of others on the same server."""
    return f"{uuid4().hex}:"


@pytest.fixture
async def service(store_url: str, store_prefix: str) -> AsyncIterator[SessionService]:
    """A service with nothing stored, on each store, without a limit of events."""
    options = {"key_prefix": store_prefix, "session_event_limit": None}
    async with open_service(store_url, **options) as opened:  # type: ignore[arg-type]
        yield opened
