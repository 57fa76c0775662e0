"""The mistakes of a newcomer about the server: passwords, rights, TLS, addresses.

Each row is the URL of a service; what it says has to tell the reader what to change in it, and
never tells the password. ``{plain}`` is the address of a server without a password, ``{guarded}``
of one with the password ``right``, ``{tls}`` of a port that speaks TLS, ``{http}`` of a web server,
and ``{closed}`` of a port that nobody listens on.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import trustme
from anyio.from_thread import start_blocking_portal

from agentsession import Event, SessionKey, SessionService, open_service
from agentsession.errors import BackendError, BackendUnavailableError, OutcomeUnknownError
from harness import servers

KEY = SessionKey("shop", "ann", "s1")
SECRET = "hunter-whiskey"
# In seconds; one row waits for nearly all of it.
TIMEOUT = 2.0


class WrongUrl(NamedTuple):
    """A URL that does not lead to sessions."""

    what: str
    url: str
    error: type[BackendError]
    says: str


URLS = [
    WrongUrl(
        "a wrong password",
        f"redis://:{SECRET}@{{guarded}}/0",
        BackendUnavailableError,
        "The user or the password is wrong; they stand in the URL, as in "
        "redis://user:password@host:6379/0, with special characters percent-encoded",
    ),
    WrongUrl(
        "no password",
        "redis://{guarded}/0",
        BackendUnavailableError,
        "The server wants a password; put it in the URL, behind a colon: redis://:password@host",
    ),
    WrongUrl(
        "a password without its colon",
        f"redis://{SECRET}@{{guarded}}/0",
        BackendUnavailableError,
        "put it in the URL, behind a colon: redis://:password@host:6379/0",
    ),
    WrongUrl(
        "a password where none is set",
        f"redis://:{SECRET}@{{plain}}/0",
        BackendUnavailableError,
        "The server has no password; leave it out of the URL",
    ),
    WrongUrl(
        "a user whom the server does not know",
        f"redis://ann:{SECRET}@{{plain}}/0",
        BackendUnavailableError,
        "The user or the password is wrong; they stand in the URL",
    ),
    WrongUrl(
        "a user without the right to run scripts",
        f"redis://reader:{SECRET}@{{plain}}/0",
        BackendError,
        "The user in the URL lacks rights; grant it the commands that the scripts use",
    ),
    WrongUrl(
        "a user without the right to these keys",
        f"redis://elsewhere:{SECRET}@{{plain}}/0",
        BackendError,
        "and the keys that begin with the key_prefix: 'await service.check()' names what is",
    ),
    WrongUrl(
        "a database that the server does not have",
        "redis://{plain}/99",
        BackendUnavailableError,
        "The URL ends in the number of a database that the server does not have; /0 is always",
    ),
    WrongUrl(
        "TLS on a port without it",
        f"rediss://:{SECRET}@{{plain}}/0",
        BackendUnavailableError,
        "it may not speak TLS, for which the URL asks with rediss://",
    ),
    WrongUrl(
        "no TLS on a port with it",
        f"redis://:{SECRET}@{{tls}}/0",
        BackendUnavailableError,
        "it may speak TLS alone (then the URL begins with rediss://)",
    ),
    WrongUrl(
        "a certificate of an authority that is not trusted",
        f"rediss://:{SECRET}@{{tls}}/0",
        BackendUnavailableError,
        "the option ssl_ca_certs names the file of the authorities to trust",
    ),
    WrongUrl(
        "the port of a web server",
        f"redis://:{SECRET}@{{http}}/0",
        BackendUnavailableError,
        "what answers there is no Redis server",
    ),
    WrongUrl(
        "a wrong port",
        f"redis://:{SECRET}@{{closed}}/0",
        BackendUnavailableError,
        "no connection to {closed}: Connection refused)",
    ),
    WrongUrl(
        "a wrong host name",
        f"redis://:{SECRET}@no-such-host.invalid/0",
        BackendUnavailableError,
        "no connection to no-such-host.invalid:6379: the host name is not known",
    ),
    WrongUrl(
        "a socket that is not there",
        "unix:///no/such/socket",
        BackendUnavailableError,
        "no connection to /no/such/socket: No such file or directory",
    ),
    WrongUrl(
        "a server for a cluster",
        "redis+cluster://{plain}",
        BackendUnavailableError,
        "The server is no node of a cluster; connect with redis://host:port",
    ),
    WrongUrl(
        "a cluster that is not there",
        "redis+cluster://{closed}",
        BackendUnavailableError,
        "no connection to {closed}: Connection refused",
    ),
    WrongUrl(
        "a server for its sentinels",
        "redis+sentinel://{plain}/mymaster",
        BackendUnavailableError,
        "Connect with redis://host:port to a server, or give the port of the sentinels",
    ),
    WrongUrl(
        "sentinels that are not there",
        "redis+sentinel://{closed}/mymaster",
        BackendUnavailableError,
        "no sentinel answers at {closed}",
    ),
]


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as a web server answers what is not HTTP."""
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


