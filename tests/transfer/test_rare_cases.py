"""What is large, or happens in between: pages of everything, and others who come first."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession import Event, InMemorySessionService, SessionKey
from agentsession.backend import UnendedTurn
from agentsession.sessions import UnreadableSession
from agentsession.testing import Subject
from agentsession.testing._checks.asserting import say, swapped
from agentsession.transfer import FormatError, LineError, _exporting, _files, export_to
from transfer.worlds import APP, exported, exported_with_report, imported

KEY = SessionKey(APP, "u", "s")


async def test_there_may_be_much_of_everything(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users, names of state in every scope, and what state was; each in several pieces."""
    monkeypatch.setattr(_exporting, "_PAGE", 2)
    service = subject.service(event_limit=None)
    await service.update_app_state(APP, {f"n{n}": n for n in range(2500)})
    for user in range(5):
        await service.create_session(SessionKey(APP, f"u{user}", "s"))
    await service.create_session(KEY)
    for n in range(4):
        delta = {f"n{n}-{m}": "x" * 900 for m in range(700)}
        await service.append_event(KEY, say(str(n), delta))
    data = await exported(service)
    async with InMemorySessionService() as there:
        assert (await imported(there, data)).problems == []
        assert await exported(there) == data
        assert (await there.rewind(KEY, to_seq=1)).state.keys() >= {"n0-0"}
    await service.delete_user(KEY.user)
    await imported(service, data)
    assert await exported(service) == data


async def test_a_session_that_cannot_be_listed_is_named(subject: Subject) -> None:
    """Once, however often the list is read."""
    service = subject.service()
    await service.create_session(KEY)
    lost = UnreadableSession(key=SessionKey(APP, "u", "lost"), reason="newer")

    async def listed(*args: Any, _list: Any = service.backend.list_sessions) -> Any:
        page = await _list(*args)
        return type(page)(page.sessions, page.next, [lost])

    with swapped(service.backend, "list_sessions", listed):
        _, report = await exported_with_report(service)
    assert [(each.subject, each.reason) for each in report.problems] == [
        (lost.key, "left out: newer")
    ]


async def test_one_that_is_made_anew_meanwhile_is_exported(subject: Subject) -> None:
    """As it is then: nothing of it was written down before."""
    service = subject.service()
    await service.create_session(KEY, {"life": 1})
    lives = 0

    async def read_past(*args: Any, _read: Any = service.backend.read_past, **options: Any) -> Any:
        nonlocal lives
        lives += 1
        if lives == 1:
            await service.delete_session(KEY)
            await service.create_session(KEY, {"life": 2})
        return await _read(*args, **options)

    with swapped(service.backend, "read_past", read_past):
        data = await exported(service)
    assert data.count(b'"life":2') == 1
    assert b'"life":1' not in data


async def test_one_that_is_deleted_when_it_is_found_is_made(subject: Subject) -> None:
    """Between the refusal and the look at what is there."""
    service = subject.service()
    await service.create_session(KEY)
    data = await exported(service)

    async def get(*args: Any, _get: Any = service.backend.get) -> Any:
        await service.delete_session(KEY)
        return await _get(*args)

    with swapped(service.backend, "get", get):
        assert (await imported(service, data)).sessions == 1


