"""How turns and messages are told to Vercel's AI SDK; ``ui.vercel`` has the routes."""

from __future__ import annotations

__all__: list[str] = []
