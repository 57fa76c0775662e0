"""One end for each turn, whatever happens at its beginning, at its end, or in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import anyio
import pytest
from msgspec import structs

from agentsession import AgentContext, Event, Runner, SessionKey, SessionService
from agentsession.errors import (
    BackendUnavailableError,
    CodecError,
    LeaseLostError,
    OutcomeUnknownError,
    SessionBusyError,
)
from agentsession.events import Outcome, ToolResult
from agentsession.runner import Run, _agent, _turn
from agentsession.testing import MemorySubject, Subject
from turns.test_runs import CALL, Steps, is_free, outcomes, say, tasks, texts, until


async def never_ends(context: AgentContext) -> AsyncIterator[Event]:
    yield say("begun")
    await anyio.sleep_forever()


@pytest.mark.parametrize("at", ["results", "error"])
async def test_a_reader_leaves_while_a_turn_fails(subject: Subject, at: str) -> None:
    """The turn fails all the same, and whoever asks gets its error."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield Event(author="agent", content=[CALL])
        yield say("so far", partial=True)
        raise LookupError

    service = subject.service()
    runner = Runner("app", agent, service)
    async with runner.run("user", "session", "hi") as run:
        async for event in run:
            if event.tool_results if at == "results" else event.error:
                break
    with pytest.raises(LookupError):
        await run.result()
    log = await service.get_events(run.key)
    assert [(event.text, event.outcome) for event in log[2:]] == [
        ("", ""),
        ("so far", ""),
        ("", "failed"),
    ]
    assert [each.call_id for each in log[2].tool_results] == ["c1"]
    assert await is_free(service, run.key)


