"""AG-UI, for ``HttpAgent``, CopilotKit and what else speaks it.

::

    app.include_router(agent_router(service, runner=runner, user=current_user))

It needs an extra: ``pip install 'agentsession[agui]'``.

What a client sends is taken for what is new in it: the user's last message, and results of calls
that a turn waits for. Its history and its state are not read: it gets them from the session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any, ClassVar, Final, NamedTuple, cast

from agentsession._extras import what_to_install

try:
    from ag_ui.core import (
        Context,
        Message,
        ResumeEntry,
        RunAgentInput,
        Tool,
        ToolMessage,
        UserMessage,
    )
    from fastapi import APIRouter, Depends, Path, Request
    from pydantic import AfterValidator, BeforeValidator, Field

    from agentsession.fastapi import SessionDependencies, SessionRoute
except ImportError as _cause:
    raise ImportError(what_to_install("this module", "agui", _cause)) from _cause

from agentsession.events import Event, ToolResult, new_id
from agentsession.fastapi._bodies import LONGEST_ID, NewSessionId, SessionId, Stopped
from agentsession.fastapi._problems import RefusedError, responses
from agentsession.fastapi._runs import begun, check_application
from agentsession.fastapi._streams import Closing, EventStream, check_heartbeat
from agentsession.runner import Run, Runner
from agentsession.service import SessionService
from agentsession.sessions import SessionKey, UserKey
from agentsession.ui._agui.messages import content_of, text_in, to_messages
from agentsession.ui._agui.streams import (
    ENDINGS,
    BegunTurn,
    frames_of,
    run_events,
    thread_events,
)
from agentsession.ui._turns import (
    FollowedTurn,
    ReadTurn,
    answered_up_to,
    find_message,
    followed_turn,
    open_calls,
)

__all__ = ["agent_router", "to_messages"]

# In the metadata of the user's message: what its client offers the agent.
_OFFERED: Final = "ag-ui"


# A list of some megabytes has a million items: each would be told with an error of its own.
_MOST_PARTS: Final = 10_000
_FEW: Final[Any] = Field(fail_fast=True, max_length=_MOST_PARTS)


def _few(message: object) -> object:
    """Refuse a message of too many parts, before these are looked at."""
    if not isinstance(message, dict):
        return message
    fields = cast("dict[str, object]", message)
    for parts in fields.values():
        if isinstance(parts, list) and len(cast("list[object]", parts)) > _MOST_PARTS:
            msg = f"a message may have {_MOST_PARTS:,} parts"
            raise ValueError(msg)
    return fields


def _known_by_id(message: Message) -> Message:
    """Refuse an id that no stream could tell, or that is too long to be kept."""
    try:
        message.id.encode()
    except UnicodeEncodeError as exc:
        msg = "half of a surrogate pair is not valid Unicode"
        raise ValueError(msg) from exc
    if isinstance(message, UserMessage) and len(message.id) > LONGEST_ID:
        msg = f"an id may have {LONGEST_ID:,} characters"
        raise ValueError(msg)
    return message


class _Input(RunAgentInput):
    """What a client sends, as far as it can be kept."""

    thread_id: Annotated[NewSessionId, Field(min_length=1)]
    run_id: SessionId
    messages: Annotated[
        list[Annotated[Message, BeforeValidator(_few), AfterValidator(_known_by_id)]],
        Field(fail_fast=True),
    ]
    tools: Annotated[list[Tool], _FEW] | None = None
    context: Annotated[list[Context], _FEW] | None = None
    resume: Annotated[list[ResumeEntry], _FEW] | None = None


class _AgentRoute(SessionRoute):
    # A client sends all that it has each time.
    largest_body: ClassVar[int] = 16 << 20


def agent_router(
    service: SessionService | Callable[..., SessionService | Awaitable[SessionService]],
    *,
    runner: Runner | Callable[..., Runner | Awaitable[Runner]],
    user: Callable[..., UserKey | Awaitable[UserKey]],
    path: str = "/agui",
    agent_id: str = "default",
    heartbeat: float = 15.0,
) -> APIRouter:
    """Make the routes that clients of AG-UI speak to, for ``app.include_router()``.

    =========================================  =====================================================
    route                                      does
    =========================================  =====================================================
    ``POST {path}``                            run the agent on what is new, as ``HttpAgent`` asks
    ``GET {path}/info``                        what CopilotKit asks first
    ``POST {path}/agent/{id}/run``             as the first one
    ``POST {path}/agent/{id}/connect``         all messages, and the run that goes on, to its end
    ``POST {path}/agent/{id}/stop/{thread}``   stop the agent
    =========================================  =====================================================

    A thread is the session of the user who asks that has its id; it is made by its first message. A
    message that is sent again joins its run. A turn that waits ends with the calls that are to be
    answered: as pending calls, if all are of tools that the client has offered, or as interrupts.
    Tools, context and forwarded properties are in the metadata of the user's message, under
    ``"ag-ui"``, for the agent to read.

    Args:
        service: As for :class:`~agentsession.fastapi.SessionDependencies`.
        runner: See there, and so is the next one.
        user: See there.
        path: Where the routes are.
        agent_id: By which name CopilotKit knows the agent.
        heartbeat: As for :func:`~agentsession.fastapi.session_router`.

    Raises:
        TypeError: As :class:`~agentsession.fastapi.SessionDependencies`.
        ValueError: *heartbeat* is not more than 0.
    """
    check_heartbeat(heartbeat)
    sessions = SessionDependencies(service, user=user, runner=runner)
    router = APIRouter(route_class=_AgentRoute, tags=["agent"])
    known_agent = _known(agent_id)
    _add_runs(router, sessions, path, heartbeat, known_agent)
    _add_copilot_kit(router, sessions, path, agent_id, heartbeat, known_agent)
    return router


def _known(agent_id: str) -> Any:
    """Return a dependency that checks that the path names this agent, if it names any."""

    async def known_agent(request: Request) -> None:
        if request.path_params.get("agent_id", agent_id) != agent_id:
            raise RefusedError(404, "agent-not-found", "There is no such agent.")

    return Depends(known_agent)


def _add_runs(
    router: APIRouter,
    sessions: SessionDependencies,
    path: str,
    heartbeat: float,
    known_agent: Any,
) -> None:
    service = Depends(sessions.service)

    async def begun_turn(
        body: _Input,
        request: Request,
        *,
        service: SessionService = service,
        runner: Runner = Depends(sessions.runner),
        user: UserKey = Depends(sessions.user),
    ) -> AsyncIterator[BegunTurn]:
        key = _key_of(user, body.thread_id)
        check_application(runner, key)
        asked = await _asked(service, runner, key, body)
        async with begun(asked.run, request) as (run, reader):
            turn, before = ReadTurn(run, reader), list[Event]()
            if asked.waited is not None:
                before = await answered_up_to(service, key, run.id, asked.waited, asked.results)
            yield BegunTurn(turn, run.id, key, body, before, asked.sends_messages)

    @router.post(path, response_class=EventStream, responses=responses(409) | _STREAM)
    @router.post(
        f"{path}/agent/{{agent_id}}/run",
        response_class=EventStream,
        dependencies=[known_agent],
        responses=responses(404, 409) | _STREAM,
    )
    async def run_agent(
        *, service: SessionService = service, begun_turn: BegunTurn = Depends(begun_turn)
    ) -> EventStream:
        """Run the agent on what is new in a thread, and stream what happens."""
        turn = begun_turn.turn
        closing = Closing(turn.aclose, heartbeat, ENDINGS, turn.is_over)
        return closing.response(frames_of(run_events(service, begun_turn)))


def _add_copilot_kit(
    router: APIRouter,
    sessions: SessionDependencies,
    path: str,
    agent_id: str,
    heartbeat: float,
    known_agent: Any,
) -> None:
    service, user = map(Depends, (sessions.service, sessions.user))

    @router.get(f"{path}/info", responses=responses())
    async def get_info(*, user: UserKey = user) -> dict[str, Any]:  # noqa: ARG001 - who is logged in
        """Say which agent there is, as CopilotKit's runtime does."""
        agent = {"name": agent_id, "description": "", "className": "agentsession"}
        rest = {"audioFileTranscriptionEnabled": False, "mode": "sse"}
        return {"version": "1.0", "agents": {agent_id: agent}, **rest}

    async def followed(
        body: _Input, *, service: SessionService = service, user: UserKey = user
    ) -> AsyncIterator[tuple[SessionKey, RunAgentInput, FollowedTurn | None]]:
        key = _key_of(user, body.thread_id)
        async with followed_turn(service, key) as turn:
            yield key, body, turn

    @router.post(
        f"{path}/agent/{{agent_id}}/connect",
        response_class=EventStream,
        dependencies=[known_agent],
        responses=responses(404) | _STREAM,
    )
    async def connect(
        *,
        service: SessionService = service,
        followed: tuple[SessionKey, RunAgentInput, FollowedTurn | None] = Depends(followed),
    ) -> EventStream:
        """Stream all messages of a thread, and then the run that goes on, to its end."""
        key, body, turn = followed
        stop, is_over = (_nothing, _always) if turn is None else (turn.aclose, turn.is_over)
        closing = Closing(stop, heartbeat, ENDINGS, is_over)
        return closing.response(frames_of(thread_events(service, key, body, turn)))

    @router.post(
        f"{path}/agent/{{agent_id}}/stop/{{thread_id}}",
        dependencies=[known_agent],
        responses=responses(404),
    )
    async def stop(
        thread_id: Annotated[SessionId, Path(min_length=1)],
        *,
        service: SessionService = service,
        user: UserKey = user,
    ) -> Stopped:
        """Have the agent that runs on a thread stopped."""
        return Stopped(stopped=await service.stop_run(_key_of(user, thread_id)))


