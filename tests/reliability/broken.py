"""Backends in memory that break one promise each, now and then, for the checker to notice."""

from __future__ import annotations

import asyncio

import msgspec

from agentsession.backend import ANYTHING, Receipt
from agentsession.errors import BackendUnavailableError, OutcomeUnknownError
from agentsession.memory import MemoryBackend
from agentsession.memory._records import Values
from agentsession.retention import Retention
from reliability.plan import shared_sessions

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

    def log_of(self, key):
        return self._need(key, self._clock()).log


class DropsAnEvent(Sometimes):
    async def append(self, key, entries, **options):
        receipt = await super().append(key, entries, **options)
        if self.now_and_then():
            log = self.log_of(key)
            log._payloads.pop()
            log._times.pop()
            log.count -= 1
        return receipt


class ReordersTwo(Sometimes):
    async def append(self, key, entries, **options):
        receipt = await super().append(key, entries, **options)
        payloads = self.log_of(key)._payloads
        if len(payloads) > 1 and self.now_and_then():
            payloads[-2:] = payloads[:-3:-1]
        return receipt


class LetsTheLaterOneOvertake(Sometimes):
    """Acknowledges a position one too far and puts the next event before it."""

    early = None

    async def append(self, key, entries, **options):
        receipt = await super().append(key, entries, **options)
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


def _at(receipt, seq):
    return msgspec.structs.replace(receipt, seqs=[seq])


class StoresAnEventTwice(Sometimes):
    async def append(self, key, entries, **options):
        receipt = await super().append(key, entries, **options)
        if self.now_and_then():
            self.log_of(key).add(entries[-1], self._clock())
        return receipt


class AppliesADeltaTwice(Sometimes):
    """Applies an older delta of a name once more after a newer one, as a careless retry does."""

    older = None

    async def append(self, key, entries, **options):
        receipt = await super().append(key, entries, **options)
        for changes in (entry.changes.session for entry in entries):
            for name in changes.keys() & (self.older or {}).keys():
                self.broken += 1
                self._need(key, self._clock()).state.change({name: self.older[name]})
            self.older = {**(self.older or {}), **changes}
        return receipt


class LosesADelta(Sometimes):
    async def append(self, key, entries, **options):
        before = self._need(key, self._clock()).state.read()
        receipt = await super().append(key, entries, **options)
        if self.now_and_then():
            state = self._need(key, self._clock()).state = Values()
            state.change(before)
        return receipt


class LosesAnUpdate(Sometimes):
    async def update_user_state(self, user, changes):
        if not self.now_and_then():
            await super().update_user_state(user, changes)


class AnswersWithAnotherSession(Sometimes):
    async def get(self, key, window):
        other = shared_sessions()[0] if self.now_and_then() else key
        return await super().get(other, window)


class ShowsAnothersState(Sometimes):
    async def get(self, key, window):
        snapshot = await super().get(key, window)
        if snapshot is not None and self.now_and_then():
            merged = {}
            for user in self._users.values():
                merged |= user.scope.values.read() if user.scope else {}
            return msgspec.structs.replace(snapshot, user=merged)
        return snapshot


class ForgetsTheLimit(Sometimes):
    async def append(self, key, entries, **options):
        kept = self.retention
        if self.now_and_then():
            self.retention = Retention()
        try:
            return await super().append(key, entries, **options)
        finally:
            self.retention = kept


class StoresHalfABatch(Sometimes):
    async def append(self, key, entries, **options):
        if len(entries) > 1 and self.now_and_then():
            await super().append(key, entries[: len(entries) // 2], **options)
            raise OutcomeUnknownError(key, "half of it")
        return await super().append(key, entries, **options)


class StoresWhatItRefuses(Sometimes):
    async def append(self, key, entries, **options):
        receipt = await super().append(key, entries, **options)
        if self.now_and_then():
            raise BackendUnavailableError(key, "nothing was written")
        return receipt


class IgnoresTheRevision(Sometimes):
    async def get(self, key, window):
        snapshot = await super().get(key, window)
        await asyncio.sleep(0)
        return snapshot

    async def append(self, key, entries, *, expected=ANYTHING):
        self.broken += expected.revision not in (None, self._need(key, self._clock()).revision)
        return await super().append(key, entries)


class ReadsWhatIsOld(Sometimes):
    old = None

    async def get(self, key, window):
        if key != shared_sessions()[0]:
            return await super().get(key, window)
        if self.old is None or not self.now_and_then():
            self.old = await super().get(key, window)
        return self.old


class KeepsWhatWasDeleted(Sometimes):
    async def delete(self, key, **options):
        self.broken += 1


class ForgetsASession(Sometimes):
    async def list_sessions(self, user, limit, before):
        found = await super().list_sessions(user, limit, before)
        if self.now_and_then():
            found.sessions.pop()
        return found


class RaisesARawError(Sometimes):
    async def get(self, key, window):
        if self.now_and_then():
            msg = "'NoneType' object has no attribute 'read'"
            raise AttributeError(msg)
        return await super().get(key, window)
