"""How a connection is opened: nothing is left open, and what the server said is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio
from redis.credentials import CredentialProvider

from agentsession import RedisSessionService, SessionKey
from agentsession.errors import BackendUnavailableError
from agentsession.redis._core.errors import ServerError
from agentsession.redis._links.connection import Connection
from harness import servers

pytestmark = pytest.mark.on_both_loops

KEY = SessionKey("app", "user", "session")


class Door:
    """A server that says one thing, or nothing, to those who come.

    Attributes:
        url: Where it listens.
        came: How many connections were made.
    """

    def __init__(self, says: bytes = b"") -> None:
        self.url = ""
        self.came = 0
        self._says = says

    async def serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        writer.write(self._says)
        writer.close()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Door]:
        server = await asyncio.start_server(self.serve, servers.LOOPBACK, 0)
        async with server:
            self.url = f"redis://{servers.LOOPBACK}:{server.sockets[0].getsockname()[1]}"
            yield self


async def test_a_certificate_that_is_not_there_opens_nothing(tmp_path: Path) -> None:
    """What TLS is to be begun with is read before the server is disturbed."""
    async with Door().open() as door:
        url = door.url.replace("redis", "rediss", 1) + f"?ssl_ca_certs={tmp_path}/none.pem"
        async with RedisSessionService.from_url(url) as service:
            for _ in range(3):
                with pytest.raises(BackendUnavailableError, match="nothing was written"):
                    await service.create_session(KEY)
        assert door.came == 0


class Slow(CredentialProvider):
    """Gives credentials when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.due = asyncio.Event()

    def get_credentials(self) -> tuple[str]:
        raise NotImplementedError  # An asyncio client asks otherwise.

    async def get_credentials_async(self) -> tuple[str]:
        self.asked.set()
        await self.due.wait()
        return ("secret",)


async def test_credentials_are_there_before_the_connection() -> None:
    """Nobody sits on a connection meanwhile, from which the server might hang up unnoticed."""
    slow = Slow()
    with servers.alone() as node:
        node.ask("ACL", "SETUSER", "default", ">secret")
        client = redis.asyncio.Redis(port=node.port, credential_provider=slow)
        async with client, RedisSessionService(client) as service:
            with redis.Redis(port=node.port, password="secret") as admin:
                call = asyncio.create_task(service.create_session(KEY))
                await slow.asked.wait()
                assert len(admin.client_list()) == 1
                slow.due.set()
                assert (await call).revision == 1
                assert len(admin.client_list()) == 2


async def test_a_server_that_takes_nobody_more_says_so() -> None:
    """Its reason stands in the error, though it hangs up before it is asked anything."""
    with (
        servers.alone() as node,
        redis.Redis(port=node.port, single_connection_client=True) as admin,
    ):
        admin.config_set("maxclients", 1)
        url = f"redis://{servers.LOOPBACK}:{node.port}"
        async with RedisSessionService.from_url(url) as service:
            with pytest.raises(BackendUnavailableError, match="max number of clients"):
                await service.create_session(KEY)


@pytest.mark.parametrize("says", [b"", b"-ERR go away\r\n"])
async def test_who_was_hung_up_on_is_told_at_once(says: bytes) -> None:
    """Also if that was before anything was asked; the server's last word is the cause."""
    async with Door(says).open() as door:
        host, port = door.url.removeprefix("redis://").split(":")
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, host, int(port))
        async with asyncio.timeout(5):
            while not connection.closed:
                await asyncio.sleep(0.001)
            with pytest.raises(ConnectionError, match="closed the connection") as raised:
                await connection.ask(("PING",))
    cause = raised.value.__cause__
    assert (type(cause), str(cause)) == (ServerError, "ERR go away") if says else cause is None
