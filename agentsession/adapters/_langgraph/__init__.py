"""How threads of LangGraph lie in sessions: all of its adapter but what the bytes mean.

``records`` says what a log holds, ``log`` reads it, ``access`` has the sessions and what is
remembered of them, and the others are what a checkpointer does. It knows nothing of LangGraph.
"""

from __future__ import annotations

__all__: list[str] = []
