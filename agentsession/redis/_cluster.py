"""A cluster: application state lives in another slot than the sessions that change it.

A user's data share a slot, so each operation on them is one script as on one server. State of the
scope ``app`` is in a slot of its own: where an operation changes it too, that is a second step. The
list of an application's users is in that slot too: a user is put on it in a step before the first.

- The second step comes after the first, so that a refused write changes nothing.
- It is taken once, however often it is tried: it has the id of the first, which its slot remembers
  for a minute at least. A repeat of the write within that time, which finds its first step taken,
  takes the second one if it is missing.
- It is taken by a task of its own once the first one was sent: a cancelled caller does not stop
  between them.

So it is missing only if the process dies between the two steps, or the first one has no answer or
the second one fails within the deadline, which is an error, and the write is not repeated within a
minute. A creation cannot be repeated: whoever gets such an error sets the names anew.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, nullcontext
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from agentsession.backend import ANYTHING, Expected
from agentsession.codec import decode_event
from agentsession.errors import BackendUnavailableError, OutcomeUnknownError
from agentsession.events import new_id
from agentsession.redis._backend import NO_ORIGIN, Origin, RedisBackend
from agentsession.redis._links.link import Rest
from agentsession.redis._operations.failures import after_the_first
from agentsession.redis._operations.replies import (
    check_appended,
    read_receipt,
    read_updated,
    was_made,
)
from agentsession.redis._scripts.words import change_words, size_of
from agentsession.retention import LARGEST
from agentsession.state import split

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence

    from agentsession.backend import (
        Entry,
        Position,
        Receipt,
        SessionSlice,
        Snapshot,
        Then,
        Window,
    )
    from agentsession.redis._links.link import Link
    from agentsession.retention import Retention
    from agentsession.sessions import SessionKey, UserKey
    from agentsession.state import Changes, ScopeChanges

__all__ = ["ClusterBackend"]

_T = TypeVar("_T")

# The margin of lib/once.lua, in microseconds: so long it is known whether a step was taken.
_REMEMBERED: Final = 60_000_000
# In seconds: what is made later than that after its user was listed may come when the list is not
# protected any more, which it is for a minute more than the call may take.
_STANDSTILL: Final = 30.0
_WRITTEN: Final = "the session was written, the rest failed ({}); repeat it within a minute"
_WRITTEN_OR_NOT: Final = (
    "no sure answer from the server ({}): it was written, perhaps without its app: names, or not "
    "at all; repeat it within a minute"
)
_MADE: Final = (
    "the session was made, the rest failed ({}); load it, and set its app: names anew, which may "
    "be lacking"
)
_MADE_OR_NOT: Final = (
    "no sure answer from the server ({}): it was made, perhaps without its app: names, or not at "
    "all; load it, and set these names anew, or make it"
)
_NOT_LISTED: Final = "the application's list of users is out of reach, so nothing was made: {}"


class ClusterBackend(RedisBackend):
    """A :class:`~agentsession.redis._backend.RedisBackend` on a cluster, by this module's rules."""

    def __init__(self, retention: Retention, link: Link, *, key_prefix: str = "") -> None:
        super().__init__(retention, link, key_prefix=key_prefix, clustered=True)
        # What closing waits for: writes of two steps, and those that go on without a caller.
        self._under_way: set[asyncio.Future[Any]] = set()

    async def aclose(self) -> None:
        try:
            while self._under_way:
                await asyncio.wait(self._under_way)
        finally:
            await super().aclose()

    async def _make(
        self,
        key: SessionKey,
        changes: Changes,
        window: Window,
        token: str,
        *,
        take: bool,
        origin: Origin = NO_ORIGIN,
    ) -> tuple[bool, Snapshot | None]:
        with self._waited_for():
            made, snapshot = await super()._make(
                key, changes, window, token, take=take, origin=origin
            )
            if snapshot is not None:
                with after_the_first(key, _MADE) if made else nullcontext():
                    snapshot = await self._with_app(key.app_name, snapshot)
        return made, snapshot

    async def _call_make(
        self,
        key: SessionKey,
        changes: Changes,
        window: Window,
        token: str,
        *,
        take: bool,
        origin: Origin = NO_ORIGIN,
        rest: Rest | None = None,
    ) -> list[Any]:
        size = size_of(changes.app, changes.user, changes.session)
        loop = asyncio.get_running_loop()
        began = -inf
        while loop.time() - began > _STANDSTILL:  # Of this process, since the user was listed.
            began = loop.time()
            await self._enlist(key.user, size, session=True, state=bool(changes.user))
        if not changes.app:
            return await super()._call_make(key, changes, window, token, take=take, origin=origin)

        async def follow(reply: list[Any]) -> list[Any]:
            if was_made(reply):
                with after_the_first(key, _MADE):
                    await self._second_step(key, changes.app, token)
            return reply

        rest = self._rest([changes.app], follow)
        first = super()._call_make(key, _without_app(changes), window, token, take=take, rest=rest)
        with _told(key, _MADE_OR_NOT):
            reply = await first
        return await self._to_the_end(follow(reply))

    async def _tidy_up(
        self, user: UserKey, sessions: Sequence[bytes], users: Sequence[bytes]
    ) -> None:
        # Beside the call, which must not be cancelled here, between its steps.
        self._begin(super()._tidy_up(user, sessions, users))

    async def _enlist(self, user: UserKey, size: int, *, session: bool, state: bool) -> None:
        """Put a user on the list of the application's before anything is made.

        Raises:
            BackendUnavailableError: That failed, or it is not known whether it did: in any case
                nothing else was done.
        """
        # What is to be made is in memory meanwhile.
        rest = Rest(size) if size else None
        try:
            some = await self._users.enlist(user, session=session, state=state, rest=rest)
        except (BackendUnavailableError, OutcomeUnknownError) as exc:
            raise BackendUnavailableError(user, _NOT_LISTED.format(exc.reason)) from exc.__cause__
        if some:
            await self._tidy_up(user, [], some)

    async def _get(
        self, key: SessionKey, window: Window, rest: Rest | None = None
    ) -> Snapshot | None:
        snapshot = await super()._get(key, window, rest)
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
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        if not any(entry.changes.app for entry in entries):
            return await super().append(key, entries, expected=expected, then=then)
        without = [
            msgspec.structs.replace(entry, changes=_without_app(entry.changes)) for entry in entries
        ]

        began = monotonic()

        async def follow(reply: list[Any]) -> Receipt:
            check_appended(key, expected, reply, entries[0].rewind)
            receipt, moments = read_receipt(key, reply)
            # A call that was sent once has not stored what its answer says was stored before.
            since = int((monotonic() - began) * 1_000_000) if rest.repeated else -1
            due = _to_follow(entries, receipt, moments, now=reply[2], since=since)
            with after_the_first(key, _WRITTEN):
                for event_id, changes in due:
                    step = f"{receipt.incarnation} {event_id}"
                    await self._second_step(key, changes, step)
            return receipt

        rest = self._rest([entry.changes.app for entry in entries], follow)
        first = self._appending.call(key, without, expected, then, rest)
        with self._waited_for():
            with _told(key, _WRITTEN_OR_NOT):
                reply = await first
            return await self._to_the_end(follow(reply))

    async def update_state(
        self, key: SessionKey, changes: Changes, *, expected: Expected = ANYTHING
    ) -> Receipt:
        if not changes.app:
            return await super().update_state(key, changes, expected=expected)
        # The session's part of the write moves its revision and expiry, also where it changes
        # nothing else; to delete a name that no state has changes nothing.
        words = change_words(_without_app(changes)) or ["S", "", b""]
        call_id = new_id()

        async def follow(reply: list[Any]) -> Receipt:
            if reply[1] in {b"ok", b"gone"}:
                with after_the_first(key, _WRITTEN):
                    await self._second_step(key, changes.app, call_id)
            return read_updated(key, reply)

        rest = self._rest([changes.app], follow)
        scopes = "u" if changes.user else ""
        with self._waited_for():
            with _told(key, _WRITTEN_OR_NOT):
                reply = await self._call_update(key, words, scopes, call_id, expected, rest)
            return await self._to_the_end(follow(reply))

    async def update_user_state(self, user: UserKey, changes: ScopeChanges) -> None:
        if set(changes.values()) - {None}:
            await self._enlist(user, size_of(changes), session=False, state=True)
        await super().update_user_state(user, changes)

    async def _second_step(self, key: SessionKey, changes: ScopeChanges, step: str) -> None:
        await self._scopes.update_app(key.app_name, changes, step)

    async def _with_app(self, app_name: str, snapshot: Snapshot) -> Snapshot:
        return msgspec.structs.replace(snapshot, app=await self.get_app_state(app_name))

    def _rest(
        self,
        changes: Sequence[ScopeChanges],
        follow: Callable[[list[Any]], Coroutine[Any, Any, Any]],
    ) -> Rest:
        """Say what is to follow a first step that was sent, though its caller was cancelled."""

        async def both(first: asyncio.Future[list[Any]]) -> None:
            await follow(await first)

        def go_on(first: asyncio.Future[list[Any]]) -> None:
            self._begin(both(first))

        return Rest(size_of(*changes), go_on)

    @contextmanager
    def _waited_for(self) -> Generator[None]:
        """Let closing wait until this block ends, whose second step would come too late."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.add(ended)
        try:
            yield
        finally:
            self._under_way.discard(ended)
            ended.set_result(None)

    async def _to_the_end(self, steps: Coroutine[Any, Any, _T]) -> _T:
        """Run steps that a cancelled caller must not stop between."""
        return await asyncio.shield(self._begin(steps))

    def _begin(self, steps: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(steps)
        self._under_way.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # A caller that was cancelled will not ask for it.


@contextmanager
def _told(key: SessionKey, said: str) -> Generator[None]:
    """Say what is not known of two steps, if it is not known of the first."""
    try:
        yield
    except OutcomeUnknownError as exc:
        raise OutcomeUnknownError(key, said.format(exc.__cause__)) from exc.__cause__


def _to_follow(
    entries: Sequence[Entry], receipt: Receipt, moments: Mapping[int, int], *, now: int, since: int
) -> Iterator[tuple[str, ScopeChanges]]:
    """Tell what is to follow in the second step, by the ids of the events that ask for it.

    *now* is the server's present and *since* how long ago the call began, in microseconds, or
    negative if no copy of it can have run before the one that was answered.
    Of an event that was stored before it is what that one asks for, and only as long as it is known
    whether it was done. What one asked for that the limit has trimmed is known only if it was
    stored by a copy of this very call, which is when it is as young as that.
    """
    for index, entry in enumerate(entries):
        age = now - moments.get(index, now)
        stored = receipt.repeats.get(index, entry.payload)
        if stored == entry.payload or (not stored and age <= since):
            changes = entry.changes.app
        else:
            changes = _changes_to_app(stored)
        if changes and age < _REMEMBERED:
            yield entry.event_id, changes


def _changes_to_app(payload: bytes) -> ScopeChanges:
    """Read what a stored event does to the application's state; nothing if that cannot be read."""
    try:
        return split(decode_event(payload).state_delta, LARGEST).app
    except ValueError:
        return {}


def _without_app(changes: Changes) -> Changes:
    return msgspec.structs.replace(changes, app={}) if changes.app else changes
