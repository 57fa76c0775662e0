"""How long a connection may owe a reply while nothing flows. Pure; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agentsession.redis._core.request import Command

__all__ = ["Silence"]

# The share of the deadline for which a connection may owe a reply while nothing flows. It doubles
# with each connection that is given up, so that a reply may take its time in the end.
_PATIENCE: Final = 1 / 4
# How often it is checked in that time whether bytes have flowed. More than once: after a long step
# of somebody else's, a timer runs before what has come is read.
_LOOKS: Final = 2


class Silence:
    """Tells a connection that hangs from one that takes its time.

    Args:
        timeout: Seconds that a call may take.
        grace: Seconds for which a server may say nothing besides, since it was asked to wait.
    """

    def __init__(self, timeout: float, grace: float) -> None:
        self._patience = timeout * _PATIENCE
        self._grace = grace
        self._seen: tuple[Command | None, int] = (None, 0)
        self._seen_at = 0.0
        self._looks = 0
        self._given_up = 0

    def forget(self) -> None:
        """Begin anew: there is another connection, or none that owes a reply."""
        self._seen = (None, 0)

    def ended(self) -> None:
        """Note that a reply came; the next connection to hang is given up as early as the first."""
        self._given_up = 0

    def look(self, owed_to: Command, progress: int, now: float) -> float | None:
        """Look at a connection that owes a reply; return when to look again, in seconds.

        Args:
            owed_to: The command whose reply comes next.
            progress: How many bytes have flowed on the connection, in both directions.
            now: The loop's time.

        Returns:
            ``None`` if the connection is to be given up: too long nothing has flowed.
        """
        seen = (owed_to, progress)
        self._looks = self._looks + 1 if seen == self._seen else 0
        if not self._looks:
            self._seen_at = now
        if self._looks == _LOOKS:
            self._given_up += 1
            return None
        self._seen = seen
        return self._patience * 2.0**self._given_up / _LOOKS + self._grace

    def is_broken_by(self, progress: int, now: float) -> bool:
        """Tell whether anything has flowed since the last look, or it is too early to tell."""
        return progress != self._seen[1] or now < self._seen_at + self._patience
