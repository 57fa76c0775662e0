"""Who waits for an acknowledgement, and who does not any more."""

from __future__ import annotations

import asyncio

from agentsession.redis._core.acknowledgement import Acknowledgement
from agentsession.redis._core.barriers import Barriers
from agentsession.redis._core.errors import NotAcknowledgedError
from agentsession.redis._core.request import Request
from agentsession.redis._scripts import load


def held(barriers: Barriers) -> Request:
    """Let a request be answered, and be held; a barrier is under way for it."""
    future: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()
    request = Request(load("append"), ["k"], [], future, 9.0)
    barriers.hold(request, [b"1", b"ok"])
    barriers.next(9.0)
    return request


async def test_who_waits_is_asked_for_again() -> None:
    """Until enough replicas have what was written."""
    barriers = Barriers(Acknowledgement(replicas=1))
    request = held(barriers)
    assert list(barriers.answered(0)) == []
    assert barriers.wanted
    assert isinstance(request.refusal, NotAcknowledgedError)
    barriers.next(9.0)
    assert list(barriers.answered(1)) == [request]
    assert not barriers.wanted


async def test_nobody_is_asked_for_who_has_given_up() -> None:
    """A call that was cancelled is over with the next answer, whatever it says."""
    barriers = Barriers(Acknowledgement(replicas=1))
    gone, waiting = held(barriers), held(barriers)
    gone.future.cancel()  # type: ignore[attr-defined]  # it is asyncio's
    assert list(barriers.answered(0)) == [gone]
    assert list(barriers.held) == [waiting]
    assert barriers.wanted
    waiting.future.cancel()  # type: ignore[attr-defined]  # as above
    barriers.next(9.0)
    assert list(barriers.answered(0)) == [waiting]
    assert not barriers.wanted
