"""Backends in memory that break one promise each, now and then, for the checker to notice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import msgspec

from agentsession import SessionKey, UserKey
from agentsession.backend import (
    ANYTHING,
    NEW,
    Beginning,
    Claim,
    Entry,
    Expected,
    Position,
    Receipt,
    SessionSlice,
    Snapshot,
    Standing,
    Then,
    Window,
)
from agentsession.errors import (
    AgentSessionError,
    BackendUnavailableError,
    LeaseLostError,
    OutcomeUnknownError,
)
from agentsession.memory import MemoryBackend
from agentsession.memory._records import Log, StoredSession, Values
from agentsession.retention import Retention
from agentsession.state import Changes, ScopeChanges
from reliability.workers.plan import shared_sessions

Copy = Callable[[], Awaitable[object]]

_SEVENTH = 7


class Sometimes(MemoryBackend):
    """An honest backend that counts, so that those below can do wrong every seventh time."""

    broken = 0
    _counted = 0

    def now_and_then(self) -> bool:
        self._counted += 1
        wrong = self._counted % _SEVENTH == 0
        self.broken += wrong
        return wrong

    def stored(self, key: SessionKey) -> StoredSession:
        return self._need(key, self._clock())

    def log_of(self, key: SessionKey) -> Log:
        return self.stored(key).log


class DropsAnEvent(Sometimes):
    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        receipt = await super().append(key, entries, expected=expected, then=then)
        if self.now_and_then():
            log = self.log_of(key)
            log._payloads.pop()
            log._times.pop()
            log.count -= 1
        return receipt


class ReordersTwo(Sometimes):
    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        receipt = await super().append(key, entries, expected=expected, then=then)
        payloads = self.log_of(key)._payloads
        if len(payloads) > 1 and self.now_and_then():
            payloads[-2:] = payloads[:-3:-1]
        return receipt


class LetsTheLaterOneOvertake(Sometimes):
    """Acknowledges a position one too far and puts the next event before it."""

    early: int | None = None

    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        receipt = await super().append(key, entries, expected=expected, then=then)
        (*_, seq), log = receipt.seqs, self.log_of(key)
        if len(entries) > 1 or seq != log.count or key != shared_sessions()[0]:
            return receipt
        if self.early == seq - 1:
            self.early = None
            log._payloads[-2:] = log._payloads[:-3:-1]
            return _at(receipt, seq - 1)
        if self.early is None and self.now_and_then():
            self.early = seq
            return _at(receipt, seq + 1)
        return receipt


def _at(receipt: Receipt, seq: int) -> Receipt:
    return msgspec.structs.replace(receipt, seqs=[seq])


class StoresAnEventTwice(Sometimes):
    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        receipt = await super().append(key, entries, expected=expected, then=then)
        if self.now_and_then():
            self.log_of(key).add(entries[-1], self._clock())
        return receipt


class AppliesADeltaTwice(Sometimes):
    """Applies an older delta of a name once more after a newer one, as a careless retry does."""

    def __init__(self, retention: Retention) -> None:
        super().__init__(retention)
        self.older: dict[str, bytes | None] = {}

    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        receipt = await super().append(key, entries, expected=expected, then=then)
        for changes in (entry.changes.session for entry in entries):
            for name in changes.keys() & self.older.keys():
                self.broken += 1
                self.stored(key).state.change({name: self.older[name]})
            self.older |= changes
        return receipt


class LosesADelta(Sometimes):
    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        before = self.stored(key).state.read()
        receipt = await super().append(key, entries, expected=expected, then=then)
        if self.now_and_then():
            state = self.stored(key).state = Values()
            state.change(dict(before))
        return receipt


class LosesAnUpdate(Sometimes):
    async def update_user_state(self, user: UserKey, changes: ScopeChanges) -> None:
        if not self.now_and_then():
            await super().update_user_state(user, changes)


class AnswersWithAnotherSession(Sometimes):
    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        other = shared_sessions()[0] if self.now_and_then() else key
        return await super().get(other, window)


class ShowsAnothersState(Sometimes):
    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        snapshot = await super().get(key, window)
        if snapshot is not None and self.now_and_then():
            merged: dict[str, bytes] = {}
            for user in self._users:
                merged |= user.scope.values.read() if user.scope else {}
            return msgspec.structs.replace(snapshot, user=merged)
        return snapshot


class ForgetsTheLimit(Sometimes):
    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        kept = self.retention
        if self.now_and_then():
            self.retention = Retention()
        try:
            return await super().append(key, entries, expected=expected, then=then)
        finally:
            self.retention = kept


class StoresHalfABatch(Sometimes):
    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        if len(entries) > 1 and self.now_and_then():
            await super().append(key, entries[: len(entries) // 2], expected=expected, then=then)
            raise OutcomeUnknownError(key, "half of it")
        return await super().append(key, entries, expected=expected, then=then)


class StoresWhatItRefuses(Sometimes):
    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        receipt = await super().append(key, entries, expected=expected, then=then)
        if self.now_and_then():
            raise BackendUnavailableError(key, "nothing was written")
        return receipt


class IgnoresTheRevision(Sometimes):
    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        snapshot = await super().get(key, window)
        await asyncio.sleep(0)
        return snapshot

    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        self.broken += expected.revision not in (None, self.stored(key).revision)
        return await super().append(key, entries, then=then)


class ReadsWhatIsOld(Sometimes):
    old: Snapshot | None = None

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        if key != shared_sessions()[0]:
            return await super().get(key, window)
        if self.old is None or not self.now_and_then():
            self.old = await super().get(key, window)
        return self.old


class KeepsWhatWasDeleted(Sometimes):
    async def delete(self, key: SessionKey, *, expected: Expected = ANYTHING) -> None:
        self.broken += 1


class ForgetsASession(Sometimes):
    async def list_sessions(
        self, user: UserKey, limit: int, before: Position | None
    ) -> SessionSlice:
        found = await super().list_sessions(user, limit, before)
        if found.sessions and self.now_and_then():
            return msgspec.structs.replace(found, sessions=found.sessions[:-1])
        return found


class Late(Sometimes):
    """Carries some calls out once more, later on, as if a copy of them had been under way."""

    _MOST_CALLS = 100

    def __init__(self, retention: Retention) -> None:
        super().__init__(retention)
        self._copies: list[tuple[int, Copy]] = []
        self._calls = 0

    def note(self, copy: Copy) -> None:
        """Have a copy of a call carried out some calls from now, every seventh time."""
        if super().now_and_then():
            self._copies.append((self._calls + self._counted % self._MOST_CALLS, copy))

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        self._calls += 1
        due = [copy for moment, copy in self._copies if moment <= self._calls]
        self._copies = [each for each in self._copies if each[0] > self._calls]
        for copy in due:
            with suppress(AgentSessionError):
                await copy()
        return await super().get(key, window)


class DeletesLate(Late):
    async def delete(self, key: SessionKey, *, expected: Expected = ANYTHING) -> None:
        await super().delete(key, expected=expected)
        self.note(partial(super().delete, key, expected=expected))


class ErasesLate(Late):
    async def delete_user(self, user: UserKey) -> None:
        await super().delete_user(user)
        self.note(partial(super().delete_user, user))


class CreatesLate(Late):
    async def create(
        self, key: SessionKey, changes: Changes, *, token: str, beginning: Beginning = NEW
    ) -> Snapshot:
        self.note(partial(super().create, key, changes, token=token, beginning=beginning))
        return await super().create(key, changes, token=token, beginning=beginning)


class OpensLate(Late):
    async def get_or_create(self, key: SessionKey, changes: Changes, window: Window) -> Snapshot:
        self.note(partial(super().get_or_create, key, changes, window))
        return await super().get_or_create(key, changes, window)


class AppendsLate(Late):
    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        self.note(partial(super().append, key, entries, expected=expected))
        return await super().append(key, entries, expected=expected, then=then)


class UpdatesLate(Late):
    async def update_state(
        self, key: SessionKey, changes: Changes, *, expected: Expected = ANYTHING
    ) -> Receipt:
        self.note(partial(super().update_state, key, changes, expected=expected))
        return await super().update_state(key, changes, expected=expected)


class UpdatesAUserLate(Late):
    async def update_user_state(self, user: UserKey, changes: ScopeChanges) -> None:
        self.note(partial(super().update_user_state, user, changes))
        await super().update_user_state(user, changes)


class UpdatesAnApplicationLate(Late):
    async def update_app_state(self, app_name: str, changes: ScopeChanges) -> None:
        self.note(partial(super().update_app_state, app_name, changes))
        await super().update_app_state(app_name, changes)


class StoresLateWhatItGaveUp(Late):
    """Gives an append up, and stores it when others have been stored after it."""

    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        if super().now_and_then():
            due = self._calls + 5
            self._copies.append((due, partial(super().append, key, entries, expected=expected)))
            raise OutcomeUnknownError(key, "no reply in time")
        return await super().append(key, entries, expected=expected, then=then)


class LetsTwoWrite(Sometimes):
    """Takes any lease for held, so that a turn goes on that was interrupted."""

    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        try:
            return await super().append(key, entries, expected=expected, then=then)
        except LeaseLostError:
            if then == "close":
                raise
            self.broken += 1
            return await super().append(key, entries)


class StoresWhatItFencesOff(Sometimes):
    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        try:
            return await super().append(key, entries, expected=expected, then=then)
        except LeaseLostError:
            if self.now_and_then():
                await super().append(key, entries)
            raise


class GivesAnOldToken(Sometimes):
    async def acquire(
        self, key: SessionKey, claim: Claim, attempt: int, *, expected: Expected = ANYTHING
    ) -> Standing:
        standing = await super().acquire(key, claim, attempt, expected=expected)
        if standing.state == "held" and self.now_and_then():
            return msgspec.structs.replace(standing, token=1)
        return standing


class ForgetsAnEnd(Sometimes):
    """Takes a lease back, or a turn for closed, and does not store the event that says so."""

    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        receipt = await super().append(key, entries, expected=expected, then=then)
        if then == "close" and entries and self.now_and_then():
            log = self.log_of(key)
            log._payloads.pop()
            log._times.pop()
            log.count -= 1
        return receipt


class RaisesARawError(Sometimes):
    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        if self.now_and_then():
            msg = "'NoneType' object has no attribute 'read'"
            raise AttributeError(msg)
        return await super().get(key, window)
