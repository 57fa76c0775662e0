"""A run: who reads it, how it is stopped, and what is stored at its end whatever happens."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from agentsession import (
    AgentContext,
    Event,
    InMemorySessionService,
    Runner,
    SessionKey,
    SessionService,
    ToolCall,
    ToolResult,
)
from agentsession.backend import Claim
from agentsession.errors import (
    CallNotOpenError,
    EventExistsError,
    EventGoneError,
    LeaseLostError,
    SessionBusyError,
    SessionNotFoundError,
)
from agentsession.events import Outcome
from agentsession.history import NO_RESULT
from agentsession.runner import OnDisconnect, Run
from agentsession.testing import MemorySubject, Subject

CALL = ToolCall("c1", "search")


def say(words: str, *, partial: bool = False, outcome: Outcome = "") -> Event:
    return Event(author="agent", content=words, partial=partial, outcome=outcome)


class Steps:
    """An agent that says one word after the other, each when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Semaphore(0)
        self.at = 0
        self.running = 0
        self.ran = 0

    def go(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.let.release()

    async def __call__(self, context: AgentContext) -> AsyncIterator[Event]:
        self.ran += 1
        self.running += 1
        try:
            for word in ("one", "two", "three"):
                await self.let.acquire()
                self.at += 1
                yield say(word)
        finally:
            self.running -= 1


async def outcomes(service: SessionService, key: SessionKey) -> list[str]:
    return [event.outcome for event in await service.get_events(key) if event.outcome]


async def texts(events: AsyncIterator[Event]) -> list[str]:
    return [event.text async for event in events]


def tasks() -> set[str]:
    """Name the tasks that turns and leases have left."""
    names = {task.get_name() for task in asyncio.all_tasks()}
    return {name for name in names if name.startswith(("agentsession-turn", "agentsession-lease"))}


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until something is so."""
    with anyio.fail_after(30):
        while not condition():
            await asyncio.sleep(0)


async def is_free(service: SessionService, key: SessionKey) -> bool:
    """Tell whether nobody has the session's lease, and nobody is in line."""
    backend = service.backend
    claim = Claim(owner=backend.new_owner(), run_id="-", ttl=1000, when_busy="reject")
    state = (await backend.acquire(key, claim, 1)).state
    await backend.release(key, claim.owner, 1)
    return state == "held"


async def test_a_run_that_was_started_goes_on_by_itself(subject: Subject) -> None:
    """Its message is stored when start() returns; readers get all of it, whenever they come."""
    service, steps = subject.service(), Steps()
    async with Runner("app", steps, service) as runner:
        run = runner.run("user", "session", "hi")
        assert (await run.start()) is run
        assert [event.text for event in await service.get_events(run.key)] == ["hi"]
        first = asyncio.create_task(texts(aiter(run)))
        steps.go()
        await until(lambda: steps.at == 1)
        second = asyncio.create_task(texts(run.read()))
        steps.go(2)
        assert await first == await second == ["one", "two", "three"]
        assert [event.text for event in await run.result()] == ["one", "two", "three"]
        assert run.outcome == "completed"
        assert await texts(aiter(run)) == ["one", "two", "three"]
        await run.start()
    assert await outcomes(service, run.key) == ["completed"]
    assert not tasks()


async def test_the_result_of_a_run_that_was_not_started(subject: Subject) -> None:
    """It is run to its end; of an error the error is raised."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield say("chunk", partial=True)
        yield say("whole")
        if context.message.text == "fail":
            raise KeyError(context.message.text)

    runner = Runner("app", agent, subject.service())
    run = runner.run("user", "session", "hi")
    assert [event.text for event in await run.result()] == ["whole"]
    assert run.outcome == "completed"
    run = runner.run("user", "session", "fail")
    with pytest.raises(KeyError, match="fail"):
        await run.result()
    assert run.outcome == "failed"
    run = await runner.run("user", "session", "fail").start()
    for _ in range(2):
        with pytest.raises(KeyError, match="fail"):
            await run.result()


@pytest.mark.parametrize("on_disconnect", ["cancel", "detach"])
async def test_when_the_last_reader_goes(subject: Subject, on_disconnect: OnDisconnect) -> None:
    """As long as there is one the turn goes on; then it is cancelled, or goes on to its end."""
    service, steps = subject.service(), Steps()
    async with Runner("app", steps, service, on_disconnect=on_disconnect) as runner:
        run = await runner.run("user", "session", "hi").start()
        async with run.read() as stays:
            async with run.read() as goes:
                steps.go()
                assert (await anext(goes)).text == "one"
            assert (await anext(stays)).text == "one"
            steps.go()
            assert (await anext(stays)).text == "two"
        steps.go()
        with anyio.fail_after(30):
            await run.result()
    expected: Outcome = "cancelled" if on_disconnect == "cancel" else "completed"
    assert run.outcome == expected
    assert await outcomes(service, run.key) == [expected]
    assert steps.running == 0
    assert not tasks()


async def _break(run: Run) -> None:
    async for _ in run:
        break


async def _close(run: Run) -> None:
    async with run:
        await anext(run)


async def _cancel_scope(run: Run) -> None:
    with anyio.CancelScope() as scope:
        async for _ in run:
            scope.cancel()


async def _cancel_task(run: Run) -> None:
    async def read() -> None:
        async for _ in run:
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _time_out(run: Run) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            async for _ in run:
                pass


@pytest.mark.parametrize("leave", [_break, _close, _cancel_scope, _cancel_task, _time_out])
@pytest.mark.parametrize("on_disconnect", ["cancel", "detach"])
async def test_the_reader_of_the_short_form_goes(
    subject: Subject, leave: Callable[[Run], object], on_disconnect: OnDisconnect
) -> None:
    """In whichever way: the turn ends with an outcome, and nothing of it is left."""
    service, steps = subject.service(), Steps()
    runner = Runner("app", steps, service, on_disconnect=on_disconnect)
    steps.go()
    await leave(runner.run("user", "session", "hi"))  # type: ignore[misc]
    gc.collect()
    if on_disconnect == "detach":
        steps.go(2)
    await runner.aclose()
    expected = "cancelled" if on_disconnect == "cancel" else "completed"
    assert await outcomes(service, subject.key) == [expected]
    assert steps.running == 0
    assert not tasks()
    assert await is_free(service, subject.key)


async def test_a_turn_waits_for_the_reader_of_its_short_form() -> None:
    """The agent goes on when the next event is asked for, and not before."""
    steps = Steps()
    async with Runner("app", steps) as runner:
        steps.go(3)
        run = runner.run("user", "session", "hi")
        for number, word in enumerate(("one", "two", "three"), 1):
            assert (await anext(run)).text == word
            for _ in range(20):
                await asyncio.sleep(0)
            assert steps.at == number
        with pytest.raises(StopAsyncIteration):
            await anext(run)


async def test_a_slow_reader_holds_nobody_up() -> None:
    """It loses chunks, and no whole event; what it has of a stream is how the stream began."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        for number in range(5):
            for chunk in range(700):
                yield say(f"{chunk} ", partial=True)
            yield say(str(number))

    async with Runner("app", agent) as runner:
        run = await runner.run("user", "session", "hi").start()
        slow = run.read()
        assert len([event async for event in run.read()]) > 705
        read = [event async for event in slow]
    assert [event.text for event in read if not event.partial] == list("01234")
    chunks = [event for event in read if event.partial]
    assert 1000 <= len(chunks) < 3500
    for stream_id in {event.stream_id for event in read}:
        had = [event.text for event in chunks if event.stream_id == stream_id]
        assert had == [f"{chunk} " for chunk in range(len(had))]


async def test_a_run_is_cancelled(subject: Subject) -> None:
    """Its open calls get results, and what was streamed becomes an event that says it is cut."""
    service = subject.service()
    here = asyncio.Event()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        context.state["unsaved"] = 1
        yield Event(author="agent", content=[CALL], state_delta={"saved": 1})
        for words in ("Let me ", "see"):
            yield say(words, partial=True)
        yield Event(author="other", branch="b", content="Hm", partial=True)
        yield say("settled", partial=True)
        yield Event(author="other", branch="b", content="settled")
        context.state["lost"] = 1
        here.set()
        await anyio.sleep_forever()

    runner = Runner("app", agent, service)
    run = await runner.run("user", "session", "hi").start()
    await here.wait()
    await run.cancel()
    await run.cancel()
    assert run.outcome == "cancelled"
    session = await service.get_session(run.key)
    assert session is not None
    *_, other, closing, cut = session.events
    assert other.text == "settled"
    assert (closing.author, closing.outcome) == ("tool", "")
    assert [(each.call_id, each.result) for each in closing.tool_results] == [("c1", NO_RESULT)]
    assert (cut.author, cut.text, cut.outcome) == ("agent", "Let me seesettled", "cancelled")
    assert session.state == {"saved": 1, "unsaved": 1}
    assert [event.text for event in await run.result()][-1] == cut.text
    assert not tasks()
    assert await is_free(service, run.key)


async def test_a_turn_is_stopped_from_elsewhere(subject: Subject) -> None:
    """By another service over the same store; the stop is known within moments."""
    service, other, steps = subject.service(), subject.service(), Steps()
    async with Runner("app", steps, service, ttl=60) as runner:
        run = await runner.run("user", "session", "hi").start()
        assert await other.stop_run(run.key, run.id)
        with anyio.fail_after(10):
            await run.result()
    assert run.outcome == "cancelled"
    assert await outcomes(service, run.key) == ["cancelled"]


@pytest.mark.parametrize("ends", [True, False])
async def test_an_agent_that_looks_may_end_in_order(subject: Subject, *, ends: bool) -> None:
    """It stores what it has, and its turn ends as cancelled; or it is cancelled a little later."""
    service = subject.service()
    started, stopped = asyncio.Event(), asyncio.Event()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        assert not context.cancelled
        started.set()
        try:
            while not context.cancelled or not ends:
                await asyncio.sleep(0.01)
        finally:
            stopped.set()
        yield say("tidied up")

    run = await Runner("app", agent, service).run("user", "session", "hi").start()
    await started.wait()
    with anyio.fail_after(20):
        await run.cancel()
    assert stopped.is_set()
    log = [(event.text, event.outcome) for event in await service.get_events(run.key)]
    if ends:
        assert log == [("hi", ""), ("tidied up", ""), ("", "cancelled")]
    else:
        assert log == [("hi", ""), ("", "cancelled")]


async def test_an_agent_ends_its_turn_itself(subject: Subject) -> None:
    """By an event with an outcome, after which nothing more of it is taken."""
    service = subject.service()
    ended: list[bool] = []

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        context.state["n"] = 1
        try:
            yield say("done", outcome="completed")
            yield say("never")
        finally:
            ended.append(True)

    run = Runner("app", agent, service).run("user", "session", "hi")
    assert await texts(aiter(run)) == ["done"]
    assert (run.outcome, ended) == ("completed", [True])
    session = await service.get_session(run.key)
    assert session is not None
    assert ([event.text for event in session.events], session.state) == (["hi", "done"], {"n": 1})
    assert await is_free(service, run.key)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("cancelled", "an agent ends its turn with one of 'completed', 'failed', 'waiting', not w"),
        ("waiting", "a turn waits for results of calls, and none of its calls is open"),
    ],
)
async def test_how_an_agent_cannot_end_its_turn(
    subject: Subject, outcome: Outcome, words: str
) -> None:
    """It is an error of the agent's like any other."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield say("end", outcome=outcome)

    service = subject.service()
    run = Runner("app", agent, service).run("user", "session", "hi")
    with pytest.raises(ValueError, match=words):
        await run.result()
    assert await outcomes(service, run.key) == ["failed"]


async def test_a_cancellation_of_the_agents_own_is_a_failure(subject: Subject) -> None:
    """Nobody had cancelled the turn, so it ends with an event like any error."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield Event(author="agent", content=[CALL])
        raise asyncio.CancelledError

    service = subject.service()
    run = Runner("app", agent, service).run("user", "session", "hi")
    with pytest.raises(RuntimeError, match="the agent raised CancelledError, and nobody had canc"):
        await run.result()
    *_, results, error = await service.get_events(run.key)
    assert [each.call_id for each in results.tool_results] == ["c1"]
    assert error.error is not None
    assert (error.outcome, error.error.type) == ("failed", "RuntimeError")


