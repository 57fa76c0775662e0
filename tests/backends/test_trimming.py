"""What the limit takes out of a log, on every backend: whole turns, where it can."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest

from agentsession import Event, SessionKey, Text, ToolCall, ToolResult
from agentsession.backend import TRIM_LOOK, next_turn
from agentsession.codec import encode_event
from agentsession.events import Content
from agentsession.testing import MemorySubject, Subject
from harness.files import SQLiteSubject
from harness.subjects import RedisSubject

KEY = SessionKey("app", "user", "session")


def user(turn: str = "", **fields: Any) -> Event:
    return Event(author="user", content="x", invocation_id=turn, **fields)


def agent(turn: str = "", author: str = "agent") -> Event:
    return Event(author=author, content="y", invocation_id=turn)


@pytest.mark.parametrize(
    ("log", "index"),
    [
        # A turn begins with the event that gave it its id, or with one of the user's.
        ([user("a", id="a"), agent("a"), agent("a"), user("b", id="b")], 2),
        ([user(), agent(), agent(), user(), agent()], 2),
        ([user("a"), user("a"), agent("a"), user("b"), user("b")], 2),
        ([user("a"), agent("a"), agent("b"), user("c")], 2),
        ([user(), agent("b"), Event(author="c", id="d", invocation_id="d")], 1),
        ([user(), user()], 0),
        ([user(), user("a"), user("a")], 0),
        ([agent(), agent(), agent("a")], None),
        ([user("a"), user("a")], None),
        ([user()], None),
    ],
)
def test_where_a_turn_begins(log: list[Event], index: int | None) -> None:
    """By what an event says of itself, and by the one before it."""
    before, *events = [encode_event(event) for event in log]
    assert next_turn(before, events) == index


@pytest.mark.parametrize("foreign", [b"", b"[]", b"{}", b'{"author":7}', b"\xff", b"[" * 2000])
def test_foreign_bytes_begin_no_turn(foreign: bytes) -> None:
    """What comes after them does, if it says so."""
    event = encode_event(user("a"))
    assert next_turn(event, [foreign, event]) == 1
    assert next_turn(foreign, [foreign]) is None


@pytest.mark.parametrize(
    ("limit", "turns", "one_by_one", "at_once"),
    [
        # The rest of each turn leaves with its first event.
        (10, [4, 4, 4, 4], [4, 8, 8, 8], [4, 8, 8, 8]),
        (10, [3, 3, 3, 3], [3, 6, 9, 9], [3, 6, 9, 9]),
        (3, [1, 1, 1, 1], [1, 2, 3, 3], [1, 2, 3, 3]),
        # One longer than half of the limit leaves bit by bit, until that much is left of it.
        (10, [7, 7, 1, 1], [7, 10, 10, 10], [7, 7, 8, 9]),
        (10, [25, 1], [10, 10], [10, 10]),
        (1, [3, 1], [1, 1], [1, 1]),
        # So does one that is longer than is looked for its end.
        (200, [TRIM_LOOK, 200], [TRIM_LOOK, 200], [TRIM_LOOK, 200]),
        (200, [TRIM_LOOK, 199], [TRIM_LOOK, 199], [TRIM_LOOK, 199]),
        (200, [TRIM_LOOK + 5, 150], [TRIM_LOOK + 5, 200], [TRIM_LOOK + 5, 150]),
    ],
)
@pytest.mark.parametrize("batched", [False, True])
async def test_how_much_is_left(
    subject: Subject,
    limit: int,
    turns: list[int],
    one_by_one: list[int],
    at_once: list[int],
    batched: bool,
) -> None:
    """After each turn, whether it came event by event or all at once."""
    service = subject.service(event_limit=limit)
    await service.create_session(KEY)
    lengths = at_once if batched else one_by_one
    for number, (size, length) in enumerate(zip(turns, lengths, strict=True)):
        turn = f"t{number}"
        events = [user(turn, id=turn), *(agent(turn) for _ in range(size - 1))]
        if batched:
            await service.append_events(KEY, events)
        else:
            for event in events:
                await service.append_event(KEY, event)
        assert len(await service.get_events(KEY, limit=1000)) == length


IDS = ["a", "b", 'q"', "back\\", 'both\\"', "é😀", "u" * 40]
IDS += ['","author":"user"', '","invocation_id":"a', '","timestamp":"']


def anything(chance: random.Random, number: int) -> Event:
    """An event that is hard to read without reading all of it."""
    turn = chance.choice(["", chance.choice(IDS), f"t{number // 7}", f"t{number // 90}"])
    own = turn and chance.random() < 0.1
    contents: list[Content] = [
        "words",
        [Text('","author":"user"'), ToolCall("c", "t", {"invocation_id": "a"})],
        [ToolResult("c", {"author": "user", "invocation_id": "a"})],
    ]
    return Event(
        id=f"{turn}" if own else f"{chance.choice(IDS)}{number}",
        author=chance.choice(["user", "agent", "user", "user\\", 'user"', *IDS]),
        invocation_id=turn,
        content=chance.choice(contents),
        metadata=chance.choice([{}, {"x": "y", "invocation_id": "a"}]),
    )


@pytest.mark.parametrize("limit", [1, 2, 5, 17, 150])
def test_all_backends_trim_the_same(limit: int, redis_url: str) -> None:
    """Event by event and in batches, whatever stands in their ids and authors."""

    async def drill() -> None:
        chance = random.Random(limit)
        async with AsyncExitStack() as stack:
            subjects: list[Subject] = [MemorySubject(), SQLiteSubject(), RedisSubject(redis_url)]
            services = []
            for subject in subjects:
                await stack.enter_async_context(subject)
                services.append(subject.service(event_limit=limit))
            for service in services:
                await service.create_session(KEY)
            number = 0
            for _ in range(250):
                batch = []
                for _ in range(chance.choice([1, 1, 1, 2, 7, 40])):
                    number += 1
                    batch.append(anything(chance, number))
                logs = []
                for service in services:
                    await service.append_events(KEY, batch)
                    logs.append(await service.get_events(KEY, limit=1000))
                assert logs[0] == logs[1] == logs[2]
                least = min(number, limit) - min(limit // 2, TRIM_LOOK)
                assert least <= len(logs[0]) <= limit

    asyncio.run(drill())
