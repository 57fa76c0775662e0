"""Sessions: creating, finding, listing, deleting, and nobody else's: promises 5, 6 and 8."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from agentsession.errors import (
    ClosedError,
    EventNotFoundError,
    SessionExistsError,
    SessionNotFoundError,
)
from agentsession.events import Data, Event, Text, ToolCall, ToolResult
from agentsession.sessions import Session, SessionKey, UserKey
from agentsession.testing._checks.asserting import raises, said, say, stored_session

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from agentsession.testing._subject import Subject


async def check_an_id_is_created_once(subject: Subject) -> None:
    """A second create is an error that changes nothing; of concurrent ones exactly one succeeds."""
    services = [subject.service(), subject.service()]
    created: list[Session] = []

    async def create(n: int) -> None:
        try:
            created.append(await services[n % 2].create_session(subject.key, {"n": n, "user:n": n}))
        except SessionExistsError as exc:
            assert exc.key == subject.key

    async with asyncio.TaskGroup() as group:
        for n in range(10):
            group.create_task(create(n))
    assert len(created) == 1
    assert await services[0].get_session(subject.key) == created[0]


async def check_an_empty_id_gets_one(subject: Subject) -> None:
    """Without an id a session gets one of its own, every time."""
    service = subject.service()
    unnamed = SessionKey("app", "user")
    first, second = await service.create_session(unnamed), await service.create_session(unnamed)
    third = await service.get_or_create_session(unnamed)
    assert len({first.id, second.id, third.id, ""}) == 4
    assert first.key == SessionKey("app", "user", first.id)
    assert await service.get_session(first.key) == first


async def check_get_or_create_creates_once(subject: Subject) -> None:
    """Of any number of concurrent calls one creates, and all get that session."""
    services = [subject.service(), subject.service()]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                services[n % 2].get_or_create_session(subject.key, {"n": n, "user:n": n})
            )
            for n in range(20)
        ]
    sessions = [task.result() for task in tasks]
    assert all(session == sessions[0] for session in sessions)
    await services[0].append_event(subject.key, say("hi"))
    found = await services[1].get_or_create_session(subject.key, {"n": -1})
    assert said(found.events) == ["hi"]
    assert found.state == sessions[0].state


async def check_what_is_absent_is_an_error_or_none(subject: Subject) -> None:
    """Reading an absent session is None, deleting it nothing, and everything else names it."""
    service = subject.service()
    await service.create_session(subject.another_key())
    assert await service.get_session(subject.key) is None
    await service.delete_session(subject.key)
    calls: list[Awaitable[object]] = [
        service.append_event(subject.key, say("x")),
        service.update_session_state(subject.key, {"a": 1}),
        service.delete_session_state(subject.key, "a"),
        service.get_events(subject.key),
        service.get_events(subject.key, around="e"),
    ]
    for call in calls:
        with raises(SessionNotFoundError) as raised:
            await call
        assert raised.error.key == subject.key
        assert "'session'" in str(raised.error)
    assert await service.get_session(subject.key) is None


async def check_a_deleted_session_is_gone(subject: Subject) -> None:
    """Deleting takes log, state and place in the list; a new session begins from nothing."""
    service = subject.service()
    other = subject.another_key()
    for key in (subject.key, other):
        session = await service.create_session(key, {"n": 1, "user:n": 1})
        await service.append_event(session, say("x", id="e"))
    await service.delete_session(subject.key)
    assert await service.get_session(subject.key) is None
    assert [each.key for each in (await service.list_sessions(subject.user)).sessions] == [other]
    fresh = await service.create_session(subject.key)
    assert (fresh.state, fresh.revision, fresh.last_seq) == ({"user:n": 1}, 1, 0)
    assert (await service.append_event(fresh, say("y", id="e"))).seq == 1
    assert said(await service.get_events(subject.key)) == ["y"]
    kept = await service.get_session(other)
    assert kept is not None
    assert said(kept.events) == ["x"]


async def check_a_user_can_be_erased(subject: Subject) -> None:
    """Erasing a user takes all sessions and the user's state, and nothing of anybody else."""
    service = subject.service()
    others = [SessionKey("app", "user2", "s"), SessionKey("app2", "user", "s")]
    for key in [*others, *(subject.another_key() for _ in range(120))]:
        session = await service.create_session(key, {"user:n": 1, "app:n": 1, "n": 1})
        await service.append_event(session, say("x"))
    before = [await service.get_session(key) for key in others]
    await service.delete_user(subject.user)
    await service.delete_user(UserKey("app", "nobody"))
    assert (await service.list_sessions(subject.user)).sessions == []
    assert await service.get_user_state(subject.user) == {}
    assert [await service.get_session(key) for key in others] == before
    assert (await service.create_session(subject.key)).state == {"app:n": 1}


