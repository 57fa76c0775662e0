"""Turns of a log as routers need them: one that is found, one that is followed to its end."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from agentsession._wording import described
from agentsession.errors import EventNotFoundError, SessionNotFoundError
from agentsession.events import Event
from agentsession.fastapi._streams import Watch, running
from agentsession.history import unanswered_calls
from agentsession.subscriptions import Ended, Rewound
from agentsession.ui._parts import is_said_by_user

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from agentsession.events import Outcome, ToolCall, ToolResult
    from agentsession.runner import Reader, Run
    from agentsession.service import SessionService
    from agentsession.sessions import SessionKey
    from agentsession.subscriptions import Subscription

__all__ = [
    "FollowedTurn",
    "ReadTurn",
    "Turn",
    "all_events",
    "answered_up_to",
    "events_of",
    "find_message",
    "followed_turn",
    "is_message_of",
    "open_calls",
    "running_now",
]

_logger = logging.getLogger("agentsession.ui")

_PAGE: Final = 500


# -- what the log has


async def all_events(
    service: SessionService,
    key: SessionKey,
    *,
    after_seq: int = 0,
    before_seq: int | None = None,
    raw: bool = False,
) -> list[Event]:
    """Return what a log holds, all of it or a part; nothing if there is no session."""
    events: list[Event] = []
    with suppress(SessionNotFoundError):
        while page := await service.get_events(
            key, after_seq=after_seq, before_seq=before_seq, limit=_PAGE, raw=raw
        ):
            events += page
            after_seq = page[-1].seq
    return events


async def newest_first(
    service: SessionService, key: SessionKey, author: str | None = None
) -> AsyncIterator[Event]:
    """Read a log from its end; nothing if there is no session."""
    before_seq: int | None = None
    with suppress(SessionNotFoundError):
        while page := await service.get_events(
            key, before_seq=before_seq, limit=_PAGE, newest_first=True, author=author
        ):
            for event in page:
                yield event
            before_seq = page[-1].seq


async def events_of(service: SessionService, key: SessionKey, run_id: str) -> list[Event]:
    """Return the events of a turn; its message is the first of them, if the log still has it."""
    events: list[Event] = []
    async for event in newest_first(service, key):
        if event.invocation_id == run_id:
            events.append(event)
        if event.id == run_id:
            break  # The id of a turn is that of its message, unless somebody gave it another.
    return events[::-1]


async def open_calls(
    service: SessionService, key: SessionKey
) -> tuple[Sequence[Event], Sequence[ToolCall]]:
    """Return the turn that waits for results, and the calls that it waits for."""
    async for event in newest_first(service, key):
        if event.outcome == "waiting":
            events = await events_of(service, key, event.invocation_id)
            made = [call for each in events for call in each.tool_calls]
            # It waits still if another writer has answered all: any of them lets it go on then.
            return events, unanswered_calls(events) or made
        if event.outcome:
            break
    return (), ()


async def answered_up_to(
    service: SessionService,
    key: SessionKey,
    run_id: str,
    waited: Event,
    results: Sequence[ToolResult],
) -> list[Event]:
    """Return the events of a turn up to the results with which it goes on.

    Args:
        service: Where the log is.
        key: The session.
        run_id: The turn.
        waited: The event after which it waited for them, or for some of them.
        results: The results, which are stored.
    """
    given = {result.call_id for result in results}
    events = await events_of(service, key, run_id)
    answers = [
        event.seq
        for event in events
        if event.seq > waited.seq and given.issubset(each.call_id for each in event.tool_results)
    ]
    return [event for event in events if event.seq <= min(answers, default=waited.seq)]


async def find_message(service: SessionService, key: SessionKey, message_id: str) -> Event | None:
    """Return an event by its id; ``None`` if the log does not have it."""
    with suppress(EventNotFoundError, SessionNotFoundError):
        (found,) = await service.get_events(key, around=message_id, limit=1)
        return found
    return None


async def running_now(service: SessionService, key: SessionKey) -> str:
    """Return the run that has a session; ``""`` if none has, or there is no session."""
    with suppress(SessionNotFoundError):
        return await running(service, key)
    return ""


def is_message_of(event: Event, run_id: str) -> bool:
    """Tell whether the first event of a turn is its message; it is not if that was trimmed."""
    return event.id == run_id or is_said_by_user(event)


# -- a turn that is read


class Turn(ABC):
    """A turn whose events are read, from wherever.

    Attributes:
        outcome: How it ended; ``""`` as long as it has not.
    """

    outcome: Outcome = ""

    @abstractmethod
    def events(self) -> AsyncGenerator[Event, None]:
        """Yield its events after its message, and chunks as they come, up to its end."""

    @abstractmethod
    async def aclose(self) -> None:
        """Read no more; :meth:`events` ends then."""

    def is_over(self) -> bool:
        """Tell whether its end was read."""
        return bool(self.outcome)


class ReadTurn(Turn):
    """A turn that this process runs, or has joined."""

    def __init__(self, run: Run, reader: Reader) -> None:
        self._run = run
        self._reader = reader
        self._is_closed = False

    async def events(self) -> AsyncGenerator[Event, None]:
        try:
            async for event in self._reader:
                yield event
        except Exception:
            if not self._run.outcome:
                raise
            # It was the agent's, and is told by the event that ended the run.
            _logger.exception("%s: run %s failed", described(self._run.key), self._run.id)
        if not self._is_closed:  # Otherwise there may be more than was read.
            self.outcome = self._run.outcome

    async def aclose(self) -> None:
        self._is_closed = True
        await self._reader.aclose()


class FollowedTurn(Turn):
    """A turn that is read from the log.

    Args:
        service: Where the log is.
        run_id: The turn.
        before: Its events that are stored already.
        subscription: What comes after these; ``None`` if the turn is over.
    """

    def __init__(
        self,
        service: SessionService,
        run_id: str,
        before: Sequence[Event],
        subscription: Subscription | None,
    ) -> None:
        self.run_id = run_id
        self.before = before
        self._service = service
        self._subscription = subscription

    async def events(self) -> AsyncGenerator[Event, None]:
        for number, event in enumerate(self.before):
            if number or not is_message_of(event, self.run_id):
                yield event
        async with aclosing(self.further_events()) as further:
            async for event in further:
                yield event

    async def further_events(self) -> AsyncGenerator[Event, None]:
        """Yield what comes after what is stored already."""
        if self._subscription is None:
            self.outcome = self.before[-1].outcome if self.before else "interrupted"
            return
        async with Watch(self._service, self._subscription, self.run_id) as watch:
            async for item in self._subscription:
                watch.see(item)
                if isinstance(item, Event) and item.invocation_id == self.run_id:
                    self.outcome = item.outcome
                    yield item
                elif isinstance(item, Ended) or (
                    isinstance(item, Rewound) and item.to_seq < self._first_seq
                ):
                    self.outcome = "interrupted"  # It is taken back, or gone.
                if self.outcome or watch.is_over:
                    break
            if watch.is_over:
                self.outcome = self.outcome or "interrupted"  # Its end is not to be had.

    @property
    def _first_seq(self) -> int:
        return self.before[0].seq if self.before else 0

    async def aclose(self) -> None:
        if self._subscription is not None:
            await self._subscription.aclose()


@asynccontextmanager
async def followed_turn(
    service: SessionService, key: SessionKey
) -> AsyncGenerator[FollowedTurn | None, None]:
    """Follow the turn that runs on a session, in any process; ``None`` if none does.

    A turn that waited and goes on has ended before. So it is looked again whether it runs once its
    events are read: then none of these is its end.
    """
    run_id = await running_now(service, key)
    if not run_id:
        yield None
        return
    before = await events_of(service, key, run_id)
    if await running_now(service, key) != run_id:
        before = await events_of(service, key, run_id)
        yield FollowedTurn(service, run_id, before, None)
        return
    after_seq = before[-1].seq if before else 0
    async with service.subscribe(key, after_seq=after_seq) as subscription:
        yield FollowedTurn(service, run_id, before, subscription)
