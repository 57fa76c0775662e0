"""Sessions in one file: they survive a restart without a server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from agentsession._service.arguments import check_observers
from agentsession._service.observing import observe
from agentsession._wording import brief
from agentsession.clock import Clock, system_clock
from agentsession.retention import (
    DEFAULT_EVENT_LIMIT,
    DEFAULT_READ_SIZE,
    MEBIBYTE,
    Duration,
    Retention,
    seconds,
)
from agentsession.service import SessionService
from agentsession.sqlite._backend import SQLiteBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.observers import Observer

__all__ = ["SQLiteBackend", "SQLiteSessionService"]

_DEFAULT_CLEANUP_INTERVAL: Final = 300.0
_DEFAULT_TIMEOUT: Final = 10.0


class SQLiteSessionService(SessionService):
    """Sessions in one file, which several processes of one machine may share.

    For programs on one machine: a laptop, a desktop program, a bot, a small server. An append that
    returns is on the disk: it survives a crash of the process and of the machine. The event loop
    never waits for the disk, since threads of the service's own do. Appends that are made at the
    same time share one wait for the disk, so many callers are many times as fast as one.

    The file is made when it is first used, and is an SQLite database in WAL mode, with a ``-wal``
    and a ``-shm`` file beside it while it is open, and a ``-gate`` file, by which processes take
    turns. It must be on a disk of this machine, not on a network file system: SQLite's locks do not
    work there.

    Args:
        path: The file; its folder must exist.
        synchronous: ``"full"``: a write returns when it is on the disk. ``"normal"``: it returns
            when the operating system has it, which a crash of the process does not lose, but a
            crash of the machine may lose the last writes, each whole.
        timeout: How long a call waits for other processes that write, in seconds (or a timedelta),
            before it fails.
        session_event_limit: How many events a session keeps, 1 or more; beyond that the oldest are
            dropped. ``None`` for no limit.
        session_ttl: Seconds (or a timedelta) that a session lives after the last write to it;
            ``None`` or 0 for ever.
        app_state_ttl: The same for an application's state.
        user_state_ttl: The same for a user's state.
        refresh_ttl_on_read: Whether reading extends the life of what is read, as writing does; then
            reading writes to the file.
        cleanup_interval: Seconds (or a timedelta) between two sweeps that remove expired data.
            ``None`` means 5 minutes when any time to live is set, and no sweeper otherwise. Expiry
            is exact with or without it.
        max_event_size: The largest encoded event, in bytes.
        max_value_size: The largest encoded state value, in bytes.
        max_read_size: How much one read may return, in bytes of encoded events in all; ``None`` for
            any amount.
        observers: Objects that are told of each operation and of what is swept; see
            :mod:`agentsession.observers`.
        clock: Returns the time in microseconds since 1970; tests may pass one of their own.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: An option is out of its range; the path names no file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["full", "normal"] = "full",
        timeout: Duration = _DEFAULT_TIMEOUT,
        session_event_limit: int | None = DEFAULT_EVENT_LIMIT,
        session_ttl: Duration = None,
        app_state_ttl: Duration = None,
        user_state_ttl: Duration = None,
        refresh_ttl_on_read: bool = False,
        cleanup_interval: Duration = None,
        max_event_size: int = MEBIBYTE,
        max_value_size: int = MEBIBYTE,
        max_read_size: int | None = DEFAULT_READ_SIZE,
        observers: Sequence[Observer] = (),
        clock: Clock = system_clock,
    ) -> None:
        retention = Retention.of(
            session_event_limit=session_event_limit,
            session_ttl=session_ttl,
            app_state_ttl=app_state_ttl,
            user_state_ttl=user_state_ttl,
            refresh_ttl_on_read=refresh_ttl_on_read,
        )
        interval = seconds("cleanup_interval", cleanup_interval)
        if interval is None and retention.expires:
            interval = _DEFAULT_CLEANUP_INTERVAL
        deadline = seconds("timeout", timeout)
        if deadline is None:
            msg = "timeout must be more than 0; without one a hung process would hang all others"
            raise ValueError(msg)
        if synchronous not in ("full", "normal"):
            msg = f"synchronous must be 'full' or 'normal', not {brief(synchronous)}"
            raise ValueError(msg)
        observers = check_observers(observers)
        backend = SQLiteBackend(
            retention,
            _checked(path),
            synchronous=synchronous,
            timeout=deadline,
            cleanup_interval=interval,
            clock=clock,
            observers=observers,
        )
        super().__init__(
            backend,
            max_event_size=max_event_size,
            max_value_size=max_value_size,
            max_read_size=max_read_size,
            observers=observers,
        )
        self._file_backend = backend
        if observers:
            observe(self, SQLiteSessionService, observers)

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """Make a copy of the file as it is at one moment, while any process goes on writing to it.

        All writes that have returned are in it. The copy is one file, which opens as a store and
        has the rights of the original; it appears at *path* when it is whole and on the disk. It is
        made on a thread of its own, so that neither the event loop nor writers wait. Until it is
        done the ``-wal`` file grows with what is written meanwhile. A process that dies while it
        makes a copy leaves a file ``.<name>-….part`` in the folder, which may be deleted.

        Whoever is cancelled leaves nothing behind, unless the copy was there already.

        Args:
            path: Where there is nothing yet, in a folder that exists. It may be on another disk.

        Raises:
            FileExistsError: There is something at *path*, or what a deleted file of this name has
                left (``-wal``, ``-journal``); it stays as it is.
            OSError: The copy cannot be written, as where its folder is missing or its disk is full.
            BackendUnavailableError: The file cannot be read, or the service was closed meanwhile.
            TypeError: *path* is no path.
            ValueError: *path* names no file, or one of this service's own.
        """
        self._check_usable()
        target = _checked(path)
        own = self._file_backend.path
        names = {own.name + suffix for suffix in ("", "-wal", "-shm", "-gate", "-journal")}
        if target.name in names and target.parent.resolve() == own.parent.resolve():
            msg = f"path must not be a file of the service's own: {brief(str(target))}"
            raise ValueError(msg)
        await self._file_backend.backup(target)


def _checked(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file, whatever folder the process goes to later.

    Raises:
        TypeError: It is no path.
        ValueError: It names no file.
    """
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(name, str):
        msg = f"path must be a str or a Path, not {type(path).__qualname__}: {path!r:.80}"
        raise TypeError(msg)
    if "://" in name:
        msg = "path must be a path; a URL goes to open_service(url)"
        raise ValueError(msg)
    if name == ":memory:":
        msg = "path must name a file; InMemorySessionService keeps sessions in memory"
        raise ValueError(msg)
    if name and os.path.isdir(name):
        msg = f"path must name a file, as in 'sessions.db', and {brief(name)} is a folder"
        raise ValueError(msg)
    if not name or name.endswith(os.sep) or "\0" in name:
        msg = f"path must name a file, as in 'sessions.db', not {brief(name)}"
        raise ValueError(msg)
    return Path(name).absolute()
