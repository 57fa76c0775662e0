"""What cannot be read hides nothing but itself: promise 8."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from agentsession.backend import Entry
from agentsession.errors import CodecError
from agentsession.events import UNREADABLE, Event, EventError
from agentsession.sessions import SessionKey
from agentsession.state import Changes
from agentsession.testing._checks.asserting import raises, said, say, stored_session

if TYPE_CHECKING:
    from agentsession.testing._subject import Subject

_NEWER: Final = (
    b'{"v":2,"id":"e2","timestamp":"2026-01-02T03:04:05Z","author":"planner",'
    b'"invocation_id":"turn","branch":"plan.search","content":{"form":"of the future"}}'
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def check_an_unreadable_event_hides_itself_alone(subject: Subject) -> None:
    """One event of a newer format leaves a session readable; a placeholder has its position."""
    service = subject.service()
    held = await service.create_session(subject.key)
    await service.append_event(subject.key, say("first", {"a": 1}))
    await service.backend.append(
        subject.key, [Entry("e2", 1, _NEWER, Changes(session={"b": b"2"}))]
    )
    await service.append_event(held, say("third"))
    for session in (
        held,
        await service.get_session(subject.key),
        await service.get_or_create_session(subject.key),
    ):
        assert session is not None
        assert session.state == {"a": 1, "b": 2}
        assert [event.seq for event in session.events] == [1, 2, 3]
        assert said(session.events) == ["first", "", "third"]
        placeholder = session.events[1]
        assert placeholder.error is not None
        assert placeholder == Event(
            id="e2",
            timestamp=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            author="planner",
            invocation_id="turn",
            branch="plan.search",
            error=EventError(type=UNREADABLE, message=placeholder.error.message),
            seq=2,
        )
        assert "newer" in placeholder.error.message
    assert await service.get_events(subject.key) == held.events
    assert await service.get_events(subject.key, newest_first=True) == held.events[::-1]
    assert await service.get_events(subject.key, around=1) == held.events
    alone = [held.events[1]]
    assert await service.get_events(subject.key, after_seq=1, limit=1) == alone
    assert await service.get_events(subject.key, author="planner") == alone
    assert await service.get_events(subject.key, branch="plan") == alone
    assert await service.get_events(subject.key, content_type="text", after_seq=1) == [
        held.events[2]
    ]


async def check_an_unreadable_event_is_an_error_where_it_is_asked_for(subject: Subject) -> None:
    """By its position or its id it raises; as a placeholder it cannot be appended."""
    service = subject.service()
    await service.create_session(subject.key)
    await service.backend.append(subject.key, [Entry("e2", 1, _NEWER)])
    for around in (1, "e2"):
        with raises(CodecError) as raised:
            await service.get_events(subject.key, around=around)
        assert raised.error.subject == subject.key
        assert "the stored event 1 is unreadable" in str(raised.error)
    before = await stored_session(service, subject.key)
    other = subject.another_key()
    await service.create_session(other)
    for key in (subject.key, other):
        with raises(ValueError) as refused:
            await service.append_events(key, before.events)
        assert UNREADABLE in str(refused.error)
    assert await service.get_session(subject.key) == before
    assert (await stored_session(service, other)).events == []


async def check_a_placeholder_tells_what_it_can(subject: Subject) -> None:
    """Bytes that are no event at all have a position still; what has another type is left out."""
    service = subject.service()
    await service.create_session(subject.key)
    wrong = (
        b'{"v":2,"id":"","timestamp":"2026-01-02T03:04:05","author":["a"],'
        b'"branch":"plan","invocation_id":7}'
    )
    entries = [Entry(str(n), 1, data) for n, data in enumerate((b"\xff\x00", wrong, b"[1]"), 1)]
    await service.backend.append(subject.key, entries)
    found = (await stored_session(service, subject.key)).events
    assert [event.error is not None and event.error.type for event in found] == [UNREADABLE] * 3
    for seq, event in enumerate(found, 1):
        assert (event.id, event.seq) == (f"unreadable-{seq}", seq)
        assert (event.author, event.timestamp, event.invocation_id) == ("unknown", _EPOCH, "")
    assert [event.branch for event in found] == ["", "plan", ""]


async def check_an_unreadable_session_hides_itself_alone(subject: Subject) -> None:
    """A list names it and has all others, in pages that it counts for too."""
    service = subject.service()
    keys = [SessionKey("app", "user", f"s{n}") for n in range(5)]
    for key in keys:
        await service.create_session(key, {"a": 1, "user:b": 2})
        await subject.advance(0.001)
    for key in (keys[1], keys[3]):
        await service.backend.update_state(key, Changes(session={"broken": b"{"}))
        await subject.advance(0.001)
    page = await service.list_sessions(subject.user)
    assert [session.key for session in page.sessions] == [keys[4], keys[2], keys[0]]
    assert all(session.state == {"a": 1, "user:b": 2} for session in page.sessions)
    assert {each.key for each in page.unreadable} == {keys[1], keys[3]}
    assert all("'broken'" in each.reason for each in page.unreadable)
    seen: list[SessionKey] = []
    cursor = None
    while cursor is not None or not seen:
        page = await service.list_sessions(subject.user, limit=2, cursor=cursor)
        listed = [each.key for each in page.sessions] + [each.key for each in page.unreadable]
        assert len(listed) == 2 or page.next_cursor is None
        seen += listed
        cursor = page.next_cursor
    assert sorted(key.session_id for key in seen) == [key.session_id for key in keys]
    for read in (service.get_session, service.get_or_create_session):
        with raises(CodecError) as raised:
            await read(keys[1])
        assert raised.error.subject == keys[1]


async def check_unreadable_state_of_all_is_an_error_of_the_list(subject: Subject) -> None:
    """What a user's sessions share belongs to none of them, so the error names whose it is."""
    service = subject.service()
    await service.create_session(subject.key)
    await service.backend.update_user_state(subject.user, {"broken": b"{"})
    for read in (
        service.list_sessions(subject.user),
        service.get_session(subject.key),
        service.get_user_state(subject.user),
    ):
        with raises(CodecError) as raised:
            await read
        assert raised.error.subject == subject.user
    await service.update_user_state(subject.user, {"broken": 1})
    await service.backend.update_app_state("app", {"broken": b"{"})
    for read in (
        service.list_sessions(subject.user),
        service.get_session(subject.key),
        service.get_app_state("app"),
    ):
        with raises(CodecError) as raised:
            await read
        assert raised.error.subject == "app 'app'"
