"""Whatever chunks a page gets of a turn, in the end it holds what the log says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from agentsession import Event
from agentsession.ui._vercel.chunks import Chunks
from agentsession.ui.vercel import to_ui_messages
from ui.turns import ANSWERED_AGAIN, ANSWERED_BY_USER, RandomTurn, turns


class Page:
    """What the AI SDK makes of chunks, rule by rule as its process-ui-message-stream.ts."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []
        self._active: dict[str, dict[str, Any]] = {}

    def read(self, chunk: dict[str, Any]) -> None:
        kind = chunk["type"]
        step = self._in_step()
        if kind == "start-step":
            self.parts.append({"type": "step-start"})
        elif kind == "reset-step":
            del self.parts[step:]
            self._active = {}
        elif kind in {"text-start", "reasoning-start"}:
            kind = kind.removesuffix("-start")
            part = {"type": kind, "text": "", "state": "streaming"}
            if kind == "reasoning":
                part["id"] = chunk["id"]
            self._active[chunk["id"]] = part
            self.parts.append(part)
        elif kind in {"text-delta", "reasoning-delta"}:
            self._active[chunk["id"]]["text"] += chunk["delta"]
        elif kind in {"text-end", "reasoning-end"}:
            self._active.pop(chunk["id"])["state"] = "done"
        elif kind == "tool-input-start":
            self._tool(step, chunk, "input-streaming", input=None)
            self._active[chunk["toolCallId"]] = {"text": ""}
        elif kind == "tool-input-delta":
            self._active[chunk["toolCallId"]]["text"] += chunk["inputTextDelta"]
        elif kind == "tool-input-available":
            self._tool(step, chunk, "input-available", input=chunk["input"])
        elif kind in {"tool-output-available", "tool-output-error"}:
            self._answer(step, chunk)
        elif kind in {"file", "steering-message"} or kind.startswith("data-"):
            self.parts.append(dict(chunk))
        else:
            assert kind in {"start", "finish", "finish-step", "abort", "error"}

    def _in_step(self) -> int:
        starts = [number for number, part in enumerate(self.parts) if part["type"] == "step-start"]
        return starts[-1] + 1 if starts else 0

    def _tool(self, step: int, chunk: dict[str, Any], state: str, **fields: Any) -> None:
        for part in self.parts[step:]:
            if part.get("toolCallId") == chunk["toolCallId"]:
                part.update(fields, state=state)
                return
        named = {"type": f"tool-{chunk['toolName']}", "toolCallId": chunk["toolCallId"]}
        self.parts.append({**named, "state": state, **fields})

    def _answer(self, step: int, chunk: dict[str, Any]) -> None:
        wanted = chunk["toolCallId"]
        candidates = [*self.parts[step:], *reversed(self.parts[:step])]
        part = next(part for part in candidates if part.get("toolCallId") == wanted)
        state = chunk["type"].removeprefix("tool-")
        part["state"] = state
        for name in ("output", "errorText"):
            part.pop(name, None)
            if name in chunk:
                part[name] = chunk[name]


def shown(events: Iterable[Event], before: Iterable[Event] = ()) -> list[dict[str, Any]]:
    """Return what a page shows that gets these events."""
    chunks, page = Chunks("run", before), Page()
    for each in [
        chunks.begin(),
        *(c for e in events for c in chunks.take(e)),
        *chunks.end("completed"),
    ]:
        page.read(msgspec.json.decode(msgspec.json.encode(each)))
    assert not [
        part for part in page.parts if part.get("state") in {"streaming", "input-streaming"}
    ]
    while page.parts and page.parts[-1]["type"] == "step-start":
        page.parts.pop()  # What was never stored had begun.
    return page.parts


def logged(turn: RandomTurn) -> list[dict[str, Any]]:
    """Return what the log says."""
    messages = to_ui_messages(turn.events)
    assert messages[0]["role"] == "user"
    assert len(messages) <= 2
    return [*messages[1]["parts"]] if len(messages) == 2 else []


@given(turns())
@example(ANSWERED_AGAIN)
@example(ANSWERED_BY_USER)
def test_all_chunks(turn: RandomTurn) -> None:
    """As a reader of the run gets them."""
    assert shown(turn.told) == logged(turn)


@given(turns(), st.lists(st.booleans(), min_size=1, max_size=6))
@example(ANSWERED_AGAIN, [True])
def test_some_chunks(turn: RandomTurn, is_lost: list[bool]) -> None:
    """As a follower gets them who comes late, or loses some."""
    assert shown(turn.with_gaps(is_lost)) == logged(turn)


@given(turns())
@example(ANSWERED_AGAIN)
@example(ANSWERED_BY_USER)
def test_no_chunks(turn: RandomTurn) -> None:
    """As a follower gets them from the log."""
    assert shown(turn.without_chunks) == logged(turn)


def test_all_that_was_said_so_far_goes_on_with_what_is_there() -> None:
    """Nothing is taken back that was right."""
    chunk: dict[str, Any] = {
        "author": "a",
        "invocation_id": "run",
        "partial": True,
        "stream_id": "s",
    }
    events = [
        Event(content="a", **chunk),
        Event(content="abc", snapshot=True, **chunk),
        Event(content="d", **chunk),
        Event(author="a", invocation_id="run", stream_id="s", content="abcde"),
    ]
    chunks = Chunks("run")
    told = [each for event in events for each in chunks.take(event)]
    pieces = [each["delta"] for each in told if each["type"] == "text-delta"]
    assert pieces == ["a", "bc", "d", "e"]
    assert "reset-step" not in {each["type"] for each in told}
