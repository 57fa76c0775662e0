"""Deletes a session with all that belongs to it, or a user."""

from __future__ import annotations

import itertools
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Final

from agentsession.errors import AgentSessionError
from agentsession.events import new_id
from agentsession.redis._operations.failures import after_the_first
from agentsession.redis._scripts import load
from agentsession.sessions import SessionKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentsession.backend import Position
    from agentsession.redis._keys import Keyspace
    from agentsession.redis._operations.calls import Calls
    from agentsession.redis._operations.listing import Listing
    from agentsession.redis._operations.users import Users
    from agentsession.sessions import UserKey

__all__ = ["Erasing"]

_DELETE: Final = load("delete")

_AT_ONCE: Final = 100
_IN_PART: Final = "erased in part, the rest failed ({}); repeat it"


class Erasing:
    """Deletes sessions and users.

    Args:
        calls: Runs the scripts.
        keyspace: Names the keys.
        listing: Lists the sessions of a user.
        users: Lists the users of an application.
    """

    def __init__(self, calls: Calls, keyspace: Keyspace, listing: Listing, users: Users) -> None:
        self._calls = calls
        self._keyspace = keyspace
        self._listing = listing
        self._users = users

    async def session(self, key: SessionKey, incarnation: str) -> None:
        """Delete a session, if it is this one; ``""`` for any."""
        names = self._keyspace.session(key)
        words = _DELETE.words(id=new_id(), incarnation=incarnation, news=self._keyspace.news)
        keys = [names.index, names.calls, *names.own]
        reply = await self._calls.run(key, _DELETE, keys, [*words, key.session_id])
        if not reply[3]:
            with suppress(AgentSessionError):  # The session is deleted; others will look as well.
                await self._users.drop(key.user)

    async def user(self, user: UserKey) -> None:
        """Delete all sessions of a user, and the user's state.

        What is remembered of calls stays until no copy of one can come any more: ids by chance.
        """
        positions = await self._listing.positions(user, _AT_ONCE, None)
        if positions:
            await self._sessions(user, positions)
        with after_the_first(user, _IN_PART) if positions else nullcontext():
            while positions and (positions := await self._listing.positions(user, _AT_ONCE, None)):
                await self._sessions(user, positions)
            await self._delete(user, [self._keyspace.user(user)], [])
        with after_the_first(user, _IN_PART):
            await self._users.drop(user, erased=True)

    async def _sessions(self, user: UserKey, positions: Sequence[Position]) -> None:
        ids = [place.session_id for place in positions]
        keys = [
            self._keyspace.session(SessionKey(user.app_name, user.user_id, each)) for each in ids
        ]
        await self._delete(user, itertools.chain.from_iterable(key.own for key in keys), ids)

    async def _delete(self, user: UserKey, names: Iterable[str], ids: Sequence[str]) -> None:
        shared = (self._keyspace.index(user), self._keyspace.user_calls(user))
        words = _DELETE.words(id=new_id(), incarnation="", news=self._keyspace.news)
        await self._calls.run(user, _DELETE, [*shared, *names], [*words, *ids])
