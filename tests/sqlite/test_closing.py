"""The end of a service: closed, closed in the middle of calls, or not closed at all."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentsession import Event, SessionKey
from agentsession.backend import Expected
from agentsession.errors import BackendUnavailableError, ClosedError
from agentsession.observers import Notice, Observer
from agentsession.sqlite import SQLiteBackend, SQLiteSessionService
from sqlite.programs.processes import acted, running

KEY = SessionKey("app", "user", "session")


def held() -> tuple[set[str], list[str]]:
    """Return the threads of services, and the files beside a database that this process has."""
    names = {each.name for each in threading.enumerate() if each.name.startswith("agentsession")}
    files: list[str] = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            files.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            continue  # That of the folder itself.
    return names, sorted(file for file in files if ".db" in file)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Each test leaves as many threads and open files as it found."""
    before = held()
    yield
    assert held() == before


def beside(path: Path) -> set[str]:
    return {name.removeprefix(path.name) for name in os.listdir(path.parent)}


async def test_what_is_left_of_a_service(tmp_path: Path) -> None:
    """No thread, no open file; and the last one to close takes the log away."""
    path = tmp_path / "sessions.db"
    first, second = SQLiteSessionService(path), SQLiteSessionService(path)
    with first.backend.follow(KEY, lambda _: None), second.backend.follow(KEY, lambda _: None):
        await first.create_session(KEY)
        async with asyncio.TaskGroup() as group:
            for each in (first, second):
                for _ in range(50):
                    group.create_task(each.append_event(KEY, Event(author="a")))
                    group.create_task(each.get_events(KEY))
        threads, files = held()
        assert {name.split("-")[1] for name in threads} == {"reader", "watch", "writer"}
        assert len(files) >= 8
    await first.aclose()
    assert beside(path) == {"", "-wal", "-shm", "-gate"}
    await second.aclose()
    assert beside(path) == {"", "-gate"}


async def test_what_is_left_of_a_service_that_only_read(tmp_path: Path) -> None:
    """Its threads close what they have open one by one, or none of them would be the last."""
    path = tmp_path / "sessions.db"
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
    for _ in range(100):
        async with SQLiteSessionService(path) as service:
            for _ in range(2):
                async with asyncio.TaskGroup() as group:
                    for _ in range(40):
                        group.create_task(service.get_events(KEY))
        assert beside(path) == {"", "-gate"}


async def test_a_service_that_was_never_used(tmp_path: Path) -> None:
    """It makes no file, and closing it any number of times is no error."""
    service = SQLiteSessionService(tmp_path / "sessions.db", session_ttl=10)
    for _ in range(3):
        await service.aclose()
    assert os.listdir(tmp_path) == []


async def test_closing_in_the_middle_of_calls(tmp_path: Path) -> None:
    """Each call is done, or refused as one that comes too late; none hangs, none is half done."""
    for turns in range(40):
        path = tmp_path / f"{turns}.db"
        service = SQLiteSessionService(path, session_ttl=60)
        await service.create_session(KEY)
        calls = [
            *(asyncio.create_task(service.append_event(KEY, Event(author="a"))) for _ in range(9)),
            *(asyncio.create_task(service.get_or_create_session(KEY)) for _ in range(9)),
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            # Twice at once, and once more.
            group.create_task(service.aclose())
            group.create_task(service.aclose())
        await service.aclose()
        await asyncio.wait(calls, timeout=20)
        stored = 0
        for call in calls:
            assert isinstance(call.exception(), ClosedError | None)
            stored += call.exception() is None and isinstance(call.result(), Event)
        async with SQLiteSessionService(path) as again:
            assert len(await again.get_events(KEY)) == stored


async def test_a_backend_that_is_closed_in_the_middle_of_calls(tmp_path: Path) -> None:
    """Nor do calls that come to it afterwards start its threads again."""
    for turns in range(20):
        service = SQLiteSessionService(tmp_path / "sessions.db")
        backend = service.backend
        calls = [
            asyncio.ensure_future(backend.get_user_state(KEY.user)),
            asyncio.ensure_future(backend.update_user_state(KEY.user, {"a": b"1"})),
            asyncio.ensure_future(backend.locate(KEY, "e", expected=Expected())),
        ]
        with backend.follow(KEY, lambda _: None):
            for _ in range(turns):
                await asyncio.sleep(0)
            await backend.aclose()
            await asyncio.wait(calls, timeout=20)
            for call in calls:
                assert call.done()
                call.exception()
            with pytest.raises(ClosedError):
                await backend.get_user_state(KEY.user)


class Sweeps(Observer):
    """Counts sweeps that have found something."""

    def __init__(self) -> None:
        self.seen = asyncio.Event()

    def on_notice(self, notice: Notice) -> None:
        self.seen.set()


async def test_a_sweeper_that_meets_a_lock_sweeps_later(tmp_path: Path) -> None:
    """And its end is no task whose exception nobody has looked at."""
    path = tmp_path / "sessions.db"
    sweeps = Sweeps()
    async with SQLiteSessionService(
        path, session_ttl=0.05, cleanup_interval=0.02, timeout=0.01, observers=[sweeps]
    ) as service:
        await service.get_or_create_session(KEY)
        with running("holding", "transaction", path) as program:
            assert await asyncio.to_thread(program.line) == "held"
            with pytest.raises(BackendUnavailableError):
                await service.create_session(SessionKey("app", "user", "other"))
            sweeps.seen.clear()
            await _strikes(service)
            program.tell()
            await asyncio.to_thread(program.end)
        async with asyncio.timeout(20):
            while True:
                try:
                    await service.create_session(SessionKey("app", "user", "third"))
                except BackendUnavailableError:
                    continue
                break
            await sweeps.seen.wait()


async def _strikes(service: SQLiteSessionService) -> None:
    """Wait until the sweeper has met the lock, which it does each fiftieth of a second."""
    assert isinstance(service.backend, SQLiteBackend)
    for _ in range(3):
        with pytest.raises(BackendUnavailableError):
            await service.backend.sweep()
        await asyncio.sleep(0.03)


@pytest.mark.parametrize("how", ["returns", "stops", "exits", "raises"])
def test_a_process_that_ends_without_closing(how: str, tmp_path: Path) -> None:
    """It neither hangs nor complains, and what was acknowledged is there."""
    path = tmp_path / "sessions.db"
    begin = time.monotonic()
    told = [int(line) for line in acted("leaving", how, path)]
    assert time.monotonic() - begin < 30
    assert told
    found = asyncio.run(_seqs(path))
    assert found == list(range(1, len(found) + 1))
    assert {*told} <= {*found}
    # At most those that were under way.
    assert len(found) <= len(told) + 8
    assert beside(path) == {"", "-gate"}


async def _seqs(path: Path) -> list[int | None]:
    async with SQLiteSessionService(path, session_event_limit=None) as service:
        session = await service.get_session(KEY)
        assert session is not None
        return [event.seq for event in session.events]
