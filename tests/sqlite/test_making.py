"""A file that many make at once: each finds it whole, or not there."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agentsession import Event, SessionKey
from agentsession.errors import BackendUnavailableError
from agentsession.sqlite import SQLiteSessionService
from agentsession.sqlite._file.gate import Gate
from agentsession.sqlite._file.opening import File
from sqlite.programs.processes import Program


def test_who_looks_while_its_tables_are_made(tmp_path: Path) -> None:
    """It is not there yet, or whole; never does it seem to be another program's."""
    for number in range(100):
        file = File(tmp_path / f"{number}.db", "NORMAL")
        with ThreadPoolExecutor(1) as pool:
            end = time.monotonic() + 10
            making = pool.submit(Gate(file.path).open, file, end, "the maker")
            while time.monotonic() < end:
                try:
                    reader = file.reader("the reader")
                except BackendUnavailableError:
                    continue
                break
            assert reader.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
            reader.close()
            making.result().close()


async def test_services_of_one_process_make_it(tmp_path: Path) -> None:
    """Those that read first too, which make it if nobody else does."""
    for round_ in range(5):
        services = [SQLiteSessionService(tmp_path / f"{round_}.db") for _ in range(5)]
        keys = [SessionKey("app", "user", f"s{number}") for number in range(10)]

        async def use(service: SQLiteSessionService, key: SessionKey) -> None:
            assert await service.get_user_state(key.user) == {}
            await service.get_or_create_session(key)
            await service.append_event(key, Event(author="a"))

        async with asyncio.TaskGroup() as group:
            for number, service in enumerate(services):
                for key in keys:
                    group.create_task(use(service, key))
                for _ in range(number):
                    await asyncio.sleep(0)
        for key in keys:
            found = await services[0].get_events(key)
            assert [event.seq for event in found] == [1, 2, 3, 4, 5]
        for service in services:
            await service.aclose()


def test_processes_make_it(tmp_path: Path) -> None:
    """None of those that begin at once sees a locked file, or another program's."""
    for round_ in range(2):
        path = tmp_path / f"{round_}.db"
        programs = [Program("appending", path, f"w{n}", 2, 2, 0.2) for n in range(5)]
        for program in programs:
            assert program.end()[0] == "ready"
            program.close()
