"""The server's clock, as far as this process knows it. Pure; no I/O."""

from __future__ import annotations

__all__ = ["ServerClock"]


class ServerClock:
    """Tells the time of the server in microseconds, by the loop's clock and what the server told.

    What a reply tells is past when it is read, so the clock is behind the server's by that much
    and never ahead: a deadline by it comes no later than it should.

    Attributes:
        behind: By how many microseconds it is behind at most.
    """

    def __init__(self) -> None:
        self._ahead: int | None = None
        self.behind = 0

    def learn(self, told: int, asked: float, now: float) -> None:
        """Note what the server told in a reply.

        Args:
            told: Its time.
            asked: The loop's time at which it was asked.
            now: The loop's time at which the reply was read.
        """
        self._ahead = told - int(now * 1_000_000)
        self.behind = int((now - asked) * 1_000_000) + 1

    def at(self, moment: float) -> int:
        """Return the server's time at a time of the loop; 0 while nothing is known of it."""
        return 0 if self._ahead is None else int(moment * 1_000_000) + self._ahead
