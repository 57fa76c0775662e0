"""How a store is told of a turn that has not ended elsewhere, with what any turn does.

Whoever has the lease says where the turn begins, with an event that is stored, and leaves: so that
the turn waits, or is to be closed by whoever comes next.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from agentsession import codec
from agentsession.backend import Claim, Entry, Expected
from agentsession.clock import from_microseconds
from agentsession.errors import LeaseLostError, SessionBusyError
from agentsession.events import Event, new_id
from agentsession.retention import LARGEST

if TYPE_CHECKING:
    from agentsession.backend import Backend, EventSlice, Standing, UnendedTurn
    from agentsession.sessions import SessionKey

__all__ = ["read_event", "tell_turn"]

# How long the lease lives, in milliseconds: one that nobody has stopped is left when that is over.
# The longer one is for a server that answers slowly.
_TTL: Final = 500
_LONG_TTL: Final = 30_000
# So often it is waited for a lease that an import has left which was stopped just now.
_TRIES: Final = 5


async def tell_turn(backend: Backend, key: SessionKey, turn: UnendedTurn, incarnation: str) -> None:
    """Make a store know of the turn that has not ended, unless another one goes on there.

    Raises:
        SessionBusyError: Somebody has the session's lease already.
    """
    expected = Expected(incarnation)
    past = await backend.read_past(key, after=LARGEST, limit=1, expected=expected)
    if past.turn == turn or (past.turn is not None and past.turn.run_id != turn.run_id):
        return
    first = await _first_event(backend, key, turn, expected)
    if not first.events:
        return  # All of it was trimmed here.
    try:
        await _leave(backend, key, turn, first, expected, _TTL)
    except LeaseLostError:
        await _leave(backend, key, turn, first, expected, _LONG_TTL)


async def _first_event(
    backend: Backend, key: SessionKey, turn: UnendedTurn, expected: Expected
) -> EventSlice:
    return await backend.read(
        key,
        after_seq=turn.after_seq,
        before_seq=None,
        limit=1,
        newest_first=False,
        raw=True,
        expected=expected,
    )


async def _leave(
    backend: Backend,
    key: SessionKey,
    turn: UnendedTurn,
    first: EventSlice,
    expected: Expected,
    ttl: int,
) -> None:
    """Begin the turn with an event that is stored, and leave it as it was left elsewhere.

    Raises:
        LeaseLostError: The lease has run out meanwhile.
    """
    standing, owner = await _lease(backend, key, turn, expected, ttl)
    held = Expected(expected.incarnation, lease=owner)
    if standing.unended is not None:  # The same turn, told of in part.
        await backend.append(key, (), expected=held, then="close")
    payload = first.events[0]
    entries = (Entry(read_event(payload, first.seqs[0]).id, 1, payload),)
    await backend.append(key, entries, expected=held, then="begin")
    if turn.waits:
        await backend.append(key, entries, expected=held, then="wait")
    elif turn.stop == "cancelled":
        await backend.stop(key, turn.run_id)
    elif turn.stop == "interrupted":
        await _interrupt(backend, key, ttl)


async def _lease(
    backend: Backend, key: SessionKey, turn: UnendedTurn, expected: Expected, ttl: int
) -> tuple[Standing, str]:
    """Take the session's lease, and name its owner.

    Raises:
        SessionBusyError: Somebody else has it, and keeps it.
    """
    attempt = 1
    while True:
        owner = backend.new_owner()
        claim = Claim(owner=owner, run_id=turn.run_id, ttl=ttl, when_busy="reject")
        standing = await backend.acquire(key, claim, 1, expected=expected)
        if standing.state == "held":
            return standing, owner
        if attempt == _TRIES:
            ends_at = from_microseconds(standing.ends_at) if standing.ends_at else None
            raise SessionBusyError(key, standing.run_id, ends_at)
        await asyncio.sleep(ttl / 2000)
        attempt += 1


async def _interrupt(backend: Backend, key: SessionKey, ttl: int) -> None:
    """Take the turn's place, and give it back."""
    owner = backend.new_owner()
    claim = Claim(owner=owner, run_id=new_id(), ttl=ttl, when_busy="interrupt", grace=0)
    await backend.acquire(key, claim, 1)
    await backend.release(key, owner, 2)


def read_event(payload: bytes, seq: int) -> Event:
    """Read an event as it is stored, or make what stands for it."""
    try:
        return codec.decode_event(payload)
    except ValueError as exc:
        return codec.unreadable_event(payload, seq, str(exc))
