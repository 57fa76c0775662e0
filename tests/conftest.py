"""Fixtures: every backend, on every kind of server here, each the tests' own."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("agentsession.testing", "harness", "reliability")

from agentsession.testing import MemorySubject, Subject  # noqa: E402 - after the rewrite is set up
from harness import servers  # noqa: E402 - as above
from harness.files import SQLiteSubject  # noqa: E402 - as above
from harness.subjects import RedisSubject  # noqa: E402 - as above

# How long an example takes on a busy machine says nothing.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
# asyncio's own loop, and the one that ``uvicorn[standard]`` runs applications on.
LOOPS = [pytest.param(("asyncio", {"debug": True}), id="asyncio")]
if importlib.util.find_spec("uvloop"):
    LOOPS.append(pytest.param(("asyncio", {"debug": True, "use_uvloop": True}), id="uvloop"))


def pytest_configure() -> None:
    """Let programs that tests start be interrupted, also where all of this runs in the background.

    A shell has what it starts there ignore the signal, and whatever that starts in turn.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Half as many processes again as there are cores: tests wait for half of their time."""
    return (os.cpu_count() or 1) * 3 // 2


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run on both loops what is marked so."""
    if metafunc.definition.get_closest_marker("on_both_loops") and (
        "anyio_backend" in metafunc.fixturenames
    ):
        metafunc.parametrize("anyio_backend", LOOPS)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """asyncio only, as redis-py is; its slow debug mode is for what runs on both loops."""
    return "asyncio", {"debug": False}


def _server_url(kind: str) -> Iterator[str]:
    if kind == "url":
        yield os.environ["AGENTSESSION_TEST_REDIS_URL"]
        return
    with servers.running(servers.binaries()[kind]) as server:
        yield server.url


@pytest.fixture(scope="session", params=servers.kinds())
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every real server, one after the other."""
    yield from _server_url(request.param)


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """One real server, for what does not differ between them."""
    yield from _server_url("valkey")


@pytest.fixture(scope="session")
def server_urls() -> Iterator[dict[str, str]]:
    """All servers, started when first needed."""
    urls: dict[str, str] = {}
    started: list[Iterator[str]] = []
    for kind in servers.kinds():
        iterator = _server_url(kind)
        started.append(iterator)
        urls[kind] = next(iterator)
    yield urls
    for iterator in started:
        next(iterator, None)


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    """Three nodes that share the slots, of one module.

    For a minute they do not notice that one of them is stopped.
    """
    with servers.cluster(options=["--cluster-node-timeout", "60000"]) as running:
        yield running


@pytest.fixture(params=["memory", "sqlite", *servers.kinds()])
async def subject(
    request: pytest.FixtureRequest, server_urls: dict[str, str]
) -> AsyncIterator[Subject]:
    """Every backend, with nothing stored."""
    kind = request.param
    fresh: Subject
    if kind == "memory":
        fresh = MemorySubject()
    elif kind == "sqlite":
        fresh = SQLiteSubject()
    else:
        fresh = RedisSubject(server_urls[kind])
    async with fresh:
        yield fresh
