"""Runs agents on sessions: loads the session, stores what happens, and yields the events.

One turn, in this order:

1. the session is loaded, or made;
2. the user's message is appended;
3. the agent runs; each whole event is appended before it is handed on, each partial one is only
   handed on;
4. state that the agent changed and no event carried is stored.

So every whole event that the caller has seen is stored, and the caller sees every event that is
stored, in the same order.

An exception, the agent's or the store's, ends the turn with an event that describes it. State that
an event carried which was refused is carried by the next one, here the error's; a change that
cannot be stored at all is lost alone, and the exception names it.
"""

from __future__ import annotations

from agentsession.runner._agent import Agent, AgentContext, AgentObject
from agentsession.runner._runner import Run, Runner
from agentsession.runner._tracked_state import TrackedState

__all__ = ["Agent", "AgentContext", "AgentObject", "Run", "Runner", "TrackedState"]
