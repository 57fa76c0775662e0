"""The session stores of agent frameworks, kept here: each is one module, and an extra of its own.

What a framework stores of a conversation becomes events like any others: their parts are the
library's own, so that ``get_events``, a history, the providers' messages and every other framework
can read them. Beside the parts each event keeps the framework's original, so that the framework
gets back what it has stored, to the letter.

All of them take a :class:`~agentsession.SessionService`, which is awaited on one event loop, or a
:class:`~agentsession.blocking.BlockingSessionService`, which serves any number of loops and
threads.
"""

from __future__ import annotations

from agentsession.adapters._sessions.logs import Service

__all__ = ["Service"]
