"""The routes of sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Annotated, Any, Final, TypeAlias

from fastapi import APIRouter, Body, Depends, Query, Request, WebSocket
from pydantic import AwareDatetime

from agentsession._marks import mark
from agentsession.errors import SessionNotFoundError
from agentsession.events import Event
from agentsession.fastapi._bodies import (
    EventPage,
    Fork,
    News,
    NewSession,
    RewindTo,
    RunRequest,
    SessionId,
    State,
    Stop,
    Stopped,
    state_of,
)
from agentsession.fastapi._dependencies import (
    LARGEST,
    Incarnation,
    Partial,
    SessionDependencies,
    as_read,
)
from agentsession.fastapi._problems import RefusedError, SessionRoute, responses
from agentsession.fastapi._runs import begun, run_of
from agentsession.fastapi._sockets import check_origin, converse, refuse
from agentsession.fastapi._streams import (
    Closing,
    EventStream,
    check_heartbeat,
    event_frames,
    frames_of_run,
    news_frames,
    run_frames,
    streamed,
)
from agentsession.history import OpenCalls
from agentsession.runner import Reader, Run, Runner
from agentsession.service import ContentType, SessionService
from agentsession.sessions import Session, SessionKey, SessionPage, UserKey
from agentsession.subscriptions import Subscription, UserSubscription

__all__ = ["session_router"]

_Limit: TypeAlias = Annotated[int, Query(ge=1, le=1000)]
_Position: TypeAlias = Annotated[int, Query(ge=0, le=LARGEST)]
_Recent: TypeAlias = Annotated[
    int, Query(ge=0, le=1000, description="At most so many events, the newest.")
]
_Flag: TypeAlias = Annotated[bool, Query()]

# So many of a session's newest events are returned with it.
_RECENT: Final = 50


def session_router(
    service: SessionService | Callable[..., SessionService | Awaitable[SessionService]],
    *,
    user: Callable[..., UserKey | Awaitable[UserKey]],
    runner: Runner | Callable[..., Runner | Awaitable[Runner]] | None = None,
    websocket_user: Callable[..., UserKey | Awaitable[UserKey]] | None = None,
    origins: Collection[str] = (),
    heartbeat: float = 15.0,
) -> APIRouter:
    """Make the routes of the sessions of the user who asks, for ``app.include_router()``.

    ============================================  ==================================================
    route                                         does
    ============================================  ==================================================
    ``POST /sessions``                            make a session
    ``GET /sessions``                             a page of the user's sessions
    ``GET /sessions/{session_id}``                a session, with its state and newest events
    ``DELETE /sessions/{session_id}``             delete it
    ``GET /sessions/{session_id}/events``         a page of its log, filtered if wanted
    ``GET /sessions/{session_id}/events/stream``  follow it
    ``GET /sessions/{session_id}/history``        what a model may be shown of it
    ``GET /sessions/{session_id}/state``          its state
    ``PATCH /sessions/{session_id}/state``        change it
    ``POST /sessions/{session_id}/fork``          a new session that begins as this one
    ``POST /sessions/{session_id}/rewind``        go back to an earlier event
    ``POST /sessions/{session_id}/run``           run the agent, and stream what happens
    ``POST /sessions/{session_id}/stop``          stop it
    ``WEBSOCKET /sessions/{session_id}/socket``     the same by messages, both ways
    ``GET /user/state``                           the user's state
    ``PATCH /user/state``                         change it
    ``GET /user/stream``                          follow what happens to all sessions of the user
    ============================================  ==================================================

    A session of another user is not found, as one that does not exist. Errors are problem details
    (RFC 9457). State of the application is read with the rest, and cannot be written. A message has
    no ``provider_data``, nor data of the media types that the library keeps for providers and
    frameworks: by these a user would speak as the system, or as the agent.

    Args:
        service: As for :class:`SessionDependencies`, and so are the next two.
        user: See there.
        runner: See there. Without one there are no routes ``run`` and ``stop``.
        websocket_user: A dependency that returns the user who opens a WebSocket; without one there
            is no such route. It may be *user*, unless that takes a ``Request`` or stands on one of
            FastAPI's security schemes, which a WebSocket does not have.
        origins: The origins, such as ``"https://shop.example"``, whose pages may open a WebSocket,
            beside those of the very host that is asked.
        heartbeat: After how many seconds of silence a stream sends a comment, so that proxies keep
            the connection; more than 0.

    Raises:
        TypeError: As :class:`SessionDependencies`.
        ValueError: *heartbeat* is not more than 0.
    """
    check_heartbeat(heartbeat)
    sessions = SessionDependencies(service, user=user, runner=runner)
    router = APIRouter(route_class=SessionRoute, tags=["sessions"])
    _add_sessions(router, sessions)
    _add_logs(router, sessions)
    _add_states(router, sessions)
    _add_streams(router, sessions, heartbeat)
    if sessions.runner is not None:
        _add_runs(router, sessions, sessions.runner, heartbeat)
    if websocket_user is not None:
        on_sockets = SessionDependencies(service, user=websocket_user, runner=runner)
        _add_socket(router, on_sockets, frozenset(origins))
    return router


def _add_sessions(router: APIRouter, sessions: SessionDependencies) -> None:
    service, user, key = map(Depends, (sessions.service, sessions.user, sessions.key))

    @router.post("/sessions", status_code=201, responses=responses(403, 409))
    async def create_session(
        body: NewSession, *, service: SessionService = service, user: UserKey = user
    ) -> Session:
        """Make a session."""
        key = SessionKey(user.app_name, user.user_id, body.session_id)
        return await service.create_session(key, state_of(body.state))

    @router.get("/sessions", responses=responses())
    async def list_sessions(
        *,
        limit: _Limit = 50,
        cursor: Annotated[str | None, Query(max_length=4000)] = None,
        service: SessionService = service,
        user: UserKey = user,
    ) -> SessionPage:
        """Return a page of the user's sessions, the newest activity first, without events."""
        try:
            return await service.list_sessions(user, limit=limit, cursor=cursor)
        except ValueError as exc:
            if cursor is None:
                raise
            raise RefusedError(422, "invalid-cursor", "This cursor is none of a page.") from exc

    @router.get("/sessions/{session_id}", responses=responses(404))
    async def get_session(
        *,
        num_recent_events: _Recent = _RECENT,
        since: AwareDatetime | None = None,
        after_seq: _Position | None = None,
        service: SessionService = service,
        key: SessionKey = key,
    ) -> Session:
        """Return a session with its state, and its newest events."""
        session = await service.get_session(
            key, num_recent_events=num_recent_events, since=since, after_seq=after_seq
        )
        if session is None:
            raise SessionNotFoundError(key)
        return session

    @router.delete("/sessions/{session_id}", status_code=204, responses=responses())
    async def delete_session(*, service: SessionService = service, key: SessionKey = key) -> None:
        """Delete a session with its events and its state; an absent one is no error."""
        await service.delete_session(key)

    @router.post("/sessions/{session_id}/fork", status_code=201, responses=responses(404, 409))
    async def fork_session(
        body: Fork, *, service: SessionService = service, key: SessionKey = key
    ) -> Session:
        """Make a new session that begins as this one was right after an event."""
        new_key = SessionKey(key.app_name, key.user_id, body.session_id)
        return await service.fork(key, new_key, at_seq=body.at_seq, num_recent_events=_RECENT)

    @router.post("/sessions/{session_id}/rewind", responses=responses(404, 409))
    async def rewind_session(
        body: RewindTo, *, service: SessionService = service, key: SessionKey = key
    ) -> Session:
        """Go back to how the session was right after an event; what came since is taken back."""
        return await service.rewind(
            key,
            to_seq=body.to_seq,
            restore_state=body.restore_state,
            expected_revision=body.expected_revision,
            num_recent_events=_RECENT,
        )


