"""A process that ends without closing its service: ``python -m sqlite.programs.leaving HOW PATH``.

It prints ``seq`` of each event that was acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import sys

from agentsession import Event, SessionKey
from agentsession.sqlite import SQLiteSessionService

KEY = SessionKey("app", "user", "session")


async def append_for_ever(service: SQLiteSessionService) -> None:
    while True:
        event = await service.append_event(KEY, Event(author="a", content="x" * 1000))
        os.write(1, f"{event.seq}\n".encode())


async def main(how: str, service: SQLiteSessionService) -> None:
    with service.backend.follow(KEY, lambda _: None):
        await service.create_session(KEY)
        tasks = [asyncio.create_task(append_for_ever(service)) for _ in range(8)]
        await asyncio.wait(tasks, timeout=0.3)
        if how == "exits":
            sys.exit(0)
        if how == "raises":
            raise KeyboardInterrupt


def leave(how: str, path: str) -> None:
    service = SQLiteSessionService(path, session_event_limit=None)
    if how == "stops":
        # The loop is neither run to the end of its tasks nor closed.
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # Of tasks that nobody waits for.
        loop.run_until_complete(main(how, service))
        return
    try:
        asyncio.run(main(how, service))
    except KeyboardInterrupt:
        return
    # Another loop, while the threads of the first one's service are there still.
    asyncio.run(_again(path))


async def _again(path: str) -> None:
    async with SQLiteSessionService(path, session_event_limit=None) as service:
        event = await service.append_event(KEY, Event(author="again"))
        os.write(1, f"{event.seq}\n".encode())


if __name__ == "__main__":
    leave(sys.argv[1], sys.argv[2])
