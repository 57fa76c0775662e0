"""How turns begin and end: the lease, the message and the session, and what a dead turn left."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentsession._concurrently import caught, together
from agentsession._service.assembly import apply_temporary, as_stored
from agentsession._service.leasing import Leasing, ServiceLease, check_lease
from agentsession._service.log import LogReader
from agentsession.backend import Claim, Expected
from agentsession.errors import (
    AgentSessionError,
    BackendError,
    CallNotOpenError,
    ClosedError,
    EventGoneError,
    LeaseLostError,
    OutcomeUnknownError,
    RunNotFoundError,
    SessionBusyError,
    SessionExistsError,
    SessionNotFoundError,
)
from agentsession.events import Event, Outcome, ToolResult, new_id
from agentsession.history import closing_results, unanswered_calls
from agentsession.leases import Lease, TurnStart
from agentsession.state import NO_CHANGES

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Sequence

    from agentsession._service.loading import Loader, Read
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
    from agentsession.sessions import Session, SessionKey

__all__ = ["Turns", "named_by", "writing_with"]

_PAGE: Final = 1000
_NEWEST: Final = 50
_TTL: Final = 15_000
_BROKEN_OFF: Final = (
    "the message may be stored, and its turn did not begin ({}); its turn then is closed, or will "
    "be: repeat it"
)
_BUSY_NOW: Final = (
    "an answer was lost, and another turn has the session by now; whether the message was stored "
    "before could not be found out ({}): repeat it"
)


class Turns:
    """The turns of a service.

    Args:
        backend: Keeps the sessions.
        writer: Encodes what is written.
        loader: Loads sessions.
        read_limit: How much one read may return.
    """

    def __init__(
        self, backend: Backend, writer: Writer, loader: Loader, read_limit: ReadLimit | None
    ) -> None:
        self._backend = backend
        self._writer = writer
        self._loader = loader
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
        lease.join()
        try:
            receipt, session = await self._to_the_end(lease, self._begin(lease, entry, bounds))
            seq = receipt.seqs[0]
            is_repeat = seq <= lease.after_seq
            if is_repeat:
                await self._begin_with(lease, entry, seq)
        except (BackendError, ClosedError, LeaseLostError, SessionBusyError) as exc:
            if isinstance(exc, OutcomeUnknownError) or not lease.may_have_begun:
                raise
            # The others say that nothing was stored.
            if isinstance(exc, BackendError | ClosedError):
                reason = exc.reason if isinstance(exc, BackendError) else exc
                raise OutcomeUnknownError(lease.key, _BROKEN_OFF.format(reason)) from exc
            if lease.begun_at > 0 or await self._is_stored(lease, entry):
                raise LeaseLostError(lease.key, has_begun=True) from exc
            raise
        apply_temporary(session, message.state_delta)
        return TurnStart(session, as_stored(receipt, 0, entry, prepared), is_repeat)

    async def _begin_with(self, lease: ServiceLease, entry: Entry, seq: int) -> None:
        """Begin a turn with a message that is stored, as if it had just been stored."""
        try:
            if await self._is_gone(lease, seq):
                raise EventGoneError(lease.key, entry.event_id)
            lease.after_seq = seq - 1
            await self._backend.append(lease.key, (entry,), expected=lease.expected, then="begin")
        except BaseException:
            await lease.release()
            raise

    async def _is_gone(self, lease: ServiceLease, seq: int) -> bool:
        """Tell whether an event that was stored is in the log no more."""
        expected = Expected(lease.incarnation)
        reader = LogReader(self._backend, lease.key, None, None, expected)
        return not await reader.page(after_seq=seq - 1, before_seq=seq + 1, limit=1)

    async def _is_stored(self, lease: ServiceLease, entry: Entry) -> bool:
        """Tell whether what was to begin a turn is stored, though its lease is lost.

        A repeat is answered as the first time was, and with a lease that nobody has nothing new is
        stored.
        """
        nobodys = Expected(lease.incarnation, lease=self._backend.new_owner())
        try:
            await self._backend.append(lease.key, (entry,), expected=nobodys, then="keep")
        except (LeaseLostError, SessionNotFoundError):
            return False
        except BackendError as exc:
            raise OutcomeUnknownError(lease.key, _BUSY_NOW.format(exc.reason)) from exc
        return True

    async def _to_the_end(
        self, lease: ServiceLease, beginning: Coroutine[Any, Any, tuple[Receipt, Session]]
    ) -> tuple[Receipt, Session]:
        """Begin a turn; if that fails, or the caller is cancelled, end what has begun."""
        lease.beginning = task = self._leasing.begin(beginning)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            lease.forget()
            await asyncio.shield(self._leasing.begin(self._end_unwanted(lease, task)))
            raise
        except BaseException:
            await lease.release()
            raise

    async def _end_unwanted(self, lease: ServiceLease, beginning: asyncio.Task[Any]) -> None:
        """End a turn that nobody wants any more, once it has begun; or give up the lease."""
        await asyncio.wait([beginning])
        await lease.release()

    async def _begin(
        self, lease: ServiceLease, entry: Entry, bounds: Window
    ) -> tuple[Receipt, Session]:
        standing, receipt, read = await self._all_at_once(lease, entry, bounds)
        while standing is None:
            with suppress(SessionExistsError):
                await self._backend.create(lease.key, NO_CHANGES, token=new_id())
            standing, receipt, read = await self._all_at_once(lease, entry, bounds)
        if standing.state == "gone" and receipt is not None:
            lease.end()  # It was held, and lost, before this answer came.
            raise LeaseLostError(lease.key)
        if standing.state != "held" or standing.unended is not None:
            # A repeat is answered whoever has the lease: its turn has not begun by that, and what
            # was read may be old when it does.
            receipt, lease.begun_at = None, min(lease.begun_at, 0)
        await lease.settle(standing)
        if receipt is None:
            return await self._stored(lease, entry, bounds, "keep")
        return receipt, await self._loader.load(lease.key, bounds, receipt, read)

    async def _all_at_once(
        self, lease: ServiceLease, entry: Entry, bounds: Window
    ) -> tuple[Standing | None, Receipt | None, Read]:
        """Ask for the lease, append with it, and read; the owner is known before it has the lease.

        If the lease is not to be had, nothing is stored.

        Returns:
            Where the claim stands, or ``None`` if there is no such session; what the append did, if
            it was not too early; and what was read of the session.
        """
        ask = caught(lease.ask(), AgentSessionError)
        append = caught(self._append(lease, entry), AgentSessionError)
        get = caught(self._backend.get(lease.key, bounds), AgentSessionError)
        if self._backend.is_local:
            asked, stored, read = await ask, await append, await get
        else:
            asked, stored, read = await together(ask, append, get)
        if isinstance(asked, AgentSessionError):
            if isinstance(asked, SessionNotFoundError) and not asked.replaced:
                return None, None, None
            raise asked
        if isinstance(stored, AgentSessionError):
            # One of unknown outcome may have come before the session was made; a repeat tells.
            if isinstance(stored, LeaseLostError | SessionNotFoundError | OutcomeUnknownError):
                return asked, None, None
            raise stored
        return asked, stored, read

    async def _append(self, lease: ServiceLease, entry: Entry, then: Then = "keep") -> Receipt:
        """Append what begins a turn, and note on the lease that it has begun."""
        try:
            receipt = await self._backend.append(
                lease.key, (entry,), expected=lease.expected, then=then
            )
        except (OutcomeUnknownError, asyncio.CancelledError):
            lease.begun_at = -1
            raise
        lease.begun_at = receipt.seqs[0]
        return receipt

    async def resume(
        self, lease: ServiceLease, results: Sequence[ToolResult], bounds: Window
    ) -> TurnStart:
        """Take a lease to go on with the turn that waits, and store results of its open calls."""
        lease.start()
        lease.resume()
        entry, prepared, then = await self._answer_or_release(lease, results)
        receipt, session = await self._to_the_end(lease, self._stored(lease, entry, bounds, then))
        if then != "keep":
            lease.end()
        return TurnStart(session, as_stored(receipt, 0, entry, prepared), is_repeat=False)

    async def _answer_or_release(
        self, lease: ServiceLease, results: Sequence[ToolResult]
    ) -> tuple[Entry, Event | None, Then]:
        """Take the lease of the turn that waits, and prepare the event that answers its open calls.

        If that fails the turn waits on, for the right results.
        """
        try:
            standing = await lease.ask()
            while standing.state in ("refused", "gone"):
                standing = await lease.ask()
            if standing.state == "busy" and not standing.run_id:
                raise CallNotOpenError(
                    lease.key, results[0].call_id, await self._was_answered(lease, results[0])
                )
            await lease.settle(standing)
            answer = await self._answer(lease, results)
            return *self._writer.prepare(lease.key, answer), then_of([answer])
        except BaseException:
            await lease.release()
            raise

    async def _answer(self, lease: ServiceLease, results: Sequence[ToolResult]) -> Event:
        """Make the event that answers open calls; it waits on if others are open still."""
        events = await self._turn_so_far(lease, lease.run_id, lease.after_seq)
        made = {call.call_id for event in events for call in event.tool_calls}
        waiting = [call.call_id for call in unanswered_calls(events)]
        # Where none is open, another writer has answered them, or the event limit has trimmed them.
        # The turn would wait for ever, for results that all are refused.
        for result in results if waiting else ():
            if result.call_id not in waiting:
                raise CallNotOpenError(lease.key, result.call_id, result.call_id in made)
            waiting.remove(result.call_id)
        return Event(
            author="tool",
            invocation_id=lease.run_id,
            content=[*results],
            outcome="waiting" if waiting else "",
        )

    async def _was_answered(self, lease: ServiceLease, result: ToolResult) -> bool:
        """Tell whether one of the newest events answers the call that a result is for."""
        reader = LogReader(
            self._backend, lease.key, None, self._read_limit, Expected(lease.incarnation)
        )
        newest = await reader.page(limit=_NEWEST, newest_first=True)
        answered = (each.call_id for event in newest for each in event.tool_results)
        return result.call_id in answered

    async def _turn_so_far(self, lease: ServiceLease, run_id: str, after_seq: int) -> list[Event]:
        """Read a turn's own events after a position."""
        reader = LogReader(
            self._backend,
            lease.key,
            lambda event: event.invocation_id == run_id,
            self._read_limit,
            Expected(lease.incarnation),
        )
        events: list[Event] = []
        while True:
            page = await reader.page(after_seq=after_seq, limit=_PAGE)
            events += page
            if len(page) < _PAGE:
                return events
            after_seq = page[-1].seq

    async def _stored(
        self, lease: ServiceLease, entry: Entry, bounds: Window, then: Then
    ) -> tuple[Receipt, Session]:
        """Append with a lease that is held, and read, in one round trip."""
        receipt, read = await together(
            self._append(lease, entry, then),
            caught(self._backend.get(lease.key, bounds), AgentSessionError),
        )
        return receipt, await self._loader.load(lease.key, bounds, receipt, read)

    async def close(self, key: SessionKey, incarnation: str) -> Event | None:
        """Close the turn whose lease ran out, if there is one."""
        owner, run_id = self._backend.new_owner(), new_id()
        claim = Claim(owner=owner, run_id=run_id, ttl=_TTL, when_busy="reject")
        lease = ServiceLease(self._leasing, key, claim, wait=0, incarnation=incarnation)
        async with lease:
            return lease.closed

    async def _close(self, lease: ServiceLease, unended: UnendedTurn, then: Then) -> Event | None:
        """Store the end of a turn that was left, with results for its open calls."""
        events = await self._turn_so_far(lease, unended.run_id, unended.after_seq)
        entries: list[Entry] = []
        if events and events[-1].outcome in ("", "waiting"):
            outcome: Outcome = unended.stop or "abandoned"
            name = f"{unended.run_id}:{events[-1].seq}:{outcome}"
            entries.append(self._writer.prepare(lease.key, ended_by(outcome, events, id=name))[0])
        receipt = await self._backend.append(lease.key, entries, expected=lease.expected, then=then)
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


@contextmanager
def writing_with(
    lease: Lease | None, key: SessionKey, events: Sequence[Event], expected: Expected
) -> Generator[tuple[Expected, Then]]:
    """Check the lease with which something is written in this block, and note what becomes of it.

    Args:
        lease: The lease, if there is one.
        key: The session that is written to.
        events: What is appended.
        expected: What the write takes for granted besides.

    Returns:
        What it takes for granted, and what becomes of the lease then.
    """
    if lease is None:
        yield expected, "keep"
        return
    held = check_lease(lease)
    held.check(key)
    then = then_of(events)
    try:
        yield held.naming(expected), then
    except LeaseLostError:
        held.lose()
        raise
    if then != "keep":
        held.end()


def then_of(events: Sequence[Event]) -> Then:
    """Tell what becomes of the lease with which events are appended.

    Raises:
        ValueError: An event that ends the turn is not the last one.
    """
    if not events:
        return "keep"
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