def _add_logs(router: APIRouter, sessions: SessionDependencies) -> None:
    service, key = map(Depends, (sessions.service, sessions.key))

    @router.get("/sessions/{session_id}/events", responses=responses(404))
    async def get_events(
        *,
        after_seq: _Position = 0,
        before_seq: _Position | None = None,
        limit: _Limit = 100,
        newest_first: _Flag = False,
        author: Annotated[list[str] | None, Query(max_length=100)] = None,
        branch: str | None = None,
        content_type: ContentType | None = None,
        raw: Annotated[bool, Query(description="What was taken back too.")] = False,
        service: SessionService = service,
        key: SessionKey = key,
    ) -> EventPage:
        """Return a page of the session's log."""
        events = await service.get_events(
            key,
            after_seq=after_seq,
            before_seq=before_seq,
            limit=limit,
            newest_first=newest_first,
            author=author,
            branch=branch,
            content_type=content_type,
            raw=raw,
        )
        return EventPage(events=events, next_seq=events[-1].seq if len(events) == limit else None)

    @router.get("/sessions/{session_id}/history", responses=responses(404))
    async def get_history(
        *,
        max_turns: _Limit = 20,
        open_calls: OpenCalls = "close",
        from_user: _Flag = False,
        service: SessionService = service,
        key: SessionKey = key,
    ) -> list[Event]:
        """Return what a model may be shown of the session: its newest turns."""
        return await service.get_history(
            key, max_turns=max_turns, open_calls=open_calls, from_user=from_user
        )


