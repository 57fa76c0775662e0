"""A process that has a lock of a file until it reads a line.

``python -m sqlite.programs.holding HOW PATH``.

With ``transaction`` it is another program, in a transaction; with ``gate`` it is before one; with
``frozen`` it is one of ours, which stops itself in the middle of an append.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sqlite3
import sys
from pathlib import Path

from agentsession import Event, SessionKey
from agentsession.clock import system_clock
from agentsession.sqlite import SQLiteSessionService


def transaction(path: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    print("held", flush=True)
    sys.stdin.readline()
    connection.execute("COMMIT")
    connection.close()


def gate(path: str) -> None:
    with Path(f"{path}-gate").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        print("held", flush=True)
        sys.stdin.readline()


def frozen(path: str) -> None:
    asyncio.run(_frozen(path))


async def _frozen(path: str) -> None:
    def clock() -> int:
        """Stop when it is asked in the middle of a transaction."""
        if stops:
            stops.clear()
            print("held", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        return system_clock()

    stops: list[bool] = []
    async with SQLiteSessionService(path, clock=clock) as service:
        await service.get_session(SessionKey("app", "user", "session"))
        stops.append(True)
        event = await service.append_event(
            SessionKey("app", "user", "session"), Event(author="thawed")
        )
        print(event.seq)


if __name__ == "__main__":
    {"transaction": transaction, "gate": gate, "frozen": frozen}[sys.argv[1]](sys.argv[2])
