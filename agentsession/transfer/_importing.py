"""How an export is read, line by line, and what becomes of a line that cannot be imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from agentsession._pace import Pace
from agentsession._wording import described
from agentsession.errors import (
    CodecError,
    LeaseLostError,
    RewindError,
    SessionBusyError,
    SessionNotFoundError,
)
from agentsession.sessions import SessionKey
from agentsession.transfer._records import (
    AppRecord,
    CompleteRecord,
    CutRecord,
    EndRecord,
    SessionRecord,
    UserRecord,
    check_header,
    read_line,
    state_from_record,
)
from agentsession.transfer._reports import (
    FormatError,
    ImportReport,
    LineError,
    Problem,
    SessionConflictError,
    named_values,
)
from agentsession.transfer._session import Brought, SessionImport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentsession.backend import Backend
    from agentsession.service import SessionService
    from agentsession.state import ScopeChanges
    from agentsession.transfer._records import BeforeRecord, BytesRecord, EventRecord, Record
    from agentsession.transfer._reports import Subject

__all__ = ["Existing", "Importer", "check_existing"]

Existing: TypeAlias = Literal["continue", "skip", "replace", "refuse"]
"""What to do with a session that is there already.

``"continue"``: go on with it if it is the beginning of the one to import, and leave it if it is all
of it, or more; anything else is a conflict. ``"skip"``: leave it. ``"replace"``: delete it first.
``"refuse"``: that is a conflict."""

# What is wrong with what is imported, or with what is there; anything else is wrong with the store.
_OF_THE_LINE: Final = (
    ValueError,
    SessionConflictError,
    CodecError,
    RewindError,
    SessionNotFoundError,
    SessionBusyError,
    LeaseLostError,
)
# So many names of state are written in one call, of up to so many bytes.
_NAMES: Final = 1000
_BYTES: Final = 8 << 20


def check_existing(existing: object) -> None:
    """Refuse what is no :data:`Existing`.

    Raises:
        ValueError: It is none.
    """
    if existing not in get_args(Existing):
        msg = f"existing must be one of {', '.join(get_args(Existing))}, not {existing!r:.80}"
        raise ValueError(msg)


class Importer:
    """Writes what the lines of an export say.

    Args:
        service: Takes it.
        report: Counts.
        to_app: The application that takes all of it; ``None`` for those of the export.
        to_user: The user who takes all of it; ``None`` for those of the export.
        existing: What to do with sessions that are there.
        keep_going: Whether to go on after a line that cannot be imported.
        on_progress: Is told after each session how far it is.
    """

    def __init__(
        self,
        service: SessionService,
        report: ImportReport,
        *,
        to_app: str | None = None,
        to_user: str | None = None,
        existing: Existing = "continue",
        keep_going: bool = False,
        on_progress: Callable[[ImportReport], None] | None = None,
    ) -> None:
        check_existing(existing)
        self._service = service
        self._backend: Backend = service.backend
        self._report = report
        self._to_app = to_app
        self._to_user = to_user
        self._existing: Existing = existing
        self._keep_going = keep_going
        self._on_progress = on_progress
        merges = to_app is not None or to_user is not None
        self._brought = Brought(matters=merges and existing in ("replace", "skip"))
        self._session: SessionImport | None = None
        # Why the lines up to the next session are left out.
        self._leaves: Literal["", "skipped", "failed"] = ""
        # What was made here of sessions that were cut: if all of one follows, it takes that place.
        self._cut: set[SessionKey] = set()
        self._has_begun = False
        self._is_whole = False
        self._pace = Pace()

    async def take_line(self, line: bytes) -> None:
        """Take the next line; an empty one is counted, so that those after it have their numbers.

        Raises:
            FormatError: The first line is not that of an export.
            LineError: As for :meth:`take`; or it is no line of ours, unless to keep going.
            SessionConflictError: As for :meth:`take`.
        """
        self._report.lines += 1
        if not line or line.isspace():
            return
        if not self._has_begun:
            self._check_header(line)
            self._has_begun = True
            return
        try:
            record = read_line(line)
        except ValueError as exc:
            self._failed(exc)
        else:
            await self.take(record)

    def _check_header(self, line: bytes) -> None:
        try:
            check_header(line)
        except ValueError as exc:
            raise FormatError(str(exc)) from exc

    async def take(self, record: Record) -> None:
        """Take what the next line says.

        Raises:
            LineError: It cannot be imported, unless to keep going.
            SessionConflictError: Another session is there, unless to keep going.
        """
        if self._pace.due():
            await self._pace.rest()
        try:
            await self._take(record)
        except LineError:
            raise
        except _OF_THE_LINE as exc:
            self._failed(exc)

    async def end(self) -> None:
        """Look whether that was all.

        Raises:
            FormatError: There was no line at all.
            LineError: It was not, unless to keep going.
        """
        if not (self._has_begun or self._is_whole):
            msg = "this is no export: it is empty"
            raise FormatError(msg)
        if not self._is_whole:
            msg = "the export ends before it is complete; it was stopped, or is being written still"
            self._failed(ValueError(msg))
        self._told()

    def _told(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._report)

    def _failed(self, exc: Exception) -> None:
        """Raise what is wrong with a line, or note it and leave out the rest of its session."""
        key = self._session.key if self._session is not None else None
        reason = str(exc)
        if key is not None:  # Which most errors of the library name as well.
            reason = reason.removeprefix(f"{described(key)}: ")
        if not self._keep_going:
            if isinstance(exc, SessionConflictError):
                exc.add_note(f"This was line {self._report.lines:,}.")
                raise exc
            raise LineError(self._report.lines, str(Problem(reason, key))) from exc
        self._report.note(Problem(reason, key, self._report.lines))
        self._session, self._leaves = None, "failed"

    def _check_ended(self, reason: str) -> None:
        if self._session is not None:
            self._failed(ValueError(reason))
            self._session = None

    async def _take(self, record: Record) -> None:
        if self._is_whole:
            msg = "nothing was to come after the line before"
            raise ValueError(msg)
        if isinstance(record, AppRecord | UserRecord | SessionRecord):
            self._check_ended("its lines end before the session does")
            self._leaves = ""
            await self._take_first(record)
        elif isinstance(record, CompleteRecord):
            self._check_ended("its lines end before the session does")
            self._is_whole = True
        elif self._session is not None:
            await self._take_next(self._session, record)
        elif self._leaves == "failed":
            self._report.skipped_lines += 1
        elif not self._leaves:
            msg = "this line belongs to a session, and none has begun"
            raise ValueError(msg)

    async def _take_first(self, record: AppRecord | UserRecord | SessionRecord) -> None:
        match record:
            case AppRecord():
                await self._take_app(record)
            case UserRecord():
                await self._take_user(record)
            case SessionRecord():
                await self._take_session(record)

    async def _take_session(self, record: SessionRecord) -> None:
        key = self._target(record.key)
        session = SessionImport(self._service, key, record, self._report)
        self._session = session  # An error names it.
        self._brought.check(key)
        replaces = self._existing == "replace" or key in self._cut
        self._cut.discard(key)
        if not await session.begin(go_on=self._existing == "continue", replace=replaces):
            if self._existing == "refuse":
                raise SessionConflictError(key, "no session was to be there")
            self._brought.add(key)
            self._session, self._leaves = None, "skipped"
            self._report.found += 1

    async def _take_next(
        self,
        session: SessionImport,
        record: EventRecord | BytesRecord | BeforeRecord | EndRecord | CutRecord,
    ) -> None:
        match record:
            case EndRecord():
                await session.end(record.turn)
                self._brought.add(session.key)
                self._session = None
                self._told()
            case CutRecord():
                if session.is_new:
                    self._cut.add(session.key)
                msg = f"not all of it was exported: {record.reason}"
                raise ValueError(msg)
            case _:
                await session.take(record)

    def _target(self, key: SessionKey) -> SessionKey:
        return SessionKey(
            key.app_name if self._to_app is None else self._to_app,
            key.user_id if self._to_user is None else self._to_user,
            key.session_id,
        )

    # -- state that sessions share

    async def _take_app(self, record: AppRecord) -> None:
        app_name = self._target(SessionKey(record.app_name, "-")).app_name
        found = await self._backend.get_app_state(app_name)
        for changes in await self._missing(app_name, record.state, found):
            await self._backend.update_app_state(app_name, changes)
        self._report.apps += 1

    async def _take_user(self, record: UserRecord) -> None:
        user = self._target(SessionKey(record.app_name, record.user_id)).user
        found = await self._backend.get_user_state(user)
        for changes in await self._missing(user, record.state, found):
            await self._backend.update_user_state(user, changes)
        self._report.users += 1

    async def _missing(
        self, subject: Subject, told: Mapping[str, object], found: Mapping[str, bytes]
    ) -> list[ScopeChanges]:
        """Return what of a scope is not there yet, in pieces; name what is there and differs."""
        state = await state_from_record(told, self._service.max_value_size, self._pace)
        others = [name for name in state if found.get(name, state[name]) != state[name]]
        if others:
            self._report.kept += len(others)
            what = f"state that is there already is left as it is: {named_values(others)}"
            self._report.note(Problem(what, subject, self._report.lines))
        pieces: list[ScopeChanges] = [{}]
        size = 0
        for name in state.keys() - found.keys():
            if len(pieces[-1]) == _NAMES or size > _BYTES:
                pieces.append({})
                size = 0
            pieces[-1][name] = state[name]
            size += len(name) + len(state[name] or b"")
        return [piece for piece in pieces if piece]
