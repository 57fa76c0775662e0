"""Runs that requests begin."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from agentsession.events import Content, Event, new_id
from agentsession.fastapi._problems import RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

    from agentsession.fastapi._bodies import RunRequest
    from agentsession.runner import Reader, Run, Runner
    from agentsession.sessions import SessionKey

__all__ = ["begun", "check_application", "entered", "run_of"]


def check_application(runner: Runner, key: SessionKey) -> None:
    """Check that a runner is of the application whose user asks."""
    if runner.app_name != key.app_name:
        msg = (
            f"the runner is of application {runner.app_name!r:.80}, and the user of "
            f"{key.app_name!r:.80}; make both of the same"
        )
        raise RuntimeError(msg)


def run_of(runner: Runner, key: SessionKey, request: RunRequest) -> Run:
    """Make the run that a client asks for."""
    check_application(runner, key)
    if request.message is None:
        return runner.resume(key.user_id, key.session_id, request.results)
    content: Content = request.message if isinstance(request.message, str) else [*request.message]
    message = Event(author="user", content=content, id=request.message_id or new_id())
    return runner.run(key.user_id, key.session_id, message)


@asynccontextmanager
async def begun(run: Run, request: Request) -> AsyncGenerator[tuple[Run, Reader], None]:
    """Begin a run and read it; it does not begin if the client leaves while it stands in line."""
    starting = asyncio.ensure_future(entered(run))
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({starting, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        has_left = not starting.done()
        if has_left:
            starting.cancel()
    if has_left:
        with suppress(asyncio.CancelledError):
            await starting
        raise RefusedError(499, "client-left", "The client has left before the run began.")
    async with await starting as reader:
        yield run, reader


async def entered(run: Run) -> Reader:
    """Begin a run and read it.

    Whoever is cancelled here may be so in the very moment in which the run has begun. Then nobody
    would ever read it, and go; so a reader goes at once, and the run's rule for that holds.
    """
    try:
        await run.start()
    except asyncio.CancelledError:
        await run.read().aclose()
        raise
    return run.read()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
