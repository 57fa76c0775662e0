"""Back in time, promise 14: the end of a log is taken back, with the state of then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentsession.backend import Claim
from agentsession.errors import (
    BackendUnavailableError,
    CallNotOpenError,
    EventGoneError,
    EventNotFoundError,
    LeaseLostError,
    OutcomeUnknownError,
    RevisionConflictError,
    RewindError,
    SessionBusyError,
    SessionNotFoundError,
)
from agentsession.events import Event, Rewind, ToolCall, ToolResult, new_id
from agentsession.history import effective
from agentsession.state import DELETE, NO_CHANGES
from agentsession.testing._checks.asserting import raises, said, say, stored_session, swapped

if TYPE_CHECKING:
    from agentsession.backend import EventSlice, Window
    from agentsession.service import SessionService
    from agentsession.sessions import SessionKey
    from agentsession.testing._subject import Subject


async def _filled(service: SessionService, key: SessionKey, count: int = 5) -> None:
    """Make a session with some events, each of which counts itself in the state."""
    await service.create_session(key, {"n": 0})
    for number in range(1, count + 1):
        delta: dict[str, Any] = {"n": number, f"only {number}": True}
        await service.append_event(key, say(str(number), delta, id=f"e{number}"))


def _turn(name: str, **fields: Any) -> list[Event]:
    return [
        say(name, id=name, invocation_id=name),
        Event(author="a", content="answer", invocation_id=name, **fields),
    ]


async def check_a_rewind_takes_back_the_end(subject: Subject) -> None:
    """Log and state are as they were right after that event; what is stored stays."""
    service = subject.service(event_limit=None)
    await _filled(service, subject.key)
    then = await service.fork(subject.key, subject.another_key(), at_seq=3)
    before = await stored_session(service, subject.key)
    session = await service.rewind(subject.key, to_seq=3)
    assert session == await stored_session(service, subject.key)
    assert session.events == then.events == before.events[:3]
    assert session.state == then.state == {"n": 3, "only 1": True, "only 2": True, "only 3": True}
    assert (session.revision, session.last_seq) == (before.revision + 1, 6)
    assert session.incarnation == before.incarnation
    added = await service.append_event(subject.key, say("on"))
    assert added.seq == 7
    assert said(await service.get_events(subject.key)) == ["1", "2", "3", "on"]
    raw = await service.get_events(subject.key, raw=True)
    assert [event.seq for event in raw] == [1, 2, 3, 4, 5, 6, 7]
    assert raw[:5] == before.events
    assert raw[5].rewind == Rewind(3)
    assert [event.seq for event in effective(raw)] == [1, 2, 3, 7]


async def check_every_way_of_reading_sees_what_is_left(subject: Subject) -> None:
    """Pages from both ends, windows, single events, sessions and histories."""
    service = subject.service(event_limit=None)
    await _filled(service, subject.key, 8)
    await service.rewind(subject.key, to_seq=2)
    await service.append_events(subject.key, [say("a", id="a"), say("b")])  # 10 and 11
    await service.rewind(subject.key, to_seq=10)
    await service.append_events(subject.key, [say("c"), say("d")])  # 13 and 14
    left = [1, 2, 10, 13, 14]

    async def page(**options: Any) -> list[int]:
        return [event.seq for event in await service.get_events(subject.key, **options)]

    for limit in (1, 2, 5, 100):
        assert await page(limit=limit) == left[:limit]
        assert await page(limit=limit, newest_first=True) == left[::-1][:limit]
        session = await service.get_session(subject.key, num_recent_events=limit)
        assert session is not None
        assert [event.seq for event in session.events] == left[-limit:]
    for after in range(15):
        later = [seq for seq in left if seq > after]
        assert await page(after_seq=after) == later
        assert await page(before_seq=after + 1, newest_first=True) == [
            seq for seq in reversed(left) if seq <= after
        ]
        session = await service.get_session(subject.key, after_seq=after)
        assert session is not None
        assert [event.seq for event in session.events] == later
    assert await page(around="a", limit=3) == [2, 10, 13]
    assert await page(around="e4", limit=3, raw=True) == [3, 4, 5]
    for anchor in ("e4", 4, 9):
        with raises(EventNotFoundError):
            await page(around=anchor)
    history = await service.get_history(subject.key)
    assert [event.seq for event in history] == left
    assert [event.seq for event in await service.get_history(subject.key, max_turns=2)] == left[-2:]


async def check_state_of_then_can_be_had_after_each_event(subject: Subject) -> None:
    """Whatever came with an event or without, was set anew, deleted, or set back."""
    service = subject.service(event_limit=None)
    await service.create_session(subject.key, {"a": 0, "kept": "x"})
    states = [dict((await stored_session(service, subject.key)).state)]
    deltas: list[dict[str, Any]] = [
        {"a": 1},
        {},
        {"a": DELETE, "b": 1},
        {"b": DELETE, "never": DELETE},
        {"a": 1, "b": [1, {"c": None}]},
        {"a": 1},
    ]
    for number, delta in enumerate(deltas):
        await service.append_event(subject.key, say(str(number), delta))
        states.append(dict((await stored_session(service, subject.key)).state))
        # Between two events: set and set back, set twice, deleted and set again.
        await service.update_session_state(subject.key, {"b": "between", f"x{number}": 1})
        await service.update_session_state(subject.key, {"b": number, f"x{number}": DELETE})
        await service.update_session_state(subject.key, {"a": DELETE})
        await service.update_session_state(subject.key, {"a": "between"})
    for seq, state in enumerate(states):
        fork = await service.fork(subject.key, subject.another_key(), at_seq=seq)
        assert fork.state == state, seq
    for seq in range(len(deltas), -1, -1):
        session = await service.rewind(subject.key, to_seq=seq)
        assert session.state == states[seq], seq
        await service.append_event(subject.key, say("again", {"a": "again", "b": "again"}))


async def check_state_of_user_and_application_is_not_taken_back(subject: Subject) -> None:
    """Other sessions share it."""
    service = subject.service(event_limit=None)
    await service.create_session(subject.key)
    await service.append_event(subject.key, say("1"))
    await service.append_event(subject.key, say("2", {"n": 2, "user:n": 2, "app:n": 2}))
    session = await service.rewind(subject.key, to_seq=1)
    assert session.state == {"user:n": 2, "app:n": 2}


async def check_a_rewind_may_leave_state(subject: Subject) -> None:
    """Then a later one goes back to what it was all the same."""
    service = subject.service(event_limit=None)
    await _filled(service, subject.key)
    session = await service.rewind(subject.key, to_seq=3, restore_state=False)
    assert (said(session.events), session.state["n"]) == (["1", "2", "3"], 5)
    await service.append_event(subject.key, say("on", {"n": "on"}))
    session = await service.rewind(subject.key, to_seq=2)
    assert (said(session.events), session.state["n"]) == (["1", "2"], 2)
    assert "only 3" not in session.state


async def check_a_rewind_to_the_beginning(subject: Subject) -> None:
    """Nothing is left, and what comes next is where the log begins."""
    service = subject.service(event_limit=None)
    await _filled(service, subject.key)
    session = await service.rewind(subject.key, to_seq=0)
    assert (session.events, session.state) == ([], {"n": 0})
    assert session.first_seq == 7
    summary = Event(author="a", content="what was said")
    await service.append_events(subject.key, [summary, say("on")])
    session = await stored_session(service, subject.key)
    # It is no half of a turn, though it is not the user's.
    assert said(session.history()) == said(await service.get_history(subject.key))
    assert said(session.history()) == ["what was said", "on"]


async def check_something_else_in_the_place_of_the_end(subject: Subject) -> None:
    """In one step: an edited message, another answer, a history made shorter."""
    service = subject.service(event_limit=None)
    await _filled(service, subject.key)
    before = await stored_session(service, subject.key)
    other = [say("other", {"n": "other"}), say("more")]
    with raises(RevisionConflictError):
        await service.append_events(
            subject.key, other, rewind_to=3, expected_revision=before.revision - 1
        )
    assert await stored_session(service, subject.key) == before
    for _ in range(2):
        # The second time is a repeat.
        stored = await service.append_events(subject.key, other, rewind_to=3)
        assert [event.seq for event in stored] == [7, 8]
        session = await stored_session(service, subject.key)
        assert said(session.events) == ["1", "2", "3", "other", "more"]
        assert session.state["n"] == "other"
        assert "only 4" not in session.state
        assert (session.revision, session.last_seq) == (before.revision + 1, 8)
    short = await service.append_events(
        subject.key, [Event(author="a", content="short")], rewind_to=0, restore_state=False
    )
    session = await stored_session(service, subject.key)
    assert session.events == short
    assert session.state["n"] == "other"


async def check_where_a_log_cannot_go_back_to(subject: Subject) -> None:
    """Each place has its reason, and nothing is stored, in any scope."""
    service = subject.service(event_limit=5)
    await service.create_session(subject.key, {"n": 0})
    await service.append_events(subject.key, [*_turn("one"), *_turn("two"), *_turn("three")])
    await service.rewind(subject.key, to_seq=4)  # The mark is 7, and 1 and 2 are trimmed.
    before = await stored_session(service, subject.key)
    assert [event.seq for event in before.events] == [3, 4]
    instead = say("instead", {"n": 1, "user:n": 1, "app:n": 1})
    for seq, problem in (
        (1, "trimmed"),
        (0, "state_trimmed"),
        (5, "taken_back"),
        (7, "taken_back"),
        (8, "ahead"),
        (3, "half_turn"),
    ):
        with raises(RewindError) as raised:
            await service.rewind(subject.key, to_seq=seq)
        assert (raised.error.seq, raised.error.problem) == (seq, problem)
        with raises(RewindError) as raised:
            await service.append_events(subject.key, [instead], rewind_to=seq)
        assert raised.error.problem == problem
        with raises(RewindError) as raised:
            await service.fork(subject.key, subject.another_key(), at_seq=seq)
        assert raised.error.problem == problem
    with raises(TypeError):
        await service.rewind(subject.key, to_seq=4, restore_state=None)  # type: ignore[arg-type]  # on purpose
    known = before.events[1]
    for batch in ([known], [instead, known], [known, instead]):
        with raises(RewindError) as raised:
            await service.append_events(subject.key, batch, rewind_to=4)
        assert raised.error.problem == "stored"
    assert await stored_session(service, subject.key) == before
    session = await service.rewind(subject.key, to_seq=0, restore_state=False)
    assert session.events == []
    missing = subject.another_key()
    with raises(SessionNotFoundError):
        await service.rewind(missing, to_seq=0)
    with raises(SessionNotFoundError):
        await service.append_events(missing, [instead], rewind_to=0)


async def check_a_part_of_what_was_put_in_the_place_is_refused(subject: Subject) -> None:
    """A repeat is one of all that was asked for; the rest is another call, with an id twice."""
    service = subject.service(event_limit=None)
    await _filled(service, subject.key)
    one, other = say("one", id="one"), say("other", id="other")
    await service.append_events(subject.key, [one], rewind_to=3)
    before = await stored_session(service, subject.key)
    for events, to_seq, restores in (
        ([one, other], 3, True),
        ([one, other], 1, True),
        ([one], 1, True),
        ([one], 3, False),
    ):
        with raises(RewindError) as raised:
            await service.append_events(
                subject.key, events, rewind_to=to_seq, restore_state=restores
            )
        assert raised.error.problem == "stored"
    await service.append_events(subject.key, [one], rewind_to=3)
    assert await stored_session(service, subject.key) == before
    # No event of a user's is taken for a mark.
    await service.append_event(subject.key, say("a", id="x:rewind"))
    await service.append_events(subject.key, [say("x", id="x")], rewind_to=1)
    assert said(await service.get_events(subject.key)) == ["1", "x"]


async def check_the_middle_of_a_turn_is_known(subject: Subject) -> None:
    """Also where others have written in between; and a repeat is answered there as elsewhere."""
    service = subject.service(event_limit=None, max_event_size=2000, max_read_size=2000)
    await service.create_session(subject.key)
    first, answer = _turn("one")
    await service.append_events(subject.key, [first, say("note"), answer, say("note")])
    with raises(RewindError) as raised:
        await service.rewind(subject.key, to_seq=1)
    assert raised.error.problem == "half_turn"
    more = [Event(author="a", content="more", invocation_id="one")]
    for _ in range(2):
        # The first is no half of a turn since nothing comes after it; the second is a repeat.
        stored = await service.append_events(subject.key, more, rewind_to=3)
        assert stored[0].seq == 6
    # However large events are, two of them can be looked at.
    for number in range(3):
        await service.append_event(subject.key, say("x" * 1500, id=f"large {number}"))
    await service.rewind(subject.key, to_seq=7, num_recent_events=1)
    left = await service.get_events(subject.key, after_seq=6, limit=1)
    assert [event.id for event in left] == ["large 0"]
    assert await service.get_events(subject.key, after_seq=7) == []


async def check_what_was_done_is_not_denied(subject: Subject) -> None:
    """Where a session goes back, or is forked, and cannot be loaded then, the error says so."""
    service = subject.service(event_limit=None)
    await _filled(service, subject.key)
    backend, new = service.backend, subject.another_key()
    held = await stored_session(service, subject.key)

    async def unavailable(key: SessionKey, _: Window) -> None:
        raise BackendUnavailableError(key, "nothing was written")

    with swapped(backend, "get", unavailable):
        for call in (
            service.rewind(subject.key, to_seq=3),
            service.rewind(held, to_seq=2),
            service.fork(subject.key, new),
        ):
            with raises(OutcomeUnknownError) as raised:
                await call
            assert "it was carried out" in raised.error.reason
    assert said(await service.get_events(subject.key)) == ["1", "2"]
    assert said(await service.get_events(new)) == ["1", "2"]

    async def replaced(key: SessionKey, window: Window, _get: Any = backend.get) -> Any:
        await backend.delete(key)
        await backend.create(key, NO_CHANGES, token=new_id())
        return await _get(key, window)

    with swapped(backend, "get", replaced), raises(SessionNotFoundError):
        await service.rewind(subject.key, to_seq=1)


async def check_a_session_that_holds_the_end_gets_what_comes_before(subject: Subject) -> None:
    """Whoever has loaded the newest events has the newest ones afterwards."""
    service = subject.service(event_limit=None)
    await _filled(service, subject.key, 9)
    session = await service.get_session(subject.key, num_recent_events=2)
    assert session is not None
    await service.rewind(session, to_seq=5)
    assert said(session.events)[-2:] == ["4", "5"]
    await service.rewind(subject.key, to_seq=3)
    await service.append_event(session, say("on"))
    assert said(session.events)[-3:] == ["2", "3", "on"]


async def check_what_state_was_is_kept_once(subject: Subject) -> None:
    """However often a session goes back and leaves state, it can go back to what it was."""
    service = subject.service(event_limit=None)
    await _filled(service, subject.key, 2)
    for number in range(20):
        await service.append_event(subject.key, say("try", {"n": f"try {number}"}))
        await service.rewind(subject.key, to_seq=2, restore_state=False)
    await service.append_event(subject.key, say("on", {"n": "on"}))
    assert (await stored_session(service, subject.key)).state["n"] == "on"
    fork = await service.fork(subject.key, subject.another_key(), at_seq=2)
    assert fork.state["n"] == 2
    session = await service.rewind(subject.key, to_seq=1)
    assert session.state["n"] == 1


async def check_a_rewind_fences_off_the_turn_that_runs(subject: Subject) -> None:
    """What it still writes is refused, and whoever waits is next."""
    service = subject.service(event_limit=None)
    await service.create_session(subject.key)
    await service.append_events(subject.key, _turn("one"))
    lease = service.lease(subject.key, run_id="two")
    await service.begin_turn(lease, say("two"))
    await service.append_event(subject.key, say("on", {"n": 1}), lease=lease)
    with raises(RewindError) as raised:
        await service.rewind(subject.key, to_seq=3)  # The message of this turn.
    assert raised.error.problem == "half_turn"
    with raises(RewindError) as raised:
        await service.rewind(subject.key, to_seq=4)
    assert raised.error.problem == "running"
    session = await service.rewind(subject.key, to_seq=2)
    assert (said(session.events), session.state) == (["one", "answer"], {})
    with raises(LeaseLostError):
        await service.append_event(subject.key, say("late"), lease=lease)
    assert await service.stop_run(subject.key) is False
    async with service.lease(subject.key, wait=0) as after:
        assert after.token > lease.token
    assert said(await service.get_events(subject.key)) == ["one", "answer"]


async def check_a_turn_may_go_back_itself(subject: Subject) -> None:
    """To an event of its own or to before it began; it goes on, and nobody else may."""
    service = subject.service(event_limit=None)
    lease = service.lease(subject.key, run_id="one", exclusive=True)
    await service.begin_turn(lease, say("one"))
    tries = [Event(author="a", content=words) for words in ("try", "err")]
    stored = await service.append_events(subject.key, tries, lease=lease)
    with raises(SessionBusyError):
        await service.rewind(subject.key, to_seq=0)
    await service.rewind(subject.key, to_seq=stored[0].seq, lease=lease)
    other = [Event(author="a", content="other")]
    await service.append_events(subject.key, other, rewind_to=1, lease=lease)
    session = await stored_session(service, subject.key)
    assert said(session.events) == ["one", "other"]
    assert {event.invocation_id for event in session.events} == {"one"}
    end = Event(author="a", content="end", outcome="completed")
    await service.append_event(subject.key, end, lease=lease)
    with raises(LeaseLostError):
        await service.rewind(subject.key, to_seq=0, lease=lease)
    assert said(await service.get_events(subject.key)) == ["one", "other", "end"]


async def check_a_turn_that_waits_is_taken_back_whole(subject: Subject) -> None:
    """Nobody can answer its calls then."""
    service = subject.service(event_limit=None)
    lease = service.lease(subject.key, run_id="one")
    await service.begin_turn(lease, say("one"))
    call = Event(author="a", content=[ToolCall("c", "t")], outcome="waiting")
    await service.append_event(subject.key, call, lease=lease)
    with raises(RewindError) as raised:
        await service.rewind(subject.key, to_seq=2)
    assert raised.error.problem == "running"
    session = await service.rewind(subject.key, to_seq=0)
    assert session.events == []
    with raises(CallNotOpenError):
        await service.resume_turn(service.lease(subject.key), [ToolResult("c", 1)])
    async with service.lease(subject.key, wait=0):
        pass


async def check_a_turn_that_was_taken_back_is_not_closed(subject: Subject) -> None:
    """Its process died, and nothing of it is left."""
    service = subject.service(event_limit=None)
    await service.create_session(subject.key)
    await service.append_event(subject.key, say("before"))
    for looked_at in (False, True):
        lease = service.lease(subject.key, ttl=1, run_id="dead")
        await service.begin_turn(lease, say("dead"))
        lease.abandon()
        await subject.advance(1.5)
        seq = (await stored_session(service, subject.key)).last_seq
        with raises(RewindError) as raised:
            await service.rewind(subject.key, to_seq=seq)
        assert raised.error.problem == "running"
        if looked_at:
            # Somebody has taken over, and died before the turn was closed.
            await _taken_over(service, subject)
        await service.rewind(subject.key, to_seq=1)
        assert await service.close_turn(subject.key) is None
        assert said(await service.get_events(subject.key)) == ["before"]


async def _taken_over(service: SessionService, subject: Subject) -> None:
    """Take the lease of a turn that was left, and leave it as well."""
    owner = service.backend.new_owner()
    claim = Claim(owner=owner, run_id="next", ttl=1000)
    standing = await service.backend.acquire(subject.key, claim, 1)
    assert standing.unended is not None
    await subject.advance(1.5)


async def check_a_message_that_was_taken_back_is_not_answered(subject: Subject) -> None:
    """A client that sends it again late is told, and nothing runs."""
    service = subject.service(event_limit=3)
    lease = service.lease(subject.key, run_id="one")
    await service.begin_turn(lease, say("one", id="one"))
    end = Event(author="a", content="end", outcome="completed")
    await service.append_event(subject.key, end, lease=lease)
    await service.rewind(subject.key, to_seq=0)
    with raises(EventGoneError) as raised:
        await service.begin_turn(
            service.lease(subject.key, run_id="one"), say("one", {"temp:x": 1}, id="one")
        )
    assert raised.error.event_id == "one"
    async with service.lease(subject.key, wait=0):
        pass
    assert await service.get_events(subject.key) == []
    # Nor when the limit has trimmed it.
    later = [Event(author="a", content="x") for _ in range(4)]
    await service.append_events(subject.key, later)
    with raises(EventGoneError):
        await service.begin_turn(service.lease(subject.key, run_id="one"), say("one", id="one"))
    async with service.lease(subject.key, wait=0):
        pass


async def check_a_session_at_hand_goes_back(subject: Subject) -> None:
    """By its own rewind, and by that of somebody else, with its next write."""
    service = subject.service(event_limit=None)
    await _filled(service, subject.key)
    session = await stored_session(service, subject.key)
    assert await service.rewind(session, to_seq=3) is session
    assert session == await stored_session(service, subject.key)
    other = await stored_session(service, subject.key)
    await service.append_events(session, [say("a", {"n": "a"}), say("b")], rewind_to=2)
    assert session == await stored_session(service, subject.key)
    await service.append_event(other, say("c"))
    assert other == await stored_session(service, subject.key)
    assert said(other.events) == ["1", "2", "a", "b", "c"]
    await service.rewind(subject.key, to_seq=1)
    await service.update_session_state(session, {"m": 1})
    assert session == await stored_session(service, subject.key)
    await service.delete_session(subject.key)
    await service.create_session(subject.key)
    for call in (
        service.rewind(session, to_seq=0),
        service.append_events(session, [say("no")], rewind_to=0),
        service.fork(session, subject.another_key()),
    ):
        with raises(SessionNotFoundError):
            await call


async def check_a_page_is_of_one_log(subject: Subject) -> None:
    """Where the log goes back between two reads of a page, it is read anew."""
    service = subject.service(event_limit=None)
    await service.create_session(subject.key)
    for author in ("a", "b"):
        await service.append_events(
            subject.key, [Event(author=author, content=str(n)) for n in range(600)]
        )
    reads = 0
    backend = service.backend

    async def read(*args: Any, _read: Any = backend.read, **options: Any) -> EventSlice:
        nonlocal reads
        reads += 1
        found: EventSlice = await _read(*args, **options)
        if reads == 1:
            other = [Event(author="b", content="other")]
            await service.append_events(subject.key, other, rewind_to=2)
        return found

    with swapped(backend, "read", read):
        page = await service.get_events(subject.key, author="b", limit=1000, newest_first=True)
        assert said(page) == ["other"]
        reads = 0
        history = await service.get_history(subject.key)
        assert said(history) == ["0", "1", "other"]


async def check_many_rewinds_leave_little(subject: Subject) -> None:
    """However often a session goes back, to read it costs as much, and it expires whole."""
    service = subject.service(event_limit=20)
    await service.create_session(subject.key)
    await service.append_event(subject.key, say("first", {"n": 0}))
    for number in range(50):
        tries = [say(f"try {number}", {"n": number}), say("err", {f"x{number}": 1})]
        await service.append_events(subject.key, tries)
        if number % 7 == 0:
            continue
        seq = [event.seq for event in await service.get_events(subject.key, limit=1000)][-3]
        session = await service.rewind(subject.key, to_seq=seq)
        assert session.events[-1].seq == seq
    raw = await service.get_events(subject.key, raw=True, limit=1000)
    assert len(raw) == 20
    session = await stored_session(service, subject.key)
    assert session.events == effective(raw)
