"""Where notices go: to the log, at a bounded rate, and to the observers."""

from __future__ import annotations

import logging
import traceback
from asyncio import CancelledError
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Final

from agentsession.observers import (
    Connected,
    GivenUp,
    Lost,
    Notice,
    Observer,
    PrimaryChanged,
    Refused,
    Retried,
    SlotsMoved,
    Swept,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Sequence

__all__ = ["Journal"]

_LEVELS: Final[dict[type[Notice], int]] = {
    Connected: logging.INFO,
    Retried: logging.INFO,
    SlotsMoved: logging.INFO,
    PrimaryChanged: logging.WARNING,
    Lost: logging.WARNING,
    GivenUp: logging.WARNING,
    Unreachable: logging.WARNING,
    Refused: logging.WARNING,
    Swept: logging.DEBUG,
}

_of_observers: Final = logging.getLogger("agentsession.observers")

# Between two log lines about the same thing, in seconds.
_INTERVAL: Final = 5.0
# So many things are told apart; the nodes of a cluster may come and go for ever.
_MOST_THINGS: Final = 1000


class _Rate:
    """Decides which of many log lines about the same thing are written. Pure; no I/O."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # When each thing was logged last, and how often it was left out since; the oldest first.
        self._things: dict[Hashable, tuple[float, int]] = {}

    def admits(self, thing: Hashable) -> str | None:
        """Tell whether to write a line now: what to add to it, or ``None`` to leave it out."""
        now = self._clock()
        logged, left_out = self._things.get(thing, (now - _INTERVAL, 0))
        if now - logged < _INTERVAL:
            self._things[thing] = logged, left_out + 1
            return None
        self._things.pop(thing, None)
        if len(self._things) == _MOST_THINGS:
            del self._things[next(iter(self._things))]
        self._things[thing] = now, 0
        return f" (and {left_out:,} more in {now - logged:.0f} s)" if left_out else ""


class Journal:
    """Takes down what happens on connections and in stores.

    Args:
        name: The logger's.
        observers: Are told of each notice.
        clock: The present in seconds, from any beginning.
    """

    def __init__(
        self,
        name: str,
        observers: Sequence[Observer] = (),
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._logger = logging.getLogger(name)
        self._rate = _Rate(clock)
        self._audiences: dict[object, Sequence[Observer]] = {self: observers}

    def join(self, who: object, observers: Sequence[Observer]) -> None:
        """Tell more observers, until *who* leaves."""
        self._audiences[who] = observers

    def leave(self, who: object) -> None:
        """Tell the observers of *who* no more."""
        self._audiences.pop(who, None)

    def note(self, notice: Notice) -> None:
        """Log a notice, unless one like it was logged just now, and tell the observers."""
        # Connections are shared: the caller in whose context this runs is not the cause of it.
        Context().run(self._note, notice)

    def _note(self, notice: Notice) -> None:
        # No fields in which two notices of the same storm may differ.
        thing = type(notice), getattr(notice, "server", ""), getattr(notice, "code", "")
        self._log(self._logger, _LEVELS[type(notice)], thing, str(notice))
        for observer in self._observers():
            try:
                observer.on_notice(notice)
            except (Exception, CancelledError) as exc:  # noqa: BLE001 - the connection has to go on
                self.dropped(observer, exc)

    def _observers(self) -> Collection[Observer]:
        each_once = {id(each): each for group in self._audiences.values() for each in group}
        return each_once.values()

    def dropped(self, observer: Observer, exc: BaseException) -> None:
        """Log what an observer raised, unless one of its class raised just now."""
        kind = type(observer)
        text = f"an observer, {kind.__module__}.{kind.__qualname__}, raised; all else went on"
        self._log(_of_observers, logging.ERROR, kind, text, exc)

    def _log(
        self,
        logger: logging.Logger,
        level: int,
        thing: Hashable,
        text: str,
        exc: BaseException | None = None,
    ) -> None:
        if not logger.isEnabledFor(level):
            return
        more = self._rate.admits(thing)
        if more is not None:
            # A filter or a handler of the program that raises breaks its other lines, too; a
            # connection is not to be one of the things that it breaks.
            with suppress(Exception):
                logger.log(level, "%s%s%s", _printable(text), more, _trace(exc))


def _printable(text: str) -> str:
    """Escape what no handler could write, or what would begin another line: hosts may be odd."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _trace(exc: BaseException | None) -> str:
    """Word a traceback, but not those of what the exception came of: an operation names its ids."""
    if exc is None:
        return ""
    return "\n" + "".join(traceback.format_exception(exc, chain=False)).rstrip()