@pytest.mark.parametrize("outcome", ["completed", "waiting"])
async def test_a_reader_leaves_at_the_end(subject: Subject, outcome: Outcome) -> None:
    """What is stored is what the run says."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield Event(author="agent", content=[CALL], outcome=outcome)

    service = subject.service()
    async with Runner("app", agent, service).run("user", "session", "hi") as run:
        async for event in run:
            if event.outcome:
                break
    assert run.outcome == outcome
    assert await outcomes(service, run.key) == [outcome]


async def test_a_lease_is_lost_while_a_turn_fails() -> None:
    """Its own error comes out, and the next one closes it."""
    async with MemorySubject() as subject:

        async def agent(context: AgentContext) -> AsyncIterator[Event]:
            yield say("begun")
            await subject.advance(16)
            raise LookupError

        service = subject.service()
        run = Runner("app", agent, service).run("user", "session", "hi")
        with pytest.raises(LookupError) as raised:
            await run.result()
        assert "could not store the event of this error" in raised.value.__notes__[0]
        ended = await service.close_turn(run.key)
        assert ended is not None
        assert ended.outcome == "abandoned"


async def _stored_turn(service: SessionService, key: SessionKey) -> Event:
    """Store a turn that has ended."""
    message = Event(author="user", content="hi", id="m")
    await Runner("app", _answer, service).run(key.user_id, key.session_id, message).result()
    return message


async def _answer(context: AgentContext) -> AsyncIterator[Event]:
    yield say("answer", outcome="completed")


@pytest.mark.parametrize("tick", range(1, 40, 2))
async def test_a_repeat_is_cancelled_at_any_tick(subject: Subject, tick: int) -> None:
    """The turn that has ended keeps its one end."""
    service = subject.service()
    message = await _stored_turn(service, subject.key)
    runner = Runner("app", _answer, service)
    task = asyncio.create_task(runner.run("user", "session", message).result())
    for _ in range(tick):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await runner.aclose()
    assert await outcomes(service, subject.key) == ["completed"]
    assert await is_free(service, subject.key)
    assert not tasks()


async def test_who_leaves_a_repeat_learns_how_the_turn_ended(subject: Subject) -> None:
    """And not that the repeat was cancelled."""
    service = subject.service()
    message = await _stored_turn(service, subject.key)
    async with Runner("app", _answer, service).run("user", "session", message) as run:
        await anext(run)
    assert run.outcome == "completed"


async def test_a_repeat_needs_no_free_session(subject: Subject) -> None:
    """The stored events of a turn that has ended come though another turn has the session."""
    service, steps = subject.service(), Steps()
    message = await _stored_turn(service, subject.key)
    async with Runner("app", steps, service, when_busy="reject") as runner:
        other = await runner.run("user", "session", "other").start()
        again = runner.run("user", "session", message)
        assert [event.text for event in await again.result()] == ["answer"]
        assert again.outcome == "completed"
        with pytest.raises(SessionBusyError):
            await runner.run("user", "session", "another").result()
        steps.go(3)
        await other.result()


class _Failing:
    """Has one call of a backend fail."""

    def __init__(self, service: SessionService, name: str) -> None:
        self._backend: Any = service.backend
        self._name = name

    def __enter__(self) -> None:
        async def fail(key: SessionKey, *_: object, **__: object) -> None:
            raise BackendUnavailableError(key, "on purpose")

        setattr(self._backend, self._name, fail)

    def __exit__(self, *_: object) -> None:
        delattr(self._backend, self._name)


async def test_a_turn_that_cannot_be_loaded_ends(subject: Subject) -> None:
    """Its message is stored, which is not denied; so it has an end, and the session is free."""
    service = subject.service()
    await service.create_session(subject.key)
    with (
        _Failing(service, "get"),
        pytest.raises(OutcomeUnknownError, match="it was carried out, and could not be loaded"),
    ):
        await service.begin_turn(service.lease(subject.key), Event(author="user"))
    assert await outcomes(service, subject.key) == ["cancelled"]
    assert await is_free(service, subject.key)


async def test_a_turn_whose_session_is_damaged_ends() -> None:
    """What cannot be decoded fails after the message was stored."""
    async with MemorySubject() as subject:
        service = subject.service()
        await service.create_session(subject.key, {"a": 1})
        backend: Any = service.backend
        backend._users.get(subject.user).sessions["session"].state.change({"a": b"{nonsense"})
        with pytest.raises(CodecError):
            await service.begin_turn(service.lease(subject.key), Event(author="user"))
        assert await outcomes(service, subject.key) == ["cancelled"]
        assert await is_free(service, subject.key)


async def test_a_resumption_of_unknown_outcome_is_looked_after(subject: Subject) -> None:
    """Whether its results were stored is not known: its lease runs out, and the next one looks."""
    service = subject.service()
    lease = service.lease(subject.key)
    await service.begin_turn(lease, Event(author="user", content="hi"))
    call = Event(author="agent", content=[CALL], outcome="waiting")
    await service.append_event(subject.key, call, lease=lease)
    backend: Any = service.backend
    append = backend.append

    async def lose_the_reply(key: SessionKey, entries: Any, **options: Any) -> object:
        receipt = await append(key, entries, **options)
        if entries:
            raise OutcomeUnknownError(key, "on purpose")
        return receipt

    backend.append = lose_the_reply
    with pytest.raises(OutcomeUnknownError):
        await service.resume_turn(service.lease(subject.key), [ToolResult("c1", "yes")])
    del backend.append
    await subject.advance(16)
    ended = await service.close_turn(subject.key)
    assert ended is not None
    assert ended.outcome == "abandoned"
    assert await is_free(service, subject.key)


async def test_a_service_that_closes_ends_its_turns(subject: Subject) -> None:
    """A turn of a service that is closed under it is not left open for ever."""
    service, other = subject.service(), subject.service()
    run = await Runner("app", never_ends, service).run("user", "session", "hi").start()
    await service.aclose()
    await run.cancel()
    if not isinstance(subject, MemorySubject):
        assert await outcomes(other, run.key) == ["cancelled"]
    assert await is_free(other, run.key)


async def test_large_words_are_kept_in_pieces(subject: Subject) -> None:
    """What was streamed may be more than one event may hold."""
    here = asyncio.Event()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        for _ in range(30):
            yield say("x" * 1000, partial=True)
        here.set()
        await anyio.sleep_forever()

    service = subject.service(max_event_size=10_000)
    run = await Runner("app", agent, service).run("user", "session", "hi").start()
    await here.wait()
    await run.cancel()
    log = await service.get_events(run.key)
    assert "".join(event.text for event in log[1:]) == "x" * 30_000
    assert [event.outcome for event in log if event.outcome] == ["cancelled"]


@pytest.mark.parametrize("author", ["", 5], ids=ascii)
async def test_words_that_cannot_be_kept_are_lost_alone(subject: Subject, author: Any) -> None:
    """The turn has its end, and its calls their results."""
    here = asyncio.Event()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield Event(author="agent", content=[CALL])
        yield Event(author=author, content="words", partial=True)
        here.set()
        await anyio.sleep_forever()

    service = subject.service()
    run = await Runner("app", agent, service).run("user", "session", "hi").start()
    await here.wait()
    await run.cancel()
    *_, end = await service.get_events(run.key)
    assert (end.outcome, len(end.tool_results)) == ("cancelled", 1)


def _partial_end(context: AgentContext) -> list[Event]:
    return [say("end", partial=True, outcome="completed")]


def _foreign_end(context: AgentContext) -> list[Event]:
    return [structs.replace(say("end", outcome="completed"), invocation_id="other")]


def _repeated_end(context: AgentContext) -> list[Event]:
    event = say("end")
    return [event, structs.replace(event, outcome="completed")]


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (_partial_end, "a chunk of a stream ends no turn"),
        (_foreign_end, "an event of another turn, 'other', does not end this one"),
        (_repeated_end, "is stored already, so that it cannot end the turn"),
    ],
)
async def test_what_cannot_end_a_turn(subject: Subject, events: Any, words: str) -> None:
    """Is the agent's error, and the turn ends as failed."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        for event in events(context):
            yield event

    service = subject.service()
    run = Runner("app", agent, service).run("user", "session", "hi")
    with pytest.raises(ValueError, match=words):
        await run.result()
    assert run.outcome == "failed"
    assert await outcomes(service, run.key) == ["failed"]


