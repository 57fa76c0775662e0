"""A call in progress, and what is known of it. Pure; no I/O.

No copy of a call that writes may do anything once the call is over. Each carries the time until
which it may be run, on the server's clock, which is learned from replies. The script refuses one
that comes later and tells the time, so that a wrong clock costs one more round trip.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final, Protocol

import hiredis

from agentsession.redis._core.errors import NoReplyError, NotAcknowledgedError, NotSentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentsession.redis._core.clock import ServerClock
    from agentsession.redis._scripts import Argument, Script

__all__ = ["LARGE", "NOBODY", "REFUSALS", "Asking", "Barrier", "Command", "Request"]

LARGE: Final = 1 << 18
"""In bytes: a larger command is not packed in one go, but word by word as there is room for it."""

REFUSALS: Final = frozenset(
    {b"conflict", b"damaged", b"exists", b"foreign", b"missing", b"replaced"}
)
"""What scripts say that have not done what they were asked to: nothing waits to be acknowledged."""

# As in lib/once.lua: for this many microseconds after its deadline a call is remembered.
_MARGIN: Final = 60_000_000

# A command that was put off waits this long in seconds, doubling up to the second figure, each time
# less up to a half by chance.
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.5
# A command is sent again only if there is time for this many answers as slow as the last one.
_ANSWERS: Final = 3
# And so long before the deadline, in seconds, whatever the answers took so far: a machine that is
# busy stands still for so long now and then.
_STALL: Final = 0.2
# How many words are packed in one piece; the length of each is sent before it.
_WORDS_AT_ONCE: Final = 8_000
# About how many bytes a command takes in memory besides its words.
_OVERHEAD: Final = 200


class Future(Protocol):
    """The methods that are used of the future that a caller waits for."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


class Command:
    """A command and the future that takes its reply.

    Args:
        words: The command.
        future: Takes the reply.
        deadline: The loop's time at which it ends, with a reply or without.

    Attributes:
        size: About how many bytes it takes.
        asking: Whether it goes to a node that is about to own its slot.
        maybe_run: Whether it was sent on a connection that was then lost, so that nobody knows
            whether it was run, or still will be.
        refusal: The last error that was met on its way.
        reply: An answer that waits for an acknowledgement.
        attempts: How often a server could not run it just now.
        redirections: How often a node has named another one.
        sent_at: The loop's time at which it was sent last.
    """

    # Class attributes, since most commands never set any of these.
    writes: bool = False
    asking: bool = False
    maybe_run: bool = False
    refusal: BaseException | None = None
    reply: list[Any] | None = None
    attempts: int = 0
    redirections: int = 0
    sent_at: float = 0.0

    def __init__(self, words: Sequence[Argument], future: Future, deadline: float) -> None:
        self.words = words
        self.future = future
        self.deadline = deadline
        self.size = sum(map(len, words)) + _OVERHEAD

    @property
    def was_sent(self) -> bool:
        """Whether a copy of it may be on its way, or was."""
        return self.sent_at > 0

    def packed(self) -> bytes:
        """Return the bytes that are sent."""
        return bytes(hiredis.pack_command(self.sent()))  # type: ignore[arg-type]  # typed for one word

    def pieces(self) -> Iterator[bytes]:
        """Cut the bytes that are sent into pieces, of which the large words are no copies.

        Each takes a millisecond or so to be made, and is made when it is asked for.
        """
        words = self.sent()
        gathered = [b"*%d" % len(words)]
        size = 0
        for word in words:
            raw = word.encode() if isinstance(word, str) else word
            gathered.append(b"\r\n$%d\r\n" % len(raw))
            if len(raw) > LARGE // 4:
                yield b"".join(gathered)
                yield raw
                gathered, size = [], 0
                continue
            gathered.append(raw)
            size += len(raw)
            if size > LARGE or len(gathered) > _WORDS_AT_ONCE:
                yield b"".join(gathered)
                gathered, size = [], 0
        gathered.append(b"\r\n")
        yield b"".join(gathered)

    def sent(self) -> tuple[Argument, ...]:
        """Return the words that are sent."""
        return tuple(self.words)

    def due_again(self, now: float) -> float:
        """Return when to send it again, after a server could not run it."""
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self.attempts, 10))
        self.attempts += 1
        due = now + longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        # Without this attempt it is known that nothing was run; one that is sent but not answered
        # in time would leave that unknown.
        last_chance = self.deadline - max(_ANSWERS * (now - self.sent_at), _STALL)
        return due if due < last_chance else self.deadline

    def refuse(self, refusal: Exception) -> None:
        """End with the server's refusal, unless an earlier attempt may have been run."""
        if self.maybe_run and self.writes:
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

    def renew(self) -> None:
        """Prepare to be sent to another server; a command without times has nothing to do."""

    def forget(self) -> None:
        """Free the words, which will not be sent again."""
        self.words = ()
        self.size = 0


