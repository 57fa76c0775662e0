"""Processes that run turns, as a test holds them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentsession import Event, ToolCall, ToolResult
from agentsession.history import unanswered_calls

ROOT = Path(__file__).parents[2]


class Worker:
    """One process, of a module that says what it is told and what it answers."""

    def __init__(self, url: str, module: str) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
        )

    def run(self, session: str, message: str, stops: int | None = None, **options: object) -> None:
        """Have it run a turn."""
        order = {"session": session, "message": message, "options": options, "stops": stops}
        self.say(json.dumps(order))

    def say(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for its next answer."""
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def left_answers(self) -> list[dict[str, Any]]:
        """Read what it has answered before it was killed, and nobody has read."""
        assert self.process.stdout is not None
        return [json.loads(line) for line in self.process.stdout]

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def workers(url: str, number: int, module: str = "turns.worker") -> Iterator[list[Worker]]:
    """Start processes, and end them."""
    started = [Worker(url, module) for _ in range(number)]
    try:
        for each in started:
            assert each.answer() == {"ready": True}
        yield started
    finally:
        for each in started:
            each.process.kill()
        for each in started:
            each.process.communicate()


def check_turns(log: Sequence[Event]) -> None:
    """Check that turns do not interleave, that each has one end, and its calls have results."""
    turns: dict[str, list[Event]] = {}
    for event in log:
        if event.invocation_id not in turns:
            assert all(own[-1].outcome for own in turns.values()), "two turns at once"
        turns.setdefault(event.invocation_id, []).append(event)
    for own in turns.values():
        assert [event.outcome for event in own if event.outcome] == [own[-1].outcome]
        assert own[-1].outcome, "a turn without an end"
        assert unanswered_calls(own) == []


def check_pairs(history: Sequence[Event]) -> None:
    """Check what a model is shown as its provider does: each call answered at once, and once."""
    waiting: list[str] = []
    for event in history:
        results = [part.call_id for part in event.content if isinstance(part, ToolResult)]
        if waiting:
            assert results
            for each in results:
                waiting.remove(each)
        else:
            assert not results
        waiting += [part.call_id for part in event.content if isinstance(part, ToolCall)]
    assert not waiting
