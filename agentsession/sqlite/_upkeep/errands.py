"""Work that takes long, on a thread of its own, which ends soon when nobody waits for it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["Errand", "Errands"]

_T = TypeVar("_T")

# Between two attempts to stop a thread, in seconds: a statement that is about to begin when it is
# interrupted runs nevertheless.
_INTERVAL: Final = 0.02
# So long a disk that hangs is waited for, in seconds; its thread ends when the disk goes on.
_LONGEST: Final = 10.0


class Errand:
    """What a thread that works knows of those who wait for it."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._is_stopped = threading.Event()

    @contextmanager
    def on(self, connection: sqlite3.Connection) -> Generator[None]:
        """Have the statements on a connection end when the work is stopped; close it in the end."""
        self._connection = connection
        try:
            yield
        finally:
            self._connection = None
            connection.close()

    @property
    def is_stopped(self) -> bool:
        """Whether nobody waits any more."""
        return self._is_stopped.is_set()

    def stop(self) -> None:
        """Have it end soon; from any thread."""
        self._is_stopped.set()
        self.interrupt()

    def interrupt(self) -> None:
        """Have the statement that runs now fail; from any thread."""
        connection = self._connection
        if connection is not None:
            with suppress(sqlite3.ProgrammingError):  # It is closed by now.
                connection.interrupt()


class Errands:
    """The work that runs for one backend."""

    def __init__(self) -> None:
        self._running: dict[Errand, asyncio.Future[object]] = {}

    async def run(self, work: Callable[[Errand], _T]) -> _T:
        """Do work on a thread, and return what it does.

        Whoever is cancelled waits until the thread has stopped, so that nothing is left behind.

        Args:
            work: Heeds the errand that it gets.
        """
        errand = Errand()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_T] = loop.create_future()

        def settle(result: _T | None, error: BaseException | None) -> None:
            self._running.pop(errand, None)
            if error is not None:
                answer.set_exception(error)
                answer.exception()  # It is no matter if nobody asks for it.
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result, error = None, None
            try:
                result = work(errand)
            except BaseException as failed:  # noqa: BLE001 - all of it is the caller's to know
                error = failed
            with suppress(RuntimeError):  # The loop is closed, and nobody waits any more.
                loop.call_soon_threadsafe(settle, result, error)

        self._running[errand] = answer  # type: ignore[assignment]
        # Not a thread of the loop's, since these are few and others may wait for one.
        threading.Thread(target=run, name="agentsession-upkeep", daemon=True).start()
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            await _stopped(errand, answer)
            raise

    async def aclose(self) -> None:
        """Stop all of it, and wait until it has."""
        for errand, answer in [*self._running.items()]:
            await _stopped(errand, answer)


async def _stopped(errand: Errand, answer: asyncio.Future[_T]) -> None:
    """Stop an errand, and wait until it has stopped, whatever happens: a matter of moments."""
    end = time.monotonic() + _LONGEST
    while not answer.done() and time.monotonic() < end:
        errand.stop()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([answer], timeout=_INTERVAL)
