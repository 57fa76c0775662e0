"""Chunks of streams: which are handed on, and what they may cost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agentsession import (
    AgentContext,
    Data,
    Event,
    Runner,
    SessionKey,
    SessionService,
    Text,
    ToolCall,
)
from agentsession._service import chunks, following
from agentsession._service.chunks import joined, read_chunk
from agentsession.events import Content, Reasoning
from agentsession.subscriptions import Followed, Missed, SessionNews, Subscription
from agentsession.testing import Subject
from harness.files import told

SOON = 20.0


def chunk(words: str, stream_id: str = "", **fields: object) -> Event:
    return Event(author="agent", content=words, partial=True, stream_id=stream_id, **fields)  # type: ignore[arg-type]  # as a test wants them


def whole(words: str, stream_id: str = "") -> Event:
    return Event(author="agent", content=words, stream_id=stream_id)


def words(items: list[Followed]) -> list[str]:
    return [
        f"~{item.text}" if item.partial else item.text for item in items if isinstance(item, Event)
    ]


async def up_to(items: Subscription, last: str) -> list[Followed]:
    """Take what comes up to an event of these words."""
    taken: list[Followed] = []
    async with asyncio.timeout(SOON):
        while words(taken)[-1:] != [last]:
            taken.append(await anext(items))
    return taken


@asynccontextmanager
async def followed(
    service: SessionService, other: SessionService, key: SessionKey
) -> AsyncIterator[Subscription]:
    """Follow a new session, and wait until its news are told."""
    await service.create_session(key)
    async with other.subscribe(key) as items:
        await service.append_event(key, whole("begin"))
        await up_to(items, "begin")
        yield items


async def test_a_batch_hands_on_what_no_whole_event_of_it_follows(subject: Subject) -> None:
    """The others have their whole event by then, with or without an id of their stream."""
    service, other = subject.service(), subject.service()
    async with followed(service, other, subject.key) as items:
        for stream in ("", "s"):
            batch = [chunk("a", stream), whole("ab", stream), chunk("c", f"{stream}2")]
            given = await service.append_events(subject.key, batch)
            assert [given[0], given[2]] == [batch[0], batch[2]]
            taken = await up_to(items, "~c")
            assert words(taken) == ["ab", "~c"]
        await service.append_events(subject.key, [chunk("d"), chunk("e")])
        assert words(await up_to(items, "~e")) == ["~d", "~e"]


@pytest.mark.parametrize("stream_id", ["", "s"])
async def test_what_a_chunk_that_is_waiting_becomes_takes_its_place(
    subject: Subject, stream_id: str
) -> None:
    """A chunk that is not sent yet when its whole event is stored is not sent any more."""
    service, other = subject.service(), subject.service()
    async with followed(service, other, subject.key) as items:
        for _ in range(50):
            await service.append_event(subject.key, chunk("a", stream_id))
        await service.append_event(subject.key, whole("aa", stream_id))
        await service.append_event(subject.key, chunk("last", "another"))
        taken = words(await up_to(items, "~last"))
        assert taken[-2:] == ["aa", "~last"]
        assert set(taken[:-2]) <= {"~a"}


INVALID = {
    "content": chunk("x", metadata={"n": object()}),
    "number": chunk("x", metadata={"n": float("nan")}),
    "surrogate": chunk("\ud800"),
    "state": chunk("x", state_delta={"n": object()}),
    "stream id": chunk("x", stream_id=7),  # type: ignore[arg-type]  # which is the mistake
    "large": chunk("x" * 2000),
}
_deep: list[object] = []
for _ in range(5000):
    _deep = [_deep]
INVALID["deep"] = chunk("x", metadata={"n": _deep})


@pytest.mark.parametrize("name", INVALID)
async def test_an_invalid_chunk_stops_no_others(
    subject: Subject, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is returned as ever, since it is stored nowhere, and its loss is logged."""
    service, other = subject.service(max_event_size=1000), subject.service()
    async with followed(service, other, subject.key) as items:
        with caplog.at_level(logging.WARNING, "agentsession.service"):
            for event in (chunk("a", "s"), INVALID[name], chunk("b", "s")):
                assert await service.append_event(subject.key, event) is event
            assert words(await up_to(items, "~b")) == ["~a", "~b"]
        assert "chunk was not handed on" in caplog.text


async def test_what_waits_is_bounded_in_bytes(subject: Subject) -> None:
    """For a follower that stands still, and for a server that does."""
    service, other = subject.service(), subject.service()
    async with followed(service, other, subject.key) as items:
        for n in range(200):
            await service.append_event(subject.key, chunk("x" * 100_000, f"{n}"))
            await asyncio.sleep(0)
        waiting = service._chunks._waiting
        assert sum(each.size for each in waiting.values()) <= 2 << 20
        async with asyncio.timeout(SOON):
            while service._chunks._waiting:
                await asyncio.sleep(0.001)
        await service.append_event(SessionKey("app", "user", "session"), chunk("end", "end"))
        await asyncio.sleep(0.1)
        assert 0 < items._chunks.size <= 2 << 20  # type: ignore[attr-defined]  # to look on


