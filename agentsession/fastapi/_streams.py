"""Streams of server-sent events: of a session that is followed, of a run, of a user's sessions.

What is stored has its position as ``id:``, by which a client goes on after it has lost the
connection. All else has none: an ``id`` that stands for nothing stored would make clients skip what
is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias

import anyio
import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent

from agentsession._wording import described
from agentsession.clock import utc_now
from agentsession.errors import AgentSessionError, SessionBusyError
from agentsession.events import Event
from agentsession.fastapi._bodies import News
from agentsession.fastapi._problems import problem_of
from agentsession.subscriptions import Ended, Missed, Rewound, Trimmed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from agentsession.fastapi._problems import Problem
    from agentsession.runner import Reader, Run
    from agentsession.service import SessionService
    from agentsession.sessions import SessionKey
    from agentsession.subscriptions import Followed, Subscription, UserSubscription

__all__ = [
    "Closing",
    "Endings",
    "EventStream",
    "Frames",
    "Watch",
    "check_heartbeat",
    "event_frames",
    "following",
    "frames_of_run",
    "json_line",
    "news_frames",
    "on_one_line",
    "run_frames",
    "running",
    "streamed",
    "told",
]

_logger = logging.getLogger("agentsession.fastapi")

# How long streams may take to say goodbye when the server stops, in seconds.
_GOODBYE: Final = 2.0
# It is looked at least so often whether a run that is followed has lost its process, in seconds.
_LOOK: Final = 15.0
# Ends of a run after which it may go on, with an answer or with the same message.
_MAY_GO_ON: Final = frozenset({"waiting", "abandoned"})

# What ends a line: of the three that the standard has, the one that every reader knows.
_END: Final = "\n"
# What Unicode takes for the end of a line, and JSON and server-sent events do not.
_LINE_ENDS: Final = {ord(each): f"\\u{ord(each):04x}" for each in "\x85\u2028\u2029"}

Frames: TypeAlias = AsyncGenerator[ServerSentEvent | bytes, None]
"""What a stream sends: frames, or bytes that are frames already."""

_Events: TypeAlias = AsyncGenerator[ServerSentEvent, None]


class EventStream(EventSourceResponse):
    """A stream of server-sent events."""

    media_type: str | None = "text/event-stream"  # What FastAPI documents.


def check_heartbeat(heartbeat: float) -> None:
    """Check after how many seconds of silence a comment is to be sent."""
    if not heartbeat > 0:
        msg = f"heartbeat must be more than 0 seconds, not {heartbeat!r:.80}"
        raise ValueError(msg)


def streamed(model: type, what: str) -> dict[int | str, dict[str, Any]]:
    """Describe a stream, for the OpenAPI document of its route."""
    rest = (
        f"{what} `data` of each frame without `event` is one, as JSON; those that are stored have "
        "their position as `id`. Frames with `event` tell of all else."
    )
    return {200: {"model": model, "description": rest}}


class Endings(NamedTuple):
    """How a stream says that it ends before its time.

    Attributes:
        failed: Makes the last frame after an error; of one that is not for clients, from ``None``.
        closing: Makes the last frame of a server that stops.
    """

    failed: Callable[[Problem | None], ServerSentEvent | bytes]
    closing: Callable[[], ServerSentEvent | bytes]


class Closing:
    """Ends a stream in good order when the server stops.

    Args:
        stop: Ends what the stream reads.
        heartbeat: After how many seconds of silence a comment is sent.
        endings: How the stream says so; by default as the streams of events do.
        is_over: Whether the stream, once there is no more of it, has told its own end; readers
            take what comes after that for an error.
    """

    def __init__(
        self,
        stop: Callable[[], Awaitable[object]],
        heartbeat: float,
        endings: Endings | None = None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stop = stop
        self._is_over = is_over
        self._heartbeat = heartbeat
        self._endings = endings or _ENDINGS
        self._begun = anyio.Event()

    @property
    def has_begun(self) -> bool:
        """Whether the server stops."""
        return self._begun.is_set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._wait(), name="agentsession-closing")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._task.cancel()

    async def _wait(self) -> None:
        await self._begun.wait()
        await self._stop()

    def response(self, frames: Frames, headers: Mapping[str, str] | None = None) -> EventStream:
        """Answer with a stream that is told when the server stops."""
        return EventStream(
            self._guarded(frames),
            headers=headers,
            ping=self._heartbeat,
            sep=_END,
            shutdown_event=self._begun,
            shutdown_grace_period=_GOODBYE,
        )

    async def _guarded(self, frames: Frames) -> Frames:
        """End the stream with a frame in any case, since its status was sent long before."""
        is_whole = False
        async with self, aclosing(frames):
            try:
                async for each in frames:
                    yield each
                is_whole = self._is_over()
            except Exception as exc:
                problem = problem_of(exc)
                if problem is None:
                    _logger.exception("a stream failed")
                if not self.has_begun:
                    yield self._endings.failed(problem)
            if self.has_begun and not is_whole:
                yield self._endings.closing()


def _frame(name: str, **data: object) -> ServerSentEvent:
    """Make a frame that is no stored event."""
    return ServerSentEvent(json_line(data), event=name, sep=_END)


def json_line(data: Any) -> str:
    """Return JSON in which nothing is taken for the end of a line, not by readers like httpx's."""
    return on_one_line(msgspec.json.encode(data).decode())