@asynccontextmanager
async def web_server(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    async with await asyncio.start_server(refuse, servers.LOOPBACK, port, ssl=tls):
        yield


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """Those that the URLs name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(servers.LOOPBACK).configure_cert(context)
    tls, http, closed = servers.free_ports(3)
    with (
        servers.alone() as plain,
        servers.alone() as guarded,
        # A loop of their own, where a refused handshake disturbs nobody.
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(web_server(tls, context)),
        portal.wrap_async_context_manager(web_server(http)),
    ):
        guarded.ask("CONFIG", "SET", "requirepass", "right")
        plain.ask("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+get")
        plain.ask("ACL", "SETUSER", "elsewhere", "on", f">{SECRET}", "~other:*", "+@all")
        ports = {"plain": plain.port, "guarded": guarded.port, "tls": tls, "http": http}
        yield {
            name: f"{servers.LOOPBACK}:{port}" for name, port in {**ports, "closed": closed}.items()
        }


@pytest.mark.parametrize("wrong", URLS, ids=lambda wrong: wrong.what)
async def test_a_wrong_url_says_what_to_change(wrong: WrongUrl, addresses: dict[str, str]) -> None:
    """The error names the mistake, and neither it nor its causes tell the password."""
    async with open_service(wrong.url.format(**addresses), timeout=TIMEOUT) as service:
        with pytest.raises(BackendError) as raised:
            await service.get_or_create_session(KEY)
    assert type(raised.value) is wrong.error
    assert wrong.says.format(**addresses) in str(raised.value)
    cause: BaseException | None = raised.value
    while cause is not None:
        assert SECRET not in f"{cause!s}{cause!r}"
        cause = cause.__cause__


async def append(service: SessionService) -> None:
    await service.append_event(KEY, Event(author="user", content="Hello"))


async def read(service: SessionService) -> None:
    await service.get_session(KEY)


class Failure(NamedTuple):
    """What happens to a server while it is used, and what the next call says."""

    what: str
    happen: Callable[[servers.Server], None]
    call: Callable[[SessionService], Awaitable[None]]
    error: type[BackendError]
    says: str


FAILURES = [
    Failure(
        "reading when the server has ended",
        servers.Server.stop,
        read,
        BackendUnavailableError,
        "no connection to {address}: Connection refused; given up after {seconds} seconds, with "
        "the option timeout=2). See whether it runs and keeps up, or repeat the call",
    ),
    Failure(
        "writing when the server has ended",
        servers.Server.stop,
        append,
        BackendError,
        "no connection to {address}: Connection refused; given up after {seconds} seconds, with "
        "the option timeout=2)",
    ),
    Failure(
        "reading from a server that hangs",
        servers.Server.freeze,
        read,
        BackendUnavailableError,
        "no answer from the server (no reply from {address} for a while; given up after {seconds} "
        "seconds, with the option timeout=2)",
    ),
    Failure(
        "writing to a server that hangs",
        servers.Server.freeze,
        append,
        OutcomeUnknownError,
        "given up after {seconds} seconds, with the option timeout=2): it was written whole or "
        "not at all; repeat it",
    ),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.what)
async def test_a_lost_server_says_how_long_it_was_waited_for(failure: Failure) -> None:
    """The address, the seconds that went by, and the option that sets them."""
    with servers.alone() as server:
        address = f"{servers.LOOPBACK}:{server.port}"
        async with open_service(f"redis://{address}", timeout=TIMEOUT) as service:
            await service.get_or_create_session(KEY)
            failure.happen(server)
            try:
                with pytest.raises(failure.error) as raised:
                    await failure.call(service)
            finally:
                if server.process is not None:
                    server.thaw()
    told = str(raised.value)
    waited = re.search(r"given up after ([0-9.]+) seconds", told)
    assert waited is not None
    assert float(waited[1]) > 0.9 * TIMEOUT
    assert failure.says.format(address=address, seconds=waited[1]) in told


async def test_the_password_may_change_while_a_service_is_open() -> None:
    """Connections that are there stay, and the next one says what is wrong by then."""
    with servers.alone() as server:
        url = f"redis://{servers.LOOPBACK}:{server.port}"
        async with open_service(url) as service:
            await service.get_or_create_session(KEY)
            server.ask("CONFIG", "SET", "requirepass", "another")
            await append(service)
        async with open_service(url) as service:
            with pytest.raises(BackendUnavailableError, match="The server wants a password"):
                await append(service)
