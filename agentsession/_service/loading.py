"""Loads a session with as many of its newest events as one read returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from agentsession._concurrently import caught
from agentsession._pace import Pace
from agentsession._service.assembly import assemble
from agentsession.backend import Snapshot
from agentsession.errors import (
    AgentSessionError,
    BackendError,
    OutcomeUnknownError,
    ReadTooLargeError,
    SessionNotFoundError,
)

if TYPE_CHECKING:
    from agentsession.backend import Backend, ReadLimit, Receipt, Window
    from agentsession.sessions import Session, SessionKey

__all__ = ["NOT_LOADED", "Loader", "Read"]

NOT_LOADED: Final = "it was carried out, and could not be loaded afterwards ({}); load it"
"""What is said of a write after which a session could not be read, for a reason."""

_LOST: Final = "the server has lost it since, as a failover may"

Read: TypeAlias = "Snapshot | AgentSessionError | None"
"""What a read gave: the session, an error, or that there was none."""


class Loader:
    """Loads sessions after a write to them.

    Args:
        backend: Keeps the sessions.
        read_limit: How much one read may return.
    """

    def __init__(self, backend: Backend, read_limit: ReadLimit | None) -> None:
        self._backend = backend
        self._read_limit = read_limit

    async def load(
        self, key: SessionKey, bounds: Window, receipt: Receipt, read: Read = None
    ) -> Session:
        """Load a session with its newest events, half as many until one read returns them.

        What is returned is of one moment, since it is what one read returned. A search would find
        all that fit, but each of its reads costs the server as much as this whole load.

        Args:
            key: The session.
            bounds: The events to load.
            receipt: A write to it, which is to be seen.
            read: What was read at the same time as that.

        Raises:
            OutcomeUnknownError: It could not be read, or the store does not have the write any
                more. An error of the read itself would say that nothing was written.
        """
        try:
            return await self._load(key, bounds, receipt, read)
        except BackendError as exc:
            raise OutcomeUnknownError(key, NOT_LOADED.format(exc.reason)) from exc

    async def _load(self, key: SessionKey, bounds: Window, receipt: Receipt, read: Read) -> Session:
        while not isinstance(read, Snapshot) or not _has(read, receipt):
            if isinstance(read, ReadTooLargeError):
                least = 1 if self._read_limit is None else self._read_limit.harmless
                most = max(read.events // 2, least)
                bounds = msgspec.structs.replace(bounds, last=most)
            elif isinstance(read, AgentSessionError):
                raise read
            read = await caught(self._backend.get(key, bounds), ReadTooLargeError)
            if read is None:
                raise SessionNotFoundError(key)
            # What was read before this may have been an earlier life, or what was there before the
            # write; this one came later.
            if isinstance(read, Snapshot) and read.incarnation != receipt.incarnation:
                raise SessionNotFoundError(key, replaced=True)
            if isinstance(read, Snapshot) and not _has(read, receipt):
                raise BackendError(key, _LOST)
        return await assemble(key, read, Pace())


def _has(snapshot: Snapshot, receipt: Receipt) -> bool:
    """Tell whether a session was read after a write to it."""
    return snapshot.incarnation == receipt.incarnation and snapshot.revision >= receipt.revision
