"""Private parts of a service on Redis, for the few tests that have to reach into it."""

from __future__ import annotations

from typing import Any

from agentsession import RedisSessionService
from agentsession.redis._backend import RedisBackend
from agentsession.redis._operations.calls import Calls


def calls_of(service: RedisSessionService) -> Calls:
    """Return what carries out the calls of a service's scripts."""
    assert isinstance(service.backend, RedisBackend)
    return service.backend._calls


def link_of(service: RedisSessionService) -> Any:
    """Return a service's way to its server; of which kind it is, the test knows."""
    return calls_of(service)._link
