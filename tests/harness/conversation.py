"""A pipeline between callers and a server that are both played by a test: no loop, no socket."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from agentsession.redis._core.acknowledgement import SERVER_MEMORY, Acknowledgement
from agentsession.redis._core.clock import ServerClock
from agentsession.redis._core.errors import ServerError
from agentsession.redis._core.pipeline import Pipeline
from agentsession.redis._core.request import Command, Request
from agentsession.redis._scripts import Script

EPOCH = 1_700_000_000_000_000
"""The server's clock, in microseconds, when the loop's is at 0."""

WRITE = Script("write", "return 'write'", "a" * 40, writes=True)
READ = Script("read", "return 'read'", "b" * 40, writes=False)


def server_time(now: float) -> int:
    """Return the server's time at a time of the loop, were its clock known exactly."""
    return EPOCH + int(now * 1_000_000)


class Outcome:
    """A future of which nothing but its end is known."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.ends = 0
        self.cancelled = False

    def done(self) -> bool:
        return self.cancelled or self.ends > 0

    def set_result(self, result: Any, /) -> None:
        assert not self.done()
        self.ends += 1
        self.result = result

    def set_exception(self, exception: BaseException, /) -> None:
        assert not self.done()
        self.ends += 1
        self.error = exception

    def exception(self) -> BaseException | None:
        return self.error

    def cancel(self) -> None:
        """Give up waiting, as a cancelled caller does."""
        self.cancelled = self.cancelled or not self.ends


class Sent:
    """A command as a server received it."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self.words = list(words)

    def __repr__(self) -> str:
        return repr(self.words)

    @property
    def verb(self) -> str:
        return self.words[0].decode()

    @property
    def is_call(self) -> bool:
        return self.verb in {"EVALSHA", "EVAL"}

    @property
    def writes(self) -> bool:
        return self.words[1].decode() in {WRITE.sha, WRITE.text}

    @property
    def name(self) -> str:
        """The word by which a test knows a call; its verb for another command."""
        return self.words[-1].decode() if self.is_call else self.verb

    @property
    def echo(self) -> bytes:
        return self.words[4]

    @property
    def issued(self) -> int:
        return int(self.words[5])

    @property
    def expires(self) -> int:
        return int(self.words[6])


class Conversation:
    """A pipeline, and what the server at the other end has received and not answered yet.

    Args:
        acknowledgement: How far a write must have got before it is answered.
        redirect: Takes what belongs elsewhere.
        told: Whether the server told the time when the connection was made.
    """

    def __init__(
        self,
        acknowledgement: Acknowledgement = SERVER_MEMORY,
        redirect: Callable[[Command, ServerError], None] | None = None,
        *,
        told: bool = True,
    ) -> None:
        self.clock = ServerClock()
        if told:
            self.clock.learn(EPOCH, 0.0, 0.0)
        self.ended: list[Command] = []
        self.pipeline = Pipeline(self.clock, self.ended.append, acknowledgement, redirect)
        self.unanswered: deque[Sent] = deque()
        self.pieces: list[bytes] = []
        self._reader = hiredis.Reader()

    # -- the callers

    def call(
        self, name: str, script: Script = WRITE, *, deadline: float = 10.0, size: int = 0
    ) -> Request:
        """Submit a call; with *size*, one word of it is so many bytes."""
        large = (b"x" * size,) if size else ()
        words = (*large, name)
        request = Request(script, ("session:{app:user}:s",), words, Outcome(), deadline)
        self.pipeline.submit(request)
        return request

    def ask(self, *words: str, deadline: float = 10.0) -> Command:
        """Submit a command that is no script."""
        command = Command(words, Outcome(), deadline)
        self.pipeline.submit(command)
        return command

    # -- the way to the server

    def send_some(self, now: float = 0.0) -> list[Sent]:
        """Let the next bytes leave; return the commands that are whole now."""
        data = self.pipeline.next_bytes(now)
        self.pieces.append(data)
        self._reader.feed(data)
        received: list[Sent] = []
        while (words := self._reader.gets()) is not False:
            received.append(Sent(words))
        self.unanswered += received
        return received

    def send(self, now: float = 0.0) -> list[Sent]:
        """Let everything leave; return what the server received."""
        received: list[Sent] = []
        while self.pipeline.has_something_to_send:
            received += self.send_some(now)
        return received

    def sent_names(self, now: float = 0.0) -> list[str]:
        """Let everything leave; return the names of what the server received."""
        return [sent.name for sent in self.send(now)]

    # -- the way back

    def answer(self, word: bytes = b"ok", *rest: Any, now: float = 0.0, told: int = 0) -> None:
        """Answer the oldest call, with its name at the end so that the caller can be told."""
        sent = self.unanswered.popleft()
        assert sent.is_call, sent
        times = (told or server_time(now),) if sent.writes else ()
        self.pipeline.received([sent.echo, word, *times, *rest, sent.name], now)

    def reply(self, reply: Any, now: float = 0.0) -> None:
        """Answer the oldest command with this."""
        self.unanswered.popleft()
        self.pipeline.received(reply, now)

    def refuse(self, text: str, now: float = 0.0) -> None:
        """Answer the oldest command with an error."""
        self.reply(ServerError(text), now)

    def lose(self) -> None:
        """Lose the connection, and what was under way on it."""
        self.unanswered.clear()
        self._reader = hiredis.Reader()
        self.pipeline.lost(ConnectionError("lost"))


def result_of(command: Command) -> str:
    """Return what a call came to: the name in its reply, the error's, or what it is else."""
    outcome = command.future
    assert isinstance(outcome, Outcome)
    if outcome.cancelled:
        return "cancelled"
    if outcome.error is not None:
        return type(outcome.error).__name__
    if outcome.result is None:
        return "waiting"
    return outcome.result[-1] if isinstance(outcome.result, list) else repr(outcome.result)


def error_of(command: Command) -> BaseException:
    """Return the error that a call ended with."""
    outcome = command.future
    assert isinstance(outcome, Outcome)
    assert outcome.error is not None
    return outcome.error


def cancel(command: Command) -> None:
    """Give up waiting, as a cancelled caller does."""
    outcome = command.future
    assert isinstance(outcome, Outcome)
    outcome.cancel()
