"""How the conversations of Pydantic AI are kept in logs; ``adapters.pydantic_ai`` is the store."""

from __future__ import annotations

__all__: list[str] = []
