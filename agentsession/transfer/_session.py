"""How one session is written into a store.

It is made with its state, then its events are appended as they are, and what state was before is
noted last: neither an append nor a rewind changes state here. So a session that an earlier import
has left unfinished is the beginning of the one to import, and is gone on with; what is there is
compared, event by event.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from agentsession import codec
from agentsession._pace import Pace
from agentsession.backend import NO_EVENTS, Before, Entry, Expected, UnendedTurn
from agentsession.clock import from_microseconds, to_microseconds
from agentsession.errors import (
    EventTooLargeError,
    RevisionConflictError,
    SessionExistsError,
)
from agentsession.events import UNREADABLE, Event, new_id
from agentsession.state import Changes
from agentsession.transfer._log import pages_of
from agentsession.transfer._records import (
    BeforeRecord,
    BytesRecord,
    EventRecord,
    before_from_record,
    check_own_names,
    state_from_record,
)
from agentsession.transfer._reports import SessionConflictError
from agentsession.transfer._turns import read_event, tell_turn

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from agentsession.backend import Backend, Receipt, Snapshot
    from agentsession.service import SessionService
    from agentsession.sessions import SessionKey
    from agentsession.transfer._records import SessionRecord
    from agentsession.transfer._reports import ImportReport

__all__ = ["Brought", "SessionImport"]

# So much is sent in one call.
_EVENTS: Final = 500
# What a name of state counts for, besides its value.
_NAME: Final = 1000
_BYTES: Final = 1 << 20


class Brought:
    """Knows which sessions an import has brought, if that matters.

    Sessions of several users who become one may have one id. Of these the later one must not
    replace the earlier one, and must not be taken for it.

    Args:
        matters: Whether that could happen.
    """

    def __init__(self, *, matters: bool) -> None:
        self._matters = matters
        self._keys: set[SessionKey] = set()

    def check(self, key: SessionKey) -> None:
        """Refuse a session whose place another one has taken.

        Raises:
            SessionConflictError: This import has brought it.
        """
        if key in self._keys:
            raise SessionConflictError(key, "this import has brought another one with this id")

    def add(self, key: SessionKey) -> None:
        """Remember a session that is whole, or was there."""
        if self._matters:
            self._keys.add(key)


class SessionImport:
    """Writes one session.

    Args:
        service: Whose sessions.
        key: The session.
        record: How it begins.
        report: Counts.
    """

    def __init__(
        self, service: SessionService, key: SessionKey, record: SessionRecord, report: ImportReport
    ) -> None:
        self.key = key
        self._service = service
        self._backend: Backend = service.backend
        self._max_event_size = service.max_event_size
        self._max_value_size = service.max_value_size
        self._record = record
        self._report = report
        self._incarnation = ""
        self._revision = 0
        self._seq = record.after_seq  # of the last line
        self._stored_to = record.after_seq
        self._written = record.after_seq
        self._oldest_seq = record.after_seq + 1
        self._found: AsyncGenerator[tuple[int, bytes]] | None = None
        self._entries: list[Entry] = []
        self._earlier: list[Before] = []
        self._size = 0
        self._pace = Pace()

    @property
    def is_new(self) -> bool:
        """Whether it was made by this import."""
        return bool(self._incarnation) and self._found is None

    @property
    def _expected(self) -> Expected:
        return Expected(self._incarnation, self._revision)

    async def begin(self, *, go_on: bool, replace: bool) -> bool:
        """Make the session, or find its beginning; tell whether to go on with it.

        Args:
            go_on: Whether to go on with one that is there.
            replace: Whether to delete one that is there.

        Raises:
            StateValueError: A name or a value of its state is none.
            SessionConflictError: One is there that is not the beginning of this one.
        """
        check_own_names(self._record.state)
        state = await state_from_record(self._record.state, self._max_value_size, self._pace)
        if replace:
            await self._backend.delete(self.key)
        try:
            made = await self._backend.create(
                self.key,
                Changes(session=state),
                token=new_id(),
                beginning=self._record.beginning,
            )
        except SessionExistsError:
            found = await self._backend.get(self.key, NO_EVENTS)
            if found is None:
                return await self.begin(go_on=go_on, replace=False)  # It was deleted just now.
            if not go_on:
                return False
            self._take(found)
            self._check_beginning(found, {name: value for name, value in state.items() if value})
            await self._check_taken_back(found)
            self._stored_to = self._written = found.last_seq
            self._found = self._read_found()
            return True
        self._take(made)
        return True

    def _take(self, snapshot: Snapshot) -> None:
        self._incarnation, self._revision = snapshot.incarnation, snapshot.revision
        self._oldest_seq = snapshot.oldest_seq

    def _check_beginning(self, found: Snapshot, state: dict[str, bytes]) -> None:
        """Refuse another session, and one that cannot be gone on with."""
        if found.created != self._record.created:
            created = from_microseconds(found.created)
            reason = f"it was created at {created}, this one at {self._record.created_at}"
            raise SessionConflictError(self.key, reason)
        if found.last_seq < self._record.after_seq:
            reason = (
                f"it ends with event {found.last_seq:,}, and this one begins after event "
                f"{self._record.after_seq:,}"
            )
            raise SessionConflictError(self.key, reason)
        if found.last_seq < self._record.last_seq and found.session != state:
            reason = "it is an older copy, whose state is another"
            raise SessionConflictError(self.key, reason)

    async def _check_taken_back(self, found: Snapshot) -> None:
        """Refuse a copy from before the rewind that has taken its beginning back.

        What went back to an event that was trimmed since cannot be done again here.
        """
        if found.last_seq >= self._record.taken_to:
            return
        newest = await self._backend.read(
            self.key,
            after_seq=found.last_seq,
            before_seq=None,
            limit=1,
            newest_first=False,
            expected=Expected(self._incarnation),
        )
        if newest.rewound_at != self._record.taken_to:
            mark = f"event {self._record.taken_to:,}"
            reason = f"it is an older copy, and what it has was taken back since, by {mark}"
            raise SessionConflictError(self.key, reason)

    async def _read_found(self) -> AsyncGenerator[tuple[int, bytes]]:
        """Yield the events that are there already."""
        pages = pages_of(self._service, self.key, self._incarnation, self._record.after_seq)
        async with aclosing(pages):
            async for page in pages:
                for each in zip(page.seqs, page.events, strict=True):
                    yield each

    async def take(self, record: EventRecord | BytesRecord | BeforeRecord) -> None:
        """Take a line of the session.

        Raises:
            ValueError: It cannot be the next one, or holds what cannot be stored.
            SessionConflictError: Another event is in its place.
        """
        if isinstance(record, BeforeRecord):
            await self._take_before(record)
            return
        if record.seq != self._seq + 1:
            msg = f"event {self._seq + 1:,} is missing: this is event {record.seq:,}"
            raise ValueError(msg)
        if record.seq > self._record.last_seq:
            msg = f"the log was to end with event {self._record.last_seq:,}"
            raise ValueError(msg)
        self._seq = record.seq
        entry = self._entry(record)
        if record.seq <= self._stored_to:
            await self._compare(record.seq, entry.payload)
        else:
            await self._add(entry)

    def _entry(self, record: EventRecord | BytesRecord) -> Entry:
        """Make what is appended; a mark that goes back to what is trimmed takes nothing back."""
        payload, event = _decoded(record)
        if event.error is not None and event.error.type == UNREADABLE:
            what = f"event {record.seq:,}: {event.error.message}"
            self._report.note_unreadable(what, self.key, self._report.lines)
        if len(payload) > self._max_event_size:
            raise EventTooLargeError(self.key, event.id, len(payload), self._max_event_size)
        rewind = event.rewind if record.seq > self._record.taken_to else None
        time = max(1, to_microseconds(event.timestamp))
        return Entry(event.id, time, payload, rewind=rewind, is_copy=True)

    async def _compare(self, seq: int, payload: bytes) -> None:
        """Refuse to go on if another event is there already."""
        if seq >= self._oldest_seq and self._found is not None:
            found = await anext(self._found, None)
            if found != (seq, payload):
                raise SessionConflictError(self.key, f"its event {seq:,} is another one")
        self._report.found_events += 1

    async def _add(self, entry: Entry) -> None:
        if entry.rewind is not None:
            await self._flush()  # A mark comes first in its call.
        self._entries.append(entry)
        self._size += len(entry.payload)
        if len(self._entries) == _EVENTS or self._size > _BYTES:
            await self._flush()

    async def _flush(self) -> None:
        """Append what has gathered.

        Raises:
            SessionConflictError: Somebody else has written to the session meanwhile.
            ValueError: An event has the id of an earlier one.
        """
        if not self._entries:
            return
        entries, self._entries, self._size = self._entries, [], 0
        try:
            receipt = await self._backend.append(self.key, entries, expected=self._expected)
        except RevisionConflictError as exc:
            reason = "somebody else writes to it while it is imported"
            raise SessionConflictError(self.key, reason) from exc
        if receipt.repeats:
            self._check_repeats(entries, receipt)
        self._written += len(entries)
        self._report.events += len(entries)
        self._revision = receipt.revision
        if receipt.oldest_seq > self._oldest_seq:
            self._report.trimmed += receipt.oldest_seq - self._oldest_seq
            self._oldest_seq = receipt.oldest_seq

    def _check_repeats(self, entries: Sequence[Entry], receipt: Receipt) -> None:
        """Refuse events that were there, unless the very call has stored them.

        A store repeats a call whose answer was lost, and is told what the first one did.

        Raises:
            ValueError: An event has the id of an earlier one.
        """
        own = range(self._written + 1, self._written + 1 + len(entries))
        is_same = all(data in (b"", entries[n].payload) for n, data in receipt.repeats.items())
        if is_same and [*receipt.seqs] == [*own] and receipt.revision == self._revision + 1:
            return
        index = min(receipt.repeats)
        msg = f"the id of event {entries[index].event_id!r:.80} is that of an earlier one"
        raise ValueError(msg)

    async def _take_before(self, record: BeforeRecord) -> None:
        check_own_names(record.was)
        before = await before_from_record(record, self._max_value_size, self._pace)
        if self._earlier and before.at <= self._earlier[-1].at:
            msg = f"what was before {before.at} comes after what was before {self._earlier[-1].at}"
            raise ValueError(msg)
        await self._flush()
        self._earlier.append(before)
        self._size += sum(_NAME + len(data or b"") for data in before.was.values())
        if self._size > _BYTES:
            await self._note()

    async def _note(self) -> None:
        """Note what state was, if what is there is no more than what is imported."""
        earlier, self._earlier, self._size = self._earlier, [], 0
        if earlier and self._stored_to <= self._record.last_seq:
            await self._backend.note_past(self.key, earlier, expected=Expected(self._incarnation))

    async def end(self, turn: UnendedTurn | None) -> None:
        """Write what is left, and count the session.

        Raises:
            ValueError: Events are missing.
        """
        await self._flush()
        if self._seq != self._record.last_seq:
            msg = f"events {self._seq + 1:,} to {self._record.last_seq:,} are missing"
            raise ValueError(msg)
        await self._note()
        if turn is not None and self._stored_to <= self._record.last_seq:
            await tell_turn(self._backend, self.key, turn, self._incarnation)
        if self._found is not None:
            await self._found.aclose()
        if self._found is not None and self._stored_to >= self._record.last_seq:
            self._report.found += 1
        else:
            self._report.sessions += 1


def _decoded(record: EventRecord | BytesRecord) -> tuple[bytes, Event]:
    """Return an event, and how it is stored: as it was, unless that is not the stored format.

    Raises:
        ValueError: It is no event.
    """
    if isinstance(record, BytesRecord):
        payload = record.payload
        return payload, read_event(payload, record.seq)
    payload = bytes(record.event)
    try:
        event = codec.decode_event(payload)
    except ValueError:
        return _reencoded(payload)
    if event.seq or not _begins_as_stored(payload):
        return _reencoded(payload)
    return payload, event


def _begins_as_stored(payload: bytes) -> bool:
    """Tell whether version, id, time and author come first, which the store looks at."""
    time = payload.find(b'","timestamp":"') + 15
    return payload.startswith(b'","author":"', payload.find(b'"', time))


def _reencoded(payload: bytes) -> tuple[bytes, Event]:
    """Store an event that somebody has written by hand."""
    try:
        event = Event.from_dict(msgspec.json.decode(payload))
    except TypeError as exc:
        raise ValueError(str(exc)) from exc
    event = msgspec.structs.replace(event, seq=0)
    if event.partial:
        msg = f"event {event.id!r:.80} is partial, a chunk of a stream, which is never stored"
        raise ValueError(msg)
    return codec.prepare_event(event)
