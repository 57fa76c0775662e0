"""One call of a script, with its failure in this library's words."""

from __future__ import annotations

from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from agentsession.redis._links.link import (
    NoReplyError,
    NotAcknowledgedError,
    NotSentError,
    ServerError,
)
from agentsession.redis.failures import Subject, translated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from agentsession.redis._links.link import Link
    from agentsession.redis._scripts import Argument, Script

__all__ = ["Calls"]

# The deadline of the call that has waited for room, in whose context it is made.
_deadline: ContextVar[float | None] = ContextVar("agentsession_deadline", default=None)

_FAILURES: Final = (NotSentError, NoReplyError, NotAcknowledgedError, ServerError)


class Calls:
    """Runs scripts by a link.

    Args:
        link: Closed with this object.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def __repr__(self) -> str:
        return repr(self._link)

    async def run(
        self, subject: Subject, script: Script, keys: Sequence[str], words: Sequence[Argument]
    ) -> Any:
        """Run a script, and word its failure.

        Raises:
            AgentSessionError: It failed; the error says what is known, and of whose data.
        """
        try:
            return await self._link.run(script, keys, words, deadline=_deadline.get())
        except _FAILURES as exc:
            error = translated(exc, subject, script.name, writes=script.writes)
            raise error from error.__cause__

    @property
    def crowded(self) -> bool:
        """Whether a caller has to wait for room."""
        return self._link.crowded

    @asynccontextmanager
    async def room(self, subject: Subject) -> AsyncGenerator[None]:
        """Wait for room; the calls of this block end when the first may take no longer."""
        try:
            async with self._link.room() as deadline:
                token = _deadline.set(deadline)
                try:
                    yield
                finally:
                    _deadline.reset(token)
        except NotSentError as exc:
            error = translated(exc, subject, "room", writes=False)
            raise error from error.__cause__

    async def aclose(self) -> None:
        """Close the link."""
        await self._link.aclose()
