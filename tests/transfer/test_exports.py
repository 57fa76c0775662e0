"""What an export holds while others write, and of what cannot be read."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentsession import InMemorySessionService, SessionKey, SessionService, UserKey
from agentsession.backend import Entry, EventSlice
from agentsession.errors import ClosedError, CodecError, SessionNotFoundError
from agentsession.events import UNREADABLE
from agentsession.state import Changes
from agentsession.testing import Subject
from agentsession.testing._checks.asserting import say, swapped
from agentsession.transfer import ExportReport, FormatError, export_lines, export_to
from transfer.worlds import APP, World, exported, exported_with_report, imported

KEY = SessionKey(APP, "u", "s")
OTHER = SessionKey(APP, "u", "other")


def records(data: bytes, kind: str) -> list[dict[str, Any]]:
    """Return the records of a kind."""
    return [each for line in data.splitlines() if (each := json.loads(line)).get("kind") == kind]


async def test_a_scope_is_exported_and_nothing_else(subject: Subject) -> None:
    """An application with its users, a user with the sessions, a session alone."""
    service = subject.service()
    await service.update_app_state(APP, {"a": 1})
    await service.update_app_state("another", {"a": 1})
    for user in ("u", "v"):
        for name in ("s", "t"):
            await service.create_session(SessionKey(APP, user, name), {"user:b": 2})
    await service.update_user_state(UserKey(APP, "w"), {"only": "state"})
    await service.create_session(SessionKey("another", "u", "s"))
    found = {
        str(scope): [
            [each.get("user_id"), each.get("session_id")]
            for kind in ("app", "user", "session")
            for each in records(await exported(service, scope), kind)
        ]
        for scope in (APP, UserKey(APP, "u"), KEY)
    }
    assert list(found.values()) == [
        [
            *([None, None], ["u", None], ["v", None], ["w", None]),
            *(["u", "s"], ["u", "t"], ["v", "s"], ["v", "t"]),
        ],
        [["u", None], ["u", "s"], ["u", "t"]],
        [["u", "s"]],
    ]


async def test_what_is_not_there_is_told(subject: Subject) -> None:
    """A session by an error; users and applications may well have none."""
    service = subject.service()
    with pytest.raises(SessionNotFoundError):
        await exported(service, KEY)
    for scope in (APP, KEY.user):
        assert (await exported(service, scope)).count(b"\n") == 2
    report = await imported(service, await exported(service))
    assert (report.sessions, report.lines) == (0, 2)


async def test_the_last_activity_orders_sessions(subject: Subject) -> None:
    """Those that were written to longest ago come first, so they do after an import too."""
    service = subject.service(event_limit=None)
    keys = [SessionKey(APP, "u", f"s{n}") for n in (2, 0, 3, 1)]
    for key in (*keys, *keys[::-1]):
        await service.get_or_create_session(key)
        await service.append_event(key, say(""))
    data = await exported(service)
    order = [each["session_id"] for each in records(data, "session")]
    assert order == [key.session_id for key in keys[::-1]]
    await service.delete_user(KEY.user)
    await imported(service, data)
    page = await service.list_sessions(KEY.user)
    assert [each.id for each in page.sessions] == order[::-1]


async def test_no_session_is_missed_that_becomes_active(subject: Subject) -> None:
    """One that moves to the front of the list, while it is read, is found there."""
    service = subject.service()
    keys = [SessionKey(APP, "u", f"s{n}") for n in range(250)]
    for key in keys:
        await service.create_session(key)
    pages = 0

    async def list_sessions(*args: Any, _list: Any = service.backend.list_sessions) -> Any:
        nonlocal pages
        page = await _list(*args)
        pages += 1
        if pages in (1, 3, 5):  # The oldest one is on no page that was read yet.
            await service.append_event(keys[pages], say("busy"))
        return page

    with swapped(service.backend, "list_sessions", list_sessions):
        data = await exported(service)
    assert {each["session_id"] for each in records(data, "session")} == {
        key.session_id for key in keys
    }


async def test_each_session_is_of_one_moment(subject: Subject) -> None:
    """State, log, what state was and the newest event agree, whoever writes meanwhile."""
    service = subject.service(event_limit=None)
    await service.create_session(KEY, {"n": 0})
    stop = asyncio.Event()

    async def write() -> None:
        """Keep the state one with the number of the newest event."""
        number = 0
        while not stop.is_set():
            number += 1
            await service.append_event(KEY, say(str(number), {"n": number}))
            if number % 7 == 0:
                await service.rewind(KEY, to_seq=(await service.get_events(KEY))[-3].seq)
            await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        exports = [await exported(service, KEY) for _ in range(30)]
        stop.set()
    for data in exports:
        await service.delete_session(OTHER)
        async with InMemorySessionService(session_event_limit=None) as copies:
            await imported(copies, data)
            session = await copies.get_session(KEY)
            assert session is not None
            while session.events:
                assert session.state == {"n": int(session.events[-1].text)}
                before = session.events[-2].seq if session.events[1:] else 0
                session = await copies.rewind(KEY, to_seq=before)
            assert session.state == {"n": 0}


@asynccontextmanager
async def interrupted(service: SessionService, then: Any) -> AsyncIterator[None]:
    """Do something before the first page of a log is read."""
    done = False

    async def read(*args: Any, _read: Any = service.backend.read, **options: Any) -> EventSlice:
        nonlocal done
        if options.get("raw") and not done:
            done = True
            await then()
        found: EventSlice = await _read(*args, **options)
        return found

    with swapped(service.backend, "read", read):
        yield
    assert done


@pytest.mark.parametrize("appended", [3, 7])
async def test_a_session_that_is_trimmed_meanwhile_is_cut(subject: Subject, appended: int) -> None:
    """The file says so, and so does the report; an import does not take it for whole."""
    service = subject.service(event_limit=5)
    await service.create_session(KEY)
    await service.append_events(KEY, [say(str(n)) for n in range(5)])

    async def trim() -> None:
        await service.append_events(KEY, [say(str(n)) for n in range(appended)])

    async with interrupted(service, trim):
        data, report = await exported_with_report(service)
    assert (report.sessions, report.problem_count) == (0, 1)
    assert "event 1 was trimmed" in str(report.problems[0])
    (cut,) = records(data, "cut")
    assert "trimmed" in cut["reason"]
    await service.delete_session(KEY)
    taken = await imported(service, data, keep_going=True)
    assert (taken.sessions, taken.problem_count) == (0, 1)
    assert "not all of it was exported" in taken.problems[0].reason


async def test_a_session_that_is_deleted_meanwhile_is_cut(subject: Subject) -> None:
    """Another one with its id is not taken for it."""
    service = subject.service()
    await service.create_session(KEY)
    await service.append_event(KEY, say("1"))

    async def remake() -> None:
        await service.delete_session(KEY)
        await service.create_session(KEY)
        await service.append_event(KEY, say("another"))

    async with interrupted(service, remake):
        data, report = await exported_with_report(service)
    assert b"another" not in data
    assert "deleted" in str(report.problems[0])


async def test_one_that_is_written_to_all_the_time_is_left_out(subject: Subject) -> None:
    """After many tries, and by name."""
    service = subject.service()
    await service.create_session(KEY)

    async def read_past(*args: Any, _read: Any = service.backend.read_past, **options: Any) -> Any:
        await service.update_session_state(KEY, {"n": 1})
        return await _read(*args, **options)

    with swapped(service.backend, "read_past", read_past):
        data, report = await exported_with_report(service)
    assert records(data, "session") == []
    assert "written to each time" in str(report.problems[0])


NEWER = b'{"v":9,"id":"new","timestamp":"2026-01-01T00:00:00Z","author":"me","more":1}'
DAMAGED = b'\x00not "an event\n'


async def test_what_cannot_be_read_is_carried_over_as_it_is(subject: Subject) -> None:
    """Events of a newer format and damaged ones: named, counted, and the same bytes there."""
    service = subject.service()
    await service.create_session(KEY)
    await service.append_event(KEY, say("1"))
    entries = [Entry("new", 1, NEWER), Entry("unreadable-3", 1, DAMAGED)]
    await service.backend.append(KEY, entries)
    await service.append_event(KEY, say("4"))
    data, report = await exported_with_report(service)
    assert (report.unreadable, report.events, report.sessions) == (2, 4, 1)
    assert [each.reason.split(":")[0] for each in report.problems] == ["event 2", "event 3"]
    before = await service.get_events(KEY)
    await service.delete_session(KEY)
    taken = await imported(service, data)
    assert (taken.unreadable, taken.events, taken.problem_count) == (2, 4, 2)
    assert taken.problems[0].line == 4
    after = await service.get_events(KEY)
    assert after == before
    assert [each.id for each in after if each.error and each.error.type == UNREADABLE] == [
        "new",
        "unreadable-3",
    ]
    assert await exported(service) == data
    assert (await imported(service, data)).found == 1


async def test_an_event_may_have_been_written_on_several_lines(subject: Subject) -> None:
    """By a program of somebody's: it stays on one line of the file, and as it is."""
    service = subject.service()
    await service.create_session(KEY)
    payload = b'{"v":1,"id":"new","timestamp":"2026-01-01T00:00:00Z","author":"me",\n"content":"x"}'
    await service.backend.append(KEY, [Entry("new", 1, payload)])
    data, report = await exported_with_report(service)
    assert report.problems == []
    async with InMemorySessionService() as there:
        assert (await imported(there, data)).problems == []
        assert [event.text for event in await there.get_events(KEY)] == ["x"]
        assert await exported(there) == data