async def test_a_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it fills the memory."""
    monkeypatch.setattr(_files, "_LONGEST", 100)
    async with InMemorySessionService() as service:
        with pytest.raises(FormatError, match="longer than 100 bytes"):
            await imported(service, b"x" * 101)


def test_a_long_line_takes_a_time_that_grows_with_it() -> None:
    """Four times the pieces take about four times the time; to join each would take sixteen."""
    piece = b"x" * 1000

    def taken(pieces: int) -> float:
        began = time.process_time()
        lines = _files.Lines()
        for _ in range(pieces):
            assert lines.cut(piece) == []
        [line] = lines.cut(b"\n")
        assert len(line) == pieces * len(piece)
        return time.process_time() - began

    rounds = [(taken(4_000), taken(16_000)) for _ in range(5)]
    assert min(long for _, long in rounds) < 9 * min(short for short, _ in rounds)


@given(st.lists(st.binary(max_size=5).map(lambda data: data.replace(b"\0", b"\n"))))
def test_pieces_become_the_lines_of_the_whole(pieces: list[bytes]) -> None:
    """Wherever the pieces end."""
    lines = _files.Lines()
    cut = [line for piece in pieces for line in lines.cut(piece)]
    assert [*cut, lines.rest()] == b"".join(pieces).split(b"\n")


async def test_what_was_cut_is_not_exported_again(subject: Subject) -> None:
    """But the file is gone on with behind it; a whole one begins anew."""
    service = subject.service()
    await service.create_session(KEY)
    data = await exported(service)
    first, session, *_ = data.splitlines(keepends=True)
    file = io.BytesIO(first + session + b'{"kind":"cut","reason":""}\n')
    report = await export_to(service, APP, file, resume=True)
    assert report.sessions == 1
    assert file.getvalue().endswith(data.removeprefix(first))


async def test_what_was_cut_takes_no_place(subject: Subject) -> None:
    """If all of the session follows in the file, that is what an import leaves, and finds again."""
    async with InMemorySessionService(session_event_limit=2) as origin:
        await origin.create_session(KEY)
        await origin.append_events(KEY, [say("1"), say("2")])
        first, session, event, *_ = (await exported(origin)).splitlines(keepends=True)
        await origin.append_events(KEY, [say("3"), say("4"), say("5")])
        whole = await exported(origin)
    cut = first + session + event + b'{"kind":"cut","reason":""}\n'
    service = subject.service(event_limit=None)
    for run in range(2):
        report = await imported(service, cut + whole.removeprefix(first), keep_going=True)
        assert (report.sessions, report.found, report.problem_count) == (1 - run, run, 1)
        assert await exported(service) == whole


async def test_what_was_is_in_order(subject: Subject) -> None:
    """A store adds only what comes after all that it knows."""
    async with InMemorySessionService() as origin:
        await origin.create_session(KEY)
        for n in (1, 2):
            await origin.append_event(KEY, say(str(n), {"n": n}))
        lines = (await exported(origin)).splitlines()
    place = next(n for n, line in enumerate(lines) if b'"before"' in line)
    lines[place], lines[place + 1] = lines[place + 1], lines[place]
    with pytest.raises(LineError, match=r"before 1\.0 comes after what was before 2\.0"):
        await imported(subject.service(), b"\n".join(lines))


async def waiting() -> bytes:
    """Export a session of which a turn waits."""
    async with InMemorySessionService() as origin:
        await origin.create_session(KEY)
        async with origin.lease(KEY, run_id="turn") as lease:
            event = Event(author="agent", content="?", outcome="waiting")
            await origin.append_event(KEY, event, lease=lease)
        await origin.append_events(KEY, [say("2"), say("3")])
        return await exported(origin)


async def test_a_turn_of_others_goes_on(subject: Subject) -> None:
    """An import that comes to its end later takes nothing from a turn that has begun here."""
    service = subject.service()
    data = await waiting()
    without = data.replace(data.splitlines()[-2], b'{"kind":"end"}')
    await imported(service, without)
    async with service.lease(KEY, run_id="other"):
        with pytest.raises(LineError, match="busy with run 'other'"):
            await imported(service, data)
    await imported(service, data)
    past = await service.backend.read_past(KEY, after=1e9, limit=1)
    assert past.turn == UnendedTurn("turn", 0, "", waits=True)


async def test_another_turn_that_was_left_here_stays(subject: Subject) -> None:
    """It is to be closed here, and the one of the export ended for those who have this log."""
    service = subject.service()
    data = await waiting()
    await imported(service, data)
    other = data.replace(b'"run_id":"turn"', b'"run_id":"another"')
    assert (await imported(service, other)).problems == []
    past = await service.backend.read_past(KEY, after=1e9, limit=1)
    assert past.turn == UnendedTurn("turn", 0, "", waits=True)


async def test_an_error_of_the_store_is_no_problem_of_a_line(subject: Subject) -> None:
    """It stops an import, also one that keeps going."""
    service = subject.service()

    async def create(*_: Any, **__: Any) -> None:
        raise OSError

    data = await waiting()
    with swapped(service.backend, "create", create), pytest.raises(OSError):  # noqa: PT011 - as raised
        await imported(service, data, keep_going=True)
