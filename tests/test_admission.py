"""Back-pressure by itself: who waits, in which order, and what becomes of those who give up."""

from __future__ import annotations

import asyncio

import pytest

from agentsession.redis.admission import Admission
from agentsession.redis.link import NotSentError


def soon(seconds: float = 30) -> float:
    return asyncio.get_running_loop().time() + seconds


async def waiting(admission: Admission, deadline: float) -> asyncio.Task[None]:
    """Somebody in line."""
    task = asyncio.create_task(admission.wait(deadline))
    await asyncio.sleep(0)
    return task


async def test_places_are_given_in_order() -> None:
    """Whoever has waited the longest is next, and nobody overtakes by finding room."""
    admission = Admission(1, 1000)
    assert admission.free
    admission.enter(10)
    first, second = [await waiting(admission, soon()) for _ in range(2)]
    admission.leave(10)
    assert not admission.free
    await first
    assert not second.done()
    admission.enter(10)
    admission.leave(10)
    await second
    assert admission.free


async def test_bytes_count_too() -> None:
    """One call may go over the bound of bytes, and the next one waits."""
    admission = Admission(10, 100)
    admission.enter(5000)
    assert not admission.free
    admission.leave(5000)
    assert admission.free


async def test_who_is_late_is_told() -> None:
    """At the deadline nothing was sent."""
    admission = Admission(1, 1000)
    admission.enter(10)
    with pytest.raises(NotSentError, match="too many calls"):
        await admission.wait(soon(0.01))
    admission.leave(10)
    assert admission.free


@pytest.mark.parametrize("admitted", [False, True])
async def test_a_place_that_is_given_up_goes_to_the_next(admitted: bool) -> None:
    """Also if it was given in the very moment in which its caller was cancelled."""
    admission = Admission(1, 1000)
    admission.enter(10)
    first, second = [await waiting(admission, soon()) for _ in range(2)]
    if admitted:
        admission.leave(10)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    if not admitted:
        admission.leave(10)
    await second
    assert admission.free


async def test_closing_turns_away_who_waits() -> None:
    """All of them, at once."""
    admission = Admission(1, 1000)
    admission.enter(10)
    tasks = [await waiting(admission, soon()) for _ in range(3)]
    admission.close()
    for task in tasks:
        with pytest.raises(NotSentError, match="closed"):
            await task
