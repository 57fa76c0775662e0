"""The file under the threads: opening it, taking turns at it, and forks of the process."""

from __future__ import annotations

__all__: list[str] = []
