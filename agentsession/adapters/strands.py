"""Strands: the ``Storage`` in which its agents keep snapshots, memories and what is offloaded.

::

    storage = Storage(blocking.open_service(url), app_name="shop", user_id="ada")
    agent = Agent(session_manager=SnapshotSessionManager("chat", storage=storage))

It is no conversation. Bytes are kept by their key, and the last write wins. Each key has a session
of the user ``strands:data:<user id>``, whose state holds the bytes in base64, and one of the user
``strands:keys:<user id>``, whose state holds their size, so that keys are listed without the bytes.

Agents call their storage on an event loop of the moment, also from within an agent that runs on
another one. So they need a :class:`~agentsession.blocking.BlockingSessionService`.

It needs an extra: ``pip install 'agentsession[strands]'``.
"""

from __future__ import annotations

import copy
from base64 import b64decode, b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from agentsession._extras import what_to_install

try:
    from strands.storage import InMemoryStorage
    from strands.storage import Storage as _Storage
    from strands.storage.search import KeywordSearchStrategy
    from strands.types.exceptions import StorageError
except ImportError as _cause:
    raise ImportError(what_to_install("this adapter", "strands", _cause)) from _cause

from agentsession.adapters._sessions.logs import Service, awaitable
from agentsession.errors import AgentSessionError, SessionNotFoundError
from agentsession.sessions import SessionKey, UserKey
from agentsession.state import DELETE

if TYPE_CHECKING:
    import builtins
    from collections.abc import Generator, Mapping

    from strands.storage.search import SearchStrategy, StorageSearchResult

__all__ = ["Storage"]

# Strands' own mark of a storage with a prefix, before which it puts none of its own. It has no
# public name.
_NAMESPACED: Final[object] = getattr(InMemoryStorage().namespace("-"), "_namespaced", None)

_PARTS: Final = "parts"
# What one call may write to state is 64 MiB, with the quotes and the number of parts; and this many
# names a write goes through, to leave nothing behind.
_MOST_BYTES: Final = 64 * 1024 * 1024 - 4096
_MOST_PARTS: Final = 1000


