"""Several processes, and several services, that want to write to one file at once."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from agentsession import Event, SessionKey
from agentsession.errors import BackendUnavailableError
from agentsession.sqlite import SQLiteSessionService
from sqlite.programs.kills import SESSIONS, TASKS
from sqlite.programs.processes import Program, running

KEY = SessionKey("app", "user", "session")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


async def fill(path: Path) -> None:
    async with SQLiteSessionService(path) as service:
        await service.create_session(KEY)
        await service.append_event(KEY, Event(author="before"))


@pytest.mark.parametrize("how", ["transaction", "gate", "frozen"])
@pytest.mark.parametrize("is_open", [True, False])
async def test_a_process_that_does_not_let_go(how: str, is_open: bool, path: Path) -> None:
    """Writes fail in time and name the process; reads go on; in the end writes do too."""
    await fill(path)
    async with SQLiteSessionService(path, timeout=0.3) as service:
        if is_open:
            await service.append_event(KEY, Event(author="here"))
        stored = 1 + is_open
        with running("holding", how, path) as program:
            assert await asyncio.to_thread(program.line) == "held"
            begin = time.monotonic()
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(refused(service)) for _ in range(20)]
            assert time.monotonic() - begin < 30
            for call in calls:
                assert f"process {program.pid}" in call.result()
                assert ("stopped" in call.result()) == (how == "frozen")
                assert "nothing was written" in call.result()
            if is_open:
                for _ in range(3):
                    assert len(await service.get_events(KEY)) == stored
            if how == "frozen":
                program.signal(signal.SIGCONT)
                lines = await asyncio.to_thread(program.end)
                assert lines == [f"{stored + 1}"]
                stored += 1
            else:
                program.tell()
                assert await asyncio.to_thread(program.end) == []
        event = await service.append_event(KEY, Event(author="after"))
        assert event.seq == stored + 1
        assert len(await service.get_events(KEY)) == stored + 1


async def refused(service: SQLiteSessionService) -> str:
    """Return with which words a write is refused."""
    with pytest.raises(BackendUnavailableError) as caught:
        await service.append_event(KEY, Event(author="refused"))
    return str(caught.value)


async def test_a_frozen_process_that_is_killed(path: Path) -> None:
    """What it was about to write is gone, and others write at once."""
    await fill(path)
    async with SQLiteSessionService(path, timeout=0.3) as service:
        with running("holding", "frozen", path) as program:
            assert await asyncio.to_thread(program.line) == "held"
            await refused(service)
            program.kill()
        assert (await service.append_event(KEY, Event(author="after"))).seq == 2


async def test_two_services_of_one_process(path: Path) -> None:
    """Each finds what the other has stored as soon as it was acknowledged, and waits its turn."""
    await fill(path)
    async with SQLiteSessionService(path) as one, SQLiteSessionService(path) as other:
        pair = [one, other]
        for seq in range(2, 102):
            assert (await pair[seq % 2].append_event(KEY, Event(author="a"))).seq == seq
            newest = await pair[1 - seq % 2].get_events(KEY, newest_first=True, limit=1)
            assert newest[0].seq == seq
        async with asyncio.TaskGroup() as group:
            for number in range(400):
                group.create_task(pair[number % 2].append_event(KEY, Event(author="a")))
        for each in pair:
            session = await each.get_session(KEY)
            assert session is not None
            assert [event.seq for event in session.events] == list(range(1, 502))


async def test_the_name_of_the_own_process_is_not_blamed_on_others(path: Path) -> None:
    """Where another service of this process has the lock, the error does not send one astray."""
    await fill(path)
    async with SQLiteSessionService(path, timeout=0.2) as service:
        await service.append_event(KEY, Event(author="a"))
        with running("holding", "transaction", path) as program:
            assert await asyncio.to_thread(program.line) == "held"
            service.backend._writer._gate._locked_by = lambda: None  # type: ignore[attr-defined]
            # As where the system does not tell.
            assert "another program" in await refused(service)


def test_processes_have_their_fair_share(path: Path) -> None:
    """None writes less than a quarter of what they write on average, or sees a locked file."""
    names = [f"w{n}" for n in range(4)]
    programs = [Program("appending", path, name, SESSIONS, TASKS, 6) for name in names]
    try:
        counts = [len(program.end()) - 1 for program in programs]
    finally:
        for program in programs:
            program.close()
    assert min(counts) >= sum(counts) / len(counts) / 4, counts
