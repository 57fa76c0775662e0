"""The streams that today's chat frontends read, each in a module of its own.

:mod:`agentsession.ui.vercel` speaks the UI message stream of Vercel's AI SDK,
:mod:`agentsession.ui.agui` speaks AG-UI.
"""

from __future__ import annotations

__all__: list[str] = []
