"""Lists of checkpoints: of a namespace, of a thread, or of all threads."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentsession._concurrently import concurrently
from agentsession.adapters._langgraph.log import EVENTS_EACH
from agentsession.adapters._langgraph.upkeep import all_threads, newest_first
from agentsession.errors import SessionNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agentsession.adapters._langgraph.access import Access, Thread
    from agentsession.adapters._langgraph.log import Log, NewestFirst
    from agentsession.adapters._langgraph.records import IndexEntry, Loaded, Packed
    from agentsession.service import SessionService

__all__ = ["Listing", "Wanted"]

# How many checkpoints are loaded at once.
_AT_ONCE: Final = 16


@dataclass(frozen=True)
class Wanted:
    """Which checkpoints a list has.

    Attributes:
        thread_id: Those of this thread; ``None`` for those of all threads.
        namespace: Those of this namespace; ``None`` for those of all.
        checkpoint_id: This one only, if one is named.
        before: Those with a smaller id, if one is named.
        metadata: Tells by its metadata whether one is wanted; ``None`` if every one is.
        limit: The most that are wanted; ``None`` for any number.
    """

    thread_id: str | None
    namespace: str | None
    checkpoint_id: str
    before: str
    metadata: Callable[[Packed], bool] | None
    limit: int | None

    def has(self, checkpoint_id: str) -> bool:
        """Tell by its id whether a checkpoint is wanted."""
        if self.checkpoint_id and checkpoint_id != self.checkpoint_id:
            return False
        return not self.before or checkpoint_id < self.before


class Listing:
    """The checkpoints of a list, some at a time, the largest id first.

    Args:
        access: Finds the threads.
        wanted: Which checkpoints they are.
    """

    def __init__(self, access: Access, wanted: Wanted) -> None:
        self._access = access
        self._wanted = wanted
        self._left = wanted.limit
        self._sources: list[tuple[str, NewestFirst]] | None = None
        self._found: list[tuple[str, Log, IndexEntry]] = []

    async def more(self, service: SessionService) -> list[Loaded]:
        """Return the next ones; none at the end, or when the thread is deleted."""
        with suppress(SessionNotFoundError):
            while self._left is None or self._left > 0:
                entries = await self._next(service)
                if not entries:
                    break
                loaded = await concurrently([self._load(*each) for each in entries])
                if some := [each for each in loaded if each is not None]:
                    some = some[: self._left]
                    self._left = None if self._left is None else self._left - len(some)
                    return some
        return []

    async def _load(self, thread_id: str, log: Log, entry: IndexEntry) -> Loaded | None:
        wanted = self._wanted.metadata
        return await log.load(thread_id, entry.namespace, entry.checkpoint_id, wanted)

    async def _next(self, service: SessionService) -> list[tuple[str, Log, IndexEntry]]:
        """Return the next entries that are wanted by their ids; none at the end."""
        if self._sources is None:
            self._sources = await self._begin(service)
        while not self._found and self._sources:
            [(thread_id, entries)] = self._sources
            more = await entries.more()
            if not more:
                break
            self._add(thread_id, entries.log, more)
        most = _AT_ONCE
        if self._left is not None and self._wanted.metadata is None:
            most = min(most, self._left)
        found, self._found = self._found[:most], self._found[most:]
        return found

    async def _begin(self, service: SessionService) -> list[tuple[str, NewestFirst]]:
        """Find what the list is made of. One namespace is read bit by bit, and several at once."""
        sources = await self._all_sources(service)
        if len(sources) <= 1:
            return sources
        for thread_id, entries in sources:
            self._add(thread_id, entries.log, await entries.all())
        self._found.sort(key=lambda found: found[2].checkpoint_id, reverse=True)
        return []

    @property
    def _newest(self) -> int:
        """How many events at the end of a log hold the first checkpoints, usually.

        What is not among them is asked for by its id, each with a call of its own.
        """
        some = _AT_ONCE if self._left is None else min(self._left, _AT_ONCE)
        return EVENTS_EACH * (some + 1)

    async def _all_sources(self, service: SessionService) -> list[tuple[str, NewestFirst]]:
        wanted, access = self._wanted, self._access
        if wanted.thread_id is None:
            threads = await all_threads(service, access)
        else:
            threads = [(wanted.thread_id, access.key_of(wanted.thread_id))]

        async def read(_: Thread, log: Log) -> list[NewestFirst]:
            return await newest_first(log, wanted.namespace)

        sources: list[tuple[str, NewestFirst]] = []
        for thread_id, key in threads:
            found = await access.reading(service, key, read, self._newest)
            sources += [(thread_id, entries) for entries in found or ()]
        return sources

    def _add(self, thread_id: str, log: Log, entries: Iterable[IndexEntry]) -> None:
        for entry in entries:
            if self._wanted.has(entry.checkpoint_id):
                self._found.append((thread_id, log, entry))
