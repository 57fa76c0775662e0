"""How turns begin and end: the lease, the message and the session, and what a dead turn left."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from agentsession._concurrently import caught, together
from agentsession._pace import Pace
from agentsession._service.assembly import apply_temporary, as_stored, assemble
from agentsession._service.leasing import Leasing, ServiceLease
from agentsession._service.log import LogReader
from agentsession.backend import Claim, Expected, Snapshot
from agentsession.errors import (
    AgentSessionError,
    CallNotOpenError,
    LeaseLostError,
    ReadTooLargeError,
    RunNotFoundError,
    SessionExistsError,
    SessionNotFoundError,
)
from agentsession.events import Event, Outcome, ToolResult, new_id
from agentsession.history import closing_results, unanswered_calls
from agentsession.leases import Lease, TurnStart
from agentsession.state import NO_CHANGES

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from agentsession._service.writing import Writer
    from agentsession.backend import (
        Backend,
        Entry,
        ReadLimit,
        Receipt,
        Standing,
        Then,
        UnendedTurn,
        Window,
    )
    from agentsession.sessions import SessionKey

__all__ = ["Turns", "ended_by", "named_by", "then_of"]

_Read: TypeAlias = "Snapshot | ReadTooLargeError | None"
"""What a read gave: the session, that it was too large, or that there was none."""

_PAGE: Final = 1000
_NEWEST: Final = 50
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
        message = named_by(lease, message)
        entry, prepared = self._writer.prepare(lease.key, message)
        lease.start()
        receipt, snapshot = await self._to_the_end(lease, self._begin(lease, entry, bounds))
        session = await assemble(lease.key, snapshot, Pace())
        apply_temporary(session, message.state_delta)
        return TurnStart(session, as_stored(receipt, 0, entry, prepared), bool(receipt.repeats))

    async def _to_the_end(
        self, lease: ServiceLease, beginning: Coroutine[Any, Any, tuple[Receipt, Snapshot]]
    ) -> tuple[Receipt, Snapshot]:
        """Begin a turn; if the caller is cancelled when it may have begun, end it at once."""
        task = self._leasing.begin(beginning)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if lease.in_line:
                task.cancel()
            await asyncio.shield(self._leasing.begin(self._end_unwanted(lease, task)))
            raise
        except BaseException:
            await lease.release()
            raise

    async def _end_unwanted(
        self, lease: ServiceLease, beginning: asyncio.Task[tuple[Receipt, Snapshot]]
    ) -> None:
        """End a turn that nobody wants any more, once it has begun; or give up the lease."""
        await asyncio.wait([beginning])
        if beginning.cancelled() or beginning.exception() is not None:
            await lease.release()
            return
        ending = Event(author="agent", invocation_id=lease.run_id, outcome="cancelled")
        entry, _ = self._writer.prepare(lease.key, ending)
        with suppress(AgentSessionError):
            await self._append(lease, entry, "end")
        lease.end()

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
            return await self._stored(lease, entry, bounds, "keep")
        return receipt, await self._loaded(lease.key, bounds, receipt, snapshot)

    async def _all_at_once(
        self, lease: ServiceLease, entry: Entry, bounds: Window
    ) -> tuple[Standing | None, Receipt | None, _Read]:
        """Ask for the lease, append with it, and read; the owner is known before it has the lease.

        If the lease is not to be had, nothing is stored.

        Returns:
            Where the claim stands, or ``None`` if there is no such session; what the append did, if
            it was not too early; and what was read of the session.
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
        return asked, stored, read

    async def _append(self, lease: ServiceLease, entry: Entry, then: Then = "keep") -> Receipt:
        return await self._backend.append(lease.key, (entry,), expected=lease.expected, then=then)

    async def _loaded(
        self, key: SessionKey, bounds: Window, receipt: Receipt, read: _Read
    ) -> Snapshot:
        """Load a session with its newest events, half as many until one read returns them.

        What is returned is of one moment, since it is what one read returned. A search would find
        all that fit, but each of its reads costs the server as much as this whole load.

        Args:
            key: The session.
            bounds: The events to load.
            receipt: An append to it, which is to be seen.
            read: What was read at the same time as that.
        """
        while not isinstance(read, Snapshot) or not _has(read, receipt):
            if isinstance(read, ReadTooLargeError):
                least = 1 if self._read_limit is None else self._read_limit.harmless
                most = max(read.events // 2, least)
                bounds = msgspec.structs.replace(bounds, last=most)
            read = await caught(self._backend.get(key, bounds), ReadTooLargeError)
            if read is None:
                raise SessionNotFoundError(key)
        return read

    async def resume(
        self, lease: ServiceLease, results: Sequence[ToolResult], bounds: Window
    ) -> TurnStart:
        """Take a lease to go on with the turn that waits, and store results of its open calls."""
        turn = await self._last_turn(lease)
        self._check_results(lease.key, turn, results)
        lease.resume(turn.run_id)
        lease.start()
        try:
            standing = await lease.ask()
            if standing.state == "busy" and not standing.run_id:
                # Whoever went on with the turn has died before anything was stored.
                standing = await lease.ask_as_usual()
            await lease.settle(standing)
            answer = await self._answer(lease, turn.run_id, results)
        except BaseException:
            await lease.release()
            raise
        entry, prepared = self._writer.prepare(lease.key, answer)
        then = then_of([answer])
        stored = self._stored(lease, entry, bounds, then)
        receipt, snapshot = await self._to_the_end(lease, stored)
        if then != "keep":
            lease.end()
        session = await assemble(lease.key, snapshot, Pace())
        return TurnStart(session, as_stored(receipt, 0, entry, prepared), bool(receipt.repeats))

    async def _answer(
        self, lease: ServiceLease, run_id: str, results: Sequence[ToolResult]
    ) -> Event:
        """Make the event that answers open calls; it waits on if others are open still."""
        turn = await self._last_turn(lease)
        try:
            if turn.run_id != run_id:
                raise CallNotOpenError(lease.key, results[0].call_id)
            self._check_results(lease.key, turn, results)
        except CallNotOpenError:
            # The turn waits on, for the right results.
            await self._backend.append(lease.key, (), expected=lease.expected, then="wait")
            lease.end()
            raise
        answered = [result.call_id for result in results]
        left = [call for call in turn.open_calls if call.call_id not in answered]
        return Event(
            author="tool",
            invocation_id=run_id,
            content=[*results],
            outcome="waiting" if left else "",
        )

    @staticmethod
    def _check_results(key: SessionKey, turn: _LastTurn, results: Sequence[ToolResult]) -> None:
        """Check that each result answers a call that waits, and no two answer the same one."""
        waiting = [call.call_id for call in turn.open_calls] if turn.waits else []
        for result in results:
            if result.call_id not in waiting:
                made = any(
                    call.call_id == result.call_id
                    for event in turn.events
                    for call in event.tool_calls
                )
                raise CallNotOpenError(key, result.call_id, made)
            waiting.remove(result.call_id)

    async def _last_turn(self, lease: ServiceLease) -> _LastTurn:
        """Read the turn that ended last, or waits, from the end of the log."""
        reader = LogReader(
            self._backend, lease.key, None, self._read_limit, Expected(lease.incarnation)
        )
        events: list[Event] = []
        before_seq, run_id = None, ""
        while True:
            page = await reader.page(before_seq=before_seq, limit=_NEWEST, newest_first=True)
            events += page
            run_id = run_id or next((e.invocation_id for e in events if e.outcome), "")
            if len(page) < _NEWEST or any(event.id == run_id for event in page):
                break
            before_seq = page[-1].seq
        own = [event for event in reversed(events) if event.invocation_id == run_id]
        return _LastTurn(run_id, own)

    async def _stored(
        self, lease: ServiceLease, entry: Entry, bounds: Window, then: Then
    ) -> tuple[Receipt, Snapshot]:
        """Append with a lease that is held, and read, in one round trip."""
        receipt, read = await together(
            self._append(lease, entry, then),
            caught(self._backend.get(lease.key, bounds), ReadTooLargeError),
        )
        return receipt, await self._loaded(lease.key, bounds, receipt, read)

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
        # A turn that waits is not closed if whoever went on with it died before it stored anything.
        ended = bool(events) and events[-1].outcome
        if events and (not ended or (ended == "waiting" and unended.stop)):
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


class _LastTurn:
    """The turn that ended last, or waits.

    Args:
        run_id: Its id; ``""`` if there was none.
        events: Its events, as far as the log holds them.
    """

    def __init__(self, run_id: str, events: Sequence[Event]) -> None:
        self.run_id = run_id
        self.events = events
        outcomes = [event.outcome for event in events if event.outcome]
        self.waits = bool(outcomes) and outcomes[-1] == "waiting"
        self.open_calls = unanswered_calls(events)


def ended_by(outcome: Outcome, events: Sequence[Event], *, id: str = "") -> Event:  # noqa: A002
    """Make the event that ends a turn, with results for the calls that nothing answers.

    Args:
        outcome: How it ended.
        events: The events of the turn so far.
        id: The event's id; a new one by default.
    """
    results = closing_results(events)
    return Event(
        id=id or new_id(),
        author="tool" if results else _author(events),
        invocation_id=events[-1].invocation_id,
        content=[*results] or "",
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
