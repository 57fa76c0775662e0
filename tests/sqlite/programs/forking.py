"""A process that forks after it has used a service: ``python -m sqlite.programs.forking HOW PATH``.

It prints one line when all was as it should be.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agentsession import Event, SessionKey, SessionService
from agentsession.errors import EventLoopError
from agentsession.sqlite import SQLiteSessionService

PARENT = SessionKey("app", "user", "parent")


def key(session: str) -> SessionKey:
    return SessionKey("app", "user", session)


def is_open(path: str) -> bool:
    """Tell whether anybody has the file open, as far as SQLite knows."""
    return Path(f"{path}-wal").exists()


async def append(service: SessionService, session: SessionKey, count: int) -> None:
    for _ in range(count):
        await service.append_event(session, Event(author="a", content="x" * 500))


async def length(service: SessionService, session: SessionKey) -> int:
    """Return how many events a log has, after a look at their positions."""
    found = await service.get_session(session)
    assert found is not None
    assert [event.seq for event in found.events] == list(range(1, len(found.events) + 1))
    return len(found.events)


def child_exit(act: Callable[[], Coroutine[Any, Any, None]]) -> NoReturn:
    """Act in a child, and end it without the clean-up of the parent's objects."""
    try:
        asyncio.run(act())
    except BaseException as error:  # noqa: BLE001 - a test's process says what is wrong with it
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)
    os._exit(0)


def ended(child: int) -> None:
    """Wait for a child that must not hang, and must have ended well."""
    end = time.monotonic() + 60
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            assert status == 0, f"the child ended with {status}"
            return
        assert time.monotonic() < end, "the child hangs"
        time.sleep(0.005)


async def refuse(service: SessionService) -> None:
    """Check that a child cannot use its parent's service."""
    for call in (service.get_session(PARENT), append(service, PARENT, 1), service.aclose()):
        with pytest.raises(EventLoopError) as caught:
            await call
        assert caught.value.problem == "forked"


async def anew(path: str) -> None:
    """A child with a service of its own goes on when the parent's is closed, and loses nothing."""
    told, tell = os.pipe()
    service = SQLiteSessionService(path)
    await service.create_session(PARENT)
    await append(service, PARENT, 20)
    child = os.fork()
    if not child:
        child_exit(lambda: _child_anew(path, told))
    await append(service, PARENT, 100)
    await service.aclose()
    # The last one of this process: it would remove the log if it took itself for the last of all.
    os.write(tell, b"x")
    await asyncio.to_thread(ended, child)
    async with SQLiteSessionService(path) as again:
        assert await length(again, PARENT) == 120
        assert await length(again, key("child")) == 120
    assert not is_open(path)


async def _child_anew(path: str, told: int) -> None:
    async with SQLiteSessionService(path) as service:
        await service.create_session(key("child"))
        await append(service, key("child"), 20)
        assert os.read(told, 1)
        await append(service, key("child"), 100)
        assert await length(service, PARENT) == 120


async def outlived(path: str) -> None:
    """A child that does nothing holds no lock of its parent's, also if it outlives it."""
    service = SQLiteSessionService(path, timeout=5)
    await service.create_session(PARENT)
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        os.read(told, 1)
        os._exit(0)
    await append(service, PARENT, 10)
    await service.aclose()
    assert not is_open(path)
    async with SQLiteSessionService(path, timeout=5) as again:
        await append(again, PARENT, 10)
        os.write(tell, b"x")
        await asyncio.to_thread(ended, child)
        assert await length(again, PARENT) == 20


def busy(path: str) -> None:
    """Forks at any moment while threads write and read, with all that a child may do."""
    loop = asyncio.new_event_loop()
    service = SQLiteSessionService(path)
    counts = dict.fromkeys([key(f"s{n}") for n in range(6)], 0)

    async def write(session: SessionKey) -> None:
        await service.create_session(session)
        while not is_over:
            await append(service, session, 1)
            counts[session] += 1
            assert await service.get_events(session, newest_first=True, limit=1)

    is_over = False
    tasks = [loop.create_task(write(session)) for session in counts]
    children: list[int] = []
    for number in range(40):
        loop.run_until_complete(asyncio.sleep(random.random() * 0.01))
        child = os.fork()
        if not child:
            _be_child(service, path, number)
        children.append(child)
    is_over = True
    loop.run_until_complete(asyncio.wait(tasks))
    for task in tasks:
        task.result()
    for child in children:
        ended(child)
    for session, count in counts.items():
        assert loop.run_until_complete(length(service, session)) == count > 0
    for number in range(3, 40, 4):
        assert loop.run_until_complete(length(service, key(f"child {number}"))) == 10
    loop.run_until_complete(service.aclose())
    assert not is_open(path)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def _be_child(service: SessionService, path: str, number: int) -> None:
    how = number % 4
    if how == 0:
        os._exit(0)
    if how == 1:
        # Python complains of the tasks that it finds; an error is seen by the exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.exit(0)
    if how == 2:
        child_exit(lambda: refuse(service))
    child_exit(lambda: _write_own(path, key(f"child {number}")))


async def _write_own(path: str, session: SessionKey) -> None:
    async with SQLiteSessionService(path) as service:
        await service.create_session(session)
        await append(service, session, 10)
        assert await length(service, session) == 10


if __name__ == "__main__":
    # Newer Pythons warn of forks where there are threads, which is what this is about.
    warnings.simplefilter("ignore", DeprecationWarning)
    if sys.argv[1] == "busy":
        busy(sys.argv[2])
    else:
        asyncio.run({"anew": anew, "outlived": outlived}[sys.argv[1]](sys.argv[2]))
    with suppress(BrokenPipeError):
        print("as it should be")