def on_one_line(encoded: str) -> str:
    """Return JSON, in frames or not, in which that is so."""
    return encoded.translate(_LINE_ENDS)


def _failed(problem: Problem | None) -> ServerSentEvent:
    return _frame("failed", **({} if problem is None else problem.model_dump()))


def _closing() -> ServerSentEvent:
    return _frame("closing")


_ENDINGS: Final = Endings(_failed, _closing)


def _frame_of(item: Followed) -> ServerSentEvent:
    name, data = told(item)
    if name != "event":
        return _frame(name, **data)
    position = str(data["seq"]) if data.get("seq") else None
    return ServerSentEvent(json_line(data), id=position, sep=_END)


def told(item: Followed) -> tuple[str, dict[str, Any]]:
    """Return the name of what a subscription gave, and its JSON."""
    match item:
        case Event():
            return "event", item.to_dict()
        case Trimmed() | Rewound() | Ended():
            data = msgspec.to_builtins(item)
            return data.pop("type"), data


def following(subscription: Subscription) -> dict[str, str]:
    """Return what a client that follows a session is told first."""
    key, incarnation = subscription.key, subscription.incarnation
    return {"session_id": key.session_id, "incarnation": incarnation}


# -- what clients follow


async def event_frames(service: SessionService, subscription: Subscription) -> _Events:
    """Hand on what a subscription gives, until it ends.

    A run whose process has died is closed, so that nobody waits for its end for ever.
    """
    yield _frame("following", **following(subscription))
    async with Watch(service, subscription) as watch:
        async for item in subscription:
            watch.see(item)
            yield _frame_of(item)


async def run_frames(service: SessionService, subscription: Subscription, run_id: str) -> _Events:
    """Hand on what a subscription gives, until the end of a run, which is closed as above.

    A run that waited, or had lost its process, may have gone on: of these ends only the last counts
    of those that were stored when this began.
    """
    key = subscription.key
    is_going_on = await running(service, key) == run_id
    session = await service.get_session(key, num_recent_events=0)
    last_seq = 0 if session is None else session.last_seq
    yield _frame("run", run_id=run_id, session_id=key.session_id)
    outcome, is_over = "", not is_going_on and subscription.position >= last_seq
    async with Watch(service, subscription, run_id if is_going_on else "") as watch:
        while not is_over:
            item = await anext(subscription, None)
            if item is None:
                if watch.is_over:
                    break
                return  # The server stops.
            watch.see(item)
            yield _frame_of(item)
            if isinstance(item, Event) and item.seq and item.invocation_id == run_id:
                outcome = item.outcome
            is_end = bool(outcome) and outcome not in _MAY_GO_ON
            is_read = subscription.position >= last_seq and (bool(outcome) or not is_going_on)
            is_over = is_end or is_read or watch.is_over or isinstance(item, Ended)
    yield _frame("done", outcome=outcome)


