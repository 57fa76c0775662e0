"""TLS, ended by a proxy, since the server of the tests is built without it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trustme
from anyio.from_thread import start_blocking_portal

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.errors import BackendUnavailableError
from harness import servers
from harness.insides import link_of
from harness.proxy import proxied

pytestmark = pytest.mark.on_both_loops

KEY = SessionKey("app", "user", "session")
TIMEOUT = 4.0
# In bytes a second: the event takes far longer than a connection may be silent.
RATE = 400_000


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def encrypted(target: int, port: int, authority: trustme.CA) -> AsyncIterator[None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(servers.LOOPBACK).configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection(servers.LOOPBACK, target)
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, behind[1]))
            group.create_task(pump(behind[0], writer))

    server = await asyncio.start_server(serve, servers.LOOPBACK, port, ssl=context)
    async with server:
        yield


@contextmanager
def tls_before(target: int, port: int, authority: trustme.CA) -> Iterator[None]:
    """Serve on *port* with a certificate for loopback what *target* serves without.

    It has a loop of its own, where a refused handshake disturbs nobody.
    """
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(encrypted(target, port, authority)),
    ):
        yield


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    """The file that clients are told to trust."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


async def test_a_certificate_is_checked(authority: trustme.CA, trusted: str) -> None:
    """With the right authority all works; without it nothing is sent, and the error says why."""
    (port,) = servers.free_ports(1)
    url = f"rediss://agents:s3cr3t@{servers.LOOPBACK}:{port}"
    with servers.alone() as node:
        node.ask("ACL", "SETUSER", "agents", "on", ">s3cr3t", "~*", "+@all")
        with tls_before(node.port, port, authority):
            options = {"ssl_ca_certs": trusted}
            async with RedisSessionService.from_url(url, client_options=options) as service:
                session = await service.create_session(KEY)
                assert (await service.append_event(session, Event(author="a", content="x"))).seq
            by_query = f"{url}?ssl_ca_certs={trusted}"
            async with RedisSessionService.from_url(by_query) as service:
                assert await service.get_session(KEY) is not None
            async with RedisSessionService.from_url(url) as service:
                with pytest.raises(BackendUnavailableError, match="certificate verify") as raised:
                    await service.get_session(KEY)
            assert "s3cr3t" not in f"{raised.value!s}{raised.value.__cause__!r}{service!r}"


async def test_what_leaves_slowly_is_not_hung(authority: trustme.CA, trusted: str) -> None:
    """A piece that takes longer than a connection may be silent leaves byte by byte."""
    (port,) = servers.free_ports(1)
    with servers.alone() as node, tls_before(node.port, port, authority):
        async with proxied(f"redis://{servers.LOOPBACK}:{port}", tcp=True) as proxy:
            # Small buffers, so that nothing hides in the kernel.
            assert proxy._server is not None
            proxy._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            async with RedisSessionService.from_url(
                proxy.url.replace("redis", "rediss", 1),
                client_options={"ssl_ca_certs": trusted},
                timeout=TIMEOUT,
            ) as service:
                session = await service.create_session(KEY)
                # So that the server knows the script, and the other event leaves once.
                await service.append_event(session, Event(author="a"))
                link = link_of(service)
                sock = link._connection._transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
                proxy.rate = RATE
                event = Event(author="a", content="x" * (RATE * 5 // 2))
                assert (await service.append_event(session, event)).seq == 2
            assert proxy.connections == 1


def all_know_ports(nodes: Sequence[servers.Node], ports: Sequence[int]) -> bool:
    known = [str(node.ask("CLUSTER", "NODES")) for node in nodes]
    return all(str(port) in each for each in known for port in ports)


async def test_a_cluster_behind_tls(authority: trustme.CA, trusted: str) -> None:
    """Nodes that announce the ports of TLS are reached there, and nowhere else."""
    with servers.cluster(2) as cluster:
        ports = servers.free_ports(2)
        for node, port in zip(cluster.nodes, ports, strict=True):
            node.ask("CONFIG", "SET", "cluster-announce-port", port)
        servers.eventually(partial(all_know_ports, cluster.nodes, ports))
        first, second = (node.port for node in cluster.nodes)
        with tls_before(first, ports[0], authority), tls_before(second, ports[1], authority):
            url = f"rediss+cluster://{servers.LOOPBACK}:{ports[0]}"
            options = {"ssl_ca_certs": trusted}
            async with RedisSessionService.from_url(url, client_options=options) as service:
                for number in range(10):
                    await service.create_session(SessionKey("app", str(number), "s"), {"app:a": 1})
            async with RedisSessionService.from_url(url) as service:
                with pytest.raises(BackendUnavailableError, match="certificate verify"):
                    await service.get_session(KEY)


async def test_sentinels_and_servers_are_both_encrypted(
    authority: trustme.CA, trusted: str
) -> None:
    """A sentinel behind TLS is asked, and what it names is connected to with TLS too."""
    (port,) = servers.free_ports(1)
    with (
        servers.sentinels() as topology,
        tls_before(topology.sentinels[0].port, port, authority),
    ):
        url = f"rediss+sentinel://{servers.LOOPBACK}:{port}/mymaster?ssl_ca_certs={trusted}"
        async with RedisSessionService.from_url(url, timeout=3) as service:
            # The sentinel has answered; the server, which speaks no TLS, would have without it.
            with pytest.raises(BackendUnavailableError, match="that the sentinels name"):
                await service.get_session(KEY)
