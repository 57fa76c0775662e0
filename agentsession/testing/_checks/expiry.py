"""Expiry: promise 7. Time passes by ``Subject.advance``, so no check waits for it.

On a server real time passes too, so what is to live has ten seconds left, or more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from agentsession.errors import RevisionConflictError, SessionNotFoundError
from agentsession.sessions import SessionKey
from agentsession.testing._checks.asserting import raises, said, say

if TYPE_CHECKING:
    from agentsession.testing._subject import Subject


async def check_an_expired_session_is_gone(subject: Subject) -> None:
    """Once its time has passed no operation finds a session; a new one begins from nothing."""
    service = subject.service(session_ttl=100)
    held = await service.create_session(subject.key, {"n": 1, "user:n": 1})
    await service.append_event(held, say("old", {"n": 2}, id="e"))
    await subject.advance(90)
    assert await service.get_session(subject.key) == held
    await subject.advance(20)
    assert await service.get_session(subject.key) is None
    assert (await service.list_sessions(subject.user)).sessions == []
    with raises(SessionNotFoundError):
        await service.append_event(held, say("late"))
    with raises(SessionNotFoundError):
        await service.update_session_state(subject.key, {"n": 3})
    with raises(SessionNotFoundError):
        await service.get_events(subject.key)
    fresh = await service.create_session(subject.key)
    assert (fresh.state, fresh.last_seq, fresh.revision) == ({"user:n": 1}, 0, 1)
    assert (await service.append_event(fresh, say("new", id="e"))).seq == 1


async def check_a_write_moves_all_of_a_session(subject: Subject) -> None:
    """An append, a state update and a batch each keep log, state, known ids and listing alive."""
    service = subject.service(session_ttl=100)
    await service.create_session(subject.key, {"first": 1})
    await service.append_event(subject.key, say("0", id="zero"))
    for n in range(1, 4):
        await subject.advance(80)
        await service.append_event(subject.key, say(str(n)))
        await subject.advance(80)
        await service.update_session_state(subject.key, {f"n{n}": n})
    await subject.advance(80)
    session = await service.get_session(subject.key)
    assert session is not None
    assert said(session.events) == ["0", "1", "2", "3"]
    assert session.state == {"first": 1, "n1": 1, "n2": 2, "n3": 3}
    assert (await service.append_event(subject.key, say("again", id="zero"))).seq == 1
    listed = (await service.list_sessions(subject.user)).sessions
    assert [each.key for each in listed] == [subject.key]


async def check_reads_do_not_move_expiry(subject: Subject) -> None:
    """Reading, listing and failed writes leave a session's end where it was."""
    service = subject.service(session_ttl=100)
    session = await service.create_session(subject.key)
    await service.append_event(session, say("x", id="e"))
    await subject.advance(80)
    await service.get_session(subject.key)
    await service.get_or_create_session(subject.key)
    await service.list_sessions(subject.user)
    await service.get_events(subject.key, around="e")
    await service.append_event(subject.key, say("repeat", id="e"))
    with raises(RevisionConflictError):
        await service.append_event(subject.key, say("y"), expected_revision=99)
    await subject.advance(30)
    assert await service.get_session(subject.key) is None


async def check_what_a_repeat_changed_keeps_its_expiry(subject: Subject) -> None:
    """Beside a new event in its batch, it moves that of no state which the new one leaves alone.

    It comes within the minute for which a cluster remembers what it wrote to the application.
    """
    service = subject.service(user_state_ttl=50, app_state_ttl=50)
    await service.create_session(subject.key)
    old = say("old", {"user:n": 1, "app:n": 1}, id="e")
    await service.append_event(subject.key, old)
    await subject.advance(40)
    await service.append_events(subject.key, [old, say("new", {"n": 2})])
    await subject.advance(15)
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == {"n": 2}


async def check_reads_move_expiry_when_asked_to(subject: Subject) -> None:
    """With ``refresh_ttl_on_read`` reading keeps what is read alive; listing never does."""
    service = subject.service(
        session_ttl=100, user_state_ttl=100, app_state_ttl=100, refresh_ttl_on_read=True
    )
    await service.create_session(subject.key, {"a": 1, "user:b": 2, "app:c": 3})
    await service.append_event(subject.key, say("x"))
    for create in (False, True, False):
        await subject.advance(80)
        session = (
            await service.get_or_create_session(subject.key)
            if create
            else await service.get_session(subject.key, num_recent_events=0)
        )
        assert session is not None
        assert session.state == {"a": 1, "user:b": 2, "app:c": 3}
    await subject.advance(80)
    assert said(await service.get_events(subject.key)) == ["x"]
    await service.get_app_state("app")
    await subject.advance(80)
    assert await service.get_user_state(subject.user) == {}
    await service.update_user_state(subject.user, {"b": 2})
    assert said(await service.get_events(subject.key)) == ["x"]
    await service.get_user_state(subject.user)
    await service.get_app_state("app")
    await subject.advance(80)
    await service.list_sessions(subject.user)
    await subject.advance(30)
    assert await service.get_session(subject.key) is None
    assert await service.get_user_state(subject.user) == {}
    assert await service.get_app_state("app") == {}