def _add_states(router: APIRouter, sessions: SessionDependencies) -> None:
    service, user, key = map(Depends, (sessions.service, sessions.user, sessions.key))

    @router.get("/sessions/{session_id}/state", responses=responses(404))
    async def get_session_state(
        *, service: SessionService = service, key: SessionKey = key
    ) -> dict[str, Any]:
        """Return the session's state, with that of the user and of the application."""
        session = await service.get_session(key, num_recent_events=0)
        if session is None:
            raise SessionNotFoundError(key)
        return mark(session.state)

    @router.patch(
        "/sessions/{session_id}/state", status_code=204, responses=responses(403, 404, 409)
    )
    async def update_session_state(
        changes: Annotated[State, Body()],
        *,
        service: SessionService = service,
        key: SessionKey = key,
    ) -> None:
        """Change names of the session's state, and of the user's by names with `user:`.

        `{"$delete": true}` as a value deletes a name.
        """
        await service.update_session_state(key, state_of(changes))

    @router.get("/user/state", responses=responses())
    async def get_user_state(
        *, service: SessionService = service, user: UserKey = user
    ) -> dict[str, Any]:
        """Return the user's state, names without `user:`."""
        return mark(await service.get_user_state(user))

    @router.patch("/user/state", status_code=204, responses=responses(403))
    async def update_user_state(
        changes: Annotated[State, Body()],
        *,
        service: SessionService = service,
        user: UserKey = user,
    ) -> None:
        """Change names of the user's state, as that of a session."""
        await service.update_user_state(user, state_of(changes))


def _add_streams(router: APIRouter, sessions: SessionDependencies, heartbeat: float) -> None:
    service = Depends(sessions.service)
    subscription = Depends(sessions.subscription)
    user_subscription = Depends(sessions.user_subscription)

    @router.get(
        "/sessions/{session_id}/events/stream",
        response_class=EventStream,
        responses=responses(404) | streamed(Event, "The session's events."),
    )
    async def follow_session(
        *,
        run_id: Annotated[
            SessionId | None, Query(description="Only until this run has ended.")
        ] = None,
        service: SessionService = service,
        subscription: Subscription = subscription,
    ) -> EventStream:
        """Follow a session: what is stored after a position, and then what comes.

        A run whose process has died meanwhile is closed.
        """
        frames = (
            run_frames(service, subscription, run_id)
            if run_id
            else event_frames(service, subscription)
        )
        return Closing(subscription.aclose, heartbeat).response(frames)

    @router.get(
        "/user/stream",
        response_class=EventStream,
        responses=responses() | streamed(News, "What happens to the user's sessions."),
    )
    async def follow_user(*, subscription: UserSubscription = user_subscription) -> EventStream:
        """Follow what happens to the user's sessions, from now on."""
        return Closing(subscription.aclose, heartbeat).response(news_frames(subscription))


def _add_runs(
    router: APIRouter, sessions: SessionDependencies, runner: Callable[..., Any], heartbeat: float
) -> None:
    service, key, after_seq = map(Depends, (sessions.service, sessions.key, sessions.after_seq))

    async def begun_run(
        body: RunRequest,
        request: Request,
        *,
        runner: Runner = Depends(runner),
        key: SessionKey = key,
    ) -> AsyncIterator[tuple[Run, Reader]]:
        async with begun(run_of(runner, key, body), request) as run_and_reader:
            yield run_and_reader

    @router.post(
        "/sessions/{session_id}/run",
        response_class=EventStream,
        responses=responses(404, 409) | streamed(Event, "The events of the run."),
    )
    async def run_agent(
        *,
        run_and_reader: tuple[Run, Reader] = Depends(begun_run),
        after_seq: int | None = after_seq,
    ) -> EventStream:
        """Run the agent on a message of the user; the session is made if it does not exist.

        Sent again with the same `message_id`, it joins the run.
        """
        run, reader = run_and_reader
        closing = Closing(reader.aclose, heartbeat)
        return closing.response(frames_of_run(run, reader, after_seq or 0, closing))

    @router.post("/sessions/{session_id}/stop", responses=responses(404))
    async def stop_run(
        body: Stop, *, service: SessionService = service, key: SessionKey = key
    ) -> Stopped:
        """Have the agent that runs on the session stopped."""
        return Stopped(stopped=await service.stop_run(key, body.run_id or None))


def _add_socket(router: APIRouter, sessions: SessionDependencies, origins: frozenset[str]) -> None:
    service, key, after_seq = map(Depends, (sessions.service, sessions.key, sessions.after_seq))

    async def none() -> None:
        return None

    @router.websocket("/sessions/{session_id}/socket")
    async def converse_on_session(
        websocket: WebSocket,
        *,
        incarnation: Incarnation = "",
        partial: Partial = True,
        service: SessionService = service,
        runner: Runner | None = Depends(sessions.runner or none),
        key: SessionKey = key,
        after_seq: int | None = after_seq,
    ) -> None:
        """Follow a session, and run and stop the agent, by messages."""
        try:
            check_origin(websocket, origins)
        except RefusedError as exc:
            await refuse(websocket, exc)
            return
        wanted = as_read(key, incarnation)
        subscription = service.subscribe(wanted, after_seq=after_seq, partial=partial)
        await converse(websocket, service, runner, subscription)
