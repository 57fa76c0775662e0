"""One call for every store, by its URL."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from agentsession import (
    Event,
    InMemorySessionService,
    RedisSessionService,
    SessionKey,
    SQLiteSessionService,
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


async def test_a_file_is_a_store(tmp_path: Path) -> None:
    """Whoever opens it later sees the same sessions."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    async with open_service(url, key_prefix="no file has one", **OF_BOTH) as service:
        assert isinstance(service, SQLiteSessionService)
        await service.get_or_create_session(KEY)
        await service.append_events(KEY, [Event(author="user", content=str(n)) for n in range(3)])
    async with open_service(url) as service:
        assert [event.seq for event in await service.get_events(KEY)] == [2, 3]


@pytest.mark.parametrize(
    ("rest", "name"),
    [
        ("/a.db", "a.db"),
        ("/there/a.db", "there/a.db"),
        ("/./there/../a.db", "a.db"),
        ("/with a space.db", "with a space.db"),
        ("/with%20a%20space.db", "with a space.db"),
        ("/%3F%23%25.db", "?#%.db"),
        ("/100%.db", "100%.db"),
        ("/ü%C3%BC%FF.db", "üü\udcff.db"),
        ("/memory", "memory"),
        ("/{folder}/a.db", "a.db"),
        ("/{folder}/there/a%20b.db", "there/a b.db"),
    ],
)
async def test_the_url_of_a_file_names_it(
    rest: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the present folder on after three slashes, and by its whole path after four."""
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    async with open_service(f"sqlite://{rest.format(folder=quote(str(tmp_path)))}") as service:
        monkeypatch.chdir("/")
        await service.get_or_create_session(KEY)
        assert (tmp_path / name).is_file()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://", "the path is missing"),
        ("sqlite:///", "the path is missing"),
        ("sqlite://a.db", "three slashes stand before its path"),
        ("sqlite://user:secret@host/a.db", "three slashes stand before its path"),
        ("sqlite:///a.db?mode=ro&key=secret", "options are arguments of open_service()"),
        ("sqlite:///a.db#secret", "in the name of a file they are %3F and %23"),
        ("sqlite:///:memory:", "InMemorySessionService keeps sessions in memory"),
        ("sqlite:///there", "'there' is a folder"),
        ("sqlite:///there/", "'there/' is a folder"),
        ("sqlite:///.", "'.' is a folder"),
        ("sqlite:////", "'/' is a folder"),
        ("sqlite:///missing/", "not 'missing/'"),
        ("sqlite:///a%00b", "not 'a\\x00b'"),
        ("sqlite:///redis://user:secret@host", "a URL goes to open_service(url)"),
    ],
)
def test_a_url_of_no_file_is_refused(
    url: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what is wrong, and what may be a secret it does not repeat."""
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        open_service(url)
    assert "secret" not in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["there"]


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


@pytest.mark.parametrize(
    "url", ["", "memory", "sqlite:a.db", "localhost:6379", "postgres://user:secret@host"]
)
def test_a_url_of_no_store_is_refused(url: str) -> None:
    """The message lists what there is, and holds no part of the URL, which may hold a secret."""
    with pytest.raises(
        ValueError, match=r"memory://, sqlite://, redis://, rediss://, unix://"
    ) as caught:
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


@pytest.mark.parametrize("url", ["memory://", "redis://host", "sqlite:///sessions.db"])
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
    for make in (InMemorySessionService, SQLiteSessionService, RedisSessionService.from_url):
        names |= set(inspect.signature(make).parameters)
    assert set(ServiceOptions.__annotations__) == names - {"url", "path"}
