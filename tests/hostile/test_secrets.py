"""Passwords: in no error, cause, log or repr, whatever goes wrong."""

from __future__ import annotations

import logging
import socket
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from agentsession import RedisSessionService, SessionKey
from agentsession.errors import BackendError
from agentsession.redis import register_redis_instance, unregister_redis_instance
from agentsession.redis._targets.instances import instance_named
from harness import servers
from harness.insides import calls_of

KEY = SessionKey("app", "user", "session")
# The parts of a password that must not be seen; nobody guesses these by chance.
FIRST, SECOND = "hunterwhiskey", "tangobravado"
SECRET = f"{FIRST} {SECOND}"


def texts(exc: BaseException | None) -> Iterator[str]:
    """Yield all that an error shows to whoever prints it, or its causes, or sends them away."""
    while exc is not None:
        yield from (str(exc), repr(exc), *map(str, exc.args))
        yield "".join(traceback.format_exception(exc))
        yield from texts(exc.__cause__)
        exc = None if exc.__suppress_context__ else exc.__context__


def check_silent(*said: object) -> None:
    for each in said:
        words = "\n".join(texts(each)) if isinstance(each, BaseException) else f"{each!r} {each}"
        assert FIRST not in words
        assert SECOND not in words


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A server that wants another password, over TCP: its host and port."""
    port = str(free_port())
    binary = servers.binaries()["valkey"]
    with servers.running(binary, "--port", port, "--bind", "127.0.0.1") as server:
        with redis.Redis.from_url(server.url) as admin:
            admin.config_set("requirepass", "another")
        yield f"127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def loud(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


PLACES = {
    "wrong password": "redis://:{}@{}/0",
    "wrong user": "redis://somebody:{}@{}/0",
    "in the options": "redis://{1}/0?password={0}",
    "no TLS there": "rediss://:{}@{}/0",
    "nothing there": "redis://:{}@127.0.0.1:1",
    "no such socket": "unix://:{}@/nowhere?db=0",
    "odd encoding": "redis://:{}@{}/0?encoding=x",
}


@pytest.mark.parametrize("form", PLACES.values(), ids=PLACES)
async def test_what_goes_wrong_is_told_without_it(
    guarded: str, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    """Errors with their causes, logs down to debug, and the repr of all that is around."""
    url = form.format(quote(SECRET), guarded)
    async with RedisSessionService.from_url(url, timeout=1) as service:
        check_silent(service, service.backend, calls_of(service))
        for call in (service.get_session(KEY), service.create_session(KEY), service.check()):
            with pytest.raises(BackendError) as raised:
                await call
            check_silent(raised.value)
        check_silent(service, service.backend, calls_of(service), vars(calls_of(service)))
    assert "agentsession.redis" in caplog.text
    check_silent(service, caplog.text)


@pytest.mark.parametrize(
    "options",
    [
        {"password": SECRET},
        {"username": SECRET, "password": SECRET},
    ],
    ids=["password", "user"],
)
async def test_options_are_not_told(
    guarded: str, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    """The same for a password beside the URL."""
    async with RedisSessionService.from_url(
        f"redis://{guarded}", client_options=options
    ) as service:
        with pytest.raises(BackendError) as raised:
            await service.create_session(KEY)
        check_silent(raised.value, service, caplog.text)


def test_an_odd_option_is_told_without_it() -> None:
    """One beside the URL is named, one in it is not: it may be a part of a password."""
    with pytest.raises(ValueError, match="behind the '\\?' of the URL") as in_url:
        RedisSessionService.from_url(f"redis://:{quote(SECRET)}@h/0?himself=1&retry=x")
    options = {"password": SECRET, "himself": 1}
    with pytest.raises(ValueError, match="'himself'") as beside_it:
        RedisSessionService.from_url("redis://h", client_options=options)
    check_silent(in_url.value, beside_it.value)


async def test_instances_do_not_tell(guarded: str) -> None:
    """Neither one that is registered, nor an error about it, nor a service that uses it."""
    url = f"redis://:{quote(SECRET)}@{guarded}"
    register_redis_instance("secret", url=url, client_options={"username": SECRET})
    try:
        check_silent(instance_named("secret"), vars(RedisSessionService(instance="secret")))
        with pytest.raises(ValueError, match="other settings") as clash:
            register_redis_instance("secret", url=url + "?db=1")
        with pytest.raises(ValueError, match="no Redis instance named") as unknown:
            instance_named("secrets")
        check_silent(clash.value, unknown.value)
        async with RedisSessionService(instance="secret") as service:
            with pytest.raises(BackendError) as raised:
                await service.create_session(KEY)
            check_silent(raised.value, service, calls_of(service))
    finally:
        unregister_redis_instance("secret")


# As it stands in a URL that somebody pasted a password into, without encoding it.
UNESCAPED = st.builds(
    lambda a, b, c: f"{a}{FIRST}{b}{SECOND}{c}",
    *[st.text("/#?@:[]%,&= \n\0é", max_size=3)] * 3,
)
FORMS = st.sampled_from(
    ["redis://:{}@127.0.0.1:6379/0", "redis://user:{}@127.0.0.1:6379/0", "rediss://user:{}@[::1]",
     "unix://user:{}@/nowhere", "redis://127.0.0.1/0?password={}", "redis://user:{}",
     "redis+sentinel://user:{}@127.0.0.1:1,127.0.0.1:2/mymaster/0", "redis:/user:{}@127.0.0.1",
     "redis+sentinel://127.0.0.1/mymaster?sentinel_password={}", "redis+cluster://:{}@127.0.0.1",
     "redis//:{}@127.0.0.1", ":{}@127.0.0.1", "redis://127.0.0.1/0?socket_timeout={}"]
)  # fmt: skip


@settings(derandomize=True, max_examples=800, deadline=None)
@given(FORMS, UNESCAPED)
def test_a_url_that_is_refused_is_not_quoted(form: str, password: str) -> None:
    """The usual mistake is a password whose slash or question mark ends the host."""
    try:
        service = RedisSessionService.from_url(form.format(password))
    except ValueError as exc:
        check_silent(exc)
    else:
        check_silent(service, calls_of(service))