async def test_a_message_cannot_end_its_turn(subject: Subject) -> None:
    """Neither for a runner nor for a lease."""
    message = Event(author="user", outcome="completed")
    service = subject.service()
    with pytest.raises(ValueError, match="a message begins a turn, and cannot end it"):
        Runner("app", _answer, service).run("user", "session", message)
    with pytest.raises(ValueError, match="a message begins a turn, and cannot end it"):
        await service.begin_turn(service.lease(subject.key), message)


async def test_a_run_is_cancelled_before_its_first_step(subject: Subject) -> None:
    """Whoever waits for it to begin is told."""
    service = subject.service()
    run = Runner("app", _answer, service).run("user", "session", "hi")
    starting = asyncio.create_task(run.start())
    cancelling = asyncio.create_task(run.cancel())
    with anyio.fail_after(10):
        with pytest.raises(RuntimeError, match="the run was cancelled before it began"):
            await starting
        await cancelling
    assert run.outcome == "cancelled"
    assert await service.get_session(run.key) is None


async def test_a_run_in_line_is_cancelled(subject: Subject) -> None:
    """At once, at whatever tick, and without having been stored."""
    service, steps = subject.service(), Steps()
    runner = Runner("app", steps, service)
    first = await runner.run("user", "session", "first").start()
    for tick in range(20):
        run = runner.run("user", "session", "in line")
        starting = asyncio.create_task(run.start())
        for _ in range(tick):
            await asyncio.sleep(0)
        with anyio.fail_after(2):
            await run.cancel()
        await asyncio.wait([starting])
        assert starting.exception() is not None
    steps.go(3)
    await first.result()
    assert [event.text for event in await service.get_events(first.key)][:2] == ["first", "one"]
    assert await is_free(service, first.key)


async def test_one_of_two_that_start_a_run_goes(subject: Subject) -> None:
    """The run begins for the other one."""
    service, steps = subject.service(), Steps()
    runner = Runner("app", steps, service)
    message = Event(author="user", content="hi")
    holder = await runner.run("user", "session", "first").start()
    runs = [runner.run("user", "session", message) for _ in range(2)]
    stays, goes = (asyncio.create_task(run.start()) for run in runs)
    await asyncio.sleep(0.05)
    goes.cancel()
    steps.go(6)
    with anyio.fail_after(20):
        await stays
        assert len(await runs[0].result()) == 3
    await holder.result()


async def test_a_reader_that_has_left_reads_nothing_more(subject: Subject) -> None:
    """Whether it was cancelled or closed, it does not wait for ever."""
    runner = Runner("app", never_ends, subject.service(), on_disconnect="detach")
    run = runner.run("user", "session", "hi")
    await anext(run)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(run)
    with anyio.fail_after(5), pytest.raises(StopAsyncIteration):
        await anext(run)
    started = await runner.run("user", "other", "hi").start()
    reader = started.read()
    await anext(reader)
    waiting = asyncio.create_task(texts(reader))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another task waits for the next event here"):
        await anext(reader)
    await reader.aclose()
    with anyio.fail_after(5):
        assert await waiting == []
    await runner.aclose(timeout=0)


