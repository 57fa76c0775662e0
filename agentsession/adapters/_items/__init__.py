"""What frameworks store, on its way to events and back."""

from __future__ import annotations

__all__: list[str] = []
