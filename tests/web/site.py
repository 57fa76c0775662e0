"""Applications with the router, served by a real uvicorn on the test's own loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any, NamedTuple

import httpx2
import uvicorn
from fastapi import FastAPI, Header, HTTPException

from agentsession import (
    AgentContext,
    Event,
    Runner,
    SessionService,
    UserKey,
)
from agentsession.fastapi import session_router

APP = "shop"
USER = UserKey(APP, "ada")


def user_of(x_user: str | None = Header("ada")) -> UserKey:
    """Return who asks; nobody in particular is refused."""
    if not x_user:
        raise HTTPException(401, "who are you?")
    return UserKey(APP, x_user)


class Steps:
    """An agent that does one step of its answer at a time, when it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Semaphore(0)
        self.began = asyncio.Event()
        self.stopped = asyncio.Event()

    async def __call__(self, context: AgentContext) -> AsyncIterator[Event]:
        stream = context.message.id
        self.began.set()
        try:
            for word in ("one ", "two ", "three"):
                await self.gate.acquire()
                yield Event(
                    author="agent", content=word, partial=True, stream_id=context.message.id
                )
            await self.gate.acquire()
            yield Event(
                author="agent",
                content="one two three",
                stream_id=stream,
                outcome="completed",
            )
        except asyncio.CancelledError:
            self.stopped.set()
            raise

    def let(self, steps: int = 4) -> None:
        """Let it do so many steps."""
        for _ in range(steps):
            self.gate.release()


class _Server(uvicorn.Server):
    def capture_signals(self) -> Any:
        return nullcontext()  # They are pytest's.


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve an application, and talk to it."""
    server = _Server(uvicorn.Config(app, port=0, log_config=None, ws="websockets-sansio"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), task.exception()
        await asyncio.sleep(0.001)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        await task


def app_of(service: SessionService, runner: Runner | None = None, **options: Any) -> FastAPI:
    """Make an application of the router alone."""
    app = FastAPI()
    app.include_router(session_router(service, user=user_of, runner=runner, **options))
    return app


class Frame(NamedTuple):
    """One server-sent event."""

    name: str
    id: str
    data: Any

    @property
    def event(self) -> Event:
        """The event that it holds."""
        assert self.name == "", self
        return Event.from_dict(self.data)


async def frames(response: httpx2.Response) -> AsyncIterator[Frame]:
    """Read a stream, comments left out."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields and not line:
            data = json.loads(fields.get("data", "null"))
            yield Frame(fields.get("event", ""), fields.get("id", ""), data)
            fields = {}


async def take(stream: AsyncIterator[Frame], number: int) -> list[Frame]:
    """Take so many frames, which must come."""
    async with asyncio.timeout(30):
        return [await anext(stream) for _ in range(number)]


async def until(stream: AsyncIterator[Frame], name: str) -> list[Frame]:
    """Take frames up to the one of a name."""
    taken: list[Frame] = []
    async with asyncio.timeout(30):
        while not taken or taken[-1].name != name:
            taken.append(await anext(stream))
    return taken


def stored(taken: list[Frame]) -> list[Event]:
    """Return the stored events among frames, whose ids are their positions."""
    events = [frame.event for frame in taken if frame.id]
    assert [str(event.seq) for event in events] == [frame.id for frame in taken if frame.id]
    assert not any(event.partial for event in events)
    return events