_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Events of AG-UI: `data` of each frame is one, as JSON."}
}


async def _nothing() -> None:
    pass


def _always() -> bool:
    return True


def _key_of(user: UserKey, thread_id: str) -> SessionKey:
    return SessionKey(user.app_name, user.user_id, thread_id)


# -- what is asked


class _Asked(NamedTuple):
    """A run that a client asks for.

    Attributes:
        run: The run.
        sends_messages: Whether the client gets all messages first.
        waited: The event after which its turn waited, if it goes on.
        results: By which it goes on.
    """

    run: Run
    sends_messages: bool
    waited: Event | None = None
    results: Sequence[ToolResult] = ()


async def _asked(
    service: SessionService, runner: Runner, key: SessionKey, body: RunAgentInput
) -> _Asked:
    """Make the run that a client asks for."""
    last = body.messages[-1] if body.messages else None
    if body.resume or isinstance(last, ToolMessage):
        return await _resumed(service, runner, key, body)
    if not isinstance(last, UserMessage):
        raise RefusedError(409, "nothing-new", _NOTHING_NEW)
    try:
        content, metadata = content_of(last), _offered(body)
    except ValueError as exc:
        raise RefusedError(422, "invalid-message", f"The message is not valid: {exc}.") from exc
    message = Event(author="user", content=content, id=last.id or new_id(), metadata=metadata)
    is_sent_again = await find_message(service, key, message.id) is not None
    run = runner.run(key.user_id, key.session_id, message)
    return _Asked(run, is_sent_again)


