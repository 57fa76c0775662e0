"""What a pipelined connection decides, without any I/O.

A server answers in order, so the order of sending tells which command a reply belongs to. Nothing
that a caller does can leave the connection in a wrong state, or give it another caller's reply. A
command is *waiting* until it is sent, then *in flight* until it is answered; what a server cannot
run at the moment is *put off*. When the connection is lost, whatever is in flight waits again, at
the head of the queue, so that only scripts that recognise repeated calls may be sent.

Where the server's memory is not enough of an acknowledgement, *barriers* follow what was written
(:mod:`agentsession.redis._core.barriers`), and what was answered is held until one of them is.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from agentsession.redis._core.acknowledgement import SERVER_MEMORY, Acknowledgement
from agentsession.redis._core.barriers import Barriers
from agentsession.redis._core.errors import ServerError
from agentsession.redis._core.outbox import Outbox
from agentsession.redis._core.request import REFUSALS, Asking, Barrier, Command, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentsession.redis._core.clock import ServerClock

__all__ = ["Pipeline"]

# How many redirections in a row are followed without a pause.
_REDIRECTIONS: Final = 6


class Pipeline:
    """The commands of one link, over all its connections, and the state of each.

    Whoever moves the bytes calls :meth:`next_bytes` when they can leave, :meth:`received` with each
    reply, :meth:`lost` when the connection is, and looks at :attr:`broken`: if it is set, the
    connection is not to be used any more.

    Args:
        clock: The server's.
        done: Called with each command that has ended.
        acknowledgement: How far a write must have got before it is answered.
        redirect: Takes what a node of a cluster says belongs elsewhere, with its answer; without
            it that is an error.
        refused: Called with each error of the server's, whatever becomes of the command.
    """

    def __init__(
        self,
        clock: ServerClock,
        done: Callable[[Command], None],
        acknowledgement: Acknowledgement = SERVER_MEMORY,
        redirect: Callable[[Command, ServerError], None] | None = None,
        refused: Callable[[ServerError], None] = lambda _: None,
    ) -> None:
        self.broken: Exception | None = None
        self._clock = clock
        self._done = done
        self._barriers = Barriers(acknowledgement)
        self._redirect = redirect
        self._tell_refused = refused
        self._in_flight: deque[Command] = deque()
        self._outbox = Outbox(clock, self._barriers, self._in_flight, done)
        self._waiting = self._outbox.waiting
        self._put_off: list[tuple[float, Command]] = []
        # The command for whose refusal the connection is given up; it was not run.
        self._not_run: Command | None = None
        # The error that answered the ASKING before the command that is answered next.
        self._asking_refused: ServerError | None = None
        # How many replies this connection has given; one that has given some is worth keeping.
        self.answered = 0

    def __repr__(self) -> str:
        waiting = len(self._waiting) + len(self._put_off)
        return f"waiting={waiting} in_flight={len(self._in_flight) + len(self._barriers.held)}"

    @property
    def has_something_to_send(self) -> bool:
        """Whether :meth:`next_bytes` would return any."""
        some = self._waiting or self._barriers.wanted or self._outbox.piece is not None
        return bool(some) and self.broken is None

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything."""
        return not (self._waiting or self._in_flight or self._barriers.held or self._put_off)

    @property
    def awaited(self) -> list[Any]:
        """What callers wait for."""
        put_off = [command for _, command in self._put_off]
        queues = (self._waiting, self._in_flight, self._barriers.held, put_off)
        return [each.future for queue in queues for each in queue if not each.future.done()]

    @property
    def next_put_off(self) -> float | None:
        """When the first of those that were put off is due."""
        return min(due for due, _ in self._put_off) if self._put_off else None

    @property
    def head(self) -> Command | None:
        """What is to be answered next."""
        return self._in_flight[0] if self._in_flight else None

    def submit(self, command: Command) -> None:
        """Take a command, to be sent behind the others."""
        self._waiting.append(command)

    def next_bytes(self, now: float) -> bytes:
        """Return the next bytes to send, some hundred kilobytes at most or one large word."""
        try:
            return self._outbox.next_bytes(now)
        except ConnectionError as exc:
            self.broken = exc
            return b""

    # -- what is received

    def received(self, reply: Any, now: float) -> bool:
        """Hand a reply to its command; tell whether the connection may still be used."""
        if not self._in_flight:
            self.broken = ConnectionError("the server answered what nobody asked")
            return False
        command = self._in_flight.popleft()
        try:
            self._take(command, reply, now)
        except (IndexError, TypeError, ValueError):
            self._mistaken(command)
        return self.broken is None

    def _take(self, command: Command, reply: Any, now: float) -> None:
        if type(reply) is list and isinstance(command, Request):
            self._answered(command, reply, now)  # pyright: ignore[reportUnknownArgumentType] - anything is in it
        elif isinstance(reply, ServerError):
            self._refused(command, reply, now)
        elif isinstance(command, Request):
            self._mistaken(command)
        elif isinstance(command, Barrier):
            self._confirmed(self._barriers.answered(reply))
        elif isinstance(command, Asking):
            self._asking_refused = None
        else:
            self._end(command, reply)

    def _end(self, command: Command, reply: Any) -> None:
        self.answered += 1
        if not command.future.done():
            command.future.set_result(reply)
        self._done(command)

    def _refused(self, command: Command, error: ServerError, now: float) -> None:
        """Decide what a server's error means."""
        self._tell_refused(error)
        if isinstance(command, Asking):
            self._asking_refused = None if error.is_not_now else error
        elif error.is_not_owned and self._redirect is not None and isinstance(command, Request):
            command.asking = False
            command.renew()
            self._redirect(command, error)
        elif error.is_not_now:
            self._postpone(command, error, now)
        elif isinstance(command, Barrier):
            self._confirmed(self._barriers.refused(error))
        elif error.code == "NOSCRIPT" and isinstance(command, Request):
            command.by_text = True
            self._waiting.append(command)
        elif error.is_redirection and self._redirect is not None:
            if command.asking and self._asking_refused is not None:
                # Otherwise it would be redirected for ever.
                command.refuse(self._asking_refused)
                self._end(command, None)
                return
            command.redirections += 1
            if command.redirections % _REDIRECTIONS == 0:
                self._postpone(command, error, now)  # Nodes disagree about the slot for a moment.
            else:
                command.asking = False
                command.renew()
                self._redirect(command, error)
        elif command.maybe_run and command.writes:
            # An earlier copy may still be run, until its deadline.
            command.refusal = error
            self._put_off.append((command.deadline, command))
        else:
            command.refuse(error)
            self._end(command, None)

    def _postpone(self, command: Command, error: ServerError, now: float) -> None:
        """Put off a command that the server could not run, but may run later."""
        command.refusal = error
        if isinstance(command, Barrier):
            self.broken = error
        elif error.is_elsewhere:
            self._in_flight.appendleft(command)
            self._not_run = command
            self.broken = error
        else:
            self._put_off.append((command.due_again(now), command))

    def _mistaken(self, command: Command) -> None:
        """Give the connection up: the reply does not belong to this command."""
        self._in_flight.appendleft(command)
        self.broken = ConnectionError("a reply answers another call; what stands in between?")

    def _answered(self, request: Request, reply: list[Any], now: float) -> None:
        """Take a script's answer; it may belong to another call, or ask to be sent again."""
        if not reply or reply[0] != request.echo:
            self._mistaken(request)
            return
        if not request.writes:
            self._end(request, reply)
            return
        self._clock.learn(reply[2], request.sent_at, now)
        if reply[1] != b"ok" and request.has_to_go_again(reply, self._clock):
            self._waiting.append(request)
        elif self._barriers and reply[1] not in REFUSALS and not request.future.done():
            self._barriers.hold(request, reply)
        else:
            self._end(request, reply)

    def _confirmed(self, ended: Sequence[Command]) -> None:
        self.answered += 1
        for request in ended:
            self._end(request, request.reply)

    # -- what is lost, late, or due again

    def lost(self, exc: BaseException) -> int:
        """Queue the unanswered commands again, before all others; tell how many they are."""
        taken = [*self._barriers.lost(), *self._in_flight]
        # The last command may have been sent only in part, and then it was not run.
        cut = self._in_flight[-1] if self._outbox.piece is not None and self._in_flight else None
        not_run, self._not_run = (self._not_run, cut), None
        self._in_flight.clear()
        self._outbox.forget_pieces()
        self.broken = None
        self.answered = 0
        again = 0
        for command in reversed(taken):
            if isinstance(command, (Barrier, Asking)):
                continue
            command.refusal, command.reply = exc, None
            command.maybe_run = command.maybe_run or command not in not_run
            if command.future.done():
                self._done(command)
            else:
                again += 1
                self._waiting.appendleft(command)
        return again

    def unreachable(self, exc: BaseException) -> None:
        """Note why the waiting commands cannot be sent."""
        for command in self._waiting:
            command.refusal = exc

    def expire(self, now: float) -> bool:
        """End the commands whose time is up; tell whether the connection owed one a reply."""
        owing = False
        for command in self._in_flight:
            if command.deadline <= now:
                owing = True
                command.maybe_run = True
                command.fail()
        for queue in (self._waiting, self._barriers.held):
            late = [command for command in queue if command.deadline <= now]
            for command in late:
                queue.remove(command)
                command.fail()
                self._done(command)
        put_off, self._put_off = self._put_off, []
        for due, command in put_off:
            if command.deadline <= now:
                command.fail()
                self._done(command)
            elif due <= now or command.future.done():
                self._waiting.append(command)
            else:
                self._put_off.append((due, command))
        return owing

    def next_moment(self, now: float) -> float | None:
        """Return when :meth:`expire` is to be called next, at the latest."""
        moments = [due for due, _ in self._put_off]
        for queue in (self._in_flight, self._waiting, self._barriers.held):
            moments += [command.deadline for command in queue if command.deadline > now]
        return min(moments, default=None)

    def withdraw(self) -> list[Command]:
        """Give up what is not in flight, for another connection."""
        taken = [*self._waiting, *(command for _, command in self._put_off)]
        self._waiting.clear()
        self._put_off.clear()
        for command in taken:
            command.renew()
        return taken

    def fail_all(self) -> None:
        """End everything without an answer."""
        answered = self._barriers.lost()
        self.lost(ConnectionError("closed"))
        for command in (*answered, *self.withdraw()):
            command.fail()
            self._done(command)
