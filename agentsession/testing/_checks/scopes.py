"""State: scopes, values, and no lost update: promise 4 and the rules of state."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from agentsession.backend import Entry
from agentsession.clock import to_microseconds
from agentsession.codec import encode_event
from agentsession.errors import (
    RevisionConflictError,
    StateValueError,
)
from agentsession.events import Event
from agentsession.sessions import SessionKey, UserKey
from agentsession.state import DELETE, Changes
from agentsession.testing._checks.asserting import raises, said, say, stored_session

if TYPE_CHECKING:
    from agentsession.testing._subject import Subject


async def check_scopes_are_shared_as_they_should_be(subject: Subject) -> None:
    """App state reaches every session, user state the user's, session state nobody else."""
    service = subject.service()
    mine, sibling = subject.key, subject.another_key()
    stranger, elsewhere = (
        SessionKey("app", "other", "session"),
        SessionKey("app2", "user", "session"),
    )
    for key in (mine, sibling, stranger, elsewhere):
        await service.create_session(key)
    await service.append_event(mine, say("hi", {"a": 1, "user:b": 2, "app:c": 3}))
    await service.update_session_state(mine, {"d": 4, "user:e": 5, "app:f": 6})
    views = {
        mine: {"a": 1, "d": 4, "user:b": 2, "user:e": 5, "app:c": 3, "app:f": 6},
        sibling: {"user:b": 2, "user:e": 5, "app:c": 3, "app:f": 6},
        stranger: {"app:c": 3, "app:f": 6},
        elsewhere: {},
    }
    for key, view in views.items():
        session = await service.get_session(key)
        assert session is not None
        assert session.state == view
        page = await service.list_sessions(key.user)
        assert view in [listed.state for listed in page.sessions]
    assert await service.get_app_state("app") == {"c": 3, "f": 6}
    assert await service.get_user_state(subject.user) == {"b": 2, "e": 5}
    assert await service.get_app_state("app2") == {}
    assert await service.get_user_state(UserKey("app", "other")) == {}


async def check_create_routes_its_state(subject: Subject) -> None:
    """Prefixed names of a new session's state go to their scopes, and come back merged."""
    service = subject.service()
    await service.update_user_state(subject.user, {"kept": 1, "changed": 1})
    state = {"a": 1, "user:changed": 2, "app:b": 3, "temp:c": 4}
    session = await service.create_session(subject.key, state)
    assert session.state == {"a": 1, "user:kept": 1, "user:changed": 2, "app:b": 3, "temp:c": 4}
    found = await service.get_or_create_session(subject.key, {"a": 9, "user:changed": 9})
    del session.state["temp:c"]
    assert found == session


async def check_the_scopes_can_be_written_alone(subject: Subject) -> None:
    """Updates of one scope merge by name, take names with and without prefix, and delete."""
    service = subject.service()
    await service.update_app_state("app", {"a": 1, "app:b": [2]})
    await service.update_app_state("app", {"b": None})
    assert await service.get_app_state("app") == {"a": 1, "b": None}
    await service.update_user_state(subject.user, {"user:a": 1, "b": 2, "c": 3})
    await service.update_user_state(subject.user, {"b": DELETE})
    await service.delete_user_state(subject.user, "c")
    assert await service.get_user_state(subject.user) == {"a": 1}
    await service.delete_app_state("app", "app:a")
    await service.delete_app_state("app", "never there")
    assert await service.get_app_state("app") == {"b": None}
    with raises(StateValueError):
        await service.update_app_state("app", {"user:a": 1})
    with raises(StateValueError):
        await service.update_user_state(subject.user, {"temp:a": 1})


async def check_names_can_be_deleted(subject: Subject) -> None:
    """A name of any scope can be deleted, by a call and by an event's delta; an absent one too."""
    service = subject.service()
    state = {"a": 1, "b": 1, "c": 1, "user:d": 1, "app:e": 1, "user:f": 1}
    session = await service.create_session(subject.key, state)
    delta = {"a": DELETE, "user:d": DELETE, "app:e": DELETE, "gone": DELETE}
    stored = await service.append_event(session, say("x", delta))
    assert stored.state_delta == delta
    assert session.state == {"b": 1, "c": 1, "user:f": 1}
    await service.delete_session_state(subject.key, "b")
    await service.delete_session_state(subject.key, "user:f")
    await service.delete_session_state(subject.key, "gone")
    fresh = await service.get_session(subject.key)
    assert fresh is not None
    assert fresh.state == {"c": 1}
    assert fresh.events == [stored]
    assert await service.get_user_state(subject.user) == {}


VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "one": 1,
    "one point": 1.0,
    "negative zero": -0.0,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "big": 2**63,
    "bigger": -(10**300),
    "empty": "",
    "text": "ü 日本 \U0001f600 \0 \n \u2028 \x7f",
    "looks like bytes": "\x00abc",
    "bytes": b"\x00\xff{}\r\n",
    "no bytes": b"",
    "json as bytes": b'{"a": 1}',
    "list": [1, 1.0, "1", None, [], {}],
    "dict": {"": {"a.b": [0]}, "ü": "\\", "1": 1},
    "looks like ours": {"$bytes": "AAE="},
    "looks like ours too": {"$delete": True},
    "looks like ours three": {"$json": {"$json": 1}},
    "": "never",
}
del VALUES[""]