async def test_one_turn_at_a_time(subject: Subject) -> None:
    """Turns of one session queue in the order of their arrival; others do not wait for them."""
    service, steps = subject.service(), Steps()
    await service.create_session(subject.key)
    async with Runner("app", steps, service) as runner:
        runs = [runner.run("user", "session", str(number)) for number in range(4)]
        waiting: list[asyncio.Task[Run]] = []
        for run in runs:
            waiting.append(asyncio.create_task(run.start()))
            await asyncio.sleep(0.02)
        assert [task.done() for task in waiting] == [True, False, False, False]
        other = await runner.run("user", "other", "hi").start()
        steps.go(15)
        for task in waiting:
            await task
        for run in [*runs, other]:
            await run.result()
    log = await service.get_events(subject.key)
    assert [event.text for event in log if event.author == "user"] == list("0123")
    turns = [event.invocation_id for event in log]
    assert turns == sorted(turns, key=[run.id for run in runs].index)
    assert await outcomes(service, subject.key) == ["completed"] * 4


async def test_a_busy_session_rejects(subject: Subject) -> None:
    """The error says who has it; nothing is stored of the turn that does not begin."""
    service, steps = subject.service(), Steps()
    async with Runner("app", steps, service, when_busy="reject") as runner:
        run = await runner.run("user", "session", "hi").start()
        refused = runner.run("user", "session", "too")
        with pytest.raises(SessionBusyError) as raised:
            await refused.start()
        assert (raised.value.run_id, refused.outcome) == (run.id, "")
        with pytest.raises(SessionBusyError):
            await refused.result()
        with pytest.raises(SessionBusyError):
            await runner.run("user", "session", "too").result()
        steps.go(3)
        await run.result()
    assert [event.text for event in await service.get_events(run.key)][:2] == ["hi", "one"]


