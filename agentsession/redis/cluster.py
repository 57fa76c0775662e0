"""A cluster: application state lives in another slot than the sessions that change it.

A user's data share a slot, so each operation on them is one script as on one server. State of the
scope ``app`` is in a slot of its own: where an operation changes it too, that is a second step.

- The second step comes after the first, so that a refused write changes nothing.
- It is taken once, however often it is tried: it has the id of the first, which its slot remembers
  for a minute at least. A repeat of the write within that time, which finds its first step taken,
  takes the second one if it is missing.
- Both run in a task of their own: a cancelled caller does not stop between them.

So it is missing only if the process dies between the two steps, and the write is not repeated
within a minute.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from agentsession.backend import ANYTHING, Expected
from agentsession.codec import decode_event
from agentsession.events import new_id
from agentsession.redis._scripts.words import change_triples
from agentsession.redis.backend import RedisBackend
from agentsession.redis.failures import after_the_first
from agentsession.redis.replies import check_appended, read_receipt
from agentsession.retention import LARGEST
from agentsession.state import split

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping, Sequence

    from agentsession.backend import Entry, Position, Receipt, SessionSlice, Snapshot, Window
    from agentsession.redis._links.link import Link
    from agentsession.retention import Retention
    from agentsession.sessions import SessionKey, UserKey
    from agentsession.state import Changes, ScopeChanges

__all__ = ["ClusterBackend"]

_T = TypeVar("_T")

# The margin of lib/once.lua, in microseconds: so long it is known whether a step was taken.
_REMEMBERED: Final = 60_000_000
_WRITTEN: Final = "the session was written, the rest failed ({}); repeat it within a minute"


class ClusterBackend(RedisBackend):
    """A :class:`~agentsession.redis.backend.RedisBackend` on a cluster, by this module's rules."""

    def __init__(self, retention: Retention, link: Link, *, key_prefix: str = "") -> None:
        super().__init__(retention, link, key_prefix=key_prefix, clustered=True)
        self._under_way: set[asyncio.Task[Any]] = set()

    async def aclose(self) -> None:
        try:
            while self._under_way:
                await asyncio.wait(self._under_way)
        finally:
            await super().aclose()

    async def _make(
        self, key: SessionKey, changes: Changes, window: Window, token: str, *, take: bool
    ) -> tuple[bool, Snapshot | None]:
        first = super()._make(key, _without_app(changes), window, token, take=take)

        async def both() -> tuple[bool, Snapshot | None]:
            made, snapshot = await first
            with after_the_first(key, _WRITTEN) if made else nullcontext():
                if made and changes.app:
                    await self._second_step(key, changes.app, token)
                return made, snapshot and await self._with_app(key.app_name, snapshot)

        return await (self._to_the_end(both()) if changes.app else both())

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        snapshot = await super().get(key, window)
        return snapshot and await self._with_app(key.app_name, snapshot)

    async def list_sessions(
        self, user: UserKey, limit: int, before: Position | None
    ) -> SessionSlice:
        found = await super().list_sessions(user, limit, before)
        # To list is not to read: nothing is refreshed.
        app = await self._scopes.get_app(user.app_name, refresh=False)
        sessions = [msgspec.structs.replace(each, app=app) for each in found.sessions]
        return msgspec.structs.replace(found, sessions=sessions)

    async def append(
        self, key: SessionKey, entries: Sequence[Entry], *, expected: Expected = ANYTHING
    ) -> Receipt:
        if not any(entry.changes.app for entry in entries):
            return await super().append(key, entries, expected=expected)
        without = [
            msgspec.structs.replace(entry, changes=_without_app(entry.changes)) for entry in entries
        ]
        first = self._appending(key, without, expected)

        async def both() -> Receipt:
            reply = await first
            check_appended(key, expected, reply)
            receipt, moments = read_receipt(key, reply)
            with after_the_first(key, _WRITTEN):
                for event_id, changes in _to_follow(entries, receipt, moments, now=reply[2]):
                    step = f"{receipt.incarnation} {event_id}"
                    await self._second_step(key, changes, step)
            return receipt

        return await self._to_the_end(both())

    async def update_state(
        self, key: SessionKey, changes: Changes, *, expected: Expected = ANYTHING
    ) -> Receipt:
        if not changes.app:
            return await super().update_state(key, changes, expected=expected)
        # The session's part of the write moves its revision and expiry, also where it changes
        # nothing else; to delete a name that no state has changes nothing.
        triples = change_triples(_without_app(changes)) or [("S", "", b"")]
        call_id = new_id()
        first = self._update(key, triples, "u" if changes.user else "", call_id, expected)

        async def both() -> Receipt:
            receipt = await first
            with after_the_first(key, _WRITTEN):
                await self._second_step(key, changes.app, call_id)
            return receipt

        return await self._to_the_end(both())

    async def _second_step(self, key: SessionKey, changes: ScopeChanges, step: str) -> None:
        await self._scopes.update_app(key.app_name, changes, step)

    async def _with_app(self, app_name: str, snapshot: Snapshot) -> Snapshot:
        return msgspec.structs.replace(snapshot, app=await self.get_app_state(app_name))

    async def _to_the_end(self, steps: Coroutine[Any, Any, _T]) -> _T:
        """Run steps that a cancelled caller must not stop between."""
        task = asyncio.create_task(steps)
        self._under_way.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # A caller that was cancelled will not ask for it.


def _to_follow(
    entries: Sequence[Entry], receipt: Receipt, moments: Mapping[int, int], *, now: int
) -> Iterator[tuple[str, ScopeChanges]]:
    """Tell what is to follow in the second step, by the ids of the events that ask for it.

    Of an event that was stored before it is what that one asks for, and only as long as it is known
    whether it was done.
    """
    for index, entry in enumerate(entries):
        stored = receipt.repeats.get(index, entry.payload)
        # What a trimmed one asked for is not known any more.
        changes = entry.changes.app if stored == entry.payload else _changes_to_app(stored)
        if changes and (index not in moments or now - moments[index] < _REMEMBERED):
            yield entry.event_id, changes


def _changes_to_app(payload: bytes) -> ScopeChanges:
    """Read what a stored event does to the application's state; nothing if that cannot be read."""
    try:
        return split(decode_event(payload).state_delta, LARGEST).app
    except ValueError:
        return {}


def _without_app(changes: Changes) -> Changes:
    return msgspec.structs.replace(changes, app={}) if changes.app else changes
