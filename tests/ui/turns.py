"""Turns by chance: events as a log has them, and the ways in which a reader may get them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from agentsession import Data, Event, Text, ToolCall, ToolResult
from agentsession._service.chunks import joined
from agentsession.events import EventError, Media, Part, Reasoning

__all__ = ["ANSWERED_AGAIN", "ANSWERED_BY_USER", "RandomTurn", "turns"]

words = st.text("ab{} é\n", min_size=1, max_size=6)
values = st.dictionaries(st.sampled_from("xy"), st.integers(0, 9) | words, max_size=2)
results = st.none() | values | words


@dataclass
class RandomTurn:
    """A turn of which a reader gets chunks.

    Attributes:
        events: All that is stored, its message first.
        told: The same after the message, with all chunks, as they happened.
    """

    events: list[Event] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)

    @property
    def without_chunks(self) -> list[Event]:
        return self.events[1:]

    def with_gaps(self, is_lost: Sequence[bool]) -> list[Event]:
        """Return what a reader gets who loses some chunks, and then gets all that was said."""
        said: dict[str, list[Any]] = {}
        broken: set[str] = set()
        got: list[Event] = []
        for number, event in enumerate(self.told):
            if not event.partial:
                said.pop(event.stream_id, None)
                broken.discard(event.stream_id)
                got.append(event)
                continue
            said.setdefault(event.stream_id, []).append(event.content)
            if is_lost[number % len(is_lost)]:
                broken.add(event.stream_id)
            elif event.stream_id in broken:
                broken.discard(event.stream_id)
                got.append(of(event, snapshot=True, content=joined(said[event.stream_id])))
            else:
                got.append(event)
        return got


def of(event: Event, **changes: Any) -> Event:
    return Event(**{**{name: getattr(event, name) for name in event.__struct_fields__}, **changes})


def _told(author: str, seq: int, *content: Part, **fields: Any) -> Event:
    common = {"id": f"e{seq}", "invocation_id": "run", **fields}
    return Event(author=author, content=[*content], seq=seq, **common)


def _answered_again() -> RandomTurn:
    """Return a turn with two results of one call, while a stream is shown, and one taken back."""
    events = [
        _told("user", 1, Text("go"), id="run"),
        _told("agent", 2, ToolCall("c", "tool"), ToolCall("d", "tool"), error=EventError("a")),
        _told("tool", 3, ToolResult("c", None)),
        _told("tool", 4, ToolResult("c", {}), ToolResult("d", 1)),
        _told("agent", 5, Text("some words"), stream_id="s"),
    ]
    begun = _told("agent", 0, Text("some"), partial=True, stream_id="s")
    lost = _told("agent", 0, Text("lost"), partial=True, stream_id="never")
    return RandomTurn(events, [*events[1:3], begun, *events[3:], lost])


def _answered_by_user() -> RandomTurn:
    """Return a turn whose user gives a result with words, and one of a call of the user's own."""
    events = [
        _told("user", 1, Text("go"), id="run"),
        _told("agent", 2, ToolCall("c", "tool"), error=EventError("a")),
        _told("user", 3, ToolResult("c", None), Text("so"), ToolCall("d", "tool")),
        _told("tool", 4, ToolResult("d", 1)),
    ]
    return RandomTurn(events, events[1:])


ANSWERED_AGAIN = _answered_again()
ANSWERED_BY_USER = _answered_by_user()


@st.composite
def parts(draw: st.DrawFn, number: int) -> list[Part]:
    """Draw what an event says; the ids of its calls are its own."""
    found: list[Part] = []
    for place in range(draw(st.integers(0, 4))):
        match draw(st.sampled_from(["text", "reasoning", "call", "data", "media"])):
            case "text":
                found.append(Text(draw(words)))
            case "reasoning":
                found.append(Reasoning(draw(st.just("") | words)))
            case "call":
                arguments = draw(values | words | values.map(json.dumps))
                found.append(ToolCall(f"call-{number}-{place}", "tool", arguments))
            case "data":
                found.append(Data(draw(values), draw(st.sampled_from(["", "card"]))))
            case _:
                found.append(Media("image/png", data="AAAA", name=draw(st.just("") | words)))
    return found


