"""A command on its way through a connection that many share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hiredis

from agentsession.redis.link import (
    Argument,
    NoReplyError,
    NotAcknowledgedError,
    NotSentError,
    is_missing,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from redis.exceptions import RedisError

    from agentsession.redis.scripts import Script

__all__ = ["Barrier", "Request"]


class Request:
    """A command on its way.

    Args:
        script: What to run.
        keys: Its keys.
        args: Its arguments.
        future: Its caller waits for it.
        deadline: The loop's time at which it ends, with a reply or without.
    """

    __slots__ = (
        "args",
        "deadline",
        "future",
        "keys",
        "maybe_run",
        "packed",
        "refusal",
        "refused",
        "reply",
        "script",
        "size",
    )

    def __init__(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        future: asyncio.Future[list[Any]],
        deadline: float,
    ) -> None:
        self.script: Script = script
        self.keys: Sequence[str] = keys
        self.args: Sequence[Argument] = args
        self.future: asyncio.Future[list[Any]] = future
        self.deadline: float = deadline
        self.maybe_run: bool = False
        self.refused: bool = False
        self.refusal: BaseException | None = None
        self.reply: list[Any] | None = None
        self.packed: bytes = self._pack("EVALSHA", script.sha)
        self.size: int = len(self.packed)

    def send_text(self) -> None:
        """Send the script itself next time: the server does not know it, or not any more."""
        self.packed = self._pack("EVAL", self.script.text)

    def _pack(self, command: str, script: str) -> bytes:
        words = (command, script, len(self.keys), *self.keys, *self.args)
        return bytes(hiredis.pack_command(words))  # type: ignore[arg-type]  # typed for one word

    def take_back(self) -> None:
        """Note that no reply will come; only a refusal says that it did not run."""
        self.maybe_run = self.maybe_run or not self.refused
        self.refused = False
        self.reply = None

    def acknowledge(self) -> None:
        """End with the reply that came before."""
        if not self.future.done():
            self.future.set_result(self.reply or [])

    def lost_its_subject(self, reply: list[Any]) -> bool:
        """Tell whether what is missing may have been there for an attempt before this one."""
        return self.maybe_run and self.script.writes and is_missing(reply)

    def refuse(self, refusal: RedisError) -> None:
        """End with the server's refusal; it may say nothing of an attempt before this one."""
        if self.maybe_run and self.script.writes:
            self.refusal = refusal
            self.fail()
        elif not self.future.done():
            self.future.set_exception(refusal)

    def fail(self) -> None:
        """End without an answer, saying what is known."""
        if not self.future.done():
            error: Exception
            if self.reply is not None:
                error = NotAcknowledgedError("not acknowledged in time")
            elif self.maybe_run:
                error = NoReplyError("no reply in time")
            else:
                error = NotSentError("not sent in time")
            error.__cause__ = self.refusal
            self.future.set_exception(error)


class Barrier(Request):
    """The command that waits until the writes before it have got far enough; nobody's own.

    Args:
        packed: The command.
        future: Already done.
        deadline: When the connection is given up if no answer comes.
    """

    __slots__ = ()

    def __init__(self, packed: bytes, future: asyncio.Future[list[Any]], deadline: float) -> None:
        self.future = future
        self.deadline = deadline
        self.packed = packed
        self.size: int = len(packed)
        self.maybe_run = self.refused = False
        self.refusal: BaseException | None = None
        self.reply: list[Any] | None = None
