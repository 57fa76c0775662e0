"""Lines that cannot be imported: each says where it is and what is wrong, and the rest goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from agentsession import InMemorySessionService, SessionKey
from agentsession.testing import Subject
from agentsession.testing._checks.asserting import say
from agentsession.transfer import LineError
from transfer.worlds import APP, exported, imported

Change: TypeAlias = Callable[[list[bytes]], bytes]

KEYS = [SessionKey(APP, "u", f"s{n}") for n in range(3)]
# The lines of the second session, counted from 1: its own, its events, and its end.
SESSION, FIRST, SECOND, THIRD, END = range(7, 12)


async def three_sessions() -> list[bytes]:
    """Export three sessions of three events each; return the lines."""
    async with InMemorySessionService() as service:
        for key in KEYS:
            await service.create_session(key)
            await service.append_events(key, [say(f"{n}", id=f"e{n}") for n in range(3)])
        return (await exported(service)).splitlines()


def instead(line: bytes) -> Change:
    """Put another line there."""
    return lambda _: line


def fields(number: int, **changed: Any) -> Change:
    """Change fields of a line."""
    return lambda lines: json.dumps(json.loads(lines[number - 1]) | changed).encode()


def event(number: int, **changed: Any) -> Change:
    """Change fields of the event in a line."""

    def change(lines: list[bytes]) -> bytes:
        record = json.loads(lines[number - 1])
        return json.dumps(record | {"event": record["event"] | changed}).encode()

    return change


BROKEN: list[tuple[int, Change, str]] = [
    (FIRST, instead(b'{"kind":"event","se'), "truncated"),
    (FIRST, instead(b"\xff"), "malformed"),
    (FIRST, instead(b'{"kind":"event","seq":1,"event":{"author":"\xff"}}'), "(?i)utf-8"),
    (FIRST, instead(b'{"kind":"other"}'), "'other'"),
    (FIRST, fields(FIRST, more=1), "`more`"),
    (FIRST, fields(FIRST, event=[]), "made of a dict"),
    (FIRST, event(FIRST, v=2), "no Event|format 2"),
    (FIRST, event(FIRST, author=1), "author"),
    (FIRST, event(FIRST, author=""), "length >= 1|empty"),
    (FIRST, event(FIRST, timestamp="2026-01-01T00:00:00"), "timezone"),
    (FIRST, event(FIRST, partial=True), "partial"),
    (FIRST, event(FIRST, content="x" * 2_000_000), "max_event_size"),
    (FIRST, fields(SECOND), "event 1 is missing: this is event 2"),
    (SECOND, fields(FIRST), "event 2 is missing: this is event 1"),
    (END, fields(SECOND, seq=4), "was to end with event 3"),
    (THIRD, fields(END), "events 3 to 3 are missing"),
    (SECOND, event(SECOND, rewind={"to_seq": 7}), "event 7"),
    (SESSION, fields(SESSION, session_id=""), "session_id"),
    (SESSION, fields(SESSION, user_id=""), "user_id"),
    (SESSION, fields(SESSION, created_at="1960-01-01T00:00:00Z"), "1970"),
    (SESSION, fields(SESSION, created_at="9999-12-31T23:00:00-02:00"), "after 9999 in UTC"),
    (SESSION, fields(SESSION, last_seq=2**60), "last_seq"),
    (SESSION, fields(SESSION, first_seq=9), "first_seq"),
    (SESSION, fields(SESSION, taken_to=2), "taken_to"),
    (SESSION, fields(SESSION, state={"": 1}), "a name takes"),
    (SESSION, fields(SESSION, state={"app:a": 1}), "the line of its application"),
    (SESSION, fields(SESSION, state={"a": 1, "user:a": 1}), "user:a: .* the line of its user"),
    (SESSION, fields(SESSION, state={"temp:a": 1}), "never stored"),
    (END, instead(b'{"kind":"before","at":1.0,"was":{"user:a":1}}'), "the line of its user"),
    (SESSION, fields(SESSION, state={"a": "x" * 2_000_000}), "max_value_size"),
    (SESSION, fields(SESSION, state={"a": {"$bytes": "?"}}), "unreadable"),
    (SESSION, fields(SESSION, state={"a": {"$raw": 7}}), "base64"),
    (END, instead(b'{"kind":"before","at":1.0,"was":{"a":{"$raw":null}}}'), "base64"),
    (END, instead(b'{"kind":"before","at":1.3,"was":{}}'), "half a step"),
    (FIRST, instead(b'{"kind":"bytes","seq":1,"data":"?","reason":""}'), "base64"),
    (SECOND, instead(b'{"kind":"cut","reason":"because"}'), "because"),
]


@pytest.mark.parametrize(("number", "change", "match"), BROKEN)
async def test_a_broken_line_says_where(
    subject: Subject, number: int, change: Change, match: str
) -> None:
    """The import stops there, and all before it is whole; to keep going leaves out one session."""
    lines = await three_sessions()
    service = subject.service()
    wrong = b"\n".join([*lines[: number - 1], change(lines), *lines[number:]]) + b"\n"
    with pytest.raises(LineError, match=match) as raised:
        await imported(service, wrong)
    assert f"line {raised.value.number}: " in str(raised.value)
    assert raised.value.number in (number, END)  # What is wrong with the log may show at its end.
    for key in KEYS:
        await service.delete_session(key)
    report = await imported(service, wrong, keep_going=True)
    assert (report.sessions, report.problem_count) == (2, 1)
    assert report.problems[0].line == raised.value.number
    assert report.skipped_lines == END - raised.value.number
    found = [await service.get_session(key) for key in (KEYS[0], KEYS[2])]
    assert [session and session.last_seq for session in found] == [3, 3]


async def test_empty_lines_are_counted(subject: Subject) -> None:
    """An editor shows them, and the mark that it has put at the beginning it does not."""
    lines = await three_sessions()
    lines[SECOND - 1] = b"\n\r\n" + fields(THIRD)(lines)
    data = b"\xef\xbb\xbf\n" + b"\n".join(lines)
    with pytest.raises(LineError, match="event 2 is missing") as raised:
        await imported(subject.service(), data)
    assert data.splitlines()[raised.value.number - 1] == fields(THIRD)(lines)


async def test_an_id_that_comes_twice_is_told(subject: Subject) -> None:
    """It would be one event in the store."""
    lines = await three_sessions()
    lines[THIRD - 1] = event(THIRD, id="e1")(lines)
    with pytest.raises(LineError, match="id of event 'e1' is that of an earlier one"):
        await imported(subject.service(), b"\n".join(lines))


async def test_a_session_without_an_end_is_told(subject: Subject) -> None:
    """With the line at which that shows, and the session; that one is imported."""
    lines = await three_sessions()
    del lines[END - 1]
    with pytest.raises(LineError, match=r"^line 11: session 's1'[^l]*: its lines end before"):
        await imported(subject.service(), b"\n".join(lines))
    service = subject.service()
    await service.delete_user(KEYS[0].user)
    report = await imported(service, b"\n".join(lines), keep_going=True)
    assert (report.sessions, report.skipped_lines, report.problem_count) == (2, 0, 1)


@pytest.mark.parametrize(
    ("added", "match"),
    [
        (b'{"kind":"end"}', "none has begun"),
        (b'{"kind":"cut","reason":""}', "none has begun"),
        (b'{"kind":"app","app_name":"","state":{}}', "app_name"),
        (b'{"kind":"user","app_name":"a","user_id":"","state":{}}', "user_id"),
        (b'{"kind":"user","app_name":"a","user_id":"u"}', "state"),
    ],
)
async def test_lines_between_sessions_are_checked(
    subject: Subject, added: bytes, match: str
) -> None:
    """A line that belongs to no session, and states that are nobody's; the rest goes on."""
    lines = await three_sessions()
    lines.insert(END, added)
    with pytest.raises(LineError, match=match) as raised:
        await imported(subject.service(), b"\n".join(lines))
    assert raised.value.number == END + 1
    report = await imported(subject.service(), b"\n".join(lines), keep_going=True)
    assert (report.problem_count, report.skipped_lines) == (1, 0)
    assert report.found + report.sessions == 3


