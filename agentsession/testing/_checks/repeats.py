"""Once: promise 3. A repeat stores nothing, and answers with what is stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agentsession.backend import NO_EVENTS, Entry
from agentsession.errors import RevisionConflictError
from agentsession.events import new_id
from agentsession.state import DELETE, Changes
from agentsession.testing._checks.asserting import raises, said, say, stored_session

if TYPE_CHECKING:
    from agentsession.testing._subject import Subject


async def check_a_repeat_is_stored_once(subject: Subject) -> None:
    """The same id again, even built anew in another process, stores nothing."""
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    first = await service.append_event(subject.key, say("once", {"n": 1, "user:n": 1, "app:n": 1}))
    await service.append_event(subject.key, say("next", {"n": 2, "user:n": 2, "app:n": 2}))
    before = await service.get_session(subject.key)
    rebuilt = say("rebuilt", {"n": 3, "user:n": 3, "app:n": 3}, id=first.id)
    for repeat in (first, rebuilt):
        assert (await other.append_event(subject.key, repeat)).seq == 1
    assert await service.get_session(subject.key) == before


async def check_concurrent_repeats_are_stored_once(subject: Subject) -> None:
    """Of many concurrent sends of one event, one is stored and all get its position."""
    services = [subject.service(), subject.service()]
    await services[0].create_session(subject.key)
    event = say("once", {"n": 1})
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(services[n % 2].append_event(subject.key, event)) for n in range(20)
        ]
    assert {task.result().seq for task in tasks} == {1}
    assert said(await services[0].get_events(subject.key)) == ["once"]


async def check_a_batch_with_repeats_stores_the_rest(subject: Subject) -> None:
    """In a batch, events stored before and ids given twice keep the position of the first."""
    service = subject.service()
    await service.create_session(subject.key)
    old = await service.append_event(subject.key, say("old", {"n": 1}))
    twice = say("twice", {"m": 1})
    batch = [say("a"), old, twice, say("again", {"m": 2}, id=twice.id), say("b")]
    stored = await service.append_events(subject.key, batch)
    assert [event.seq for event in stored] == [2, 1, 3, 3, 4]
    session = await service.get_session(subject.key)
    assert session is not None
    assert said(session.events) == ["old", "a", "twice", "b"]
    assert session.state == {"n": 1, "m": 1}


async def check_a_repeat_is_known_after_trimming(subject: Subject) -> None:
    """An event that the limit has trimmed is still recognised when it is sent again."""
    service = subject.service(event_limit=1)
    await service.create_session(subject.key)
    first = await service.append_event(subject.key, say("first", {"n": 1}))
    await service.append_event(subject.key, say("second", {"n": 2}))
    assert (await service.append_event(subject.key, first)).seq == 1
    session = await service.get_session(subject.key)
    assert session is not None
    assert said(session.events) == ["second"]
    assert session.state == {"n": 2}


async def check_a_batch_may_push_out_what_it_repeats(subject: Subject) -> None:
    """A repeat is answered though the rest of its batch makes the log forget its id."""
    service = subject.service(event_limit=1)
    await service.create_session(subject.key)
    first = await service.append_event(subject.key, say("first"))
    for size in (500, 500):
        await service.append_events(subject.key, [say("x") for _ in range(size)])
    batch = [first, *(say("y") for _ in range(999))]
    stored = await service.append_events(subject.key, batch)
    assert [event.seq for event in stored] == [1, *range(1002, 2001)]
    assert [event.seq for event in await service.get_events(subject.key)] == [2000]


async def check_a_repeat_wins_over_a_conflict(subject: Subject) -> None:
    """A retry of a write that took effect succeeds, though it moved the revision itself."""
    service = subject.service()
    session = await service.create_session(subject.key)
    event = say("once", {"n": 1})
    for _ in range(2):
        stored = await service.append_event(subject.key, event, expected_revision=session.revision)
        assert stored.seq == 1
    with raises(RevisionConflictError):
        await service.append_events(
            subject.key, [event, say("new")], expected_revision=session.revision
        )
    assert said(await service.get_events(subject.key)) == ["once"]


async def check_a_repeated_create_finds_its_own_session(subject: Subject) -> None:
    """A create that is repeated after a lost reply finds its own session."""
    backend = subject.service().backend
    changes, token = Changes(session={"n": b"1"}), new_id()
    first = await backend.create(subject.key, changes, token=token)
    assert await backend.create(subject.key, changes, token=token) == first
    await backend.append(subject.key, [Entry("e", 0, b"{}")])
    again = await backend.create(subject.key, changes, token=token)
    assert (again.created, again.last_seq) == (first.created, 1)
    found = await backend.get_or_create(subject.key, Changes(), NO_EVENTS)
    assert found.created == first.created


async def check_a_repeat_of_other_content_is_answered_with_the_first(subject: Subject) -> None:
    """Whatever comes with an id that is stored, the answer is what is stored, and nothing moves."""
    service = subject.service()
    held = await service.create_session(subject.key, {"gone": 1})
    delta = {"n": 1, "b": b"\x00", "gone": DELETE, "user:n": 1, "app:n": 1}
    first = await service.append_event(held, say("first", delta, id="e", branch="b"))
    before = await stored_session(service, subject.key)
    assert before.events == [first]
    other = say("other", {"n": 2, "m": 2, "user:n": 2, "app:m": 2}, id="e")
    for target in (subject.key, held):
        assert await service.append_event(target, other) == first
        assert await service.append_event(target, other, expected_revision=99) == first
        assert await service.append_events(target, [other, other]) == [first, first]
    assert held == await stored_session(service, subject.key) == before


async def check_repeats_among_new_events_are_answered_with_the_first(subject: Subject) -> None:
    """In a batch each repeat is answered with what is stored, also earlier in that batch."""
    service = subject.service()
    held = await service.create_session(subject.key)
    old = await service.append_event(held, say("old", {"n": 1}, id="old"))
    batch = [
        say("a", {"n": 2}, id="a"),
        say("not old", {"n": 3, "x": 3}, id="old"),
        say("b", {"m": 4}, id="b"),
        say("not a", {"n": 5, "y": 5}, id="a"),
        say("not b", {"m": DELETE}, id="b"),
    ]
    for _ in range(2):
        stored = await service.append_events(held, batch)
        assert said(stored) == ["a", "old", "b", "a", "b"]
        assert stored == [held.events[each.seq - 1] for each in stored]
        assert stored[1] == old
        assert held == await stored_session(service, subject.key)
        assert held.state == {"n": 2, "m": 4}


async def check_a_repeat_of_what_was_trimmed_is_answered_as_given(subject: Subject) -> None:
    """Of a trimmed event only id and position are known; its repeat changes nothing either."""
    service = subject.service(event_limit=2)
    held = await service.create_session(subject.key)
    await service.append_event(held, say("first", {"n": 1}, id="e"))
    await service.append_events(held, [say("second", {"n": 2}), say("third")])
    other = say("other", {"n": 3, "m": 3, "user:m": 3, "app:m": 3, "temp:t": 3}, id="e")
    for _ in range(2):
        answer = await service.append_event(held, other)
        assert (answer.seq, answer.content) == (1, "other")
        assert held == await stored_session(service, subject.key)
    mixed = await service.append_events(held, [other, say("fourth")])
    assert [(each.seq, each.content) for each in mixed] == [(1, "other"), (4, "fourth")]
    assert held == await stored_session(service, subject.key)
    assert (said(held.events), held.state) == (["third", "fourth"], {"n": 2})


async def check_a_session_that_is_behind_learns_what_is_stored(subject: Subject) -> None:
    """A held session is brought up to date by a repeat of what others have stored since."""
    service, other = subject.service(), subject.service()
    a, b = say("a", {"n": "a", "x": 1}, id="a"), say("b", {"n": "b", "x": DELETE}, id="b")
    not_a = say("not a", {"n": "other", "y": 1}, id="a")
    for theirs, ours in (
        ([a], [a]),
        ([a], [not_a]),
        ([a, b], [a, b]),
        ([a, b], [b, a]),
        ([b, a], [a, b]),
        ([a, b], [a]),
        ([a, b], [b]),
        ([a, b], [not_a, b]),
        ([a], [a, b]),
        ([a], [not_a, b]),
        ([a], [b, not_a]),
        ([a, b], [a, a]),
    ):
        old = await service.create_session(subject.key)
        await service.append_event(old, say("old", id="old"))
        await other.append_events(subject.key, theirs)
        answers = await service.append_events(old, ours)
        fresh = await stored_session(service, subject.key)
        assert old == fresh
        assert answers == [fresh.events[each.seq - 1] for each in answers]
        assert [each.id for each in answers] == [each.id for each in ours]
        await service.delete_session(subject.key)


async def check_a_repeat_beside_what_was_before_is_noticed(subject: Subject) -> None:
    """Repeats of old and of unseen events, as many as others have stored, add up to nothing."""
    service, other = subject.service(), subject.service()
    held = await service.create_session(subject.key)
    old = await service.append_event(held, say("old", {"n": 1}))
    unseen = say("unseen", {"n": 2})
    await other.append_events(subject.key, [unseen, say("theirs", {"n": 3})])
    await service.append_events(held, [old, unseen])
    assert held == await stored_session(service, subject.key)


async def check_temporary_names_come_with_what_is_stored(subject: Subject) -> None:
    """``temp:`` names reach the object if the event is stored as it was given, by any call."""
    service, other = subject.service(), subject.service()
    held = await service.create_session(subject.key)
    event = say("a", {"n": 1, "temp:t": 1}, id="a")
    await other.append_event(subject.key, event)
    await service.append_event(held, event)
    assert held.state == {"n": 1, "temp:t": 1}
    await service.append_event(held, say("not a", {"n": 2, "temp:t": 2, "temp:u": 2}, id="a"))
    assert held.state == {"n": 1, "temp:t": 1}
    batch = [say("b", {"temp:b": 1}, id="b"), say("not b", {"temp:b": 2, "temp:c": 2}, id="b")]
    await service.append_events(held, batch)
    assert held.state == {"n": 1, "temp:t": 1, "temp:b": 1}


async def check_a_receipt_tells_what_is_stored(subject: Subject) -> None:
    """Each entry that was stored before is there with its stored bytes, if the log holds them."""
    backend = subject.service(event_limit=3).backend
    key = subject.key
    await backend.create(key, Changes(), token=new_id())

    async def append(*entries: tuple[str, bytes]) -> tuple[list[int], dict[int, bytes]]:
        receipt = await backend.append(key, [Entry(name, 1, data) for name, data in entries])
        return list(receipt.seqs), dict(receipt.repeats)

    assert await append(("a", b"[1]")) == ([1], {})
    assert await append(("b", b"[2]"), ("c", b"[3]")) == ([2, 3], {})
    assert await append(("b", b"[2]")) == ([2], {0: b"[2]"})
    assert await append(("c", b"[9]"), ("a", b"[9]")) == ([3, 1], {0: b"[3]", 1: b"[1]"})
    # What this very call trims was held before; what it stores it tells of, too.
    mixed = (("a", b"[9]"), ("d", b"[4]"), ("d", b"[9]"), ("b", b"[9]"), ("d", b"[8]"))
    assert await append(*mixed) == ([1, 4, 4, 2, 4], {0: b"[1]", 2: b"[4]", 3: b"[2]", 4: b"[4]"})
    assert await append(("a", b"[1]"), ("b", b"[9]")) == ([1, 2], {0: b"", 1: b"[2]"})
    many = [(f"n{n}", b"[5,%d]" % n) for n in range(5)]  # A payload holds its id, so all differ.
    assert await append(*many, ("n0", b"[9]")) == ([*range(5, 10), 5], {5: b"[5,0]"})
    assert await append(("n0", b"[9]"), ("n4", b"[9]")) == ([5, 9], {0: b"", 1: b"[5,4]"})
    receipt = await backend.update_state(key, Changes(session={"n": b"1"}))
    assert (list(receipt.seqs), dict(receipt.repeats)) == ([], {})