async def running(service: SessionService, key: SessionKey) -> str:
    """Return the run that is going on in a session; ``""`` if none is, or it waits for somebody.

    One whose process has died is closed.

    Raises:
        SessionNotFoundError: The session does not exist.
    """
    try:
        await service.close_turn(key)
    except SessionBusyError as exc:
        return "" if exc.ends_at is None else exc.run_id
    return ""


class Watch:
    """Closes what a process that has died leaves of a run, while somebody follows its session.

    Not each run has an end that can be followed. A rewind takes runs back, the event limit may trim
    an end before it was read, and a lease that was taken alone has stored nothing. So whoever waits
    for the end of one run is also told once that run does not have the session any more.

    Args:
        service: Where the session is.
        subscription: By which it is followed; ends if nothing more of the run can come by it.
        run_id: The run for whose end one waits, which had the session; ``""`` for none.
    """

    def __init__(
        self, service: SessionService, subscription: Subscription, run_id: str = ""
    ) -> None:
        self._service = service
        self._subscription = subscription
        self._run_id = run_id
        self._may_run = asyncio.Event()
        self._may_run.set()  # Until it is known better.
        self._is_taken_back = asyncio.Event()
        # Up to where the run may have written, once it does not have the session any more.
        self._end: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether the run does not have the session any more, and all of it was followed."""
        return self._end is not None and self._subscription.position >= self._end

    def see(self, item: Followed) -> None:
        """Learn from what was followed whether a run is going on."""
        if isinstance(item, Event) and item.outcome:
            self._may_run.clear()
        elif isinstance(item, Event) and item.invocation_id:
            self._may_run.set()
        elif self._run_id and isinstance(item, Rewound | Trimmed):
            # No one has to wait until the lease would have run out.
            self._may_run.set()
            self._is_taken_back.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look(), name="agentsession-watch")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._task.cancel()

    async def _look(self) -> None:
        """Look each time that the lease of a run should have run out."""
        while True:
            await self._may_run.wait()
            pause = _LOOK
            # Before it is asked: a run that begins meanwhile is seen, and sets it again.
            self._may_run.clear()
            self._is_taken_back.clear()
            runs = ""
            try:
                await self._service.close_turn(self._subscription.key)
            except SessionBusyError as exc:
                if exc.ends_at is not None:  # Otherwise it waits for somebody.
                    runs = exc.run_id
                    self._may_run.set()
                    pause = (exc.ends_at - utc_now()).total_seconds()
            except AgentSessionError:
                # The stream itself tells of a session, or a store, that is not there.
                runs = self._run_id
                self._may_run.set()
            if self._run_id and runs != self._run_id:
                await self._note_end()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(pause, 1.0), _LOOK)):
                    await self._is_taken_back.wait()

    async def _note_end(self) -> None:
        """Note up to where the run may have written; end the stream if that was followed."""
        try:
            session = await self._service.get_session(self._subscription.key, num_recent_events=0)
        except AgentSessionError:
            self._may_run.set()  # As above.
            return
        if session is not None:
            self._run_id, self._end = "", session.last_seq
            if self.is_over:
                await self._subscription.aclose()


async def frames_of_run(run: Run, reader: Reader, after_seq: int, closing: Closing) -> _Events:
    """Hand on the events of a run of this process, all but those that a client has already."""
    yield _frame("run", run_id=run.id, session_id=run.session_id)
    try:
        async for event in reader:
            if event.partial or event.seq > after_seq:
                yield _frame_of(event)
    except Exception:
        if not run.outcome:
            raise
        # It was the agent's, and is told by the event that ended the run.
        _logger.exception("%s: run %s failed", described(run.key), run.id)
    if run.outcome and not closing.has_begun:  # Otherwise not all of it may have been read.
        yield _frame("done", outcome=run.outcome)


async def news_frames(subscription: UserSubscription) -> _Events:
    """Hand on what happens to a user's sessions."""
    async for item in subscription:
        if isinstance(item, Missed):
            yield _frame("missed")
        else:
            news = News(session_id=item.key.session_id, what=item.what, run_id=item.run_id)
            yield ServerSentEvent(json_line(news.model_dump()), sep=_END)