@st.composite
def pieces(draw: st.DrawFn, content: Sequence[Part]) -> list[Part]:
    """Draw how the parts of an event come as chunks; some agents stream only words, or nothing."""
    found: list[Part] = []
    for part in content:
        text = getattr(part, "text", None)
        if isinstance(part, ToolCall):
            text = part.arguments
            text = text if isinstance(text, str) else json.dumps(text)
        if text is None:
            found.append(part)
            continue
        cut = draw(st.integers(0, len(text)))
        for piece in filter(None, (text[:cut], text[cut:])):
            if isinstance(part, ToolCall):
                found.append(ToolCall(part.call_id, part.name, piece))
            else:
                found.append(type(part)(piece))
    if draw(st.integers(0, 9)) == 0:
        found.insert(draw(st.integers(0, len(found))), Text("wrong"))
    return found[: draw(st.integers(0, len(found)) | st.just(len(found)))]


@st.composite
def turns(draw: st.DrawFn) -> RandomTurn:
    """Draw a turn, whose streams may run side by side."""
    turn = RandomTurn([Event(author="user", content="go", id="run", invocation_id="run", seq=1)])
    for number in range(draw(st.integers(1, 5))):
        event = draw(stored(number, turn.events))
        if event.stream_id and event.author == "agent":
            content = draw(pieces(event.content if isinstance(event.content, list) else []))
            chunks = [
                of(event, partial=True, content=[each], seq=0, error=None) for each in content
            ]
            early = draw(st.integers(0, len(chunks)))
            # Some of them come before the event that is stored before this one.
            if turn.told and not turn.told[-1].partial:
                last = turn.told.pop()
                turn.told += [*chunks[:early], last, *chunks[early:]]
            else:
                turn.told += chunks
        turn.told.append(event)
        turn.events.append(event)
    if draw(st.booleans()):
        # A stream of which nothing is ever stored.
        chunk = Event(author="agent", content="lost", partial=True, stream_id="never")
        turn.told.append(of(chunk, invocation_id="run"))
    return turn


@st.composite
def stored(draw: st.DrawFn, number: int, before: Sequence[Event]) -> Event:
    """Draw an event."""
    calls = [call.call_id for event in before for call in event.tool_calls]
    kind = draw(st.sampled_from(["agent", "agent", "agent", "tool", "user"]))
    common: dict[str, Any] = {
        "id": f"e{number}",
        "invocation_id": "run",
        "seq": number + 2,
        "author": kind,
    }
    if kind == "tool":
        return Event(content=draw(answers(calls)), **common)
    if kind == "user":
        return Event(content=draw(words | said_by_user(number, calls)), **common)
    error = EventError(draw(words)) if draw(st.integers(0, 5)) == 0 else None
    stream = draw(st.sampled_from(["", "s", "s"])) and f"s{number % 2}"
    said = draw(parts(number))
    # Some tools run at the provider, within its answer.
    own = [part.call_id for part in said if isinstance(part, ToolCall)]
    said += draw(st.just([]) | answers([*calls, *own]))
    return Event(content=said, stream_id=stream, error=error, **common)


@st.composite
def said_by_user(draw: st.DrawFn, number: int, calls: Sequence[str]) -> list[Part]:
    """Draw what no router lets a user say, and an application may store: results, and calls."""
    found: list[Part] = [*draw(answers(calls))]
    found += draw(
        st.lists(
            (words | st.just("")).map(Text) | st.just(Media("image/png", data="AAAA")), max_size=2
        )
    )
    if draw(st.booleans()):
        found.append(ToolCall(f"call-{number}-0", "tool"))
    return draw(st.permutations(found))


@st.composite
def answers(draw: st.DrawFn, calls: Sequence[str]) -> list[Part]:
    """Draw results of some calls, which may have results already, and of one that nobody made."""
    answered = draw(st.lists(st.sampled_from([*calls, "unknown"]), max_size=3))
    return [ToolResult(each, draw(results), is_error=draw(st.booleans())) for each in answered]
