"""How turns, messages and state are told in AG-UI; ``ui.agui`` has the routes."""

from __future__ import annotations

__all__: list[str] = []
