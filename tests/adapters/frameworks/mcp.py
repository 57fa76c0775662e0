"""A server of MCP, and a client that is as rude as a test needs it; versions 1 and 2 of ``mcp``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import uvicorn

from agentsession.adapters.mcp import SessionScope

try:
    import httpx
    from mcp.server.fastmcp import Context, FastMCP

    VERSION = 1
except ImportError:  # From version 2 on.
    import httpx2 as httpx  # type: ignore[import-not-found, no-redef, unused-ignore]
    from mcp.server.mcpserver import Context, MCPServer  # type: ignore[import-not-found, no-redef, unused-ignore]

    VERSION = 2

PROTOCOL = "2025-11-25"


def server_app(event_store: Any, hold: anyio.Event | None = None) -> Any:
    """Make an application with a tool that counts, hangs up on its client, and counts on."""

    async def count(name: str, to: int, ctx: Any) -> str:
        """Report progress, in the middle of it without a connection."""
        for number in range(to):
            await ctx.report_progress(number, to, f"{name} {number}")
            if number == 0:
                await ctx.close_sse_stream()
            if number == 1 and hold is not None:
                await hold.wait()
        return f"{name} has counted"

    count.__annotations__["ctx"] = Context
    if VERSION == 1:
        server: Any = FastMCP("counter", event_store=event_store)
        server.add_tool(count)
        app = server.streamable_http_app()
    else:
        server = MCPServer("counter")
        server.add_tool(count)
        app = server.streamable_http_app(event_store=event_store)
    app.add_middleware(SessionScope)
    return app


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an application on a port of its own."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        while not server.started:
            await anyio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.should_exit = True
            server.force_exit = True


class Caller:
    """One MCP session, by plain requests.

    Args:
        http: Makes the requests.
        url: The server.

    Attributes:
        session_id: The MCP session, as the server calls it.
    """

    def __init__(self, http: Any, url: str, session_id: str = "") -> None:
        self._http = http
        self._url = url
        self.session_id = session_id

    @property
    def headers(self) -> dict[str, str]:
        headers = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": PROTOCOL,
        }
        return {**headers, "mcp-session-id": self.session_id} if self.session_id else headers

    async def initialize(self) -> None:
        params = {
            "protocolVersion": PROTOCOL,
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        events = await self.post("initialize", 0, params, until=lambda event: "result" in event)
        assert events
        await self._http.post(
            self._url,
            json={"jsonrpc": "2.0", "method": "notifications/initialized"},
            headers=self.headers,
        )

    async def count(self, name: str, to: int, request_id: int | str = 7) -> list[dict[str, Any]]:
        """Call the tool, and return what came until the connection was closed."""
        params = {
            "name": "count",
            "arguments": {"name": name, "to": to},
            "_meta": {"progressToken": name},
        }
        return await self.post("tools/call", request_id, params)

    async def post(
        self, method: str, request_id: int | str, params: Any, until: Any = None
    ) -> list[dict[str, Any]]:
        body = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        async with self._http.stream(
            "POST", self._url, json=body, headers=self.headers
        ) as response:
            self.session_id = response.headers["mcp-session-id"]
            return await received(response, until)

    async def resume(self, last_event_id: str) -> list[dict[str, Any]]:
        """Resume a stream; what comes until its answer is there, or nothing comes any more."""
        headers = {**self.headers, "last-event-id": last_event_id}
        async with self._http.stream("GET", self._url, headers=headers) as response:
            assert response.status_code == 200, response.status_code
            return await received(response, lambda event: "result" in event)


async def received(response: Any, until: Any = None) -> list[dict[str, Any]]:
    """Return the events of a stream: each message with its id; of an empty one the id alone."""
    found: list[dict[str, Any]] = []
    event: dict[str, Any] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            event["event_id"] = value
        elif name == "data" and value:
            event |= json.loads(value)
        elif not line and event:
            found.append(event)
            if until is not None and until(event):
                break
            event = {}
    return found


def words(events: list[dict[str, Any]]) -> list[str]:
    """Return what the tool has said."""
    said: list[str] = []
    for event in events:
        if "result" in event:
            said.append(event["result"]["content"][0]["text"])
        elif "method" in event:
            said.append(event["params"]["message"])
    return said


def client() -> Any:
    return httpx.AsyncClient(timeout=10)
