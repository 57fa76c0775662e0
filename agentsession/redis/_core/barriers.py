"""Writes that are answered but not yet as safe as asked. Pure; no I/O.

A barrier is a command that says how far all that the connection wrote before it has got. There is
one in flight at most: a server that waits for its replicas runs nothing else of the connection
meanwhile, and the next barrier speaks of all that was written since.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from agentsession.redis._core.errors import NotAcknowledgedError
from agentsession.redis._core.request import NOBODY, Barrier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.redis._core.acknowledgement import Acknowledgement
    from agentsession.redis._core.request import Command, Request

__all__ = ["Barriers"]


class Barriers:
    """The barriers of a connection, and the requests that wait for them.

    Args:
        acknowledgement: How far a write must have got before it is answered.

    Attributes:
        due: Whether something was written that no barrier speaks of yet.
        held: The requests that are answered and not acknowledged, in their order.
    """

    def __init__(self, acknowledgement: Acknowledgement) -> None:
        self._acknowledgement = acknowledgement
        self._in_flight = False
        self.due = False
        self.held: deque[Command] = deque()

    def __bool__(self) -> bool:
        """Tell whether there are any: the server's memory may be acknowledgement enough."""
        return bool(self._acknowledgement)

    @property
    def wanted(self) -> bool:
        """Whether one is to be sent now."""
        return self.due and not self._in_flight

    def next(self, deadline: float) -> Barrier:
        """Return one to send."""
        self.due, self._in_flight = False, True
        return Barrier(self._acknowledgement.words, NOBODY, deadline)

    def hold(self, request: Request, reply: list[Any]) -> None:
        """Keep an answered request until a barrier is answered that was sent after it."""
        request.reply = reply
        self.held.append(request)

    def answered(self, reply: Any) -> Sequence[Command]:
        """Take a barrier's answer; return what it ends: what is acknowledged, or given up."""
        self._in_flight = False
        lacking = self._acknowledgement.shortfall(reply)
        if not lacking:
            return self._let_go()
        # Who was cancelled waits for no acknowledgement, and is worth no further barrier.
        gone = [request for request in self.held if request.future.done()]
        self.held = deque(request for request in self.held if not request.future.done())
        for request in self.held:
            request.refusal = NotAcknowledgedError(lacking)
        self.due = self.due or bool(self.held)
        return gone

    def refused(self, error: Exception) -> Sequence[Command]:
        """Take the server's refusal of a barrier; return what fails for it."""
        self._in_flight = False
        for request in self.held:
            request.refusal = NotAcknowledgedError(str(error))
            request.fail()
        return self._let_go()

    def lost(self) -> Sequence[Command]:
        """Forget the connection; return what is to be sent again."""
        self.due = self._in_flight = False
        return self._let_go()

    def _let_go(self) -> Sequence[Command]:
        held, self.held = self.held, deque()
        return held
