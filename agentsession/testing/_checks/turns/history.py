"""What a model may be shown of a session, read from the end of its log: promise 12."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentsession.errors import ReadTooLargeError, SessionNotFoundError
from agentsession.events import Event, Text, ToolCall, ToolResult
from agentsession.history import NO_RESULT, View
from agentsession.testing._checks.asserting import (
    raises,
    remade_while_read,
    say,
    stored_session,
    swapped,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.backend import EventSlice
    from agentsession.testing._subject import Subject


def _turn(number: int, calls: int = 1) -> list[Event]:
    """A turn in which tools are called: two events, and two for each call."""
    name = f"t{number}"
    log = [Event(id=name, author="user", content="go", invocation_id=name)]
    for call in range(calls):
        call_id = f"call-{call}"
        log += [
            Event(author="a", content=[Text("so"), ToolCall(call_id, "t")], invocation_id=name),
            Event(author="tool", content=[ToolResult(call_id, call)], invocation_id=name),
        ]
    return [*log, Event(author="a", content="done", invocation_id=name)]


async def check_a_history_is_the_end_of_the_log(subject: Subject) -> None:
    """As many whole turns as were asked for, however long they are, with their positions."""
    service = subject.service(event_limit=None)
    await service.create_session(subject.key)
    assert await service.get_history(subject.key) == []
    log: list[Event] = []
    # The lengths are such that a turn begins at, before and behind the ends of pages.
    for number, calls in enumerate([0, 0, 3, 0, 1, 30, 0, 7, 6, 5]):
        log += await service.append_events(subject.key, _turn(number, calls))
    session = await stored_session(service, subject.key)
    for most in (*range(1, 12), None):
        expected = View(max_turns=most).of(log)
        assert await service.get_history(subject.key, max_turns=most) == expected
        assert await service.get_history(session, max_turns=most) == expected
        assert session.history(max_turns=most) == expected
    for budget in (1, 12, 13, 14, 40, 1000):
        history = await service.get_history(
            subject.key, max_tokens=budget, count_tokens=lambda _: 1, from_user=True
        )
        assert history == View(max_tokens=budget, count_tokens=lambda _: 1).of(log)
        assert history[0].author == "user"


async def check_a_history_has_no_half_pairs(subject: Subject) -> None:
    """Whatever the limit has trimmed and whoever was cut off; what is stored stays as it is."""
    service = subject.service(event_limit=5)
    await service.create_session(subject.key)
    cut = [
        Event(id="u", author="user", content="again"),
        Event(id="a", author="a", content=[ToolCall("c", "t")]),
    ]
    await service.append_events(subject.key, [*_turn(1), *cut])
    await service.append_event(subject.key, say("are you there?", id="v"))
    history = await service.get_history(subject.key)
    assert [event.id for event in history] == ["u", "a", "a:closed", "v"]
    assert history[2].content == [ToolResult("c", NO_RESULT, "t", is_error=True)]
    assert [event.id for event in await service.get_history(subject.key, open_calls="omit")] == [
        "u",
        "v",
    ]
    assert len(await service.get_events(subject.key)) == 5


async def check_a_history_reads_no_further_than_it_must(subject: Subject) -> None:
    """The newest turns of a long log cost what they cost of a short one."""
    service = subject.service(event_limit=None)
    await service.create_session(subject.key)
    reads: list[int] = []
    backend = service.backend

    async def read(*args: Any, _read: Any = backend.read, **options: Any) -> EventSlice:
        found: EventSlice = await _read(*args, **options)
        reads.append(len(found.events))
        return found

    async def lengths(log: Sequence[Event], **options: Any) -> list[int]:
        await service.append_events(subject.key, log)
        reads.clear()
        with swapped(backend, "read", read):
            await service.get_history(subject.key, **options)
        return list(reads)

    assert await lengths(_turn(0), max_turns=2) == [4]
    assert await lengths([event for n in range(1, 200) for event in _turn(n)], max_turns=2) == [12]
    assert await lengths(_turn(200, 10), max_turns=1) == [12, 24]
    assert sum(await lengths([])) == 4 * 200 + 22


async def check_a_history_is_of_one_life(subject: Subject) -> None:
    """It does not begin in one session and go on in the next; an old Session has none."""
    service = subject.service()
    log = _turn(0, 20)
    old = await service.create_session(subject.key)
    await service.append_events(subject.key, log)
    remade = remade_while_read(service, subject.key, log)
    with remade as reads, raises(SessionNotFoundError) as raised:
        await service.get_history(subject.key)
    assert (raised.error.replaced, len(reads)) == (True, 2)
    with raises(SessionNotFoundError) as raised:
        await service.get_history(old, max_turns=1)
    assert raised.error.replaced
    await service.delete_session(subject.key)
    with raises(SessionNotFoundError):
        await service.get_history(subject.key)


async def check_a_history_fits_into_a_read(subject: Subject) -> None:
    """Events before the turns that were asked for do not count; what was asked for does."""
    service = subject.service(max_event_size=1000, max_read_size=6000)
    await service.create_session(subject.key)
    large = [say("x" * 800, id=f"e{n}") for n in range(12)]
    stored = await service.append_events(subject.key, large)
    assert await service.get_history(subject.key, max_turns=2) == stored[-2:]
    assert await service.get_history(subject.key, max_turns=5) == stored[-5:]
    with raises(ReadTooLargeError):
        await service.get_history(subject.key, max_turns=9)
    with raises(ReadTooLargeError):
        await service.get_history(subject.key)