_NOTHING_NEW: Final = "Nothing here is new: no message of the user, no answer that a run waits for."


def _offered(body: RunAgentInput) -> dict[str, Any]:
    """Return what a client offers the agent beside the message.

    Raises:
        ValueError: It is nested too deep, or has names that are not valid Unicode.
    """
    try:
        offered = body.model_dump(
            mode="json", by_alias=True, include={"tools", "context", "forwarded_props"}
        )
    except ValueError as exc:
        msg = "its tools, context or forwardedProps are not JSON that can be kept"
        raise ValueError(msg) from exc
    offered = {name: value for name, value in offered.items() if value}
    return {_OFFERED: offered} if offered else {}


async def _resumed(
    service: SessionService, runner: Runner, key: SessionKey, body: RunAgentInput
) -> _Asked:
    """Go on with the turn that waits, by the answers that are new.

    The client gets all messages: it has none of what it has answered to interrupts, others by ids
    of its own, and a log may have got answers of another client.
    """
    before, calls = await open_calls(service, key)
    results: list[ToolResult] = []
    resumed = {entry.interrupt_id: entry for entry in body.resume or ()}
    given = {each.tool_call_id: each for each in body.messages if isinstance(each, ToolMessage)}
    for call in calls:
        entry, message = resumed.get(call.call_id), given.get(call.call_id)
        if message is not None:
            is_error = message.error is not None
            text = message.error or "" if is_error else text_in(message.content)
            results.append(ToolResult(call.call_id, text, call.name, is_error=is_error))
        elif entry is not None:
            is_error = entry.status == "cancelled"
            result = "cancelled" if is_error else entry.payload
            results.append(ToolResult(call.call_id, result, call.name, is_error=is_error))
    if not results:
        raise RefusedError(409, "nothing-new", _NOTHING_NEW)
    run = runner.resume(key.user_id, key.session_id, results)
    return _Asked(run, sends_messages=True, waited=before[-1], results=results)