async def test_a_newer_turn_interrupts(subject: Subject) -> None:
    """The older one ends as interrupted, whole; the newer one sees that."""
    service, steps = subject.service(), Steps()
    async with Runner("app", steps, service, when_busy="interrupt") as runner:
        old = await runner.run("user", "session", "old").start()
        steps.go()
        await until(lambda: steps.at == 1)
        with anyio.fail_after(10):
            new = await runner.run("user", "session", "new").start()
        assert old.outcome == "interrupted"
        steps.go(3)
        await new.result()
    log = [(event.text, event.outcome) for event in await service.get_events(old.key)]
    assert log[:4] == [("old", ""), ("one", ""), ("", "interrupted"), ("new", "")]
    assert await outcomes(service, old.key) == ["interrupted", "completed"]


async def test_a_message_sent_again_joins_the_turn_that_runs(subject: Subject) -> None:
    """In the same runner, and by following its session in another one."""
    service, steps = subject.service(), Steps()
    here, there = Runner("app", steps, service), Runner("app", steps, subject.service())
    message = Event(author="user", content="hi")
    run = await here.run("user", "session", message).start()
    readers = [
        asyncio.create_task(texts(aiter(runner.run("user", "session", message))))
        for runner in (here, there)
    ]
    for _ in range(50):
        await asyncio.sleep(0)
    steps.go(3)
    with anyio.fail_after(30):
        for reader in readers:
            assert await reader == ["one", "two", "three"]
    assert steps.ran == 1
    assert await texts(aiter(there.run("user", "session", message))) == ["one", "two", "three"]
    assert steps.ran == 1
    assert await outcomes(service, run.key) == ["completed"]


