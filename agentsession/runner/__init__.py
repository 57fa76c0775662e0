"""Runs agents on sessions: loads the session, stores what happens, and yields the events.

One turn, in this order:

1. the session's lease is taken, the user's message is appended, and the session is loaded, or made,
   in one step; what a turn has left whose process has died is closed first;
2. the agent runs; each whole event is appended before it is handed on, each partial one is only
   handed on;
3. an event is appended that says how the turn ended, with the state that the agent changed and no
   event carried; it gives the lease back.

So every whole event that a reader has seen is stored, and readers see every event that the turn
stores, in the same order; except the last one where it says no more than ``outcome="completed"``.
An agent that knows its last event may end the turn by it, by setting the ``outcome`` itself:
``"completed"``, ``"failed"``, or ``"waiting"`` if the turn is to go on when somebody has answered
its open calls (:meth:`~agentsession.Runner.resume`). Until then the session is busy.

An exception, the agent's or the store's, ends the turn with an event that describes it. State that
an event carried which was refused is carried by the next one, here the error's; a change that
cannot be stored at all is lost alone, and the exception names it.

A turn that is stopped, since its reader has gone, somebody asked for it, or another turn takes its
place, ends as ``"cancelled"`` or ``"interrupted"``: its open calls get results which say that the
tool may or may not have run, and the words that were streamed so far become an event. What its
process cannot store any more, whoever comes next does.
"""

from __future__ import annotations

from agentsession.runner._agent import Agent, AgentContext, AgentObject, Stopping
from agentsession.runner._reading import Reader
from agentsession.runner._run import Run
from agentsession.runner._runner import OnDisconnect, Runner
from agentsession.runner._tracked_state import TrackedState

__all__ = [
    "Agent",
    "AgentContext",
    "AgentObject",
    "OnDisconnect",
    "Reader",
    "Run",
    "Runner",
    "Stopping",
    "TrackedState",
]
