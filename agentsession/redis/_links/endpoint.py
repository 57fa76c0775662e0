"""Opens connections: the address of a server, TLS, and the commands that log in.

The settings are redis-py's: it reads URLs, credentials and TLS options, or a user's client has
them. The socket is opened here and not by redis-py, because the links have to see whether bytes
flow, send large commands in pieces, and need no task for each connection. Only public parts of
redis-py are used: the attributes of a connection object that is never connected.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import hiredis
from redis.asyncio.connection import (
    AbstractConnection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.connection import Connection as TcpConnection

from agentsession.redis._addresses import described
from agentsession.redis._core.errors import ServerError
from agentsession.redis._links.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from agentsession.redis._addresses import Host
    from agentsession.redis._core.clock import ServerClock
    from agentsession.redis._scripts import Argument

__all__ = ["Endpoint", "Find", "PrimaryAbsentError"]

Find: TypeAlias = "Callable[[], Awaitable[Host]]"
"""Looks up which server it is now."""

# Microseconds in a second: the server tells both.
_MILLION: Final = 1_000_000
# Commands that a server may refuse without harm.
_OPTIONAL: Final = frozenset({"CLIENT", "TIME"})
_WITH_TLS: Final = "then the URL begins with rediss://"


class PrimaryAbsentError(ConnectionError):
    """The sentinels know no address at the moment, but will again after a failover."""


class _Attempt:
    """How far an attempt to connect has come, for the error if it fails.

    Args:
        where: The address, or who is asked for it.
        tls: Whether the connection is to be encrypted.
    """

    def __init__(self, where: str, *, tls: bool) -> None:
        self.where = where
        self.step: Literal["reaching", "encrypting", "introducing"] = "reaching"
        self._tls = tls

    def problem(self, exc: Exception) -> str:
        """Word what went wrong, with what it often means at this step."""
        words = _worded(exc)
        if isinstance(exc, ssl.SSLCertVerificationError):
            return f"{words}; the option ssl_ca_certs names the file of the authorities to trust"
        if self.step == "encrypting":
            return f"{words}; it may not speak TLS, for which the URL asks with rediss://"
        if self.step == "introducing" and isinstance(exc, hiredis.ProtocolError):
            return f"{words}; what answers there is no Redis server, or speaks TLS ({_WITH_TLS})"
        if self.step == "introducing" and not self._tls:
            return f"{words}; it may speak TLS alone ({_WITH_TLS})"
        return words


def _worded(exc: Exception) -> str:
    """Word an error of the operating system without what asyncio puts around it."""
    if isinstance(exc, TimeoutError) and exc.errno is None:
        return "it did not answer in time"
    if isinstance(exc, socket.gaierror):
        return f"the host name is not known ({exc.strerror})"
    if isinstance(exc, OSError) and exc.errno and not isinstance(exc, ssl.SSLError):
        return os.strerror(exc.errno)
    return str(exc) or type(exc).__name__


class Endpoint:
    """Opens connections to one server.

    Args:
        settings: A connection of redis-py's, which stays unconnected.
        find: Looks up the address at each attempt; without it that of *settings* is used.
        where: The address, for errors, where *find* always finds the same.

    Attributes:
        server: Where it tried to connect last, for people.

    Raises:
        TypeError: *settings* is of a kind that is not redis-py's, or has hooks of its own.
    """

    def __init__(
        self, settings: AbstractConnection, find: Find | None = None, where: str = ""
    ) -> None:
        kind = type(settings)
        if kind.__module__.partition(".")[0] != "redis":
            msg = (
                f"connections are opened by agentsession, so a connection_class of your own "
                f"({kind.__module__}.{kind.__qualname__}) would do nothing; pass a client without"
            )
            raise TypeError(msg)
        if settings.redis_connect_func is not None:
            msg = "redis_connect_func would not be called; use a credential_provider"
            raise TypeError(msg)
        self._settings = settings
        self._find = find
        self._where = where
        self.server = where or repr(self)

    def __repr__(self) -> str:
        settings = self._settings
        if isinstance(settings, UnixDomainSocketConnection):
            return str(settings.path)
        if self._find:
            return self._where or "the address that was found"
        return described(((settings.host, settings.port),))  # type: ignore[attr-defined]  # a TCP connection

    def at(self, host: Host) -> Endpoint:
        """Return an endpoint with the same settings at another address."""

        async def find() -> Host:
            return host

        return Endpoint(self._settings, find, described((host,)))

    async def open(self, patience: float, clock: ServerClock) -> Connection:
        """Connect and log in.

        Args:
            patience: Seconds that it may take; less if redis-py's settings say less.
            clock: Learns the server's time, if the server tells it.

        Raises:
            ConnectionError: The server cannot be reached.
            ServerError: It refuses the credentials or the database.
        """
        limit = self._settings.socket_connect_timeout
        attempt = _Attempt(repr(self), tls=isinstance(self._settings, SSLConnection))
        try:
            async with asyncio.timeout(patience if limit is None else min(patience, limit)):
                return await self._open(clock, attempt)
        except PrimaryAbsentError:
            raise
        except (OSError, hiredis.ProtocolError) as exc:
            msg = f"no connection to {attempt.where}: {attempt.problem(exc)}"
            raise ConnectionError(msg) from exc

    async def _open(self, clock: ServerClock, attempt: _Attempt) -> Connection:
        # First, since it may take a while, in which the server should not be kept waiting.
        credentials = await self._credentials()
        connection = await self._connected(attempt)
        attempt.step = "introducing"
        try:
            await self._introduce(connection, credentials, clock)
            if connection.closed:
                msg = "the server hung up"
                raise ConnectionError(msg)
        except BaseException:
            connection.on_lost = lambda _: None
            connection.close(ConnectionError("not wanted"))
            raise
        return connection

    async def _connected(self, attempt: _Attempt) -> Connection:
        loop = asyncio.get_running_loop()
        settings = self._settings
        if isinstance(settings, UnixDomainSocketConnection):
            _, connection = await loop.create_unix_connection(Connection, settings.path)
            connection.server = self.server
            return connection
        assert isinstance(settings, TcpConnection)  # noqa: S101 - there are no others
        # First, so that a wrong file opens nothing.
        context = self._tls()
        host, port = await self._find() if self._find else (settings.host, settings.port)
        attempt.where = self.server = server = described(((host, port),))
        transport, connection = await loop.create_connection(
            Connection, host, port, family=settings.socket_type
        )
        connection.server = server
        try:
            _keep_alive(transport, settings)
            if context is not None:
                attempt.step = "encrypting"
                # A step of its own: only so can one see how many of the encrypted bytes have left.
                encrypted = await loop.start_tls(
                    transport, connection, context, server_hostname=host
                )
                if encrypted is None:
                    msg = "the server hung up while encryption was begun"
                    raise ConnectionError(msg)
                connection.encrypt(encrypted)
        except BaseException:
            transport.abort()
            raise
        return connection

    def _tls(self) -> ssl.SSLContext | None:
        settings = self._settings
        if isinstance(settings, SSLConnection):
            return settings.ssl_context.get()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - redis-py has no types for it
        return None

    async def _introduce(
        self, connection: Connection, credentials: Sequence[Sequence[Argument]], clock: ServerClock
    ) -> None:
        commands: list[Sequence[Argument]] = [*credentials, ("TIME",)]
        if self._settings.client_name:
            commands.append(("CLIENT", "SETNAME", self._settings.client_name))
        commands.append(("CLIENT", "SETINFO", "LIB-NAME", "agentsession"))
        if self._settings.db:
            commands.append(("SELECT", str(self._settings.db)))
        loop = asyncio.get_running_loop()
        asked = loop.time()
        replies = await connection.ask(*commands)
        for words, reply in zip(commands, replies, strict=True):
            if isinstance(reply, ServerError):
                # Without its password a server refuses the optional commands too.
                if words[0] not in _OPTIONAL or reply.code == "NOAUTH":
                    raise reply
            elif words[0] == "TIME":
                clock.learn(int(reply[0]) * _MILLION + int(reply[1]), asked, loop.time())

    async def _credentials(self) -> list[Sequence[Argument]]:
        settings = self._settings
        if settings.credential_provider is not None:
            given = await settings.credential_provider.get_credentials_async()
            return [("AUTH", *given)]
        if settings.password:
            user = (settings.username,) if settings.username else ()
            return [("AUTH", *user, settings.password)]
        return []


def _keep_alive(transport: asyncio.Transport, settings: TcpConnection) -> None:
    """Set the options of the socket that keep it alive."""
    if not settings.socket_keepalive:
        return
    sock = transport.get_extra_info("socket")
    # Options that the platform lacks are no reason to do without the connection.
    with suppress(OSError, TypeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        options: Any = settings.socket_keepalive_options
        for name, value in options.items():
            sock.setsockopt(socket.IPPROTO_TCP, name, value)
