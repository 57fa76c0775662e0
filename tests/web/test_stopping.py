"""Servers that stop, are killed, and come again; and connections that are dropped."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from agentsession import Event, SessionKey, SessionService, open_service
from harness.servers import free_ports
from web.site import APP, frames, stored, take, until

KEY = SessionKey(APP, "ada", "chat")
CHAT = "/sessions/chat"
STREAM = f"{CHAT}/events/stream"


class Site:
    """A server of some workers, which may be stopped and started again at the same port."""

    def __init__(self, store: str) -> None:
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = os.environ | {"AGENTSESSION_URL": store}
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, workers: int = 1) -> None:
        words = ["web.program:app", "--port", str(self.port), "--workers", str(workers)]
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it takes a moment
            [sys.executable, "-m", "uvicorn", *words, "--log-level", "warning"],
            cwd=Path(__file__).parent.parent,
            env=self._environment,
            start_new_session=True,
        )
        async with httpx2.AsyncClient(base_url=self.url) as client, asyncio.timeout(60):
            while True:
                assert self._process.poll() is None
                try:
                    await client.get("/openapi.json")
                except httpx2.TransportError:
                    await asyncio.sleep(0.02)
                else:
                    return

    async def stop(self) -> int:
        """Stop it in order, and tell how it ended."""
        assert self._process is not None
        self._process.terminate()
        return await asyncio.to_thread(self._process.wait, 60)

    async def kill(self) -> None:
        """Kill all of it at once."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            await asyncio.to_thread(self._process.wait)


@pytest.fixture(params=["sqlite", "server"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that processes share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    found: str = request.getfixturevalue("valkey_url")
    return found


@pytest.fixture
async def service(url: str) -> AsyncIterator[SessionService]:
    async with open_service(url, session_event_limit=None) as service:
        await service.delete_user(KEY.user)
        yield service
        await service.delete_user(KEY.user)


@pytest.fixture
async def site(url: str) -> AsyncIterator[Site]:
    site = Site(url)
    yield site
    await site.kill()


async def test_a_server_that_stops_says_so_and_its_runs_come_to_their_end(
    site: Site, service: SessionService
) -> None:
    """Streams end with a frame, sockets with their code; the next server goes on without a gap."""
    await site.start()
    await service.create_session(KEY)
    async with httpx2.AsyncClient(base_url=site.url, timeout=30) as client:
        async with (
            client.stream("GET", STREAM) as followed,
            client.stream("GET", "/user/stream") as news,
            client.stream("POST", f"{CHAT}/run", json={"message": "hi"}) as run,
            connect(f"{site.url.replace('http', 'ws')}{CHAT}/socket") as socket,
        ):
            streams = [frames(each) for each in (run, followed, news)]
            had = await take(streams[0], 3)
            stopping = asyncio.create_task(site.stop())
            ends = [await until(stream, "closing") for stream in streams]
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert [[frame.name for frame in end].count("done") for end in ends] == [0, 0, 0]
        # It was in the middle of its run, which was to go on without its readers.
        assert await stopping in {0, -signal.SIGTERM}
        log = await service.get_events(KEY)
        assert [event.outcome for event in log] == ["", "completed"]
        await site.start()
        seen = stored([frame for frame in ends[1] if not frame.name])
        headers = {"Last-Event-ID": str(seen[-1].seq)}
        async with client.stream("GET", STREAM, headers=headers) as followed:
            rest = stored((await take(frames(followed), 1 + len(log) - len(seen)))[1:])
    assert seen + rest == log
    assert had[0].name == "run"


async def test_a_server_that_is_killed_is_resumed_from(site: Site, service: SessionService) -> None:
    """Whoever was followed goes on; the run that died with it is closed by whoever follows it."""
    await site.start()
    await service.create_session(KEY)
    async with httpx2.AsyncClient(base_url=site.url, timeout=60) as client:
        body = {"message": "hi", "message_id": "m"}
        async with (
            client.stream("GET", STREAM) as followed,
            client.stream("POST", f"{CHAT}/run", json=body) as run,
        ):
            stream, running = frames(followed), frames(run)
            seen = stored((await take(stream, 2))[1:])
            await take(running, 3)
            await site.kill()
            with pytest.raises(httpx2.TransportError):
                await until(running, "done")
            with pytest.raises(httpx2.TransportError):
                await until(stream, "closing")
        await service.append_event(KEY, Event(author="user", content="meanwhile"))
        await site.start()
        path = f"{STREAM}?run_id=m"
        async with client.stream("GET", path, headers={"Last-Event-ID": "1"}) as followed:
            taken = await until(frames(followed), "done")
    assert seen + stored(taken) == await service.get_events(KEY)
    assert taken[-1].data == {"outcome": "abandoned"}


@pytest.mark.parametrize("url", ["server"], indirect=True)
async def test_a_client_that_drops_its_connection_500_times_misses_nothing(
    site: Site, service: SessionService
) -> None:
    """At any byte, at two workers, while others write; nothing comes twice either."""
    await site.start(workers=2)
    await service.create_session(KEY)
    written = 0
    chance = random.Random(5)

    async def write() -> None:
        nonlocal written
        while not is_enough.is_set():
            event = Event(author="user", content=str(written) * chance.randrange(50))
            written = (await service.append_event(KEY, event)).seq
            await asyncio.sleep(0.002)

    is_enough = asyncio.Event()  # To cancel it could cut it off between what it stores and counts.
    writing = asyncio.create_task(write())
    had: list[Event] = []
    async with asyncio.timeout(300):
        for _ in range(500):
            size = chance.randrange(1, 8000)
            had += await _read_some(site, had[-1].seq if had else 0, size, 0.2)
        is_enough.set()
        await writing
        while not had or had[-1].seq < written:
            had += await _read_some(site, had[-1].seq if had else 0, 1_000_000, 1.0)
    assert [event.seq for event in had] == list(range(1, written + 1))
    log: list[Event] = []
    while page := await service.get_events(KEY, after_seq=len(log), limit=1000):
        log += page
    assert had == log


async def _read_some(site: Site, last_id: int, size: int, patience: float) -> list[Event]:
    """Read so many bytes of the stream at most, drop it, and return the events that were whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    request = (
        f"GET {STREAM}?partial=false HTTP/1.1\r\nHost: test\r\nLast-Event-ID: {last_id}\r\n\r\n"
    )
    writer.write(request.encode())
    received = b""
    try:
        async with asyncio.timeout(patience):
            while len(received) < size:
                piece = await reader.read(size - len(received))
                assert piece, received[-200:]
                received += piece
    except TimeoutError:
        pass
    writer.transport.abort()
    body = received.partition(b"\r\n\r\n")[2]
    events = []
    for line in _unchunked(body).split(b"\n\n")[:-1]:
        fields = dict(each.split(b": ", 1) for each in line.splitlines() if each[:1] != b":")
        if b"id" in fields:
            event = Event.from_dict(json.loads(fields[b"data"]))
            assert event.seq == int(fields[b"id"])
            events.append(event)
    return events


def _unchunked(body: bytes) -> bytes:
    """Undo the chunks of HTTP, as far as they came."""
    whole = b""
    while b"\r\n" in body:
        length, _, body = body.partition(b"\r\n")
        size = int(length, 16)
        whole += body[:size]
        body = body[size + 2 :]
    return whole
