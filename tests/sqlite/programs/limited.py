"""A process that may not write all that it wants: ``python -m sqlite.programs.limited HOW PATH``.

It prints one line when all was as it should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from agentsession import Event, SessionKey, SessionService
from agentsession.errors import BackendUnavailableError, OutcomeUnknownError
from agentsession.sqlite import SQLiteSessionService

KEYS = [SessionKey("app", "user", f"s{n}") for n in range(3)]


class Writing:
    """What was acknowledged, and what may be there besides.

    Attributes:
        service: Where to.
        stored: The ids of events that are there, by session, in their order.
        unsure: The ids of events that may be there.
        refused: How many were refused.
    """

    def __init__(self, service: SessionService) -> None:
        self.service = service
        self.stored: dict[SessionKey, list[str]] = {key: [] for key in KEYS}
        self.unsure: set[str] = set()
        self.refused = 0
        self._made = 0

    async def append(self, key: SessionKey, size: int) -> bool:
        """Append an event of some size; tell whether it was stored."""
        self._made += 1
        event = Event(id=f"e{self._made}", author="a", content="x" * size)
        try:
            stored = await self.service.append_event(key, event)
        except BackendUnavailableError as error:
            if "nothing was written" not in str(error):
                raise
            self.refused += 1
            return False
        except OutcomeUnknownError:
            self.unsure.add(event.id)
            return False
        self.stored[key].append(event.id)
        assert stored.seq is not None
        return True

    async def fill(self, size: int, most: int = 2000) -> None:
        """Append until nothing more goes in, and a little longer."""
        left = 10
        for n in range(most):
            left -= not await self.append(KEYS[n % len(KEYS)], size)
            if not left:
                return
        msg = "there was room for all of it"
        raise AssertionError(msg)

    async def check(self, service: SessionService | None = None) -> None:
        """Check that what was acknowledged can be read, in its order, and nothing else."""
        for key, ids in self.stored.items():
            session = await (service or self.service).get_session(key)
            assert session is not None
            found = [event.id for event in session.events]
            assert [each for each in found if each not in self.unsure] == ids
            assert [event.seq for event in session.events] == list(range(1, len(found) + 1))


async def file_size(path: str) -> None:
    """A limit of the process, met and lifted."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with SQLiteSessionService(path) as service:
        writing = Writing(service)
        for key in KEYS:
            await service.create_session(key)
        for limit in (600_000, 700_000, 1_000_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            before = writing.refused
            await writing.fill(20_000)
            assert writing.refused > before
            await writing.check()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        for key in KEYS:
            assert await writing.append(key, 20_000)
        await writing.check()
    async with SQLiteSessionService(path) as again:
        await writing.check(again)
    assert not writing.unsure


async def one_of_many(path: str) -> None:
    """One call that is too large for the limit fails alone, of those that share a transaction."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with SQLiteSessionService(path, max_event_size=1 << 24) as service:
        writing = Writing(service)
        for key in KEYS:
            await service.create_session(key)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
        for _ in range(5):
            sizes = [100, 3_000_000, 100]
            async with asyncio.TaskGroup() as group:
                calls = [
                    group.create_task(writing.append(key, size))
                    for key, size in zip(KEYS, sizes, strict=True)
                ]
            assert [call.result() for call in calls] == [True, False, True]
        await writing.check()
        assert writing.refused == 5


async def small_disk(path: str) -> None:
    """A disk that is full, and has room again."""
    ballast = Path(path).with_name("ballast")
    ballast.write_bytes(bytes(1_000_000))
    async with SQLiteSessionService(path) as service:
        writing = Writing(service)
        for key in KEYS:
            await service.create_session(key)
        await writing.fill(20_000)
        await writing.check()
        # Nor is there room for what is told about the lock, or for another's gate.
        with contextlib.suppress(OSError), ballast.open("ab") as file:
            while True:
                file.write(bytes(100))
                file.flush()
        assert not await writing.append(KEYS[0], 20_000)
        async with SQLiteSessionService(path) as another:
            await writing.check(another)
        with contextlib.suppress(BackendUnavailableError):
            async with SQLiteSessionService(f"{path}-2") as another:
                await another.create_session(KEYS[0])
        ballast.unlink()
        for key in KEYS:
            assert await writing.append(key, 20_000)
        await writing.check()
    async with SQLiteSessionService(path) as again:
        await writing.check(again)
    assert not writing.unsure


async def read_only(path: str) -> None:
    """A disk that may not be written to: with a file, and with none."""
    for name in ("sessions.db", "none.db"):
        async with SQLiteSessionService(Path(path, name)) as service:
            for call in (service.get_session(KEYS[0]), service.create_session(KEYS[1])):
                with pytest.raises(BackendUnavailableError, match=name):
                    await call


async def as_nobody(path: str) -> None:
    """The same for a user who has no right to write."""
    await asyncio.to_thread(int)  # Imports what may not be readable afterwards.
    os.setgid(65534)
    os.setuid(65534)
    await read_only(path)
    sys.stdout.write("as it should be\n")
    sys.stdout.flush()
    # Nothing is to be written at the end of the process either, such as what coverage has counted.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](sys.argv[2]))
    print("as it should be")
