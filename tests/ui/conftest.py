"""Real clients of frontends: in Node, at a server of the tests' own."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, Header, HTTPException

from agentsession import RedisSessionService, Runner, SessionKey, SessionService, UserKey
from agentsession.runner import OnDisconnect
from agentsession.ui.agui import agent_router
from agentsession.ui.vercel import chat_router
from harness.servers import LOOPBACK, free_ports
from ui.scripted import Gate, agent_of

HERE = Path(__file__).parent / "node"


def _missing(what: str) -> None:
    """Skip, or fail where ``AGENTSESSION_TEST_NODE=required`` in the environment insists."""
    what = f"{what}: the clients of frontends run in Node, with npm"
    if os.environ.get("AGENTSESSION_TEST_NODE") == "required":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def clients(pytestconfig: pytest.Config) -> Path:
    """The folder with the clients and what they need, installed once and kept."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        _missing("Node is not here")
    lock = (HERE / "package-lock.json").read_bytes()
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(f"agentsession-node-{hashlib.sha256(lock).hexdigest()[:16]}")
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # Tests run side by side.
        for file in HERE.iterdir():
            shutil.copy(file, folder)
        if not (folder / "installed").exists():
            done = subprocess.run(
                [str(npm), "ci", "--omit=optional", "--no-audit", "--no-fund", "--ignore-scripts"],
                cwd=folder,
                capture_output=True,
                encoding="utf-8",
            )
            if done.returncode:
                _missing(f"npm could not install the clients ({done.stderr[-300:].strip()})")
            (folder / "installed").touch()
    return folder


class Client:
    """A program in Node that takes commands."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._asked = 0
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            answer = json.loads(line)
            self._waiting.pop(answer.pop("number")).set_result(answer)

    async def do(self, does: str, **options: Any) -> dict[str, Any]:
        """Have it do something, and wait until it has."""
        assert self._process.stdin is not None
        self._asked += 1
        answer = self._waiting[self._asked] = asyncio.get_running_loop().create_future()
        command = {"number": self._asked, "does": does, **options}
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        async with asyncio.timeout(30):
            done: dict[str, Any] = await answer
        assert "failed" not in done, done
        return done

    async def aclose(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._reading.cancel()


async def until_shown(client: Client, words: str) -> None:
    """Wait until a client shows something."""
    async with asyncio.timeout(10):
        while words not in json.dumps(await client.do("shown")):
            await asyncio.sleep(0.05)


class Site:
    """A server with an agent, and the clients at it.

    Attributes:
        service: Its sessions.
        url: Where it is.
        gate: Where its agent waits.
    """

    def __init__(self, service: SessionService, url: str, gate: Gate, clients: Path) -> None:
        self.service = service
        self.url = url
        self.gate = gate
        self._clients = clients
        self.server: uvicorn.Server | None = None
        self.stack = AsyncExitStack()

    def key(self, chat: str) -> SessionKey:
        return SessionKey("site", "alice", chat)

    async def client(self, program: str) -> Client:
        process = await asyncio.create_subprocess_exec(
            *("node", program),
            cwd=self._clients,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        client = Client(process)
        self.stack.push_async_callback(client.aclose)
        return client

    async def post(self, path: str, user: str = "alice", **body: Any) -> Any:
        async with httpx2.AsyncClient(base_url=self.url, headers={"x-user": user}) as client:
            return (await client.post(path, json=body)).json()

    async def get(self, path: str, user: str = "alice") -> Any:
        async with httpx2.AsyncClient(base_url=self.url, headers={"x-user": user}) as client:
            return (await client.get(path)).json()

    async def page(self, chat: str, user: str = "alice") -> Client:
        """Open a page with a chat of the AI SDK."""
        page = await self.client("vercel.mjs")
        api = f"{self.url}/api/chat"
        await page.do("open", api=api, id=chat, headers={"x-user": user})
        return page

    async def agent(self, thread: str, user: str = "alice", path: str = "") -> Client:
        """Open a client of AG-UI on a thread."""
        agent = await self.client("agui.mjs")
        url = f"{self.url}/agui{path}"
        await agent.do("open", url=url, id=thread, headers={"x-user": user})
        return agent


async def current_user(x_user: Annotated[str, Header()] = "") -> UserKey:
    if not x_user:
        raise HTTPException(401)
    return UserKey("site", x_user)


StartSite = Callable[..., Awaitable[Site]]


@pytest.fixture
async def start_site(valkey_url: str, clients: Path) -> AsyncIterator[StartSite]:
    """Start a server with the agent of the scripts."""
    async with AsyncExitStack() as stack:

        async def start(on_disconnect: OnDisconnect = "cancel", **options: Any) -> Site:
            prefix = f"{os.urandom(6).hex()}:"
            service = RedisSessionService.from_url(valkey_url, key_prefix=prefix)
            await stack.enter_async_context(service)
            gate = Gate()
            runner = Runner("site", agent_of(gate), service, on_disconnect=on_disconnect, **options)
            stack.push_async_callback(runner.aclose, timeout=0)
            (port,) = free_ports(1)
            app = FastAPI()
            app.include_router(chat_router(service, runner=runner, user=current_user))
            app.include_router(agent_router(service, runner=runner, user=current_user))
            site = Site(service, f"http://{LOOPBACK}:{port}", gate, clients)
            config = uvicorn.Config(app, host=LOOPBACK, port=port, log_level="warning", ws="none")
            site.server = server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve())

            async def stop() -> None:
                server.should_exit = True
                await serving

            stack.push_async_callback(stop)
            await stack.enter_async_context(site.stack)
            while not server.started:
                await asyncio.sleep(0.01)
            return site

        yield start


@pytest.fixture
async def site(start_site: StartSite) -> Site:
    """A server whose agent ends with its reader."""
    return await start_site()


@pytest.fixture
async def patient_site(start_site: StartSite) -> Site:
    """A server whose agent goes on without readers."""
    return await start_site("detach")