async def test_the_result_of_a_run_that_was_read_in_part(subject: Subject) -> None:
    """Whoever waits for the end needs no more events one by one."""
    steps = Steps()
    steps.go(3)
    run = Runner("app", steps, subject.service()).run("user", "session", "hi")
    await anext(run)
    with anyio.fail_after(10):
        assert [event.text for event in await run.result()] == ["one", "two", "three"]


async def test_who_waits_for_the_result_is_a_reader(subject: Subject) -> None:
    """The turn is not cancelled since another reader has gone."""
    steps = Steps()
    run = await Runner("app", steps, subject.service()).run("user", "session", "hi").start()
    waiting = asyncio.create_task(run.result())
    async with run.read() as reader:
        steps.go()
        await anext(reader)
    steps.go(2)
    with anyio.fail_after(10):
        assert len(await waiting) == 3
    assert run.outcome == "completed"


async def test_an_agent_that_looks_is_not_kept_from_it(subject: Subject) -> None:
    """Though its turn waits for a reader when it is told; what it has written is stored."""
    service = subject.service()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        for number in range(100):
            if context.cancelled:
                context.state["at"] = number
                return
            yield say(str(number))

    run = Runner("app", agent, service).run("user", "session", "hi")
    await anext(run)
    with anyio.fail_after(2):
        await run.cancel()
    session = await service.get_session(run.key)
    assert session is not None
    assert (session.events[-1].outcome, session.state) == ("cancelled", {"at": 1})


async def test_an_agent_that_goes_on_is_stopped(subject: Subject) -> None:
    """Though it catches its cancellation."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        for number in range(1000):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)
            yield say(str(number))

    service = subject.service()
    run = await Runner("app", agent, service).run("user", "session", "hi").start()
    with anyio.fail_after(5):
        await run.cancel()
    assert await outcomes(service, run.key) == ["cancelled"]


async def test_a_repeat_follows_a_turn_that_goes_on(subject: Subject) -> None:
    """Its events come once, though it was asked for again while it ran, and beyond its wait."""
    service = subject.service()
    go = asyncio.Event()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        if not context.message.tool_results:
            yield Event(author="agent", content=[CALL], outcome="waiting")
            return
        yield say("one")
        await go.wait()
        yield say("two")

    message = Event(author="user", content="hi")
    here, there = Runner("app", agent, service), Runner("app", agent, subject.service())
    await here.run("user", "session", message).result()
    resumed = await here.resume("user", "session", [ToolResult("c1", "yes")]).start()
    follows = there.run("user", "session", message)
    following = asyncio.create_task(follows.result())
    await until(lambda: resumed.outcome == "" and len(here._turns) == 1)
    await asyncio.sleep(1.5)  # It looks whether the other process lives, once a second.
    go.set()
    with anyio.fail_after(20):
        assert [event.text for event in await following] == ["", "", "one", "two"]
    await resumed.result()  # Who follows may see the end first.
    assert follows.outcome == resumed.outcome == "completed"


async def test_a_runner_that_closes_ends_a_run_in_line(subject: Subject) -> None:
    """Without waiting until it is its turn."""
    runner = Runner("app", never_ends, subject.service(), wait=600)
    await runner.run("user", "session", "first").start()
    waiting = asyncio.create_task(_started(runner.run("user", "session", "second")))
    await asyncio.sleep(0.05)
    with anyio.fail_after(20):
        await runner.aclose(timeout=0)
        assert isinstance(await waiting, RuntimeError)


async def _started(run: Run) -> BaseException | None:
    try:
        await run.start()
    except RuntimeError as exc:
        return exc
    return None


@pytest.mark.parametrize("why", ["cancelled", "lost", "closed"])
async def test_an_agent_that_catches_its_cancellation_and_goes_on_is_left(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Its turn ends without it: its session is free, and all who wait for its end have it."""
    monkeypatch.setattr(_turn, "_GOING_ON", 0.01)
    caught, is_let = 0, asyncio.Event()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        nonlocal caught
        yield Event(author="agent", content=[CALL])
        yield say("so far", partial=True)
        while not is_let.is_set():
            try:
                await is_let.wait()
            except asyncio.CancelledError:
                caught += 1
        yield say("too late")

    service = subject.service()
    runner = Runner("app", agent, service, on_disconnect="detach")
    run = await runner.run("user", "session", "hi").start()
    reader = run.read()
    words = [(await anext(reader)).text for _ in range(2)]
    match why:
        case "cancelled":
            assert await service.stop_run(run.key)
            words += await texts(reader)
        case "lost":
            await service.rewind(run.key, to_seq=0)
            with pytest.raises(LeaseLostError):
                await run.result()
        case _:
            await runner.aclose(timeout=0)
    assert caught == 1
    assert await is_free(service, run.key)
    expected: tuple[Outcome, list[Outcome]] = ("cancelled", ["cancelled"])
    assert (run.outcome, await outcomes(service, run.key)) == (
        ("abandoned", []) if why == "lost" else expected
    )
    if why == "cancelled":
        assert words == ["", "so far", "", "so far"]
    stored = await service.get_events(run.key)
    is_let.set()
    await until(lambda: not tasks())
    assert await service.get_events(run.key) == stored
    await runner.aclose()


