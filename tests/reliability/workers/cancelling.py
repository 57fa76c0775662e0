"""Cancels a call at a chosen turn of the event loop, in the ways in which programs do it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from reliability.history import Cancel


class Countdown:
    """Calls a function after some turns of the loop, unless it is stopped before."""

    def __init__(self, turns: int, act: Callable[[], Any]) -> None:
        self._turns = turns
        self._act = act
        self._stopped = False
        self._turn()

    def _turn(self) -> None:
        if self._stopped:
            return
        if self._turns == 0:
            self._act()
            return
        self._turns -= 1
        asyncio.get_running_loop().call_soon(self._turn)

    def stop(self) -> None:
        self._stopped = True


async def finishes(call: Callable[[], Awaitable[Any]], cancel: Cancel | None) -> bool:
    """Make a call, cancel it when told to, and tell whether it came to its own end."""
    if cancel is None:
        await call()
        return True
    return await (_in_a_task if cancel.style == "asyncio" else _in_a_scope)(call, cancel.turns)


async def _in_a_task(call: Callable[[], Awaitable[Any]], turns: int) -> bool:
    async def body() -> None:
        await call()

    task = asyncio.create_task(body())
    countdown = Countdown(turns, task.cancel)
    try:
        await asyncio.wait([task])
    finally:
        countdown.stop()
        task.cancel()
    if task.cancelled():
        return False
    task.result()
    return True


async def _in_a_scope(call: Callable[[], Awaitable[Any]], turns: int) -> bool:
    with anyio.CancelScope() as scope:
        countdown = Countdown(turns, scope.cancel)
        try:
            await call()
        finally:
            countdown.stop()
    return not scope.cancelled_caught
