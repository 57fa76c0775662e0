"""Clients of redis-py with hooks that would have no effect here."""

from __future__ import annotations

import pytest
import redis.asyncio

from agentsession import RedisSessionService


class OwnConnection(redis.asyncio.Connection):
    """One of a program's own."""


def test_a_client_with_a_connection_of_its_own_is_refused() -> None:
    """Since connections are opened here, by what its settings say."""
    pool = redis.asyncio.ConnectionPool(connection_class=OwnConnection)
    with pytest.raises(TypeError, match=r"a connection_class of your own .*OwnConnection.* would"):
        RedisSessionService(redis.asyncio.Redis(connection_pool=pool))


def test_a_client_with_a_function_for_new_connections_is_refused() -> None:
    """It would not be called."""
    client = redis.asyncio.Redis(redis_connect_func=lambda connection: None)
    with pytest.raises(TypeError, match="redis_connect_func would not be called"):
        RedisSessionService(client)