class Storage(_Storage[str, str]):
    """A ``Storage`` of Strands, kept by a service.

    A write takes effect in one step: readers see all of the old bytes, or all of the new ones, of
    which up to 48 MB can be stored. Nothing is left of the old ones.

    Keys are any strings but the empty one. A key that is deleted while others write it may still be
    listed afterwards, until it is deleted again.

    Args:
        service: Where bytes are kept; a :class:`~agentsession.blocking.BlockingSessionService`, if
            agents are to use it.
        app_name: The application.
        user_id: Whose bytes they are.
        search_strategy: Finds keys by what is stored there; Strands' search for words by default.

    Raises:
        TypeError: *service* is no service, or an id no string.
        ValueError: An id is empty.
    """

    def __init__(
        self,
        service: Service,
        *,
        app_name: str,
        user_id: str,
        search_strategy: SearchStrategy[Any] | None = None,
    ) -> None:
        self._service = awaitable(service)
        UserKey(app_name, user_id)  # Refuses what is no id.
        self._keys: UserKey = UserKey(app_name, f"strands:keys:{user_id}")
        self._data: UserKey = UserKey(app_name, f"strands:data:{user_id}")
        self._search_strategy = search_strategy
        self._prefix = ""

    def __repr__(self) -> str:
        return f"<Storage {self._keys} {self._prefix!r} of {self._service!r}>"

    def namespace(self, prefix: str) -> Self:
        """Return the part of this storage in which all keys begin with *prefix* and a slash.

        Args:
            prefix: What callers of that part do not see; slashes around it do not count.
        """
        bare = prefix.strip("/")
        scoped = copy.copy(self)
        own = f"{self._prefix}{bare}/" if bare else self._prefix
        vars(scoped).update(_prefix=own, _namespaced=_NAMESPACED)
        return scoped

    async def write(self, key: str, data: bytes) -> None:
        """Store bytes under a key, in the place of what is there.

        Raises:
            StorageError: The key is empty, the bytes are too many, or the service has failed.
        """
        with _failing("write", key):
            # Whatever is stored is listed, in the end; so this order, and the other one to delete.
            await self._update(self._place(self._data, key), self._parts(data))
            await self._update(self._place(self._keys, key), {"size": len(data)})
        if self._search_strategy is not None:
            with _failing("index", key, (Exception,)):
                await self._search_strategy.index(self, key, data)

    async def read(self, key: str) -> bytes | None:
        """Return the bytes under a key; ``None`` if there are none.

        Raises:
            StorageError: The key is empty, or the service has failed.
        """
        with _failing("read", key):
            place = self._place(self._data, key)
            session = await self._service.get_session(place, num_recent_events=0)
            if session is None or _PARTS not in session.state:
                return None
            parts = range(session.state[_PARTS])
            return b64decode("".join(session.state[_part(number)] for number in parts))

    async def delete(self, key: str) -> None:
        """Delete the bytes under a key; no error if there are none.

        Raises:
            StorageError: The key is empty, or the service has failed.
        """
        with _failing("delete", key):
            await self._service.delete_session(self._place(self._keys, key))
            await self._service.delete_session(self._place(self._data, key))

    async def list(self, query: str = "") -> builtins.list[str]:
        """Return the keys that begin with *query*, in their order; all keys are read, in pages.

        Raises:
            StorageError: The service has failed.
        """
        with _failing("list", query):
            found: builtins.list[str] = []
            cursor: str | None = None
            while True:
                page = await self._service.list_sessions(self._keys, limit=1000, cursor=cursor)
                found += [session.id for session in page.sessions]
                found += [session.key.session_id for session in page.unreadable]
                cursor = page.next_cursor
                if cursor is None:
                    break
        wanted, own = f"{self._prefix}{query}", len(self._prefix)
        return sorted(key[own:] for key in found if key.startswith(wanted))

    async def search(self, query: str) -> builtins.list[StorageSearchResult]:
        """Return the keys whose bytes match a query, the best ones first.

        Raises:
            StorageError: The service has failed.
        """
        strategy = self._search_strategy or KeywordSearchStrategy()
        return await strategy.search(self, query)

    def _place(self, owner: UserKey, key: str) -> SessionKey:
        if not key:
            msg = "a key must not be empty"
            raise ValueError(msg)
        return SessionKey(owner.app_name, owner.user_id, f"{self._prefix}{key}")

    def _parts(self, data: bytes) -> dict[str, Any]:
        """Return the changes to state that leave these bytes and nothing else."""
        size = self._service.max_value_size - 2  # The quotes of a JSON string.
        most = min(_MOST_PARTS * size, _MOST_BYTES)
        text = b64encode(data).decode()
        if len(text) > most:
            msg = f"{len(data):,} bytes are too many: up to {most * 3 // 4:,} can be stored"
            raise ValueError(msg)
        parts = [text[first : first + size] for first in range(0, len(text), size)]
        gone = {_part(number): DELETE for number in range(len(parts), most // size + 1)}
        kept = {_part(number): part for number, part in enumerate(parts)}
        return {_PARTS: len(parts), **kept, **gone}

    async def _update(self, place: SessionKey, state: Mapping[str, Any]) -> None:
        """Change the state of a session, and make the session if there is none."""
        while True:
            try:
                return await self._service.update_session_state(place, state)
            except SessionNotFoundError:
                # Made empty: a session remembers what it was made with, and this must be gone when
                # it is overwritten, as what is redacted.
                await self._service.get_or_create_session(place, num_recent_events=0)


def _part(number: int) -> str:
    return f"part {number}"


@contextmanager
def _failing(
    what: str,
    key: str,
    kinds: tuple[type[Exception], ...] = (AgentSessionError, ValueError, TypeError),
) -> Generator[None]:
    """Raise what Strands expects instead of the errors of this library, and of wrong arguments."""
    try:
        yield
    except kinds as cause:
        msg = f"failed to {what} {key!r:.200}: {cause}"
        raise StorageError(msg) from cause