async def check_values_come_back_equal_and_of_their_type(subject: Subject) -> None:
    """Whatever JSON can hold, and bytes, come back as they were, from every read."""
    service = subject.service()
    delta = {
        f"{prefix}{name}": value
        for prefix in ("", "user:", "app:")
        for name, value in VALUES.items()
    }
    session = await service.create_session(subject.key, delta)
    metadata = {name: value for name, value in VALUES.items() if type(value) is not bytes}
    event = Event(author="a", content="x", state_delta=delta, metadata=metadata)
    returned = await service.append_event(subject.key, event)
    fresh = await service.get_session(subject.key)
    assert fresh is not None
    for state in (session.state, fresh.state, fresh.events[0].state_delta, returned.state_delta):
        assert repr(sorted(state.items(), key=lambda item: item[0])) == repr(
            sorted(delta.items(), key=lambda item: item[0])
        )
    assert repr(fresh.events[0].metadata) == repr(metadata)
    alone = await service.get_user_state(subject.user)
    assert repr(sorted(alone.items(), key=lambda item: item[0])) == repr(
        sorted(VALUES.items(), key=lambda item: item[0])
    )


async def check_refused_values_name_their_path(subject: Subject) -> None:
    """What cannot be stored is refused with its path, wherever it comes in; nothing is stored."""
    service = subject.service()
    session = await service.create_session(subject.key, {"n": 0})
    cycle: list[Any] = []
    cycle.append(cycle)
    refused: list[Any] = [{1}, object(), (1,), float("nan"), float("inf"), bytearray(), "\ud800"]
    refused += [{1: 1}, {"\ud800": 1}, [b"x"], 1j, cycle, 10**5000, raises]
    for value in refused:
        with raises(StateValueError) as raised:
            await service.update_session_state(subject.key, {"n": 1, "cart": [{"x": value}]})
        assert raised.error.path[:3] == ("cart", 0, "x")
        assert "cart[0]['x']" in str(raised.error)
        for delta, metadata in (({"n": 1, "user:x": value}, {}), ({"n": 1}, {"x": value})):
            if value == [b"x"] or not isinstance(value, bytes):
                with raises(StateValueError):
                    await service.append_event(
                        subject.key, Event(author="a", state_delta=delta, metadata=metadata)
                    )
        with raises(StateValueError):
            await service.update_app_state("app", {"n": 1, "x": value})
    with raises(StateValueError):
        await service.update_session_state(subject.key, {"n": 1, "user:": 1})
    assert await service.get_session(subject.key) == session
    assert await service.get_app_state("app") == {}


async def check_a_name_has_one_prefix(subject: Subject) -> None:
    """A second scope's prefix in a name is refused, wherever names come in; nothing is stored."""
    service = subject.service()
    session = await service.create_session(subject.key, {"n": 0})
    for scope in ("app:", "user:", "temp:"):
        for second in ("app:", "user:", "temp:"):
            name = f"{scope}{second}x"
            for refused in (
                service.create_session(subject.another_key(), {"n": 1, name: 1}),
                service.get_or_create_session(subject.another_key(), {"n": 1, name: 1}),
                service.update_session_state(subject.key, {"n": 1, name: 1}),
                service.append_event(session, say("no", {"n": 1, name: 1})),
                service.append_events(session, [say("no"), say("no", {name: DELETE})]),
                service.delete_session_state(subject.key, name),
                service.update_app_state("app", {"n": 1, name: 1}),
                service.delete_app_state("app", name),
                service.update_user_state(subject.user, {"n": 1, name: 1}),
                service.delete_user_state(subject.user, name),
            ):
                with raises(StateValueError) as raised:
                    await refused
                assert raised.error.path == (name,)
    assert await service.get_session(subject.key) == session
    assert [each.key for each in (await service.list_sessions(subject.user)).sessions] == [
        subject.key
    ]
    assert await service.get_app_state("app") == await service.get_user_state(subject.user) == {}


async def check_a_name_of_two_prefixes_stays_readable(subject: Subject) -> None:
    """What an older version stored under a name that is refused today is read as it is."""
    service = subject.service()
    await service.create_session(subject.key)
    await service.backend.update_user_state(subject.user, {"user:x": b"1"})
    changes = Changes(app={"user:x": b"2"}, user={"app:x": b"3"})
    await service.backend.update_state(subject.key, changes)
    event = say("old", {"user:user:x": 1})
    old = Entry(event.id, to_microseconds(event.timestamp), encode_event(event))
    await service.backend.append(subject.key, [old])
    held = await stored_session(service, subject.key)
    assert held.state == {"user:user:x": 1, "app:user:x": 2, "user:app:x": 3}
    assert held.events == [msgspec.structs.replace(event, seq=1)]
    assert await service.get_user_state(subject.user) == {"user:x": 1, "app:x": 3}
    assert await service.get_app_state("app") == {"user:x": 2}
    await service.append_event(held, say("new", {"user:x": 4}))
    assert held.state == {"user:x": 4, "user:user:x": 1, "app:user:x": 2, "user:app:x": 3}