async def test_nothing_comes_after_the_end(subject: Subject) -> None:
    """Two exports in one file are no export."""
    lines = await three_sessions()
    with pytest.raises(LineError, match="nothing was to come"):
        await imported(subject.service(), b"\n".join([*lines, lines[1]]))


async def test_an_event_by_hand_is_stored_as_ours_are(subject: Subject) -> None:
    """Whoever edits a line need not write it as the store does."""
    lines = await three_sessions()
    lines[FIRST - 1] = b' {"seq": 1, "kind": "event", "event": {"author": "me", "v": 1, "seq": 9} }'
    service = subject.service()
    assert (await imported(service, b"\n".join(lines))).problems == []
    first, *_ = await service.get_events(KEYS[1])
    assert (first.author, first.seq) == ("me", 1)
    again = (await exported(service, KEYS[1])).splitlines()[2]
    assert again.startswith(b'{"kind":"event","seq":1,"event":{"v":1,"id":"')


async def test_fields_in_another_order_are_put_right(subject: Subject) -> None:
    """A store looks at how an event begins."""
    lines = await three_sessions()
    right = lines[FIRST - 1]
    record = json.loads(right)
    record["event"]["author"] = record["event"].pop("author")
    lines[FIRST - 1] = json.dumps(record, separators=(",", ":")).encode()
    service = subject.service()
    assert (await imported(service, b"\n".join(lines))).problems == []
    assert (await exported(service)).splitlines()[FIRST - 1] == right


async def test_many_problems_are_counted(subject: Subject) -> None:
    """The first thousand by name."""
    lines = [(await three_sessions())[0], *[b"?"] * 1500, b'{"kind":"complete"}']
    report = await imported(subject.service(), b"\n".join(lines), keep_going=True)
    assert (report.problem_count, len(report.problems)) == (1500, 1000)