@pytest.mark.parametrize("group", [asyncio.TaskGroup, anyio.create_task_group])
@pytest.mark.parametrize("at", ["left", "stopped", "completed", "failed"])
async def test_an_agent_may_yield_amid_a_group_of_tasks(
    at: str, group: Callable[[], AbstractAsyncContextManager[object]]
) -> None:
    """As one does that talks to a server of tools: closing it is no failure of its turn."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        async with group():
            yield say("begun", outcome="completed" if at == "completed" else "")
            yield cast("Event", 3) if at == "failed" else say("more")

    async with MemorySubject() as subject:
        service = subject.service()
        run = Runner("app", agent, service).run("user", "session", "hi")
        refusal = pytest.raises(TypeError, match="not int: 3")
        async with run:
            with refusal if at == "failed" else contextlib.nullcontext():
                async for _ in run:
                    match at:
                        case "left":
                            break
                        case "stopped":
                            await run.cancel()
                        case _:
                            pass
        expected = "cancelled" if at in ("left", "stopped") else at
        assert (run.outcome, await outcomes(service, run.key)) == (expected, [expected])


class Clinging:
    """An agent that yields what it is given, and cannot be closed until it is let."""

    def __init__(self, said: object) -> None:
        self.said = said
        self.caught = 0
        self.let = asyncio.Event()

    async def __call__(self, context: AgentContext) -> AsyncIterator[Event]:
        try:
            yield cast("Event", self.said)
        finally:
            while not self.let.is_set():
                try:
                    await self.let.wait()
                except asyncio.CancelledError:
                    self.caught += 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no agent take its time."""
    monkeypatch.setattr(_agent, "_CLOSING_TIME", 0.01)
    monkeypatch.setattr(_turn, "_GOING_ON", 0.02)


@pytest.mark.usefixtures("impatient")
async def test_an_agent_that_cannot_be_closed_is_cancelled_once() -> None:
    """Not again and again: one that catches it each time would keep the loop busy for ever."""
    agent = Clinging(say("begun"))
    async with MemorySubject() as subject:
        async with Runner("app", agent, subject.service()).run("user", "session", "hi") as run:
            await anext(run)
        assert run.outcome == "cancelled"
        for _ in range(10):
            await asyncio.sleep(0)
        agent.let.set()
        await until(lambda: not tasks())
        assert agent.caught == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("outcome", ["completed", "waiting", "failed"])
async def test_an_agent_that_cannot_be_closed_is_left(subject: Subject, outcome: Outcome) -> None:
    """Its turn is over without it, also where nobody has stopped it; it stores nothing more."""
    answer = Event(author="agent", content=[CALL], outcome=outcome)
    agent = Clinging(3 if outcome == "failed" else answer)
    service = subject.service()
    runner = Runner("app", agent, service)
    run = await runner.run("user", "session", "hi").start()
    try:
        with anyio.fail_after(30):
            if outcome == "failed":
                with pytest.raises(TypeError, match="not int: 3"):
                    await run.result()
            else:
                assert await run.result() == (await service.get_events(run.key))[1:]
        assert (run.outcome, await outcomes(service, run.key)) == (outcome, [outcome])
        assert tasks()
        assert await is_free(service, run.key) == (outcome != "waiting")
        stored = await service.get_events(run.key)
    finally:
        agent.let.set()
    await until(lambda: not tasks())
    assert (run.outcome, await service.get_events(run.key)) == (outcome, stored)
    await runner.aclose(timeout=0)
