"""Several calls at the same time, as one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

__all__ = ["caught", "concurrently", "together"]

_T = TypeVar("_T")
_A = TypeVar("_A")
_B = TypeVar("_B")
_C = TypeVar("_C")
_E = TypeVar("_E", bound=Exception)


async def concurrently(calls: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Make calls at the same time, and return their results in order.

    If one fails the others are cancelled, and its exception is raised as it is, not in a group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


@overload
async def together(
    first: Coroutine[Any, Any, _A], second: Coroutine[Any, Any, _B], /
) -> tuple[_A, _B]: ...


@overload
async def together(
    first: Coroutine[Any, Any, _A],
    second: Coroutine[Any, Any, _B],
    third: Coroutine[Any, Any, _C],
    /,
) -> tuple[_A, _B, _C]: ...


async def together(*calls: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """Do what :func:`concurrently` does with two or three calls whose results differ in type."""
    return tuple(await concurrently(calls))


async def caught(call: Coroutine[Any, Any, _T], *expected: type[_E]) -> _T | _E:
    """Make a call, and return an expected exception instead of raising it."""
    try:
        return await call
    except expected as exc:
        return exc