async def test_what_nobody_can_go_back_to_is_left_out(subject: Subject) -> None:
    """A store forgets it when it comes to that."""
    service = subject.service(event_limit=3)
    await service.create_session(KEY)
    for n in range(10):
        await service.append_event(KEY, say(str(n), {"n": n}))
    data = await exported(service)
    assert [each["at"] for each in records(data, "before")] == [9.0, 10.0]


async def test_state_that_cannot_be_read_is_carried_over(subject: Subject) -> None:
    """In all scopes, and of what was before."""
    service = subject.service()
    await service.create_session(KEY, {"s": 1})
    wrong = {"wrong": b"no JSON"}
    await service.backend.update_app_state(APP, {**wrong})
    await service.backend.update_user_state(KEY.user, {**wrong})
    await service.backend.update_state(KEY, Changes(session={**wrong}))
    await service.append_event(KEY, say("", {"wrong": 1}))
    data, report = await exported_with_report(service)
    assert report.unreadable == 3
    assert "'wrong'" in str(report.problems[0])
    assert data.count(b'"wrong":{"$raw":"') == 3
    async with InMemorySessionService() as there:
        await imported(there, data)
        assert await exported(there) == data


async def test_a_damaged_session_is_left_out(subject: Subject) -> None:
    """By name, and once; the others of its user are there."""
    service = subject.service()
    await service.create_session(KEY)
    await service.create_session(OTHER)
    await service.append_event(KEY, say("1"))
    backend = service.backend

    async def get(key: SessionKey, *args: Any, _get: Any = backend.get) -> Any:
        if key == OTHER:
            raise CodecError(key, "damaged")
        return await _get(key, *args)

    with swapped(backend, "get", get):
        data, report = await exported_with_report(service)
        _, alone = await exported_with_report(service, OTHER)
    assert [each["session_id"] for each in records(data, "session")] == ["s"]
    problem = [(OTHER, "left out: damaged")]
    assert [(each.subject, each.reason) for each in report.problems] == problem
    assert [(each.subject, each.reason) for each in alone.problems] == problem


