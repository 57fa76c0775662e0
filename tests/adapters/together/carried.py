"""What the tables of docs/adapters/index.md mean: things of each kind, and how they arrive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adapters.canonical import Said
from agentsession import Data, Event, Text, ToolCall, ToolResult
from agentsession.events import EventError, Media, Part, Reasoning
from documents.markdown import DOCS, tables

# The heads of the tables' columns, with the modules of adapters.frameworks.
FRAMEWORKS = {
    "OpenAI Agents": "openai_agents",
    "Google ADK": "google_adk",
    "Pydantic AI": "pydantic_ai",
    "tRPC-Agent": "trpc_agent",
    "Claude Agent SDK": "claude_agent_sdk",
    "Agent Framework": "agent_framework",
}

_page = tables(DOCS / "adapters" / "index.md")
ARRIVES = {row.pop("stored by others"): row for row in _page["What a framework reads of others"]}
IS_SEEN = {row.pop("stored by the framework"): row for row in _page["What others read of it"]}


@dataclass(frozen=True)
class Kind:
    """Something that an event may hold, and that a framework may read.

    Attributes:
        events: What somebody else stores.
        arrives: By what a cell says: the lines that are read.
        trace: Letters of it, which are nowhere in the framework's objects if it is left out.
        mark: Which lines they are of those beside what is said; empty for what is said.
    """

    events: list[Event]
    arrives: dict[str, list[Said]]
    trace: str
    mark: str = ""


# Cells that say that something of the content is left out.
LEAVES_OUT = {"no", "only the words", "only the call", "only the result", "in `metadata`"}

_time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_call = ToolCall("c1", "find", {"id": 7})
_called: Said = ("call", "c1", "find", {"id": 7})
_hi: Said = ("text", "assistant", "Hi")
_look: Said = ("text", "user", "Look:")


def _by(author: str, *content: Part | str, **fields: Any) -> Event:
    parts = [Text(each) if isinstance(each, str) else each for each in content]
    name = "-".join([*fields, *(type(each).__name__ for each in parts)])
    return Event(author=author, id=name, timestamp=_time, content=parts, **fields)


def _words(author: str, role: str) -> Kind:
    return Kind([_by(author, "WORDS")], {"yes": [("text", role, "WORDS")]}, "WORDS")


def _thoughts(data: dict[str, Any] | None, signature: str | None) -> Kind:
    arrives = {
        "yes": [("reasoning", "THOUGHTS", signature), _hi],
        "only the words": [("reasoning", "THOUGHTS", None), _hi],
        "no": [_hi],
    }
    event = _by("planner", Reasoning("THOUGHTS", data), "Hi")
    return Kind([event], arrives, signature or "THOUGHTS")


def _shown(part: Media, *line: str) -> Kind:
    """Show media of the user."""
    arrives = {"yes": [_look, ("media", "user", *line)], "no": [_look]}
    return Kind([_by("user", "Look:", part)], arrives, part.data or part.uri)


def _drawn(part: Media, *line: str) -> Kind:
    """Show media of an agent."""
    medium: Said = ("media", "assistant", *line)
    arrives = {"yes": [_hi, medium], "no": [_hi], "in `metadata`": [_hi]}
    return Kind([_by("planner", "Hi", part)], arrives, part.data or part.uri)


def _answer(result: ToolResult, trace: str, **arrives: Said) -> Kind:
    lines = {cell.replace("_", " "): [_called, line] for cell, line in arrives.items()}
    return Kind([_by("planner", _call), _by("tool", result)], lines, trace)


def _beside(event: Event, trace: str, mark: str, *values: Any) -> Kind:
    """Put something beside what is said."""
    return Kind([event], {"yes": [(mark, *values)], "no": []}, trace, mark)


KINDS = {
    "words of the user": _words("user", "user"),
    "words of an agent": _words("planner", "assistant"),
    "words of the system": Kind(
        [_by("system", "WORDS")],
        {"yes": [("role", "system")], "as the user's": [("role", "user")]},
        "WORDS",
        "role",
    ),
    "name of the agent": Kind(
        [_by("AUTHOR", "Hi")], {"yes": [("author", "AUTHOR")], "no": []}, "AUTHOR", "author"
    ),
    "reasoning: its words": _thoughts(None, None),
    "reasoning: Anthropic's signature": _thoughts(
        {"anthropic": {"signature": "SIGNATURE"}}, "SIGNATURE"
    ),
    "reasoning: OpenAI's encrypted content": _thoughts(
        {
            "openai_responses": {
                "item": {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": "THOUGHTS"}],
                    "encrypted_content": "SIGNATURE",
                }
            }
        },
        "SIGNATURE",
    ),
    "reasoning: Gemini's signature": _thoughts(
        {"gemini": {"thoughtSignature": "SIGNATURE+++"}}, "SIGNATURE+++"
    ),
    "image of the user, its bytes": _shown(
        Media("image/png", data="SU1BR0VE"), "image/png", "SU1BR0VE", ""
    ),
    "image of the user, its address": _shown(
        Media("image/png", uri="https://example.com/IMAGE"),
        "image",
        "https://example.com/IMAGE",
        "",
    ),
    "PDF of the user, its bytes": _shown(
        Media("application/pdf", data="UERGUERG"), "application/pdf", "UERGUERG", ""
    ),
    "PDF of the user, its address": _shown(
        Media("application/pdf", uri="https://example.com/PDF"),
        "file",
        "https://example.com/PDF",
        "",
    ),
    "name of a PDF": Kind(
        [_by("user", Media("application/pdf", data="UERGUERG", name="NAME.pdf"))],
        {
            "yes": [("media", "user", "application/pdf", "UERGUERG", "NAME.pdf")],
            "no": [("media", "user", "application/pdf", "UERGUERG", "")],
        },
        "NAME.pdf",
    ),
    "sound of the user, its bytes": _shown(
        Media("audio/wav", data="U09VTkRT"), "audio/wav", "U09VTkRT", ""
    ),
    "image of an agent, its bytes": _drawn(
        Media("image/png", data="SU1BR0VE"), "image/png", "SU1BR0VE", ""
    ),
    "image of an agent, its address": _drawn(
        Media("image/png", uri="https://example.com/IMAGE"),
        "image",
        "https://example.com/IMAGE",
        "",
    ),
    "call: its id, tool and arguments": Kind([_by("planner", _call)], {"yes": [_called]}, "find"),
    "call: arguments to the letter": Kind(
        [_by("planner", ToolCall("c1", "find", '{"id":  7.0}'))],
        {"yes": [("arguments", '{"id":  7.0}')], "parsed": [("arguments", {"id": 7.0})]},
        "7.0",
        "arguments",
    ),
    "call: Gemini's signature": Kind(
        [
            _by(
                "planner",
                ToolCall("c1", "find", {"id": 7}, {"gemini": {"thoughtSignature": "SIGNATURE+++"}}),
            )
        ],
        {"yes": [_called, ("signature", "SIGNATURE+++")], "only the call": [_called]},
        "SIGNATURE+++",
    ),
    "result: text": _answer(ToolResult("c1", "FOUND"), "FOUND", yes=("result", "c1", "FOUND")),
    "result: an object": _answer(
        ToolResult("c1", {"FOUND": [1, None]}),
        "FOUND",
        yes=("result", "c1", {"FOUND": [1, None]}),
        as_text=("result", "c1", '{"FOUND":[1,null]}'),
    ),
    "result: that it is an error": _answer(
        ToolResult("c1", "FOUND", is_error=True),
        "is_error",
        yes=("failure", "c1", "FOUND"),
        only_the_result=("result", "c1", "FOUND"),
    ),
    "`Data` of your own": Kind(
        [_by("planner", "Hi", Data({"CARD": 1}, "application/card"))],
        {"no": [_hi], "in `metadata`": [_hi]},
        "CARD",
    ),
    "words, image, words in one event": Kind(
        [_by("user", "Look:", Media("image/png", data="SU1BR0VE"), "LAST")],
        {
            "yes": [
                _look,
                ("media", "user", "image/png", "SU1BR0VE", ""),
                ("text", "user", "LAST"),
            ]
        },
        "LAST",
    ),
    "words, call, words in one event": Kind(
        [_by("planner", "Hi", _call, "LAST")],
        {"yes": [_hi, _called, ("text", "assistant", "LAST")]},
        "LAST",
    ),
    "call, result, words in one event": Kind(
        [_by("planner", _call, ToolResult("c1", "FOUND"), "LAST")],
        {
            "yes": [_called, ("result", "c1", "FOUND"), ("text", "assistant", "LAST")],
            "the result last": [_called, ("text", "assistant", "LAST"), ("result", "c1", "FOUND")],
        },
        "LAST",
    ),
    "an error, and no content": _beside(
        _by("planner", error=EventError("MESSAGE", "TimeoutError")),
        "MESSAGE",
        "error",
        "TimeoutError",
        "MESSAGE",
    ),
    "a change of state, and no content": _beside(
        _by("planner", state_delta={"STATE": 1}), "STATE", "state", {"STATE": 1}
    ),
    "when it was said": _beside(_by("planner", "Hi"), "2026", "time", _time),
    "`invocation_id`": _beside(_by("planner", "Hi", invocation_id="TURN"), "TURN", "turn", "TURN"),
    "`metadata` of your own": _beside(
        _by("planner", "Hi", metadata={"note": "METADATA"}), "METADATA", "metadata"
    ),
}

# By the rows of the second table: which of a framework's OBJECTS is stored, and its trace.
OBJECTS = {
    "words": ("words", "WORDS"),
    "name of the agent": ("author", "AUTHOR"),
    "words of reasoning": ("reasoning", "THOUGHTS"),
    "Anthropic's signature": ("signature", "SIGNATURE"),
    "what other providers want back": ("other signature", "SIGNATURE"),
    "image, its bytes": ("image", "SU1BR0VE"),
    "call": ("call", "call_id='c1', name='find', arguments={'id': 7}"),
    "result": ("result", "RESULT"),
    "that a result is an error": ("failure", "is_error=True"),
    "calls of the provider's own tools": ("hosted", "HOSTED"),
    "usage": ("usage", "86420"),
}