async def check_each_session_expires_alone(subject: Subject) -> None:
    """A busy session keeps neither an idle one of its user alive, nor its place in the list."""
    service = subject.service(session_ttl=100)
    keys = [SessionKey("app", "user", name) for name in ("busy", "idle 1", "idle 2", "idle 3")]
    for key in keys:
        await service.create_session(key)
        await subject.advance(0.001)
    for _ in range(3):
        await subject.advance(60)
        await service.append_event(keys[0], say("x"))
    for limit in (1, 2, 50):
        page = await service.list_sessions(subject.user, limit=limit)
        assert [session.key for session in page.sessions] == keys[:1]
        assert page.next_cursor is None
    assert [await service.get_session(key) for key in keys[1:]] == [None, None, None]


async def check_a_page_is_full_though_sessions_have_expired(subject: Subject) -> None:
    """Sessions that have expired between living ones neither shorten a page nor end the list."""
    service = subject.service(session_ttl=100, refresh_ttl_on_read=True)
    names = ["a", "dead 1", "dead 2", "b", "dead 3", "dead 4", "c"]
    for name in names:
        await service.create_session(SessionKey("app", "user", name))
        await subject.advance(0.001)
    await subject.advance(80)
    for name in "abc":
        await service.get_session(SessionKey("app", "user", name))
    await subject.advance(80)
    found: list[str] = []
    cursor = None
    while cursor is not None or not found:
        page = await service.list_sessions(subject.user, limit=1, cursor=cursor)
        found += [session.id for session in page.sessions]
        assert len(page.sessions) == 1
        cursor = page.next_cursor
    assert found == ["c", "b", "a"]


async def check_scopes_expire_on_their_own(subject: Subject) -> None:
    """App and user state live as long as they are told since the last write to them, each alone."""
    service = subject.service(session_ttl=1000, user_state_ttl=200, app_state_ttl=100)
    state = {"a": 1, "user:b": 2, "app:c": 3}
    await service.create_session(subject.key, state)
    await subject.advance(80)
    await service.append_event(subject.key, say("x", {"app:d": 4}))
    await subject.advance(80)
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == {**state, "app:d": 4}
    await subject.advance(50)
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == {"a": 1}
    await service.update_user_state(subject.user, {"e": 5})
    assert await service.get_user_state(subject.user) == {"e": 5}
    assert await service.get_app_state("app") == {}


async def check_everything_stored_expires(subject: Subject) -> None:
    """With every time to live set, no path stores anything without an end."""
    service = subject.service(event_limit=3, session_ttl=100, user_state_ttl=100, app_state_ttl=100)
    held = await service.create_session(subject.key)
    assert await subject.unexpiring() == []
    deltas: tuple[dict[str, Any], ...] = (
        {},
        {"a": 1},
        {"user:a": 1},
        {"app:a": 1},
        {"a": 1, "user:b": 1, "app:c": 1},
    )
    for n, delta in enumerate(deltas):
        await service.append_event(held, say(str(n), delta, id=f"e{n}"))
        assert await subject.unexpiring() == []
    await service.append_event(subject.key, say("repeat", id="e0"))
    with raises(RevisionConflictError):
        await service.append_event(subject.key, say("y", {"app:x": 1}), expected_revision=99)
    with raises(SessionNotFoundError):
        await service.append_event(subject.another_key(), say("y", {"user:y": 1}))
    for state in ({"b": 1}, {"user:c": 1}, {"app:d": 1}):
        await service.update_session_state(subject.key, state)
        await service.get_or_create_session(subject.another_key(), state)
        assert await subject.unexpiring() == []
    await service.update_app_state("other", {"a": 1})
    await service.update_user_state(SessionKey("other", "u").user, {"a": 1})
    await service.delete_session_state(subject.key, "b")
    await service.get_session(subject.key)
    await service.list_sessions(subject.user)
    task = asyncio.create_task(service.append_event(subject.key, say("cancelled", {"app:z": 1})))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await service.get_session(subject.key)
    assert await subject.unexpiring() == []
    await subject.advance(110)
    assert (await service.list_sessions(subject.user)).sessions == []
    assert await service.get_user_state(subject.user) == {}


async def check_nothing_expires_by_default(subject: Subject) -> None:
    """Without a time to live, 0 included, everything stays."""
    service = subject.service(session_ttl=0, user_state_ttl=0, app_state_ttl=None)
    session = await service.create_session(subject.key, {"a": 1, "user:b": 2, "app:c": 3})
    await service.append_event(session, say("x"))
    await subject.advance(10 * 365 * 86_400)
    assert await service.get_session(subject.key) == session
