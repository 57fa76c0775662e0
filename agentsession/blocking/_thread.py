"""The thread with the event loop of a service, and calls from other threads and loops.

Whoever waits may be interrupted in any line, by the handler of a signal: Control-C, or what limits
the time of a job. A lock that is taken in Python code could then stay taken for ever, and the
service's thread would wait for it, so there is none: an answer comes through a ``SimpleQueue``, and
all else about a call is known to the service's loop alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from concurrent.futures import CancelledError
from contextlib import suppress
from contextvars import Context
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from anyio.lowlevel import current_token
from anyio.to_thread import run_sync

from agentsession.errors import ClosedError, EventLoopError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from agentsession.service import SessionService

__all__ = ["Thread", "check_asyncio", "check_may_block"]

_T = TypeVar("_T")


class _Running:
    """An event loop that runs in a thread of its own, until this object ends it or is dropped.

    A portal of anyio does so too, but waits for its thread when it is dropped: for ever if the
    interpreter is exiting, where such threads have stopped already.
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        # Set on the loop, it ends what still runs there, and the thread.
        self.ended = asyncio.Event()
        # Who is to be told once the loop is closed, if nobody has told them before.
        self.waiting: SimpleQueue[SimpleQueue[_Outcome[None]]] = SimpleQueue()
        self._thread = threading.Thread(
            target=Context().run,
            args=(_run_loop, self.loop, self.ended, self.waiting),
            name=name,
            daemon=True,
        )
        # Without a wait, since it may be called wherever objects are collected.
        weakref.finalize(self, _end_loop, self.loop, self.ended, os.getpid()).atexit = False
        self._thread.start()

    def end(self) -> None:
        """Cancel what still runs on the loop, and wait for the thread; may be called again."""
        _end_loop(self.loop, self.ended, os.getpid())
        self._thread.join()


def _run_loop(
    loop: asyncio.AbstractEventLoop,
    ended: asyncio.Event,
    waiting: SimpleQueue[SimpleQueue[_Outcome[None]]],
) -> None:
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            while not ended.is_set():
                # A task that a call has made may raise one, which asyncio has end the loop too.
                with suppress(KeyboardInterrupt, SystemExit):
                    runner.run(ended.wait())
    finally:
        while not waiting.empty():
            waiting.get().put(_Outcome((None,)))


def _end_loop(loop: asyncio.AbstractEventLoop, ended: asyncio.Event, process: int) -> None:
    if process == os.getpid():  # A fork has the loop, but not the thread.
        with suppress(RuntimeError):  # It has ended by itself.
            loop.call_soon_threadsafe(ended.set)


class _Outcome(NamedTuple, Generic[_T]):
    """What became of a call: its result, its error, or neither if it was cancelled."""

    results: tuple[_T, ...] = ()
    error: BaseException | None = None


