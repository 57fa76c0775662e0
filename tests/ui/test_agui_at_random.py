"""Whatever chunks a client gets of a turn, in the end it holds the messages of the log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from ag_ui.core import MessagesSnapshotEvent, ReasoningMessage
from hypothesis import example, given
from hypothesis import strategies as st

from agentsession import DELETE, Event, Session, SessionKey, ToolResult
from agentsession.clock import utc_now
from agentsession.ui._agui.events import Resync, Translator
from agentsession.ui._agui.state import SharedState
from agentsession.ui._agui.streams import _up_to
from agentsession.ui.agui import to_messages
from ui.turns import ANSWERED_AGAIN, ANSWERED_BY_USER, RandomTurn, turns

Message = dict[str, Any]


def as_json(messages: Iterable[Any]) -> list[Message]:
    return [msgspec.json.decode(each.model_dump_json(by_alias=True)) for each in messages]


def unique(messages: list[Message]) -> list[Message]:
    """Check that no two messages have one id: a snapshot would make them one."""
    ids = [message["id"] for message in messages]
    assert len(set(ids)) == len(ids), ids
    return messages


class Client:
    """What HttpAgent makes of events, rule by rule as its apply/default.ts and verify.ts."""

    def __init__(self, log: Sequence[Event]) -> None:
        self.log = log
        self.messages = as_json(to_messages(log[:1]))
        self._open: set[tuple[str, str]] = set()

    def read(self, event: Any) -> None:
        if isinstance(event, Resync):
            self._snapshot(event)
            return
        told = msgspec.json.decode(event.model_dump_json(by_alias=True))
        getattr(self, "_" + told["type"].lower())(told)

    def end(self) -> list[Message]:
        assert not self._open
        return unique(self.messages)

    def _snapshot(self, wanted: Resync) -> None:
        known = as_json(to_messages(_up_to(self.log, "run", wanted.last_seq)))
        ids = {each["id"] for each in known}
        blank = [ReasoningMessage(id=each, content="") for each in wanted.thoughts]
        known += as_json(each for each in blank if each.id not in ids)
        new = {message["id"]: message for message in known}
        has_thoughts = any(message["role"] == "reasoning" for message in known)
        kept = [
            message
            for message in self.messages
            if message["id"] in new or (message["role"] == "reasoning" and not has_thoughts)
        ]
        there = {message["id"] for message in kept}
        self.messages = [new.get(message["id"], message) for message in kept]
        self.messages += [message for message in known if message["id"] not in there]

    def _message(self, name: str, role: str) -> Message:
        for message in self.messages:
            if message["id"] == name:
                return message
        self.messages.append({"id": name, "role": role})
        return self.messages[-1]

    def _begin(self, kind: str, name: str) -> None:
        assert (kind, name) not in self._open
        self._open.add((kind, name))

    def _text_message_start(self, told: Message) -> None:
        self._begin("text", told["messageId"])
        self._message(told["messageId"], told["role"]).setdefault("content", "")

    def _text_message_content(self, told: Message) -> None:
        assert ("text", told["messageId"]) in self._open
        self._message(told["messageId"], "")["content"] += told["delta"]

    def _text_message_end(self, told: Message) -> None:
        self._open.remove(("text", told["messageId"]))

    def _reasoning_start(self, told: Message) -> None:
        self._begin("span", told["messageId"])

    def _reasoning_end(self, told: Message) -> None:
        self._open.remove(("span", told["messageId"]))

    def _reasoning_message_start(self, told: Message) -> None:
        self._begin("reasoning", told["messageId"])
        self._message(told["messageId"], "reasoning").setdefault("content", "")

    def _reasoning_message_content(self, told: Message) -> None:
        self._message(told["messageId"], "")["content"] += told["delta"]

    def _reasoning_message_end(self, told: Message) -> None:
        self._open.remove(("reasoning", told["messageId"]))

    def _call(self, call_id: str) -> tuple[int, Message] | None:
        for number, message in enumerate(self.messages):
            for call in message.get("toolCalls", ()):
                if call["id"] == call_id:
                    return number, call
        return None

    def _tool_call_start(self, told: Message) -> None:
        self._begin("call", told["toolCallId"])
        assert self._call(told["toolCallId"]) is None
        message = self._message(told["parentMessageId"], "assistant")
        function = {"name": told["toolCallName"], "arguments": ""}
        call = {"id": told["toolCallId"], "type": "function", "function": function}
        message.setdefault("toolCalls", []).append(call)

    def _tool_call_args(self, told: Message) -> None:
        found = self._call(told["toolCallId"])
        assert found is not None
        found[1]["function"]["arguments"] += told["delta"]

    def _tool_call_end(self, told: Message) -> None:
        self._open.remove(("call", told["toolCallId"]))

    def _tool_call_result(self, told: Message) -> None:
        found = self._call(told["toolCallId"])
        assert found is not None
        place = found[0] + 1
        while place < len(self.messages) and self.messages[place]["role"] == "tool":
            place += 1
        names = {"messageId": "id", "toolCallId": "toolCallId", "content": "content"}
        answer = {name: told[each] for each, name in names.items()}
        extra = {"metadata": told["metadata"]} if "metadata" in told else {}
        self.messages.insert(place, {**answer, "role": "tool", **extra})

    def _activity_snapshot(self, told: Message) -> None:
        message = self._message(told["messageId"], "activity")
        message.update(activityType=told["activityType"], content=told["content"])


def compared(messages: Iterable[Message]) -> list[Message]:
    """Leave out what does not count.

    Arguments of calls may be written in more than one way. Thoughts that were shown and taken back
    stay as empty messages, and in their old place: a client keeps what it is not told of.
    """
    found: list[Message] = []
    for message in messages:
        for call in message.get("toolCalls", ()):
            arguments = call["function"]["arguments"]
            with suppress(msgspec.DecodeError):
                call["function"]["arguments"] = msgspec.json.decode(arguments)
        if message["role"] != "reasoning" or message["content"]:
            found.append(message)
    return found


def split(messages: Iterable[Message]) -> tuple[list[Message], list[Message]]:
    """Thoughts by themselves, since their place may be an old one."""
    found = compared(messages)
    thoughts = [each for each in found if each["role"] == "reasoning"]
    return sorted(thoughts, key=lambda each: each["id"]), [e for e in found if e not in thoughts]


def shown(turn: RandomTurn, events: Iterable[Event]) -> list[Message]:
    translator, client = Translator(SharedState(None)), Client(turn.events)
    for event in events:
        for told in translator.take(event):
            client.read(told)
    for told in translator.end():
        client.read(told)
    return client.end()


def logged(turn: RandomTurn) -> list[Message]:
    return unique(as_json(to_messages(turn.events)))


@given(turns())
@example(ANSWERED_AGAIN)
@example(ANSWERED_BY_USER)
def test_all_chunks(turn: RandomTurn) -> None:
    """As a reader of the run gets them."""
    assert split(shown(turn, turn.told)) == split(logged(turn))


@given(turns(), st.lists(st.booleans(), min_size=1, max_size=6))
@example(ANSWERED_AGAIN, [True])
def test_some_chunks(turn: RandomTurn, is_lost: list[bool]) -> None:
    """As a follower gets them who comes late, or loses some."""
    assert split(shown(turn, turn.with_gaps(is_lost))) == split(logged(turn))


@given(turns())
@example(ANSWERED_AGAIN)
@example(ANSWERED_BY_USER)
def test_no_chunks(turn: RandomTurn) -> None:
    """As a follower gets them from the log; then all stands in its place, too."""
    assert compared(shown(turn, turn.without_chunks)) == compared(logged(turn))


def test_the_newest_result_of_a_call_counts() -> None:
    """It is shown in the place of the older one, also in a later turn."""
    later = Event(author="tool", content=[ToolResult("d", 2)], invocation_id="next", seq=6)
    shown = as_json(to_messages([*ANSWERED_AGAIN.events, later]))
    results = [(each["id"], each["content"]) for each in shown if each["role"] == "tool"]
    assert results == [("run:c", "{}"), ("run:d", "2")]


# -- state

names = st.sampled_from(["a", "a/b", "~", "~1", "", "user:a", "app:a", "temp:a", "é"])
values = st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2) | st.just(DELETE)


def applied(state: dict[str, Any], patch: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Apply a patch by the letter of RFC 6902."""
    state = dict(state)
    for each in patch:
        assert each["path"].startswith("/")
        name = each["path"][1:].replace("~1", "/").replace("~0", "~")
        if each["op"] != "add":
            assert name in state
        if each["op"] == "remove":
            del state[name]
        else:
            state[name] = each["value"]
    return state


