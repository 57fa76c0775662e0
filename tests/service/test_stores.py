"""One call for every store, by its URL."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from agentsession import (
    Event,
    InMemorySessionService,
    RedisSessionService,
    SessionKey,
    open_service,
)
from agentsession.stores import ServiceOptions

KEY = SessionKey("app", "user", "session")
OF_BOTH: dict[str, Any] = {"session_event_limit": 2, "timeout": 5, "cleanup_interval": 60}


async def test_memory_is_a_store(redis_url: str) -> None:
    """The options that Redis alone has do nothing here, and the others do what they do."""
    async with open_service("memory://", **OF_BOTH) as service:
        assert isinstance(service, InMemorySessionService)
        await service.get_or_create_session(KEY)
        await service.append_events(KEY, [Event(author="user", content=str(n)) for n in range(3)])
        assert [event.seq for event in await service.get_events(KEY)] == [2, 3]


async def test_redis_is_a_store(redis_url: str) -> None:
    """The same call serves a server, and two services on it see the same sessions."""
    async with open_service(redis_url, key_prefix="opened:", **OF_BOTH) as service:
        assert isinstance(service, RedisSessionService)
        await service.get_or_create_session(KEY)
        await service.append_events(KEY, [Event(author="user", content=str(n)) for n in range(3)])
        async with open_service(redis_url, key_prefix="opened:") as other:
            assert [event.seq for event in await other.get_events(KEY)] == [2, 3]
        await service.delete_session(KEY)


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "rediss://host",
        "unix:///socket",
        "redis+sentinel://host/name",
        "rediss+sentinel://host/name",
        "redis+cluster://host",
        "rediss+cluster://host",
        "REDIS://host",
    ],
)
async def test_every_form_of_redis_is_known(url: str) -> None:
    """Nothing is connected before the first call."""
    async with open_service(url) as service:
        assert isinstance(service, RedisSessionService)


@pytest.mark.parametrize("url", ["", "memory", "localhost:6379", "postgres://user:secret@host"])
def test_a_url_of_no_store_is_refused(url: str) -> None:
    """The message lists what there is, and holds no part of the URL, which may hold a secret."""
    with pytest.raises(ValueError, match=r"memory://, redis://, rediss://, unix://") as caught:
        open_service(url)
    assert "secret" not in str(caught.value)


def test_memory_has_no_address() -> None:
    """Two processes never share it, as a host would make one think."""
    with pytest.raises(ValueError, match="memory:// and nothing more"):
        open_service("memory://localhost")


def test_a_url_is_a_string() -> None:
    """``os.environ.get`` gives None where the variable is missing."""
    with pytest.raises(TypeError, match="must be a str, not NoneType"):
        open_service(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["memory://", "redis://host"])
def test_an_option_that_no_store_has_is_refused(url: str) -> None:
    """A name with a mistake in it says which was meant."""
    with pytest.raises(
        TypeError, match="no store has an option 'sesion_ttl'; did you mean 'session_ttl'"
    ):
        open_service(url, sesion_ttl=60)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="there are session_event_limit, session_ttl"):
        open_service(url, wombat=60)  # type: ignore[call-arg]


def test_the_options_are_those_of_the_classes() -> None:
    """An option that a class gains is one of ``open_service`` too."""
    names: set[str] = set()
    for make in (InMemorySessionService, RedisSessionService.from_url):
        names |= set(inspect.signature(make).parameters)
    assert set(ServiceOptions.__annotations__) == names - {"url"}