class _Call(Generic[_T]):
    """A call on its way; only the loop on which it is made looks at it.

    Args:
        function: Its coroutine function.
        tell: Is told of its outcome, on that loop, unless it was cancelled before it began.
    """

    def __init__(
        self,
        function: Callable[[], Coroutine[Any, Any, _T]],
        tell: Callable[[_Outcome[_T]], object],
    ) -> None:
        self._function = function
        self._tell = tell
        self._is_cancelled = False
        self._task: asyncio.Task[_Outcome[_T]] | None = None

    def start(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Begin, and be among these tasks until it ends."""
        if not self._is_cancelled:
            outcome = _outcome_of(self._function)
            self._task = task = asyncio.get_running_loop().create_task(outcome)
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            task.add_done_callback(self._end)

    def cancel(self) -> None:
        """End, or never begin."""
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()

    def _end(self, task: asyncio.Task[_Outcome[_T]]) -> None:
        self._task = None
        self._tell(_outcome_in(task))


async def _outcome_of(function: Callable[[], Coroutine[Any, Any, _T]]) -> _Outcome[_T]:
    """Make a call.

    An error's traceback holds this frame, which therefore knows nothing of who is told: that may
    be a future, which holds the error.
    """
    try:
        return _Outcome((await function(),))
    except asyncio.CancelledError:
        raise
    except BaseException as exc:  # noqa: BLE001 - an exit is the caller's, and would end the loop here
        return _Outcome(error=exc)


def _outcome_in(task: asyncio.Task[_Outcome[_T]]) -> _Outcome[_T]:
    return _Outcome() if task.cancelled() else task.result()


class Thread:
    """A service, and the thread with the event loop on which it runs.

    The thread starts with the first call, so that a service which is made before a process forks
    can be used in its children.
    """

    def __init__(self, service: SessionService) -> None:
        self.service = service
        # Whoever has it may be interrupted by a call that has it too, of a collected object say.
        self._lock = threading.RLock()
        self._running: _Running | None = None
        self._process = 0
        # The calls that are being made, on the loop.
        self._calls: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        # On the loop, from when the first one closes it.
        self._closing: asyncio.Task[_Outcome[None]] | None = None

    @property
    def is_started(self) -> bool:
        return self._running is not None

    def start(self) -> None:
        """Start the thread if it does not run yet; this takes a few milliseconds."""
        self._belong_here()
        with self._lock:
            self._started()

    def close(self) -> None:
        """Close the service, wait for the calls that were made, and end the thread.

        May be called again: by others, who wait too, and by whoever was interrupted here.
        """
        self._check_process()
        with self._lock:
            self._is_closed = True
        running = self._running
        if running is None or sys.is_finalizing():
            return
        answer: SimpleQueue[_Outcome[None]] = SimpleQueue()
        try:
            running.waiting.put(answer)
            try:
                running.loop.call_soon_threadsafe(self._begin_to_close, running, answer)
            except RuntimeError:
                return  # The loop is closed.
            _result_of(answer.get())
        finally:
            running.end()

    def _begin_to_close(self, running: _Running, answer: SimpleQueue[_Outcome[None]]) -> None:
        """Close the service on its loop, once, and tell whoever waits for that."""
        if self._closing is None:
            outcome = _outcome_of(partial(self._close, running.ended))
            self._closing = asyncio.get_running_loop().create_task(outcome)
        self._closing.add_done_callback(lambda task: answer.put(_outcome_in(task)))

    async def _close(self, ended: asyncio.Event) -> None:
        try:
            await self.service.aclose()
        finally:
            if self._calls:
                await asyncio.wait(self._calls)
            ended.set()  # Whoever closes may have been interrupted since.

    def check_usable(self) -> None:
        """Refuse use after closing, and from another process than the thread's."""
        self._check_process()
        if self._is_closed:
            raise ClosedError

    def check_elsewhere(self) -> None:
        """Refuse to wait for the very call that asks for it."""
        if self._running is not None and self._running.loop is asyncio.get_running_loop():
            raise EventLoopError(problem="blocked")

    def _check_process(self) -> None:
        """Refuse to wait for a thread that a fork has left in the other process."""
        if self._process and self._process != os.getpid():
            raise EventLoopError(problem="forked")

    def _belong_here(self) -> None:
        """Note the process before the lock is taken and the thread starts.

        A fork in the middle of that leaves both in the other process, and whoever is interrupted
        there has perhaps started the thread.
        """
        self._check_process()
        self._process = os.getpid()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._is_closed:
            raise ClosedError
        if self._running is None:
            self._running = _Running(f"agentsession-{id(self):x}")
        return self._running.loop

    # -- from the two sides

    def wait(
        self,
        function: Callable[[], Coroutine[Any, Any, _T]],
        undo: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> _T:
        """Make a call and wait for it, where no event loop has to wait too.

        Args:
            function: Its coroutine function.
            undo: Gives back what the call has taken. It is called without a wait if whoever waits
                is interrupted, since the call may be done by then, and nobody has what it returned.
        """
        check_may_block()
        if sys.is_finalizing():
            raise ClosedError  # The thread has been stopped with the interpreter.
        answer: SimpleQueue[_Outcome[_T]] = SimpleQueue()
        call = _Call(function, answer.put)
        try:
            self._submit(call)
            outcome = answer.get()
        except BaseException:
            self._cancel(call)  # Whoever is interrupted leaves no call behind.
            self._undo(undo)
            raise
        try:
            return _result_of(outcome)
        except BaseException:
            if outcome.results:  # It is an interruption, and not the call's own error.
                self._undo(undo)
            raise
        finally:
            del outcome  # It holds an error, whose traceback holds this frame.

    async def hand_over(self, function: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Make a call and await it on whichever loop runs."""
        check_asyncio()
        if not self.is_started:
            await run_sync(self.start)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Outcome[_T]] = loop.create_future()
        call = _Call(function, partial(_tell, loop, answer))
        self._submit(call)
        try:
            outcome = await answer
        except asyncio.CancelledError:
            self._cancel(call)
            raise
        try:
            # Not by the name of the error, since the call may have one of its own.
            if not outcome.results and outcome.error is None:
                raise asyncio.CancelledError
            return _result_of(outcome)
        finally:
            del outcome, answer, call  # As above.

    def _submit(self, call: _Call[Any]) -> None:
        """Have a call made on the service's loop, in the context of whoever asks for it."""
        self._belong_here()
        with self._lock:  # A call is refused, or waited for by close().
            self._started().call_soon_threadsafe(call.start, self._calls)

    def _cancel(self, call: _Call[Any]) -> None:
        if self._running is not None:
            with suppress(RuntimeError):  # The loop has ended, and all its tasks with it.
                self._running.loop.call_soon_threadsafe(call.cancel)

    def _undo(self, undo: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        """Have something done on the service's loop for which nobody waits."""
        if undo is not None and self._running is not None:
            call = _Call(undo, _nobody)
            with suppress(RuntimeError):  # As above.
                self._running.loop.call_soon_threadsafe(call.start, self._calls)


def _nobody(_: _Outcome[None]) -> None:
    pass


def _tell(
    loop: asyncio.AbstractEventLoop, answer: asyncio.Future[_Outcome[_T]], outcome: _Outcome[_T]
) -> None:
    """Tell a caller on another loop the outcome of its call."""
    with suppress(RuntimeError):  # That loop has ended, and all its tasks with it.
        loop.call_soon_threadsafe(_settle, answer, outcome)


def _settle(answer: asyncio.Future[_Outcome[_T]], outcome: _Outcome[_T]) -> None:
    if not answer.done():
        answer.set_result(outcome)


def _result_of(outcome: _Outcome[_T]) -> _T:
    """Return the result of a call.

    Raises:
        CancelledError: The call was cancelled, by itself or with the loop; not asyncio's error,
            which would cancel the caller.
    """
    try:
        if outcome.error is not None:
            raise outcome.error
        if not outcome.results:
            raise CancelledError
        return outcome.results[0]
    finally:
        del outcome  # As above.


def check_may_block(instead: str = "") -> None:
    """Refuse to block the event loop that runs in this thread, if one does.

    Args:
        instead: What to do then, for the error; as of
            :exc:`~agentsession.errors.EventLoopError`.

    Raises:
        EventLoopError: One does; nothing was done.
    """
    for running in (asyncio.get_running_loop, current_token):  # In no task there is no token.
        try:
            running()
        except RuntimeError:
            continue  # In a worker thread with the context of a loop anyio says it differently.
        raise EventLoopError(problem="blocked", instead=instead)


def check_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise EventLoopError(problem="none") from None
