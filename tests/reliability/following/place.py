"""What all processes of a trial know: the sessions, and how they are told what to do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from agentsession import SessionKey

_USERS = 10


def key_of(session: int) -> SessionKey:
    """Return the key of a session; several are of one user, and so have one channel."""
    return SessionKey("app", f"user {session % _USERS}", f"session {session}")


async def lines_of_input() -> AsyncIterator[bytes]:
    """Yield what this process is told, line by line, until there is no more."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line
