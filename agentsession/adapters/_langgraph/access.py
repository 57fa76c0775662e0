"""The sessions that hold threads, and what is remembered of them.

What is remembered, the numbers that are taken above all, saves reads. It need not be right: that a
number is taken shows when the next entry is stored, and that a session was deleted meanwhile shows
when anything is.
"""

from __future__ import annotations

from asyncio import Lock
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from agentsession._wording import brief, described
from agentsession.adapters._langgraph.log import EVENTS_EACH, Log
from agentsession.adapters._langgraph.records import IndexEntry, Slot, Write, batches
from agentsession.adapters._sessions.logs import life
from agentsession.errors import SessionNotFoundError
from agentsession.sessions import Session, SessionKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from agentsession.adapters._langgraph.records import Loaded, Pieces
    from agentsession.events import Event
    from agentsession.service import SessionService

__all__ = ["THREAD_ID", "Access", "Head", "Numbering", "Thread", "append"]

_K = TypeVar("_K")
_V = TypeVar("_V")
_R = TypeVar("_R")

THREAD_ID: Final = "langgraph_thread_id"
"""The name of session state that says which thread a session holds."""

# How many threads are remembered, and how many namespaces and checkpoints of each.
_THREADS: Final = 1000
_OF_EACH: Final = 32


class _Recent(OrderedDict[_K, _V], Generic[_K, _V]):
    """A dict of what was used last."""

    def __init__(self, most: int = _OF_EACH) -> None:
        super().__init__()
        self._most = most

    def used(self, key: _K) -> _V | None:
        """Return a value, which is the one that was used last from now on."""
        if key not in self:
            return None
        self.move_to_end(key)
        return self[key]

    def keep(self, key: _K, value: _V) -> _V:
        """Add a value, and drop the one that was not used for longest."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)
        return value


@dataclass(frozen=True)
class Head:
    """The last entry of a namespace, and a checkpoint of it.

    Attributes:
        entry: The entry.
        checkpoint_id: The checkpoint.
        slots: Where the values of its channels are, for a checkpoint that comes after it.
    """

    entry: IndexEntry
    checkpoint_id: str
    slots: Mapping[str, Slot]


@dataclass
class Numbering:
    """What is known of the pieces of a checkpoint: itself, and its writes.

    Attributes:
        next: The first number that is free, as far as is known; 0 if it may be the first of all.
        first: Held while the first number is taken: nobody takes another one before that is stored.
        unsure: Numbers that were taken, and may have no event yet, or never.
        stored: The places of the writes that are stored.
    """

    next: int = 0
    first: Lock = field(default_factory=Lock)
    unsure: set[int] = field(default_factory=set[int])
    stored: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])

    def take(self) -> int:
        """Take the next number."""
        number, self.next = self.next, self.next + 1
        self.unsure.add(number)
        return number

    def add(self, writes: Iterable[Write]) -> None:
        """Remember that writes are stored."""
        self.stored |= {(write.task_id, write.index) for write in writes}

    def lacks(self, write: Write) -> bool:
        """Tell whether a write is to be stored: it is new, or takes the place of another one."""
        return write.index < 0 or (write.task_id, write.index) not in self.stored


@dataclass
class Thread:
    """What is remembered of a thread, in a session that was not made anew since.

    Attributes:
        session: The session, to write to; of what is stored it has the first and the last position
            only, as far as they are known.
        namespaces: How many entries the list of namespaces has, as far as is known.
        heads: Of the namespaces that were used last.
        numberings: Of the checkpoints that were used last, by namespace and id.
    """

    session: Session
    namespaces: int = 0
    heads: _Recent[str, Head] = field(default_factory=_Recent[str, Head])
    numberings: _Recent[tuple[str, str], Numbering] = field(
        default_factory=_Recent[tuple[str, str], Numbering]
    )

    def numbering(self, place: tuple[str, str]) -> Numbering:
        """Return what is known of the pieces of a checkpoint, be it nothing."""
        return self.numberings.used(place) or self.numberings.keep(place, Numbering())

    def remember(self, place: tuple[str, str], pieces: Pieces | Loaded) -> Numbering:
        """Remember the pieces of a checkpoint, which were read just now."""
        numbering = self.numbering(place)
        numbering.next = max(numbering.next, pieces.taken)
        numbering.add(pieces.writes)
        return numbering

    def last_known(self, namespace: str) -> IndexEntry | None:
        """Return the last entry of a namespace, as far as is known."""
        head = self.heads.used(namespace)
        return None if head is None else head.entry


class Access:
    """Finds the sessions of threads.

    Args:
        key: Tells which session holds a thread.
        app_name: The application that is looked through where no thread is named.
    """

    def __init__(self, key: Callable[[str], SessionKey], app_name: str) -> None:
        self._key = key
        self.app_name = app_name
        self._known: _Recent[SessionKey, Thread] = _Recent(_THREADS)

    def key_of(self, thread_id: str) -> SessionKey:
        """Return the session that holds a thread.

        Raises:
            TypeError: The user's function returned something else.
        """
        key = self._key(thread_id)
        if not isinstance(key, SessionKey):
            msg = f"key({thread_id!r:.80}) must return a SessionKey, not {type(key).__qualname__}"
            raise TypeError(msg)
        return key

    async def reading(
        self,
        service: SessionService,
        key: SessionKey,
        read: Callable[[Thread, Log], Awaitable[_R]],
        newest: int = EVENTS_EACH,
    ) -> _R | None:
        """Read from a session, and begin again if it is deleted or made anew meanwhile.

        Args:
            service: Has the session.
            key: The session.
            read: Reads.
            newest: How many of the newest events it has at hand.

        Returns:
            What was read; ``None`` if there is no session.
        """
        while True:
            most = min(newest, service.always_readable)
            session = await service.get_session(key, num_recent_events=most)
            if session is None:
                self._known.pop(key, None)
                return None
            tail, session.events = session.events, []
            known = self._met(session)
            try:
                return await read(known, Log(service, session, tail))
            except SessionNotFoundError:
                self._forget(known)

    async def writing(
        self,
        service: SessionService,
        thread_id: str,
        write: Callable[[Thread, Log], Awaitable[None]],
    ) -> None:
        """Write to the session of a thread, which is made if there is none, or not any more."""
        key = self.key_of(thread_id)
        while True:
            known = self._known.used(key)
            if known is None:
                known = self._met(await self._opened(service, key, thread_id))
            try:
                return await write(known, Log(service, known.session))
            except SessionNotFoundError:
                self._forget(known)

    async def _opened(self, service: SessionService, key: SessionKey, thread_id: str) -> Session:
        """Return the session of a thread to write to, which is made if there is none.

        Raises:
            ValueError: The service has an event limit, or the session holds another thread.
        """
        limit = service.backend.retention.event_limit
        if limit:
            msg = (
                f"the service keeps {limit:,} events of a session, and would trim checkpoints that "
                "are needed: make it with session_event_limit=None"
            )
            raise ValueError(msg)
        session = await service.get_or_create_session(
            key, {THREAD_ID: thread_id}, num_recent_events=0
        )
        holds = session.state.get(THREAD_ID, thread_id)
        if holds != thread_id:
            msg = (
                f"{described(key)} holds thread {brief(holds)}, and not {brief(thread_id)}: the "
                "function passed as key must return another session for each thread"
            )
            raise ValueError(msg)
        return session

    async def delete(self, service: SessionService, thread_id: str) -> None:
        """Delete a thread, in one step; an absent one is no error."""
        key = self.key_of(thread_id)
        self._known.pop(key, None)
        await service.delete_session(key)

    def _met(self, session: Session) -> Thread:
        """Return what is remembered of a session that was read just now."""
        known = self._known.used(session.key)
        if known is None or known.session.incarnation != session.incarnation:
            thread = Thread(life(session.key, session.incarnation))
            known = self._known.keep(session.key, thread)
        known.session.first_seq = session.first_seq
        known.session.last_seq = max(known.session.last_seq, session.last_seq)
        return known

    def _forget(self, thread: Thread) -> None:
        if self._known.get(thread.session.key) is thread:
            del self._known[thread.session.key]


async def append(service: SessionService, session: Session, events: Sequence[Event]) -> list[Event]:
    """Store events, in one step unless they are too many: then the last one comes last.

    Returns:
        The events as they are stored.

    Raises:
        ValueError: One of them was stored before, and the event limit has trimmed it.
    """
    stored: list[Event] = []
    for batch in batches(events):
        last_seq = session.last_seq
        now = await service.append_events(session, batch)
        session.events.clear()  # They are wanted by the caller only.
        session.last_seq = max(session.last_seq, now[-1].seq)
        for given, event in zip(batch, now, strict=True):
            # Of what was trimmed only the id is remembered, and such an event comes back as given.
            if event.seq <= last_seq and event.timestamp == given.timestamp:
                msg = (
                    f"{described(session.key)}: {brief(event.id)} was stored before, and the event "
                    "limit has trimmed it, so it cannot be stored again. Make the service with "
                    "session_event_limit=None, and begin the thread anew: delete_thread()"
                )
                raise ValueError(msg)
        stored += now
    return stored
