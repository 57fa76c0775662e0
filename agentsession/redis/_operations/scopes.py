"""State of the scopes app and user, each a hash of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentsession._wording import described_app
from agentsession.redis._operations.replies import read_names
from agentsession.redis._scripts import load
from agentsession.redis._scripts.words import flag, number, scope_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.redis._keys import Keyspace
    from agentsession.redis._operations.calls import Calls
    from agentsession.redis._operations.failures import Subject
    from agentsession.retention import Retention
    from agentsession.sessions import UserKey
    from agentsession.state import ScopeChanges

__all__ = ["Scopes"]

_GET: Final = load("get_scope")
_UPDATE: Final = load("update_scope")


class Scopes:
    """Reads and changes what sessions share.

    Args:
        calls: Runs the scripts.
        keyspace: Names the keys.
        retention: How long it is kept.
    """

    def __init__(self, calls: Calls, keyspace: Keyspace, retention: Retention) -> None:
        self._calls = calls
        self._keyspace = keyspace
        self._app_ttl = number(retention.app_state_ttl)
        self._user_ttl = number(retention.user_state_ttl)

    async def update_app(self, app_name: str, changes: ScopeChanges, call_id: str) -> None:
        """Change an application's state, unless a call with this id has already done so."""
        keys = [self._keyspace.app(app_name), self._keyspace.app_calls(app_name)]
        await self._update(described_app(app_name), keys, changes, call_id, self._app_ttl)

    async def update_user(self, user: UserKey, changes: ScopeChanges, call_id: str) -> bool:
        """Change a user's state, unless a call with this id has already done so.

        Returns:
            Whether there is any left.
        """
        keys = [
            *(self._keyspace.user(user), self._keyspace.user_calls(user)),
            *self._keyspace.users_beside(user.app_name),
        ]
        ttl, user_id = self._user_ttl, user.user_id
        return await self._update(user, keys, changes, call_id, ttl, user_id)

    async def _update(
        self,
        subject: Subject,
        keys: Sequence[str],
        changes: ScopeChanges,
        call_id: str,
        ttl: str,
        user_id: str = "",
    ) -> bool:
        words = _UPDATE.words(id=call_id, user_id=user_id, ttl=ttl)
        reply = await self._calls.run(subject, _UPDATE, keys, words + scope_words("s", "", changes))
        return bool(reply[3])

    async def get_app(self, app_name: str, *, refresh: bool) -> dict[str, bytes]:
        """Read an application's state; *refresh* moves its expiry."""
        name = self._keyspace.app(app_name)
        return await self._get(described_app(app_name), name, self._app_ttl, refresh=refresh)

    async def get_user(self, user: UserKey, *, refresh: bool) -> dict[str, bytes]:
        """Read a user's state; *refresh* moves its expiry."""
        return await self._get(user, self._keyspace.user(user), self._user_ttl, refresh=refresh)

    async def _get(
        self, subject: Subject, name: str, ttl: str, *, refresh: bool
    ) -> dict[str, bytes]:
        words = _GET.words(refresh=flag(refresh), ttl=ttl)
        reply = await self._calls.run(subject, _GET, [name], words)
        return await read_names(subject, reply[2])
