"""Recorded conversations, an agent that says again what was recorded, and how a log is compared.

The agent knows only from the session that it gets which turn it is, and how far that has come. So
an event that was lost, doubled or not taken back makes it answer wrongly from there on.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import TypeAlias

from agentsession import AgentContext, Event, SessionKey, SessionService
from agentsession.demo import SHIPPED_CONVERSATIONS
from agentsession.demo._conversations import Conversation, read_conversations, to_event
from agentsession.events import Content
from agentsession.history import View, effective, unanswered_calls
from turns.test_runs import is_free
from turns.worker import APP, USER
from turns.workers import ROOT, check_pairs

# Real ones, where the checkout has them beside it, as in noxfile.py.
BESIDE = ROOT.parent / "shared" / "data" / "airline_conversations.jsonl"
# What a user says who has thought of something else; no recording has it.
ASIDE = "Hold on."

Said: TypeAlias = list[tuple[str, Content]]


def recordings() -> list[Conversation]:
    """Read the real conversations, or the few that the package ships."""
    return read_conversations(BESIDE if BESIDE.is_file() else SHIPPED_CONVERSATIONS)


def key_of(recording: Conversation) -> SessionKey:
    return SessionKey(APP, USER, recording.conversation_id)


def prelude(recording: Conversation) -> list[Event]:
    """Make what was said before the first turn; the same events each time."""
    said = [to_event(message) for message in recording.prelude()]
    return [
        Event(author=event.author, content=event.content, id=f"prelude {number}")
        for number, event in enumerate(said)
    ]


def said(events: Sequence[Event]) -> Said:
    """Return who has said what; an event that only ends a turn says nothing."""
    return [(event.author, event.content) for event in events if event.content or not event.outcome]


class Hold:
    """A step of a turn at which its agent stands still until it is let go.

    Args:
        step: How many of the recorded answers were said before.
        fails: Whether the agent raises an error there instead.
    """

    def __init__(self, step: int, *, fails: bool = False) -> None:
        self.step = step
        self.fails = fails
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()


class AgentError(Exception):
    """What the agent raises where it is to fail."""


class RecordedAgent:
    """Says what was recorded, from where its turn has come to.

    Args:
        recording: The conversation.
        when_said: Called after each answer.

    Attributes:
        holds: By the id of a message, where its agent is held; the first time that it is run.
        runs: By the id of a message, how often the agent was run.
    """

    name = "assistant"

    def __init__(
        self, recording: Conversation, when_said: Callable[[], None] = lambda: None
    ) -> None:
        self._turns = recording.turns()
        self._when_said = when_said
        self.holds: dict[str, Hold] = {}
        self.runs: Counter[str] = Counter()

    async def run(self, context: AgentContext, /) -> AsyncIterator[Event]:
        message = context.message
        self.runs[message.id] += 1
        hold = self.holds.pop(message.id, None)
        if message.content == ASIDE:
            yield Event(author="assistant", content="Yes?")
            return
        events = context.session.events
        answers = self._answers(sum(event.author == "user" for event in events))
        before = said([each for each in events if each.invocation_id == context.invocation_id])[1:]
        # What a process has left that died is gone on with; not what was closed behind it, since
        # a result of which nothing is known was not recorded.
        first = len(before) if before == said(answers[: len(before)]) else 0
        if not first:
            context.state["turns"] = context.state.get("turns", 0) + 1
        dice = random.Random(message.id)
        for step in range(first, len(answers) + 1):
            if hold is not None and hold.step == step:
                hold.reached.set()
                if hold.fails:
                    raise AgentError
                await hold.let_go.wait()
            if step < len(answers):
                for _ in range(dice.choice((0, 0, 1, 5))):
                    await asyncio.sleep(0)
                answer = answers[step]
                if answer.text and answer.author == "assistant":
                    words = answer.text[: len(answer.text) // 2]
                    yield Event(author="assistant", content=words, partial=True)
                yield answer
                self._when_said()

    def _answers(self, number: int) -> list[Event]:
        return [to_event(message) for message in self._turns[number - 1][1:]]


async def check_log(
    service: SessionService, recording: Conversation, tried_again: Collection[str]
) -> None:
    """Check that a session is what was recorded, each turn has its end, and nobody has it.

    Args:
        service: Where it is.
        recording: The conversation.
        tried_again: The turns that were run again after their process had died; they have an end
            of each time.
    """
    key = key_of(recording)
    session = await service.get_session(key)
    assert session is not None
    raw = await service.get_events(key, limit=1000, raw=True)
    recorded = [to_event(message) for message in recording.messages]
    assert said(session.events) == said(recorded)
    assert session.events == list(effective(raw)) == await service.get_events(key, limit=1000)
    history = await service.get_history(key)
    assert said(history) == said(View().of(recorded))
    check_pairs(history)
    number = len(recording.turns())
    assert session.state == ({"turns": number} if number else {})
    assert [event.seq for event in raw] == list(range(1, len(raw) + 1))
    assert len({event.id for event in raw}) == len(raw)
    _check_ends(raw, session.events, tried_again)
    assert await is_free(service, key)


def _check_ends(raw: Sequence[Event], log: Sequence[Event], tried_again: Collection[str]) -> None:
    """Check that each turn has one end, behind everything else of it, or was taken back."""
    left = {event.id for event in log}
    turns: dict[str, list[Event]] = {}
    for event in raw:
        if event.invocation_id:
            turns.setdefault(event.invocation_id, []).append(event)
    for name, own in turns.items():
        is_left = {event.id in left for event in own}
        assert len(is_left) == 1, f"half of {name} was taken back"
        if is_left == {True}:
            *earlier, last = [event.outcome for event in own if event.outcome]
            assert last == own[-1].outcome == "completed"
            assert not earlier or (set(earlier) == {"abandoned"} and name in tried_again)
            assert unanswered_calls(own) == []
