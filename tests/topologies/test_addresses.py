"""URLs: every form read, and every wrong one refused without a word of the password."""

from __future__ import annotations

import traceback

import pytest
import redis.asyncio
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

from agentsession import RedisSessionService
from agentsession.redis import register_redis_instance, unregister_redis_instance
from agentsession.redis._addresses import Address, read_url
from agentsession.redis._targets import instances

READ = {
    "redis://h:1/3?socket_timeout=2": Address(
        kind="server", options={"host": "h", "port": 1, "db": 3, "socket_timeout": 2.0}
    ),
    "rediss://u:p%40@[::1]": Address(
        kind="server",
        options={
            "username": "u",
            "password": "p@",
            "host": "::1",
            "connection_class": SSLConnection,
        },
    ),
    "unix:///a/b?db=2": Address(
        kind="server",
        options={"path": "/a/b", "db": 2, "connection_class": UnixDomainSocketConnection},
    ),
    "redis+sentinel://h/mymaster": Address(
        kind="sentinel", hosts=(("h", 26379),), service="mymaster", options={}
    ),
    "REDISS+Sentinel://u:p%2F@a,[::1]:2,b.c:3/my%20m/4?sentinel_password=x%26y&ssl_ca_certs=/x": (
        Address(
            kind="sentinel",
            hosts=(("a", 26379), ("::1", 2), ("b.c", 3)),
            service="my m",
            tls=True,
            options={"username": "u", "password": "p/", "db": 4, "ssl_ca_certs": "/x"},
            sentinel_options={"password": "x&y"},
        )
    ),
    "redis+sentinel://h/m?db=2&sentinel_username=s": Address(
        kind="sentinel",
        hosts=(("h", 26379),),
        service="m",
        options={"db": 2},
        sentinel_options={"username": "s"},
    ),
    "redis+cluster://:p@a,b:7/0": Address(
        kind="cluster", hosts=(("a", 6379), ("b", 7)), options={"password": "p"}
    ),
    "rediss+cluster://[fe80::1%25eth0]": Address(
        kind="cluster", hosts=(("fe80::1%eth0", 6379),), tls=True, options={}
    ),
}

WRONG = {
    "": "scheme",
    "localhost:6379": "scheme",
    "http://h": "scheme",
    "sentinel://h/m": r"redis\+sentinel://.*/mymaster/0",
    "redis://a:1,b:2": r"redis\+cluster://",
    "redis://:s3cr3t/x@h:1/0": "host and port",
    "redis://:s3cr3t@h:99999": "host and port",
    "redis://u:s3cr3t\u2100@h": "host and port",
    "redis://:s3cr3t@h?db=s3cr3t": "'db'",
    "redis://h/s3cr3t": "must be a number",
    "redis://:1/s3cr3t@h": "must be a number",
    "redis+sentinel://:s3cr3t@h": r"no service.*mymaster",
    "redis+sentinel://:s3cr3t@h/m/zero": "number",
    "redis+sentinel://:s3cr3t@h:0/m": "hosts and ports",
    "redis+sentinel://:s3cr3t@/m": "hosts and ports",
    "redis+sentinel://:s3cr3t@h,/m": "hosts and ports",
    "redis+sentinel://:s3cr3t/@h/m": "'@' behind",
    "redis+sentinel://:s3cr3t?@h/m": "hosts and ports",
    "redis+sentinel://:s3#cr3t@h/m": "%23",
    "redis+sentinel://:s3cr3t@h/m?db=s3cr3t": "'db'",
    "redis+sentinel://u:s3cr3t\u2100@h/m": "cannot be read",
    "redis+cluster://:s3cr3t@h/1": r"no database but 0.*redis\+cluster://",
    "redis+cluster://:s3cr3t@h?db=1": "no database but 0",
    "redis+cluster://:s3cr3t@h:port": "hosts and ports",
    "redis+cluster://:s3cr3t@": "hosts and ports",
    "redis+cluster://:s3cr3t@h?colour=red": "no such option",
}


@pytest.mark.parametrize("url", READ)
def test_every_form_is_read(url: str) -> None:
    """Hosts, ports, names, numbers, passwords and options come out as they were meant."""
    assert read_url(url) == READ[url]


@pytest.mark.parametrize("url", WRONG)
def test_what_is_wrong_is_said_without_the_password(url: str) -> None:
    """The error says what is wrong and shows the form; neither it nor its traceback has secrets."""
    with pytest.raises(ValueError, match=WRONG[url]) as raised:
        RedisSessionService.from_url(url)
    assert "redis" in str(raised.value)
    told = [*traceback.format_exception_only(raised.value), repr(raised.value)]
    if not raised.value.__suppress_context__:
        told.append(repr(raised.value.__context__))
    assert "s3" not in "".join(told)


def test_a_url_is_text() -> None:
    """Whatever else is a caller's mistake."""
    with pytest.raises(TypeError, match="string"):
        read_url(b"redis://h")  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:s3cr3t@h:1",
        "unix://u:s3cr3t@/tmp/s",
        "redis+sentinel://u:s3cr3t@h/m?sentinel_password=s3cr3t",
        "rediss+cluster://u:s3cr3t@h",
    ],
)
def test_no_repr_holds_the_password(url: str) -> None:
    """Neither what reads a URL, nor a service, nor a named instance shows it."""
    register_redis_instance("secret", url=url, client_options={"ssl_password": "s3cr3t"})
    try:
        named = RedisSessionService(instance="secret")
        shown = (
            read_url(url), RedisSessionService.from_url(url), named, named.backend,
            instances.instance_named("secret"),
        )  # fmt: skip
        assert "s3cr3t" not in repr(shown)
        with pytest.raises(ValueError, match="other settings") as raised:
            register_redis_instance("secret", url=url)
        assert "s3cr3t" not in str(raised.value)
    finally:
        unregister_redis_instance("secret")


async def test_an_unknown_option_is_told_before_anything_connects() -> None:
    """In the URL or beside it, for one server; by a name too, which then can still be closed."""
    with pytest.raises(ValueError, match=r"no such option: see what stands behind the '\?'"):
        RedisSessionService.from_url("redis://h?colour=red")
    register_redis_instance("odd", url="redis://h", client_options={"colour": "red"})
    try:
        async with RedisSessionService(instance="odd") as service:
            for _ in range(2):
                with pytest.raises(ValueError, match=r"no such option.*'colour'"):
                    await service.get_app_state("app")
    finally:
        unregister_redis_instance("odd")


def test_options_that_nothing_would_use_are_refused() -> None:
    """A client, and a named instance, are connected as they were made."""
    client = redis.asyncio.Redis()
    for subject in ({"client": client}, {"instance": "main"}):
        with pytest.raises(ValueError, match="client_options go with a url"):
            RedisSessionService(client_options={"db": 1}, **subject)
    with pytest.raises(ValueError, match="own client_options"):
        register_redis_instance("x", client=client, client_options={"db": 1})
    with pytest.raises(TypeError, match=r"client_options must be a dict .*, not list"):
        register_redis_instance("x", url="redis://h", client_options=[])  # type: ignore[arg-type]


def test_a_name_is_checked_when_it_is_given() -> None:
    """A wrong URL or client is found where it is written, not where it is used."""
    with pytest.raises(ValueError, match="no service"):
        register_redis_instance("x", url="redis+sentinel://h")
    with pytest.raises(TypeError, match=r"redis\.asyncio"):
        register_redis_instance("x", client=object())
