"""Turns begin in one step and end in one: promise 12."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from agentsession.backend import Claim
from agentsession.errors import (
    CallNotOpenError,
    EventTooLargeError,
    LeaseLostError,
    SessionBusyError,
    SessionNotFoundError,
    StateValueError,
)
from agentsession.events import Event, ToolCall, ToolResult
from agentsession.history import NO_RESULT, unanswered_calls
from agentsession.testing._checks.asserting import raises, said, say, stored_session, swapped

if TYPE_CHECKING:
    from agentsession.backend import Standing
    from agentsession.leases import Lease
    from agentsession.service import SessionService
    from agentsession.sessions import SessionKey
    from agentsession.testing._subject import Subject


def _call(*call_ids: str) -> Event:
    return Event(author="agent", content=[ToolCall(each, "tool") for each in call_ids])


async def _begun(service: SessionService, key: SessionKey, run_id: str, *events: Event) -> Lease:
    """Begin a turn, and store these events."""
    lease = service.lease(key, run_id=run_id)
    await service.begin_turn(lease, say(f"message of {run_id}", id=run_id))
    for event in events:
        await service.append_event(key, event, lease=lease)
    return lease


async def check_a_turn_begins_in_one_step(subject: Subject) -> None:
    """With the lease, the message and the session, which is made if it is not there."""
    service = subject.service()
    for number in range(3):
        lease = service.lease(subject.key, run_id=f"run {number}")
        message = say(str(number), {"n": number, "temp:t": 1})
        start = await service.begin_turn(lease, message)
        assert lease.held
        assert (start.message.content, start.is_repeat) == (str(number), False)
        assert (start.message.seq, start.message.invocation_id) == (2 * number + 1, f"run {number}")
        assert start.session.events[-1] == start.message
        assert start.session.state == {"n": number, "temp:t": 1}
        assert start.session.revision == start.session.last_seq + 1
        end = say("", outcome="completed")
        await service.append_event(start.session, end, lease=lease)
        assert not lease.held
    assert len((await stored_session(service, subject.key)).events) == 6


async def check_a_turn_begins_with_the_events_that_are_asked_for(subject: Subject) -> None:
    """The newest ones before the message, and the message in any case."""
    service = subject.service()
    for asked, loaded in ((None, 6), (0, 1), (2, 3), (100, 6)):
        key = subject.another_key()
        await service.create_session(key)
        await service.append_events(key, [say(str(n)) for n in range(5)])
        lease = service.lease(key)
        start = await service.begin_turn(lease, say("message"), num_recent_events=asked)
        assert len(start.session.events) == loaded
        assert start.session.last_seq == 6


async def check_a_message_that_is_stored_is_a_repeat(subject: Subject) -> None:
    """The turn begins all the same, with the message that is stored."""
    service = subject.service()
    first = await _begun(service, subject.key, "one")
    await first.release()
    lease = service.lease(subject.key, run_id="one")
    start = await service.begin_turn(lease, say("other words", {"n": 1}, id="one"))
    assert (start.message.content, start.message.seq) == ("message of one", 1)
    assert start.is_repeat
    assert start.session.state == {}


async def check_a_turn_with_a_stored_message_waits_as_others_do(subject: Subject) -> None:
    """It gives its place in line up, and has what was stored while it stood there."""
    service = subject.service()
    await service.create_session(subject.key)
    await service.append_event(subject.key, say("one", id="one", invocation_id="one"))
    first = service.lease(subject.key, run_id="first")
    await first.acquire()
    given_up = service.lease(subject.key, run_id="one", wait=0)
    with raises(SessionBusyError):
        await service.begin_turn(given_up, say("one", id="one"))
    in_line: set[str] = set()
    both = asyncio.Event()

    async def acquire(
        key: SessionKey,
        claim: Claim,
        *args: Any,
        _acquire: Any = service.backend.acquire,
        **how: Any,
    ) -> Standing:
        standing: Standing = await _acquire(key, claim, *args, **how)
        if standing.state == "in_line":
            in_line.add(claim.owner)
        if len(in_line) == 2:
            both.set()
        return standing

    left = service.lease(subject.key, run_id="other", wait=3600)
    staying = service.lease(subject.key, run_id="one", wait=60)
    with swapped(service.backend, "acquire", acquire):
        leaving = asyncio.create_task(service.begin_turn(left, say("one", id="one")))
        waiting = asyncio.create_task(service.begin_turn(staying, say("one", id="one")))
        async with asyncio.timeout(30):
            await both.wait()
            leaving.cancel()
            await asyncio.wait([leaving])
            end = say("meanwhile", {"n": 1}, outcome="completed")
            await service.append_event(subject.key, end, lease=first)
            start = await waiting
    assert said(start.session.events) == ["one", "meanwhile"]
    assert start.session.state == {"n": 1}
    assert start.is_repeat
    staying.abandon()
    await subject.advance(20)
    again = service.lease(subject.key, run_id="one")
    start = await service.begin_turn(again, say("one", id="one"))
    assert start.session.events[-1].outcome == "abandoned"
    assert start.session == await stored_session(service, subject.key)


async def check_a_turn_with_a_stored_message_is_closed(subject: Subject) -> None:
    """Each time that its process dies, whether it has stored something itself or not."""
    service = subject.service()
    await service.create_session(subject.key)
    await service.append_event(subject.key, say("one", id="one", invocation_id="one"))
    outcomes = [""]
    for events in ([], [_call("c")], []):
        lease = service.lease(subject.key, run_id="one", ttl=1)
        start = await service.begin_turn(lease, say("one", id="one"))
        assert start.is_repeat
        for event in events:
            await service.append_event(subject.key, event, lease=lease)
        lease.abandon()
        await subject.advance(1.5)
        end = await service.close_turn(subject.key)
        # What has an end, and nothing after it, needs no other one.
        assert (end is None) == (outcomes[-1] == "abandoned" and not events)
        log = await service.get_events(subject.key)
        outcomes = [event.outcome for event in log]
        assert outcomes[-1] == "abandoned"
        assert unanswered_calls(log) == []
    assert outcomes == ["", "abandoned", "", "abandoned"]


async def check_nothing_is_stored_of_a_turn_that_does_not_begin(subject: Subject) -> None:
    """Neither its message nor its changes to any scope, and nothing of a repeat either."""
    service = subject.service()
    await _begun(service, subject.key, "one")
    before = await stored_session(service, subject.key)
    for run_id in ("one", "two"):
        lease = service.lease(subject.key, run_id=run_id, when_busy="reject")
        with raises(SessionBusyError) as raised:
            await service.begin_turn(lease, say("no", {"n": 1, "user:n": 1, "app:n": 1}))
        assert (raised.error.run_id, raised.error.problem) == ("one", "busy")
        assert raised.error.ends_at is not None
        assert not lease.held
    late = service.lease(subject.key, run_id="late", wait=0)
    with raises(SessionBusyError) as raised:
        await service.begin_turn(late, say("no"))
    assert raised.error.problem == "waited"
    assert await stored_session(service, subject.key) == before


async def check_a_lease_may_be_given_back_while_its_turn_begins(subject: Subject) -> None:
    """Then the turn has not begun, or has ended; and the session is free."""
    service = subject.service()
    for ticks in range(25):
        key = subject.another_key()
        await service.create_session(key)
        lease = service.lease(key, run_id="one")
        beginning = asyncio.create_task(service.begin_turn(lease, say("one", id="one")))
        for _ in range(ticks):
            await asyncio.sleep(0)
        await lease.release()
        await asyncio.wait([beginning])
        events = await service.get_events(key)
        assert [event.outcome for event in events] in ([], ["", "cancelled"]), ticks
        async with service.lease(key, wait=0):
            pass
        beginning.exception()  # Whether it was too late depends on the backend.


async def check_a_turn_of_another_life_does_not_begin(subject: Subject) -> None:
    """With a lease of what was read from a session that was made anew since."""
    service = subject.service()
    old = await service.create_session(subject.key)
    await service.delete_session(subject.key)
    await service.create_session(subject.key)
    with raises(SessionNotFoundError) as raised:
        await service.begin_turn(service.lease(old), say("no"))
    assert raised.error.replaced
    assert (await stored_session(service, subject.key)).events == []


async def check_a_dead_turn_is_closed_by_the_next_one(subject: Subject) -> None:
    """Its open calls get results, in one event that says that it was abandoned."""
    service = subject.service()
    dead = await _begun(
        service,
        subject.key,
        "dead",
        _call("answered", "open 1"),
        Event(author="tool", content=[ToolResult("answered", 1)]),
        _call("open 2"),
    )
    await service.append_event(subject.key, Event(author="webhook", content=[ToolCall("x", "x")]))
    await subject.advance(16)
    fresh = service.lease(subject.key, run_id="fresh")
    start = await service.begin_turn(fresh, say("next", id="next"))
    *_, closing, message = start.session.events
    assert message == start.message
    assert (closing.outcome, closing.invocation_id, closing.seq) == ("abandoned", "dead", 6)
    results = closing.tool_results
    assert [(each.call_id, each.result, each.name, each.is_error) for each in results] == [
        ("open 1", NO_RESULT, "tool", True),
        ("open 2", NO_RESULT, "tool", True),
    ]
    own = [event for event in start.session.events if event.invocation_id == "dead"]
    assert unanswered_calls(own) == []
    with raises(LeaseLostError):
        await service.append_event(subject.key, say("late"), lease=dead)
    assert (await service.append_event(subject.key, say("on time"), lease=fresh)).seq == 8


async def check_nothing_is_written_before_a_dead_turn_is_closed(subject: Subject) -> None:
    """Not with the lease that was taken over, until its holder has closed what was left."""
    service = subject.service()
    await _begun(service, subject.key, "dead", _call("open"))
    backend = service.backend
    for run_id in ("first", "second"):
        # The first one dies before it has closed anything.
        await subject.advance(16)
        claim = Claim(owner=backend.new_owner(), run_id=run_id, ttl=15_000)
        standing = await backend.acquire(subject.key, claim, 1)
        assert standing.state == "held"
        assert standing.unended is not None
        assert (standing.unended.run_id, standing.unended.after_seq) == ("dead", 0)
        await service.append_event(subject.key, say("another writer"))
    await subject.advance(16)
    ended = await service.close_turn(subject.key)
    assert ended is not None
    assert (ended.outcome, ended.seq) == ("abandoned", 5)


async def check_a_dead_turn_is_closed_on_demand(subject: Subject) -> None:
    """Once, and not while it may be alive; a turn that stored nothing leaves nothing."""
    service = subject.service()
    with raises(SessionNotFoundError):
        await service.close_turn(subject.key)
    await _begun(service, subject.key, "dead")
    with raises(SessionBusyError) as raised:
        await service.close_turn(subject.key)
    assert raised.error.run_id == "dead"
    await subject.advance(16)
    ended = await service.close_turn(subject.key)
    assert ended is not None
    assert (ended.outcome, ended.invocation_id, ended.content) == ("abandoned", "dead", "")
    assert await service.close_turn(subject.key) is None
    await service.lease(subject.key).acquire()
    await subject.advance(16)
    assert await service.close_turn(subject.key) is None
    assert (await stored_session(service, subject.key)).last_seq == 2


async def check_a_turn_that_was_told_to_stop_is_closed_as_that(subject: Subject) -> None:
    """Though its process died before it could say so."""
    service = subject.service()
    await _begun(service, subject.key, "one")
    assert await service.stop_run(subject.key)
    await subject.advance(16)
    ended = await service.close_turn(subject.key)
    assert ended is not None
    assert ended.outcome == "cancelled"


async def check_an_interrupted_turn_is_closed_by_the_next_one(subject: Subject) -> None:
    """Which does not wait where there is no grace; the fenced one stores nothing more."""
    service = subject.service()
    old = await _begun(service, subject.key, "old", _call("open"))
    new = service.lease(subject.key, when_busy="interrupt", grace=0)
    start = await service.begin_turn(new, say("stop that"))
    assert [event.outcome for event in start.session.events] == ["", "", "interrupted", ""]
    with raises(LeaseLostError):
        await service.append_event(subject.key, say("late"), lease=old)
    assert old.lost


async def check_a_turn_waits_for_somebody(subject: Subject) -> None:
    """Until then the session is busy; then it goes on, by whoever brings the results, once."""
    service = subject.service()
    waiting = _call("a", "b")
    lease = await _begun(service, subject.key, "one")
    await service.append_event(
        subject.key, Event(author="agent", content=waiting.content, outcome="waiting"), lease=lease
    )
    assert not lease.held
    await subject.advance(3600)
    for when_busy in ("reject", "queue"):
        other = service.lease(subject.key, when_busy=when_busy, wait=0)
        with raises(SessionBusyError) as raised:
            await service.begin_turn(other, say("no"))
        assert (raised.error.run_id, raised.error.ends_at) == ("one", None)
        assert raised.error.waits
    assert await service.stop_run(subject.key) is False
    with raises(SessionBusyError):
        await service.close_turn(subject.key)
    wrong = (
        ([ToolResult("c")], "c", False),
        ([ToolResult("a"), ToolResult("a")], "a", True),
        ([ToolResult("a"), ToolResult("d")], "d", False),
    )
    for results, call_id, answered in wrong:
        with raises(CallNotOpenError) as refused:
            await service.resume_turn(service.lease(subject.key), results)
        assert (refused.error.call_id, refused.error.answered) == (call_id, answered)
        with raises(SessionBusyError):
            await service.close_turn(subject.key)
    note = Event(author="job", invocation_id="job", outcome="completed")
    await service.append_event(subject.key, note)
    part = await service.resume_turn(service.lease(subject.key), [ToolResult("b", "yes")])
    assert (part.message.outcome, part.message.invocation_id) == ("waiting", "one")
    resumed = service.lease(subject.key)
    start = await service.resume_turn(resumed, [ToolResult("a", "no")])
    assert (resumed.run_id, start.message.outcome, start.message.seq) == ("one", "", 5)
    assert start.session.events[-1] == start.message
    with raises(SessionBusyError):
        await service.begin_turn(service.lease(subject.key, when_busy="reject"), say("no"))
    await service.append_event(start.session, say("done", outcome="completed"), lease=resumed)
    for call_id in ("a", "b"):
        with raises(CallNotOpenError) as refused:
            await service.resume_turn(service.lease(subject.key), [ToolResult(call_id)])
        assert refused.error.answered
    assert said((await stored_session(service, subject.key)).events)[-1] == "done"


async def check_results_that_cannot_be_stored_leave_the_turn_waiting(subject: Subject) -> None:
    """They are refused, and the right ones go on with it as if nothing had been."""
    service = subject.service(max_event_size=4096)
    lease = await _begun(service, subject.key, "one")
    await service.append_event(
        subject.key,
        Event(author="agent", content=[ToolCall("a", "tool")], outcome="waiting"),
        lease=lease,
    )
    refused = (
        (object(), StateValueError),
        ("\ud800", StateValueError),
        ("x" * 5000, EventTooLargeError),
    )
    for wrong, refusal in refused:
        with raises(refusal):
            await service.resume_turn(service.lease(subject.key), [ToolResult("a", wrong)])
    start = await service.resume_turn(service.lease(subject.key), [ToolResult("a", "right")])
    assert start.message.tool_results == [ToolResult("a", "right")]


async def check_a_call_whose_turn_did_not_wait_was_not_answered(subject: Subject) -> None:
    """So that nobody looks for a result that is not there."""
    service = subject.service()
    lease = await _begun(service, subject.key, "one")
    await service.append_event(
        subject.key,
        Event(author="agent", content=[ToolCall("a", "tool")], outcome="completed"),
        lease=lease,
    )
    with raises(CallNotOpenError) as refused:
        await service.resume_turn(service.lease(subject.key), [ToolResult("a")])
    assert not refused.error.answered


async def check_a_turn_that_waits_can_be_interrupted(subject: Subject) -> None:
    """Then its calls are closed, and no answer is taken any more."""
    service = subject.service()
    lease = await _begun(service, subject.key, "one")
    await service.append_event(
        subject.key,
        Event(author="agent", content=[ToolCall("a", "tool")], outcome="waiting"),
        lease=lease,
    )
    new = service.lease(subject.key, when_busy="interrupt")
    start = await service.begin_turn(new, say("never mind"))
    outcomes = [event.outcome for event in start.session.events]
    assert outcomes == ["", "waiting", "interrupted", ""]
    assert unanswered_calls(start.session.events) == []
    with raises(SessionBusyError):
        await service.resume_turn(service.lease(subject.key), [ToolResult("a")])
    await new.release()
    with raises(CallNotOpenError):
        await service.resume_turn(service.lease(subject.key), [ToolResult("a")])


async def check_a_turn_waits_on_though_who_went_on_with_it_died(subject: Subject) -> None:
    """Before anything was stored: somebody else may bring the results."""
    service = subject.service()
    lease = await _begun(service, subject.key, "one")
    call = Event(author="agent", content=[ToolCall("a", "tool")], outcome="waiting")
    await service.append_event(subject.key, call, lease=lease)
    backend = service.backend
    claim = Claim(owner=backend.new_owner(), run_id="one", ttl=15_000, resumes=True)
    assert (await backend.acquire(subject.key, claim, 1)).state == "held"
    with raises(SessionBusyError):
        await service.resume_turn(service.lease(subject.key), [ToolResult("a")])
    await subject.advance(16)
    with raises(SessionBusyError):
        await service.begin_turn(service.lease(subject.key, when_busy="reject"), say("no"))
    start = await service.resume_turn(service.lease(subject.key), [ToolResult("a", "yes")])
    assert [event.outcome for event in start.session.events] == ["", "waiting", ""]
    assert (start.message.invocation_id, start.message.seq) == ("one", 3)
