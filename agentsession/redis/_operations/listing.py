"""A user's list of sessions, which is read from an index and from each session's record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentsession._pace import Pace
from agentsession._wording import described_app
from agentsession.backend import Position, SessionSlice, Snapshot
from agentsession.redis._operations.replies import read_count, read_names, read_summary, read_text
from agentsession.redis._scripts import load
from agentsession.redis._scripts.words import number
from agentsession.sessions import SessionKey, UnreadableSession, UserKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.redis._keys import Keyspace
    from agentsession.redis._operations.calls import Calls

__all__ = ["Listing"]

_LIST: Final = load("list")
_PRUNE: Final = load("prune")
_SUMMARIES: Final = load("summaries")


class Listing:
    """Reads the lists of sessions.

    Args:
        calls: Runs the scripts.
        keyspace: Names the keys.
    """

    def __init__(self, calls: Calls, keyspace: Keyspace) -> None:
        self._calls = calls
        self._keyspace = keyspace

    async def page(self, user: UserKey, limit: int, before: Position | None) -> SessionSlice:
        """Read up to *limit* sessions, newest activity first, from *before* on."""
        found: list[Snapshot | UnreadableSession] = []
        end: Position | None = None
        while len(found) <= limit:
            # One more than asked for tells whether the list goes on.
            wanted = limit + 1 - len(found)
            positions = await self.positions(user, wanted, before)
            for position, summary in zip(
                positions, await self._summaries(user, positions), strict=True
            ):
                before = position
                if summary is not None:
                    found.append(summary)
                    if len(found) == limit:
                        end = position
            if len(positions) < wanted:
                break
        page = found[:limit]
        return SessionSlice(
            [each for each in page if isinstance(each, Snapshot)],
            end if len(found) > limit else None,
            [each for each in page if isinstance(each, UnreadableSession)],
        )

    async def positions(
        self, user: UserKey, wanted: int, before: Position | None
    ) -> list[Position]:
        """Read a run of the index; entries of equal score are in the order of their ids' bytes."""
        extra = 1
        while True:
            highest = "+inf" if before is None else number(before.updated)
            reply = await self._calls.run(
                user,
                _LIST,
                [self._keyspace.index(user)],
                _LIST.words(highest=highest, limit=number(wanted + extra)),
            )
            flat = reply[2]
            positions = [
                Position(read_count(user, "an activity", score), read_text(user, name))
                for name, score in zip(flat[::2], flat[1::2], strict=True)
            ]
            complete = len(positions) < wanted + extra
            if before is not None:
                limit = (before.updated, before.session_id.encode())
                positions = [
                    place
                    for place in positions
                    if (place.updated, place.session_id.encode()) < limit
                ]
            if complete or len(positions) >= wanted:
                return positions[:wanted]
            extra *= 4  # Many sessions were active in the same microsecond.

    async def _summaries(
        self, user: UserKey, positions: Sequence[Position]
    ) -> list[Snapshot | UnreadableSession | None]:
        """Read the sessions at these positions; ``None`` for one that has expired."""
        if not positions:
            return []
        keys = [SessionKey(user.app_name, user.user_id, place.session_id) for place in positions]
        names = [self._keyspace.index(user), self._keyspace.user(user)]
        names += [self._keyspace.session(key).session for key in keys]
        names += self._keyspace.app_beside(user.app_name)
        ids = [place.session_id for place in positions]
        _, _, user_fields, app_fields, sessions = await self._calls.run(
            user, _SUMMARIES, names, ids
        )
        app = await read_names(described_app(user.app_name), app_fields or ())
        shared = await read_names(user, user_fields)
        pace = Pace()
        found: list[Snapshot | UnreadableSession | None] = []
        for key, fields in zip(keys, sessions, strict=True):
            if pace.due():
                await pace.rest()
            found.append(await read_summary(key, fields, app, shared))
        return found

    async def prune(self, user: UserKey, session_ids: Sequence[bytes]) -> None:
        """Take those of these sessions that have expired out of the index."""
        ids = [read_text(user, session_id) for session_id in session_ids]
        names = [
            self._keyspace.session(SessionKey(user.app_name, user.user_id, each)).session
            for each in ids
        ]
        await self._calls.run(user, _PRUNE, [self._keyspace.index(user), *names], ids)
