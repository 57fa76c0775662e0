"""How sessions are read and written down.

Each session is as it was at one moment, its head: its state, what that was before, the turn that
has not ended, and how far its log went. What was in the log then never changes, so the events are
read after that, page by page. If the limit trims some of them before they are read, the session is
cut, which the file and the report say.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from anyio import SpooledTemporaryFile
from msgspec import Struct

from agentsession._pace import Pace
from agentsession._service.log import decode_events
from agentsession.backend import (
    NO_EVENTS,
    Before,
    Expected,
    Snapshot,
    UnendedTurn,
)
from agentsession.clock import from_microseconds
from agentsession.errors import (
    CodecError,
    SessionNotFoundError,
)
from agentsession.events import UNREADABLE
from agentsession.sessions import SessionKey, UserKey
from agentsession.transfer._log import pages_of
from agentsession.transfer._records import (
    HEADER,
    AppRecord,
    BeforeRecord,
    CompleteRecord,
    CutRecord,
    EndRecord,
    SessionRecord,
    UserRecord,
    bytes_line,
    event_line,
    line_of,
    state_to_record,
)
from agentsession.transfer._reports import ExportReport, Problem, named_values

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping

    from agentsession.backend import Backend, EventSlice
    from agentsession.service import SessionService
    from agentsession.transfer._reports import Subject

__all__ = ["Exporter", "Scope"]

Scope: TypeAlias = str | UserKey | SessionKey
"""What to export: all of an application, of a user, or one session."""

_PAGE: Final = 1000
_LIST_PAGE: Final = 100
_PLACES: Final = 500
# So often a session is looked at anew that is written to while its head is read.
_TRIES: Final = 100


# So much of what state was is in memory, in bytes; the rest waits on disk.
_SPOOLED: Final = 4 << 20


class _CutError(Exception):
    """Not all of a session can be read any more."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Head(Struct):
    """A session at one moment: but for its events, and for what its state was."""

    snapshot: Snapshot
    taken_to: int
    turn: UnendedTurn | None


