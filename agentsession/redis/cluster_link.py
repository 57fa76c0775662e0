"""How scripts reach the right node of a cluster: by redis-py's client, which knows the slots.

Each attempt of a call is one of redis-py's, on the node that its map names; it follows ``MOVED``
and ``ASK`` by itself. Whether to try again is decided here alone: redis-py's own retries, which a
client that was handed in has, would hide a reply that was lost behind the error of a later attempt,
and what was written would be reported as not written.

Two redirections go wrong in redis-py 8.1 while a slot moves, the same way each time, so that trying
again would not help. It sends ``ASKING`` and the command on two connections of its pool, which
works for some numbers of connections and never for others; and it does not know a node that has no
slots yet. So after a failure that looks like these, one attempt goes from node to node by hand.

What it costs: a task and a connection for each call under way, and no pipelining. Measured beside
one shared connection on the same machine, 64 callers make a quarter of the appends and one caller
makes three quarters (4,600/s against 16,600/s, and 4,600/s against 6,400/s; redis-py 8.1.0).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING, Any, Final

import anyio
from redis.asyncio.cluster import ClusterNode
from redis.client import NEVER_DECODE
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    RedisClusterException,
    ResponseError,
)

from agentsession.redis.acknowledgement import SERVER_MEMORY, Acknowledgement
from agentsession.redis.link import (
    Argument,
    Link,
    NoReplyError,
    NotAcknowledgedError,
    NotSentError,
    is_missing,
    is_not_now,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis.asyncio.cluster import RedisCluster
    from redis.asyncio.connection import AbstractConnection as Connection

    from agentsession.redis.scripts import Script

__all__ = ["ClusterLink"]

# So many calls are under way at once, and others wait for their turn: each takes a connection, of
# which redis-py's client makes 100 to a node by default and then raises.
_MOST_CALLS: Final = 64
# Between attempts this long at first, doubling up to the second figure, each time less up to a half
# by chance. An election among a cluster's nodes takes a second or two.
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.5

_DENIED: Final = (AuthenticationError, AuthorizationError, NoPermissionError)
# The client sent nothing, or all that it sent was answered by a redirection: the slots are being
# rearranged, no node was reached, or its connections are all in use.
_NOT_RUN: Final = (AskError, ClusterError, RedisClusterException, MaxConnectionsError)


class ClusterLink(Link):
    """A :class:`~agentsession.redis.link.Link` to a cluster.

    Each call runs in a task of its own: redis-py's client drops a connection when its caller is
    cancelled, and here a cancelled caller abandons the task and nothing else.

    Args:
        client: A client for the cluster.
        owned: Whether to close *client* in the end.
        timeout: Seconds that a call may take, retries included.
        acknowledgement: How far a write must have got before its call returns.
    """

    def __init__(
        self,
        client: RedisCluster,
        *,
        owned: bool,
        timeout: float,
        acknowledgement: Acknowledgement = SERVER_MEMORY,
    ) -> None:
        self._client = client
        self._owned = owned
        self._timeout = timeout
        self._acknowledgement = acknowledgement
        self._tasks: set[asyncio.Task[list[Any]]] = set()
        self._room = asyncio.Semaphore(_MOST_CALLS)
        self._ever_connected = False
        self._failed_node: str | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in_flight={len(self._tasks)}>"

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> list[Any]:
        if self._closed:
            msg = "the connection is closed"
            raise NotSentError(msg)
        wanted = self._acknowledgement if script.writes else SERVER_MEMORY
        call = _Call(self._client, script, keys, args, wanted)
        deadline = asyncio.get_running_loop().time() + self._timeout
        task = asyncio.create_task(self._try(call, deadline))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(task)
        except TimeoutError:
            raise call.unanswered() from call.failure
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            # Not the caller was cancelled but the task, by a close that could not wait for it.
            raise call.unanswered() from call.failure

    async def _try(self, call: _Call, deadline: float) -> list[Any]:
        """Try until there is an answer; whoever waits for it looks to the time.

        The deadline is looked at twice, since Python 3.11 loses a cancellation now and then in
        :func:`asyncio.wait_for`, which redis-py uses: a task could go on for ever.
        """
        async with asyncio.timeout_at(deadline), self._room:
            for pause in _pauses():
                try:
                    await self._connect()
                    return await call.attempt()
                except Exception as exc:  # noqa: BLE001 - redis-py lets raw errors out (4287)
                    # redis-py notes on some exceptions at which node it ended.
                    self._failed_node = getattr(exc, "last_failed_node_name", self._failed_node)
                    call.judge(exc)
                if asyncio.get_running_loop().time() >= deadline:
                    break
                await asyncio.sleep(pause)
        raise call.unanswered() from call.failure

    async def _connect(self) -> None:
        """Learn the map of the slots, where it is not known or known to be wrong.

        The node that did not answer last is asked last, since one that hangs would hold up all.

        A cluster that was never reached is more likely a wrong address than a failover, and who
        starts a program with a wrong address should not wait for the deadline to learn it.
        """
        try:
            await self._client.initialize(last_failed_node_name=self._failed_node)
        except Exception as exc:  # noqa: BLE001 - redis-py lets raw errors out (its issue 4287)
            failure = exc
        else:
            self._ever_connected = True
            return
        # redis-py wraps what it met last into an error without a class of its own.
        met = _chain(failure)
        for each in met:
            if isinstance(each, _DENIED):
                raise each
        waited_for = any(isinstance(each, BusyLoadingError) for each in met)
        if not self._ever_connected and failure.__cause__ is not None and not waited_for:
            msg = "never reached"
            raise NotSentError(msg) from failure
        raise RedisClusterException(str(failure)) from failure

    async def aclose(self) -> None:
        self._closed = True
        try:
            if self._tasks:
                with anyio.move_on_after(self._timeout):
                    await asyncio.wait(self._tasks)
        finally:
            # Also if the one who closes is cancelled while waiting.
            with anyio.move_on_after(self._timeout, shield=True):
                await self._let_go()

    async def _let_go(self) -> None:
        """End what is still waiting, and close the client if it is ours."""
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            # More than once, as in _try.
            await asyncio.wait(tasks, timeout=_FIRST_PAUSE)
        if self._owned:
            await self._client.aclose()
            # That does nothing while its map of the slots is to be read anew.
            nodes = self._client.nodes_manager
            await nodes.aclose()
            await nodes.aclose("startup_nodes")


class _Call:
    """A call through all its attempts, and what is known of them.

    Attributes:
        failure: What the last attempt that failed has raised.
    """

    def __init__(
        self,
        client: RedisCluster,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        acknowledgement: Acknowledgement,
    ) -> None:
        self._client = client
        self._acknowledgement = acknowledgement
        self._script = script
        self._key = keys[0]
        self._words = (len(keys), *keys, *args)
        self.failure: Exception | None = None
        self._under_way = False
        self._maybe_run = False
        self._lacking = ""

    async def attempt(self) -> list[Any]:
        """Run the script once."""
        node = self._client.get_node_from_key(self._key)
        assert node is not None  # noqa: S101 - only a replica that was asked for can be absent
        self._under_way = True
        lost = type(self.failure) is ClusterError or isinstance(self.failure, AttributeError)
        by_hand = lost or self._acknowledgement
        before = self._maybe_run and self._script.writes
        reply = await (self._by_hand(node) if by_hand else self._by_client(node))
        if before and is_missing(reply):
            msg = "gone after a lost reply"
            raise NoReplyError(msg) from self.failure
        return reply

    async def _by_client(self, node: ClusterNode) -> list[Any]:
        # With its target named, redis-py does not try again by itself.
        options: dict[str, Any] = {"target_nodes": node, NEVER_DECODE: True}
        execute = self._client.execute_command
        reply: list[Any]
        try:
            reply = await execute("EVALSHA", self._script.sha, *self._words, **options)
        except NoScriptError:
            reply = await execute("EVAL", self._script.text, *self._words, **options)
        return reply

    async def _by_hand(self, node: ClusterNode) -> list[Any]:
        """Follow one redirection, all that belongs together on one connection.

        That is ``ASKING``, the command, and what waits for its acknowledgement.
        """
        try:
            return await self._on(node, asking=False)
        except AskError as exc:
            asking = not isinstance(exc, MovedError)
            host, port = str(exc.host), int(exc.port)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            known = self._client.get_node(host, port)
            if known is not None:
                return await self._on(known, asking=asking)
            settings: dict[str, Any] = self._client.get_connection_kwargs()
            stranger = ClusterNode(host, port, **settings)
            try:
                return await self._on(stranger, asking=asking)
            finally:
                await stranger.disconnect()

    async def _on(self, node: ClusterNode, *, asking: bool) -> list[Any]:
        connection = node.acquire_connection()
        try:
            await node.disconnect_if_needed(connection)
            if asking:
                await connection.send_command("ASKING")
                await connection.read_response()
            # Not by its digest: ASKING would be used up by the answer that it is not known there.
            await connection.send_command("EVAL", self._script.text, *self._words)
            # redis-py's annotation leaves out that it is a list.
            reply: list[Any] = await connection.read_response(disable_decoding=True)  # pyright: ignore[reportUnknownVariableType, reportAssignmentType]
            if self._acknowledgement:
                await self._acknowledged(connection)
            return reply
        finally:
            node.release(connection)

    async def _acknowledged(self, connection: Connection) -> None:
        """Wait until what the connection wrote has got far enough, or for the deadline."""
        self._maybe_run = True  # It has run, whatever comes next.
        self._lacking = "no answer in time"
        while self._lacking:
            await connection.send_command(*self._acknowledgement.words)
            try:
                # redis-py's annotation leaves out what it is, too.
                reply = await connection.read_response()  # pyright: ignore[reportUnknownVariableType]
            except ResponseError as exc:
                if is_not_now(exc):
                    raise
                raise NotAcknowledgedError(str(exc)) from exc
            self._lacking = self._acknowledgement.shortfall(reply)

    def judge(self, exc: Exception) -> None:
        """Note what a failed attempt means, or raise what no attempt can change."""
        if isinstance(exc, (NotSentError, NoReplyError, NotAcknowledgedError)):
            raise exc
        if _was_not_run(exc):
            self.failure, self._under_way = exc, False
            return
        if isinstance(exc, (*_DENIED, ResponseError)):
            if not self._maybe_run:
                raise exc
            # This attempt was refused; an earlier one may have been carried out.
            msg = "refused after a lost reply"
            raise NoReplyError(msg) from exc
        self.failure, self._under_way, self._maybe_run = exc, False, True

    def unanswered(self) -> Exception:
        """Say what is known when the time is up."""
        if self._lacking and self._under_way:
            return NotAcknowledgedError(self._lacking)
        maybe_run = self._maybe_run or self._under_way
        return NoReplyError("no reply in time") if maybe_run else NotSentError("not now")


def _was_not_run(exc: Exception) -> bool:
    return (
        is_not_now(exc)
        or isinstance(exc, _NOT_RUN)
        or any(isinstance(each, ConnectionRefusedError) for each in _chain(exc))
    )


def _chain(exc: BaseException | None) -> list[BaseException]:
    """List an exception and what it was raised from, or while handling."""
    found: list[BaseException] = []
    while exc is not None and exc not in found:
        found.append(exc)
        exc = exc.__cause__ or exc.__context__
    return found


def _pauses() -> Iterator[float]:
    for attempt in itertools.count():
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt, 10))
        yield longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