async def test_a_message_sent_again_elsewhere_has_the_chunks_too(subject: Subject) -> None:
    """Of a stream that it joined in the middle, as well."""
    service, enough = subject.service(), asyncio.Event()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        words = ""
        while not enough.is_set():
            words += "word "
            yield say("word ", partial=True)
            await asyncio.sleep(0.01)
        yield say(words)

    message = Event(author="user", content="hi")
    run = await Runner("app", agent, service).run("user", "session", message).start()
    held = ""
    with anyio.fail_after(30):
        async for event in Runner("app", agent, subject.service()).run("user", "session", message):
            if event.partial:
                held = event.text if event.snapshot else held + event.text
                if held.count("word") > 5:
                    enough.set()
            else:
                assert event.text.startswith(held)
                assert held
    await run.result()
    assert await outcomes(service, run.key) == ["completed"]


@pytest.mark.parametrize("what", ["rewound", "deleted"])
async def test_what_befalls_a_run_that_was_joined_elsewhere_is_told(
    subject: Subject, what: str
) -> None:
    """That its session went back to before it, or is gone."""
    service, steps = subject.service(), Steps()
    message = Event(author="user", content="hi")
    run = await Runner("app", steps, service).run("user", "session", message).start()
    joined = Runner("app", steps, subject.service()).run("user", "session", message)
    with anyio.fail_after(30):
        await joined.start()
        steps.go()
        reader = joined.read()
        assert (await anext(reader)).text == "one"
        waiting = asyncio.create_task(joined.result())
        await asyncio.sleep(0)
        if what == "rewound":
            await service.rewind(run.key, to_seq=0)
        else:
            await service.delete_session(run.key)
        with pytest.raises(EventGoneError if what == "rewound" else SessionNotFoundError):
            await waiting
        steps.go(2)
        with suppress(Exception):
            await run.result()
    assert steps.ran == 1


