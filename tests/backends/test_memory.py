"""What is particular to memory: the sweeper, turns, and what an empty user leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from agentsession import Event, InMemorySessionService, SessionKey, SessionService, UserKey
from agentsession.backend import NO_EVENTS, Backend
from agentsession.errors import SessionNotFoundError
from agentsession.memory import MemoryBackend
from agentsession.memory._records import User
from agentsession.state import DELETE
from agentsession.testing import ManualClock

KEY = SessionKey("app", "user", "session")


def say(words: str, **fields: Any) -> Event:
    return Event(author="user", content=words, **fields)


def held(service: SessionService) -> MemoryBackend:
    backend = service.backend
    assert isinstance(backend, MemoryBackend)
    return backend


def user_of(service: SessionService) -> User:
    user = held(service)._users.get(KEY.user)
    assert user is not None
    return user


def sweepers() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "agentsession-sweeper"]


@pytest.mark.parametrize(
    ("options", "sweeps"),
    [
        ({}, False),
        ({"session_ttl": 1}, True),
        ({"app_state_ttl": 1}, True),
        ({"cleanup_interval": 60}, True),
        ({"session_ttl": 0, "cleanup_interval": 0}, False),
    ],
)
async def test_the_sweeper_runs_when_something_can_expire(
    options: dict[str, Any], sweeps: bool
) -> None:
    """It starts with the first use and ends with the service; without expiry there is none."""
    service = InMemorySessionService(**options)
    assert sweepers() == []
    await service.create_session(KEY)
    assert len(sweepers()) == sweeps
    await service.aclose()
    await service.aclose()
    assert sweepers() == []


async def test_the_sweeper_frees_what_has_expired() -> None:
    """Expired sessions, users and applications are gone from memory without being touched."""
    clock = ManualClock()
    async with InMemorySessionService(
        session_ttl=10, user_state_ttl=20, app_state_ttl=30, cleanup_interval=0.001, clock=clock
    ) as service:
        for n in range(3):
            await service.create_session(
                SessionKey("app", f"u{n}", "s"), {"a": 1, "user:b": 1, "app:c": 1}
            )
        expected = [
            "apps=1 users=3 sessions=3",
            "apps=1 users=3 sessions=0",
            "apps=1 users=0",
            "apps=0",
        ]
        async with asyncio.timeout(10):
            for shown in expected:
                while shown not in repr(service):
                    await asyncio.sleep(0.001)
                clock.advance(10.5)


async def test_a_sweep_finds_all_of_a_large_user() -> None:
    """It frees what has expired, stride by stride, and nothing that has not."""
    clock = ManualClock()
    async with InMemorySessionService(session_ttl=10, cleanup_interval=60, clock=clock) as service:
        keys = [SessionKey("app", "user", f"s{n}") for n in range(2500)]
        for key in keys:
            await service.create_session(key)
        clock.advance(6)
        alive = keys[::7]
        for key in alive:
            await service.update_session_state(key, {"a": 1})
        clock.advance(6)
        await held(service).sweep()
        assert f"users=1 sessions={len(alive)}" in repr(service)
        user = user_of(service)
        assert [name for _, name in user.activity] == [key.session_id for key in alive]


async def test_what_was_read_does_not_change() -> None:
    """State is handed out without a copy; writes after that, in any scope, make their own."""
    async with InMemorySessionService() as service:
        backend = held(service)
        await service.create_session(KEY, {"a": 1, "user:b": 1, "app:c": 1})
        snapshot = await backend.get(KEY, NO_EVENTS)
        app, user = await backend.get_app_state("app"), await backend.get_user_state(KEY.user)
        page = await backend.list_sessions(KEY.user, 1, None)
        assert snapshot is not None
        for value in (2, DELETE):
            state = {"a": value, "user:b": value, "app:c": value}
            await service.append_event(KEY, say("x", state_delta=state))
            await service.update_session_state(KEY, {"d": 1})
        for each in (snapshot, *page.sessions):
            assert (each.app, each.user, each.session) == ({"c": b"1"}, {"b": b"1"}, {"a": b"1"})
        assert (app, user) == ({"c": b"1"}, {"b": b"1"})


async def test_an_empty_user_leaves_nothing() -> None:
    """When the last session and the last value are gone, so are the user and the application."""
    async with InMemorySessionService() as service:
        await service.create_session(KEY, {"user:a": 1, "app:b": 1})
        await service.delete_session(KEY)
        await service.delete_user_state(KEY.user, "a")
        await service.delete_app_state("app", "b")
        await service.update_user_state(KEY.user, {})
        await service.get_user_state(UserKey("app", "nobody"))
        assert "apps=0 users=0 sessions=0" in repr(service)


async def test_a_writer_that_waited_finds_the_session_that_is_there() -> None:
    """A write that waited for its turn goes to the session that is stored by then, or to none."""
    async with InMemorySessionService() as service:
        await service.create_session(KEY, {"generation": 1})
        lock = user_of(service).sessions["session"].lock
        await lock.acquire()
        waiting = asyncio.create_task(service.append_event(KEY, say("x")))
        await asyncio.sleep(0)
        await service.delete_user(KEY.user)
        await service.create_session(KEY, {"generation": 2})
        lock.release()
        assert (await waiting).seq == 1
        session = await service.get_session(KEY)
        assert session is not None
        assert (session.state, session.last_seq) == ({"generation": 2}, 1)


@pytest.mark.parametrize("made_anew", [True, False])
async def test_a_writer_that_waited_finds_its_session_or_none(made_anew: bool) -> None:
    """A write of a Session that was deleted while it waited for its turn goes to no other one."""
    async with InMemorySessionService() as service:
        old = await service.create_session(KEY)
        lock = user_of(service).sessions["session"].lock
        await lock.acquire()
        calls = [
            asyncio.create_task(service.append_event(old, say("no"))),
            asyncio.create_task(service.update_session_state(old, {"no": 1})),
        ]
        await asyncio.sleep(0)
        await service.delete_user(KEY.user)
        new = await service.create_session(KEY) if made_anew else None
        lock.release()
        for call in calls:
            with pytest.raises(SessionNotFoundError) as raised:
                await call
            assert raised.value.replaced == made_anew
        assert await service.get_session(KEY) == new


async def test_a_large_write_finds_that_its_session_was_deleted_meanwhile() -> None:
    """What it changes is found in steps, between which others run."""
    service = InMemorySessionService()
    await service.create_session(KEY)
    events = [say("x", state_delta={f"{part} {n}": n for n in range(500)}) for part in range(100)]
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(_outcome(service.append_events(KEY, events)))
        lock = user_of(service).sessions[KEY.session_id].lock
        while not lock.locked():
            await asyncio.sleep(0)
        await service.delete_user(KEY.user)
        assert not writing.done()
    assert isinstance(writing.result(), SessionNotFoundError)
    await service.create_session(KEY)
    await service.append_events(KEY, events)
    session = await service.get_session(KEY)
    assert session is not None
    assert len(session.state) == 50_000
    await service.aclose()


async def test_a_session_at_hand_is_as_stored_whatever_becomes_of_the_event() -> None:
    """A caller may use an event again while its write waits for its turn."""
    async with InMemorySessionService() as service:
        session = await service.create_session(KEY)
        event = say("x", state_delta={"name": 1})
        async with asyncio.TaskGroup() as tasks:
            lock = user_of(service).sessions[KEY.session_id].lock
            async with lock:
                tasks.create_task(service.append_events(session, [event]))
                while not lock._waiters:
                    await asyncio.sleep(0)
                event.state_delta.clear()
        assert session.state == {"name": 1}
        assert session == await service.get_session(KEY)


async def _outcome(call: Awaitable[object]) -> object:
    try:
        return await call
    except SessionNotFoundError as exc:
        return exc


async def test_a_cancelled_writer_leaves_the_turn_to_others() -> None:
    """A writer that is cancelled while it waits for its turn stores nothing and blocks nobody."""
    async with InMemorySessionService() as service:
        await service.create_session(KEY)
        lock = user_of(service).sessions["session"].lock
        await lock.acquire()
        calls = [asyncio.create_task(service.append_event(KEY, say(str(n)))) for n in range(3)]
        await asyncio.sleep(0)
        calls[0].cancel()
        calls[1].cancel()
        await asyncio.sleep(0)
        lock.release()
        assert (await calls[2]).seq == 1
        assert [event.content for event in await service.get_events(KEY)] == ["2"]


async def test_trimming_gives_memory_back() -> None:
    """A log at its limit holds at most twice as many events in memory, and finds each of them."""
    async with InMemorySessionService(session_event_limit=10) as service:
        await service.create_session(KEY)
        log = user_of(service).sessions["session"].log
        for n in range(1, 1500):
            await service.append_event(KEY, say(str(n)))
            assert len(log._payloads) <= 20
            assert len(log.ids) <= 1010
            events = await service.get_events(KEY)
            assert [event.content for event in events] == [
                str(each) for each in range(max(1, n - 9), n + 1)
            ]


async def test_memory_is_a_warning() -> None:
    """A program that meant to use a server learns that it does not; one that did not, may go on."""
    async with InMemorySessionService() as service:
        (concern,) = await service.check()
        assert await Backend.check(service.backend) == []  # What a third party's inherits.
    assert (concern.code, concern.severity) == ("process_memory", "warning")
    assert str(concern).startswith("warning: sessions are in this process's memory")
