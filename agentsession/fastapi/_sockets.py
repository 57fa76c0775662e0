"""A session over a WebSocket: it is followed, and runs are begun and stopped, by messages.

Each message is an object with a ``type``. What comes are the frames of the streams, by their names,
and ``{"type": "event", "event": …}`` for an event. A ``ref`` of what is sent comes back with the
answer to it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from fastapi import WebSocketDisconnect
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocketState

from agentsession._wording import described
from agentsession.fastapi._bodies import RunRequest, Stop
from agentsession.fastapi._problems import LARGEST_BODY, RefusedError, answer, problem_of, wrong_of
from agentsession.fastapi._runs import entered, run_of
from agentsession.fastapi._streams import Watch, following, told

if TYPE_CHECKING:
    from collections.abc import Collection

    from fastapi import WebSocket

    from agentsession.runner import Reader, Run, Runner
    from agentsession.service import SessionService
    from agentsession.sessions import SessionKey
    from agentsession.subscriptions import Subscription

__all__ = ["check_origin", "converse", "refuse"]

_logger = logging.getLogger("agentsession.fastapi")

# So many runs of one socket may be going on, or stand in line.
_MOST_RUNS: Final = 16

# Why a socket is closed, as RFC 6455 has it.
_ENDED: Final = 1000
_NO_TEXT: Final = 1003
_REFUSED: Final = 1008
_TOO_LARGE: Final = 1009
_FAILED: Final = 1011


class _Referring(BaseModel):
    ref: str = Field("", max_length=100)


class _Run(RunRequest, _Referring):
    type: Literal["run"]


class _Stop(Stop, _Referring):
    type: Literal["stop"]


_Said: TypeAlias = Annotated[_Run | _Stop, Field(discriminator="type")]
_said: Final[TypeAdapter[_Run | _Stop]] = TypeAdapter(_Said)


def check_origin(websocket: WebSocket, allowed: Collection[str]) -> None:
    """Refuse a page of another site, to which a browser sends the user's cookies all the same.

    Raises:
        RefusedError: The page is neither of this host nor of those that are allowed.
    """
    origin = websocket.headers.get("origin")
    if origin is None or origin in allowed:
        return  # What is no browser sends none.
    try:
        host = urlsplit(origin).netloc
    except ValueError:
        host = ""  # It is no address at all.
    if not host or host != websocket.headers.get("host"):
        raise RefusedError(403, "foreign-origin", "Pages of this origin may not connect.")


class _Conversation:
    """What goes on over one socket."""

    def __init__(
        self, websocket: WebSocket, service: SessionService, runner: Runner | None, key: SessionKey
    ) -> None:
        self._websocket = websocket
        self._service = service
        self._runner = runner
        self._key = key
        self._runs: set[asyncio.Task[None]] = set()

    async def send(self, name: str, **data: object) -> None:
        if self._is_closed:
            raise WebSocketDisconnect  # As if the client had gone: whoever sends has come too late.
        await self._websocket.send_text(msgspec.json.encode({"type": name, **data}).decode())

    async def _close(self, code: int) -> None:
        if not self._is_closed:
            await self._websocket.close(code)

    @property
    def _is_closed(self) -> bool:
        return self._websocket.application_state is WebSocketState.DISCONNECTED

    async def follow(self, subscription: Subscription) -> None:
        """Hand on what a subscription gives, until the session has ended.

        A run whose process has died is closed, as by the streams.
        """
        try:
            await self.send("following", **following(subscription))
            async with Watch(self._service, subscription) as watch:
                async for item in subscription:
                    watch.see(item)
                    name, data = told(item)
                    await self.send(name, **({"event": data} if name == "event" else data))
            await self._close(_ENDED)
        except WebSocketDisconnect:
            return
        except Exception as exc:  # noqa: BLE001 - the client is told, and the log
            await self._refuse(exc, "")
            await self._close(_FAILED)

    async def listen(self) -> None:
        """Do what the client says, until it goes."""
        try:
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                text = message.get("text")
                if text is None or len(text) > LARGEST_BODY:
                    await self._close(_NO_TEXT if text is None else _TOO_LARGE)
                    return
                await self._answer(text)
        except WebSocketDisconnect:
            return

    async def _answer(self, text: str) -> None:
        try:
            said = _said.validate_json(text)
        except ValidationError as exc:
            wrong = wrong_of(exc.errors(include_url=False, include_input=False))
            refused = RefusedError(
                422, "invalid-message", "The message is not valid.", errors=wrong
            )
            await self._refuse(refused, "")
            return
        if isinstance(said, _Stop):
            await self._stop(said)
        else:
            self._begin(said)

    async def _stop(self, said: _Stop) -> None:
        try:
            stopped = await self._service.stop_run(self._key, said.run_id or None)
        except Exception as exc:  # noqa: BLE001 - as above
            await self._refuse(exc, said.ref)
        else:
            await self.send("stopped", stopped=stopped, ref=said.ref)

    def _begin(self, said: _Run) -> None:
        """Run the agent, beside what else is said meanwhile."""
        task = asyncio.create_task(self._run(said), name="agentsession-socket-run")
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)

    async def _run(self, said: _Run) -> None:
        try:
            if self._runner is None:
                raise RefusedError(404, "no-agent", "There is no agent to run.")
            if len(self._runs) > _MOST_RUNS:
                raise RefusedError(429, "too-many-runs", "Wait until one of the runs has ended.")
            run = run_of(self._runner, self._key, said)
            async with await entered(run) as reader:
                await self._read(run, reader, said.ref)
        except WebSocketDisconnect:
            return
        except Exception as exc:  # noqa: BLE001 - as above
            await self._refuse(exc, said.ref)

    async def _read(self, run: Run, reader: Reader, ref: str) -> None:
        """Be a reader of the run, which goes with the socket; its events come as all others."""
        await self.send("run", run_id=run.id, ref=ref)
        try:
            async for _ in reader:
                pass
        except Exception:
            if not run.outcome:
                raise
            _logger.exception("%s: run %s failed", described(run.key), run.id)
        await self.send("done", run_id=run.id, outcome=run.outcome, ref=ref)

    async def _refuse(self, exc: Exception, ref: str) -> None:
        problem = problem_of(exc)
        if problem is None:
            _logger.error("%s: a message failed", described(self._key), exc_info=exc)
        data: dict[str, Any] = {} if problem is None else problem.model_dump()
        with suppress(WebSocketDisconnect):
            await self.send("failed", problem=data, ref=ref)

    async def aclose(self) -> None:
        """Read no run any more."""
        for task in self._runs:
            task.cancel()
        if self._runs:
            await asyncio.wait(self._runs)


async def converse(
    websocket: WebSocket, service: SessionService, runner: Runner | None, subscription: Subscription
) -> None:
    """Serve a socket until its client goes, or the session has ended.

    A handshake that is refused is answered as a request would be.
    """
    try:
        await subscription.__aenter__()
    except Exception as exc:  # noqa: BLE001 - raised again if it is none of ours
        await refuse(websocket, exc)
        return
    talk = _Conversation(websocket, service, runner, subscription.key)
    async with aclosing(subscription), aclosing(talk):
        await websocket.accept()
        tasks = [
            asyncio.create_task(each, name="agentsession-socket")
            for each in (talk.listen(), talk.follow(subscription))
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def refuse(websocket: WebSocket, exc: Exception) -> None:
    """Answer a handshake with a problem."""
    problem = problem_of(exc)
    if problem is None:
        raise exc
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(answer(problem))
    else:
        await websocket.close(_REFUSED)
