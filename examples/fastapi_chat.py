"""A chat over HTTP: the answer streams as server-sent events, and the model calls a tool.

    uvicorn fastapi_chat:app        # needs: pip install agentsession fastapi uvicorn sse-starlette
    curl -N localhost:8000/chats/c1/messages -H "X-User: ada" --json '"Weather in Lisbon"'
    curl localhost:8000/chats/c1 -H "X-User: ada"

The first curl shows a turn, the second the session: in memory, or in the store at $STORE.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Body, Depends, FastAPI, Header
from sse_starlette import EventSourceResponse, JSONServerSentEvent

from agentsession import AgentContext, Event, Runner, Session, SessionKey, open_service
from agentsession.events import ToolCall, ToolResult
from agentsession.runner import Run

TOOLS: dict[str, Callable[[str], int]] = {"temperature": lambda city: 10 + len(city)}


async def model(events: list[Event]) -> AsyncIterator[str | ToolCall]:
    """Stand in for a real model: call the tool, then answer in chunks."""
    for found in events[-1].tool_results:
        for chunk in ("It is ", f"{found.result} degrees ", "there."):
            yield chunk
        return
    yield ToolCall(f"call-{events[-1].seq}", "temperature", {"city": events[-1].text.split()[-1]})


async def agent(context: AgentContext) -> AsyncIterator[Event]:
    """Ask the model, run the tool that it calls, and ask again until it has answered in words."""
    words = ""
    while not words:
        async for piece in model(context.session.events):
            if isinstance(piece, str):
                words += piece
                yield Event(author="assistant", content=piece, partial=True)
            else:
                yield Event(author="assistant", content=[piece])
                result = TOOLS[piece.name](piece.arguments["city"])
                yield Event(author="tool", content=[ToolResult(piece.call_id, result, piece.name)])
    yield Event(author="assistant", content=words, outcome="completed")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with service:
        yield


Words = Annotated[str, Body(min_length=1)]
User = Annotated[str, Header(alias="X-User", min_length=1)]  # a real program asks its login
service = open_service(os.environ.get("STORE", "memory://"))
runner = Runner("chat", agent, service)
app = FastAPI(lifespan=lifespan)


async def turn(chat: str, words: Words, user: User) -> AsyncIterator[Run]:
    async with runner.run(user, chat, words) as run:
        yield run  # closed when the response has ended, or its client has gone


@app.post("/chats/{chat}/messages")
async def send(run: Annotated[Run, Depends(turn)]) -> EventSourceResponse:
    return EventSourceResponse(
        JSONServerSentEvent(event.to_dict(), event="chunk" if event.partial else "stored")
        async for event in run
    )


@app.get("/chats/{chat}")
async def read(chat: str, user: User) -> Session | None:
    return await service.get_session(SessionKey("chat", user, chat))