async def test_a_message_with_the_id_of_another_event_begins_nothing(subject: Subject) -> None:
    """And does not keep the session from the next one."""
    service, steps = subject.service(), Steps()
    steps.go(9)
    async with Runner("app", steps, service, when_busy="reject") as runner:
        await runner.run("user", "session", "hi").result()
        key = SessionKey("app", "user", "session")
        log = await service.get_events(key)
        for event in log[1:]:
            message = Event(author="user", content="x", id=event.id)
            with pytest.raises(EventExistsError):
                await runner.run("user", "session", message).result()
        await runner.run("user", "session", "again").result()
        said = [event.text for event in await service.get_events(key)]
    assert said.count("x") == 0
    assert steps.ran == 2


async def test_a_message_sent_again_runs_a_turn_that_died() -> None:
    """What it had stored is closed, and the agent runs again, in the same turn."""
    async with MemorySubject() as subject:
        service, steps = subject.service(), Steps()
        message = Event(author="user", content="hi", id="m")
        lease = service.lease(subject.key, run_id="m")
        await service.begin_turn(lease, message)
        await service.append_event(subject.key, Event(author="agent", content=[CALL]), lease=lease)
        lease.abandon()
        await subject.advance(16)
        steps.go(3)
        run = Runner("app", steps, service).run("user", "session", message)
        assert await texts(aiter(run)) == ["one", "two", "three"]
        log = await service.get_events(subject.key)
    assert [event.outcome for event in log] == ["", "", "abandoned", "", "", "", "completed"]
    assert {event.invocation_id for event in log} == {"m"}


