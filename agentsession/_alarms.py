"""Tells those of this process who listen that there may be news for them."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable

__all__ = ["Alarms"]

_N = TypeVar("_N")


class Alarms(Generic[_N]):
    """Who listens for what, by name. To ring for nobody is no error.

    A listener is called with the news, or with ``None`` if some may have been missed.
    """

    def __init__(self) -> None:
        # A dict for its order: those who came first are told first.
        self._listeners: dict[Hashable, dict[object, Callable[[_N | None], None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def __len__(self) -> int:
        return sum(map(len, self._listeners.values()))

    @contextmanager
    def listen(self, name: Hashable, on_news: Callable[[_N | None], None]) -> Generator[None]:
        """Have a function called whenever there is news for this name, until the block ends."""
        place = object()
        self._listeners.setdefault(name, {})[place] = on_news
        try:
            yield
        finally:
            del self._listeners[name][place]
            if not self._listeners[name]:
                del self._listeners[name]

    def ring(self, name: Hashable, news: _N | None = None) -> None:
        """Tell some soon: in a step of its own, since whoever rings may be in the middle of one."""
        if name in self._listeners:
            asyncio.get_running_loop().call_soon(self.tell, name, news)

    @property
    def names(self) -> list[Hashable]:
        """What anybody listens for."""
        return [*self._listeners]

    def ring_all(self) -> None:
        """Tell everybody that something may have been missed."""
        for name in self.names:
            self.ring(name)

    def tell(self, name: Hashable, news: _N | None = None) -> None:
        """Tell some at once, in the middle of whatever the caller does."""
        for on_news in [*self._listeners.get(name, {}).values()]:
            on_news(news)
