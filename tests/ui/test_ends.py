"""How streams end when a server stops at the very moment at which they come to their own end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from agentsession import AgentContext, Event, InMemorySessionService, Runner
from agentsession.fastapi._streams import Closing, Endings, Frames
from agentsession.ui._turns import ReadTurn


async def agent(context: AgentContext) -> AsyncIterator[Event]:
    for word in ("one", "two", "three"):
        yield Event(author="agent", content=word)


async def nothing() -> None:
    pass


@pytest.mark.parametrize(("is_over", "told"), [(True, [b"last"]), (False, [b"last", b"closing"])])
async def test_nothing_is_told_after_the_end(*, is_over: bool, told: list[bytes]) -> None:
    """A page takes it for an error of an answer that it has got."""
    endings = Endings(lambda problem: b"failed", lambda: b"closing")
    stopping: list[anyio.Event] = []

    async def frames() -> Frames:
        yield b"last"
        stopping[0].set()

    response = Closing(nothing, 15.0, endings, lambda: is_over).response(frames())
    assert response._shutdown_event is not None
    stopping.append(response._shutdown_event)
    assert [each async for each in response.body_iterator] == told


async def test_an_end_that_was_not_reached_is_not_told() -> None:
    """The run is over, and what a reader that was closed has not read of it is missing."""
    async with InMemorySessionService() as service:
        runner = Runner("shop", agent, service, on_disconnect="detach")
        async with runner:
            run = runner.run("ada", "c", "hi")
            await run.start()
            async with run.read() as reader, run.read() as other:
                turn = ReadTurn(run, reader)
                events = turn.events()
                await anext(events)
                async for _ in other:
                    pass
                assert run.outcome == "completed"
                await turn.aclose()
                assert [event async for event in events] == []
                assert turn.outcome == ""
