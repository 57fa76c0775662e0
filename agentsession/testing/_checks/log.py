"""Order, one step, and what a held session shows: promises 1, 2 and 10 of the log."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from agentsession.clock import utc_now
from agentsession.errors import RevisionConflictError, SessionNotFoundError, StateValueError
from agentsession.events import Event
from agentsession.state import DELETE
from agentsession.testing._checks.asserting import raises, said, say

if TYPE_CHECKING:
    from agentsession.service import SessionService
    from agentsession.sessions import SessionKey
    from agentsession.testing._subject import Subject


async def check_positions_count_from_one_without_gaps(subject: Subject) -> None:
    """Positions are 1, 2, 3 ..., the same in the answer of an append and for a reader."""
    service = subject.service()
    await service.create_session(subject.key)
    given = [(await service.append_event(subject.key, say(str(n)))).seq for n in range(1, 6)]
    batch = await service.append_events(subject.key, [say("6"), say("7")])
    assert given + [event.seq for event in batch] == [1, 2, 3, 4, 5, 6, 7]
    session = await service.get_session(subject.key)
    assert session is not None
    assert [(event.seq, event.content) for event in session.events] == [
        (n, str(n)) for n in range(1, 8)
    ]
    assert session.last_seq == 7


async def check_clocks_order_nothing(subject: Subject) -> None:
    """Equal, earlier and future timestamps come back in the order of their appends, unchanged."""
    service = subject.service()
    await service.create_session(subject.key)
    now = utc_now()
    offsets = (0.0, 0.0, -3600.0, 86_400.0, -0.000001, 0.0, 1e8, -1e9)
    events = [say(str(n), timestamp=now + timedelta(seconds=s)) for n, s in enumerate(offsets)]
    for event in events[:4]:
        await service.append_event(subject.key, event)
    await service.append_events(subject.key, events[4:])
    stored = await service.get_events(subject.key)
    assert [event.content for event in stored] == [event.content for event in events]
    assert [event.timestamp for event in stored] == [event.timestamp for event in events]


async def check_concurrent_appends_have_one_order(subject: Subject) -> None:
    """With many writers in two processes positions are dense, and all readers agree on them."""
    services = [subject.service(), subject.service()]
    await services[0].create_session(subject.key)

    async def write(writer: int) -> list[int]:
        service = services[writer % 2]
        return [
            (await service.append_event(subject.key, say(f"{writer}:{n}"))).seq for n in range(10)
        ]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(write(writer)) for writer in range(10)]
    logs = [await service.get_events(subject.key) for service in services]
    assert logs[0] == logs[1]
    assert [event.seq for event in logs[0]] == list(range(1, 101))
    places = {event.content: event.seq for event in logs[0]}
    for writer, task in enumerate(tasks):
        assert task.result() == [places[f"{writer}:{n}"] for n in range(10)]
        assert task.result() == sorted(task.result())


async def check_positions_are_never_used_again(subject: Subject) -> None:
    """Trimming the log does not free the positions of what it trimmed."""
    service = subject.service(event_limit=2)
    await service.create_session(subject.key)
    seqs = [(await service.append_event(subject.key, say(str(n)))).seq for n in range(6)]
    assert seqs == [1, 2, 3, 4, 5, 6]
    assert [event.seq for event in await service.get_events(subject.key)] == [5, 6]


async def check_an_event_and_its_state_are_one_step(subject: Subject) -> None:
    """No reader ever sees an event without its change to session and user state, or the reverse."""
    writer, reader = subject.service(), subject.service()
    await writer.create_session(subject.key)
    done = asyncio.Event()

    async def read() -> int:
        seen = 0
        while not done.is_set():
            session = await reader.get_session(subject.key)
            assert session is not None
            count = session.last_seq
            assert len(session.events) == count
            assert session.revision == count + 1
            assert session.state == ({"n": count, "user:n": count} if count else {})
            seen += 1
            await asyncio.sleep(0)
        return seen

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        for n in range(1, 51):
            await writer.append_event(subject.key, say(str(n), {"n": n, "user:n": n}))
            await asyncio.sleep(0)
        done.set()
    assert reading.result()


async def check_a_refused_append_changes_nothing(subject: Subject) -> None:
    """A conflict, an absent session or one bad event in a batch leaves every scope as it was."""
    service = subject.service()
    session = await service.create_session(subject.key, {"n": 0, "user:n": 0, "app:n": 0})
    change = say("no", {"n": 1, "user:n": 1, "app:n": 1})
    absent = subject.another_key()
    with raises(RevisionConflictError):
        await service.append_event(subject.key, change, expected_revision=session.revision + 1)
    with raises(SessionNotFoundError):
        await service.append_event(absent, change)
    with raises(SessionNotFoundError):
        await service.update_session_state(absent, {"user:n": 1, "app:n": 1})
    with raises(StateValueError):
        await service.append_events(subject.key, [change, say("bad", {"n": {1}})])
    assert await service.get_session(subject.key) == session
    assert await service.get_session(absent) is None


async def check_a_batch_is_all_or_nothing(subject: Subject) -> None:
    """A batch is one write: one revision, its events side by side among concurrent writers."""
    services = [subject.service(), subject.service()]
    created = await services[0].create_session(subject.key)

    async def write(writer: int) -> None:
        for n in range(5):
            batch = [say(f"{writer}:{n}:{part}", {f"{writer}": [n, part]}) for part in range(3)]
            await services[writer % 2].append_events(subject.key, batch)

    async with asyncio.TaskGroup() as group:
        for writer in range(6):
            group.create_task(write(writer))
    session = await services[0].get_session(subject.key)
    assert session is not None
    assert session.revision == created.revision + 30
    assert session.state == {f"{writer}": [4, 2] for writer in range(6)}
    words = said(session.events)
    assert len(words) == 90
    for first, second, third in zip(words[::3], words[1::3], words[2::3], strict=True):
        stem = first.removesuffix("0")
        assert (first, second, third) == (f"{stem}0", f"{stem}1", f"{stem}2")


async def check_partial_events_are_never_stored(subject: Subject) -> None:
    """A partial event comes back as it is; it neither takes a position nor changes state."""
    service = subject.service()
    session = await service.create_session(subject.key)
    chunk = say("chu", {"n": 1}, partial=True)
    assert await service.append_event(session, chunk) == chunk
    mixed = await service.append_events(session, [chunk, say("chunk"), chunk])
    assert [event.seq for event in mixed] == [0, 1, 0]
    assert said(session.events) == said(await service.get_events(subject.key)) == ["chunk"]
    assert session.state == {}


async def check_a_change_of_state_shows_in_a_held_session(subject: Subject) -> None:
    """At once if nobody else has written since, and together with all else if somebody has."""
    service = subject.service()
    held = await service.create_session(subject.key, {"a": 1, "user:u": 1, "temp:t": 1})
    await service.update_session_state(held, {"a": DELETE, "b": [2], "app:c": 3, "temp:x": 1})
    assert held.state == {"b": [2], "user:u": 1, "app:c": 3, "temp:t": 1}
    del held.state["temp:t"]
    assert held == await service.get_session(subject.key)
    await service.append_event(subject.key, say("another's", {"d": 4}))
    await service.update_session_state(held, {"e": 5})
    assert held == await service.get_session(subject.key)
    assert said(held.events) == ["another's"]
    await service.update_session_state(held, {})
    await service.delete_session_state(held, "e")
    assert held == await service.get_session(subject.key)


async def check_a_held_session_is_brought_up_to_date(subject: Subject) -> None:
    """A session that is handed to an append equals a fresh one afterwards, whoever else wrote."""
    service, other = subject.service(event_limit=5), subject.service(event_limit=5)
    held = await service.create_session(subject.key, {"a": 1, "user:b": 1})

    async def check() -> None:
        fresh = await service.get_session(subject.key)
        assert held == fresh

    await service.append_event(held, say("1", {"a": 2, "user:b": [2], "app:c": b"\0"}))
    await check()
    await other.append_events(subject.key, [say("2", {"d": 1}), say("3", {"d": 2})])
    await other.update_session_state(subject.key, {"e": 1})
    await service.append_event(held, say("4", {"a": 3}))
    await check()
    await service.append_events(held, [say(str(n)) for n in range(5, 9)])
    await check()
    held.events[-1].metadata["mine"] = held.state["mine"] = True
    await service.append_event(subject.key, say("9"))
    last = await service.append_event(held, say("10"))
    assert held.events[-1] == last
    assert "mine" not in held.state


async def check_a_held_session_that_is_read_anew_is_whole(subject: Subject) -> None:
    """If others wrote to a session, an append shows user and application state as it is, too."""
    service, other = subject.service(), subject.service()
    held = await service.create_session(subject.key, {"user:gone": 1, "temp:t": 1})
    await other.update_app_state("app", {"n": 1})
    await other.update_user_state(subject.user, {"n": 1, "gone": DELETE})
    await other.update_session_state(subject.key, {"n": 1})
    await service.append_event(held, say("x"))
    assert held.state.pop("temp:t") == 1
    assert held == await service.get_session(subject.key)
    assert held.state == {"n": 1, "user:n": 1, "app:n": 1}


async def check_objects_are_not_shared_with_the_store(subject: Subject) -> None:
    """Changing what was handed in or out, also between two results, changes nothing stored."""
    service = subject.service()
    value: dict[str, Any] = {"items": [1]}
    session = await service.create_session(subject.key, {"cart": value})
    event = Event(author="a", state_delta={"list": value["items"]}, metadata={"deep": value})
    returned = await service.append_event(session, event)
    value["items"].append("in")
    session.state["cart"]["items"].append("out")
    returned.metadata["deep"]["items"].append("out")
    first = await service.get_session(subject.key)
    assert first is not None
    first.state["list"].append("out")
    first.events[0].metadata["deep"]["items"].append("out")
    second = await service.get_session(subject.key)
    assert second is not None
    assert second.state == {"cart": {"items": [1]}, "list": [1]}
    assert second.events[0].metadata == {"deep": {"items": [1]}}
    assert session.state["list"] == [1]


async def check_cancelled_writes_are_whole_or_absent(subject: Subject) -> None:
    """Cancelled at any moment, an append is there whole or not at all, and all goes on."""
    service = subject.service()
    await service.create_session(subject.key)
    finished: list[bool] = []
    for ticks in range(60):
        event = say(str(ticks), {f"n{ticks}": ticks, f"user:n{ticks}": ticks})
        finished.append(await _cancel_after(ticks, service, subject.key, event))
        session = await service.get_session(subject.key)
        assert session is not None
        there = str(ticks) in said(session.events)
        assert (f"n{ticks}" in session.state) == (f"user:n{ticks}" in session.state) == there
        assert there or not finished[-1]
        assert session.last_seq == len(session.events) == session.revision - 1
    assert not finished[0]
    assert (await service.append_event(subject.key, say("after"))).seq > 0


async def _cancel_after(ticks: int, service: SessionService, key: SessionKey, event: Event) -> bool:
    """Cancel an append after some turns of the event loop; tell whether it returned before."""
    task = asyncio.create_task(service.append_event(key, event))
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True
