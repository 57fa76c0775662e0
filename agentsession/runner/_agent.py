"""What an agent is, what it gets, and how it is run."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeAlias, runtime_checkable

from msgspec import Struct, field

from agentsession.events import Event
from agentsession.leases import Told
from agentsession.runner._tracked_state import TrackedState
from agentsession.sessions import Session

__all__ = [
    "Agent",
    "AgentContext",
    "AgentObject",
    "Stopping",
    "name_of",
    "runnable",
    "started",
]

# How long closing an agent that was cancelled may take, in seconds, before it is left to itself.
_CLOSING_TIME = 5.0


class Stopping(Struct):
    """Whether a turn is to stop, and whether its agent looks at that.

    Attributes:
        why: What it was told; ``None`` if it may go on.
        is_watched: Whether the agent has asked.
    """

    why: Told | None = None
    is_watched: bool = False


class AgentContext(Struct, frozen=True, kw_only=True):
    """What an agent gets; fields may be added in later versions.

    Attributes:
        session: The session so far, the user's message included; kept up to date while the agent
            runs.
        message: The user's message as it was stored; or, of a turn that waited and goes on, the
            results that it waited for.
        invocation_id: The turn; the runner puts it into every event that has none.
        state: The session's merged state, to read and to change.
        stopping: What :attr:`cancelled` tells.
    """

    session: Session
    message: Event
    invocation_id: str
    state: TrackedState
    stopping: Stopping = field(default_factory=Stopping)

    @property
    def cancelled(self) -> bool:
        """Whether the turn is to stop, so that the agent, or a tool, should come to its end.

        An agent that never asks is cancelled at once, by an :exc:`asyncio.CancelledError`. One that
        has asked in this turn may end by itself first, and store what it has; after 3 seconds it is
        cancelled too. One that catches that and goes on is left to itself after 10 seconds, and its
        turn ends without it.
        """
        self.stopping.is_watched = True
        return self.stopping.why is not None

    @property
    def history(self) -> list[Event]:
        """What a model may be shown of the session so far; ``session.history()`` takes options."""
        return self.session.history()


@runtime_checkable
class AgentObject(Protocol):
    """An agent that is an object."""

    def run(self, context: AgentContext, /) -> AsyncIterator[Event]:
        """Answer one message of the user, event by event."""
        ...


Agent: TypeAlias = Callable[[AgentContext], AsyncIterator[Event]] | AgentObject
"""Anything that takes one :class:`AgentContext` and returns an async iterator of events."""


def runnable(agent: Agent) -> Callable[[AgentContext], AsyncIterator[Event]]:
    """Return the callable of an agent: its method ``run`` if it has one, else the agent itself."""
    if isinstance(agent, type):
        msg = f"the agent is the class {agent.__name__}; pass an instance of it"
        raise TypeError(msg)
    if isinstance(agent, AgentObject):
        return agent.run
    if callable(agent):
        return agent
    msg = f"an agent is callable or has a method run, and {agent!r:.80} is neither"
    if isinstance(agent, AsyncIterator):
        msg += "; pass the function itself, which the runner calls in each turn"
    raise TypeError(msg)


def name_of(agent: object) -> str:
    """Return a name for an agent: its own, or that of its function or class."""
    while isinstance(agent, partial):
        agent = agent.func
    owner = getattr(agent, "__self__", agent)
    with suppress(Exception):
        for name in (getattr(owner, "name", None), getattr(agent, "__name__", None)):
            if isinstance(name, str) and name:
                return name
    return type(owner).__name__


async def started(
    agent: Callable[[AgentContext], AsyncIterator[Event]], context: AgentContext
) -> AsyncGenerator[Event, None]:
    """Iterate over an agent's events, and close it in the end, in bounded time if cancelled."""
    events = agent(context)
    if not isinstance(events, AsyncIterator):
        if inspect.iscoroutine(events):
            events.close()
        kind = type(events).__qualname__
        msg = (
            f"the agent returned a {kind}, not an async iterator; it needs 'async def' and 'yield'"
        )
        raise TypeError(msg)
    try:
        async for event in events:
            yield event
    except BaseException:
        close = getattr(events, "aclose", None)
        if close is not None:
            await _in_time(close)
        raise


async def _in_time(close: Callable[[], Awaitable[object]]) -> None:
    """Close an agent, and cancel it if that takes too long.

    This is no scope of anyio's: one would be inside of those in which the agent yields, which could
    not be left then; and it would cancel again and again an agent that catches that.
    """
    limit = asyncio.timeout(_CLOSING_TIME)
    try:
        async with limit:
            await close()
    except TimeoutError:
        if not limit.expired():
            raise
    except BaseExceptionGroup as exc:
        # A group of tasks in which the agent has yielded makes this of its being closed.
        if exc.split(GeneratorExit)[1] is not None:
            raise
