"""Who may write a turn to a session: its lease, and the line of those who wait for it.

The rules of :meth:`Backend.acquire <agentsession.backend.Backend.acquire>` and the other operations
on leases, for backends that are written in Python. Nothing here waits or knows a clock: each step
gets the present, and tells who is to be told of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec import Struct

from agentsession.backend.records import (
    LONGEST_LINE,
    PLACE_KEPT,
    Standing,
    State,
    Stop,
    UnendedTurn,
)
from agentsession.clock import from_microseconds
from agentsession.errors import LeaseLostError, RewindError, SessionBusyError

if TYPE_CHECKING:
    from agentsession.backend.records import Claim, Then
    from agentsession.sessions import SessionKey

__all__ = ["Tell", "Turns"]

Tell: TypeAlias = Callable[[str], None]
"""Tells the owner of a claim that there is news for it."""


class _Holder(Struct):
    """The turn that has the lease, or had it and did not give it back."""

    owner: str
    run_id: str
    token: int
    ends_at: int
    ttl: int
    exclusive: bool
    after_seq: int
    stop: Stop = ""
    stopped_at: int = 0
    waits: bool = False
    resumed_at: int | None = None

    def has_it(self, now: int) -> bool:
        """Tell whether the lease has not run out; also where the clock went back meanwhile."""
        return self.waits or now <= self.ends_at <= now + 2000 * self.ttl


class _Place(Struct):
    """A claim that waits in line."""

    owner: str
    run_id: str
    interrupts: bool
    superseded: bool = False
    kept_until: int = 0

    def is_kept(self, now: int) -> bool:
        return now <= self.kept_until <= now + 2000 * PLACE_KEPT


class _Record(Struct, omit_defaults=True):
    """All that is known of the lease of one session."""

    token: int = 0
    holder: _Holder | None = None
    line: list[_Place] = []
    unended: UnendedTurn | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Record)


class Turns:
    """The lease of one session, those who wait for it, and a turn that nobody has ended.

    Args:
        tell: Tells the owner of a claim that there is news for it.
        stored: What :meth:`dump` has returned; ``b""`` for a session that nobody has asked for.

    Raises:
        msgspec.DecodeError: What was stored is something else.
    """

    __slots__ = ("_record", "_tell")

    def __init__(self, tell: Tell, stored: bytes = b"") -> None:
        self._tell = tell
        self._record = _decoder.decode(stored) if stored else _Record()

    def dump(self) -> bytes:
        """Return it as JSON, to keep it with the session."""
        return _encoder.encode(self._record)

    def acquire(self, claim: Claim, *, now: int, last_seq: int, incarnation: str) -> Standing:
        """Do what :meth:`agentsession.backend.Backend.acquire` says."""
        holder = self._holder_at(now, last_seq)
        self._record.line = [place for place in self._record.line if place.is_kept(now)]
        if self._named(claim.owner, now) is not None and holder is not None:
            return self._held(holder, now, incarnation)
        own = next((place for place in self._record.line if place.owner == claim.owner), None)
        busy = partial(self._behind, claim, now, incarnation)
        if claim.resumes:
            if holder is None or not holder.waits or claim.run_id not in ("", holder.run_id):
                return busy("busy")
            return self._held(self._take(claim, now, last_seq), now, incarnation)
        if own is not None and own.superseded:
            return Standing(state="superseded", incarnation=incarnation, now=now, run_id=own.run_id)
        free = holder is None or not holder.has_it(now)
        if claim.joins and not free and holder is not None and holder.run_id == claim.run_id:
            return busy("busy")
        interrupts = claim.when_busy == "interrupt"
        if interrupts:
            free = free or self._makes_way(claim, now)
            self._supersede(claim, now)
        first = self._first
        if free and (interrupts or first is None or first is own):
            return self._held(self._take(claim, now, last_seq), now, incarnation)
        if claim.when_busy == "reject":
            return busy("busy")
        if own is None:
            waiting = sum(not place.superseded for place in self._record.line)
            if not interrupts and waiting >= LONGEST_LINE:
                return busy("full")
            own = _Place(claim.owner, claim.run_id, interrupts)
            self._record.line.insert(0 if interrupts else len(self._record.line), own)
        own.kept_until = now + 1000 * PLACE_KEPT
        return busy("in_line")

    @property
    def _first(self) -> _Place | None:
        """Whoever is next."""
        return next((place for place in self._record.line if not place.superseded), None)

    def _holder_at(self, now: int, last_seq: int) -> _Holder | None:
        """Return the holder. One that went on with a turn and died at once has left it waiting."""
        holder = self._record.holder
        if holder is None or holder.waits or holder.ends_at >= now:
            return holder
        holder.waits = holder.resumed_at == last_seq
        return holder

    def renew(self, owner: str, ttl: int, *, now: int, incarnation: str) -> Standing | None:
        """Begin a lease's time anew; ``None`` if it is not held."""
        holder = self._named(owner, now)
        if holder is None:
            return None
        holder.ends_at = max(holder.ends_at, now + 1000 * ttl)
        holder.ttl = max(holder.ttl, ttl)
        return self._held(holder, now, incarnation)

    @property
    def newest_token(self) -> int:
        """That of whoever took the lease last; 0 if nobody has."""
        return self._record.token

    def release(self, owner: str, now: int) -> str:
        """Give a lease back, or leave the line; return the turn that had it, or ``""``."""
        self._record.line = [place for place in self._record.line if place.owner != owner]
        holder = self._named(owner, now)
        if holder is not None:
            self._record.holder = None
        if self._record.holder is None or not self._record.holder.has_it(now):
            self._tell_the_next()
        return "" if holder is None else holder.run_id

    def stop(self, run_id: str | None, now: int) -> str | None:
        """Have the turn that holds the lease told to stop, and return its id."""
        holder = self._record.holder
        if holder is None or holder.waits or not holder.has_it(now):
            return None
        if run_id is not None and run_id != holder.run_id:
            return None
        if not holder.stop:
            self._have_stopped(holder, "cancelled", now)
        return holder.run_id

    def check(self, key: SessionKey, owner: str, then: Then, now: int) -> None:
        """Check a write.

        Raises:
            LeaseLostError: The lease that it names is not held, or may not be used for it.
            SessionBusyError: It names none, and nobody else may write meanwhile.
        """
        if owner:
            if self._named(owner, now) is None or (self._record.unended and then != "close"):
                raise LeaseLostError(key)
            return
        holder = self._record.holder
        if holder is not None and holder.exclusive and not holder.waits and holder.has_it(now):
            ends_at = from_microseconds(holder.ends_at)
            raise SessionBusyError(key, holder.run_id, ends_at, "exclusive")

    def written(self, owner: str, then: Then, now: int, seqs: Sequence[int]) -> str:
        """Do what a write with a lease has asked for; if it is a repeat, also without the lease.

        Returns:
            The turn that has ended by it; ``""`` if none has.
        """
        holder = self._named(owner, now)
        if holder is None or (self._record.unended and then != "close"):
            return ""
        if then == "end":
            return self.release(owner, now)
        if then == "wait":
            holder.waits = True
            self._tell_the_next()  # Who interrupts need not wait for a turn that waits.
            return holder.run_id
        if then == "close":
            left, self._record.unended = self._record.unended, None
            return "" if left is None else left.run_id
        if then == "begin":
            holder.after_seq = min(holder.after_seq, seqs[0] - 1)
        return ""

    def check_rewind(self, key: SessionKey, owner: str, to_seq: int) -> None:
        """Refuse to go back into a turn that has not ended, unless it is this one's own.

        Raises:
            RewindError: Half of a turn would be left.
        """
        begins: list[int] = []
        if self._record.unended is not None:
            begins.append(self._record.unended.after_seq)
        if self._record.holder is not None and self._record.holder.owner != owner:
            begins.append(self._record.holder.after_seq)
        if any(after_seq < to_seq for after_seq in begins):
            raise RewindError(key, to_seq, "running")

    def rewind(self, owner: str) -> None:
        """Take the lease from a turn that was taken back, unless it is this one's own.

        What an earlier turn left is not to be closed any more.
        """
        self._record.unended = None
        holder = self._record.holder
        if holder is not None and holder.owner != owner:
            self._record.holder = None
            self._tell(holder.owner)
            self._tell_the_next()

    def forked(self, last_seq: int, now: int, tell: Tell) -> Turns:
        """Return what a copy of the session takes over: a turn that waits, or that is to be closed.

        A turn that runs goes on in the original alone, so in the copy it was interrupted.
        """
        copy = Turns(tell)
        copy._record.unended = self._record.unended
        left = self.left(last_seq, now)
        if left is not None and left.waits and self._record.holder is not None:
            copy._record.holder = msgspec.structs.replace(self._record.holder)
        else:
            copy._record.unended = left
        return copy

    def left(self, last_seq: int, now: int) -> UnendedTurn | None:
        """Tell which turn has not ended; one that runs is as if it had been left now."""
        holder = self._holder_at(now, last_seq)
        if holder is not None and holder.waits:
            return UnendedTurn(holder.run_id, holder.after_seq, "", waits=True)
        if self._record.unended is not None or holder is None or last_seq <= holder.after_seq:
            return self._record.unended
        why: Stop = holder.stop or ("interrupted" if holder.has_it(now) else "")
        return UnendedTurn(holder.run_id, holder.after_seq, why)

    def _named(self, owner: str, now: int) -> _Holder | None:
        """Return who holds the lease, if it is this one."""
        holder = self._record.holder
        if holder is None or holder.owner != owner or holder.waits or not holder.has_it(now):
            return None
        return holder

    def _tell_the_next(self) -> None:
        if (first := self._first) is not None:
            self._tell(first.owner)

    def _have_stopped(self, holder: _Holder, why: Stop, now: int) -> None:
        holder.stop, holder.stopped_at = why, now
        self._tell(holder.owner)

    def _makes_way(self, claim: Claim, now: int) -> bool:
        """Have the holder told to stop, and tell whether it need not be waited for any longer."""
        holder = self._record.holder
        if holder is None or holder.waits:
            return True
        if not holder.stop:
            self._have_stopped(holder, "interrupted", now)
        holder.stopped_at = min(holder.stopped_at, now)  # Since the clock may have gone back.
        return now >= holder.stopped_at + 1000 * claim.grace

    def _supersede(self, claim: Claim, now: int) -> None:
        """Take another claim that interrupts out of the line, for a later one."""
        for place in self._record.line:
            if place.interrupts and not place.superseded and place.owner != claim.owner:
                place.superseded, place.run_id = True, claim.run_id
                place.kept_until = now + 1000 * PLACE_KEPT
                self._tell(place.owner)

    def _take(self, claim: Claim, now: int, last_seq: int) -> _Holder:
        before, after_seq, run_id = self._record.holder, last_seq, claim.run_id
        self._record.line = [place for place in self._record.line if place.owner != claim.owner]
        if before is not None:
            if claim.resumes:
                after_seq, run_id = before.after_seq, before.run_id
            elif self._record.unended is None and last_seq > before.after_seq:
                stop: Stop = "interrupted" if before.has_it(now) else ""
                self._record.unended = UnendedTurn(
                    before.run_id, before.after_seq, before.stop or stop
                )
            self._tell(before.owner)
        self._record.token = max(self._record.token + 1, now)
        self._record.holder = _Holder(
            owner=claim.owner,
            run_id=run_id,
            token=self._record.token,
            ends_at=now + 1000 * claim.ttl,
            ttl=claim.ttl,
            exclusive=claim.exclusive,
            after_seq=after_seq,
            resumed_at=last_seq if claim.resumes else None,
        )
        return self._record.holder

    def _held(self, holder: _Holder, now: int, incarnation: str) -> Standing:
        return Standing(
            state="held",
            incarnation=incarnation,
            now=now,
            token=holder.token,
            stop=holder.stop,
            unended=self._record.unended,
            after_seq=holder.after_seq,
            run_id=holder.run_id,
            ends_at=holder.ends_at,
        )

    def _behind(self, claim: Claim, now: int, incarnation: str, state: State) -> Standing:
        """Tell who stands before a claim, and when that may change without any news."""
        holder = self._record.holder
        run_id, ends_at, ask_at = "", 0, 0
        if holder is not None and holder.has_it(now):
            run_id = holder.run_id
            if not holder.waits:
                ends_at, ask_at = holder.ends_at, holder.ends_at + 1
                if claim.when_busy == "interrupt" and holder.stop:
                    ask_at = min(ask_at, holder.stopped_at + 1000 * claim.grace)
        elif (first := self._first) is not None:
            run_id, ask_at = first.run_id, first.kept_until + 1
        return Standing(
            state=state,
            incarnation=incarnation,
            now=now,
            run_id=run_id,
            ends_at=ends_at,
            ask_at=ask_at if state == "in_line" else 0,
        )