async def test_large_events_are_read_a_few_at_a_time(subject: Subject) -> None:
    """However large a log is, some megabytes of it are in memory."""
    service = subject.service(event_limit=None)
    await service.create_session(KEY)
    for n in range(40):
        await service.append_event(KEY, say("x" * (1000 if n % 2 else 900_000)))
    sizes: list[int] = []

    async def read(*args: Any, _read: Any = service.backend.read, **options: Any) -> EventSlice:
        found: EventSlice = await _read(*args, **options)
        sizes.append(sum(map(len, found.events)))
        return found

    with swapped(service.backend, "read", read):
        data = await exported(service)
    assert len(sizes) > 4
    assert max(sizes) < 6_000_000
    async with InMemorySessionService(session_event_limit=None) as there:
        await imported(there, data)
        assert await exported(there) == data


async def test_an_export_is_gone_on_with(subject: Subject) -> None:
    """Wherever it was stopped, in the middle of a line too, the rest makes the same file."""
    world = World(subject, 11)
    await world.make()
    data = await exported(world.service)
    for stop in [*range(0, len(data), 97), len(data)]:
        file = io.BytesIO(data[:stop])
        report = await export_to(world.service, APP, file, resume=True)
        assert file.getvalue() == data
        assert report.skipped + report.sessions == len(world.keys)


async def test_only_an_export_is_gone_on_with(subject: Subject) -> None:
    """Another file is left as it is."""
    ours = (await exported(subject.service(), KEY.user)).splitlines(keepends=True)[0]
    unended = b'{"a": "file that ends without a newline"}'
    for wrong, match in (
        (b"other\n", "line 1"),
        (ours + b"?\n", "line 2"),
        (unended, "no export to go on with"),
    ):
        file = io.BytesIO(wrong)
        with pytest.raises(FormatError, match=match):
            await export_to(subject.service(), APP, file, resume=True)
        assert file.getvalue() == wrong


async def test_pieces_are_whole_lines(subject: Subject) -> None:
    """For a program that sends them on; counts are there meanwhile."""
    world = World(subject, 2)
    await world.make()
    report = ExportReport()
    pieces = [piece async for piece in export_lines(world.service, APP, report)]
    assert all(piece.endswith(b"\n") for piece in pieces if piece)
    assert b"".join(pieces) == await exported(world.service)
    assert report.sessions == len(world.keys)


async def test_a_service_that_is_closed_is_refused(subject: Subject) -> None:
    """Before anything is read or written."""
    service = subject.service()
    await service.create_session(KEY)
    data = await exported(service)
    await service.aclose()
    for scope in (APP, KEY.user, KEY):
        with pytest.raises(ClosedError):
            await exported(service, scope)
    with pytest.raises(ClosedError):
        await imported(service, data)
