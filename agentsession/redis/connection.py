"""One connection that all callers share, pipelined.

Theory of operation. A caller packs its command, puts a request into the queue and waits for the
request's future. Three tasks serve all callers: the *owner* connects and reconnects; while it is
connected, the *writer* sends what has gathered in the queue in one go and moves it to
``_in_flight``, and the *reader* takes replies off the wire and hands each to the request at the
head of ``_in_flight``, since a server answers in order. A caller that is cancelled abandons its
future; its reply is read and dropped. So no caller can leave a connection dirty, lose one, or get
another's reply.

Where the server's memory is not enough of an acknowledgement, the writer sends a *barrier* behind
each batch that writes (:mod:`agentsession.redis.acknowledgement`): one for all of them, since it
speaks of everything that the connection wrote before. What was answered waits in ``_unconfirmed``
until the barrier is, and for another one if it fell short.

A connection that owes a reply for a quarter of the deadline is given up while there is time for
another: a server that hangs, or is cut off by the network, breaks none by itself, and where the
socket's buffer is full even closing it from here wakes no reader.

When the connection breaks, requests in flight go back to the head of the queue and are sent again:
only commands that may be repeated belong here. A request ends when its reply comes or its deadline
passes, then with what is known: not sent, or outcome unknown. One timer watches all deadlines, and
is set anew when it fires, and rarely else: one for each request would cost more than the request.

redis-py connects, so TLS, passwords, database numbers, sockets and Sentinel are its job. Only its
public methods are used.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    MaxConnectionsError,
    NoScriptError,
    RedisError,
    ResponseError,
)

from agentsession.redis.acknowledgement import SERVER_MEMORY, Acknowledgement
from agentsession.redis.admission import Admission
from agentsession.redis.link import (
    Argument,
    Link,
    NotAcknowledgedError,
    NotSentError,
    is_not_now,
)
from agentsession.redis.request import Barrier, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.redis.scripts import Script
    from agentsession.redis.wire import Pool, Wire

__all__ = ["MultiplexedLink"]

# Enough for the burst of a busy process; beyond it callers wait, so that a hung server cannot fill
# the memory.
_MOST_REQUESTS: Final = 10_000
_MOST_BYTES: Final = 64 << 20
# One write to the socket takes at most about this much, so that a large backlog does not become one
# huge copy.
_WRITE_BYTES: Final = 1 << 20
# After so many replies the reader lets their callers run, whose next calls the writer then sends:
# so that the server works on these while the client works on the replies that are left.
_TURN: Final = 32
# The share of the deadline for which one request may be the next to be answered. It doubles with
# each connection that is given up, so that a reply may take its time in the end.
_PATIENCE: Final = 1 / 4
# Reconnecting waits this long at first and doubles up to the second figure, each time less up to a
# half by chance, so that the clients of a restarted server do not all come at once.
_FIRST_DELAY: Final = 0.01
_LONGEST_DELAY: Final = 1.0


class MultiplexedLink(Link):
    """A :class:`~agentsession.redis.link.Link` to one server. See this module's docstring.

    Args:
        pool: Where the connection comes from; it holds one connection of it for as long as it is
            open.
        owned: Whether to close *pool* in the end.
        timeout: Seconds that a call may take, retries included.
        acknowledgement: How far a write must have got before its call returns.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        owned: bool,
        timeout: float,
        acknowledgement: Acknowledgement = SERVER_MEMORY,
    ) -> None:
        self._pool = pool
        self._owned = owned
        self._timeout = timeout
        self._acknowledgement = acknowledgement
        self._queue: deque[Request] = deque()
        self._in_flight: deque[Request] = deque()
        # Answered, and not acknowledged yet; the next barrier's answer will tell.
        self._unconfirmed: deque[Request] = deque()
        self._barrier_due = False
        self._admission = Admission(_MOST_REQUESTS, _MOST_BYTES)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._broken = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._stalls = 0
        self._ever_connected = False
        self._failures = 0
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._owner is not None else "unused"
        waiting = f"queued={len(self._queue)} in_flight={len(self._in_flight)}"
        return f"<{type(self).__name__} {state} {waiting}>"

    # -- the callers' side

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> list[Any]:
        loop = asyncio.get_running_loop()
        request = Request(script, keys, args, loop.create_future(), loop.time() + self._timeout)
        if not self._admission.free:
            await self._admission.wait(request.deadline)
        if self._closed:
            msg = "the connection is closed"
            raise NotSentError(msg)
        if self._owner is None:
            self._owner = asyncio.create_task(self._own(), name="agentsession-redis")
        self._admission.enter(request.size)
        self._queue.append(request)
        self._wake.set()
        if self._timer is None or self._timer.when() > request.deadline:
            # The latter if it has waited for room, and others came before it.
            self._watch_deadlines(request.deadline)
        return await request.future

    def _done_with(self, request: Request) -> None:
        """Count a request out, and let others in."""
        self._admission.leave(request.size)
        if not self._queue and not self._in_flight and not self._unconfirmed:
            self._idle.set()

    def _watch_deadlines(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(deadline, self._check_deadlines)

    def _check_deadlines(self) -> None:
        """End the requests whose time is up; a connection that owes one a reply is given up."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        for request in self._in_flight:
            if request.deadline <= now:
                # Also if its caller was cancelled: the next one should find a better connection.
                request.maybe_run = True
                request.fail()
                self._broken.set()
        self._end_late(self._queue, now)
        self._end_late(self._unconfirmed, now)
        open_ones = (*self._in_flight, *self._unconfirmed, *self._queue)
        deadlines = [request.deadline for request in open_ones if request.deadline > now]
        if deadlines:
            self._watch_deadlines(min(deadlines))

    def _end_late(self, requests: deque[Request], now: float) -> None:
        """End what is late among requests that the connection owes nothing."""
        for _ in range(len(requests)):
            request = requests.popleft()
            if request.deadline <= now:
                request.fail()
            if request.future.done():
                self._done_with(request)
            else:
                requests.append(request)

    # -- the owner's side

    async def _own(self) -> None:
        """Keep a connection as long as there is something to send."""
        while True:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                async with asyncio.timeout(self._timeout):
                    connection = await self._pool.get_connection()
            except Exception as exc:  # noqa: BLE001 - redis-py lets raw errors out (its issue 4287)
                self._not_connected(exc)
            else:
                self._ever_connected = True
                await self._use(connection)
            if self._failures:
                longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(self._failures, 10))
                await asyncio.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - no secret

    def _not_connected(self, exc: Exception) -> None:
        """Decide whether to try again.

        A refusal for good, or a first attempt that fails, ends what waits at once. A server that
        was never reached is more likely a wrong address than a failover, and who starts a program
        with a wrong address should not wait for the deadline to learn it.
        """
        self._failures += 1
        for_good = isinstance(exc, (AuthenticationError, AuthorizationError, ResponseError)) or (
            not self._ever_connected
            and not isinstance(exc, (MaxConnectionsError, BusyLoadingError))
        )
        for request in list(self._queue):
            request.refusal = exc
        if for_good:
            while self._queue:
                request = self._queue.popleft()
                request.fail()
                self._done_with(request)
            self._failures = 0

    async def _use(self, connection: Wire) -> None:
        """Send and receive until the connection breaks; then take back what has no reply."""
        self._broken.clear()
        tasks = [
            asyncio.create_task(self._write(connection), name="agentsession-redis-writer"),
            asyncio.create_task(self._read(connection), name="agentsession-redis-reader"),
        ]
        try:
            await self._broken.wait()
        finally:
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None
            for task in tasks:
                task.cancel()
            clean = not self._in_flight and not self._broken.is_set()
            self._take_back()
            with anyio.move_on_after(self._timeout, shield=True):
                await asyncio.wait(tasks)
                # Whatever redis-py raises while giving up a connection, there is nothing more to do
                # about it, and the owner must live on.
                with suppress(Exception):
                    if not clean:
                        await connection.disconnect(nowait=True)
                with suppress(Exception):
                    await self._pool.release(connection)

    def _watch_for_stalls(self, head: Request | None = None, *, seen: bool = False) -> None:
        """Give the connection up if *head* is still the next request to be answered; or go on.

        It has to be so twice: after a long step of somebody else's, a timer runs before the reader
        does, though the reply has come.
        """
        self._watch = None
        if not self._in_flight:
            return
        same = head is self._in_flight[0]
        if same and seen:
            self._stalls += 1
            self._break(TimeoutError("no reply from the server for a while"))
            return
        half = self._timeout * _PATIENCE * 2**self._stalls / 2
        again = partial(self._watch_for_stalls, self._in_flight[0], seen=same)
        self._watch = asyncio.get_running_loop().call_later(half, again)

    def _take_back(self) -> None:
        """Put what has no answer back to the head of the queue, in its order."""
        taken = [*self._unconfirmed, *self._in_flight]
        self._unconfirmed.clear()
        self._in_flight.clear()
        self._barrier_due = False
        for request in reversed(taken):
            request.take_back()
            if request.future.done():
                self._done_with(request)
            else:
                self._queue.appendleft(request)

    async def _write(self, connection: Wire) -> None:
        try:
            while True:
                if not self._queue and not self._barrier_due:
                    self._wake.clear()
                    await self._wake.wait()
                batch: list[bytes] = []
                size = 0
                barrier_due, self._barrier_due = self._barrier_due, False
                while self._queue and size < _WRITE_BYTES:
                    request = self._queue.popleft()
                    if request.future.done():
                        self._done_with(request)
                        continue
                    self._in_flight.append(request)
                    batch.append(request.packed)
                    size += len(request.packed)
                    barrier_due = barrier_due or request.script.writes
                if barrier_due and self._acknowledgement:
                    batch.append(self._put_barrier())
                if batch:
                    if self._watch is None:
                        self._watch_for_stalls()
                    await connection.send_packed_command(batch, check_health=False)
        except Exception as exc:  # noqa: BLE001 - as in _own; this connection is not to be used
            self._break(exc)

    async def _read(self, connection: Wire) -> None:
        resolved = 0
        try:
            while True:
                try:
                    # Not the connection's own timeout: an idle connection has nothing to say, and
                    # each timeout costs more than the reply. The deadline of each request is
                    # watched above.
                    reply = await connection.read_response(
                        disable_decoding=True, timeout=math.inf, disconnect_on_error=False
                    )
                except (ResponseError, BusyLoadingError) as exc:
                    reply = exc
                if reply is None:
                    # What redis-py makes of a timeout of the network, and no answer to a script.
                    msg = "the network gave the connection up"
                    raise ConnectionError(msg)
                self._resolve(reply)
                if self._broken.is_set():
                    return  # What comes after a refusal is no longer the answer to the head.
                resolved += 1
                if resolved % _TURN == 0:
                    await asyncio.sleep(0)
        except Exception as exc:  # noqa: BLE001 - as in _own; this connection is not to be used
            self._break(exc)

    def _put_barrier(self) -> bytes:
        """Ask how far the writes so far have got, those that are in flight included."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Any]] = loop.create_future()
        done.set_result([])
        barrier = Barrier(self._acknowledgement.packed, done, loop.time() + self._timeout)
        self._admission.enter(barrier.size)
        self._in_flight.append(barrier)
        return barrier.packed

    def _resolve(self, reply: Any) -> None:
        """Hand a reply to whom it belongs."""
        request = self._in_flight.popleft()
        if isinstance(request, Barrier) and not is_not_now(reply):
            self._confirm(reply)
        elif isinstance(reply, RedisError):
            if isinstance(reply, NoScriptError) and not request.future.done():
                request.send_text()
                self._queue.append(request)
                self._wake.set()
                return
            if is_not_now(reply):
                request.refused = True
                self._in_flight.appendleft(request)
                self._break(reply)
                return
            request.refuse(reply)
        elif request.lost_its_subject(reply):
            request.fail()
        elif not request.future.done():
            if self._acknowledgement and request.script.writes:
                request.reply = reply
                self._unconfirmed.append(request)
                return
            request.future.set_result(reply)
        self._failures = self._stalls = 0
        self._done_with(request)

    def _confirm(self, reply: Any) -> None:
        """End what was waiting for a barrier, or put another one if it has not got far enough."""
        refused = isinstance(reply, RedisError)
        lacking = str(reply) if refused else self._acknowledgement.shortfall(reply)
        for request in self._unconfirmed:
            request.refusal = NotAcknowledgedError(lacking)
        if lacking and not refused:
            self._barrier_due = bool(self._unconfirmed)
            self._wake.set()
            return
        answered, self._unconfirmed = self._unconfirmed, deque()
        for request in answered:
            if refused:
                request.fail()
            else:
                request.acknowledge()
            self._done_with(request)

    def _break(self, exc: Exception) -> None:
        self._failures += 1
        for request in self._in_flight:
            request.refusal = exc
        self._broken.set()

    # -- the end

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._admission.close()
        try:
            if self._queue or self._in_flight or self._unconfirmed:
                self._idle.clear()
                with anyio.move_on_after(self._timeout):
                    await self._idle.wait()
        finally:
            # Also if the one who closes is cancelled while waiting.
            with anyio.move_on_after(self._timeout, shield=True):
                await self._let_go()

    async def _let_go(self) -> None:
        """End the owner, and what is still waiting, and close the pool if it is ours."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.cancel()
            await asyncio.wait([owner])
        for request in [*self._unconfirmed, *self._in_flight, *self._queue]:
            request.fail()
        self._unconfirmed.clear()
        self._in_flight.clear()
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._owned:
            await self._pool.aclose()
