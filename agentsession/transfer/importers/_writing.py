"""How what a source holds is written into a store."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypedDict

import msgspec
from anyio import SpooledTemporaryFile

from agentsession import codec
from agentsession._marks import mark
from agentsession._pace import Pace
from agentsession._wording import brief, described, described_app
from agentsession.clock import utc_now
from agentsession.errors import (
    CodecError,
    EventTooLargeError,
    LeaseLostError,
    RewindError,
    SessionBusyError,
    SessionNotFoundError,
    StateValueError,
)
from agentsession.sessions import SessionKey, UserKey
from agentsession.state import (
    APP_PREFIX,
    DELETE,
    LONGEST_NAME,
    TEMP_PREFIX,
    USER_PREFIX,
    encode_value,
    split,
)
from agentsession.transfer._records import (
    BeforeRecord,
    EventRecord,
    SessionRecord,
    line_of,
    read_line,
)
from agentsession.transfer._reports import Problem, SessionConflictError, named_values
from agentsession.transfer._session import Brought, SessionImport
from agentsession.transfer.importers._account import UNREADABLE
from agentsession.transfer.importers._found import AppFound, SessionFound, UserFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from datetime import datetime
    from typing import Self

    from agentsession.events import Event
    from agentsession.service import SessionService
    from agentsession.transfer._importing import Existing
    from agentsession.transfer.importers._account import Account
    from agentsession.transfer.importers._found import Sessions
    from agentsession.transfer.importers._reports import SourceReport

__all__ = ["ImportOptions", "Writer"]

_SPOOLED: Final = 1 << 20
_PIECE: Final = 1 << 16
_PREFIXES: Final = (APP_PREFIX, USER_PREFIX, TEMP_PREFIX)
# What is wrong with a session that is imported, or with the one that is there.
_OF_THE_SESSION: Final = (
    ValueError,
    SessionConflictError,
    CodecError,
    RewindError,
    SessionNotFoundError,
    SessionBusyError,
    LeaseLostError,
)


class ImportOptions(TypedDict, total=False):
    """What can be said of every import.

    Attributes:
        existing: What to do with a session that is there already, as for
            :func:`agentsession.transfer.import_from`.
        keep_going: Whether to leave out what cannot be read, or not be stored, and go on with the
            rest of its session. The report names it.
        dry_run: Whether to read everything, and write nothing.
        on_progress: Is called after each session with the counts so far, which it does not keep.
    """

    existing: Existing
    keep_going: bool
    dry_run: bool
    on_progress: Callable[[SourceReport], None] | None


class Writer:
    """Writes what a source holds.

    Args:
        service: Takes it.
        account: Counts.
        options: See :class:`ImportOptions`.
        to_app: The application that takes all of it; ``None`` for those of the source.
        to_user: The user who takes all of it; ``None`` for those of the source.
    """

    def __init__(
        self,
        service: SessionService,
        account: Account,
        options: ImportOptions,
        *,
        to_app: str | None = None,
        to_user: str | None = None,
    ) -> None:
        self._service = service
        self._account = account
        self._report = account.report
        self._to_app = to_app
        self._to_user = to_user
        self._existing: Existing = options.get("existing", "continue")
        self._brought = Brought(matters=self._existing in ("replace", "skip"))
        self._dry_run = options.get("dry_run", False)
        self._on_progress = options.get("on_progress")
        self._pace = Pace()

    async def write(self, found: Sessions) -> None:
        """Write all that a source holds.

        Raises:
            SourceError: Something cannot be read, unless it is to be left out.
            SessionConflictError: Another session is there, unless to keep going.
        """
        async for each in found:
            match each:
                case AppFound():
                    await self._write_app(each)
                case UserFound():
                    await self._write_user(each)
                case SessionFound():
                    await self._write_session(each)
            if self._on_progress is not None:
                self._on_progress(self._report)

    # -- state

    async def _write_app(self, found: AppFound) -> None:
        app_name = self._user(UserKey(found.app_name, "-")).app_name
        here = await self._service.get_app_state(app_name)
        missing = self._missing(app_name, found.state, here)
        if missing and not self._dry_run:
            await self._service.update_app_state(app_name, missing)
        self._report.apps += 1

    async def _write_user(self, found: UserFound) -> None:
        user = self._user(found.key)
        here = await self._service.get_user_state(user)
        missing = self._missing(user, found.state, here)
        if missing and not self._dry_run:
            await self._service.update_user_state(user, missing)
        self._report.users += 1

    def _user(self, user: UserKey) -> UserKey:
        """Return who takes what is a user's."""
        return UserKey(
            user.app_name if self._to_app is None else self._to_app,
            user.user_id if self._to_user is None else self._to_user,
        )

    def _missing(
        self, subject: UserKey | str, told: Mapping[str, Any], here: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what of a scope is not there yet; name what is there and differs."""
        state = self._storable(subject, told)
        others = [name for name in state if name in here and not _is_same(state[name], here[name])]
        if others:
            self._report.kept += len(others)
            what = f"state that is there already is left as it is: {named_values(others)}"
            self._report.note(Problem(what, subject))
        return {name: value for name, value in state.items() if name not in here}

    def _storable(
        self, subject: SessionKey | UserKey | str, state: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what of the state of a scope can be stored there."""
        whose = described_app(subject) if isinstance(subject, str) else described(subject)
        storable: dict[str, Any] = {}
        for name, value in state.items():
            if name.startswith(_PREFIXES):
                what = "values of state whose names mean another scope"
                self._account.note_unmapped(what, brief(name), subject)
                continue
            try:
                _check_value(name, value, self._service.max_value_size)
            except UNREADABLE as exc:
                self._account.leave_out(f"state of {whose}", exc)
            else:
                storable[name] = value
        return storable

    # -- sessions

    async def _write_session(self, found: SessionFound) -> None:
        user = self._user(found.key.user)
        key = SessionKey(user.app_name, user.user_id, found.key.session_id)
        async with (
            _Lines() as events,
            _Lines() as changes,
        ):
            created_at, last_seq = await self._gather(key, found, events, changes)
            state = self._storable(key, found.state)
            try:
                record = SessionRecord(*_ids(key), created_at, last_seq, mark(state))
                if self._dry_run:
                    self._report.sessions += 1
                    self._report.events += last_seq
                else:
                    await self._store(key, record, events, changes)
            except SessionConflictError as exc:
                if not self._account.keeps_going:
                    raise
                self._report.note(Problem(str(exc)))
            except _OF_THE_SESSION as exc:
                self._account.fail(described(key), exc)

    async def _gather(
        self,
        key: SessionKey,
        found: SessionFound,
        events: _Lines,
        changes: _Lines,
    ) -> tuple[datetime, int]:
        """Write down the events of a session, and what its state was, before any of it is stored.

        So a session is imported up to its end, whatever happens to the source meanwhile.

        Returns:
            When it was made, and how many events it has.
        """
        created_at = found.created_at or await self._first_import(key)
        past = _Past()
        seq = 0
        async with aclosing(found.events) as given:
            async for event in given:
                payload = self._encoded(key, event, None if found.has_times else created_at)
                if payload is None:
                    continue
                seq += 1
                self._account.count(event)
                await events.add(payload + b"\n")
                if before := past.take(seq, event.state_delta):
                    await changes.add(line_of(before))
                if self._pace.due():
                    await self._pace.rest()
        return created_at, seq

    async def _first_import(self, key: SessionKey) -> datetime:
        """Return when a session was first imported, for one of which the source tells no time."""
        session = await self._service.get_session(key, num_recent_events=0)
        return utc_now() if session is None else session.created_at

    def _encoded(self, key: SessionKey, event: Event, at: datetime | None) -> bytes | None:
        """Encode an event, at a time of its own or another; ``None`` if it is left out."""
        if at is not None:
            event = msgspec.structs.replace(event, timestamp=at)
        try:
            split(event.state_delta, self._service.max_value_size)
            payload = codec.encode_event(event)
            if len(payload) > self._service.max_event_size:
                raise EventTooLargeError(key, event.id, len(payload), self._service.max_event_size)
        except UNREADABLE as exc:
            self._account.leave_out(f"event {brief(event.id)} of {described(key)}", exc)
            return None
        return payload

    async def _store(
        self,
        key: SessionKey,
        record: SessionRecord,
        events: _Lines,
        changes: _Lines,
    ) -> None:
        self._brought.check(key)
        session = SessionImport(self._service, key, record, self._report)
        goes_on, replaces = self._existing == "continue", self._existing == "replace"
        if not await session.begin(go_on=goes_on, replace=replaces):
            if self._existing == "refuse":
                raise SessionConflictError(key, "no session was to be there")
            self._brought.add(key)
            self._report.found += 1
            return
        seq = 0
        async for line in events.read():
            seq += 1
            await session.take(EventRecord(seq, msgspec.Raw(line)))
        async for line in changes.read():
            before = read_line(line)
            assert isinstance(before, BeforeRecord)  # noqa: S101 - written a moment ago
            await session.take(before)
        await session.end(None)
        self._brought.add(key)


class _Lines:
    """Lines that are written down and read again, in memory or in a file, as there are many."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile[bytes](max_size=_SPOOLED, mode="w+b")
        self._pieces: list[bytes] = []
        self._size = 0

    async def __aenter__(self) -> Self:
        await self._file.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._file.aclose()

    async def add(self, line: bytes) -> None:
        """Write down a line with its end."""
        self._pieces.append(line)
        self._size += len(line)
        if self._size > _PIECE:
            await self._flush()

    async def _flush(self) -> None:
        pieces, self._pieces, self._size = b"".join(self._pieces), [], 0
        await self._file.write(pieces)

    async def read(self) -> AsyncIterator[bytes]:
        """Yield the lines without their ends."""
        await self._flush()
        await self._file.seek(0)
        rest = b""
        while piece := await self._file.read(_PIECE):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line


class _Past:
    """Knows what the state of a session was before each change, as far as its events tell."""

    def __init__(self) -> None:
        self._state: dict[str, Any] = {}

    def take(self, seq: int, delta: Mapping[str, Any]) -> BeforeRecord | None:
        """Take the changes of an event; return what they changed."""
        own = {name: each for name, each in delta.items() if not name.startswith(_PREFIXES)}
        if not own:
            return None
        was = {name: self._state.get(name, DELETE) for name in own}
        self._state |= own
        return BeforeRecord(float(seq), mark(was))


def _ids(key: SessionKey) -> tuple[str, str, str]:
    return key.app_name, key.user_id, key.session_id


def _check_value(name: str, value: Any, limit: int) -> None:
    if not name or len(name.encode()) > LONGEST_NAME - len(USER_PREFIX):
        raise StateValueError((name,), f"a name takes from 1 to {LONGEST_NAME:,} bytes")
    encode_value(name, value, limit)


def _is_same(value: Any, other: Any) -> bool:
    return encode_value("", value, sys.maxsize) == encode_value("", other, sys.maxsize)
