"""Serves MCP; it gets ``url prefix``, and the MCP session if it is to go on with one."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import anyio
from mcp.server.streamable_http import StreamableHTTPServerTransport

from adapters.frameworks.mcp import server_app, serving
from agentsession import open_service
from agentsession.adapters.mcp import EventStore


def tell(**words: Any) -> None:
    print(json.dumps(words), flush=True)  # noqa: T201 - the test reads it


async def main(url: str, prefix: str, session_id: str | None = None) -> None:
    async with open_service(url, key_prefix=prefix) as service:
        store = EventStore(service, app_name="tools", session_id=session_id)
        tell(ready=True)
        if session_id is None:
            async with serving(server_app(store)) as address:
                tell(url=address)
                await anyio.sleep_forever()
        transport = StreamableHTTPServerTransport(session_id, event_store=store)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await transport.handle_request(scope, receive, send)

        async with transport.connect(), serving(app) as address:
            tell(url=address)
            await anyio.sleep_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
