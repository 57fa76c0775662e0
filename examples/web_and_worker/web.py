"""The web process: it stores what users say, and leaves the answers to the workers.

To run it, with worker.py beside it, and REDIS in the environment for both if the server is not
redis://localhost:6379/0:

    pip install agentsession fastapi uvicorn
    uvicorn web:app
    python worker.py first

To talk to it:

    curl -X PUT localhost:8000/chats/c1/messages/m1 -H "X-User: ada" --json '"Hello"'
    curl localhost:8000/chats/c1/events -H "X-User: ada"

The first answers 202 with the message as it is stored, the second shows the answer a moment later.
A client that gets no reply repeats the PUT, with the same id: it is stored and answered once.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Body, FastAPI, Header, HTTPException
from redis.asyncio import Redis

from agentsession import Event, SessionKey, open_service
from agentsession.errors import SessionNotFoundError

REDIS = os.environ.get("REDIS", "redis://localhost:6379/0")
APP, JOBS = "web-and-worker", "jobs"

service = open_service(REDIS)
queue = Redis.from_url(REDIS)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with service, queue:
        yield


app = FastAPI(lifespan=lifespan)
User = Annotated[str, Header(alias="X-User")]  # a real program asks its login who this is


@app.put("/chats/{chat}/messages/{message}", status_code=202)
async def put(chat: str, message: str, words: Annotated[str, Body()], user: User) -> Event:
    """Store a message, and hand it over. In this order: what a worker gets is in the log."""
    key = SessionKey(APP, user, chat)
    await service.get_or_create_session(key, num_recent_events=0)
    event = Event(author="user", id=f"message-{message}", invocation_id=message, content=words)
    stored = await service.append_event(key, event)
    await queue.rpush(JOBS, json.dumps([user, chat, stored.to_dict()]))
    return stored


@app.get("/chats/{chat}/events")
async def events(chat: str, user: User, after_seq: int = 0) -> list[Event]:
    """Return what was said after a position; ask again with the last one that you have."""
    try:
        return await service.get_events(SessionKey(APP, user, chat), after_seq=after_seq)
    except SessionNotFoundError:
        raise HTTPException(404, "you have no chat of that name") from None