class Exporter:
    """Writes down what is in a scope.

    Args:
        service: Whose sessions.
        report: Counts.
        done: What is written down already, and is left out; ``None`` if not even the first line is.
        on_progress: Is told now and then how far it is.
    """

    def __init__(
        self,
        service: SessionService,
        report: ExportReport,
        *,
        done: Collection[object] | None = None,
        on_progress: Callable[[ExportReport], None] | None = None,
    ) -> None:
        self._service = service
        self._backend: Backend = service.backend
        self._report = report
        self._done = () if done is None else done
        self._begins = done is None
        self._on_progress = on_progress
        self._unlisted: set[SessionKey] = set()
        self._pace = Pace()

    async def lines(self, scope: Scope) -> AsyncGenerator[bytes]:
        """Yield pieces of the file, each of whole lines.

        Raises:
            SessionNotFoundError: The scope is a session that does not exist.
        """
        await self._service.__aenter__()  # Which refuses one that is closed, or of another loop.
        if self._begins:
            yield HEADER
        match scope:
            case SessionKey():
                found = False
                async with aclosing(self._session(scope)) as pieces:
                    async for piece in pieces:
                        found = True
                        yield piece
                if not found and scope not in self._done and scope not in self._unlisted:
                    raise SessionNotFoundError(scope)
            case UserKey():
                async with aclosing(self._user(scope)) as pieces:
                    async for piece in pieces:
                        yield piece
            case _:
                async with aclosing(self._app(scope)) as pieces:
                    async for piece in pieces:
                        yield piece
        yield line_of(CompleteRecord())

    def _told(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._report)

    async def _app(self, app_name: str) -> AsyncGenerator[bytes]:
        page = await self._service.list_users(app_name, limit=_PAGE)
        state = await self._backend.get_app_state(app_name)
        if state and app_name not in self._done:
            self._report.apps += 1
            yield line_of(AppRecord(app_name, await self._state(app_name, state)))
        while True:
            for user in page.users:
                async with aclosing(self._user(user)) as pieces:
                    async for piece in pieces:
                        yield piece
            if page.next_cursor is None:
                return
            page = await self._service.list_users(app_name, limit=_PAGE, cursor=page.next_cursor)

    async def _user(self, user: UserKey) -> AsyncGenerator[bytes]:
        state = await self._backend.get_user_state(user)
        if state and user not in self._done:
            self._report.users += 1
            yield line_of(UserRecord(user.app_name, user.user_id, await self._state(user, state)))
        for session_id in await self._session_ids(user):
            key = SessionKey(user.app_name, user.user_id, session_id)
            async with aclosing(self._session(key)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _state(self, subject: Subject, values: Mapping[str, bytes | None]) -> dict[str, Any]:
        told, unreadable = await state_to_record(values, self._pace)
        if unreadable:
            what = f"state that cannot be read: {named_values(unreadable)}"
            self._report.note_unreadable(what, subject)
        return told

    async def _session_ids(self, user: UserKey) -> list[str]:
        """Return the ids of a user's sessions, those first that were written to longest ago.

        A session that becomes active while the list is read moves to its front, maybe before it was
        seen. So the front is read again, until it is one page and has nothing new.
        """
        newest_first: list[str] = []
        seen: set[str] = set()
        moment = -1
        while True:
            found, newest = await self._active_since(user, moment)
            moved = [session_id for session_id in found if session_id not in seen]
            if not moved and len(found) < _LIST_PAGE:
                return newest_first[::-1]
            seen.update(moved)
            newest_first, moment = moved + newest_first, newest

    async def _active_since(self, user: UserKey, moment: int) -> tuple[list[str], int]:
        """Return which sessions were written to after a moment, and when the newest of them was."""
        found: list[str] = []
        newest, before = moment, None
        while True:
            page = await self._backend.list_sessions(user, _LIST_PAGE, before)
            for each in page.unreadable:
                self._note_unlisted(each.key, each.reason)
            for snapshot in page.sessions:
                if snapshot.updated <= moment:
                    return found, newest
                newest = max(newest, snapshot.updated)
                found.append(snapshot.session_id)
            if page.next is None:
                return found, newest
            before = page.next

    def _note_unlisted(self, key: SessionKey, reason: str) -> None:
        if key not in self._unlisted:
            self._unlisted.add(key)
            self._report.note(Problem(f"left out: {reason}", key))

    # -- a session

    async def _session(self, key: SessionKey) -> AsyncGenerator[bytes]:
        """Yield a session's lines; none if it is not there."""
        if key in self._done:
            self._report.skipped += 1
            return
        async with SpooledTemporaryFile[bytes](max_size=_SPOOLED, mode="w+b") as spool:
            try:
                head = await self._head(key, spool)
            except CodecError as exc:
                self._note_unlisted(key, exc.reason)
                return
            if head is None:
                return
            yield line_of(await self._session_record(key, head))
            try:
                async with aclosing(self._events(key, head.snapshot)) as pieces:
                    async for piece in pieces:
                        yield piece
            except _CutError as exc:
                self._report.note(Problem(f"cut: {exc.reason}", key))
                yield line_of(CutRecord(exc.reason))
                return
            await spool.seek(0)
            while piece := await spool.read(_SPOOLED):
                yield piece
        yield line_of(EndRecord(head.turn))
        self._report.sessions += 1
        self._told()

    async def _head(self, key: SessionKey, spool: SpooledTemporaryFile[bytes]) -> _Head | None:
        """Read a session's head, and write down what its state was; ``None`` if it is not there."""
        for _ in range(_TRIES):
            snapshot = await self._backend.get(key, NO_EVENTS)
            if snapshot is None:
                return None
            await spool.seek(0)
            await spool.truncate()
            try:
                head = await self._head_of(key, snapshot, spool)
            except SessionNotFoundError:
                continue  # Deleted, and perhaps made anew, a moment ago.
            if head is not None:
                return head
        msg = f"it was written to each time while it was read, {_TRIES} times; try again"
        raise CodecError(key, msg)

    async def _head_of(
        self, key: SessionKey, snapshot: Snapshot, spool: SpooledTemporaryFile[bytes]
    ) -> _Head | None:
        """Read what else is in the head; ``None`` if the session was written to meanwhile."""
        expected = Expected(snapshot.incarnation)
        taken_to = await self._taken_to(key, snapshot)
        after = 0.0
        while True:
            past = await self._backend.read_past(key, after=after, limit=_PLACES, expected=expected)
            if past.revision != snapshot.revision:
                return None
            await spool.write(await self._before_lines(key, snapshot, past.earlier))
            if not past.more:
                return _Head(snapshot, taken_to, past.turn)
            after = past.earlier[-1].at

    async def _taken_to(self, key: SessionKey, snapshot: Snapshot) -> int:
        """Tell up to where a log was taken back by rewinds to what is trimmed."""
        trimmed = snapshot.oldest_seq - 1
        if not trimmed or trimmed == snapshot.last_seq:
            return 0
        first = await self._backend.read(
            key,
            after_seq=0,
            before_seq=None,
            limit=1,
            newest_first=False,
            expected=Expected(snapshot.incarnation),
        )
        first_seen = min([*first.seqs, snapshot.last_seq + 1])
        return first_seen - 1 if first_seen > snapshot.oldest_seq else 0

    async def _session_record(self, key: SessionKey, head: _Head) -> SessionRecord:
        snapshot = head.snapshot
        after_seq = snapshot.oldest_seq - 1
        # If it is later, the mark that made it so is in the log, and does it again.
        is_gone = snapshot.first_seq <= max(after_seq, head.taken_to) + 1
        return SessionRecord(
            app_name=key.app_name,
            user_id=key.user_id,
            session_id=key.session_id,
            created_at=from_microseconds(snapshot.created),
            last_seq=snapshot.last_seq,
            state=await self._state(key, snapshot.session),
            after_seq=after_seq,
            first_seq=snapshot.first_seq if is_gone else 1,
            taken_to=head.taken_to,
        )

    async def _before_lines(
        self, key: SessionKey, snapshot: Snapshot, earlier: Iterable[Before]
    ) -> bytes:
        # What leads to before the oldest event of a log that was trimmed is forgotten late.
        first = snapshot.oldest_seq if snapshot.oldest_seq > 1 else 0
        return b"".join(
            [
                line_of(BeforeRecord(float(before.at), await self._state(key, before.was)))
                for before in earlier
                if before.at > first
            ]
        )

    # -- its events

    async def _events(self, key: SessionKey, snapshot: Snapshot) -> AsyncGenerator[bytes]:
        """Yield the lines of a session's events, up to the one that was its newest.

        Raises:
            _CutError: Some are not there any more.
        """
        seq = snapshot.oldest_seq - 1
        pages = pages_of(self._service, key, snapshot.incarnation, seq, snapshot.last_seq)
        try:
            async with aclosing(pages):
                async for page in pages:
                    if page.seqs[0] != seq + 1:
                        break
                    yield await self._event_lines(key, page)
                    seq = page.seqs[-1]
                    self._report.events += len(page.seqs)
                    self._told()
        except SessionNotFoundError as exc:
            msg = "it was deleted while it was exported"
            raise _CutError(msg) from exc
        if seq < snapshot.last_seq:
            msg = f"its event {seq + 1:,} was trimmed before it was exported; export it again"
            raise _CutError(msg)

    async def _event_lines(self, key: SessionKey, page: EventSlice) -> bytes:
        """Write the events of a page as they are stored, and name those that cannot be read."""
        lines: list[bytes] = []
        events = await decode_events(page.events, page.seqs, self._pace)
        for seq, payload, event in zip(page.seqs, page.events, events, strict=True):
            if event.error is not None and event.error.type == UNREADABLE:
                self._report.note_unreadable(f"event {seq:,}: {event.error.message}", key)
                lines.append(bytes_line(seq, payload, event.error.message))
            elif b"\n" in payload:
                lines.append(bytes_line(seq, payload, ""))
            else:
                lines.append(event_line(seq, payload))
        return b"".join(lines)