@given(st.lists(st.dictionaries(names, values, max_size=4), max_size=5), st.integers(0, 5))
def test_state_is_followed(deltas: list[dict[str, Any]], read_at: int) -> None:
    """From wherever it was read; what the client has is that of the session and of the user."""
    merged: dict[str, Any] = {}
    session, client = None, SharedState(None)
    state: dict[str, Any] = {}
    for seq, delta in enumerate(deltas, 1):
        for name, value in delta.items():
            if value is DELETE:
                merged.pop(name, None)
            else:
                merged[name] = value
        if seq == read_at:
            session = session_with(merged, seq)
            client = SharedState(session)
            state = dict(client.values)
    for seq, delta in enumerate(deltas, 1):
        state = applied(state, client.patch(Event(author="a", state_delta=delta, seq=seq)))
    wanted = {k: v for k, v in merged.items() if not k.startswith(("app:", "temp:"))}
    assert state == client.values == wanted
    assert not client.renew(session_with(merged, 9))
    assert client.renew(session_with({**merged, "new": 1}, 9))


def session_with(state: dict[str, Any], last_seq: int) -> Session:
    now = utc_now()
    key = SessionKey("a", "u", "s")
    session = Session(key=key, created_at=now, updated_at=now, revision=0, state=dict(state))
    msgspec.structs.force_setattr(session, "last_seq", last_seq)
    return session


def test_a_snapshot_that_is_sent_is_valid() -> None:
    """By the library's own models."""
    messages = to_messages([Event(author="user", content="hi", id="m")])
    sent = MessagesSnapshotEvent(messages=messages).model_dump_json(by_alias=True)
    assert MessagesSnapshotEvent.model_validate_json(sent).messages == messages


@pytest.mark.parametrize("kind", ["image/png", "audio/ogg", "video/mp4", "text/csv"])
def test_files_come_back_as_they_were(kind: str) -> None:
    """Each kind as the part that it is."""
    from agentsession.events import Media
    from agentsession.ui._agui.messages import content_of

    for media in (Media(kind, data="AAAA", name="a"), Media(kind, uri="https://example.com/a")):
        (message,) = to_messages([Event(author="user", content=[media], id="m")])
        assert message.role == "user"
        assert content_of(message) == [media]
