"""Recorded conversations, with troubles at random in their turns: in the end they are as recorded.

Whatever has become of a turn that did not complete, its user takes it back and asks anew.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from agentsession import Event, Runner, open_service
from agentsession.demo._conversations import Conversation, to_event
from agentsession.errors import EventGoneError, LeaseLostError, RunNotFoundError
from agentsession.events import Outcome
from agentsession.history import unanswered_calls
from agentsession.runner import Run
from agentsession.testing import MemorySubject, Subject
from harness import servers
from harness.files import SQLiteSubject
from harness.subjects import RedisSubject
from turns.recordings import (
    ASIDE,
    AgentError,
    Hold,
    RecordedAgent,
    Said,
    check_log,
    key_of,
    prelude,
    recordings,
    said,
)
from turns.test_runs import tasks
from turns.worker import APP, USER
from turns.workers import Worker, workers

SEED = 11
AT_ONCE = 100
KILLS = 4
# The latter is what ``pytest.raises`` raises, and no Exception.
FAILURES = (Exception, pytest.fail.Exception)


class Talk:
    """One conversation, as its user and two processes see it.

    Args:
        subject: Where it is stored, with a clock of its own.
        recording: What was recorded.
        dice: Decides what is left to chance.

    Attributes:
        here: The service of one process.
        elsewhere: That of the other one.
        before: Up to where the log was before the turn that is played.
        answers: What the agent says in it.
        seen: What has happened to turns, and what became of them, and how often.
        tried_again: The turns that were run again after their process had died.
    """

    def __init__(self, subject: Subject, recording: Conversation, dice: random.Random) -> None:
        self.subject = subject
        self.dice = dice
        self.here, self.elsewhere = (subject.service(event_limit=None) for _ in range(2))
        self.agent = RecordedAgent(recording)
        self.key = key_of(recording)
        self.before = 0
        self.answers: list[Event] = []
        self.seen: Counter[tuple[str, str]] = Counter()
        self.tried_again: set[str] = set()
        self._recording = recording
        self._sent = 0
        self._runners = {
            name: Runner(APP, self.agent, service, on_disconnect="detach")
            for name, service in (("here", self.here), ("elsewhere", self.elsewhere))
        }
        self._cancelling = Runner(APP, self.agent, self.here)

    def run(self, message: Event, where: str = "here") -> Run:
        """Make a run that goes on without its reader."""
        return self._runners[where].run(USER, self.key.session_id, message)

    def run_for_its_reader(self, message: Event) -> Run:
        """Make a run that ends when its reader goes."""
        return self._cancelling.run(USER, self.key.session_id, message)

    def anywhere(self) -> str:
        return self.dice.choice(("here", "elsewhere"))

    async def raw(self) -> list[Event]:
        return await self.here.get_events(self.key, limit=1000, raw=True)

    # -- holding the agent

    def hold(self, message: Event, *, fails: bool = False) -> Hold:
        """Have the agent of a message stand still, or fail, at one of its steps."""
        hold = Hold(self.dice.randint(0, len(self.answers)), fails=fails)
        self.agent.holds[message.id] = hold
        return hold

    async def held(self, message: Event) -> tuple[Run, Hold]:
        """Begin a turn, and wait until its agent stands still."""
        hold = self.hold(message)
        run = await self.run(message).start()
        await hold.reached.wait()
        return run, hold

    async def moment(self, hold: Hold) -> None:
        """Wait until the agent stands still, or has just gone on, or has hardly begun."""
        if self.dice.random() < 0.8:
            await hold.reached.wait()
        if self.dice.random() < 0.5:
            hold.let_go.set()
        await self.rounds()

    async def rounds(self) -> None:
        """Let others run for a while."""
        for _ in range(self.dice.randint(1, 20)):
            await asyncio.sleep(0)

    # -- playing it

    async def play(self, troubles: Sequence[Sequence[Trouble]]) -> None:
        """Play all turns, each with its troubles."""
        await self.here.create_session(self.key)
        stored = await self.here.append_events(self.key, prelude(self._recording))
        self.before = stored[-1].seq if stored else 0
        recorded = [each.content for each in stored]
        for turn, ahead in zip(self._recording.turns(), troubles, strict=True):
            words, *answers = map(to_event, turn)
            self.answers = answers
            await self._turn(words, ahead)
            log = await self.here.get_events(self.key, limit=1000)
            recorded += [event.content for event in (words, *answers)]
            assert [content for _, content in said(log)] == recorded
            self.before = log[-1].seq
        for runner in (self._cancelling, *self._runners.values()):
            await runner.aclose()
        await check_log(self.elsewhere, self._recording, self.tried_again)

    async def _turn(self, words: Event, troubles: Sequence[Trouble]) -> None:
        """Send a message until its turn completes."""
        message = self._message(words)
        for trouble in (*troubles, nothing_happens):
            outcome = await trouble(self, message)
            self.seen[trouble.__name__, outcome] += 1
            assert outcome == "completed" or trouble not in COMPLETE
            await self._check_end(message, outcome)
            if outcome == "completed":
                return
            message = await self._take_back(message)

    def _message(self, words: Event) -> Event:
        """Make a message with an id of its own."""
        self._sent += 1
        name = f"message {self._sent}"
        return Event(author="user", content=words.content, id=name, invocation_id=name)

    async def stored(self, message: Event) -> list[Event]:
        """Read what is in the log of the turn of a message."""
        log = await self.here.get_events(self.key, after_seq=self.before, limit=1000)
        return [event for event in log if event.invocation_id == message.id]

    async def has_begun(self, message: Event) -> bool:
        """Tell whether a turn has begun: always, where its agent was run."""
        return self.agent.runs[message.id] > 0

    async def _check_end(self, message: Event, outcome: Outcome) -> None:
        """Check that a turn that has begun has the end that its run tells, and no open calls."""
        turn = await self.stored(message)
        if turn and await self.has_begun(message):
            assert turn[-1].outcome == outcome or message.id in self.tried_again
            assert unanswered_calls(turn) == []

    async def _take_back(self, message: Event) -> Event:
        """Go back to before a message, and make another one of the same words."""
        was_stored = any(event.id == message.id for event in await self.raw())
        again = self._message(message)
        service = self.dice.choice((self.here, self.elsewhere))
        if self.dice.random() < 0.5:
            await service.rewind(self.key, to_seq=self.before)
        else:
            for _ in range(self.dice.choice((1, 1, 2))):  # Its answer may be lost.
                await service.append_events(self.key, [again], rewind_to=self.before)
        if was_stored and self.dice.random() < 0.5:
            await self._repeat_what_is_taken_back(message)
        return again

    async def _repeat_what_is_taken_back(self, message: Event) -> None:
        before, runs = await self.raw(), self.agent.runs.copy()
        with pytest.raises(EventGoneError):
            await self.run(message, self.anywhere()).result()
        assert (await self.raw(), self.agent.runs) == (before, runs)
        self.seen["what_was_taken_back_is_sent_again", "refused"] += 1


Trouble: TypeAlias = Callable[[Talk, Event], Awaitable[Outcome]]


async def _read(events: AsyncIterator[Event]) -> Said:
    return said([event async for event in events if not event.partial])


async def _is_lost(run: Run) -> Outcome:
    """Wait for the end of a run whose lease another one has taken."""
    with pytest.raises(LeaseLostError):
        await run.result()
    return run.outcome


# -- what happens to turns, which returns their outcome


async def nothing_happens(talk: Talk, message: Event) -> Outcome:
    run = talk.run(message, talk.anywhere())
    assert await _read(aiter(run)) == said(talk.answers)
    return run.outcome


async def the_reader_is_cancelled(talk: Talk, message: Event) -> Outcome:
    hold, run = talk.hold(message), talk.run_for_its_reader(message)
    reader = asyncio.create_task(_read(aiter(run)))
    if talk.dice.random() < 0.1:
        await talk.rounds()  # Its message may not be stored yet.
    else:
        await talk.moment(hold)
    reader.cancel()
    with suppress(asyncio.CancelledError):
        await reader
    assert run.outcome
    return run.outcome


async def the_reader_leaves_and_comes_back(talk: Talk, message: Event) -> Outcome:
    """The run is detached; who comes back sends the message again, and reads all of it."""
    hold, run = talk.hold(message), talk.run(message)
    reader = asyncio.create_task(_read(aiter(run)))
    await talk.moment(hold)
    reader.cancel()
    with suppress(asyncio.CancelledError):
        await reader
    hold.let_go.set()
    again = talk.run(message, talk.anywhere())
    assert await _read(aiter(again)) == said(talk.answers)
    assert talk.agent.runs[message.id] == 1
    return again.outcome


async def the_run_is_cancelled(talk: Talk, message: Event) -> Outcome:
    hold = talk.hold(message)
    run = await talk.run(message).start()
    await talk.moment(hold)
    await run.cancel()
    return run.outcome


async def it_is_stopped_from_elsewhere(talk: Talk, message: Event) -> Outcome:
    run, hold = await talk.held(message)
    if talk.dice.random() < 0.3:
        hold.let_go.set()
        await talk.rounds()
    with suppress(RunNotFoundError):  # It has just ended.
        assert await talk.elsewhere.stop_run(talk.key, run.id)
    await run.result()
    return run.outcome


async def another_turn_interrupts_it(talk: Talk, message: Event) -> Outcome:
    run, _ = await talk.held(message)
    has_begun = await talk.has_begun(message)
    grace = talk.dice.choice((0, 5))
    other = Runner(APP, talk.agent, talk.elsewhere, when_busy="interrupt", grace=grace)
    aside = other.run(USER, talk.key.session_id, ASIDE)
    await aside.result()
    assert aside.outcome == "completed"
    with suppress(LeaseLostError):
        await run.result()
    # Without grace the run may know no more than that it has lost its lease.
    assert run.outcome == "interrupted" or (run.outcome, grace) == ("abandoned", 0)
    end = (await talk.stored(message))[-1].outcome
    assert end == ("interrupted" if has_begun or grace else "")
    return "interrupted"


async def its_lease_runs_out(talk: Talk, message: Event) -> Outcome:
    """It is closed by whoever looks after sessions, or by the next turn."""
    run, hold = await talk.held(message)
    has_begun = await talk.has_begun(message)
    await talk.subject.advance(20)
    if talk.dice.random() < 0.5:
        end = await talk.elsewhere.close_turn(talk.key)
        assert (None if end is None else end.outcome) == ("abandoned" if has_begun else None)
    else:
        aside = Event(author="user", content=ASIDE)
        await talk.run(aside, "elsewhere").result()
    hold.let_go.set()
    return await _is_lost(run)


async def its_lease_runs_out_and_it_is_sent_again(talk: Talk, message: Event) -> Outcome:
    """The agent runs again in the same turn, and goes on; unless a call was closed meanwhile."""
    run, hold = await talk.held(message)
    has_begun = await talk.has_begun(message)
    await talk.subject.advance(20)
    again = talk.run(message, "elsewhere")
    await again.result()
    hold.let_go.set()
    assert await _is_lost(run) == "abandoned"
    assert talk.agent.runs[message.id] == 2
    assert again.outcome == "completed"
    talk.tried_again.add(message.id)
    *closed, end = (event for event in await talk.stored(message) if event.outcome)
    assert [event.outcome for event in closed] == (["abandoned"] if has_begun else [])
    assert end.outcome == "completed"
    return "abandoned" if any(event.content for event in closed) else "completed"


async def it_is_taken_back_while_it_runs(talk: Talk, message: Event) -> Outcome:
    """Nothing of it is stored any more."""
    run, hold = await talk.held(message)
    if is_quick := talk.dice.random() < 0.5:
        hold.let_go.set()
        await talk.rounds()
    await talk.elsewhere.rewind(talk.key, to_seq=talk.before)
    hold.let_go.set()
    with suppress(LeaseLostError):
        await run.result()
    assert is_quick or run.outcome == "abandoned"
    assert not await talk.here.get_events(talk.key, after_seq=talk.before)
    return "abandoned"


async def its_agent_fails(talk: Talk, message: Event) -> Outcome:
    talk.hold(message, fails=True)
    run = talk.run(message)
    with pytest.raises(AgentError):
        await run.result()
    return run.outcome


async def it_is_sent_again_meanwhile(talk: Talk, message: Event) -> Outcome:
    """Both readers get all of it, and the agent runs once."""
    run, hold = await talk.held(message)
    again = talk.run(message, talk.anywhere())
    readers = [asyncio.create_task(_read(events)) for events in (run.read(), aiter(again))]
    await talk.rounds()
    hold.let_go.set()
    for reader in readers:
        assert await reader == said(talk.answers)
    assert talk.agent.runs[message.id] == 1
    assert again.outcome == run.outcome
    return run.outcome


async def it_is_sent_again_afterwards(talk: Talk, message: Event) -> Outcome:
    """So is an earlier message: what is stored is handed on, and nothing is added."""
    outcome = await nothing_happens(talk, message)
    log, raw = await talk.here.get_events(talk.key, limit=1000), await talk.raw()
    runs = talk.agent.runs.copy()
    earlier = talk.dice.choice([event for event in log if event.author == "user"])
    for old in (message, Event(author="user", content=earlier.content, id=earlier.id)):
        handed_on = await talk.run(old, talk.anywhere()).result()
        stored = [event for event in log if event.invocation_id == old.id][1:]
        assert [event for event in handed_on if event.content or not event.outcome] == [
            event for event in stored if event.content or not event.outcome
        ]
    assert (await talk.raw(), talk.agent.runs) == (raw, runs)
    return outcome


# Those that a turn does not survive, and those that it does.
BREAK: Sequence[Trouble] = (
    the_reader_is_cancelled,
    the_run_is_cancelled,
    it_is_stopped_from_elsewhere,
    another_turn_interrupts_it,
    its_lease_runs_out,
    its_lease_runs_out_and_it_is_sent_again,
    it_is_taken_back_while_it_runs,
    its_agent_fails,
)
COMPLETE: Sequence[Trouble] = (
    nothing_happens,
    the_reader_leaves_and_comes_back,
    it_is_sent_again_meanwhile,
    it_is_sent_again_afterwards,
)


def _dealt(dice: random.Random, troubles: Sequence[Trouble]) -> Iterator[Trouble]:
    """Deal troubles at random, none again before all of them have come."""
    while True:
        yield from dice.sample(troubles, len(troubles))


@pytest.fixture(params=["memory", "sqlite", "valkey"])
def open_subject(request: pytest.FixtureRequest) -> Callable[[], Subject]:
    """Memory, a file, and one real server: to each conversation a place and a clock of its own."""
    if request.param == "memory":
        return MemorySubject
    if request.param == "sqlite":
        return SQLiteSubject
    url = request.getfixturevalue("valkey_url")
    return lambda: RedisSubject(url)


async def test_conversations_survive_what_happens_to_their_turns(
    open_subject: Callable[[], Subject],
) -> None:
    """Each log is as it was recorded, whatever was interrupted, repeated and taken back."""
    # Each file is one of its own, to be made and synchronised; some of them are enough.
    found = recordings()[:: 4 if open_subject is SQLiteSubject else 1]
    dice, seen = random.Random(SEED), Counter[tuple[str, str]]()
    failures: list[BaseException] = []
    breaking, completing = _dealt(dice, BREAK), _dealt(dice, COMPLETE)
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def one(recording: Conversation, troubles: Sequence[Sequence[Trouble]]) -> None:
        name = recording.conversation_id
        async with limit, open_subject() as subject:
            talk = Talk(subject, recording, random.Random(f"{SEED} {name}"))
            try:
                with anyio.fail_after(60):
                    await talk.play(troubles)
            except FAILURES as exc:  # The others go on, so that all failures are seen.
                exc.add_note(f"conversation {name}, seed {SEED}")
                failures.append(exc)
            seen.update(talk.seen)

    async with anyio.create_task_group() as everybody:
        for recording in found:
            troubles = [
                [next(breaking) for _ in range(dice.choice((0, 0, 0, 1, 1, 2)))]
                + [next(completing)]
                for _ in recording.turns()
            ]
            everybody.start_soon(one, recording, troubles)
    _show(seen)
    if failures:
        msg = f"{len(failures)} of {len(found)} conversations are not as they were recorded"
        raise BaseExceptionGroup(msg, failures)
    assert not tasks()
    happened = {name for name, _ in seen}
    assert happened > {trouble.__name__ for trouble in (*BREAK, *COMPLETE)}
    ends = {"completed", "failed", "cancelled", "interrupted", "abandoned", "refused"}
    assert {end for _, end in seen} == ends


def _show(seen: Counter[tuple[str, str]]) -> None:
    sys.stdout.writelines(
        f"{number:6} {name}: {end}\n" for (name, end), number in sorted(seen.items())
    )


# -- processes


@pytest.mark.parametrize("store", ["sqlite", "valkey"])
async def test_conversations_survive_the_death_of_their_processes(
    store: str, tmp_path: Path
) -> None:
    """One process after the other plays all of them, and is killed; the last one ends."""
    found, dice, seen = recordings(), random.Random(SEED), Counter[tuple[str, str]]()
    answers = sum(len(turn) - 1 for each in found for turn in each.turns())
    told: list[dict[str, Any]] = []
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/sessions.db"
        if store == "valkey":
            server = servers.running(servers.binaries()["valkey"])
            url = stack.enter_context(server).url
        with workers(url, KILLS + 1, "turns.recordings_worker") as running:
            *mortal, last = running
            for worker in mortal:
                worker.say(f'{{"seed": {dice.randrange(1000)}}}')
                some = dice.randint(1, answers // (KILLS + 1))
                told += _said(worker, some)
                worker.kill()
                told += worker.left_answers()
                seen["a process", "killed"] += 1
            last.say(f'{{"seed": {dice.randrange(1000)}}}')
            while {"done": True} not in told:
                told.append(last.answer())
        again = {each["found"] for each in told if each.get("then") == "sent again"}
        async with open_service(url, session_event_limit=None) as service:
            for recording in found:
                await check_log(service, recording, again)
    seen.update(("a turn that was left", each["then"]) for each in told if "then" in each)
    _show(seen)
    assert {end for _, end in seen} == {"killed", "sent again", "sent anew", "taken back"}


def _said(worker: Worker, most: int) -> list[dict[str, Any]]:
    """Read what a worker tells, until it has said so much."""
    told: list[dict[str, Any]] = []
    while sum("said" in each for each in told) < most:
        told.append(worker.answer())
    return told
