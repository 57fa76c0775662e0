"""How turns begin and end: the lease, the message and the session, and what a dead turn left."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from agentsession._concurrently import caught, together
from agentsession._pace import Pace
from agentsession._service.assembly import apply_temporary, as_stored, assemble
from agentsession._service.leasing import Leasing, ServiceLease
from agentsession._service.log import LogReader
from agentsession.backend import Claim, Expected
from agentsession.errors import (
    LeaseLostError,
    ReadTooLargeError,
    RunNotFoundError,
    SessionExistsError,
    SessionNotFoundError,
)
from agentsession.events import Event, Outcome, ToolResult, new_id
from agentsession.history import NO_RESULT, unanswered_calls
from agentsession.leases import Lease, TurnStart
from agentsession.state import NO_CHANGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession._service.writing import Writer
    from agentsession.backend import (
        Backend,
        Entry,
        ReadLimit,
        Receipt,
        Snapshot,
        Standing,
        Then,
        UnendedTurn,
        Window,
    )
    from agentsession.sessions import SessionKey

__all__ = ["Turns", "ended_by", "named_by", "then_of"]

_PAGE: Final = 1000
_TTL: Final = 15_000


class Turns:
    """The turns of a service.

    Args:
        backend: Keeps the sessions.
        writer: Encodes what is written.
        read_limit: How much one read may return.
    """

    def __init__(self, backend: Backend, writer: Writer, read_limit: ReadLimit | None) -> None:
        self._backend = backend
        self._writer = writer
        self._read_limit = read_limit
        self._leasing = Leasing(backend, self._close)

    async def aclose(self) -> None:
        """Give back the leases that are held."""
        await self._leasing.aclose()

    def lease(self, key: SessionKey, claim: Claim, *, wait: float, incarnation: str) -> Lease:
        """Make a lease."""
        return ServiceLease(self._leasing, key, claim, wait=wait, incarnation=incarnation)

    async def begin(self, lease: ServiceLease, message: Event, bounds: Window) -> TurnStart:
        """Take a lease, store the message, and load the session, in one round trip if that works.

        The session is made if it is not there.
        """
        key = lease.key
        message = named_by(lease, message)
        entry, prepared = self._writer.prepare(key, message)
        lease.start()
        try:
            receipt, snapshot = await self._begin(lease, entry, bounds)
            session = await assemble(key, snapshot, Pace())
        except BaseException:
            lease.give_up()
            raise
        stored = as_stored(receipt, 0, entry, prepared)
        apply_temporary(session, message.state_delta)
        return TurnStart(session, stored, bool(receipt.repeats))

    async def _begin(
        self, lease: ServiceLease, entry: Entry, bounds: Window
    ) -> tuple[Receipt, Snapshot]:
        standing, receipt, snapshot = await self._all_at_once(lease, entry, bounds)
        while standing is None:
            with suppress(SessionExistsError):
                await self._backend.create(lease.key, NO_CHANGES, token=new_id())
            standing, receipt, snapshot = await self._all_at_once(lease, entry, bounds)
        await lease.settle(standing, joins=True)
        if receipt is None:
            receipt, snapshot = await self._store(lease, entry, bounds)
        if snapshot is None or not _has(snapshot, receipt):
            snapshot = await self._load(lease.key, bounds)
        return receipt, snapshot

    async def _all_at_once(
        self, lease: ServiceLease, entry: Entry, bounds: Window
    ) -> tuple[Standing | None, Receipt | None, Snapshot | None]:
        """Ask for the lease, append with it, and read; the owner is known before it has the lease.

        If the lease is not to be had, nothing is stored.

        Returns:
            Where the claim stands, or ``None`` if there is no such session; what the append did, if
            it was not too early; and the session, if it could be read.
        """
        asked, stored, read = await together(
            caught(lease.ask(), SessionNotFoundError),
            caught(self._append(lease, entry), LeaseLostError, SessionNotFoundError),
            caught(self._backend.get(lease.key, bounds), ReadTooLargeError),
        )
        if isinstance(asked, SessionNotFoundError):
            if asked.replaced:
                raise asked
            return None, None, None
        if isinstance(stored, Exception):
            return asked, None, None
        return asked, stored, None if isinstance(read, Exception) else read

    async def _store(
        self, lease: ServiceLease, entry: Entry, bounds: Window
    ) -> tuple[Receipt, Snapshot | None]:
        """Append with a lease that is held, and read, in one round trip."""
        stored, read = await together(
            self._append(lease, entry),
            caught(self._backend.get(lease.key, bounds), ReadTooLargeError),
        )
        return stored, None if isinstance(read, Exception) else read

    async def _append(self, lease: ServiceLease, entry: Entry) -> Receipt:
        return await self._backend.append(lease.key, (entry,), expected=lease.expected)

    async def _load(self, key: SessionKey, bounds: Window) -> Snapshot:
        """Load a session with its newest events, half as many until one read returns them.

        What is returned is of one moment, since it is what one read returned. A search would find
        all that fit, but each of its reads costs the server as much as this whole load.
        """
        while True:
            try:
                snapshot = await self._backend.get(key, bounds)
            except ReadTooLargeError as exc:
                least = 1 if self._read_limit is None else self._read_limit.harmless
                most = max(exc.events // 2, least)
                bounds = msgspec.structs.replace(bounds, last=most)
            else:
                if snapshot is None:
                    raise SessionNotFoundError(key)
                return snapshot

    async def close(self, key: SessionKey, incarnation: str) -> Event | None:
        """Close the turn whose lease ran out, if there is one."""
        owner, run_id = self._backend.new_owner(), new_id()
        claim = Claim(owner=owner, run_id=run_id, ttl=_TTL, when_busy="reject")
        lease = ServiceLease(self._leasing, key, claim, wait=0, incarnation=incarnation)
        async with lease:
            return lease.closed

    async def _close(self, lease: ServiceLease, unended: UnendedTurn) -> Event | None:
        """Store the end of a turn that was left, with results for its open calls."""
        reader = LogReader(
            self._backend,
            lease.key,
            lambda event: event.invocation_id == unended.run_id,
            self._read_limit,
            Expected(lease.incarnation),
        )
        events: list[Event] = []
        after_seq = unended.after_seq
        while True:
            page = await reader.page(after_seq=after_seq, limit=_PAGE)
            events += page
            if len(page) < _PAGE:
                break
            after_seq = page[-1].seq
        entries: list[Entry] = []
        if events and not events[-1].outcome:
            outcome: Outcome = unended.stop or "abandoned"
            ending = ended_by(outcome, events, id=f"{unended.run_id}:{unended.after_seq}:{outcome}")
            entries.append(self._writer.prepare(lease.key, ending)[0])
        receipt = await self._backend.append(
            lease.key, entries, expected=lease.expected, then="close"
        )
        return as_stored(receipt, 0, entries[0], None) if entries else None

    async def stop(self, key: SessionKey, run_id: str | None) -> bool:
        """Have the turn of a session told to stop."""
        stopped = await self._backend.stop(key, run_id)
        if stopped is None and run_id is not None:
            raise RunNotFoundError(key, run_id)
        return stopped is not None


def ended_by(outcome: Outcome, events: Sequence[Event], *, id: str = "") -> Event:  # noqa: A002
    """Make the event that ends a turn, with results for the calls that nothing answers.

    Args:
        outcome: How it ended.
        events: The events of the turn so far.
        id: The event's id; a new one by default.
    """
    calls = unanswered_calls(events)
    results = [ToolResult(call.call_id, NO_RESULT, call.name, is_error=True) for call in calls]
    return Event(
        id=id or new_id(),
        author="tool" if results else _author(events),
        invocation_id=events[-1].invocation_id,
        content=[*results],
        outcome=outcome,
    )


def _author(events: Sequence[Event]) -> str:
    """Return who spoke last in a turn, but not the user."""
    return next((each.author for each in reversed(events) if each.author != "user"), "agent")


def named_by(lease: Lease, event: Event) -> Event:
    """Put the turn's id into an event that has none."""
    if event.invocation_id:
        return event
    return msgspec.structs.replace(event, invocation_id=lease.run_id)


def then_of(events: Sequence[Event]) -> Then:
    """Tell what becomes of the lease with which events are appended.

    Raises:
        ValueError: An event that ends the turn is not the last one.
    """
    for event in events[:-1]:
        if event.outcome:
            msg = f"event {event.id!r:.80} ends the turn, but is not the last of the batch"
            raise ValueError(msg)
    match events[-1].outcome:
        case "":
            return "keep"
        case "waiting":
            return "wait"
        case _:
            return "end"


def _has(snapshot: Snapshot, receipt: Receipt) -> bool:
    """Tell whether a session was read after an append to it."""
    return snapshot.incarnation == receipt.incarnation and snapshot.last_seq >= receipt.last_seq
