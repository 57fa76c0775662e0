"""Calls that a server refuses until their time is up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agentsession.errors import BackendUnavailableError, OutcomeUnknownError


async def known_refusal(call: Callable[[], Awaitable[object]]) -> BackendUnavailableError:
    """Return the error of a call whose every attempt was refused.

    A machine that stands still at the last attempt leaves that one without an answer, and the call
    with an outcome that is not known; so there are some tries.
    """
    for _ in range(20):
        try:
            await call()
        except OutcomeUnknownError:
            continue
        except BackendUnavailableError as exc:
            return exc
        break
    msg = "it was not refused, or never to its end"
    raise AssertionError(msg)
