"""Runs scripts, and turns their failures into this library's errors."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from agentsession.redis._core.errors import (
    NoReplyError,
    NotAcknowledgedError,
    NotSentError,
    ServerError,
)
from agentsession.redis._operations.failures import Subject, translated

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from contextvars import Token

    from agentsession.redis._links.inbox import Channels, Inbox
    from agentsession.redis._links.link import Link, Rest, Room
    from agentsession.redis._scripts import Argument, Script

__all__ = ["Calls"]

# The room of the block around the calls in this context.
_room: ContextVar[Room | None] = ContextVar("agentsession_room", default=None)

# Packing more words than this takes some milliseconds.
_WORDS_AT_ONCE: Final = 10_000

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
        self,
        subject: Subject,
        script: Script,
        keys: Sequence[str],
        words: Sequence[Argument],
        rest: Rest | None = None,
    ) -> Any:
        """Run a script, and word its failure.

        Args:
            subject: Whose data it is about.
            script: The script.
            keys: Its keys.
            words: Its header, and what follows.
            rest: What has to be done after the call.

        Raises:
            AgentSessionError: It failed; the error says what is known, and of whose data.
        """
        if len(words) > _WORDS_AT_ONCE:
            await asyncio.sleep(0)  # To word so many was a step of its own.
        try:
            return await self._link.run(script, keys, words, room=_room.get(), rest=rest)
        except _FAILURES as exc:
            error = translated(exc, subject, script.name, writes=script.writes)
            raise error from error.__cause__

    @property
    def inbox(self) -> Inbox:
        """Where this process is told of what happens on the server."""
        return self._link.inbox

    @property
    def news(self) -> Channels:
        """Where those of this process who follow sessions are told."""
        return self._link.news

    @property
    def layout(self) -> object:
        """Equal at two moments if no data can have moved between servers meanwhile."""
        return self._link.layout

    @property
    def crowded(self) -> bool:
        """Whether a caller has to wait for room."""
        return self._link.crowded

    def room(self, subject: Subject, *, in_steps: bool) -> AbstractAsyncContextManager[None]:
        """Wait for room; all calls in this block share the deadline of the first."""
        return _WithRoom(self._link, subject, in_steps=in_steps)

    async def aclose(self) -> None:
        """Close the link."""
        await self._link.aclose()


class _WithRoom:
    """Waits for room on entering the block; the calls in the block use it."""

    __slots__ = ("_in_steps", "_link", "_room", "_subject", "_token")

    _room: Room
    _token: Token[Room | None]

    def __init__(self, link: Link, subject: Subject, *, in_steps: bool) -> None:
        self._link = link
        self._subject = subject
        self._in_steps = in_steps

    async def __aenter__(self) -> None:
        try:
            self._room = await self._link.room(in_steps=self._in_steps)
        except NotSentError as exc:
            error = translated(exc, self._subject, "room", writes=False)
            raise error from error.__cause__
        self._token = _room.set(self._room)

    async def __aexit__(self, *_: object) -> None:
        self._room.leave()
        _room.reset(self._token)
