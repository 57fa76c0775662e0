"""Clients that go at any moment: nothing is left of them, and no run goes on for nobody."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from agentsession import Runner, SessionKey
from agentsession.testing import Subject
from web.site import APP, Steps, app_of, serving
from web.test_sockets import user_of_socket

KEY = SessionKey(APP, "ada", "chat")
# After how many steps of the loop a client goes; then it waits for an answer first.
STEPS = 40

_UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def passing(request: Any, call_next: Any) -> Any:
    return await call_next(request)


async def drop(client: httpx2.AsyncClient, request: str, steps: int) -> None:
    """Send a request, and drop the connection soon."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    writer.write(request.encode())
    if steps == STEPS:
        await reader.read(100)
    for _ in range(steps):
        await asyncio.sleep(0)
    writer.transport.abort()


def ours() -> list[str]:
    """Name the tasks of clients, and of what they have begun."""
    names = ("agentsession-turn", "agentsession-watch", "agentsession-closing")
    tasks = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in tasks if name.startswith((*names, "agentsession-socket"))]


@pytest.mark.parametrize("middleware", ["none", "http", "gzip"])
async def test_nothing_is_left_of_clients_that_go_at_any_moment(
    subject: Subject, middleware: str
) -> None:
    """Before the answer begins, in the very step in which the run does, or amid a frame."""
    service, steps = subject.service(), Steps()
    await service.create_session(KEY)
    async with Runner(APP, steps, service) as runner:
        app: FastAPI = app_of(service, runner, websocket_user=user_of_socket)
        if middleware == "http":
            app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
        elif middleware == "gzip":
            app.add_middleware(GZipMiddleware, minimum_size=1)
        async with serving(app) as client:
            for n in range(STEPS + 1):
                body = json.dumps({"message": "hi"})
                posted = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                for request, rest in (
                    ("GET /sessions/chat/events/stream", "\r\n"),
                    ("GET /user/stream", "\r\n"),
                    (f"POST /sessions/{n}/run", f"{posted}\r\n{body}"),
                    ("GET /sessions/chat/socket", f"{_UPGRADE}\r\n"),
                ):
                    await drop(client, f"{request} HTTP/1.1\r\nHost: test\r\n{rest}", n)
            async with asyncio.timeout(10):
                while ours() or service._following.open:
                    await asyncio.sleep(0.01)
