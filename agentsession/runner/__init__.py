"""Runs an agent on a session: loads it, keeps it, and hands on what the agent says.

One turn, in this order:

1. the session is loaded, or made;
2. the user's message is appended;
3. the agent runs; each whole event is appended before it is handed on, each partial one is only
   handed on;
4. state that the agent changed and no event carried is stored.

So whatever the caller has seen as a whole event is stored, and what is stored the caller sees, in
the same order.

An exception, the agent's or the store's, ends the turn with an event that describes it. State that
an event carried which was refused is carried by the next one, here the error's; a change that
cannot be stored at all is lost alone, and the exception names it.
"""

from __future__ import annotations

from agentsession.runner._agent import Agent, AgentContext, AgentObject
from agentsession.runner._runner import Run, Runner
from agentsession.runner._tracked_state import TrackedState

__all__ = ["Agent", "AgentContext", "AgentObject", "Run", "Runner", "TrackedState"]
