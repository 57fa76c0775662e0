"""What adapters do with sessions: add to a log, read it, and replace its end."""

from __future__ import annotations

__all__: list[str] = []
