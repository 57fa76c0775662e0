"""One connection to one server, shared by all callers.

A call is written by its caller where nothing is under way, and together with those of the same turn
of the loop where something is; replies resolve the callers' futures as they are read. There is no
task between a caller and the socket: one runs only while a connection is being made. What is to be
sent, and what replies mean, :class:`~agentsession.redis._core.pipeline.Pipeline` decides.

A connection on which nothing flows while it owes a reply is given up after a share of the deadline,
while there is time for another: a server that hangs, or is cut off by the network, breaks none by
itself. Bytes that come in, or leave, are life. One timer watches all deadlines, and is set anew
when it fires, and rarely else: one for each call would cost more than the call.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import AuthenticationError, AuthorizationError

from agentsession.observers import Connected, GivenUp, Lost, Retried
from agentsession.redis._core.acknowledgement import SERVER_MEMORY, Acknowledgement
from agentsession.redis._core.clock import ServerClock
from agentsession.redis._core.errors import ServerError
from agentsession.redis._core.pipeline import Pipeline
from agentsession.redis._core.silence import Silence
from agentsession.redis._links.backlog import Backlog
from agentsession.redis._links.counted import CountedLink
from agentsession.redis._links.endpoint import PrimaryAbsentError
from agentsession.redis._links.inbox import Inbox
from agentsession.redis._links.notices import failed_attempt, new_journal, reason, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentsession._journal import Journal
    from agentsession.redis._core.request import Command
    from agentsession.redis._links.connection import Connection
    from agentsession.redis._links.endpoint import Endpoint

__all__ = ["ServerLink"]

# After so many seconds of packing others run, before the rest is packed.
_STEP: Final = 0.003
# The share of the deadline that connecting may take: less than all of it, so that a caller whose
# call fails for it learns why.
_CONNECTING: Final = 0.9
# Reconnecting waits this long at first and doubles up to the second figure, each time less up to a
# half by chance, so that the clients of a restarted server do not all come at once.
_FIRST_DELAY: Final = 0.01
_LONGEST_DELAY: Final = 1.0


def _is_for_good(exc: Exception, *, ever_connected: bool) -> bool:
    """Tell whether there is no use in trying to connect again.

    A server that was never reached is more likely a wrong address than a failover, and who starts a
    program with a wrong address should not wait for the deadline to learn it.
    """
    if isinstance(exc, ServerError):
        return not exc.is_not_now
    if isinstance(exc, (AuthenticationError, AuthorizationError)):
        return True
    return not ever_connected and not isinstance(exc, PrimaryAbsentError)


class ServerLink(CountedLink):
    """A :class:`~agentsession.redis._links.link.Link` to one server. See this module's docstring.

    Args:
        endpoint: Opens connections.
        timeout: Seconds that a call may take, retries included.
        acknowledgement: How far a write must have got before its call returns.
        backlog: Counts what is under way, also for others that share it.
        patient: Whether to try again, though the server was never reached.
        redirect: Takes what a node of a cluster says belongs elsewhere.
        troubled: Called when the connection is lost, or cannot be made.
        closed: Awaited when the link has let go of its connection.
        journal: Is told of what happens to the connection.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout: float,
        acknowledgement: Acknowledgement = SERVER_MEMORY,
        backlog: Backlog | None = None,
        patient: bool = False,
        redirect: Callable[[Command, ServerError], None] | None = None,
        troubled: Callable[[], None] = lambda: None,
        closed: Callable[[], Awaitable[None]] | None = None,
        journal: Journal | None = None,
    ) -> None:
        super().__init__(timeout, Backlog() if backlog is None else backlog)
        self._endpoint = endpoint
        self._when_closed = closed
        self._inbox = Inbox(lambda: endpoint, timeout * _CONNECTING)
        self._acknowledgement = acknowledgement
        self._troubled = troubled
        self._journal = new_journal() if journal is None else journal
        self._clock = ServerClock()
        self._pipeline = Pipeline(
            self._clock, self._done_with, acknowledgement, redirect, self._refused
        )
        self._connection: Connection | None = None
        # By itself, since an eager task may have ended before it is known here.
        self._is_connecting = False
        self._connecting: asyncio.Task[None] | None = None
        self._flush_due = False
        self._deadlines: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._silence = Silence(timeout, acknowledgement.pause)
        self._failures = 0
        self._ever_connected = patient
        self._over = False
        # How many others there have been before this one.
        self._connections = -1

    def __repr__(self) -> str:
        state = "closed" if self._closed else "unused" if self._connection is None else "open"
        return f"<{type(self).__name__} {state} {self._pipeline!r}>"

    @property
    def inbox(self) -> Inbox:
        return self._inbox

    @property
    def layout(self) -> object:
        return max(self._connections, 0)

    # -- the callers' side

    def take(self, command: Command) -> None:
        lone = self._connection is not None and self._pipeline.idle
        self._pipeline.submit(command)
        if lone:
            self._flush()
        else:
            self._schedule_flush()
        if self._deadlines is None or self._deadlines.when() > command.deadline:
            # The latter if it has waited for room, and others came before it.
            self._look_at_deadlines_at(command.deadline)

    def _done_with(self, command: Command) -> None:
        """Count a command out, and let others in."""
        self._backlog.leave(command.size)
        command.size = 0

    # -- what is sent, and received

    def _schedule_flush(self) -> None:
        if self._connection is None:
            if not self._is_connecting and not self._over:
                self._is_connecting = True
                self._connecting = asyncio.create_task(self._connect(), name="agentsession-redis")
        elif not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Send what waits, as far as it can leave."""
        self._flush_due = False
        connection, pipeline = self._connection, self._pipeline
        if connection is None:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        while connection.writable and pipeline.has_something_to_send:
            data = pipeline.next_bytes(now)
            if data:
                connection.send(data)
            if loop.time() > now + _STEP:
                self._schedule_flush()
                break
        if pipeline.broken is not None:
            self._give_up(pipeline.broken)
        elif self._watch is None and pipeline.head is not None:
            self._look_for_life()

    def _replies_read(self) -> None:
        """See what the replies have left to do."""
        due = self._pipeline.next_put_off
        if due is not None and (self._deadlines is None or self._deadlines.when() > due):
            self._look_at_deadlines_at(due)
        if self._pipeline.broken is not None:
            self._give_up(self._pipeline.broken)
            return
        if self._pipeline.answered:
            self._failures = 0
            self._silence.ended()
        if self._pipeline.has_something_to_send:
            self._schedule_flush()

    # -- connecting

    async def _connect(self) -> None:
        """Try to connect until it works or nothing is left to send."""
        try:
            while self._pipeline.has_something_to_send:
                if self._failures:
                    longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(self._failures, 10))
                    await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                try:
                    connection = await self._endpoint.open(self._timeout * _CONNECTING, self._clock)
                except Exception as exc:  # noqa: BLE001 - finding an address may raise anything
                    self._not_connected(exc)
                else:
                    self._use(connection)
                    return
        finally:
            self._is_connecting = False

    def _use(self, connection: Connection) -> None:
        connection.on_reply = self._pipeline.received
        connection.on_replies_read = self._replies_read
        connection.on_writable = self._flush
        connection.on_lost = self._lost
        self._ever_connected = True
        self._connection = connection
        self._connections += 1
        self._journal.note(Connected(server=connection.server))
        self._flush()

    def _not_connected(self, exc: Exception) -> None:
        self._failures += 1
        self._journal.note(failed_attempt(self._endpoint.server, exc))
        self._pipeline.unreachable(exc)
        if _is_for_good(exc, ever_connected=self._ever_connected):
            self._failures = 0
            for command in self._pipeline.withdraw():
                command.fail()
                self._done_with(command)
        self._troubled()

    def _lost(self, exc: Exception) -> None:
        if self._connection is not None:
            self._journal.note(Lost(server=self._connection.server, reason=reason(exc)))
        self._leave(exc)

    def _leave(self, exc: Exception) -> None:
        """Make another connection, if there is something to send."""
        connection, self._connection = self._connection, None
        self._silence.forget()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._pipeline.broken is not None or not self._pipeline.answered:
            self._failures += 1
        calls = self._pipeline.lost(exc)
        if calls and connection is not None:
            self._journal.note(Retried(server=connection.server, calls=calls))
        if self._pipeline.has_something_to_send:
            self._schedule_flush()
            self._troubled()

    def _give_up(self, exc: Exception) -> None:
        if self._connection is not None:
            if not self._over:
                self._journal.note(GivenUp(server=self._connection.server, reason=reason(exc)))
            self._connection.on_lost = self._leave  # Who gives it up has not lost it.
            self._connection.close(exc)

    def _refused(self, error: ServerError) -> None:
        """Tell of an answer that is about the server, and not about the call."""
        where = self._connection.server if self._connection is not None else ""
        if notice := refusal(where, error):
            self._journal.note(notice)

    def reconnect(self) -> None:
        """Give the connection up: the server has another address now."""
        self._give_up(ConnectionError("the server has another address now"))
        self._inbox.reconnect()

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything."""
        return self._pipeline.idle

    @property
    def at_a_loss(self) -> bool:
        """Whether there is something to send, but no connection."""
        return self._connection is None and self._pipeline.has_something_to_send

    def withdraw(self) -> list[Command]:
        """Give up what is not in flight, for another link to take."""
        return self._pipeline.withdraw()

    # -- time

    def _look_at_deadlines_at(self, moment: float) -> None:
        if self._deadlines is not None:
            self._deadlines.cancel()
        self._deadlines = asyncio.get_running_loop().call_at(moment, self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        """End what is late, and send again what was put off."""
        self._deadlines = None
        now = asyncio.get_running_loop().time()
        if self._pipeline.expire(now) and not self._has_flowed():
            # Also if its caller was cancelled: the next one should find a better connection.
            self._give_up(TimeoutError("no reply in time"))
        if self._pipeline.has_something_to_send:
            self._schedule_flush()
        moment = self._pipeline.next_moment(now)
        if moment is not None:
            self._look_at_deadlines_at(moment)

    def _has_flowed(self) -> bool:
        now = asyncio.get_running_loop().time()
        connection = self._connection
        return connection is not None and self._silence.is_broken_by(connection.progress, now)

    def _look_for_life(self) -> None:
        """Give the connection up if it owes a reply and nothing has flowed; or look again."""
        self._watch = None
        connection, head = self._connection, self._pipeline.head
        if connection is None or head is None:
            self._silence.forget()
            return
        loop = asyncio.get_running_loop()
        pause = self._silence.look(head, connection.progress, loop.time())
        if pause is None:
            self._give_up(TimeoutError(f"no reply from {self._endpoint!r} for a while"))
        else:
            self._watch = loop.call_later(pause, self._look_for_life)

    # -- the end

    @property
    def awaited(self) -> list[Any]:
        """What callers wait for."""
        return self._pipeline.awaited

    async def drain(self) -> None:
        self._closed = True
        while awaited := self.awaited:
            await asyncio.wait(awaited)

    async def let_go(self) -> None:
        self._closed = self._over = True
        try:
            if self._connecting is not None:
                self._connecting.cancel()
                await asyncio.wait([self._connecting])
            await self._inbox.aclose()
        finally:  # Also if it is cancelled: nothing else closes the connection.
            self._pipeline.fail_all()
            self._give_up(ConnectionError("closed"))
            if self._deadlines is not None:
                self._deadlines.cancel()
                self._deadlines = None
        if self._when_closed is not None:
            await self._when_closed()
