"""The server's clock, as far as this process knows it. Pure; no I/O."""

from __future__ import annotations

__all__ = ["ServerClock"]


class ServerClock:
    """Tells the time of the server in microseconds, by the loop's clock and what the server told.

    What a reply tells is past when it is read, so the clock is behind the server's by that much
    and never ahead: a deadline by it comes no later than it should.
    """

    def __init__(self) -> None:
        self._ahead: int | None = None

    def learn(self, told: int, now: float) -> None:
        """Note what the server told in a reply that was read at the loop's time *now*."""
        self._ahead = told - int(now * 1_000_000)

    def at(self, moment: float) -> int:
        """Return the server's time at a time of the loop; 0 while nothing is known of it."""
        return 0 if self._ahead is None else int(moment * 1_000_000) + self._ahead