async def test_nothing_is_left_of_a_stream(subject: Subject) -> None:
    """Neither tasks nor memory, once what waits is sent."""
    service = subject.service()
    keys = [subject.another_key() for _ in range(50)]
    for key in keys:
        await service.create_session(key)
        await service.append_event(key, chunk("x"))
    async with asyncio.timeout(SOON):
        while service._chunks._waiting or service._chunks._tasks:
            await asyncio.sleep(0.01)


async def test_where_nobody_listens_nothing_waits(subject: Subject) -> None:
    """One chunk tells, and those that come soon after it are not even kept."""
    service = subject.service()
    await service.create_session(subject.key)
    await service.append_event(subject.key, chunk("x"))
    waiting = service._chunks._waiting[subject.key]
    async with asyncio.timeout(SOON):
        while not waiting.nobody_listens:
            await asyncio.sleep(0)
    await service.append_event(subject.key, chunk("x"))
    assert not waiting


async def test_news_that_nobody_takes_are_missed(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not wait without end, and it is said that there were more."""
    monkeypatch.setattr(following, "_MOST_WAITING", 10)
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    async with (
        other.subscribe_user(subject.user) as slow,
        other.subscribe_user(subject.user) as prompt,
    ):
        assert await anext(prompt) == await anext(slow) == Missed()
        for n in range(25):
            await service.update_session_state(subject.key, {"n": n})
            await anext(prompt)  # Of this or, until all is told, that there may have been some.
        await service.delete_session(subject.key)
        last = SessionNews(subject.key, "deleted")
        async with asyncio.timeout(SOON):
            while await anext(prompt) != last:
                pass
            taken = [await anext(slow)]
            while taken[-1] != last:
                taken.append(await anext(slow))
        assert taken[0] == Missed()
        assert len(taken) <= 11


async def run(subject: Subject, *events: Event) -> tuple[list[Event], list[Event]]:
    """Run a turn whose agent yields these; return its chunks, and what was stored of it."""
    service = subject.service()

    async def agent(_: AgentContext) -> AsyncIterator[Event]:
        for event in events:
            yield event

    runner = Runner("app", agent, service)
    handed_on = [each async for each in runner.run("user", subject.key.session_id, "go")]
    stored = await service.get_events(subject.key)
    return [each for each in handed_on if each.partial], stored[1:-1]


async def test_streams_side_by_side_are_told_apart(subject: Subject) -> None:
    """By their ids where the agent gives them, and by author and branch where not."""
    chunks, stored = await run(
        subject,
        chunk("a", "one"),
        chunk("b", "two"),
        chunk("c", "one"),
        whole("ac", "one"),
        whole("b", "two"),
        Event(author="x", content="d", partial=True),
        Event(author="y", content="e", partial=True),
        Event(author="x", content="d"),
        Event(author="y", content="e"),
    )
    assert [each.stream_id for each in chunks[:3]] == ["one", "two", "one"]
    assert [each.stream_id for each in stored[:2]] == ["one", "two"]
    assert [each.stream_id for each in stored[2:]] == [each.stream_id for each in chunks[3:]]
    assert len({each.stream_id for each in chunks}) == 4


@pytest.mark.parametrize("author", ["agent", "another"])
async def test_words_of_streams_that_ended_are_not_stored_again(
    subject: Subject, author: str
) -> None:
    """Nor are those lost that were streamed side by side, when the turn fails."""
    service = subject.service()

    async def agent(_: AgentContext) -> AsyncIterator[Event]:
        yield chunk("a", "one")
        yield chunk("b", "two")
        yield chunk("c", "one")
        yield chunk("d", "three")
        yield Event(author=author, content="ac", stream_id="one")
        raise ValueError

    runner = Runner("app", agent, service)
    with pytest.raises(ValueError):  # noqa: PT011 - it has no words
        async for _ in runner.run("user", subject.key.session_id, "go"):
            pass
    said = [
        (each.text, each.stream_id)
        for each in await service.get_events(subject.key)
        if each.author != "user" and each.text
    ]
    assert said == [("ac", "one"), ("b", "two"), ("d", "three")]


async def test_parts_are_chunks_too(subject: Subject) -> None:
    """A chunk holds whatever an event may hold."""
    service, other = subject.service(), subject.service()
    async with followed(service, other, subject.key) as items:
        given = Event(author="agent", content=[Text("x")], partial=True, metadata={"a": [1, None]})
        await service.append_event(subject.key, given)
        async with asyncio.timeout(SOON):
            assert await anext(items) == given


async def test_a_turn_that_was_taken_back_is_heard_of_no_more(subject: Subject) -> None:
    """Its process does not know yet, and others speak; one that goes back itself is heard on."""
    service = subject.service()
    await service.create_session(subject.key)

    def chunk(turn: str, words: str) -> Event:
        return Event(author="a", content=words, partial=True, stream_id=turn, invocation_id=turn)

    async with service.subscribe(subject.key) as followed, asyncio.timeout(10):

        async def heard(turn: str, words: str) -> list[str]:
            await service.append_event(subject.key, chunk(turn, words))
            texts: list[str] = []
            while words not in texts:
                item = await anext(followed)
                texts.append(item.text if isinstance(item, Event) else type(item).__name__)
            return texts

        lease = service.lease(subject.key, run_id="old")
        await service.begin_turn(lease, Event(author="user", content="hi", id="old"))
        assert await heard("old", "one") == ["hi", "one"]
        await service.rewind(subject.key, to_seq=0)
        await service.append_event(subject.key, chunk("old", "two"))
        await service.append_event(subject.key, chunk("old", "three"))
        assert await heard("new", "other") == ["Rewound", "other"]
        async with service.lease(subject.key, run_id="mine") as mine:
            said = Event(author="a", content="so", invocation_id="mine")
            await service.append_event(subject.key, said, lease=mine)
            await service.rewind(subject.key, to_seq=0, lease=mine)
            assert await heard("mine", "again") == ["so", "Rewound", "again"]


@pytest.mark.parametrize(
    ("contents", "whole"),
    [
        (["a", "b"], "ab"),
        (["a", [Text("b")]], "ab"),
        ([[Text("a", {"x": 1})], "b"], [Text("ab", {"x": 1})]),
        ([[Reasoning("a")], [Reasoning("b", 1)], "c"], [Reasoning("ab", 1), Text("c")]),
        (
            [[ToolCall("1", "f", '{"a')], [ToolCall("1", "f", '": 1}')], [ToolCall("2", "f", "x")]],
            [ToolCall("1", "f", '{"a": 1}'), ToolCall("2", "f", "x")],
        ),
        (
            [[ToolCall("1", "f", {"a": 1})], [ToolCall("1", "f", "x")]],
            [ToolCall("1", "f", {"a": 1}), ToolCall("1", "f", "x")],
        ),
        ([[Data(1)], [Data(1)], "a"], [Data(1), Data(1), Text("a")]),
    ],
)
def test_chunks_are_joined_by_what_goes_on(contents: list[Content], whole: Content) -> None:
    """Words go on where words ended; so do thoughts, and the arguments of one call."""
    assert joined(contents) == whole


@pytest.mark.parametrize("told", [b"", b"s x {}", b"s 1 {", b"\xff 1 {}"])
def test_what_is_no_chunk_is_left_out(told: bytes) -> None:
    """As one of a later version."""
    assert read_chunk(told) is None


async def test_what_is_too_much_is_not_told_again(subject: Subject) -> None:
    """Who comes late to a stream of more than a megabyte waits for its whole event."""
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    async with other.subscribe(subject.key) as items:
        for _ in range(3):
            chunk = Event(
                author="agent", content=[Text("x" * 600_000)], partial=True, stream_id="s"
            )
            await service.append_event(subject.key, chunk)
            await asyncio.sleep(0)
        whole = await service.append_event(
            subject.key, Event(author="agent", content="all", stream_id="s")
        )
        async with asyncio.timeout(30):
            while (item := await anext(items)) != whole:
                assert isinstance(item, Event)
                assert not (item.snapshot and len(item.text) > 1 << 20)


async def test_streams_that_never_end_are_forgotten(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest of them; what comes of it later still comes."""
    monkeypatch.setattr(chunks, "_MOST_STREAMS", 2)
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    async with other.subscribe(subject.key) as items:
        await service.append_event(subject.key, Event(author="user", content="1"))
        await anext(items)
        for stream_id in ("a", "b", "c", "d", "a"):
            await service.append_event(subject.key, chunk("x", stream_id))
            async with asyncio.timeout(SOON):
                item = await anext(items)
            assert isinstance(item, Event)
            assert (item.stream_id, item.text) == (stream_id, "x")


@pytest.mark.parametrize("content", [5, None, [Text(5)], [5]])  # type: ignore[arg-type]  # that is the mistake
async def test_a_chunk_of_a_wrong_type_harms_nobody(
    subject: Subject, content: object, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged where somebody follows; whoever sends it goes on."""
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    wrong = Event(author="agent", content=content, partial=True, stream_id="s")  # type: ignore[arg-type]  # as above
    async with other.subscribe(subject.key) as items:
        await told(subject)
        for event in (chunk("a", "s"), wrong, chunk("b", "s"), wrong, chunk("c", "s")):
            await service.append_event(subject.key, event)
            await asyncio.sleep(0.01)
        whole = Event(author="agent", content="abc", stream_id="s")
        stored = await service.append_event(subject.key, whole)
        async with asyncio.timeout(SOON):
            while await anext(items) != stored:
                pass
    assert "a chunk was not handed on" in caplog.text
