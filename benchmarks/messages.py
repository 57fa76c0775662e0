"""What is stored, in no framework's words; each contestant makes its own events of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

__all__ = ["TURN", "Message", "exchange", "read_turns", "words"]


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
        kind: Words, the call of a tool, or its result.
        author: ``"user"`` or ``"agent"``.
        text: The words, or the tool's result.
        call_id: Ties a result to its call.
        name: The tool.
        arguments: What the tool is called with.
    """

    kind: Literal["text", "call", "result"]
    author: str
    text: str = ""
    call_id: str = ""
    name: str = ""
    arguments: dict[str, Any] | None = None


def words(size: int) -> Message:
    """Make a message of *size* letters."""
    text = "The flight to Boston leaves at seven, and the seat by the window is free. "
    return Message("text", "user", (text * (size // len(text) + 1))[:size])


def exchange(size: int) -> tuple[Message, ...]:
    """Make what a user says, of *size* letters, and an answer in two parts of as many."""
    question = words(size)
    answer = replace(question, author="agent")
    return question, answer, answer


TURN = (
    Message("text", "user", "Is there a window seat on the flight to Boston tomorrow morning?"),
    Message(
        "call",
        "agent",
        call_id="call_7f3a",
        name="search_seats",
        arguments={"flight": "HAT136", "date": "2024-05-16", "place": "window"},
    ),
    Message(
        "result",
        "agent",
        json.dumps({"seats": ["12A", "14F", "21A"], "price": 35, "currency": "USD"}),
        call_id="call_7f3a",
        name="search_seats",
    ),
    Message("text", "agent", "Yes: 12A, 14F and 21A are free, for 35 dollars. Which may I book?"),
)


@cache
def read_turns(file: Path) -> Sequence[tuple[int, list[Message]]]:
    """Read conversations in the OpenAI chat format, one a line.

    Once for all callers: a copy for each would be a hundred thousand objects, which Python's
    collector walks through while a contestant is timed.

    Returns:
        Turns, each with its conversation's number: a user's message and what follows it.
    """
    return list(_turns(file))


def _turns(file: Path) -> Iterator[tuple[int, list[Message]]]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            turn: list[Message] = []
            for words_of_it in json.loads(line)["messages"]:
                for message in _messages(words_of_it):
                    if message.author == "user" and turn:
                        yield number, turn
                        turn = []
                    turn.append(message)
            if turn:
                yield number, turn


def _messages(said: dict[str, Any]) -> Iterator[Message]:
    role = said["role"]
    if role == "tool":
        yield Message(
            "result", "agent", said["content"] or "", said["tool_call_id"], said.get("name", "")
        )
    elif role in {"user", "assistant"}:
        if said["content"]:
            yield Message("text", "user" if role == "user" else "agent", said["content"])
        for call in said.get("tool_calls") or ():
            function = call["function"]
            arguments = json.loads(function["arguments"])
            yield Message("call", "agent", "", call["id"], function["name"], arguments)