async def check_temporary_state_lives_in_one_object(subject: Subject) -> None:
    """``temp:`` names live in the session that got them, hold any object, and are not stored."""
    service = subject.service()
    held = await service.create_session(subject.key, {"temp:a": object, "b": 1})
    stored = await service.append_event(held, say("x", {"temp:c": {1, 2}, "b": 2}))
    assert held.state == {"temp:a": object, "temp:c": {1, 2}, "b": 2}
    assert stored.state_delta == {"b": 2}
    await service.append_event(subject.key, say("others", {"temp:d": 1}))
    await service.update_session_state(subject.key, {"temp:e": 1})
    await service.append_event(held, say("y", {"temp:a": DELETE}))
    assert held.state == {"temp:c": {1, 2}, "b": 2}
    fresh = await service.get_session(subject.key)
    assert fresh is not None
    assert fresh.state == {"b": 2}
    assert [event.state_delta for event in fresh.events] == [{"b": 2}, {}, {}]


async def check_every_update_moves_the_session(subject: Subject) -> None:
    """An update of any scope, of app state alone too, moves the session's revision and expiry."""
    service = subject.service(session_ttl=100)
    session = await service.create_session(subject.key)
    for revision, name in enumerate(("a", "user:a", "app:a"), session.revision + 1):
        await subject.advance(80)
        await service.update_session_state(subject.key, {name: 1})
        held = await service.get_session(subject.key)
        assert held is not None
        assert (held.revision, held.state[name]) == (revision, 1)
    with raises(RevisionConflictError):
        await service.append_event(subject.key, say("x"), expected_revision=session.revision + 2)


async def check_no_update_is_lost(subject: Subject) -> None:
    """Names that concurrent writers in two processes change in every scope all stay."""
    services = [subject.service(), subject.service()]
    await services[0].create_session(subject.key)

    async def write(writer: int) -> None:
        service = services[writer % 2]
        for n in range(5):
            name = f"{writer}.{n}"
            await service.append_event(subject.key, say(name, {name: n, f"user:{name}": n}))
            await service.update_session_state(subject.key, {f"also {name}": n, f"app:{name}": n})
            await service.update_app_state("app", {f"also {name}": n})
            await service.update_user_state(subject.user, {f"also {name}": n})

    async with asyncio.TaskGroup() as group:
        for writer in range(8):
            group.create_task(write(writer))
    session = await services[1].get_session(subject.key)
    assert session is not None
    names = [(f"{writer}.{n}", n) for writer in range(8) for n in range(5)]
    expected = {
        f"{prefix}{also}{name}": n
        for name, n in names
        for prefix in ("", "user:", "app:")
        for also in ("", "also ")
    }
    assert session.state == expected


async def check_state_is_the_fold_of_the_log(subject: Subject) -> None:
    """With concurrent writers of the same names, state is the fold of the deltas in order."""
    services = [subject.service(), subject.service()]
    await services[0].create_session(subject.key)

    async def write(writer: int) -> None:
        for n in range(10):
            value = DELETE if (writer + n) % 4 == 0 else [writer, n]
            await services[writer % 2].append_event(
                subject.key, say(f"{writer}:{n}", {f"k{n % 3}": value, f"user:k{n % 2}": value})
            )

    async with asyncio.TaskGroup() as group:
        for writer in range(6):
            group.create_task(write(writer))
    session = await services[0].get_session(subject.key)
    assert session is not None
    folded: dict[str, Any] = {}
    for event in session.events:
        folded |= event.state_delta
    assert session.state == {name: value for name, value in folded.items() if value is not DELETE}
    assert session.revision == 61


async def check_one_writer_wins_a_revision(subject: Subject) -> None:
    """Of all writers that saw a revision one is stored; the others learn it and change nothing."""
    services = [subject.service(), subject.service()]
    session = await services[0].create_session(subject.key)
    won: list[int] = []

    async def write(writer: int) -> None:
        event = say(str(writer), {"winner": writer})
        try:
            await services[writer % 2].append_event(
                subject.key, event, expected_revision=session.revision
            )
        except RevisionConflictError as exc:
            assert exc.key == subject.key
            assert (exc.expected, exc.actual) == (session.revision, session.revision + 1)
        else:
            won.append(writer)

    async with asyncio.TaskGroup() as group:
        for writer in range(12):
            group.create_task(write(writer))
    assert len(won) == 1
    after = await services[0].get_session(subject.key)
    assert after is not None
    assert said(after.events) == [str(won[0])]
    assert after.state == {"winner": won[0]}
    assert after.revision == session.revision + 1
