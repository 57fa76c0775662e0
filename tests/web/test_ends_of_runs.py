"""How a stream of a run ends when the server stops in its middle."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sse_starlette import ServerSentEvent

from agentsession import AgentContext, Event, InMemorySessionService, Runner
from agentsession.fastapi._streams import Closing, frames_of_run


async def agent(context: AgentContext) -> AsyncIterator[Event]:
    for word in ("one", "two", "three"):
        yield Event(author="agent", content=word)


async def test_an_end_that_was_not_reached_is_not_told() -> None:
    """The run is over, and what its reader has not read of it is missing."""
    async with (
        InMemorySessionService() as service,
        Runner("shop", agent, service, on_disconnect="detach") as runner,
    ):
        run = runner.run("ada", "c", "hi")
        await run.start()
        async with run.read() as reader, run.read() as other:
            closing = Closing(reader.aclose, 15.0)
            response = closing.response(frames_of_run(run, reader, 0, closing))
            frames = aiter(response.body_iterator)
            told = [await anext(frames), await anext(frames)]
            async for _ in other:
                pass
            assert run.outcome == "completed"
            assert response._shutdown_event is not None
            response._shutdown_event.set()
            await reader.aclose()
            told += [each async for each in frames]
    names = [each.event for each in told if isinstance(each, ServerSentEvent)]
    assert names == ["run", None, "closing"]
