"""OpenAI Agents: the ``Session`` that its runner keeps a conversation in.

::

    session = AgentSession(service, SessionKey("shop", "ada", "chat"))
    result = await Runner.run(agent, "Where is my parcel?", session=session)

It needs an extra: ``pip install 'agentsession[openai-agents]'``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable as AnAwaitable
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from agentsession._extras import what_to_install

try:
    from agents.memory.session_settings import coerce_session_settings, resolve_session_limit
except ImportError as _cause:
    raise ImportError(what_to_install("this adapter", "openai-agents", _cause)) from _cause

from agentsession._service.arguments import check_session
from agentsession.adapters._items.openai import events_of, items_of
from agentsession.adapters._sessions.ends import loose, reaches_back, replace_end
from agentsession.adapters._sessions.logs import Awaitable, Service, add, awaitable, read
from agentsession.errors import ReadTooLargeError, RevisionConflictError, SessionNotFoundError
from agentsession.events import Event, new_id
from agentsession.messages import Converted
from agentsession.sessions import Session, SessionKey

if TYPE_CHECKING:
    from agents.items import TResponseInputItem
    from agents.memory import OpenAIResponsesCompactionArgs, SessionSettings

__all__ = ["AgentSession", "Compact"]

Compact: TypeAlias = Callable[
    [list["TResponseInputItem"]], AnAwaitable["Sequence[TResponseInputItem] | None"]
]
"""Makes a shorter history of all items of a session; ``None`` leaves it as it is."""

_BATCH: Final = 1000
_logger: Final = logging.getLogger(__name__)


class AgentSession:
    """A ``Session`` of OpenAI Agents, kept by a service.

    An item that the framework stores is an event, with the item beside it, and comes back equal to
    what was stored. What others have stored in the session comes as items too.

    With a :class:`~agentsession.SessionService` it is awaited on one event loop. With a
    :class:`~agentsession.blocking.BlockingSessionService` it serves any loops and threads, as
    ``Runner.run_sync`` needs it, which takes the default loop of the thread that calls it.

    Nothing is read, connected or made before the first call.

    Args:
        service: Where the session is.
        key: Which one it is; an empty ``session_id`` gets a generated one. The session is made when
            the first items are added.
        session_settings: The framework's settings, or a dict of them: ``limit``.
        compact: What :meth:`run_compaction` shortens the history with; without it nothing is ever
            shortened. For OpenAI's own compaction wrap this session in the framework's
            ``OpenAIResponsesCompactionSession``, which replaces items in one step too.
        agent: The author of the events of what the assistant says, since items do not name one.

    Raises:
        TypeError: An argument has the wrong type, or there is no such setting.
    """

    def __init__(
        self,
        service: Service,
        key: SessionKey,
        *,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        compact: Compact | None = None,
        agent: str = "assistant",
    ) -> None:
        if isinstance(key, SessionKey) and not key.session_id:
            key = SessionKey(key.app_name, key.user_id, new_id())
        self.key: SessionKey = check_session(key)
        self.session_id: str = key.session_id
        self.session_settings: SessionSettings | None = coerce_session_settings(
            {} if session_settings is None else session_settings
        )
        self._compact = compact
        self._items = _Items(awaitable(service), key, agent)

    def __repr__(self) -> str:
        return f"<AgentSession {self.key}>"

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the newest items, oldest first.

        Args:
            limit: The most items to return; ``None`` for the limit of the settings, or for all if
                these have none. 0 and less for none.

        Returns:
            A list with an attribute ``lost``: what others have stored in the session that no item
            can say, as in what :func:`agentsession.messages.openai_responses.to_messages` returns.
        """
        limit = resolve_session_limit(limit, self.session_settings)
        items: Converted[TResponseInputItem] = Converted()
        if limit is None or limit > 0:
            end = await self._items.newest(limit)
            items += end.items if limit is None else end.items[-limit:]
            items.lost += end.lost
        return items

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items to the end, and make the session if there is none.

        Up to 1,000 items are added in one step; more take a step for each 1,000.

        Raises:
            EventTooLargeError: An item is too large: an event holds its parts and the item beside
                them, so that an item may take about half of the service's ``max_event_size``.
            OutcomeUnknownError: The server has not answered. Look at the newest items before you
                add these again: items have no ids that would tell a repeat.
            SessionBusyError: A turn of somebody else has an exclusive lease.
        """
        await self._items.add(items)

    async def pop_item(self) -> TResponseInputItem | None:
        """Take back the newest item, in one step, and return it; ``None`` if there is none.

        Of several callers each gets another item. What was taken back stays in the raw log. A turn
        of :class:`agentsession.Runner` that is running and has stored the item loses the session,
        as in :meth:`agentsession.SessionService.rewind`.
        """
        look = 2
        while True:
            end = await self._items.newest(look)
            if not end.items:
                return None
            newest = len(end.items) - 1
            if not end.reaches_back(newest):
                look *= 2
            elif await end.replace_suffix(newest, []):
                return end.items[-1]

    async def clear_session(self) -> None:
        """Take back all items, in one step; no error if there are none.

        The session and its state stay, and what was taken back stays in the raw log: to erase it
        all, call ``delete_session(key)`` of the service. A turn that is running loses the session,
        as in :meth:`pop_item`.
        """
        if (await self._items.newest(1)).items:
            await self._items.replace_all([])

    async def run_compaction(
        self,
        args: OpenAIResponsesCompactionArgs | None = None,  # noqa: ARG002 - the framework's
    ) -> None:
        """Replace the history by what *compact* makes of it, in one step.

        The framework calls it after each turn. What others add while *compact* is at work stays, at
        the end. If they take something back meanwhile, the history is left as it is, and a warning
        is logged. A turn that is running loses the session, as in :meth:`pop_item`.

        Args:
            args: What the framework says of the turn; it is not needed.

        Raises:
            ValueError: *compact* has returned more than 1,000 items, those that were added
                meanwhile included; the history is left as it is.
        """
        if self._compact is None:
            return
        end = await self._items.newest(None)
        if not end.items:
            return
        items = await self._compact(end.items)
        if items is not None and not await end.replace_all(items):
            _logger.warning("%s was changed while it was compacted; it stays as it is", self.key)

    # -- what the framework's own compaction looks for, by these names

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[Any], bool] | None = None
    ) -> _End | None:
        if prune_prefix is not None or type(self) is not AgentSession:
            return None
        return await self._items.newest(limit)

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        if type(self) is not AgentSession:
            return False
        if not await self._items.replace_all(items):
            await self.add_items(items)
        return True


class _Items:
    """The items of a session.

    Args:
        service: Where it is.
        key: Which one it is.
        agent: The author of what the assistant says.
    """

    def __init__(self, service: Awaitable, key: SessionKey, agent: str) -> None:
        self.service = service
        self.key = key
        self._agent = agent

    async def newest(self, limit: int | None) -> _End:
        """Return the newest items: at least so many, if there are so many; ``None`` for all."""
        look = limit
        while True:
            session, look = await self.load(look)
            end = _End(self, session, look)
            if look is None or end.complete or len(end.items) >= (limit or 0):
                return end
            look *= 2

    async def load(self, look: int | None) -> tuple[Session | None, int | None]:
        """Load a session with its newest events; with all, if these are over ``max_read_size``.

        Returns:
            The session, and how many events were asked for; ``None`` for all.
        """
        if look is not None:
            try:
                return await self.service.get_session(self.key, num_recent_events=look), look
            except ReadTooLargeError:
                pass
        return await read(self.service, self.key), None

    async def add(self, items: Sequence[TResponseInputItem]) -> None:
        events = self.events_of(items)
        for first in range(0, len(events), _BATCH):
            await add(self.service, self.key, events[first : first + _BATCH])

    async def replace_all(self, items: Sequence[TResponseInputItem]) -> bool:
        """Put items in the place of all, whatever they are; tell whether there is a session."""
        events = self.events_of(items)
        try:
            await self.service.append_events(self.key, events, rewind_to=0, restore_state=False)
        except SessionNotFoundError:
            return False
        return True

    def events_of(self, items: Sequence[TResponseInputItem]) -> list[Event]:
        return events_of(items, self._agent)


class _End:
    """The newest items of one moment, which can be replaced in one step.

    Args:
        owner: Whose items they are.
        session: The session with its newest events; ``None`` if there is none.
        asked: How many events were asked for; ``None`` for all.

    Attributes:
        items: The items.
        lost: What no item can say.
        complete: Whether there are no older ones.
    """

    def __init__(self, owner: _Items, session: Session | None, asked: int | None) -> None:
        self._owner = owner
        self._session = session
        self._events = [] if session is None else session.events
        self._said = [items_of(event) for event in self._events]
        self.items: list[TResponseInputItem] = [item for each in self._said for item in each]
        self.lost = [loss for each in self._said for loss in each.lost]
        # Where the limit has trimmed the log, none of its events is the first one.
        self.complete: bool = (
            session is None
            or asked is None
            or len(self._events) < asked
            or self._events[0].seq == session.first_seq
        )

    async def replace_suffix(self, start: int, output: Sequence[TResponseInputItem]) -> bool:
        """Put others in the place of the items from *start* on; tell whether it was done.

        It is not if they are not the end of the session any more, or belong to a turn that begins
        before the oldest of them. The framework's compaction knows this method by its name.
        """
        kept, rest = self._place_of(start)
        instead = self._owner.events_of([*self._said[kept][:rest], *output])
        session = self._session if self.reaches_back(start) else None
        while session is not None and self._is_end_of(session):
            try:
                await replace_end(self._owner.service, session, kept, instead)
            except RevisionConflictError:
                session = await self._again()
            except SessionNotFoundError:
                return False
            else:
                return True
        return False

    def reaches_back(self, start: int) -> bool:
        """Tell whether these items are enough to replace those from *start* on."""
        kept, _ = self._place_of(start)
        session = self._session
        return session is not None and reaches_back(session, kept, is_all=self.complete)

    def _place_of(self, start: int) -> tuple[int, int]:
        """Return the event that an item is of, and how many items of that event come before it."""
        kept = 0
        while start >= len(self._said[kept]):
            start -= len(self._said[kept])
            kept += 1
        return kept, start

    async def replace_all(self, instead: Sequence[TResponseInputItem]) -> bool:
        """Put others in the place of all these items, before what was added since.

        Returns:
            Whether it was done; not if some of these items were taken back meanwhile.
        """
        events, size = self._owner.events_of(instead), len(self._events)
        session = self._session
        while session is not None and self._is_beginning_of(session):
            added = [loose(event) for event in session.events[size:]]
            try:
                await replace_end(self._owner.service, session, 0, [*events, *added])
            except RevisionConflictError:
                session = await read(self._owner.service, self._owner.key)
            except SessionNotFoundError:
                return False
            else:
                return True
        return False

    async def _again(self) -> Session | None:
        look = len(self._events)
        session, _ = await self._owner.load(look)
        if session is not None:
            session.events = session.events[-look:]
        return session

    def _is_end_of(self, session: Session) -> bool:
        return _ids(session.events) == _ids(self._events)

    def _is_beginning_of(self, session: Session) -> bool:
        return _ids(session.events[: len(self._events)]) == _ids(self._events)


def _ids(events: Sequence[Event]) -> list[str]:
    return [event.id for event in events]
