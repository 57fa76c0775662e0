"""A process that appends to sessions of one file for ever, and says what was acknowledged.

``python -m sqlite.programs.appending PATH NAME SESSIONS TASKS SECONDS``. It prints ``ready``, and
then ``session id seq`` for each event once its append has returned. After so many seconds it closes
the service and ends; 0 for never.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time

from agentsession import Event, SessionKey
from agentsession.sqlite import SQLiteSessionService


def say(line: str) -> None:
    """Print in one step, so that a kill leaves at most one line half printed."""
    os.write(1, f"{line}\n".encode())


def event(name: str, number: int, session: str) -> Event:
    event_id = f"{name}-{number}"
    # State and log are of one moment if this one is the last event's.
    return Event(
        id=event_id,
        author=name,
        content="x" * random.randrange(2000),
        state_delta={"last": event_id, f"app:{session}": event_id},
    )


async def append_for_ever(
    service: SQLiteSessionService, name: str, sessions: list[str], end: float
) -> None:
    number = 0
    while time.monotonic() < end:
        session = random.choice(sessions)
        key = SessionKey("app", "user", session)
        count = random.choice((1, 1, 1, 5))
        events = [event(name, number + n, session) for n in range(count)]
        number += count
        for each in await service.append_events(key, events):
            say(f"{session} {each.id} {each.seq}")


async def main(path: str, name: str, count: int, tasks: int, seconds: float) -> None:
    end = time.monotonic() + seconds if seconds else float("inf")
    names = [f"s{n}" for n in range(count)]
    async with SQLiteSessionService(path, session_event_limit=None) as service:
        for session in names:
            await service.get_or_create_session(SessionKey("app", "user", session))
        say("ready")
        async with asyncio.TaskGroup() as group:
            for task in range(tasks):
                group.create_task(append_for_ever(service, f"{name}-{task}", names, end))


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    )
