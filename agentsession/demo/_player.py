"""Replays recorded conversations through a :class:`~agentsession.Runner`, and compares.

Each conversation has two runners over two services, as two processes would have, which take turns.
The agent plays the recorded answers. Which turn it is, it knows only from the session that it
gets: an event that was lost, doubled or out of order makes it answer wrongly from there on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import anyio
import msgspec
from msgspec import Struct

from agentsession.demo._conversations import Conversation, Message, from_event, to_event
from agentsession.events import Event
from agentsession.runner import AgentContext, Runner
from agentsession.sessions import SessionKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from agentsession.service import SessionService

__all__ = ["APP_NAME", "Difference", "Report", "replay"]

APP_NAME: Final = "agentsession-demo"
"""The application whose sessions the demo makes."""

# Of a streamed answer; about what models send at a time.
_CHUNK = 24
# How many conversations go on at once: enough to keep a connection busy.
_AT_ONCE = 16


class Difference(Struct, frozen=True):
    """A place where what was read back is not what was recorded."""

    conversation_id: str
    place: str
    expected: str
    found: str


class Report(Struct):
    """What a replay did and found."""

    conversations: int = 0
    turns: int = 0
    events: int = 0
    tool_calls: int = 0
    chunks: int = 0
    seconds: float = 0.0
    differences: list[Difference] = []


class _RecordedAgent:
    """Answers as it was recorded, streaming words in chunks, and keeps count in state."""

    name = "assistant"

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        self._turns = {each.conversation_id: each.turns() for each in conversations}

    async def run(self, context: AgentContext, /) -> AsyncIterator[Event]:
        turns = self._turns[context.session.id]
        turn = sum(event.author == "user" for event in context.session.events)
        context.state["turns"] = context.state.get("turns", 0) + 1
        if turn > len(turns):
            return
        for message in turns[turn - 1][1:]:
            if message.role == "assistant" and message.content:
                for start in range(0, len(message.content), _CHUNK):
                    chunk = message.content[start : start + _CHUNK]
                    yield Event(author="assistant", content=chunk, partial=True)
            yield to_event(message)
        context.state["user:answered"] = turn


async def replay(
    conversations: Sequence[Conversation],
    services: Sequence[SessionService],
    reader: SessionService,
    on_turn: Callable[[], None],
) -> Report:
    """Replay conversations, turn by turn, and compare them message by message.

    Args:
        conversations: What was recorded.
        services: Takes the turns, one after the other.
        reader: Reads everything back.
        on_turn: Called after each turn.
    """
    report = Report(conversations=len(conversations))
    agent = _RecordedAgent(conversations)
    runners = [Runner(APP_NAME, agent, service) for service in services]
    limit = anyio.CapacityLimiter(_AT_ONCE)

    async def one(conversation: Conversation) -> None:
        async with limit:
            await _replay_one(conversation, runners, report, on_turn)

    start = time.perf_counter()
    async with anyio.create_task_group() as group:
        for conversation in conversations:
            group.start_soon(one, conversation)
    report.seconds = time.perf_counter() - start
    for conversation in conversations:
        report.differences += await _compare(conversation, reader)
    return report


def _key(conversation: Conversation) -> SessionKey:
    return SessionKey(
        APP_NAME, f"user of {conversation.conversation_id}", conversation.conversation_id
    )


async def _replay_one(
    conversation: Conversation,
    runners: Sequence[Runner],
    report: Report,
    on_turn: Callable[[], None],
) -> None:
    key = _key(conversation)
    session = await runners[0].session_service.create_session(key)
    prelude = [to_event(message) for message in conversation.prelude()]
    await runners[0].session_service.append_events(session, prelude)
    report.events += len(prelude)
    for number, turn in enumerate(conversation.turns()):
        runner = runners[number % len(runners)]
        report.events += 1
        async for event in runner.run(key.user_id, key.session_id, turn[0].content or ""):
            if event.partial:
                report.chunks += 1
            else:
                report.events += 1
                report.tool_calls += len(from_event(event).tool_calls or ())
        report.turns += 1
        on_turn()


async def _compare(conversation: Conversation, reader: SessionService) -> list[Difference]:
    """Compare a stored session with its recording."""
    name = conversation.conversation_id
    session = await reader.get_session(_key(conversation))
    if session is None:
        return [Difference(name, "session", "stored", "absent")]
    # What only says that a turn has ended is no message.
    found = [from_event(event) for event in session.events if event.content or not event.outcome]
    differences = [
        Difference(name, f"message {number}", _word(expected), _word(stored))
        for number, (expected, stored) in enumerate(_paired(conversation.messages, found), 1)
        if expected != stored
    ]
    turns = len(conversation.turns())
    state = {"turns": turns, "user:answered": turns} if turns else {}
    if session.state != state:
        differences.append(Difference(name, "state", repr(state), repr(session.state)))
    positions = [event.seq for event in session.events]
    if positions != list(range(1, len(positions) + 1)):
        differences.append(Difference(name, "positions", "1, 2, 3 ...", repr(positions)))
    return differences


def _paired(
    first: Sequence[Message], second: Sequence[Message]
) -> list[tuple[Message | None, Message | None]]:
    """Pair two logs; the shorter one is filled up with nothing."""
    length = max(len(first), len(second))
    return [
        (first[i] if i < len(first) else None, second[i] if i < len(second) else None)
        for i in range(length)
    ]


def _word(message: Message | None) -> str:
    return "nothing" if message is None else msgspec.json.encode(message).decode()