async def check_the_log_is_bounded(subject: Subject) -> None:
    """With any number of writers a log never holds more than its limit, and it holds the newest."""
    services = [subject.service(event_limit=7), subject.service(event_limit=7)]
    await services[0].create_session(subject.key)

    async def write(writer: int) -> None:
        for n in range(6):
            batch = [
                say(f"{writer}:{n}:{part}", {f"{writer}": n}) for part in range(writer % 3 + 1)
            ]
            await services[writer % 2].append_events(subject.key, batch)
            log = await services[1].get_events(subject.key)
            assert len(log) <= 7
            assert [event.seq for event in log] == list(range(log[0].seq, log[-1].seq + 1))

    async with asyncio.TaskGroup() as group:
        for writer in range(6):
            group.create_task(write(writer))
    session = await stored_session(services[0], subject.key)
    assert [event.seq for event in session.events] == list(range(66, 73))
    assert session.last_seq == 72
    assert session.state == {f"{writer}": 5 for writer in range(6)}


async def check_a_window_returns_what_it_says(subject: Subject) -> None:
    """Bounds by number, position and time, alone and together, give a run at the end of the log."""
    service = subject.service(event_limit=8)
    start = await service.create_session(subject.key)
    moment = start.created_at - timedelta(hours=1)
    for n in range(1, 13):
        event = say(str(n), timestamp=moment + timedelta(seconds=n))
        await service.append_event(subject.key, event)
    kept = list(range(5, 13))
    for last in (None, 0, 1, 3, 8, 100):
        for after in (None, 0, 3, 7, 12, 99):
            for since in (None, 0, 6, 7, 50):
                session = await service.get_session(
                    subject.key,
                    num_recent_events=last,
                    after_seq=after,
                    since=None if since is None else moment + timedelta(seconds=since),
                )
                assert session is not None
                wanted = [n for n in kept if n > (after or 0) and n >= (since or 0)]
                wanted = wanted if last is None else wanted[len(wanted) - min(last, len(wanted)) :]
                assert [event.seq for event in session.events] == wanted
                assert said(session.events) == [str(n) for n in wanted]
                assert session.last_seq == 12


async def check_since_survives_wrong_clocks(subject: Subject) -> None:
    """An event of the future counts as now, one of the past as just after the one before it."""
    service = subject.service()
    present = (await service.create_session(subject.key)).created_at
    day, year = timedelta(days=1), timedelta(days=365)
    for words, moment in (
        ("yesterday", present - day),
        ("future", present + year),
        ("past", present - year),
        ("now", present),
    ):
        await service.append_event(subject.key, say(words, timestamp=moment))
    for since, expected in (
        (present - day, ["yesterday", "future", "past", "now"]),
        (present - day + timedelta(microseconds=1), ["future", "past", "now"]),
        (present, ["future", "past", "now"]),
        (present + day, []),
    ):
        session = await service.get_session(subject.key, since=since)
        assert session is not None
        assert said(session.events) == expected


async def check_pages_of_the_log(subject: Subject) -> None:
    """Pages in both directions cover a range once; filters and windows pick what they say."""
    service = subject.service(event_limit=20)
    await service.create_session(subject.key)
    contents = [
        "words",
        [Text("t")],
        [ToolCall("c", "f")],
        [Text("t"), ToolResult("c", 1)],
        [Data({})],
    ]
    for n in range(1, 26):
        branch = ("", "plan", "plan.search", "planner")[n % 4]
        await service.append_event(
            subject.key,
            Event(author=f"a{n % 3}", branch=branch, content=contents[n % 5], id=f"e{n}"),  # type: ignore[arg-type]  # mixed on purpose
        )

    async def page(**options: object) -> list[int]:
        events = await service.get_events(subject.key, **options)  # type: ignore[arg-type]  # a table
        return [event.seq for event in events]

    kept = list(range(6, 26))
    assert await page() == kept
    assert await page(limit=3) == [6, 7, 8]
    assert await page(after_seq=8, limit=3) == [9, 10, 11]
    assert await page(newest_first=True, limit=3) == [25, 24, 23]
    assert await page(newest_first=True, before_seq=23, limit=3) == [22, 21, 20]
    assert await page(after_seq=10, before_seq=13) == [11, 12]
    assert await page(after_seq=25) == await page(before_seq=6) == await page(before_seq=0) == []
    assert await page(author="a1") == [n for n in kept if n % 3 == 1]
    assert await page(author=["a1", "a2"], limit=4) == [7, 8, 10, 11]
    assert await page(branch="plan") == [n for n in kept if n % 4 in (1, 2)]
    assert await page(content_type="text", newest_first=True) == [
        n for n in reversed(kept) if n % 5 in (0, 1, 3)
    ]
    assert await page(content_type="tool_call", author="a0", limit=1) == [12]
    assert await page(around=10, limit=5) == [8, 9, 10, 11, 12]
    assert await page(around="e7", limit=6) == [6, 7, 8, 9, 10]
    assert await page(around=25, limit=4, newest_first=True) == [25, 24]
    assert await page(around=10, limit=3, author="a1") == [7, 10, 13]
    assert await page(around=10, limit=1) == [10]
    for absent in (5, 26, 0, "e5", "nothing"):
        with raises(EventNotFoundError) as raised:
            await page(around=absent)
        assert raised.error.event == absent