async def test_a_turn_waits_for_a_human(subject: Subject) -> None:
    """Another process goes on with it, once; the agent has the results as its message."""
    service = subject.service()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        if context.message.tool_results:
            calls = [call.call_id for event in context.history for call in event.tool_calls]
            result = context.message.tool_results[-1].result
            yield say(f"{calls} {result}")
        else:
            calls_of_it = [ToolCall("c1", "approve"), ToolCall("c2", "sign")]
            yield Event(author="agent", content=[*calls_of_it], outcome="waiting")

    runner = Runner("app", agent, service, when_busy="reject")
    run = runner.run("user", "session", "order it")
    assert len(await run.result()) == 1
    assert run.outcome == "waiting"
    with pytest.raises(SessionBusyError):
        await runner.run("user", "session", "hello?").result()
    with pytest.raises(ValueError, match="a message that only answers calls begins no turn"):
        runner.run("user", "session", [ToolResult("c1", "yes")])
    elsewhere = Runner("app", agent, subject.service())
    with pytest.raises(CallNotOpenError):
        await elsewhere.resume("user", "session", [ToolResult("c3", "?")]).result()
    part = elsewhere.resume("user", "session", [ToolResult("c1", "yes")])
    assert [event.outcome for event in await part.result()] == ["waiting"]
    assert part.outcome == "waiting"
    both = [elsewhere.resume("user", "session", [ToolResult("c2", n)]) for n in ("a", "b")]
    done: list[Event] = []
    refused: list[Exception] = []

    async def go_on(run: Run) -> None:
        try:
            done.extend(await run.result())
        except (CallNotOpenError, SessionBusyError) as exc:
            refused.append(exc)

    async with asyncio.TaskGroup() as group:
        for each in both:
            group.create_task(go_on(each))
    assert len(done) == len(refused) == 1
    assert done[0].text in ("['c1', 'c2'] a", "['c1', 'c2'] b")
    assert {each.id for each in both if each.outcome == "completed"} == {run.id}
    assert await outcomes(service, run.key) == ["waiting", "waiting", "completed"]


async def test_a_lost_lease_ends_a_turn() -> None:
    """Nothing more is stored; whoever comes next closes it."""
    async with MemorySubject() as subject:
        service, steps = subject.service(), Steps()
        run = await Runner("app", steps, service).run("user", "session", "hi").start()
        await subject.advance(16)
        steps.go()
        with pytest.raises(LeaseLostError):
            await run.result()
        assert run.outcome == "abandoned"
        assert steps.running == 0
        assert [event.text for event in await service.get_events(run.key)] == ["hi"]
        ended = await service.close_turn(run.key)
        assert ended is not None
        assert ended.outcome == "abandoned"


async def test_a_runner_that_closes_waits_for_its_runs(subject: Subject) -> None:
    """Up to its deadline; those that are left are cancelled, and none begins any more."""
    service, quick, slow = subject.service(), Steps(), Steps()
    runner = Runner("app", quick, service)
    run = await runner.run("user", "session", "hi").start()
    closing = asyncio.create_task(runner.aclose())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="the runner is closed; make a new one"):
        await runner.run("user", "session", "late").start()
    quick.go(3)
    await closing
    assert run.outcome == "completed"
    runner = Runner("app", slow, service)
    run = await runner.run("user", "session", "hi").start()
    await runner.aclose(timeout=0)
    assert run.outcome == "cancelled"
    assert await outcomes(service, run.key) == ["completed", "cancelled"]
    assert not tasks()


async def test_a_runner_that_closes_waits_for_no_reader_that_left() -> None:
    """A turn whose reader takes nothing more is cancelled at once."""
    steps = Steps()
    service = InMemorySessionService()
    runner = Runner("app", steps, service)
    steps.go(3)
    run = runner.run("user", "session", "hi")
    await anext(run)
    with anyio.fail_after(10):
        await runner.aclose()
    assert run.outcome == "cancelled"
    await service.aclose()


