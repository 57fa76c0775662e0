"""The examples: each runs as a program, in an empty folder, against a real server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from harness.servers import eventually

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PROGRAMS = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with copies of the examples and nothing else."""
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def empty_url(valkey_url: str) -> str:
    """A server with nothing on it."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    return valkey_url


@contextmanager
def running(folder: Path, *words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program that goes on until it is told to stop, and see that it stops well."""
    program = subprocess.Popen(
        [sys.executable, "-W", "error", *words],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield program
    finally:
        program.terminate()
        output = program.communicate(timeout=60)[0]
        sys.stdout.write(output)  # pytest shows it if the test fails
    assert "Traceback" not in output, output


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextmanager
def served(folder: Path, app: str, **environment: str) -> Iterator[httpx2.Client]:
    """Serve an application with uvicorn, and talk to it as a user."""
    path = folder / "s"
    path.unlink(missing_ok=True)
    with running(folder, "-m", "uvicorn", app, "--uds", str(path), **environment) as program:
        eventually(lambda: listens(path) or program.poll() is not None, seconds=60)
        with httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(path)),
            base_url="http://test",
            headers={"X-User": "ada"},
            timeout=30,
        ) as client:
            yield client


def read_stream(response: httpx2.Response) -> Iterator[tuple[str, Any]]:
    """Parse server-sent events as the standard says: fields in lines, an empty line after each."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif fields:
            yield fields.get("event", "message"), json.loads(fields["data"])
            fields = {}
    assert fields == {}, "the stream ended within an event"


def test_a_chat_streams_and_calls_its_tool(folder: Path, empty_url: str) -> None:
    """Call and result, then chunks, then the whole answer; all but the chunks is stored."""
    words, as_json = '"Weather in Lisbon"', {"Content-Type": "application/json"}
    with served(folder, "fastapi_chat:app", STORE=empty_url) as client:
        with client.stream(
            "POST", "/chats/c1/messages", content=words, headers=as_json
        ) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            events = list(read_stream(response))
        assert [kind for kind, _ in events] == ["stored"] * 2 + ["chunk"] * 3 + ["stored"]
        (call,), (result,) = events[0][1]["content"], events[1][1]["content"]
        assert (call["type"], call["arguments"]) == ("tool_call", {"city": "Lisbon"})
        assert (result["type"], result["call_id"]) == ("tool_result", call["call_id"])
        answer = "".join(event["content"] for kind, event in events if kind == "chunk")
        assert answer == events[-1][1]["content"] == "It is 16 degrees there."
        stored = [event["seq"] for kind, event in events if kind == "stored"]
        assert stored == [2, 3, 4]
        assert client.get("/chats/c1", headers={"X-User": "eve"}).json() is None
        assert client.post("/chats/c1/messages", json={}).status_code == 422
    with served(folder, "fastapi_chat:app", STORE=empty_url) as client:
        session = client.get("/chats/c1").json()
        assert [event["author"] for event in session["events"]] == [
            "user", "assistant", "tool", "assistant",
        ]  # fmt: skip


def test_a_client_that_goes_away_harms_nobody(folder: Path, empty_url: str) -> None:
    """What was stored by then stays, and others are answered."""
    with served(folder, "fastapi_chat:app", STORE=empty_url) as client:
        with client.stream("POST", "/chats/c1/messages", json="Weather in Lisbon") as response:
            kind, _ = next(read_stream(response))
        assert kind == "stored"
        with client.stream("POST", "/chats/c2/messages", json="And in Oslo") as response:
            last = list(read_stream(response))[-1][1]
        assert last["content"] == "It is 14 degrees there."
        log = client.get("/chats/c1").json()["events"]
        assert log[0]["content"] == "Weather in Lisbon"
        assert [event["seq"] for event in log] == list(range(1, len(log) + 1))


def test_a_worker_answers_what_the_web_process_stored(folder: Path, empty_url: str) -> None:
    """A repeated message is stored and answered once; a worker that was killed loses no job."""
    place = folder / "web_and_worker"
    with ExitStack() as stack:
        client = stack.enter_context(served(place, "web:app", REDIS=empty_url))

        def log() -> list[tuple[str, str]]:
            events = client.get("/chats/c1/events").json()
            return [(event["author"], event["content"]) for event in events]

        assert client.get("/chats/c1/events").status_code == 404
        for _ in range(2):
            assert client.put("/chats/c1/messages/m1", json="Hello").status_code == 202
        assert log() == [("user", "Hello")]
        with redis.Redis.from_url(empty_url) as queue:
            assert queue.llen("jobs") == 2
            # The worker took the first one, and was killed at it.
            assert queue.lmove("jobs", "jobs:first", "LEFT", "RIGHT")
            worker = running(place, "worker.py", "first", REDIS=empty_url)
            stack.enter_context(worker)
            eventually(lambda: not queue.exists("jobs", "jobs:first"), seconds=60)
            assert log() == [("user", "Hello"), ("agent", "You said 'Hello'.")]
            client.put("/chats/c1/messages/m2", json="Bye")
            eventually(lambda: len(log()) == 4)
        assert log()[2:] == [("user", "Bye"), ("agent", "You said 'Bye'.")]


def talk(folder: Path, *words: str, said: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "command_line_chat.py", *words],
        cwd=folder,
        input=said,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_terminal_chat_remembers(folder: Path, empty_url: str) -> None:
    """After a restart it knows what was said, in another chat what is known of the user."""
    store = ("--store", empty_url)
    first = talk(folder, "ada", *store, said="I like tea\n\n")
    assert "0 messages are in this chat" in first
    assert "This is message 1 from you. Nice to meet you." in first
    again = talk(folder, "ada", *store, said="and milk\n")  # and the end of the input
    assert "2 messages are in this chat" in again
    assert "This is message 2 from you. Before it you said: 'I like tea'." in again
    other = talk(folder, "ada", *store, "--chat", "second", said="hello\n\n")
    assert "This is message 3 from you. Nice to meet you." in other
    assert "This is message 1 from you." in talk(folder, "bob", *store, said="hi\n\n")
    assert "This is message 1 from you." in talk(folder, "ada", said="in memory\n\n")


def test_the_tests_of_an_agent_pass(folder: Path) -> None:
    """All of them, in memory and on the server that they start."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-q", "-p", "no:asyncio"],
        cwd=folder / "testing_an_agent",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_example_is_short(program: str) -> None:
    """It has fewer than 80 lines."""
    lines = (EXAMPLES / program).read_text(encoding="utf-8").splitlines()
    assert len(lines) < 80


def test_each_example_is_listed() -> None:
    """The page of examples names each program or its folder, and nothing that is not there."""
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for program in PROGRAMS:
        assert f"({program.partition('/')[0]}" in page
