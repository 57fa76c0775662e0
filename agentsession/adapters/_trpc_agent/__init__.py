"""Sessions of tRPC-Agent: what they hold, and what has changed in them since they were read."""

from __future__ import annotations

__all__: list[str] = []
