"""A backend in one file of SQLite's.

Rules of this package:

- What writes is done on one thread, what reads on others (:mod:`agentsession.sqlite._threads`); the
  event loop only hands calls over, and gets them back answered.
- A write is answered when it is on the disk.
- What this process knows of the file it forgets as soon as another one has written to it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentsession._alarms import Alarms
from agentsession._journal import Journal
from agentsession.backend import (
    ANYTHING,
    NEW,
    Backend,
    Before,
    Beginning,
    Claim,
    Entry,
    EventSlice,
    Expected,
    News,
    PastSlice,
    Position,
    ReadLimit,
    Receipt,
    SessionSlice,
    Snapshot,
    Standing,
    Then,
    UserSlice,
    Window,
)
from agentsession.clock import Clock, system_clock
from agentsession.errors import AgentSessionError, BackendUnavailableError, CodecError
from agentsession.events import new_id
from agentsession.observers import Swept
from agentsession.sqlite import _reading, _records, _writing
from agentsession.sqlite._errors import translated
from agentsession.sqlite._file.opening import File
from agentsession.sqlite._threads import Readers, Writer
from agentsession.sqlite._upkeep import checking
from agentsession.sqlite._upkeep.copying import copy
from agentsession.sqlite._upkeep.errands import Errand, Errands
from agentsession.sqlite._watch import Watch
from agentsession.sqlite._work import Told, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from agentsession.concerns import Concern
    from agentsession.observers import Observer
    from agentsession.retention import Retention
    from agentsession.sessions import SessionKey, UserKey
    from agentsession.state import Changes, ScopeChanges

__all__ = ["SQLiteBackend"]

_T = TypeVar("_T")

# So many sessions are swept in one transaction.
_SWEEP_STRIDE: Final = 100
# So long a check looks for damage, in seconds: some gigabytes that the system has in memory.
_CHECKED_FOR: Final = 3.0


class SQLiteBackend(Backend):
    """A :class:`~agentsession.backend.Backend` in one file, by this module's rules.

    Args:
        retention: What to keep and for how long.
        path: The file.
        synchronous: How far a write goes before it is answered, as SQLite has it.
        timeout: How long a write waits for other processes, in seconds.
        cleanup_interval: Seconds between two sweeps of what has expired; ``None`` for no sweeper.
        clock: The backend's present, in microseconds.
        observers: Objects that are told of what is swept; see :mod:`agentsession.observers`.
    """

    def __init__(
        self,
        retention: Retention,
        path: Path,
        *,
        synchronous: str = "FULL",
        timeout: float = 10.0,
        cleanup_interval: float | None = None,
        clock: Clock = system_clock,
        observers: Sequence[Observer] = (),
    ) -> None:
        super().__init__(retention)
        self._file = File(path, synchronous)
        self._timeout = timeout
        self._cleanup_interval = cleanup_interval
        self._clock = clock
        self._journal = Journal("agentsession.sqlite", observers)
        self._process = new_id()
        self._alarms: Alarms[None] = Alarms()
        self._followers: Alarms[News] = Alarms()
        self._writer = Writer(
            self._file,
            retention,
            clock,
            self._process,
            self._tell_all,
            lambda: bool(self._followers),
        )
        self._readers = Readers(self._file)
        self._watch = Watch(
            self._file,
            self._process,
            self._register,
            lambda: bool(self._alarms or self._followers),
            self._tell_all,
        )
        self._synchronous = synchronous
        self._errands = Errands()
        self._is_open = False
        self._sweeper: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self._file)!r}>"

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    # -- sessions

    async def create(
        self, key: SessionKey, changes: Changes, *, token: str, beginning: Beginning = NEW
    ) -> Snapshot:
        return await self._write(key, _writing.create, key, changes, token, beginning)

    async def fork(
        self,
        key: SessionKey,
        new_key: SessionKey,
        at_seq: int | None,
        *,
        token: str,
        expected: Expected = ANYTHING,
    ) -> Snapshot:
        return await self._write(key, _writing.fork, key, new_key, at_seq, token, expected)

    async def get_or_create(self, key: SessionKey, changes: Changes, window: Window) -> Snapshot:
        if not self.retention.refresh_on_read:
            # Most are there, and who only reads waits for no writer.
            found = await self._read(key, _reading.get, key, window, self._clock())
            if found is not None:
                return found
        return await self._write(key, _writing.get_or_create, key, changes, window, new_id())

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        if self.retention.refresh_on_read:
            return await self._write(key, _writing.get, key, window)
        return await self._read(key, _reading.get, key, window, self._clock())

    async def list_sessions(
        self, user: UserKey, limit: int, before: Position | None
    ) -> SessionSlice:
        return await self._read(user, _reading.list_sessions, user, limit, before, self._clock())

    async def list_users(self, app_name: str, limit: int, after: str) -> UserSlice:
        return await self._read(
            app_name, _reading.list_users, app_name, limit, after, self._clock()
        )

    async def delete(self, key: SessionKey, *, expected: Expected = ANYTHING) -> None:
        await self._write(key, _writing.delete, key, expected)

    async def delete_user(self, user: UserKey) -> None:
        await self._write(user, _writing.delete_user, user)

    # -- the log

    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        self._begin()
        return await self._writer.do(
            partial(_writing.append, key=key, entries=entries, expected=expected, then=then),
            key,
            self._timeout,
            [entry.event_id for entry in entries],
        )

    async def read(
        self,
        key: SessionKey,
        *,
        after_seq: int,
        before_seq: int | None,
        limit: int,
        newest_first: bool,
        raw: bool = False,
        read_limit: ReadLimit | None = None,
        refresh: bool = True,
        after_id: str = "",
        expected: Expected = ANYTHING,
    ) -> EventSlice:
        asked = partial(
            _reading.read,
            after_seq=after_seq,
            before_seq=before_seq,
            limit=limit,
            newest_first=newest_first,
            raw=raw,
            read_limit=read_limit,
            after_id=after_id,
            expected=expected,
        )
        found = await self._read(key, asked, key, self._clock())
        if refresh and self.retention.refresh_on_read:
            await self._write(key, _writing.touch, key, found.incarnation)
        return found

    async def locate(
        self, key: SessionKey, event_id: str, *, expected: Expected = ANYTHING
    ) -> int | None:
        return await self._read(key, _reading.locate, key, event_id, self._clock(), expected)

    async def read_past(
        self, key: SessionKey, *, after: float, limit: int, expected: Expected = ANYTHING
    ) -> PastSlice:
        asked = partial(_reading.read_past, after=after, limit=limit, expected=expected)
        return await self._read(key, asked, key, self._clock())

    async def note_past(
        self, key: SessionKey, earlier: Sequence[Before], *, expected: Expected = ANYTHING
    ) -> None:
        await self._write(key, _writing.note_past, key, earlier, expected)

    # -- state

    async def update_state(
        self, key: SessionKey, changes: Changes, *, expected: Expected = ANYTHING
    ) -> Receipt:
        return await self._write(key, _writing.update_state, key, changes, expected)

    async def update_app_state(self, app_name: str, changes: ScopeChanges) -> None:
        await self._write(app_name, _writing.change_app, app_name, changes)

    async def update_user_state(self, user: UserKey, changes: ScopeChanges) -> None:
        await self._write(user, _writing.change_user, user, changes)

    async def get_app_state(self, app_name: str) -> dict[str, bytes]:
        if self.retention.refresh_on_read:
            await self.update_app_state(app_name, {})
        return await self._read(app_name, _records.app_values, app_name, self._clock())

    async def get_user_state(self, user: UserKey) -> dict[str, bytes]:
        if self.retention.refresh_on_read:
            await self.update_user_state(user, {})
        return await self._read(user, _records.user_values, user, self._clock())

    # -- leases

    async def acquire(
        self,
        key: SessionKey,
        claim: Claim,
        attempt: int,  # noqa: ARG002 - no copy of a call comes late
        *,
        expected: Expected = ANYTHING,
    ) -> Standing:
        return await self._write(key, _writing.acquire, key, claim, expected)

    async def renew(self, key: SessionKey, owner: str, ttl: int) -> Standing:
        return await self._write(key, _writing.renew, key, owner, ttl)

    async def release(
        self,
        key: SessionKey,
        owner: str,
        attempt: int,  # noqa: ARG002 - no copy of a call comes late
    ) -> None:
        await self._write(key, _writing.release, key, owner)

    async def stop(self, key: SessionKey, run_id: str | None) -> str | None:
        return await self._write(key, _writing.stop, key, run_id)

    def listen(
        self, key: SessionKey, owner: str, on_news: Callable[[], None]
    ) -> AbstractContextManager[None]:
        del key  # No two owners have the same name.
        self._watch.want()
        return self._alarms.listen(owner, lambda _: on_news())

    # -- following

    def follow(
        self, subject: SessionKey | UserKey, on_news: Callable[[News | None], None]
    ) -> AbstractContextManager[None]:
        self._watch.want()
        return self._followers.listen(subject, on_news)

    async def tell(self, key: SessionKey, chunk: bytes) -> bool:
        news = News(key.session_id, "chunk", chunk=chunk)
        self._ring(key, news)
        # Somebody may have come since this process has written last.
        if self._writer.is_followed or await self._read(
            key, _records.is_followed, self._process, system_clock()
        ):
            await self._write(key, _tell, Told(key, news))
            return True
        return bool(self._followers)

    def _register(self) -> None:
        """Say that this process follows."""
        self._writer.post(_register, "the file", self._timeout, self._missed)

    def _missed(self) -> None:
        """Have all look who follow: until now nobody may have told them."""
        self._followers.ring_all()
        self._alarms.ring_all()

    def _tell_all(self, told: Sequence[Told]) -> None:
        """Tell those of this process who follow what was written."""
        for each in told:
            if each.owner:
                self._alarms.ring(each.owner)
            elif each.key is None:
                self._followers.ring_all()
            else:
                self._ring(each.key, each.news)

    def _ring(self, key: SessionKey, news: News | None) -> None:
        if self._followers:
            self._followers.ring(key, news)
            if news is not None:
                self._followers.ring(key.user, news)

    # -- expiry

    async def sweep(self) -> None:
        """Remove all that has expired."""
        freed = 0
        while True:
            removed = await self._write("the file", _writing.sweep, _SWEEP_STRIDE)
            freed += removed
            if removed < _SWEEP_STRIDE:
                break
        if freed:
            self._journal.note(Swept(sessions=freed))

    async def unexpiring(self) -> list[str]:
        """Name everything that is held and would never expire; the conformance checks ask."""
        return await self._read("the file", _records.unexpiring)

    async def _sweep_for_ever(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            with suppress(AgentSessionError):  # Others are writing, or the disk is full: next time.
                await self.sweep()

    # -- upkeep

    async def check(self) -> list[Concern]:
        found = partial(checking.diagnosed, self._file.path, self._synchronous, _CHECKED_FOR)
        return await self._on_the_side(found)

    async def backup(self, path: Path) -> None:
        """Make a copy of the file; see :meth:`agentsession.SQLiteSessionService.backup`."""
        # What was called before is in it, and the file is there, and of the present version.
        await self._write("the file", _nothing)
        await self._on_the_side(partial(_copy, self._file, path))

    async def _on_the_side(self, work: Callable[[Errand], _T]) -> _T:
        """Do what takes long, so that nothing else waits for it."""
        try:
            return await self._errands.run(work)
        except sqlite3.Error as error:
            raise translated(error, "the file", str(self._file)) from error

    async def aclose(self) -> None:
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            sweeper.cancel()
            # To await the task itself would mix up its cancellation with that of the caller.
            await asyncio.wait([sweeper])
        await self._errands.aclose()
        await self._watch.aclose()
        await self._readers.aclose()
        await self._writer.aclose()

    # -- the threads

    async def _write(
        self,
        subject: SessionKey | UserKey | str,
        operation: Callable[..., _T],
        *arguments: Any,
    ) -> _T:
        self._begin()
        return await self._writer.do(
            lambda work: operation(work, *arguments), subject, self._timeout
        )

    async def _read(
        self,
        subject: SessionKey | UserKey | str,
        operation: Callable[..., _T],
        *arguments: Any,
    ) -> _T:
        self._begin()
        if self._writer.is_behind:
            # What was written by calls that have been cancelled is read by those that come after.
            await self._writer.do(_nothing, subject, self._timeout)
        was_open = self._is_open
        try:
            found = await self._read_now(subject, operation, *arguments)
        except (BackendUnavailableError, CodecError):
            self._is_open = False
            # There is no file, or none any more, or one of an earlier version. Who had one is told
            # so, and the next call makes it; whoever comes first does it at once. Who finds one
            # waits for nobody's lock.
            if was_open:
                raise
            await self._writer.do(_nothing, subject, self._timeout)
            found = await self._read_now(subject, operation, *arguments)
        self._is_open = True
        return found

    async def _read_now(
        self,
        subject: SessionKey | UserKey | str,
        operation: Callable[..., _T],
        *arguments: Any,
    ) -> _T:
        return await self._readers.do(
            lambda connection: operation(connection, *arguments), subject, self._timeout
        )

    def _begin(self) -> None:
        """Start the sweeper on first use, when a loop is surely running."""
        if self._sweeper is None and self._cleanup_interval is not None:
            self._sweeper = asyncio.create_task(
                self._sweep_for_ever(self._cleanup_interval), name="agentsession-sweeper"
            )


def _tell(work: Work, told: Told) -> None:
    """Have other processes told; those of this one were."""
    work.told_elsewhere.append(told)


def _register(work: Work) -> None:
    work.register(system_clock())


def _copy(file: File, path: Path, errand: Errand) -> None:
    """Copy the file as it is at one moment."""
    connection = file.reader("the file")
    with errand.on(connection):
        copy(connection, file.path, path, is_stopped=lambda: errand.is_stopped)


def _nothing(work: Work) -> None:
    """Do nothing but open the file."""
