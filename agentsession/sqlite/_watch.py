"""What other processes write to the file, as those of this one learn of it who follow.

A process that follows says so in the table ``followers``, for half a minute at a time. As long as
another one has, whoever writes puts what there is to tell into ``news``, in the same transaction;
and nobody does while nobody follows, so that it costs nothing then. A thread looks a hundred times
a second whether the file has changed, which takes it some microseconds.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from agentsession.backend import News
from agentsession.errors import AgentSessionError
from agentsession.sessions import SessionKey
from agentsession.sqlite import _records
from agentsession.sqlite._file.forks import quiet
from agentsession.sqlite._work import Told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentsession.sqlite._file.opening import Connection, File

__all__ = ["Watch"]

# In seconds: between two looks at the file, between two words that this process still follows, and
# how long it goes on after nobody does.
_INTERVAL: Final = 0.01
_RENEWAL: Final = 10.0
_LINGER: Final = 20.0

_WORDS: Final = frozenset({"made", "written", "began", "ended", "deleted", "chunk"})


class Watch:
    """Looks at the file for news from other processes, while it is wanted.

    Args:
        file: The file.
        process: What this process calls itself in it.
        register: Is called on the event loop, now and then, to say that this process follows.
        is_wanted: Tells whether it does.
        tell: Is called on the event loop with what there is to tell.
    """

    def __init__(
        self,
        file: File,
        process: str,
        register: Callable[[], None],
        is_wanted: Callable[[], bool],
        tell: Callable[[Sequence[Told]], None],
    ) -> None:
        self._file = file
        self._process = process
        self._register = register
        self._is_wanted = is_wanted
        self._tell = tell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ends = threading.Event()
        self._wanted = time.monotonic()

    def want(self) -> None:
        """See to it that it looks from now on, and for a while; on the event loop."""
        self._wanted = time.monotonic()
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._ends.clear()
            self._thread = threading.Thread(
                target=self._run, name="agentsession-watch", daemon=True
            )
            self._thread.start()

    async def aclose(self) -> None:
        """Look no more."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ends.set()
            await asyncio.to_thread(thread.join)

    def _on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # The loop is closed, and nobody follows any more.
            assert self._loop is not None  # noqa: S101 - want() has set it
            self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        connection: Connection | None = None
        version, last, registered = 0, 0, 0.0
        while not self._ends.is_set():
            now = time.monotonic()
            if now - self._wanted > _LINGER:
                self._on_loop(self._stopped, threading.current_thread())
                break
            try:
                with quiet:
                    if connection is not None and not self._file.is_at(connection):
                        connection.close()
                        connection, version = None, 0
                        self._on_loop(self._tell, [Told()])
                    if connection is None:
                        connection = self._file.reader("the file")
                        # Before this process says that it follows, so that nothing is told in
                        # between.
                        last, registered = _newest(connection), 0.0
                    if now - registered > _RENEWAL:
                        registered = now
                        self._on_loop(self._renew)
                    (seen,) = connection.execute("PRAGMA data_version").fetchone()
                    if seen != version:
                        version = seen
                        self._file.check_format(connection, "the file")
                        last = self._look(connection, last)
            except (sqlite3.Error, AgentSessionError):
                # The file is not there yet, or was replaced; who follows looks at the log as well.
                if connection is not None:
                    with quiet:
                        connection.close()
                connection, version = None, 0
            self._ends.wait(_INTERVAL)
        if connection is not None:
            with quiet:
                connection.close()

    def _renew(self) -> None:
        if self._is_wanted():
            self._wanted = time.monotonic()
            self._register()

    def _stopped(self, thread: threading.Thread) -> None:
        if self._thread is thread:
            self._thread = None
            if self._is_wanted():
                self.want()

    def _look(self, connection: sqlite3.Connection, last: int) -> int:
        """Tell of what is new, and return the number of the newest row."""
        rows = connection.execute(
            "SELECT * FROM news WHERE number > ? ORDER BY number",
            (last,),
        ).fetchall()
        if not rows:
            return last
        told: list[Told] = []
        if rows[0][0] > last + 1:
            told.append(Told())  # Some were removed before they were read.
        for _, process, app_name, user_id, session_id, what, run_id, chunk, *place in rows:
            if process == self._process:
                continue
            key = SessionKey(app_name, user_id, session_id) if app_name else None
            if what == "owner":
                told.append(Told(key, owner=run_id))
            elif what == "events" and key is not None:
                told += _events(connection, key, *place)
            elif what in _WORDS:
                told.append(Told(key, News(session_id, what, run_id, chunk)))
            else:
                told.append(Told(key))
        if told:
            self._on_loop(self._tell, told)
        newest: int = rows[-1][0]
        return newest


def _events(
    connection: sqlite3.Connection, key: SessionKey, incarnation: str, first_seq: int, count: int
) -> list[Told]:
    """Return what there is to tell of an append, if the log has all of it still."""
    head = _records.find(connection, key)
    if head is None or head.incarnation != incarnation or first_seq < head.oldest_seq:
        return []
    found = _records.read_events(connection, head, [range(first_seq, first_seq + count)])
    news = News(
        key.session_id, "events", incarnation=incarnation, first_seq=first_seq, events=(*found,)
    )
    return [Told(key, news)]


def _newest(connection: sqlite3.Connection) -> int:
    """Return the number of the row that was added last, which may have been removed."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'news'").fetchone()
    return 0 if row is None else row[0]
