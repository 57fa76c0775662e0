"""Tells tasks of this process that there may be news for them."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["Alarms"]


class Alarms:
    """Who listens for what, by name. To ring for nobody is no error."""

    def __init__(self) -> None:
        self._listeners: dict[str, Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._listeners)

    @contextmanager
    def listen(self, name: str, on_news: Callable[[], None]) -> Generator[None]:
        """Have a function called whenever there is news for this name, until the block ends."""
        self._listeners[name] = on_news
        try:
            yield
        finally:
            del self._listeners[name]

    def ring(self, name: str) -> None:
        """Tell one soon: in a step of its own, since whoever rings may be in the middle of one."""
        if name in self._listeners:
            asyncio.get_running_loop().call_soon(self._tell, name)

    def ring_all(self) -> None:
        """Tell everybody."""
        for name in [*self._listeners]:
            self.ring(name)

    def _tell(self, name: str) -> None:
        listener = self._listeners.get(name)
        if listener is not None:
            listener()