def test_a_loop_that_ends_ends_its_turns() -> None:
    """A program that returns while a turn runs leaves a log that says so."""
    service = InMemorySessionService()
    steps: list[Steps] = []

    async def main() -> None:
        steps.append(Steps())
        await Runner("app", steps[0], service).run("user", "session", "hi").start()

    async def look() -> list[str]:
        async with InMemorySessionService() as other:
            other._backend = service.backend  # the data of the loop that has ended
            other._turns._backend = service.backend
            return await outcomes(other, SessionKey("app", "user", "session"))

    asyncio.run(main())
    assert steps[0].running == 0
    assert asyncio.run(look()) == ["cancelled"]


@pytest.mark.parametrize("whole", [False, True])
async def test_words_that_were_only_streamed_are_warned_of(
    whole: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Chunks are stored nowhere, so a turn of nothing else leaves no answer behind."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield say("one ", partial=True)
        yield say("two", partial=True)
        if whole:
            yield say("one two")

    async with Runner("app", agent) as runner:
        await runner.run("user", "session", "hi").result()
    assert ("their words are not stored" in caplog.text) is not whole


@pytest.mark.parametrize("content", [5, None, ["hi"], [1]])
async def test_a_chunk_of_anything_is_refused_as_a_whole_event_is(content: Any) -> None:
    """By the name of the field, and before anybody reads it."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield Event(author="agent", content=content, partial=True)

    async with Runner("app", agent) as runner:
        with pytest.raises((TypeError, ValueError), match="content"):
            await runner.run("user", "session", "hi").result()


async def test_a_failure_that_nobody_reads_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It is stored in any case; whoever operates the program should not have to look there."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield say("before")
        msg = "the model is gone"
        raise OSError(msg)

    with caplog.at_level(logging.ERROR, logger="agentsession.runner"):
        async with Runner("app", agent) as runner:
            await runner.run("user", "session", "hi").start()
        del runner
        gc.collect()
    assert "the model is gone" in caplog.text


@pytest.mark.parametrize("tick", range(0, 60, 2))
async def test_a_turn_that_is_cancelled_at_any_tick_is_whole(subject: Subject, tick: int) -> None:
    """Each stored message has an end, and nobody has the lease or waits for it."""
    service = subject.service()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield say("chunk", partial=True)
        yield Event(author="agent", content=[CALL])
        await asyncio.sleep(0)
        yield Event(author="tool", content=[ToolResult("c1", 1)])
        yield say("done")

    await service.create_session(subject.key)
    runner = Runner("app", agent, service)

    async def turn() -> None:
        async for _ in runner.run("user", "session", "hi"):
            pass

    task = asyncio.create_task(turn())
    for _ in range(tick):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await runner.aclose()
    log = await service.get_events(subject.key)
    assert len([event for event in log if event.outcome]) == bool(log)
    history = await service.get_history(subject.key)
    calls = [call for event in history for call in event.tool_calls]
    assert len(calls) == sum(len(event.tool_results) for event in history)
    assert await is_free(service, subject.key)
    assert not tasks()


@pytest.mark.parametrize("by", ["answered", "trimmed"])
async def test_a_turn_whose_calls_are_not_open_any_more_goes_on(subject: Subject, by: str) -> None:
    """It waits for results that nobody could bring: those that are brought free its session."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        if context.message.tool_results:
            yield say(f"It was {context.message.tool_results[0].result}.")
        else:
            yield Event(author="agent", content=[CALL], outcome="waiting")

    service = subject.service(event_limit=5)
    runner = Runner("app", agent, service, when_busy="reject")
    run = runner.run("user", "session", "hi")
    await run.result()
    result = ToolResult(CALL.call_id, "yes")
    if by == "answered":  # By a webhook, which is no turn.
        answer = Event(author="hook", content=[result], invocation_id=run.id)
        await service.append_event(run.key, answer)
    else:
        for _ in range(20):
            await service.append_event(run.key, Event(author="hook", content="x"))
    with pytest.raises(SessionBusyError):
        await runner.run("user", "session", "Are you there?").result()
    again = runner.resume("user", "session", [result])
    assert [event.text for event in await again.result()] == ["It was yes."]
    assert (again.id, again.outcome) == (run.id, "completed")
    assert await is_free(service, run.key)