async def check_sessions_are_listed_by_activity(subject: Subject) -> None:
    """The list has newest activity first, without gaps or repeats also while others write."""
    service = subject.service()
    names = [f"s{n:02}" for n in range(25)]
    for name in names:
        await service.create_session(SessionKey("app", "user", name), {"name": name})
        await subject.advance(0.001)
    for name in ("s03", "s20"):
        await service.append_event(SessionKey("app", "user", name), say("x"))
        await subject.advance(0.001)
    await service.update_session_state(SessionKey("app", "user", "s07"), {"x": 1})
    order = ["s07", "s20", "s03", *(n for n in reversed(names) if n not in ("s07", "s20", "s03"))]
    whole = await service.list_sessions(subject.user)
    assert ([session.id for session in whole.sessions], whole.next_cursor) == (order, None)
    assert all(session.state["name"] == session.id for session in whole.sessions)
    assert all(session.events == [] for session in whole.sessions)
    assert whole.sessions[2].last_seq == 1
    exact = await service.list_sessions(subject.user, limit=25)
    assert exact.next_cursor is None
    seen: list[str] = []
    cursor = None
    while True:
        page = await service.list_sessions(subject.user, limit=4, cursor=cursor)
        seen += [session.id for session in page.sessions]
        cursor = page.next_cursor
        if cursor is None:
            break
        assert len(page.sessions) == 4
        await subject.advance(0.001)
        await service.append_event(SessionKey("app", "user", seen[0]), say("busy"))
    assert seen == order


async def check_sessions_active_at_one_moment_are_all_listed(subject: Subject) -> None:
    """Sessions whose last activity is at the same microsecond are listed once each."""
    service = subject.service()
    async with asyncio.TaskGroup() as group:
        for n in range(30):
            group.create_task(service.create_session(SessionKey("app", "user", f"s{n}")))
    seen: list[str] = []
    cursor = None
    while cursor is not None or not seen:
        page = await service.list_sessions(subject.user, limit=7, cursor=cursor)
        seen += [session.id for session in page.sessions]
        cursor = page.next_cursor
    assert sorted(seen) == sorted(f"s{n}" for n in range(30))


async def check_a_clock_that_goes_back_moves_no_session_back(subject: Subject) -> None:
    """The list is in the order of the writes: none comes late, twice, or older than it was."""
    service = subject.service()
    key = {name: SessionKey("app", "user", name) for name in ("s0", "s1", "s2", "s3", "s4", "new")}
    for name in ("s0", "s1", "s2", "s3", "s4"):
        await service.create_session(key[name])
    await subject.set_clock_back(3600)
    before = {each.id: each for each in (await service.list_sessions(subject.user)).sessions}
    assert list(before) == ["s4", "s3", "s2", "s1", "s0"]
    page = await service.list_sessions(subject.user, limit=2)
    await service.append_event(key["s3"], say("x"))
    await service.update_session_state(key["s1"], {"x": 1})
    await service.create_session(key["new"])
    await service.append_event(before["s2"], say("x"))
    rest = await service.list_sessions(subject.user, cursor=page.next_cursor)
    assert [each.id for each in rest.sessions] == ["s0"]
    after = (await service.list_sessions(subject.user)).sessions
    assert [each.id for each in after] == ["s2", "new", "s1", "s3", "s4", "s0"]
    moments = [each.updated_at for each in after]
    assert moments == sorted(moments, reverse=True)
    for each in after:
        assert each.created_at <= each.updated_at
        assert each.id == "new" or before[each.id].updated_at <= each.updated_at
    assert before["s2"] == await service.get_session(key["s2"])


async def check_looking_for_dangers_leaves_no_trace(subject: Subject) -> None:
    """``check()`` answers with concerns or none, stores nothing, and moves no session."""
    service = subject.service(session_ttl=60)
    session = await service.create_session(subject.key)
    for _ in range(2):
        for concern in await service.check():
            assert concern.code.islower()
            assert concern.severity in ("danger", "warning")
            assert concern.message
    assert await subject.unexpiring() == []
    assert await service.get_session(subject.key) == session


async def check_a_closed_service_says_so(subject: Subject) -> None:
    """After ``aclose`` every call is refused; the data of other services is not touched."""
    service, other = subject.service(), subject.service()
    async with service:
        await service.create_session(subject.key)
    await service.aclose()
    with raises(ClosedError):
        await service.get_session(subject.key)
    with raises(ClosedError):
        await service.append_event(subject.key, say("x", partial=True))
    with raises(ClosedError):
        async with service:
            pass
    assert await other.get_session(subject.key) is not None
