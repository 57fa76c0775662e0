"""How what comes in is encoded for the backend, and what an append does to a session at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from agentsession._pace import Pace
from agentsession._service.arguments import check_state, check_write
from agentsession._service.assembly import (
    apply_appended,
    apply_fresh,
    apply_updated,
    assemble,
    decode_changes,
    drop_before,
    fold,
    stands,
    temporary,
)
from agentsession._wording import brief, described
from agentsession.backend import Entry, Window
from agentsession.clock import to_microseconds
from agentsession.codec import prepare_event
from agentsession.errors import BackendError, CodecError, EventTooLargeError
from agentsession.state import (
    LARGE,
    Changes,
    ScopeChanges,
    add_change,
    add_scope_change,
    split,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentsession.backend import Backend, Receipt, Snapshot
    from agentsession.events import Event
    from agentsession.sessions import Session, SessionKey

__all__ = ["Writer"]


class Writer:
    """Encodes what a service writes.

    Args:
        backend: Keeps the sessions.
        max_event_size: The largest encoded event, in bytes.
        max_value_size: The largest encoded state value, in bytes.
        check_usable: Refuses to go on, if the service was closed meanwhile.
    """

    def __init__(
        self,
        backend: Backend,
        max_event_size: int,
        max_value_size: int,
        check_usable: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._max_event_size = max_event_size
        self._max_value_size = max_value_size
        self._check_usable = check_usable

    async def changes(self, state: Mapping[str, Any]) -> Changes:
        """Check and encode state that comes in by itself."""
        pace, limit, changes = Pace(), self._max_value_size, Changes()
        names, values = [*state], [*state.values()]  # Whatever others do to it meanwhile.
        for name, value in zip(names, values, strict=True):
            if pace.due():
                await self._rest(pace)
            add_change(changes, name, value, limit)
        written = [*changes.app.values(), *changes.user.values(), *changes.session.values()]
        check_write(written, len(names), limit, named=sum(map(len, names)))
        if pace.due():
            await self._rest(pace)
        return changes

    async def scope_changes(
        self, prefix: Literal["app:", "user:"], state: Mapping[str, Any]
    ) -> ScopeChanges:
        """Check and encode state of one scope."""
        pace, limit = Pace(), self._max_value_size
        changes: ScopeChanges = {}
        names, values = [*state], [*state.values()]
        for name, value in zip(names, values, strict=True):
            if pace.due():
                await self._rest(pace)
            add_scope_change(changes, prefix, name, value, limit)
        check_write(changes.values(), len(names), limit, named=sum(map(len, names)))
        if pace.due():
            await self._rest(pace)
        return changes

    async def prepare_each(
        self, key: SessionKey, events: Sequence[Event]
    ) -> tuple[list[tuple[Entry, Event | None]], int]:
        """Prepare events in as many steps as it takes; tell how many names of state they change.

        Each is encoded in one step, as it is at that moment.
        """
        pace, names = Pace(), 0
        pairs: list[tuple[Entry, Event | None]] = []
        for event in events:
            if pace.due():
                await self._rest(pace)
            pairs.append(self.prepare(key, event))
            names += len(event.state_delta)
        return pairs, names

    def prepare(self, key: SessionKey, event: Event) -> tuple[Entry, Event | None]:
        """Check and encode an event, and return with it the event as readers will get it.

        A large one is not returned, so as not to be in memory twice while it waits.
        """
        if event.seq:
            event = msgspec.structs.replace(event, seq=0)
        try:
            check_state(event.state_delta)
            changes = split(event.state_delta, self._max_value_size)
            payload, prepared = prepare_event(event)
        except (TypeError, ValueError) as exc:
            exc.add_note(f"This was event {brief(event.id)} for {described(key)}.")
            raise
        if len(payload) > self._max_event_size:
            raise EventTooLargeError(key, event.id, len(payload), self._max_event_size)
        # A log's times begin after 1970, as the scores of a log on Redis do.
        time = max(1, to_microseconds(prepared.timestamp))
        entry = Entry(prepared.id, time, payload, changes, prepared.rewind)
        return entry, prepared if len(payload) <= LARGE else None

    async def update(
        self,
        session: Session,
        receipt: Receipt,
        entries: Sequence[Entry],
        stored: Sequence[Event],
        given: Sequence[Event],
    ) -> None:
        """Bring a session that one holds up to date after an append to it, in one step."""
        delta: dict[str, Any] = {}
        passing: dict[str, Any] = {}
        pace = Pace()
        for index, event in enumerate(given):
            if index and pace.due():
                await pace.rest()
            # As it was stored: the caller may have changed the event since.
            delta |= decode_changes(entries[index].changes)
            if event.state_delta and stands(receipt, index, entries[index]):
                passing |= temporary(event.state_delta)
        # What was taken back, and what state is then, only the store knows.
        goes_back = entries[0].rewind is not None
        if goes_back or not apply_appended(session, receipt, entries, stored, delta):
            await self._reload(session)
        if receipt.oldest_seq:
            drop_before(session, receipt.oldest_seq)
        fold(session.state, passing)

    async def update_state(self, session: Session, receipt: Receipt, changes: Changes) -> None:
        """Bring a session that one holds up to date after a change to its state."""
        if not changes and receipt.revision == session.revision:
            return
        # What changes nothing has not made the newest revision.
        if not changes or not apply_updated(session, receipt, decode_changes(changes)):
            await self._reload(session)

    async def _reload(self, session: Session) -> None:
        """Read what a session lacks. If it is gone by now, the next write will say so."""
        # The append was stored, and an error would say that it was not: so there is no read limit,
        # and an object that cannot be brought up to date now is after the next write.
        try:
            snapshot = await self._backend.get(session.key, Window(after_seq=session.last_seq))
            if snapshot is not None and _has_lost_events(session, snapshot):
                # Some of the older ones that it was not asked for take their place.
                most = len(session.events) + snapshot.last_seq - session.last_seq
                snapshot = await self._backend.get(session.key, Window(last=max(most, 0)))
            if snapshot is not None:
                fresh = await assemble(session.key, snapshot, Pace())
                apply_fresh(session, fresh, snapshot)
        except (BackendError, CodecError):
            return

    async def _rest(self, pace: Pace) -> None:
        """Let others run, and refuse to go on if they have closed the service."""
        await pace.rest()
        self._check_usable()


def _has_lost_events(session: Session, snapshot: Snapshot) -> bool:
    """Tell whether something that a session holds was taken back."""
    return bool(session.events) and session.events[-1].seq > snapshot.kept_to
