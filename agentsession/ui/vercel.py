"""The UI message stream of Vercel's AI SDK, for ``useChat`` and what is built on it.

::

    app.include_router(chat_router(service, runner=runner, user=current_user))

It needs an extra: ``pip install 'agentsession[vercel]'``.

What a page sends is taken for what is new in it: the user's last message, and results of calls that
a turn waits for. The rest of its history is not read, so a page can neither rewrite what was said
nor put words into an agent's mouth.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, TypeAlias, cast

import msgspec

from agentsession._extras import what_to_install

try:
    from fastapi import APIRouter, Depends, Request, Response
    from pydantic import BaseModel, BeforeValidator, Field

    from agentsession.fastapi import SessionDependencies, SessionRoute
except ImportError as _cause:
    raise ImportError(what_to_install("this module", "vercel", _cause)) from _cause

from agentsession.events import Content, Event, new_id
from agentsession.fastapi._bodies import NewSessionId, SessionId, Stopped
from agentsession.fastapi._problems import RefusedError, responses
from agentsession.fastapi._runs import begun, check_application
from agentsession.fastapi._streams import Closing, Endings, EventStream, Frames, check_heartbeat
from agentsession.runner import Run, Runner
from agentsession.service import SessionService
from agentsession.sessions import SessionKey, UserKey
from agentsession.ui._turns import (
    FollowedTurn,
    ReadTurn,
    Turn,
    all_events,
    find_message,
    followed_turn,
    open_calls,
)
from agentsession.ui._vercel.asked_again import taken_back
from agentsession.ui._vercel.chunks import DONE, Chunks, frame, goodbye, refusal
from agentsession.ui._vercel.messages import content_of, results_in, to_ui_messages

__all__ = ["chat_router", "to_ui_messages"]

_ENDINGS: Final = Endings(refusal, goodbye)
_HEADERS: Final = {"x-vercel-ai-ui-message-stream": "v1"}

# A list of some megabytes has a million items: each would be told with an error of its own.
_Parts: TypeAlias = Annotated[list[dict[str, Any]], Field(fail_fast=True)]


class _Message(BaseModel):
    id: SessionId = ""
    role: Literal["system", "user", "assistant"]
    parts: _Parts = []


def _last_of(messages: object) -> object:
    """Leave out the history, which is not read."""
    return cast("list[object]", messages)[-1:] if isinstance(messages, list) else messages


class _ChatRequest(BaseModel):
    """What ``useChat`` sends."""

    id: Annotated[NewSessionId, Field(min_length=1, description="The chat, which is a session.")]
    messages: Annotated[list[_Message], BeforeValidator(_last_of), Field(min_length=1)]
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: SessionId | None = Field(None, alias="messageId")

    @property
    def last(self) -> _Message:
        """What is new, if anything is."""
        return self.messages[-1]

    @property
    def is_change(self) -> bool:
        """Whether a message that was sent says something else from now on."""
        return self.trigger == "submit-message" and self.last.id == self.message_id


class _ChatRoute(SessionRoute):
    # A page sends all that it has each time.
    largest_body: ClassVar[int] = 16 << 20


class _Begun(NamedTuple):
    turn: Turn
    chunks: Chunks


def chat_router(
    service: SessionService | Callable[..., SessionService | Awaitable[SessionService]],
    *,
    runner: Runner | Callable[..., Runner | Awaitable[Runner]],
    user: Callable[..., UserKey | Awaitable[UserKey]],
    api: str = "/api/chat",
    heartbeat: float = 15.0,
) -> APIRouter:
    """Make the routes that ``useChat`` speaks to, for ``app.include_router()``.

    ===============================  ===============================================================
    route                            does
    ===============================  ===============================================================
    ``POST {api}``                   run the agent on what is new, and stream its answer
    ``GET {api}/{chatId}/stream``    go on with the answer that is being given; 204 if none is
    ``POST {api}/{chatId}/stop``     stop the agent
    ``GET {api}/{chatId}/messages``  all messages, for the first load of a page
    ===============================  ===============================================================

    A chat is the session of the user who asks that has its id; it is made by its first message. A
    message that is sent again joins its run. To ask again, and to change a message, takes back what
    came since (:meth:`~agentsession.SessionService.rewind`), and stores the message under a new id.

    With ``Runner(on_disconnect="detach")`` an answer goes on while its page is loaded anew, and
    only the route ``stop`` ends it.

    Args:
        service: As for :class:`~agentsession.fastapi.SessionDependencies`.
        runner: See there, and so is the next one.
        user: See there.
        api: Where the routes are; the default is that of ``useChat``.
        heartbeat: As for :func:`~agentsession.fastapi.session_router`.

    Raises:
        TypeError: As :class:`~agentsession.fastapi.SessionDependencies`.
        ValueError: *heartbeat* is not more than 0.
    """
    check_heartbeat(heartbeat)
    sessions = SessionDependencies(service, user=user, runner=runner)
    router = APIRouter(route_class=_ChatRoute, tags=["chat"])
    _add_answers(router, sessions, api, heartbeat)
    _add_chats(router, sessions, f"{api}/{{session_id}}", heartbeat)
    return router


def _add_answers(
    router: APIRouter, sessions: SessionDependencies, api: str, heartbeat: float
) -> None:
    async def begun_turn(
        body: _ChatRequest,
        request: Request,
        *,
        service: SessionService = Depends(sessions.service),
        runner: Runner = Depends(sessions.runner),
        user: UserKey = Depends(sessions.user),
    ) -> AsyncIterator[_Begun]:
        key = SessionKey(user.app_name, user.user_id, body.id)
        check_application(runner, key)
        run, before = await _asked(service, runner, key, body)
        async with begun(run, request) as (run, reader):
            if body.is_change and body.last.role == "user":
                await _check_change(service, run, body.last)
            yield _Begun(ReadTurn(run, reader), Chunks(run.id, before))

    @router.post(api, response_class=EventStream, responses=responses(409) | _STREAM)
    async def chat(*, begun_turn: _Begun = Depends(begun_turn)) -> EventStream:
        """Run the agent on what is new in a chat, and stream what it answers."""
        turn, chunks = begun_turn
        return _answer(turn, chunks, heartbeat)


def _add_chats(
    router: APIRouter, sessions: SessionDependencies, path: str, heartbeat: float
) -> None:
    service, key = map(Depends, (sessions.service, sessions.key))

    async def active_turn(
        *, service: SessionService = service, key: SessionKey = key
    ) -> AsyncIterator[FollowedTurn | None]:
        async with followed_turn(service, key) as turn:
            yield turn

    @router.get(
        f"{path}/stream",
        response_class=EventStream,
        responses=responses() | _STREAM | {204: {"description": "No answer is being given."}},
    )
    async def resume_stream(*, turn: FollowedTurn | None = Depends(active_turn)) -> Response:
        """Stream the answer that is being given, from its beginning."""
        if turn is None:
            return Response(status_code=204)
        return _answer(turn, Chunks(turn.run_id), heartbeat)

    @router.post(f"{path}/stop", responses=responses(404))
    async def stop_answer(*, service: SessionService = service, key: SessionKey = key) -> Stopped:
        """Have the agent that answers stopped."""
        return Stopped(stopped=await service.stop_run(key))

    @router.get(f"{path}/messages", responses=responses())
    async def get_messages(
        *, service: SessionService = service, key: SessionKey = key
    ) -> list[dict[str, Any]]:
        """Return the messages of a chat; none if it does not exist yet."""
        return to_ui_messages(await all_events(service, key))


_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "A UI message stream: `data` of each frame is a chunk, as JSON."}
}


def _answer(turn: Turn, chunks: Chunks, heartbeat: float) -> EventStream:
    closing = Closing(turn.aclose, heartbeat, _ENDINGS, turn.is_over)
    return closing.response(_frames(turn, chunks), _HEADERS)


async def _frames(turn: Turn, chunks: Chunks) -> Frames:
    """Make the frames of a turn, from its beginning or from where the page is."""
    yield frame(chunks.begin())
    async with aclosing(turn.events()) as events:
        async for event in events:
            for chunk in chunks.take(event):
                yield frame(chunk)
    if turn.outcome:
        for chunk in chunks.end(turn.outcome):
            yield frame(chunk)
        yield DONE


# -- what is asked


async def _asked(
    service: SessionService, runner: Runner, key: SessionKey, body: _ChatRequest
) -> tuple[Run, Sequence[Event]]:
    """Make the run that a page asks for, and return the events of its turn that the page shows."""
    last = body.last
    if last.role == "assistant":
        return await _resumed(service, runner, key, last)
    if last.role != "user":
        raise RefusedError(422, "invalid-message", "The last message is neither side's.")
    message = None
    if body.trigger == "regenerate-message" or body.is_change:
        message = await _asked_again(service, key, body)
    if message is None:
        message = Event(author="user", content=_content_of(last), id=last.id or new_id())
    return runner.run(key.user_id, key.session_id, message), ()


async def _resumed(
    service: SessionService, runner: Runner, key: SessionKey, last: _Message
) -> tuple[Run, Sequence[Event]]:
    """Go on with the turn that waits, by the results that are new."""
    before, calls = await open_calls(service, key)
    names = {call.call_id: call.name for call in calls}
    results = [
        msgspec.structs.replace(result, name=names[result.call_id])
        for result in results_in(last.parts)
        if result.call_id in names
    ]
    if not results:
        detail = "Nothing here is new: no message of the user, no result that a run waits for."
        raise RefusedError(409, "nothing-new", detail)
    return runner.resume(key.user_id, key.session_id, results), before


async def _asked_again(
    service: SessionService, key: SessionKey, body: _ChatRequest
) -> Event | None:
    """Take a message back, and make it anew; ``None`` if it was never stored."""
    # What is asked again is what was asked; only who changes a message says what it is now. That is
    # read first: what is refused takes nothing back.
    content = _content_of(body.last) if body.is_change else None
    return await taken_back(service, key, body.last.id, content)


async def _check_change(service: SessionService, run: Run, message: _Message) -> None:
    """Refuse a change where another page has changed the message at the same time.

    This page has joined the run of that one then, and would show its answer below other words.
    """
    asked = await find_message(service, run.key, run.id)
    if asked is not None and asked.content != _content_of(message):
        detail = "Somebody else has changed this message meanwhile. Load the chat anew."
        raise RefusedError(409, "message-changed", detail)


def _content_of(message: _Message) -> Content:
    try:
        return content_of(message.parts)
    except ValueError as exc:
        raise RefusedError(422, "invalid-message", f"The message is not valid: {exc}.") from exc
