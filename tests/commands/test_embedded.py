"""The embedded server: it runs inside its block, and is gone afterwards."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import redis

from agentsession.embedded import embedded_server


def answers(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def test_it_runs_without_an_event_loop() -> None:
    """A plain ``with`` is enough; its folder goes with it."""
    with embedded_server() as url:
        assert answers(url)
    assert not answers(url)
    assert not Path(url.removeprefix("unix://")).parent.exists()


async def test_it_is_stopped_though_its_caller_was_cancelled() -> None:
    """Also if that happens while it starts."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with embedded_server() as url:
            assert answers(url)
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert not answers(url)
