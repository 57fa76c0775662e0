"""What routers of frontends refuse, and how their streams say that something went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ag_ui.core import TextPart, UserMessage
from fastapi import FastAPI

from agentsession import AgentContext, Event, InMemorySessionService, Runner
from agentsession.ui._agui import messages as agui_messages
from agentsession.ui._vercel import messages as vercel_messages
from agentsession.ui.agui import agent_router
from agentsession.ui.vercel import chat_router
from web.site import APP, serving, user_of

ASKED: dict[str, dict[str, Any]] = {
    "/api/chat": {
        "id": "chat",
        "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}],
    },
    "/agui": {
        "threadId": "chat",
        "runId": "r",
        "state": {},
        "messages": [{"id": "m", "role": "user", "content": "hi"}],
        "tools": [],
        "context": [],
        "forwardedProps": {},
    },
}


@pytest.mark.parametrize(
    ("path", "end"), [("/api/chat", '"type":"error"'), ("/agui", '"type":"RUN_ERROR"')]
)
async def test_a_store_that_goes_away_ends_the_stream_with_an_error(path: str, end: str) -> None:
    """After what was said so far; nothing of the store gets out."""
    service, gate = InMemorySessionService(), asyncio.Event()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield Event(author="agent", content="so far", partial=True)
        await gate.wait()
        yield Event(author="agent", content="so far, so good")

    runner = Runner(APP, agent, service)
    app = FastAPI()
    app.include_router(chat_router(service, runner=runner, user=user_of))
    app.include_router(agent_router(service, runner=runner, user=user_of))
    said = ""
    async with (
        asyncio.timeout(30),
        serving(app) as client,
        client.stream("POST", path, json=ASKED[path]) as response,
    ):
        async for piece in response.aiter_text():
            said += piece
            if "so far" in said and not gate.is_set():
                await service.aclose()
                gate.set()
    assert end in said
    assert "memory" not in said


def test_a_message_says_something() -> None:
    """Of whichever frontend it is."""
    for message in (UserMessage(id="m", content=""), UserMessage(id="m", content=[])):
        with pytest.raises(ValueError, match="the message"):
            agui_messages.content_of(message)
    with pytest.raises(ValueError, match="the message has no parts"):
        vercel_messages.content_of([{"type": "step-start"}])
    parts = [TextPart(text="a"), TextPart(text="b")]
    assert agui_messages.text_in([*parts]) == "ab"
