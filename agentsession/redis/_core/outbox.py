"""What waits to be sent on a connection, and how it is packed. Pure; no I/O.

Many commands leave together. A large one leaves piece by piece, and nothing else in between.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING

from agentsession.redis._core.request import LARGE, NOBODY, Asking, Command, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentsession.redis._core.barriers import Barriers
    from agentsession.redis._core.clock import ServerClock

__all__ = ["Outbox"]


class Outbox:
    """The commands that wait to be sent, in their order.

    Args:
        clock: The server's.
        barriers: Say when one of them is to be sent.
        in_flight: Each command that is sent is added to its end.
        done: Called with each command that has ended without being sent.

    Attributes:
        waiting: What is to be sent.
        piece: What is to be sent next of the large command that was begun last; ``None`` if all of
            it has left.
    """

    def __init__(
        self,
        clock: ServerClock,
        barriers: Barriers,
        in_flight: deque[Command],
        done: Callable[[Command], None],
    ) -> None:
        self.waiting: deque[Command] = deque()
        self.piece: bytes | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._clock = clock
        self._barriers = barriers
        self._in_flight = in_flight
        self._done = done
        self._echoes = itertools.count(1)

    def next_bytes(self, now: float) -> bytes:
        """Return the next bytes to send, some hundred kilobytes at most or one large word.

        Raises:
            ConnectionError: A command has left in part, and the rest of it cannot be sent.
        """
        if self.piece is not None:
            return self._take_piece()
        batch: list[bytes] = []
        size = 0
        while self.waiting and size < LARGE:
            command = self.waiting[0]
            if command.future.done():
                self.waiting.popleft()
                self._done(command)
                continue
            if command.size > LARGE and batch:
                break
            self.waiting.popleft()
            command.sent_at = now
            if isinstance(command, Request):
                command.prepare(b"%d" % next(self._echoes), self._clock, now)
            large = command.size > LARGE
            try:
                packed = self._cut(command) if large else command.packed()
            except (TypeError, ValueError) as exc:
                # Its own caller's mistake: the others are not to suffer from it.
                command.refuse(exc)
                self._done(command)
                continue
            if command.asking:
                self._in_flight.append(Asking(("ASKING",), NOBODY, command.deadline))
                batch.append(self._in_flight[-1].packed())
            self._in_flight.append(command)
            if command.writes and self._barriers:
                self._barriers.due = True
            batch.append(packed)
            if large:
                return b"".join(batch)  # What follows has to wait for its last piece.
            size += len(packed)
        if self._barriers.wanted:
            last = self._in_flight or self._barriers.held
            if last:
                self._in_flight.append(self._barriers.next(last[-1].deadline))
                batch.append(self._in_flight[-1].packed())
            else:
                self._barriers.due = False  # All who waited for it have given up.
        return batch[0] if len(batch) == 1 else b"".join(batch)

    def _cut(self, command: Command) -> bytes:
        """Take the first piece off a large command."""
        pieces = command.pieces()
        first, self.piece = next(pieces), next(pieces, None)
        self._pieces = pieces
        return first

    def _take_piece(self) -> bytes:
        """Take the next piece off the command that was begun last."""
        piece, self.piece = self.piece or b"", None
        try:
            self.piece = next(self._pieces, None)
        except (TypeError, ValueError) as exc:
            self._in_flight[-1].refuse(exc)
            msg = "a call that cannot be sent has left in part"
            raise ConnectionError(msg) from exc
        return piece

    def forget_pieces(self) -> None:
        """Send no more of the command that was begun last."""
        self.piece, self._pieces = None, iter(())
