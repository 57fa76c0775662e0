"""A chat to look at: a page that streams, stops, and goes on after a reload, in all its windows.

    uvicorn server:app        # needs: pip install 'agentsession[fastapi]' uvicorn

Then open http://localhost:8000. Sessions are in memory, or in the store at $STORE; with one that
processes share, such as redis://localhost:6379/0, there may be more of them: --workers 2.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from agentsession import AgentContext, Event, Runner, UserKey, open_service
from agentsession.events import Reasoning, Text, ToolCall, ToolResult
from agentsession.fastapi import session_router

APP = "chat"
SKIES = ("clear", "cloudy", "rainy")


async def weather(city: str) -> dict[str, str | int]:
    """Stand in for a tool."""
    await asyncio.sleep(0.5)
    return {"sky": SKIES[len(city) % len(SKIES)], "degrees": 10 + len(city)}


async def said(*parts: Reasoning | Text | ToolCall) -> AsyncIterator[Event]:
    """Stand in for a real model: say it word by word, and then all of it as one event."""
    for part in parts:
        if not isinstance(part, ToolCall):
            for word in re.findall(r"\S+\s*", part.text):
                await asyncio.sleep(0.05)
                yield Event(author="assistant", content=[type(part)(word)], partial=True)
    yield Event(author="assistant", content=[*parts])


async def agent(context: AgentContext) -> AsyncIterator[Event]:
    """Think, call the tool, and answer."""
    asked = context.message.text
    city = re.sub(r"\W", "", asked.split()[-1])
    context.state.setdefault("title", asked[:60])  # the page shows it in its list
    thought = Reasoning(f"This is about {city}, so I look up how the weather is there.")
    call = ToolCall(f"call-{context.message.seq}", "weather", {"city": city})
    async for event in said(thought, call):
        yield event
    found = await weather(city)
    yield Event(author="tool", content=[ToolResult(call.call_id, found, call.name)])
    answer = f"It is {found['sky']} in {city}, at {found['degrees']} degrees. You asked: {asked}"
    async for event in said(Text(answer)):
        yield event


def user() -> UserKey:
    return UserKey(APP, "ada")  # a real program asks its login


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with service, runner:
        yield


service = open_service(os.environ.get("STORE", "memory://"))
runner = Runner(APP, agent, service, on_disconnect="detach")  # answers go on without a reader
app = FastAPI(lifespan=lifespan)
app.include_router(session_router(service, runner=runner, user=user))


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("index.html"))
