"""The published suite of conformance tests, whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="LangGraph is not installed")

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate

from adapters.alone.langgraph.checkpoints import Options
from agentsession import SessionService
from agentsession.adapters.langgraph import Checkpointer
from agentsession.blocking import BlockingSessionService
from agentsession.blocking import open_service as open_blocking


class SyncFace(BaseCheckpointSaver[str]):
    """Awaits the methods that block, each in a thread, so that the suite tests them too."""

    def __init__(self, saver: Checkpointer) -> None:
        super().__init__()
        self.saver = saver

    async def aget_tuple(self, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self.saver.get_tuple, *args, **kwargs)

    async def alist(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for each in await asyncio.to_thread(lambda: [*self.saver.list(*args, **kwargs)]):
            yield each

    async def aput(self, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self.saver.put, *args, **kwargs)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self.saver.put_writes, *args, **kwargs)

    async def adelete_thread(self, *args: Any) -> None:
        await asyncio.to_thread(self.saver.delete_thread, *args)

    async def adelete_for_runs(self, *args: Any) -> None:
        await asyncio.to_thread(self.saver.delete_for_runs, *args)

    async def acopy_thread(self, *args: Any) -> None:
        await asyncio.to_thread(self.saver.copy_thread, *args)

    async def aprune(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(lambda: self.saver.prune(*args, **kwargs))


async def check_conformance(name: str, saver: BaseCheckpointSaver[str]) -> None:
    async def factory() -> AsyncIterator[BaseCheckpointSaver[str]]:
        yield saver

    report = await validate(checkpointer_test(name=name)(factory))
    passed = sum(result.tests_passed for result in report.results.values())
    failures = [failure for result in report.results.values() for failure in result.failures]
    counts = f"{len(report.results)} capabilities, {passed} tests"
    print(f"{name}: {report.conformance_level()}, {counts}")  # noqa: T201 - for those who ask how many
    assert not failures
    assert report.conformance_level() == "FULL"
    assert (len(report.results), passed) == (8, 81)


async def test_the_published_suite_passes(service: SessionService) -> None:
    """All eight capabilities, none left out."""
    await check_conformance("Checkpointer", Checkpointer(service))


@pytest.fixture
def blocking(store_url: str, store_prefix: str) -> Iterator[BlockingSessionService]:
    """A service for threads and loops, on each store."""
    options: Options = {"key_prefix": store_prefix, "session_event_limit": None}
    opened = open_blocking(store_url, **options)
    yield opened
    opened._thread.close()


@pytest.mark.parametrize("face", [SyncFace, lambda saver: saver], ids=["blocking", "any loop"])
async def test_the_published_suite_passes_on_a_loop_of_its_own(
    face: Callable[[Checkpointer], BaseCheckpointSaver[str]], blocking: BlockingSessionService
) -> None:
    """As for code without a loop, and for code on several."""
    await check_conformance("Checkpointer", face(Checkpointer(blocking)))
