"""A cluster: application state lives in another slot than the sessions that change it.

A user's data share a slot, so each operation on them is one script as on one server. State of the
scope ``app`` is in a slot of its own: where an operation changes it too, that is a second step.

- The second step comes after the first, so that a refused write changes nothing.
- It is taken once, however often it is tried: it carries a name, and its slot remembers those.
  A repeat of the write, which finds its first step taken, tries the second one again.
- Both run in a task of their own: a cancelled caller does not stop between them.

So it is missing only if the process dies between the two steps, until the write is repeated.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from agentsession._wording import described_app
from agentsession.backend import Snapshot
from agentsession.errors import BackendError, OutcomeUnknownError
from agentsession.events import new_id
from agentsession.redis.backend import RedisBackend

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Sequence

    from agentsession.backend import Entry, Position, Receipt, Window
    from agentsession.redis.link import Link
    from agentsession.retention import Retention
    from agentsession.sessions import SessionKey, UnreadableSession, UserKey
    from agentsession.state import Changes, ScopeChanges

__all__ = ["ClusterBackend"]

_T = TypeVar("_T")


class ClusterBackend(RedisBackend):
    """A :class:`~agentsession.redis.backend.RedisBackend` on a cluster, by this module's rules."""

    def __init__(self, retention: Retention, link: Link, *, key_prefix: str = "") -> None:
        super().__init__(retention, link, key_prefix=key_prefix)
        self._steps: set[asyncio.Task[Any]] = set()

    async def aclose(self) -> None:
        try:
            if self._steps:
                await asyncio.wait(self._steps)
        finally:
            await super().aclose()

    def _app_keys(self, app_name: str) -> list[str]:  # noqa: ARG002 - none, whatever its name
        return []

    async def _open(
        self, key: SessionKey, changes: Changes, window: Window, *, token: str, take: bool
    ) -> tuple[bool, Snapshot]:
        first = super()._open(key, _without_app(changes), window, token=token, take=take)

        async def both() -> tuple[bool, Snapshot]:
            made, snapshot = await first
            if not made:
                return made, await self._with_app(key.app_name, snapshot)
            with _after_the_first(key):
                if changes.app:
                    await self._second_step(key, changes.app, token)
                return made, await self._with_app(key.app_name, snapshot)

        return await (self._to_the_end(both()) if changes.app else both())

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        snapshot = await super().get(key, window)
        return snapshot and await self._with_app(key.app_name, snapshot)

    async def _summaries(
        self, user: UserKey, positions: Sequence[Position]
    ) -> list[Snapshot | UnreadableSession | None]:
        found = await super()._summaries(user, positions)
        name = self._keyspace.app(user.app_name)
        app = await self._get_scope(described_app(user.app_name), name, "", 0)
        return [
            msgspec.structs.replace(each, app=app) if isinstance(each, Snapshot) else each
            for each in found
        ]

    async def append(
        self, key: SessionKey, entries: Sequence[Entry], *, expected_revision: int | None = None
    ) -> Receipt:
        # Of entries with one id the first is stored, and the others are repeats of it.
        first_of_each = {entry.event_id: entry for entry in reversed(entries)}
        changing = [
            entry
            for entry in entries
            if entry.changes.app and first_of_each[entry.event_id] is entry
        ]
        first = super().append(
            key,
            [
                msgspec.structs.replace(entry, changes=_without_app(entry.changes))
                for entry in entries
            ],
            expected_revision=expected_revision,
        )

        async def both() -> Receipt:
            receipt = await first
            for entry in changing:
                name = f"{receipt.created} {entry.event_id}"
                with _after_the_first(key):
                    await self._second_step(key, entry.changes.app, name)
            return receipt

        return await (self._to_the_end(both()) if changing else first)

    async def update_state(self, key: SessionKey, changes: Changes) -> Receipt:
        others = _without_app(changes)
        # The session's part of the write moves its revision and expiry, also where it changes
        # nothing else; to delete a name that no state has changes nothing.
        first = (
            super().update_state(key, others)
            if others or not changes.app
            else self._update(key, [("S", "", b"")])
        )

        async def both() -> Receipt:
            receipt = await first
            with _after_the_first(key):
                await self._second_step(key, changes.app, new_id())
            return receipt

        return await (self._to_the_end(both()) if changes.app else first)

    async def _second_step(self, key: SessionKey, changes: ScopeChanges, name: str) -> None:
        """Change application state, unless a step of this name of the session's did already."""
        await self._update_scope(
            key,
            [self._keyspace.app(key.app_name), self._keyspace.steps(key.app_name)],
            changes,
            self.retention.app_state_ttl,
            call=f"{self._keyspace.session(key).session} {name}",
            remembered=self.retention.app_state_ttl,
        )

    async def _with_app(self, app_name: str, snapshot: Snapshot) -> Snapshot:
        return msgspec.structs.replace(snapshot, app=await self.get_app_state(app_name))

    async def _to_the_end(self, steps: Coroutine[Any, Any, _T]) -> _T:
        """Run steps that a cancelled caller must not stop between."""
        task = asyncio.create_task(steps)
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        return await asyncio.shield(task)


@contextmanager
def _after_the_first(key: SessionKey) -> Generator[None]:
    """Tell a failure between the steps from one in which nothing was written."""
    try:
        yield
    except OutcomeUnknownError:
        raise
    except BackendError as exc:
        reason = f"the session was written, what follows failed ({exc.reason}); repeat it"
        raise OutcomeUnknownError(key, reason) from exc


def _without_app(changes: Changes) -> Changes:
    return msgspec.structs.replace(changes, app={}) if changes.app else changes
