"""Imports that are stopped, repeated, or meet what is there already."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest

from agentsession import Event, InMemorySessionService, SessionKey, SessionService, UserKey
from agentsession.blocking import BlockingSessionService
from agentsession.errors import CallNotOpenError
from agentsession.events import ToolCall, ToolResult
from agentsession.testing import MemorySubject, Subject
from agentsession.testing._checks.asserting import say, swapped
from agentsession.transfer import (
    FormatError,
    ImportReport,
    LineError,
    SessionConflictError,
    export_lines,
    export_to,
    import_from,
    import_lines,
)
from agentsession.transfer.importers import import_openai_chat
from transfer.worlds import APP, World, exported, imported, seen

KEY = SessionKey(APP, "u", "s")
# Of those of a backend.
WRITES = ("create", "append", "note_past", "acquire", "update_app_state", "update_user_state")


async def a_world(seed: int = 3, **options: Any) -> bytes:
    """Export an application with all that there can be."""
    async with MemorySubject() as subject:
        world = World(subject, seed, **options)
        await world.make()
        return await exported(world.service)


async def a_session(*events: Event, state: dict[str, Any] | None = None) -> bytes:
    """Export a session."""
    async with InMemorySessionService() as service:
        await service.create_session(KEY, state)
        for event in events:
            await service.append_event(KEY, event)
        return await exported(service, KEY)


async def test_a_second_run_adds_nothing(subject: Subject) -> None:
    """All of it is found there, and nothing is written."""
    data, service = await a_world(), subject.service(event_limit=None)
    first = await imported(service, data)
    await subject.advance(1)
    page = await service.list_sessions(APP, limit=100)
    second = await imported(service, data)
    assert (second.sessions, second.events, second.problems) == (0, 0, [])
    assert (second.found, second.found_events) == (first.sessions, first.events)
    assert await exported(service) == data
    assert await service.list_sessions(APP, limit=100) == page


async def test_one_that_was_stopped_at_any_line_is_gone_on_with(subject: Subject) -> None:
    """Whatever the last line was, the next run makes what one run would have made."""
    data = await a_world()
    lines = data.splitlines(keepends=True)
    for stop in range(1, len(lines)):
        service = subject.service(event_limit=None)
        for user in (await service.list_users(APP)).users:
            await service.delete_user(user)
        with pytest.raises(LineError, match="complete"):
            await imported(service, b"".join(lines[:stop]))
        report = await imported(service, data)
        assert report.problems == []
        await subject.advance(1)
        assert await exported(service) == data


class StoppedError(Exception):
    """What stands for the end of the process."""


def stopping(call: Any, number: int, reply: str) -> tuple[Any, list[None]]:
    """Wrap a method that ends the process in one of its calls; count the calls."""
    calls: list[None] = []

    async def stopped(*args: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) != number:
            return await call(*args, **options)
        if reply == "lost":
            await call(*args, **options)
        raise StoppedError

    return stopped, calls


# In them, turns were left in every way.
@pytest.mark.parametrize("seed", [11, 24])
@pytest.mark.parametrize("reply", ["lost", "never sent"])
@pytest.mark.parametrize("write", WRITES)
async def test_one_that_was_stopped_in_any_call_is_gone_on_with(
    subject: Subject, write: str, reply: str, seed: int
) -> None:
    """Before the call was carried out, and after it, whichever call it was."""
    data = await a_world(seed)
    for number in range(1, 200):
        service = subject.service(event_limit=None)
        await _erase(service)
        stopped, calls = stopping(getattr(service.backend, write), number, reply)
        with swapped(service.backend, write, stopped):
            try:
                await imported(service, data)
            except StoppedError:
                pass
            else:
                assert calls, f"{write} was never called"
                return
        await subject.advance(1)  # Until nobody holds a turn any more that is told of.
        assert (await imported(service, data)).problems == []
        await subject.advance(1)
        assert await exported(service) == data
    pytest.fail("there were more calls than were stopped")


async def _erase(service: SessionService) -> None:
    for user in (await service.list_users(APP)).users:
        await service.delete_user(user)
    for name in await service.get_app_state(APP):
        await service.delete_app_state(APP, name)


async def test_a_grown_session_is_gone_on_with(subject: Subject) -> None:
    """What is there is the beginning of what is imported, so the rest is added."""
    service = subject.service()
    async with InMemorySessionService() as origin:
        await origin.create_session(KEY, {"a": 1})
        await origin.append_events(KEY, [say("1"), say("2")])
        await imported(service, await exported(origin, KEY))
        await origin.append_event(KEY, say("3"))
        data = await exported(origin, KEY)
    report = await imported(service, data)
    assert (report.sessions, report.events, report.found_events) == (1, 1, 2)
    assert await exported(service, KEY) == data


async def test_a_grown_session_may_have_gone_back(subject: Subject) -> None:
    """Its state is that of the line, whatever the rewinds in it did to state elsewhere."""
    service = subject.service(event_limit=None)
    async with InMemorySessionService() as origin:
        await origin.create_session(KEY)
        await origin.append_event(KEY, say("1", {"a": 1}))
        await imported(service, await exported(origin, KEY))
        await origin.rewind(KEY, to_seq=0)
        await origin.append_event(KEY, say("3", {"a": 1}))
        data = await exported(origin, KEY)
    await imported(service, data)
    assert await exported(service, KEY) == data


async def test_a_session_that_went_on_here_stays(subject: Subject) -> None:
    """Who imports an older export again loses nothing that was written since."""
    service = subject.service()
    data = await a_session(say("1", {"a": 1}))
    await imported(service, data)
    await service.append_event(KEY, say("2", {"a": 2}))
    await service.update_session_state(KEY, {"b": 3})
    before = await exported(service, KEY)
    report = await imported(service, data)
    assert (report.found, report.sessions, report.problems) == (1, 0, [])
    assert await exported(service, KEY) == before


async def test_state_that_was_changed_here_stays(subject: Subject) -> None:
    """Also where no event was added."""
    service = subject.service()
    data = await a_session(say("1", {"a": 1}))
    await imported(service, data)
    await service.update_session_state(KEY, {"a": 2})
    await imported(service, data)
    session = await service.get_session(KEY)
    assert session is not None
    assert session.state == {"a": 2}
    assert (await service.rewind(KEY, to_seq=1)).state == {"a": 1}


async def test_what_was_taken_back_here_stays_so(subject: Subject) -> None:
    """Also what state was then: an import again puts nothing of it back."""
    service = subject.service()
    data = await a_session(*(say(str(n), {"a": n, f"a{n}": n}) for n in (1, 2, 3)))
    await imported(service, data)
    await service.rewind(KEY, to_seq=1)
    before = await exported(service, KEY)
    assert (await imported(service, data)).found == 1
    assert await exported(service, KEY) == before


async def test_a_turn_that_was_ended_here_stays_so(subject: Subject) -> None:
    """One that waited, and went on since."""
    service = subject.service()
    async with InMemorySessionService() as origin:
        await origin.create_session(KEY)
        async with origin.lease(KEY, run_id="turn") as lease:
            calls = Event(author="agent", content=[ToolCall("c", "ask")], outcome="waiting")
            await origin.append_event(KEY, calls, lease=lease)
        data = await exported(origin, KEY)
    await imported(service, data)
    lease = service.lease(KEY)
    await service.resume_turn(lease, [ToolResult("c", "yes")])
    done = Event(author="agent", content="Done.", outcome="completed")
    await service.append_event(KEY, done, lease=lease)
    before = await exported(service, KEY)
    assert (await imported(service, data)).found == 1
    assert await exported(service, KEY) == before
    with pytest.raises(CallNotOpenError):
        await service.resume_turn(service.lease(KEY), [ToolResult("c", "again")])


@pytest.mark.parametrize("existing", ["continue", "refuse"])
async def test_another_session_is_a_conflict(subject: Subject, existing: Any) -> None:
    """It has the id, and nothing else: the two are not mixed."""
    service = subject.service()
    await service.create_session(KEY, {"other": 1})
    await service.append_event(KEY, say("other"))
    before = await exported(service, KEY)
    with pytest.raises(SessionConflictError, match="session 's'") as raised:
        await imported(service, await a_session(say("1")), existing=existing)
    assert raised.value.key == KEY
    assert "line 2" in raised.value.__notes__[0]
    assert await exported(service, KEY) == before


async def test_an_older_copy_with_another_state_is_a_conflict(subject: Subject) -> None:
    """What its state would have to become can be known from no line."""
    service = subject.service()
    async with InMemorySessionService() as origin:
        await origin.create_session(KEY)
        await origin.append_event(KEY, say("1", {"a": 1}))
        await imported(service, await exported(origin, KEY))
        await origin.append_event(KEY, say("2", {"a": 2}))
        data = await exported(origin, KEY)
    before = await exported(service, KEY)
    with pytest.raises(SessionConflictError, match="older copy"):
        await imported(service, data)
    assert await exported(service, KEY) == before
    assert (await imported(service, data, existing="replace")).sessions == 1
    assert await exported(service, KEY) == data


async def test_a_copy_that_ends_before_the_other_begins_is_a_conflict(subject: Subject) -> None:
    """The events between the two are nowhere any more."""
    service = subject.service()
    async with InMemorySessionService(session_event_limit=2) as origin:
        await origin.create_session(KEY)
        await origin.append_event(KEY, say("1"))
        await imported(service, await exported(origin, KEY))
        for n in range(2, 6):
            await origin.append_event(KEY, say(str(n)))
        data = await exported(origin, KEY)
    with pytest.raises(SessionConflictError, match="it ends with event 1, and this one begins"):
        await imported(service, data)


async def test_an_older_copy_that_was_taken_back_since_is_a_conflict(subject: Subject) -> None:
    """The limit has trimmed what the log went back to, so nobody can go back to it here."""
    service = subject.service()
    async with InMemorySessionService(session_event_limit=3) as origin:
        await origin.create_session(KEY)
        for n in range(1, 6):
            await origin.append_event(KEY, say(str(n)))
        await imported(service, await exported(origin, KEY))
        await origin.append_event(KEY, say("6"))
        await origin.rewind(KEY, to_seq=0, restore_state=False)
        data = await exported(origin, KEY)
    assert b'"taken_to":7' in data
    before = await exported(service, KEY)
    with pytest.raises(SessionConflictError, match="was taken back since, by event 7"):
        await imported(service, data)
    assert await exported(service, KEY) == before


async def test_logs_that_part_are_a_conflict(subject: Subject) -> None:
    """Two copies of one session that went on apart; nothing is added to this one."""
    service = subject.service()
    async with InMemorySessionService() as origin:
        await origin.create_session(KEY)
        await origin.append_event(KEY, say("1"))
        await imported(service, await exported(origin, KEY))
        await service.append_event(KEY, say("here"))
        await origin.append_events(KEY, [say("there"), say("and more")])
        data = await exported(origin, KEY)
    before = await exported(service, KEY)
    with pytest.raises(SessionConflictError, match="its event 2 is another one"):
        await imported(service, data)
    assert await exported(service, KEY) == before


@pytest.mark.parametrize(("existing", "words"), [("skip", "other"), ("replace", "1")])
async def test_another_session_is_left_or_replaced(
    subject: Subject, existing: Any, words: str
) -> None:
    """As is asked for."""
    service = subject.service()
    await service.create_session(KEY)
    await service.append_event(KEY, say("other"))
    report = await imported(service, await a_session(say("1")), existing=existing)
    assert (report.found, report.sessions) == ((1, 0) if existing == "skip" else (0, 1))
    assert report.problems == []
    assert [event.text for event in await service.get_events(KEY)] == [words]


@pytest.mark.parametrize("limit", [None, 3])
async def test_a_call_whose_answer_was_lost_is_no_repeat(
    subject: Subject, limit: int | None
) -> None:
    """The store makes it again by itself, and finds what the first one has stored."""
    data = await (a_session(*(say(str(n)) for n in range(7))) if limit else a_world())
    service = subject.service(event_limit=limit)
    append = service.backend.append

    async def twice(*arguments: Any, **options: Any) -> Any:
        await append(*arguments, **options)
        return await append(*arguments, **options)

    with swapped(service.backend, "append", twice):
        report = await imported(service, data)
    assert report.problems == []
    if limit:
        assert [event.text for event in await service.get_events(KEY)] == ["4", "5", "6"]
        return
    await subject.advance(1)
    assert await exported(service) == data


@pytest.mark.parametrize("existing", ["continue", "skip", "replace", "refuse"])
async def test_sessions_of_two_users_with_one_id_do_not_become_one(
    subject: Subject, existing: Any
) -> None:
    """Not for one who takes both: the second one is a conflict, and the first one stays."""
    async with InMemorySessionService() as origin:
        for user_id in ("u", "v"):
            key = SessionKey(APP, user_id, "s")
            await origin.create_session(key)
            await origin.append_event(key, say(user_id))
        data = await exported(origin)
    service = subject.service()
    for run in range(2):
        options = {"to_user": "w", "existing": existing, "keep_going": True}
        report = await imported(service, data, **options)
        assert report.problem_count == (2 if run and existing == "refuse" else 1)
        events = await service.get_events(SessionKey(APP, "w", "s"))
        assert [event.text for event in events] == ["u"]


async def test_nobody_writes_between_two_pieces(subject: Subject) -> None:
    """A session that somebody writes to while it is imported is a conflict, and says so."""
    service = subject.service(event_limit=None)
    data = await a_session(*(say(str(n)) for n in range(3)), say("4"))
    lines = data.splitlines()

    async def disturbed() -> AsyncIterator[bytes]:
        for number, line in enumerate(lines):
            if number == 4:
                await service.append_event(KEY, say("disturbs"))
            yield line

    with pytest.raises(SessionConflictError, match="somebody else writes"):
        await import_lines(service, disturbed())


async def test_a_conversation_is_given_to_others(subject: Subject) -> None:
    """One session, to another user of another application; turn, past and positions with it."""
    world = World(subject, 5)
    await world.make()
    data = await exported(world.service, world.keys[0])
    await imported(world.service, data, to_app="other", to_user="friend")
    await subject.advance(1)
    key = SessionKey("other", "friend", world.keys[0].session_id)
    given, kept = [_own(await seen(subject, world.service, each)) for each in (key, world.keys[0])]
    assert given == kept
    assert await world.service.get_app_state("other") == {}
    assert await world.service.get_user_state(key.user) == {}


def _own(shown: Any) -> Any:
    """Leave out the state that belongs to others."""
    if not isinstance(shown, dict):
        return shown
    return {
        name: _own(value)
        for name, value in shown.items()
        if not str(name).startswith(("app", "user"))
    }


async def test_state_that_is_there_is_left_and_named(subject: Subject) -> None:
    """Values of user and application: what is missing is added, what differs is named."""
    async with InMemorySessionService() as origin:
        await origin.update_app_state(APP, {"same": b"\0", "differs": 1, "new": [2]})
        await origin.update_user_state(KEY.user, {"differs": None})
        await origin.create_session(KEY)
        data = await exported(origin)
    service = subject.service()
    await service.update_app_state(APP, {"same": b"\0", "differs": 2, "own": 3})
    await service.update_user_state(UserKey(APP, "u"), {"differs": 4})
    report = await imported(service, data)
    assert await service.get_app_state(APP) == {"same": b"\0", "differs": 2, "own": 3, "new": [2]}
    assert await service.get_user_state(KEY.user) == {"differs": 4}
    assert (report.kept, report.problem_count) == (2, 2)
    assert "'differs'" in str(report.problems[0])
    assert f"app {APP!r}" in str(report.problems[0])


async def test_what_is_over_the_limit_is_counted(subject: Subject) -> None:
    """The limit of the service holds, and no event is lost in silence."""
    service = subject.service(event_limit=3)
    data = await a_session(*(say(str(n)) for n in range(10)))
    report = await imported(service, data)
    assert (report.events, report.trimmed) == (10, 7)
    assert [event.text for event in await service.get_events(KEY)] == ["7", "8", "9"]
    assert (await imported(service, data)).found == 1


@pytest.mark.parametrize("restores", [True, False])
@pytest.mark.parametrize("to_seq", [0, 2])
async def test_a_rewind_to_what_is_over_the_limit_takes_back_what_is_held(
    subject: Subject, to_seq: int, *, restores: bool
) -> None:
    """What was taken back there is not seen here, and what came after it is, state and all."""
    async with InMemorySessionService(session_event_limit=None) as origin:
        await origin.create_session(KEY, {"n": 0})
        for n in range(1, 9):
            await origin.append_event(KEY, say(str(n), {"n": n}))
        await origin.rewind(KEY, to_seq=to_seq, restore_state=restores)
        await origin.append_events(KEY, [say("a", {"a": 1}), say("b", {"n": "b"})])
        data = await exported(origin, KEY)
        expected = (await origin.rewind(KEY, to_seq=10)).state
    service = subject.service(event_limit=4)
    report = await imported(service, data)
    assert (report.events, report.trimmed, report.problems) == (11, 7, [])
    session = await service.get_session(KEY)
    assert session is not None
    assert [event.text for event in session.events] == ["a", "b"]
    assert session.state == {**expected, "n": "b"}
    assert session.first_seq == (1 if to_seq else 10)
    before = await exported(service, KEY)
    assert (await imported(service, data)).found == 1
    assert await exported(service, KEY) == before
    assert (await service.rewind(KEY, to_seq=10)).state == expected


@pytest.mark.parametrize("limit", [1, 6])
@pytest.mark.parametrize("seed", range(4))
async def test_any_log_is_imported_into_a_smaller_limit(
    subject: Subject, seed: int, limit: int
) -> None:
    """Of what is held the same is seen as elsewhere, and state is the same at each event of it.

    Also by an import that was stopped at any line.
    """
    async with MemorySubject() as other:
        world = World(other, seed)
        await world.make(sessions=1, steps=30)
        data, key = await exported(world.service), world.keys[0]
        there = await seen(other, world.service, key)
    lines = data.splitlines(keepends=True)
    service = subject.service(event_limit=limit)
    for stop in (len(lines), *range(2, len(lines), 11)):
        await _erase(service)
        if stop < len(lines):
            with pytest.raises(LineError, match="complete"):
                await imported(service, b"".join(lines[:stop]))
        report = await imported(service, data)
        assert report.problems == []
        await subject.advance(1)
        here = await seen(subject, service, key)
        oldest = here["raw"][0].seq if here["raw"] else here["last_seq"] + 1
        assert oldest > here["last_seq"] - limit
        for name in ("events", "raw"):
            assert here[name] == [event for event in there[name] if event.seq >= oldest]
        for name in ("state", "created", "first_seq", "last_seq"):
            assert here[name] == there[name]
        states = {seq: state for seq, state in here["states"].items() if seq}
        assert states.items() <= there["states"].items()


class Watched(io.BytesIO):
    """A file that knows who reads it."""

    threads: set[int]

    def read(self, size: int | None = -1, /) -> bytes:
        self.threads.add(threading.get_ident())
        return super().read(size)

    def write(self, data: Any, /) -> int:
        self.threads.add(threading.get_ident())
        return super().write(data)


async def test_files_are_read_and_written_in_threads() -> None:
    """A slow disk holds up no other task."""
    Watched.threads = set()
    async with InMemorySessionService() as service:
        await service.create_session(KEY)
        file = Watched()
        await export_to(service, KEY, file)
        file.seek(0)
        await import_from(service, file)
    assert Watched.threads
    assert threading.get_ident() not in Watched.threads


async def test_another_word_for_existing_is_refused() -> None:
    """Rather than taken for one of them."""
    async with InMemorySessionService() as service:
        with pytest.raises(ValueError, match="'keep'"):
            await imported(service, await a_world(), existing="keep")
        with pytest.raises(LineError, match="user_id must not be empty"):
            await imported(service, await a_world(), to_user="")


async def test_lines_may_come_from_anywhere(subject: Subject) -> None:
    """From a program, with or without their ends; those that are empty are left out."""

    async def lines() -> AsyncIterator[bytes]:
        for line in (await a_session(say("1"))).splitlines(keepends=True):
            yield line

    service = subject.service()
    assert (await import_lines(service, lines())).sessions == 1
    data = (await a_session(say("1"))).replace(b"\n", b"\r\n\n")
    assert (await imported(service, data, existing="replace")).sessions == 1


async def test_progress_is_told() -> None:
    """After each session, with the counts so far."""
    told: list[int] = []

    def note(report: ImportReport) -> None:
        told.append(report.sessions)

    async with InMemorySessionService() as service:
        await imported(service, await a_world(), on_progress=note)
    assert told == [1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"no JSON\n", "first line"),
        (b'{"kind":"session"}\n', "first line"),
        (b'{"format":"other","version":1}\n', "'other'"),
        (b'{"format":"agentsession","version":2}\n', "version 2"),
    ],
)
async def test_what_is_no_export_is_refused(data: bytes, match: str) -> None:
    """Also to keep going, since nothing of it can be meant."""
    async with InMemorySessionService() as service:
        with pytest.raises(FormatError, match=match):
            await imported(service, data, keep_going=True)


def test_what_cannot_be_transferred_says_what_to_pass(tmp_path: Path) -> None:
    """A service of another kind, a path, a file for text, or lines that are none."""
    path = tmp_path / "file"
    path.touch()
    blocking = BlockingSessionService(InMemorySessionService())
    file = io.BytesIO()

    def refused(function: Any, *arguments: Any, **options: Any) -> str:
        with pytest.raises(TypeError) as raised:
            asyncio.run(function(*arguments, **options))
        return str(raised.value)

    async def lines(service: Any) -> None:
        async for _ in export_lines(service, APP):
            pytest.fail("there is nothing to export")

    for function, arguments in (
        (export_to, (APP, file)),
        (import_from, (file,)),
        (import_openai_chat, (file,)),
        (lines, ()),
    ):
        options = {"to": KEY.user} if function is import_openai_chat else {}
        assert "write service.call(" in refused(function, blocking, *arguments, **options)
        told = refused(function, blocking.any_loop, *arguments, **options)
        assert "write await service.call(" in told
        told = refused(function, "redis://:secret@localhost", *arguments, **options)
        assert "makes one, not str" in told
        assert "secret" not in told
    service = InMemorySessionService()
    with path.open(encoding="utf-8") as text, NamedTemporaryFile("w") as temporary:
        for wrong, what in (
            (str(path), repr(str(path))[:20]),
            (path, "PosixPath"),
            (text, "open for text"),
            (io.StringIO(), "open for text"),
            (temporary, "open for text"),
        ):
            told = refused(export_to, service, APP, wrong)
            assert "open(path, 'wb')" in told
            assert what in told
            assert "'r+b'" in refused(export_to, service, APP, wrong, resume=True)
            assert "'rb'" in refused(import_from, service, wrong)
            assert "'rb'" in refused(import_openai_chat, service, wrong, to=KEY.user)
    assert "import_from takes a file" in refused(import_lines, service, file)
    # As the errors say.
    with blocking:
        assert blocking.call(export_to, APP, file).problems == []
        file.seek(0)
        assert blocking.call(import_from, file).problems == []
