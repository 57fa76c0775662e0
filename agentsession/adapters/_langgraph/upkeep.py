"""What is done with whole threads: they are listed, copied, and old checkpoints hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentsession._concurrently import concurrently
from agentsession.adapters._langgraph.access import THREAD_ID, Access, Thread, append
from agentsession.adapters._langgraph.log import Log, NewestFirst
from agentsession.adapters._langgraph.records import deletion, deletion_id
from agentsession.events import new_id
from agentsession.sessions import Session, SessionKey

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from agentsession.adapters._langgraph.records import IndexEntry
    from agentsession.service import SessionService

__all__ = ["all_threads", "copy", "delete_runs", "keep_newest", "newest_first"]

# How many sessions are listed at once, how many events copied, and how many ids looked up.
_AT_ONCE: Final = 100


async def all_threads(service: SessionService, access: Access) -> list[tuple[str, SessionKey]]:
    """Return all threads of the application, and which sessions hold them."""
    found: list[tuple[str, SessionKey]] = []
    cursor: str | None = None
    while True:
        page = await service.list_sessions(access.app_name, limit=_AT_ONCE, cursor=cursor)
        for session in page.sessions:
            thread_id = session.state.get(THREAD_ID)
            if isinstance(thread_id, str) and access.key_of(thread_id) == session.key:
                found.append((thread_id, session.key))
        cursor = page.next_cursor
        if cursor is None:
            return found


async def newest_first(log: Log, namespace: str | None) -> list[NewestFirst]:
    """Return the entries of a namespace, or of each that a thread has."""
    namespaces = await log.namespaces() if namespace is None else [namespace]
    ends = await concurrently([log.last_entry(each) for each in namespaces])
    return [NewestFirst(log, last) for last in ends if last is not None]


async def copy(service: SessionService, access: Access, thread_id: str, new_thread_id: str) -> None:
    """Copy a thread, which is there whole or not at all; an absent one is no error.

    It is copied to a session that nobody knows, and that one is forked, which is one step.

    Raises:
        SessionExistsError: The new thread exists.
    """
    new_key = access.key_of(new_thread_id)
    staged = SessionKey(new_key.app_name, new_key.user_id, f"{new_key.session_id}:{new_id()}")

    async def read(thread: Thread, _: Log) -> None:
        session = await service.create_session(staged, {THREAD_ID: new_thread_id})
        try:
            await _copy_events(service, thread.session, session)
            await service.fork(session, new_key, num_recent_events=0)
        finally:
            await service.delete_session(staged)

    await access.reading(service, access.key_of(thread_id), read)


async def _copy_events(service: SessionService, source: Session, target: Session) -> None:
    after = 0
    most = min(service.always_readable, _AT_ONCE)
    while page := await service.get_events(source, after_seq=after, limit=most):
        await append(service, target, page)
        after = page[-1].seq


async def keep_newest(service: SessionService, access: Access, thread_id: str) -> None:
    """Hide all checkpoints of a thread but the newest one of each namespace."""

    async def hide(thread: Thread, log: Log) -> None:
        hidden: list[IndexEntry] = []
        for entries in await newest_first(log, None):
            hidden += (await _visible(log, await entries.all()))[1:]
        await _hide(service, thread, hidden)

    await access.reading(service, access.key_of(thread_id), hide)


async def delete_runs(service: SessionService, access: Access, run_ids: Collection[str]) -> None:
    """Hide the checkpoints of some runs, in all threads of the application."""

    async def hide(thread: Thread, log: Log) -> None:
        hidden: list[IndexEntry] = []
        for entries in await newest_first(log, None):
            of_runs = [each for each in await entries.all() if each.run_id in run_ids]
            hidden += await _visible(log, of_runs)
        await _hide(service, thread, hidden)

    for _, key in await all_threads(service, access):
        await access.reading(service, key, hide)


async def _hide(service: SessionService, thread: Thread, entries: Sequence[IndexEntry]) -> None:
    """Hide checkpoints, in one step if they are not too many; the oldest go first."""
    if entries:
        events = [deletion(entry.namespace, entry.checkpoint_id) for entry in reversed(entries)]
        await append(service, thread.session, events)


async def _visible(log: Log, entries: Sequence[IndexEntry]) -> list[IndexEntry]:
    """Leave out what was deleted."""
    visible: list[IndexEntry] = []
    for start in range(0, len(entries), _AT_ONCE):
        some = entries[start : start + _AT_ONCE]
        deletions = await log.find(deletion_id(each.namespace, each.checkpoint_id) for each in some)
        visible += [each for each, gone in zip(some, deletions, strict=True) if gone is None]
    return visible
