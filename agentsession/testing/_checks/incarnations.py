"""One life: a session made anew under its id is another session: promise 15."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, TypeAlias

from agentsession.backend import ALL_EVENTS, NO_EVENTS, Entry, Expected
from agentsession.errors import RevisionConflictError, SessionNotFoundError
from agentsession.events import new_id
from agentsession.state import NO_CHANGES, Changes
from agentsession.testing._checks.asserting import (
    raises,
    remade_while_read,
    said,
    say,
    stored_session,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from agentsession.service import SessionService
    from agentsession.sessions import Session
    from agentsession.testing._subject import Subject

    Call: TypeAlias = Callable[[], Awaitable[object]]


async def _lives(
    service: SessionService, subject: Subject
) -> AsyncGenerator[tuple[Session, Session]]:
    """End a session in every way, make it anew in every way, and give what was read of both.

    Of each two lives, the times (where the clock is the subject's), the revisions, the positions
    and the ids of events are the same.
    """
    key, user = subject.key, subject.user
    ends: list[Call] = [
        lambda: service.delete_session(key),
        lambda: service.delete_user(user),
        lambda: subject.advance(110),
    ]
    begins: list[Call] = [
        lambda: service.create_session(key, {"n": "new"}),
        lambda: service.get_or_create_session(key, {"n": "new"}),
    ]
    for end in ends:
        for begin in begins:
            old = await service.get_or_create_session(key, {"n": "old"})
            await service.append_event(old, say("old", id="e"))
            await end()
            await begin()
            await service.append_event(key, say("new", {"user:n": 1, "app:n": 1}, id="e"))
            fresh = await stored_session(service, key)
            assert (old.revision, old.last_seq) == (fresh.revision, fresh.last_seq)
            yield old, fresh
            await service.delete_user(user)


async def check_a_session_of_an_old_life_writes_nothing(subject: Subject) -> None:
    """What was read from a session that was made anew since is refused, and nothing changes."""
    service = subject.service(session_ttl=100)
    change = {"n": 9, "user:n": 9, "app:n": 9}
    async for old, fresh in _lives(service, subject):
        before = deepcopy(old)
        refused: list[Awaitable[object]] = [
            service.append_event(old, say("no", change)),
            service.append_event(old, say("no", change), expected_revision=fresh.revision),
            service.append_event(old, say("no", change), expected_revision=99),
            service.append_event(old, say("a repeat", change, id="e")),
            service.append_events(old, [say("no", change), say("no")]),
            service.update_session_state(old, change),
            service.update_session_state(old, {}),
            service.delete_session_state(old, "n"),
        ]
        for call in refused:
            with raises(SessionNotFoundError) as raised:
                await call
            assert (raised.error.key, raised.error.replaced) == (subject.key, True)
            assert "was made anew since it was read" in str(raised.error)
        await service.delete_session(old)
        assert await service.get_session(subject.key) == fresh
        assert old == before


async def check_a_position_of_an_old_life_reads_nothing(subject: Subject) -> None:
    """Reading on in a session that was made anew since is refused, whatever is asked for."""
    service = subject.service(session_ttl=100)
    async for old, fresh in _lives(service, subject):
        for call in (
            service.get_events(old, after_seq=old.last_seq),
            service.get_events(old, after_seq=99),
            service.get_events(old, before_seq=old.last_seq + 1, newest_first=True),
            service.get_events(old, author="nobody"),
            service.get_events(old, around=1),
            service.get_events(old, around="e"),
            service.get_events(old, around="no such event"),
        ):
            with raises(SessionNotFoundError) as raised:
                await call
            assert (raised.error.key, raised.error.replaced) == (subject.key, True)
        assert await service.get_session(subject.key) == fresh


async def check_a_read_in_several_steps_is_of_one_life(subject: Subject) -> None:
    """A page that begins in one session does not go on in the next one, though a key asked."""
    service = subject.service()
    log = [say(str(n)) for n in range(1000)]
    asks: list[Callable[[], Awaitable[object]]] = [
        lambda: service.get_events(subject.key, author="nobody"),
        lambda: service.get_events(subject.key, author="nobody", newest_first=True),
        lambda: service.get_events(subject.key, around=500, author="nobody"),
    ]
    for ask in asks:
        await service.create_session(subject.key)
        await service.append_events(subject.key, log)
        remade = remade_while_read(service, subject.key, log)
        with remade as reads, raises(SessionNotFoundError) as raised:
            await ask()
        assert (raised.error.key, raised.error.replaced, len(reads)) == (subject.key, True, 2)
        await service.delete_session(subject.key)


async def check_a_session_of_the_present_life_does_all(subject: Subject) -> None:
    """An object of the session that is stored reads and writes wherever its key does."""
    service = subject.service()
    await service.create_session(subject.key)
    await service.delete_session(subject.key)
    held = await service.create_session(subject.key, {"n": 1})
    await service.append_event(held, say("a", id="a"), expected_revision=held.revision)
    await service.append_events(held, [say("b"), say("c")])
    await service.update_session_state(held, {"m": 1, "o": 1})
    await service.delete_session_state(held, "o")
    assert held.state == {"n": 1, "m": 1}
    with raises(RevisionConflictError):
        await service.append_event(held, say("no"), expected_revision=held.revision - 1)
    await service.append_event(held, say("d"))
    assert held.state == {"n": 1, "m": 1}
    assert said(await service.get_events(held, after_seq=1, limit=2)) == ["b", "c"]
    assert said(await service.get_events(held, around="a", limit=2)) == ["a", "b"]
    assert await service.get_session(subject.key) == held
    await service.delete_session(held)
    with raises(SessionNotFoundError) as raised:
        await service.append_event(held, say("no"))
    assert not raised.error.replaced
    assert await service.get_session(subject.key) is None


async def check_a_session_of_no_life_is_not_checked(subject: Subject) -> None:
    """An object without an incarnation stands for whatever session has its key."""
    service = subject.service()
    held = await service.create_session(subject.key)
    held.incarnation = ""
    await service.delete_session(held)
    await service.create_session(subject.key)
    await service.append_event(held, say("a"))
    await service.update_session_state(held, {"n": 1})
    assert said(await service.get_events(held)) == ["a"]


async def check_a_refusal_of_an_old_life_moves_no_expiry(subject: Subject) -> None:
    """What is refused is neither a write nor a read, for the life of what it was refused by."""
    service = subject.service(session_ttl=100, refresh_ttl_on_read=True)
    old = await service.create_session(subject.key)
    await service.delete_session(subject.key)
    await service.create_session(subject.key)
    await subject.advance(80)
    for call in (
        service.append_event(old, say("no")),
        service.update_session_state(old, {"n": 1}),
        service.get_events(old),
        service.get_events(old, around=1),
    ):
        with raises(SessionNotFoundError):
            await call
    await service.delete_session(old)
    await subject.advance(30)
    assert await service.get_session(subject.key) is None


async def check_each_life_has_an_incarnation_of_its_own(subject: Subject) -> None:
    """It is there in whatever is read, never the same twice, and no write changes it."""
    service = subject.service()
    backend = service.backend
    seen: set[str] = set()
    for n in range(20):
        if n % 2:
            made = await backend.create(subject.key, NO_CHANGES, token=new_id())
        else:
            made = await backend.get_or_create(subject.key, NO_CHANGES, NO_EVENTS)
        receipt = await backend.append(subject.key, [Entry("e", 1, b'"e"')])
        updated = await backend.update_state(subject.key, Changes(session={"n": b"1"}))
        unchanged = await backend.update_state(subject.key, NO_CHANGES)
        read = await backend.get(subject.key, NO_EVENTS)
        assert read is not None
        again = await backend.get_or_create(subject.key, NO_CHANGES, ALL_EVENTS)
        page = await backend.read(
            subject.key, after_seq=0, before_seq=None, limit=1, newest_first=False
        )
        listed = (await backend.list_sessions(subject.user, 1, None)).sessions[0]
        assert {
            each.incarnation
            for each in (made, receipt, updated, unchanged, read, again, page, listed)
        } == {made.incarnation}
        seen.add(made.incarnation)
        await backend.delete(subject.key)
    assert len(seen - {""}) == 20


async def check_an_operation_expects_an_incarnation(subject: Subject) -> None:
    """Each operation of a backend that may expect one does nothing to any other."""
    backend = subject.service().backend
    key, entry = subject.key, Entry("e", 1, b'"e"')
    old = await backend.create(key, NO_CHANGES, token=new_id())
    await backend.delete(key, expected=Expected(old.incarnation))
    absent = Expected(old.incarnation)
    for call in _expecting(subject, absent):
        with raises(SessionNotFoundError) as raised:
            await call()
        assert (raised.error.key, raised.error.replaced) == (key, False)
    await backend.delete(key, expected=absent)
    new = await backend.create(key, NO_CHANGES, token=new_id())
    await backend.append(key, [entry])
    before = await backend.get(key, ALL_EVENTS)
    for expected in (absent, Expected(old.incarnation, 2), Expected(old.incarnation, 99)):
        for call in _expecting(subject, expected):
            with raises(SessionNotFoundError) as raised:
                await call()
            assert (raised.error.key, raised.error.replaced) == (key, True)
        await backend.delete(key, expected=expected)
        assert await backend.get(key, ALL_EVENTS) == before
    present = Expected(new.incarnation)
    for call in _expecting(subject, present):
        await call()
    with raises(RevisionConflictError):
        await backend.append(key, [Entry("h", 1, b'"h"')], expected=Expected(new.incarnation, 99))
    await backend.delete(key, expected=present)
    assert await backend.get(key, ALL_EVENTS) is None


def _expecting(subject: Subject, expected: Expected) -> list[Call]:
    """List every call that must find what it expects."""
    backend, key = subject.service().backend, subject.key
    changes = Changes(session={"n": b"1"}, user={"n": b"1"}, app={"n": b"1"})

    def read(*, newest_first: bool) -> Call:
        return lambda: backend.read(
            key,
            after_seq=0,
            before_seq=None,
            limit=9,
            newest_first=newest_first,
            expected=expected,
        )

    return [
        lambda: backend.append(key, [Entry("e", 1, b'"e"')], expected=expected),
        lambda: backend.append(key, [Entry("f", 1, b"{}", changes)], expected=expected),
        lambda: backend.append(
            key, [Entry("e", 1, b'"e"'), Entry("g", 1, b'"g"')], expected=expected
        ),
        lambda: backend.update_state(key, changes, expected=expected),
        lambda: backend.update_state(key, NO_CHANGES, expected=expected),
        lambda: backend.update_state(key, Changes(app={"n": b"1"}), expected=expected),
        lambda: backend.locate(key, "e", expected=expected),
        lambda: backend.locate(key, "no such event", expected=expected),
        read(newest_first=False),
        read(newest_first=True),
    ]
