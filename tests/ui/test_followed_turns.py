"""Turns that routers follow in the log, and what may befall them meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from agentsession import Event, SessionService, ToolCall, ToolResult
from agentsession.leases import Lease
from agentsession.testing import Subject
from agentsession.ui import _turns
from agentsession.ui._turns import followed_turn, open_calls


def say(words: str, **fields: str) -> Event:
    return Event(author="agent", content=words, **fields)  # type: ignore[arg-type]  # as a test wants


async def begin(service: SessionService, subject: Subject) -> Lease:
    """Begin a turn that has said one word."""
    lease = service.lease(subject.key, run_id="m")
    await service.begin_turn(lease, Event(author="user", content="hi", id="m"))
    await service.append_event(subject.key, say("one"), lease=lease)
    return lease


@pytest.mark.parametrize("what", ["ended", "rewound", "deleted", "left"])
async def test_a_turn_is_followed_to_whatever_end_it_has(subject: Subject, what: str) -> None:
    """One that is taken back, or gone with its session, was interrupted."""
    service, other = subject.service(), subject.service()
    lease = await begin(service, subject)
    async with asyncio.timeout(30), followed_turn(other, subject.key) as turn:
        assert turn is not None
        events = turn.events()
        assert (await anext(events)).text == "one"
        rest = asyncio.create_task(anext(events, None))
        await asyncio.sleep(0)
        match what:
            case "ended":
                await service.append_event(
                    subject.key, say("two", outcome="completed"), lease=lease
                )
            case "rewound":
                await service.rewind(subject.key, to_seq=0)
            case "deleted":
                await service.delete_session(subject.key)
            case _:
                await turn.aclose()
        last = await rest
        await events.aclose()
    assert (last.text if last else None) == ("two" if what == "ended" else None)
    assert turn.outcome == {"ended": "completed", "left": ""}.get(what, "interrupted")
    await lease.release()


async def test_a_turn_that_ends_while_it_is_looked_for_is_read(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its end, which is stored by then."""
    service = subject.service()
    lease = await begin(service, subject)
    events_of = _turns.events_of

    async def and_it_ends(*args: object) -> list[Event]:
        found = await events_of(service, subject.key, "m")
        if len(found) < 3:
            await service.append_event(subject.key, say("two", outcome="completed"), lease=lease)
        return found

    monkeypatch.setattr(_turns, "events_of", and_it_ends)
    async with followed_turn(service, subject.key) as turn:
        assert turn is not None
        assert [event.text async for event in turn.events()] == ["one", "two"]
        await turn.aclose()
    assert turn.outcome == "completed"


async def test_no_turn_is_followed_where_none_goes_on(subject: Subject) -> None:
    """Nor where there is no session."""
    service = subject.service()
    async with followed_turn(service, subject.key) as turn:
        assert turn is None
    await service.create_session(subject.key)
    async with followed_turn(service, subject.key) as turn:
        assert turn is None


async def test_a_turn_whose_calls_another_writer_has_answered_takes_an_answer_still(
    subject: Subject,
) -> None:
    """It waits still, and a page that brought nothing could neither go on with it nor ask."""
    service = subject.service()
    lease = await begin(service, subject)
    call = ToolCall("c1", "approve")
    asks = Event(author="agent", content=[call], outcome="waiting")
    await service.append_event(subject.key, asks, lease=lease)
    events, calls = await open_calls(service, subject.key)
    assert (events[-1].id, calls) == (asks.id, [call])
    answer = Event(author="hook", content=[ToolResult("c1", "yes")], invocation_id="m")
    await service.append_event(subject.key, answer)
    _, calls = await open_calls(service, subject.key)
    assert calls == [call]
