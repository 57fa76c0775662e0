"""The threads that work on the file, so that the event loop never waits for a disk.

One writes. All calls that came while it was busy share its next transaction, and one wait for the
disk; each is answered by its own outcome. If the transaction fails as a whole, each is tried alone,
so that one which cannot be written spoils none of the others. Some threads read; they wait neither
for the writer nor for each other.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from agentsession.clock import system_clock
from agentsession.errors import AgentSessionError, ClosedError, OutcomeUnknownError
from agentsession.sessions import SessionKey
from agentsession.sqlite._errors import is_damage, translated
from agentsession.sqlite._file.forks import quiet
from agentsession.sqlite._file.gate import Gate
from agentsession.sqlite._work import Told, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentsession.clock import Clock
    from agentsession.retention import Retention
    from agentsession.sessions import UserKey
    from agentsession.sqlite._file.opening import Connection, File

__all__ = ["Readers", "Writer"]

_T = TypeVar("_T")

# So many calls share a transaction at most, or so many reads.
_MOST_WRITES: Final = 512
_MOST_READS: Final = 16
# After so many seconds of reading, those are answered that are done.
_READS_FOR: Final = 0.002


class _Call(Generic[_T]):
    """An operation on its way."""

    __slots__ = (
        *("deadline", "error", "future", "ids", "is_settled", "operation", "result", "subject"),
    )

    def __init__(
        self,
        operation: Callable[[Any], _T],
        subject: SessionKey | UserKey | str,
        future: asyncio.Future[_T],
        deadline: float,
    ) -> None:
        self.operation = operation
        self.subject = subject
        self.future = future
        self.deadline = deadline
        # Those of the events that it appends to the session that is its subject.
        self.ids: Sequence[str] = ()
        self.is_settled = False
        self.result: _T | None = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        """Answer the caller; on the event loop."""
        self.is_settled = True
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


class _Crew(ABC):
    """Threads that take calls from the event loop, and answer there."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._inbox: SimpleQueue[list[_Call[Any]] | None] = SimpleQueue()
        self._handed: list[_Call[Any]] = []
        # Cancelled, and not answered yet.
        self._abandoned: set[_Call[Any]] = set()
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    async def do(
        self,
        operation: Callable[[Any], _T],
        subject: SessionKey | UserKey | str,
        patience: float,
        ids: Sequence[str] = (),
    ) -> _T:
        """Have an operation done on a thread of these, and return what it does.

        Args:
            operation: Gets what the thread works with.
            subject: Whose data it is about, for errors.
            patience: How long it may wait for other processes, in seconds.
            ids: The ids of what it appends to the session that is its subject.

        Raises:
            ClosedError: They were let go.
        """
        call = self._put(operation, subject, patience)
        call.ids = ids
        try:
            return await call.future
        except asyncio.CancelledError:
            if not call.is_settled:
                self._abandoned.add(call)
            raise

    def post(
        self,
        operation: Callable[[Any], None],
        subject: SessionKey | UserKey | str,
        timeout: float,
        then: Callable[[], None],
    ) -> None:
        """Have something done for which nobody waits; call a function if it was."""
        if self._is_closed:
            return

        def settled(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and future.exception() is None:
                then()

        self._put(operation, subject, timeout).future.add_done_callback(settled)

    def _put(
        self,
        operation: Callable[[Any], _T],
        subject: SessionKey | UserKey | str,
        timeout: float,
    ) -> _Call[_T]:
        if self._is_closed:
            raise ClosedError
        loop = asyncio.get_running_loop()
        self._loop = loop
        call = _Call(operation, subject, loop.create_future(), time.monotonic() + timeout)
        if not self._handed:
            # Those that are called in the same step of the loop go together.
            loop.call_soon(self._hand_over)
        self._handed.append(call)
        return call

    @property
    def is_behind(self) -> bool:
        """Whether calls that nobody waits for any more may still be done."""
        return bool(self._abandoned)

    def _hand_over(self) -> None:
        if not self._handed:
            return  # aclose() has done so already.
        if not self._threads:
            for number in range(self._size):
                name = f"agentsession-{self._name}-{number}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        calls, self._handed = self._handed, []
        self._inbox.put(calls)

    def answer(self, calls: Sequence[_Call[Any]], told: Sequence[Told] = ()) -> None:
        """Have calls answered on the event loop; from a thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # The loop is closed, and nobody waits any more.
                self._loop.call_soon_threadsafe(self._settle, calls, told)

    def _settle(self, calls: Sequence[_Call[Any]], told: Sequence[Told]) -> None:
        del told
        for call in calls:
            call.settle()
        self._abandoned.difference_update(calls)

    @abstractmethod
    def _run(self) -> None:
        """Do what comes in, until ``None`` does; on a thread."""

    async def aclose(self) -> None:
        """Let the threads end, when they have done what was asked for before."""
        self._hand_over()
        self._is_closed = True
        threads, self._threads = self._threads, []
        for _ in threads:
            self._inbox.put(None)
        for thread in threads:
            await asyncio.to_thread(thread.join)


class Writer(_Crew):
    """The thread that writes.

    Args:
        file: What to write to.
        retention: What to keep and for how long.
        clock: The present.
        process: What this process calls itself in the file.
        tell: Is called on the event loop with what to tell.
        is_followed_here: Tells whether anybody follows in this process.
    """

    def __init__(
        self,
        file: File,
        retention: Retention,
        clock: Clock,
        process: str,
        tell: Callable[[Sequence[Told]], None],
        is_followed_here: Callable[[], bool],
    ) -> None:
        super().__init__("writer", 1)
        self._file = file
        self._retention = retention
        self._clock = clock
        self._process = process
        self._tell = tell
        self._is_followed_here = is_followed_here
        self._gate = Gate(file.path)
        self._work: Work | None = None
        self._connection: Connection
        self._version = 0

    @property
    def is_followed(self) -> bool:
        """Whether another process wanted to be told when this one wrote last."""
        work = self._work
        return work is not None and work.followed_until > system_clock()

    def _settle(self, calls: Sequence[_Call[Any]], told: Sequence[Told]) -> None:
        super()._settle(calls, told)
        self._tell(told)

    def _run(self) -> None:
        ends = False
        while not ends:
            calls = self._inbox.get()
            if calls is None:
                break
            while len(calls) < _MOST_WRITES:
                try:
                    more = self._inbox.get_nowait()
                except Empty:
                    break
                if more is None:
                    ends = True
                    break
                calls += more
            with quiet:
                self._write(calls)
            while not ends and self._inbox.empty():
                with quiet:
                    if not self._purge():
                        break
        with quiet:
            self._close()

    def _close(self) -> None:
        if self._work is not None:
            with suppress(sqlite3.Error):
                self._work.connection.close()
            self._work = None
        self._gate.close()

    def _write(self, calls: list[_Call[Any]]) -> None:
        """Do some calls in one transaction; if that fails, each in its own."""
        if cancelled := [call for call in calls if call.future.cancelled()]:
            self.answer(cancelled)
            calls = [call for call in calls if call not in cancelled]
        if not calls:
            return
        try:
            told = self._transaction(calls)
        except BaseException as error:  # noqa: BLE001 - all of it is a caller's to know
            self._forget()
            if is_damage(error):
                self._close()  # It may be repaired by the next call.
            if isinstance(error, OutcomeUnknownError):
                for call in calls:
                    call.error = OutcomeUnknownError(call.subject, error.reason)
                    call.error.__cause__ = error.__cause__
            elif len(calls) > 1:
                for call in calls:
                    self._write([call])
                return
            else:
                calls[0].error = translated(error, calls[0].subject, str(self._file))
            told = []
        self.answer(calls, told)

    def _transaction(self, calls: Sequence[_Call[Any]]) -> list[Told]:
        work = self._begin(min(call.deadline for call in calls), calls[0].subject)
        appends = [
            (call.subject, call.ids)
            for call in calls
            if call.ids and isinstance(call.subject, SessionKey)
        ]
        if appends:
            work.look_up(appends)
        for call in calls:
            call.error = None
            try:
                call.result = call.operation(work)
            except AgentSessionError as refused:
                call.error = refused
        work.flush()
        work.store_news(system_clock())
        told, work.told = work.told, []
        try:
            work.connection.execute("COMMIT")
        except sqlite3.Error as error:
            if work.connection.in_transaction:
                raise
            raise translated(
                error, calls[0].subject, str(self._file), may_be_written=True
            ) from error
        if not self._file.is_at(self._connection):
            self._close()
            reason = (
                f"{self._file}: the file was deleted or replaced while it was written to; if it "
                "was replaced, the next call writes to the new one"
            )
            raise OutcomeUnknownError(calls[0].subject, reason)
        return told

    def _begin(self, deadline: float, subject: SessionKey | UserKey | str) -> Work:
        """Begin a transaction."""
        if self._work is not None and not self._file.is_at(self._connection):
            self._close()
        if self._work is None:
            connection = self._connection = self._gate.open(self._file, deadline, subject)
            self._work = Work(
                connection,
                self._retention,
                self._clock,
                self._process,
                self._is_followed_here,
            )
            self._version = 0
        work = self._work
        self._gate.begin(work.connection, deadline, subject)
        (version,) = work.connection.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            # Somebody else has written.
            self._version = version
            work.forget()
            self._file.check_format(work.connection, subject)
            work.look_for_followers()
        work.begin()
        return work

    def _forget(self) -> None:
        """Give up a transaction, and all that was known before it."""
        if self._work is None:
            return
        self._work.forget()
        self._version = 0
        try:
            if self._work.connection.in_transaction:
                self._work.connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._close()

    def _purge(self) -> bool:
        """Remove some of what was deleted; tell whether there is more."""
        if self._work is None or not self._work.has_deleted:
            return False
        try:
            work = self._begin(time.monotonic(), "deleted sessions")
            goes_on = work.purge()
            work.connection.execute("COMMIT")
        except (sqlite3.Error, OSError, AgentSessionError):
            self._forget()
            return False  # It is tried again after the next write.
        return goes_on


class Readers(_Crew):
    """The threads that read.

    Args:
        file: What to read.
        size: How many there are.
    """

    def __init__(self, file: File, size: int = 2) -> None:
        super().__init__("reader", size)
        self._file = file
        # Of connections that are closed at once, each takes another for the last one, and none
        # removes the log.
        self._closing = threading.Lock()

    def _run(self) -> None:
        connection: Connection | None = None
        while (calls := self._inbox.get()) is not None:
            while len(calls) < _MOST_READS:
                try:
                    more = self._inbox.get_nowait()
                except Empty:
                    break
                if more is None:
                    self._inbox.put(None)
                    break
                calls += more
            with quiet:
                connection = self._read(connection, calls)
        if connection is not None:
            with quiet, self._closing:
                connection.close()

    def _read(self, connection: Connection | None, calls: list[_Call[Any]]) -> Connection | None:
        """Do some calls, each on the file as it is at one moment."""
        if cancelled := [call for call in calls if call.future.cancelled()]:
            self.answer(cancelled)
        left = deque(call for call in calls if call not in cancelled)
        if connection is not None and not self._file.is_at(connection):
            connection.close()
            connection = None
        while left:
            done: list[_Call[Any]] = []
            end = time.monotonic() + _READS_FOR
            try:
                if connection is None:
                    connection = self._file.reader(left[0].subject)
                connection.execute("BEGIN")
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                if version != connection.version:
                    # A newer version of this library may have changed the tables.
                    self._file.check_format(connection, left[0].subject)
                    connection.version = version
                while left:
                    call = left.popleft()
                    done.append(call)
                    try:
                        call.result = call.operation(connection)
                    except AgentSessionError as refused:
                        call.error = refused
                    if time.monotonic() > end:
                        break
                connection.execute("COMMIT")
            except BaseException as error:  # noqa: BLE001 - all of it is a caller's to know
                if not done:
                    done.append(left.popleft())
                done[-1].error = translated(error, done[-1].subject, str(self._file))
                if connection is not None:
                    connection.close()
                    connection = None
            self.answer(done)
        return connection
