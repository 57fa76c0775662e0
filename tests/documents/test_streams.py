"""The web applications of the documents, driven by a real client over a real server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from agentsession import Event, SessionKey, open_service
from documents.markdown import PROGRAMS, Program
from harness.servers import eventually

# An agent that does what its user says, in place of the one of the document.
OBEDIENT = """
import asyncio
from pathlib import Path

import {module}
from agentsession import Event


async def obedient(context):
    yield Event(author="agent", content="working", partial=True)
    try:
        match context.message.text:
            case "fail":
                raise RuntimeError("the model\\nis gone")
            case "hang":
                await asyncio.Event().wait()
            case "flood":
                while True:
                    yield Event(author="agent", content="x" * 10_000, partial=True)
    finally:
        Path("ended").touch()
    words = "well\\n\\rdone\\u2028at last"
    yield Event(author="agent", content=words, outcome="completed")


{module}.agent = obedient
app = {module}.app
"""


@dataclass
class Frame:
    """A server-sent event as a browser has it."""

    type: str = "message"
    data: list[str] = field(default_factory=list)
    id: str | None = None

    @property
    def json(self) -> Any:
        return json.loads("\n".join(self.data))


async def frames(response: httpx2.Response) -> AsyncIterator[Frame]:
    """Parse a stream by the rules of the HTML standard, comments left out."""
    frame, rest = Frame(), b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            name, _, value = line.decode().partition(":")
            value = value.removeprefix(" ")
            if not line:
                if frame.data:
                    yield frame
                frame = Frame()
            elif name == "data":
                frame.data.append(value)
            elif name == "event":
                frame.type = value
            elif name == "id":
                frame.id = value
            else:
                assert name == "", line


STREAMING = [each for each in PROGRAMS if "EventSourceResponse" in each.source]
each_stream = pytest.mark.parametrize("program", STREAMING, ids=lambda each: each.name)


@contextmanager
def served(program: Program, folder: Path, url: str, agent: str = "") -> Iterator[str]:
    """Run an application under uvicorn; give its address, where calls wait until it serves."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
    program.write(folder, "chat.py", url)
    (folder / "driven.py").write_text(agent.format(module="chat"), encoding="utf-8")
    with (folder / "log").open("w", encoding="utf-8") as log, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address, descriptor = listening.getsockname(), listening.fileno()
        options = ["--app-dir", ".", "--fd", str(descriptor), "--log-level", "warning"]
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "driven:app" if agent else "chat:app", *options],
            cwd=folder,
            stderr=log,
            pass_fds=[descriptor],
        )
    try:
        yield f"http://127.0.0.1:{address[1]}"
        process.terminate()
        assert process.wait(60) in (0, -15), (folder / "log").read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def said(
    client: httpx2.AsyncClient, words: str
) -> AsyncIterator[tuple[httpx2.Response, AsyncIterator[Frame]]]:
    async with client.stream("POST", "/chats/c1", json={"message": words}) as response:
        assert response.status_code == 200
        yield response, frames(response)


async def stored_in(url: str, folder: Path) -> list[Event]:
    """Read the log as another process would."""
    prefix = "shop:" if 'key_prefix="shop:"' in (folder / "chat.py").read_text() else ""
    async with open_service(url, key_prefix=prefix) as service:
        return await service.get_events(SessionKey("shop", "alice", "c1"))


@each_stream
async def test_a_turn_is_streamed(program: Program, valkey_url: str, tmp_path: Path) -> None:
    """Each stored event comes with its position as id, line breaks and all, and then the end."""
    with served(program, tmp_path, valkey_url) as base:
        async with (
            httpx2.AsyncClient(base_url=base, timeout=60) as client,
            said(client, "one\ntwo") as answer,
        ):
            response, stream = answer
            *events, last = [frame async for frame in stream]
    assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert response.headers["cache-control"] == "no-store"
    assert last.type == "done"
    received = [(Event.from_dict(each.json), each.id) for each in events]
    for event, position in received:
        assert position == (str(event.seq) if event.seq else None)
        assert event.partial == (position is None)
    _, *answers = await stored_in(valkey_url, tmp_path)
    assert [event for event, position in received if position] == answers
    assert [event.text for event in answers] == ["You said:\none\ntwo"]


@each_stream
async def test_an_error_in_the_middle_is_told(
    program: Program, valkey_url: str, tmp_path: Path
) -> None:
    """The stored event of the error comes first, then a frame that says that the turn failed."""
    with served(program, tmp_path, valkey_url, OBEDIENT) as base:
        async with httpx2.AsyncClient(base_url=base, timeout=60) as client:
            async with said(client, "fail") as (_, stream):
                begun, cut, error, last = [frame async for frame in stream]
            async with said(client, "go on") as (_, stream):
                *_, answer, done = [frame async for frame in stream]
    assert Event.from_dict(begun.json).partial
    assert Event.from_dict(cut.json).text == "working"
    assert (last.type, last.json, last.id) == ("failed", "The turn failed.", None)
    failure = Event.from_dict(error.json)
    assert failure.error is not None
    assert failure.error.type == "RuntimeError"
    assert (error.id, answer.id, done.type) == ("3", "5", "done")
    assert Event.from_dict(answer.json).text == "well\n\rdone\u2028at last"
    assert [event.seq for event in await stored_in(valkey_url, tmp_path)] == [1, 2, 3, 4, 5]
    assert "RuntimeError: the model\nis gone" in (tmp_path / "log").read_text(encoding="utf-8")


