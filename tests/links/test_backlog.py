"""Back-pressure by itself: who waits, in which order, and what becomes of those who give up."""

from __future__ import annotations

import asyncio

import pytest

from agentsession.redis._core.errors import NotSentError
from agentsession.redis._links.backlog import Backlog


def soon(seconds: float = 30) -> float:
    return asyncio.get_running_loop().time() + seconds


class Waiting:
    """Somebody in line, who keeps the place until told to go."""

    def __init__(self, backlog: Backlog, deadline: float, *, in_steps: bool = False) -> None:
        self._backlog = backlog
        self._in_steps = in_steps
        self.let_in = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._wait(deadline))

    async def _wait(self, deadline: float) -> None:
        self._room = await self._backlog.room(deadline, in_steps=self._in_steps)
        self.let_in.set()
        try:
            await self.leave.wait()
        finally:
            self._room.leave()

    def enter(self, size: int) -> None:
        """Make a call."""
        self._backlog.enter(size)
        self._room.leave()

    async def gone(self) -> None:
        """Leave, and wait until that is done."""
        self.leave.set()
        await asyncio.wait([self.task])


async def line_up(backlog: Backlog, count: int, *, in_steps: bool = False) -> list[Waiting]:
    """Let some wait in line, in this order."""
    line = [Waiting(backlog, soon(), in_steps=in_steps) for _ in range(count)]
    await asyncio.sleep(0)
    return line


async def settle() -> None:
    """Let everybody go as far as they get."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_places_are_given_in_order() -> None:
    """Whoever has waited the longest is next, and nobody overtakes by finding room."""
    backlog = Backlog(1, 1000)
    assert backlog.free
    backlog.enter(10)
    first, second = await line_up(backlog, 2)
    backlog.leave(10)
    assert not backlog.free
    await first.let_in.wait()
    assert not second.let_in.is_set()
    first.enter(10)
    backlog.leave(10)
    await second.let_in.wait()
    await first.gone()
    assert not backlog.free
    await second.gone()
    assert backlog.free


async def test_bytes_count_too() -> None:
    """One call may go over the bound of bytes, and the next one waits."""
    backlog = Backlog(10, 100)
    backlog.enter(5000)
    assert not backlog.free
    backlog.leave(5000)
    assert backlog.free


async def test_who_waits_is_let_in_one_by_one() -> None:
    """Nobody knows how large the next call will be before it has entered."""
    backlog = Backlog(10, 100)
    backlog.enter(100)
    first, second, third = await line_up(backlog, 3)
    backlog.leave(100)
    await first.let_in.wait()
    assert not second.let_in.is_set()
    first.enter(60)
    await second.let_in.wait()
    second.enter(60)
    await asyncio.sleep(0)
    assert not third.let_in.is_set()
    backlog.shrink(60)
    await third.let_in.wait()
    for each in (first, second, third):
        await each.gone()


async def test_who_is_late_is_told() -> None:
    """At the deadline nothing was sent."""
    backlog = Backlog(1, 1000)
    backlog.enter(10)
    with pytest.raises(NotSentError, match="too many calls"):
        await backlog.room(soon(0.01))
    backlog.leave(10)
    assert backlog.free


@pytest.mark.parametrize("admitted", [False, True])
async def test_a_place_that_is_given_up_goes_to_the_next(admitted: bool) -> None:
    """Also if it was given in the very moment in which its caller was cancelled."""
    backlog = Backlog(1, 1000)
    backlog.enter(10)
    first, second = await line_up(backlog, 2)
    if admitted:
        backlog.leave(10)
    first.task.cancel()
    await asyncio.wait([first.task])
    assert first.task.cancelled()
    if not admitted:
        backlog.leave(10)
    await second.let_in.wait()
    await second.gone()
    assert backlog.free


async def test_a_place_that_came_to_no_call_goes_to_the_next() -> None:
    """What was to be written may turn out to be wrong."""
    backlog = Backlog(1, 1000)
    backlog.enter(10)
    first, second = await line_up(backlog, 2)
    backlog.leave(10)
    await first.gone()
    await second.let_in.wait()
    await second.gone()
    assert backlog.free


async def test_who_encodes_in_steps_is_alone_in_that() -> None:
    """Until the call is made or given up; whoever takes one step is not held up by it."""
    backlog = Backlog(10, 100)
    first, second, third = await line_up(backlog, 3, in_steps=True)
    await first.let_in.wait()
    assert backlog.free
    await settle()
    assert not second.let_in.is_set()
    first.enter(10)
    await second.let_in.wait()
    assert backlog.free
    second.task.cancel()
    await third.let_in.wait()
    for each in (first, third):
        await each.gone()
    assert backlog.free


async def test_a_second_call_of_one_place_lets_nobody_in() -> None:
    """An operation of several calls has one place, and gives up nobody else's turn."""
    backlog = Backlog(10, 100)
    first, second, third = await line_up(backlog, 3, in_steps=True)
    await first.let_in.wait()
    first.enter(10)
    await second.let_in.wait()
    first.enter(10)
    await settle()
    assert not third.let_in.is_set()
    for each in (first, second, third):
        await each.gone()


async def test_who_encodes_in_steps_waits_for_room_and_holds_up_nobody_in_line() -> None:
    """How large it will be is known when it is encoded, and others need not wait so long."""
    backlog = Backlog(10, 100)
    backlog.enter(100)
    (large,) = await line_up(backlog, 1, in_steps=True)
    (small,) = await line_up(backlog, 1)
    assert not large.let_in.is_set()
    backlog.leave(100)
    await large.let_in.wait()
    await small.let_in.wait()
    for each in (large, small):
        await each.gone()
    assert backlog.free


async def test_who_waits_for_a_turn_is_told_at_the_deadline() -> None:
    """Nothing is encoded by then."""
    backlog = Backlog(10, 100)
    (first,) = await line_up(backlog, 1, in_steps=True)
    with pytest.raises(NotSentError, match="too many calls"):
        await backlog.room(soon(0.01), in_steps=True)
    await first.gone()
    (await backlog.room(soon(), in_steps=True)).leave()
    assert backlog.free


async def test_no_newcomer_overtakes_when_a_turn_is_passed_on() -> None:
    """It waits with its deadline, also in the moment before the next one runs."""
    backlog = Backlog(10, 100)
    first, second = await line_up(backlog, 2, in_steps=True)
    first.enter(10)
    with pytest.raises(NotSentError, match="too many calls"):
        await backlog.room(soon(0.01), in_steps=True)
    assert second.let_in.is_set()
    for each in (first, second):
        await each.gone()
    assert backlog.free


async def test_closing_turns_away_who_waits_for_a_turn() -> None:
    """Whoever has it goes on, and is told when it makes its call."""
    backlog = Backlog(10, 100)
    first, second = await line_up(backlog, 2, in_steps=True)
    backlog.close()
    with pytest.raises(NotSentError, match="closed"):
        await second.task
    await first.gone()


async def test_closing_turns_away_who_waits() -> None:
    """All of them, at once."""
    backlog = Backlog(1, 1000)
    backlog.enter(10)
    line = await line_up(backlog, 3)
    backlog.close()
    for each in line:
        with pytest.raises(NotSentError, match="closed"):
            await each.task
