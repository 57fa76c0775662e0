"""Several calls at the same time, as one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

__all__ = ["concurrently"]

_T = TypeVar("_T")


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