@each_stream
@pytest.mark.parametrize("words", ["hang", "flood"])
async def test_a_turn_ends_when_its_client_goes(
    program: Program, valkey_url: str, tmp_path: Path, words: str
) -> None:
    """The agent is stopped, wherever it is; what was stored stays, and nobody complains."""
    with served(program, tmp_path, valkey_url, OBEDIENT) as base:
        async with httpx2.AsyncClient(base_url=base, timeout=60) as client:
            async with said(client, words) as (_, stream):
                await anext(stream)
                assert not (tmp_path / "ended").exists()
            eventually((tmp_path / "ended").exists, seconds=60)
            async with said(client, "go on") as (_, stream):
                *_, answer, done = [frame async for frame in stream]
    assert done.type == "done"
    assert (tmp_path / "log").read_text(encoding="utf-8") == "", "a client may leave"
    log = await stored_in(valkey_url, tmp_path)
    assert answer.id == str(log[-1].seq)
    first, *cut, second, last = [event.author for event in log]
    assert (first, second, last) == ("user", "user", "agent")
    # The words that had come so far, cut off; a flood may be more than one event holds.
    assert set(cut) == {"agent"}
    assert len(cut) == 1 or words == "flood"


async def test_a_client_resumes_where_it_was(valkey_url: str, tmp_path: Path) -> None:
    """It gets each stored event after the one that it had, and no other."""
    (program,) = (each for each in STREAMING if "last_event_id" in each.source)
    with served(program, tmp_path, valkey_url) as base:
        async with httpx2.AsyncClient(base_url=base, timeout=60) as client:
            for words in ("one", "two"):
                async with said(client, words) as (_, stream):
                    assert [frame async for frame in stream][-1].type == "done"
            headers = {"Last-Event-ID": "2"}
            async with client.stream("GET", "/chats/c1", headers=headers) as response:
                *missed, done = [frame async for frame in frames(response)]
                assert (await client.get("/chats/c2")).status_code == 404
                beyond = await client.get("/chats/c1", headers={"Last-Event-ID": "5"})
                assert beyond.status_code == 404
    assert [frame.id for frame in missed] == ["3", "4"]
    assert [Event.from_dict(frame.json).text for frame in missed] == ["two", "You said:\ntwo"]
    assert done.type == "done"


async def test_who_resumes_a_chat_that_is_deleted_meanwhile_is_told(
    valkey_url: str, tmp_path: Path
) -> None:
    """It gets no end as if it had all, and nobody a traceback; a new chat of the id is not read."""
    (program,) = (each for each in STREAMING if "last_event_id" in each.source)
    key = SessionKey("shop", "alice", "c1")
    with served(program, tmp_path, valkey_url) as base:
        async with (
            open_service(valkey_url, key_prefix="shop:") as service,
            httpx2.AsyncClient(base_url=base, timeout=60) as client,
        ):
            await service.create_session(key)
            for _ in range(5):
                # More in a page than the buffers of both sides take.
                await service.append_events(
                    key, [Event(author="user", content="x" * 500_000) for _ in range(30)]
                )
            async with client.stream("GET", "/chats/c1") as response:
                stream = frames(response)
                first = await anext(stream)
                await service.delete_session(key)
                await service.create_session(key)
                *_, last = [frame async for frame in stream]
    assert (first.id, last.type) == ("1", "gone")
    assert not (tmp_path / "log").read_text(encoding="utf-8")


ROUTERS = [each for each in PROGRAMS if "session_router(" in each.source]


@pytest.mark.parametrize("program", ROUTERS, ids=lambda each: each.name)
async def test_the_router_is_used_as_written(
    program: Program, valkey_url: str, tmp_path: Path
) -> None:
    """A run streams, is read as the log has it, and is followed from where one was."""
    with served(program, tmp_path, valkey_url) as base:
        async with httpx2.AsyncClient(base_url=base, timeout=60) as client:
            body = {"message": "one two"}
            async with client.stream("POST", "/sessions/c1/run", json=body) as response:
                taken = [frame async for frame in frames(response)]
            assert [frame.type for frame in taken][:: len(taken) - 1] == ["run", "done"]
            (stored,) = (frame for frame in taken if frame.id is not None)
            page = (await client.get("/sessions/c1/events", params={"after_seq": 1})).json()
            assert page["events"] == [stored.json]
            async with client.stream("GET", "/sessions/c1/events/stream?after=1") as response:
                async for frame in frames(response):
                    if frame.id is not None:
                        assert (frame.id, frame.json) == ("2", stored.json)
                        break
            schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    assert {"Event", "Session", "SessionPage"} <= set(schemas)