class Request(Command):
    """A script on its way.

    Args:
        script: What to run.
        keys: Its keys.
        args: Its header and what follows.
        future: Its caller waits for it.
        deadline: The loop's time at which it ends, with a reply or without.

    Attributes:
        echo: Stands first in the reply to this very call.
        by_text: Whether the script itself is sent, since the server does not know it.
        issued: When the first copy was sent, on the server's clock, and no later than it was; later
            ones have the same.
        expires: Until when the server may run it, on its clock; ``None`` before it is sent.
    """

    echo: bytes = b""
    by_text: bool = False
    issued: int = 0
    # The same on the loop's clock, and on the server's no earlier than it was.
    _issued_at: float = 0.0
    _issued_by: int = 0
    expires: int | None = None

    def __init__(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        future: Future,
        deadline: float,
    ) -> None:
        super().__init__(args, future, deadline)
        self.script = script
        self.keys = keys
        self.writes = script.writes

    def prepare(self, echo: bytes, clock: ServerClock, now: float) -> None:
        """Give it an echo, and its times when it is sent for the first time."""
        self.echo = echo
        if self.writes:
            if not self.issued:
                self.issued, self._issued_at = clock.at(now), now
                self._issued_by = self.issued + clock.behind
            expires = clock.at(self.deadline)
            # Another server's clock may be behind: no copy may be run longer than the call lasts.
            self.expires = expires if self.expires is None else min(expires, self.expires)

    def renew(self) -> None:
        """Take the times from another server's clock, unless a copy with these may be run."""
        if not self.maybe_run:
            self.issued, self.expires = 0, None

    def has_to_go_again(self, reply: list[Any], clock: ServerClock) -> bool:
        """Tell whether the script asks for the call again with other times.

        If an earlier copy may have been run, some answers leave the outcome unknown; the call then
        fails here. Without an earlier copy every answer is final.
        """
        match reply[1]:
            case b"late":
                if self.maybe_run and self.expires and reply[2] - self.expires > _MARGIN:
                    self.fail()  # Nobody knows any more whether it was run.
                self.expires = None
                return True
            case b"early":
                horizon = int(reply[3])
                if self.maybe_run and self._issued_since(clock) < horizon:
                    self.fail()  # A copy was run in an earlier life of the session, or was not.
                self.issued = horizon
                return True
            case b"again":
                self.issued = int(reply[3])  # No copy was carried out, and none with its times is.
                return True
            case b"missing" | b"replaced" if self.maybe_run and not self.script.is_remembered:
                self.fail()  # A copy may have found it there.
            case _:
                pass
        return False

    def _issued_since(self, clock: ServerClock) -> int:
        """Return when the first copy was sent, by what is known of the server's clock now."""
        known = clock.at(self._issued_at)
        return max(self.issued, known) if known <= self._issued_by else self.issued

    def sent(self) -> tuple[Argument, ...]:
        """Return the words that are sent, once it is prepared."""
        script = self.script
        beginning = ("EVAL", script.text) if self.by_text else ("EVALSHA", script.sha)
        times = (b"%d" % self.issued, b"%d" % (self.expires or 0)) if self.writes else ()
        return (*beginning, str(len(self.keys)), *self.keys, self.echo, *times, *self.words)


class Barrier(Command):
    """Asks how far the writes before it have got. The connection itself sends it, no caller."""


class Asking(Command):
    """Lets a node serve a slot that is moving to it. The connection itself sends it, no caller."""


class _Nobody:
    """A future that nobody waits for."""

    def done(self) -> bool:
        return True

    def set_result(self, result: Any, /) -> None:
        """Drop it."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Drop it."""


NOBODY: Final = _Nobody()
"""Waits for the replies to the connection's own commands."""
