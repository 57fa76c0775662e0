"""What uvicorn runs in processes of its own: the router, and an agent that takes its time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from agentsession import AgentContext, Event, Runner, open_service
from agentsession.fastapi import session_router
from web.site import APP, user_of
from web.test_sockets import user_of_socket

WORDS = 50


async def agent(context: AgentContext) -> AsyncIterator[Event]:
    """Say one word after the other, for a second in all."""
    words = [f"{n} " for n in range(WORDS)]
    for word in words:
        await asyncio.sleep(0.02)
        yield Event(author="agent", content=word, partial=True)
    yield Event(author="agent", content="".join(words), outcome="completed")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Let go of the runner's turns before the service."""
    async with service, runner:
        yield


service = open_service(os.environ["AGENTSESSION_URL"])
runner = Runner(APP, agent, service, on_disconnect="detach", ttl=5)
app = FastAPI(lifespan=lifespan)
app.include_router(
    session_router(service, user=user_of, runner=runner, websocket_user=user_of_socket)
)
