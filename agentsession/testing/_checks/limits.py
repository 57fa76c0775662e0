"""Limits: of one event, of one value, of one write, and of what one read returns: promise 5."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from agentsession.backend import ReadLimit, Window
from agentsession.codec import encode_event
from agentsession.errors import (
    EventNotFoundError,
    EventTooLargeError,
    ReadTooLargeError,
    StateValueTooLargeError,
)
from agentsession.sessions import SessionKey
from agentsession.testing._checks.asserting import raises, said, say

if TYPE_CHECKING:
    from agentsession.events import Event
    from agentsession.service import SessionService
    from agentsession.testing._subject import Subject


def _sized(size: int, words: str = "") -> Event:
    """Make an event that is encoded in exactly so many bytes."""
    event = say(words + "x")
    padding = "x" * (size - len(encode_event(event)))
    return msgspec.structs.replace(event, content=f"{event.content}{padding}")


async def check_an_event_is_limited_in_size(subject: Subject) -> None:
    """One byte below the limit and at it an event is stored, one byte above it is refused."""
    service = subject.service(max_event_size=2000)
    await service.create_session(subject.key)
    for size in (1999, 2000):
        await service.append_event(subject.key, _sized(size))
    with raises(EventTooLargeError) as raised:
        await service.append_events(subject.key, [say("fits"), _sized(2001)])
    assert (raised.error.key, raised.error.size, raised.error.limit) == (subject.key, 2001, 2000)
    assert [event.seq for event in await service.get_events(subject.key)] == [1, 2]


async def check_a_value_is_limited_in_size(subject: Subject) -> None:
    """The same for a value of any scope, wherever it comes in; quotes and a mark count too."""
    service = subject.service(max_value_size=100)
    await service.create_session(subject.key)
    for below in ("x" * 97, "x" * 98, b"x" * 98, b"x" * 99, "ü" * 49):
        state = {"v": below, "user:v": below, "app:v": below}
        await service.update_session_state(subject.key, state)
        await service.append_event(subject.key, say("fits", state))
        await service.update_user_state(subject.user, {"w": below})
        await service.update_app_state("app", {"w": below})
    before = await service.get_session(subject.key)
    for above in ("x" * 99, b"x" * 100, "ü" * 49 + "x"):
        for name in ("v", "user:v", "app:v"):
            for refused in (
                service.update_session_state(subject.key, {"a": 1, name: above}),
                service.append_event(subject.key, say("no", {"a": 1, name: above})),
                service.create_session(subject.another_key(), {name: above}),
            ):
                with raises(StateValueTooLargeError) as raised:
                    await refused
                assert raised.error.path == (name,)
                assert (raised.error.size, raised.error.limit) == (101, 100)
        with raises(StateValueTooLargeError):
            await service.update_user_state(subject.user, {"v": above})
        with raises(StateValueTooLargeError):
            await service.update_app_state("app", {"v": above})
    assert await service.get_session(subject.key) == before


async def _log_of(service: SessionService, key: SessionKey, *sizes: int) -> None:
    await service.create_session(key)
    events = [_sized(size, f"{number} ") for number, size in enumerate(sizes, 1)]
    await service.append_events(key, events)


async def check_a_read_is_limited_in_size(subject: Subject) -> None:
    """Events of as many bytes as the limit are returned, of one byte more are refused."""
    service = subject.service(max_event_size=400, max_read_size=1000)
    exact, over = subject.another_key(), subject.another_key()
    await _log_of(service, exact, 250, 250, 250, 250)
    await _log_of(service, over, 250, 250, 250, 251)
    for read in (service.get_session, service.get_or_create_session):
        session = await read(exact)
        assert session is not None
        assert session.last_seq == len(session.events) == 4
        with raises(ReadTooLargeError) as raised:
            await read(over)
        assert (raised.error.key, raised.error.events) == (over, 4)
        assert (raised.error.size, raised.error.limit) == (1001, 1000)
        for session in (await read(over, num_recent_events=3), await read(over, after_seq=1)):
            assert session is not None
            assert [event.seq for event in session.events] == [2, 3, 4]
    assert len(await service.get_events(exact)) == 4
    for newest_first in (False, True):
        with raises(ReadTooLargeError):
            await service.get_events(over, newest_first=newest_first)
    assert len(await service.get_events(over, limit=3, newest_first=True)) == 3
    assert len(await subject.service(max_read_size=None).get_events(over)) == 4
    assert await service.get_session(SessionKey("app", "user", "absent")) is None


async def check_a_refused_read_is_none(subject: Subject) -> None:
    """A read that is refused for its size moves no expiry."""
    service = subject.service(
        session_ttl=100, refresh_ttl_on_read=True, max_event_size=200, max_read_size=500
    )
    await _log_of(service, subject.key, 200, 200, 200)
    await subject.advance(60)
    for refused in (
        service.get_session(subject.key),
        service.get_or_create_session(subject.key),
        service.get_events(subject.key),
    ):
        with raises(ReadTooLargeError):
            await refused
    await subject.advance(60)
    assert await service.get_session(subject.key, num_recent_events=1) is None


async def check_many_small_events_are_a_large_read(subject: Subject) -> None:
    """An event counts as 100 bytes at least, so that a log can be too long by its number alone."""
    service = subject.service(max_event_size=100, max_read_size=1000)
    await service.create_session(subject.key)
    small = [say("", id=str(n)) for n in range(11)]
    assert all(len(encode_event(event)) < 90 for event in small)
    await service.append_events(subject.key, small)
    with raises(ReadTooLargeError) as raised:
        await service.get_session(subject.key)
    assert (raised.error.events, raised.error.size) == (11, 1100)
    session = await service.get_session(subject.key, num_recent_events=10)
    assert session is not None
    assert len(session.events) == 10


async def check_a_filter_finds_its_events_in_a_large_log(subject: Subject) -> None:
    """What a filter leaves out does not count; what passes does, over any number of reads."""
    service = subject.service(max_event_size=400, max_read_size=1000)
    await _log_of(service, subject.key, *[400] * 50)
    rare = [msgspec.structs.replace(say(str(n)), author="b") for n in range(8)]
    for event in rare:
        await service.append_event(subject.key, event)
        await service.append_events(subject.key, [_sized(400) for _ in range(3)])
    for newest_first in (False, True):
        found = await service.get_events(
            subject.key, author="b", limit=5, newest_first=newest_first
        )
        assert said(found) == (list("76543") if newest_first else list("01234"))
    with raises(ReadTooLargeError) as raised:
        await service.get_events(subject.key, author="user", limit=3)
    assert (raised.error.events, raised.error.size) == (3, 1200)
    around = await service.get_events(subject.key, around=rare[0].id, author="b", limit=5)
    assert said(around) == list("01234"[:3])
    with raises(ReadTooLargeError):
        await service.get_events(subject.key, around=25, limit=3)
    with raises(EventNotFoundError):
        await service.get_events(subject.key, around="never", limit=3)


async def check_a_held_session_catches_up_beyond_the_limit(subject: Subject) -> None:
    """An append, which was stored, brings its session up to date however much others wrote."""
    service = subject.service(max_event_size=400, max_read_size=1000)
    held = await service.create_session(subject.key)
    await service.append_events(subject.key, [_sized(400) for _ in range(5)])
    stored = await service.append_event(held, say("mine"))
    assert [event.seq for event in held.events] == [1, 2, 3, 4, 5, 6]
    assert held.events[-1] == stored


async def check_a_limit_is_the_readers(subject: Subject) -> None:
    """The backend measures by what each read says, and needs not measure a harmless number."""
    service = subject.service()
    await _log_of(service, subject.key, 200, 200, 200)
    backend = service.backend
    for limit, fits in (
        (None, True),
        (ReadLimit(600, 1), True),
        (ReadLimit(599, 1), False),
        (ReadLimit(599, 2), False),
        (ReadLimit(599, 3), True),
    ):
        window = Window(read_limit=limit)
        if fits:
            snapshot = await backend.get(subject.key, window)
            assert snapshot is not None
            assert len(snapshot.events) == 3
        else:
            with raises(ReadTooLargeError):
                await backend.get(subject.key, window)
