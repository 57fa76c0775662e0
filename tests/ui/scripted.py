"""An agent that does what the user says, and waits where a test wants it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from agentsession import AgentContext, Data, Event, Text, ToolCall, ToolResult
from agentsession.events import Media, Reasoning

__all__ = ["Gate", "agent_of", "scripts"]


class Gate:
    """Where an agent stops until the test lets it go on."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._is_open = asyncio.Event()

    async def reached(self) -> None:
        async with asyncio.timeout(20):
            await self._reached.wait()

    def open(self) -> None:
        self._is_open.set()

    async def pass_through(self) -> None:
        async for _ in self.moments():
            pass

    async def moments(self) -> AsyncIterator[None]:
        """Yield now and then until it is open: who comes late to a stream gets it with a chunk."""
        self._reached.set()
        while not self._is_open.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._is_open.wait()
            yield


def chunk(part: Any, stream: str = "") -> Event:
    content = part if isinstance(part, str) else [part]
    return Event(author="agent", content=content, partial=True, stream_id=stream)


async def everything(context: AgentContext, gate: Gate) -> AsyncIterator[Event]:
    """All that can be shown, with a wait after the first half of a tool's arguments."""
    yield chunk(Reasoning("Let me "))
    yield chunk(Reasoning("look."))
    yield chunk("I look ")
    yield chunk("at two things.")
    yield chunk(ToolCall("call-1", "weather", '{"city":'))
    async for _ in gate.moments():
        yield chunk(ToolCall("call-1", "weather", " "))
    yield chunk(ToolCall("call-1", "weather", '"Paris"}'))
    yield chunk(ToolCall("call-2", "clock", '{"zone":'))
    yield chunk(ToolCall("call-2", "clock", ' "CET"}'))
    yield Event(
        author="agent",
        content=[
            Reasoning("Let me look.", provider_data={"signature": "secret"}),
            Text("I look at two things."),
            ToolCall("call-1", "weather", {"city": "Paris"}),
            ToolCall("call-2", "clock", '{"zone": "CET"}'),
        ],
        state_delta={"looked": 1, "user:likes/~": "tea", "temp:token": "secret"},
    )
    yield Event(author="tool", content=[ToolResult("call-1", {"sunny": True}, "weather")])
    yield Event(author="tool", content=[ToolResult("call-2", "no clock", "clock", is_error=True)])
    yield chunk("It is ")
    yield chunk("sunny.")
    yield Event(
        author="agent",
        content=[
            Text("It is sunny."),
            Media.from_bytes(b"picture", "image/png", "sun.png"),
            Data({"card": ["sun"]}, "card"),
        ],
        state_delta={"looked": 2},
    )


async def fails(context: AgentContext, gate: Gate) -> AsyncIterator[Event]:
    yield chunk("I try")
    await gate.pass_through()
    msg = "it broke"
    raise RuntimeError(msg)


async def counts(context: AgentContext, gate: Gate) -> AsyncIterator[Event]:
    """Say which turn of the session it is."""
    turns = sum(event.author == "user" for event in context.session.events)
    yield chunk(f"turn {turns}")
    yield Event(author="agent", content=f"turn {turns} of {context.message.text}")


async def asks(context: AgentContext, gate: Gate) -> AsyncIterator[Event]:
    """Ask for two tools that somebody else runs, and go on with what they gave back."""
    answered = context.message.tool_results
    if answered:
        results = [event.tool_results for event in context.session.events]
        given = {each.call_id: each.result for found in results for each in found}
        words = "so "
        yield chunk(words)
        async for _ in gate.moments():
            words += "on "
            yield chunk("on ")
        yield Event(author="agent", content=f"{words}{given}")
        return
    yield Event(
        author="agent",
        content=[ToolCall("ask-1", "confirm", {"what": "a"}), ToolCall("ask-2", "confirm", {})],
        outcome="waiting",
    )


async def corrects(context: AgentContext, gate: Gate) -> AsyncIterator[Event]:
    """Ask for a tool, say other words in the end than in between, and correct its result."""
    if not context.message.tool_results:
        yield Event(author="agent", content=[ToolCall("ask", "confirm")], outcome="waiting")
        return
    yield Event(author="agent", content="I see")
    yield chunk("wrong", "words")
    yield Event(author="agent", content="right", stream_id="words")
    yield Event(author="tool", content=[ToolResult("ask", "corrected", "confirm")])
    yield Event(author="agent", content="done")


async def talks(context: AgentContext, gate: Gate) -> AsyncIterator[Event]:
    """Say some words, and then wait to say the rest."""
    yield chunk("half of ")
    await gate.pass_through()
    yield chunk("all")
    yield Event(author="agent", content="half of all")


scripts = {each.__name__: each for each in (everything, fails, counts, asks, corrects, talks)}


def agent_of(gate: Gate) -> Any:
    """Make an agent that runs the script that the user's first message names."""

    def agent(context: AgentContext) -> AsyncIterator[Event]:
        events = context.session.events
        first = next(each for each in events if each.invocation_id == context.invocation_id)
        return scripts[first.text.split()[0]](context, gate)

    return agent
