"""The mistakes of a newcomer that are programs: loops, threads, processes, frameworks, notebooks.

Each row is a program as a newcomer would write it, run as a file; what it says is what stands in
the terminal afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from agentsession._extras import what_to_install

BEGINNING = """
import asyncio
from agentsession import Event, InMemorySessionService, Runner, SessionKey, open_service

KEY = SessionKey("shop", "ann", "s1")
"""


class Program(NamedTuple):
    """A program with a mistake, without its beginning."""

    what: str
    source: str
    says: str
    command: tuple[str, ...] = ("program.py",)


PROGRAMS = [
    Program(
        "trio",
        """
        import trio

        async def main():
            async with open_service("memory://") as service:
                await service.create_session(KEY)

        trio.run(main)
        """,
        "EventLoopError: agentsession runs on asyncio, and no event loop of asyncio runs here; "
        "start the program with asyncio.run(main()) and not with trio.run()",
    ),
    Program(
        "asyncio.run() for each call",
        """
        service = open_service("memory://")
        asyncio.run(service.create_session(KEY))
        asyncio.run(service.append_event(KEY, Event(author="user", content="Hello")))
        """,
        "EventLoopError: the session service belongs to another event loop, which has ended; make "
        "one service for each loop, and close it there: in the coroutine that asyncio.run() runs",
    ),
    Program(
        "closing in a loop of its own",
        """
        service = open_service("memory://", session_ttl=60)
        asyncio.run(service.create_session(KEY))
        asyncio.run(service.aclose())
        """,
        "EventLoopError: the session service belongs to another event loop, which has ended",
    ),
    Program(
        "closing Redis in a loop of its own",
        """
        from harness import servers
        with servers.alone() as server:
            service = open_service(f"redis://127.0.0.1:{server.port}")
            asyncio.run(service.get_or_create_session(KEY))
            asyncio.run(service.aclose())
        """,
        "EventLoopError: the session service belongs to another event loop, which has ended",
    ),
    Program(
        "a call from another thread",
        """
        async def main():
            async with open_service("memory://") as service:
                await asyncio.to_thread(asyncio.run, service.create_session(KEY))

        asyncio.run(main())
        """,
        "For several loops and threads there is agentsession.blocking",
    ),
    Program(
        "a fork after the first use",
        """
        import os
        service = open_service("memory://")
        asyncio.run(service.create_session(KEY))
        if os.fork():
            os.wait()
        else:
            asyncio.run(service.get_session(KEY))
        """,
        "EventLoopError: the session service was used before this process was forked, and belongs "
        "to the process that it was forked from; make one service in each process, after the fork",
    ),
    Program(
        "sessions in memory, and two workers, or uvicorn --reload",
        """
        import multiprocessing

        service = open_service("memory://")

        async def write():
            await service.create_session(KEY)
            for concern in await service.check():
                print(concern.message)

        async def read():
            print("found", await service.get_session(KEY))

        def work(task):
            asyncio.run(task())

        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            for task in (write, read):
                worker = context.Process(target=work, args=(task,))
                worker.start()
                worker.join()
        """,
        "sessions are in this process's memory: they are gone when it ends, and no other process "
        "sees them; use RedisSessionService for data that matters\nfound None",
    ),
    Program(
        "a call that is not awaited",
        """
        async def main():
            async with open_service("memory://") as service:
                await service.create_session(KEY)
                service.append_event(KEY, Event(author="user", content="Hello"))

        asyncio.run(main())
        """,
        "RuntimeWarning: coroutine 'SessionService.append_event' was never awaited",
    ),
    Program(
        "a turn that is not iterated over",
        """
        async def answer(context):
            yield Event(author="bot", content="Hello!")

        async def main():
            async with Runner("shop", answer) as runner:
                runner.run("ann", "s1", "Hello")

        asyncio.run(main())
        """,
        "RuntimeWarning: session 's1', app 'shop', user 'ann': a turn never began; write 'async "
        "for event in runner.run(...)'",
    ),
    Program(
        "one service for all tests, and a loop for each",
        """
        import pytest

        @pytest.fixture(scope="session")
        def service():
            return open_service("memory://")

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        @pytest.mark.parametrize("number", [1, 2])
        async def test_a_session(service, number):
            await service.get_or_create_session(KEY)
        """,
        "in a test fixture that lives as long as the loop",
        ("-m", "pytest", "-q", "program.py"),
    ),
    Program(
        "FastAPI's TestClient without with, and one service for all requests",
        """
        from fastapi import FastAPI
        from fastapi.testclient import TestClient

        app = FastAPI()
        service = open_service("memory://")

        @app.get("/")
        async def session():
            return (await service.get_or_create_session(KEY)).id

        client = TestClient(app)
        print(client.get("/").json())
        print(client.get("/").json())
        """,
        "(with FastAPI's TestClient: 'with TestClient(app) as client', or each request has a loop "
        "of its own)",
    ),
    Program(
        "FastAPI's TestClient without with, and a service made by the lifespan",
        """
        from contextlib import asynccontextmanager
        from fastapi import FastAPI, Request
        from fastapi.testclient import TestClient

        @asynccontextmanager
        async def lifespan(app):
            async with open_service("memory://") as app.state.sessions:
                yield

        app = FastAPI(lifespan=lifespan)

        @app.get("/")
        async def session(request: Request):
            return (await request.app.state.sessions.get_or_create_session(KEY)).id

        TestClient(app).get("/")
        """,
        "AttributeError: 'State' object has no attribute 'sessions'",
    ),
    Program(
        "asyncio.run() in a notebook",
        """
        async def main():
            asyncio.run(open_service("memory://").create_session(KEY))

        asyncio.run(main())  # as a notebook runs a cell
        """,
        "RuntimeError: asyncio.run() cannot be called from a running event loop",
    ),
    Program(
        "redis-py is missing",
        """
        import sys
        sys.modules["redis"] = None  # an import fails, as where it is not installed

        from agentsession import RedisSessionService
        """,
        "ImportError: RedisSessionService needs redis-py and hiredis (import of redis halted; None "
        "in sys.modules); install it with: pip install 'redis[hiredis]>=8.1'",
    ),
    Program(
        "redis-py is too old",
        """
        import redis
        redis.__version__ = "7.4.0"

        open_service("redis://localhost")
        """,
        "ImportError: RedisSessionService needs a newer redis-py than 7.4.0; install it with: pip",
    ),
    Program(
        "a framework that is too old",
        """
        import importlib.metadata, sys
        sys.modules["agents"] = None
        importlib.metadata.version = lambda name: "0.2.0"

        import agentsession.adapters.openai_agents
        """,
        "or newer, and 0.2.0 is installed: pip install 'agentsession[openai-agents]'\n",
    ),
    *(
        Program(
            f"{ui} without {needed}",
            f"""
            import sys
            sys.modules["{needed}"] = None

            import agentsession.ui.{ui}
            """,
            "ImportError: this module needs its extra, which cannot be imported (import of "
            f"{needed} halted; None in sys.modules): pip install 'agentsession[{ui}]'\n",
        )
        for ui, needed in [
            ("vercel", "fastapi"),
            ("vercel", "sse_starlette"),
            ("agui", "fastapi"),
            ("agui", "ag_ui.core"),
        ]
    ),
]


def said(folder: Path, source: str, *command: str, feed: str = "") -> str:
    """Run a program in an empty folder, and return all that stands in the terminal then."""
    (folder / "program.py").write_text(BEGINNING + dedent(source), encoding="utf-8")
    # As for a newcomer, who imports what is in the folder; and the servers of these tests.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        input=feed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.what)
def test_a_program_says_what_to_do(program: Program, tmp_path: Path) -> None:
    """The words stand in the terminal, be it in a traceback, a warning or a report."""
    assert program.says in said(tmp_path, program.source, *program.command)


def test_a_notebook_awaits_at_the_top(tmp_path: Path) -> None:
    """What a cell holds runs in a loop that goes on, so that one service serves all cells."""
    cells = (
        "from program import *\n"
        "service = open_service('memory://')\n"
        "session = await service.create_session(KEY)\n"
        "await service.append_event(session, Event(author='user', content='Hello'))\n"
        "print([event.text for event in (await service.get_session(KEY)).events])\n"
    )
    assert "['Hello']" in said(tmp_path, "", "-m", "asyncio", feed=cells)


@pytest.mark.parametrize(
    ("extra", "installed", "says"),
    [
        ("one", {}, "it needs a-package: pip install 'agentsession[one]'"),
        (
            "one",
            {"a-package": "0.9.12"},
            "it needs a-package 0.24 or newer, and 0.9.12 is installed: pip install 'agentsession[",
        ),
        ("one", {"a-package": "0.24.0rc1"}, "it needs its extra, which cannot be imported (why)"),
        ("two", {}, "it needs b.package and c_package: pip install 'agentsession[two]'"),
        ("two", {"c_package": "1.1"}, "it needs b.package: pip install"),
        ("two", {"c_package": "1.0.9"}, "it needs c_package 1.1 or newer, and 1.0.9 is installed"),
        ("none", {}, "it needs its extra, which cannot be imported (why): pip install"),
    ],
)
def test_what_an_extra_needs_is_read_from_the_metadata(
    extra: str, installed: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is named, or what is too old and how new it has to be."""
    requirements = [
        "anyio>=4",
        "a-package>=0.24; extra == 'one'",
        "b.package>=1; extra == 'two'",
        "c_package[all]<2,>=1.1 ; python_version > '3' and extra == \"two\"",
    ]

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr("importlib.metadata.requires", {"agentsession": requirements}.get)
    monkeypatch.setattr("importlib.metadata.version", version)
    assert what_to_install("it", extra, ImportError("why")).startswith(says)


def test_without_metadata_an_extra_is_named_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the package is run from its source."""

    def requires(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.requires", requires)
    told = what_to_install("it", "mcp", ImportError("No module named 'mcp'"))
    assert told.endswith("(No module named 'mcp'): pip install 'agentsession[mcp]'")


def test_the_version_that_is_asked_for_is_the_one_of_the_package() -> None:
    """What an error tells to install is what the package's metadata ask for."""
    from agentsession.redis._driver import OLDEST

    project = Path(__file__).parents[2] / "pyproject.toml"
    version = ".".join(map(str, OLDEST))
    assert f'"redis[hiredis]>={version}"' in project.read_text(encoding="utf-8")
