"""Ids as an attacker would choose them, and sessions that are made anew all the time."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.backend import Beginning
from agentsession.errors import RewindError
from agentsession.state import NO_CHANGES
from agentsession.subscriptions import Ended, Missed, Rewound, SessionNews, Trimmed
from agentsession.testing import Subject
from harness.files import told
from harness.subjects import RedisSubject

SOON = 30.0
ODD = [
    " ",
    "5 abc",
    "a\nb",
    "{a}",
    "}{",
    "é😀\u2028",
    "%3A:%",
    "\0",
    "1 \x80",
    "*?[a]",
    "x" * 2000,
    "deleted",
]


def say(words: str) -> Event:
    return Event(author="user", content=words)


@pytest.mark.on_both_loops
async def test_odd_ids_are_told_apart(subject: Subject) -> None:
    """Each follower has what is its own session's, chunks and turns too."""
    service, other = subject.service(), subject.service()
    keys = [SessionKey(odd, odd[::-1], session) for odd in ODD[:6] for session in ODD]
    for key in keys:
        await service.create_session(key)
    async with other.subscribe(keys[0]):
        await told(subject)
    for key in keys:
        async with other.subscribe(key) as items, other.subscribe_user(key.user) as news:
            async with asyncio.timeout(SOON):
                assert await anext(news) == Missed()
                stored = await service.append_event(key, say("x"))
                assert await anext(items) == stored
                while await anext(news) != SessionNews(key, "written"):
                    pass
                run_id = key.session_id[:100]
                async with service.lease(key, run_id=run_id):
                    assert await anext(news) == SessionNews(key, "run_began", run_id)
                assert await anext(news) == SessionNews(key, "run_ended", run_id)
                chunk = Event(author="a", content="x", partial=True, stream_id=key.session_id)
                await service.append_event(key, chunk)
                assert await anext(items) == chunk
                await service.delete_session(key)
                assert await anext(items) == Ended("deleted")
                assert await anext(news) == SessionNews(key, "deleted")


@pytest.mark.parametrize("protocol", [2, 3])
async def test_both_protocols_tell(valkey_url: str, protocol: int) -> None:
    """RESP3 marks what is pushed."""
    key = SessionKey("app", f"protocol {protocol}", "session")
    async with RedisSessionService.from_url(
        valkey_url, client_options={"protocol": protocol}, key_prefix="p é:"
    ) as service:
        await service.create_session(key)
        async with service.subscribe(key) as items, asyncio.timeout(SOON):
            await service.append_event(key, say("x"))
            await anext(items)
            chunk = Event(author="a", content="x", partial=True)
            await service.append_event(key, chunk)
            assert await anext(items) == chunk
        await service.delete_session(key)


async def test_lives_do_not_mix(subject: Subject) -> None:
    """A follower has a piece of the log of one life, from its beginning, and then is told."""
    services = [subject.service() for _ in range(3)]
    choice = random.Random(3)
    logs: dict[str, list[str]] = {}
    over = False

    async def live() -> None:
        for life in range(30):
            session = await services[0].create_session(subject.key)
            log = logs[session.incarnation] = []
            for n in range(choice.randrange(8)):
                log.append(f"{life}-{n}")
                await services[choice.randrange(3)].append_event(subject.key, say(log[-1]))
                await asyncio.sleep(0)
            await services[choice.randrange(3)].delete_session(subject.key)
        nonlocal over
        over = True

    async def follow(number: int) -> int:
        service, lives = services[number % 3], 0
        while not over:
            items = service.subscribe(subject.key)
            try:
                await items.__aenter__()
            except LookupError:
                await asyncio.sleep(0)
                continue
            async with asyncio.timeout(SOON):
                taken = [item async for item in items]
            assert isinstance(taken[-1], Ended)
            assert taken[-1].reason in ("deleted", "replaced")
            texts = [item.text for item in taken[:-1] if isinstance(item, Event)]
            assert len(texts) == len(taken) - 1
            assert texts == logs[items.incarnation][: len(texts)]
            lives += 1
        return lives

    async with asyncio.TaskGroup() as group:
        followers = [group.create_task(follow(number)) for number in range(6)]
        group.create_task(live())
    assert any(each.result() for each in followers)


async def test_trimming_while_behind_leaves_no_gap_untold(subject: Subject) -> None:
    """What a slow follower misses is told each time, whatever it has in hand; rewinds too."""
    service = subject.service(event_limit=20, max_event_size=1000, max_read_size=1000)
    choice = random.Random(5)
    await service.create_session(subject.key)
    newest = 0
    async with service.subscribe(subject.key, after_seq=0) as items:
        seen, at = [0], 0
        for _ in range(60):
            for _ in range(choice.randrange(12)):
                if newest > 6 and choice.random() < 0.1:
                    back = newest - choice.randrange(1, 5)
                    with suppress(RewindError):  # It may be taken back already.
                        await service.rewind(subject.key, to_seq=back)
                        newest += 1
                else:
                    newest = (await service.append_event(subject.key, say("x"))).seq
            for _ in range(choice.randrange(12)):
                if at == newest:
                    break
                async with asyncio.timeout(SOON):
                    item = await anext(items)
                if isinstance(item, Trimmed):
                    assert item.oldest_seq > at + 1
                    at = item.oldest_seq - 1
                else:
                    assert isinstance(item, Event | Rewound)
                    assert item.seq == at + 1
                    at = item.seq
                    seen.append(at)
                assert items.position == at
        assert len(seen) > 100


async def test_a_session_that_begins_elsewhere_is_followed(subject: Subject) -> None:
    """All that its log has: what was trimmed before it came here is told to who asks for it."""
    service = subject.service()
    beginning = Beginning(after_seq=7)
    await service.backend.create(subject.key, NO_CHANGES, token="life", beginning=beginning)
    async with (
        service.subscribe(subject.key, after_seq=2) as early,
        service.subscribe(subject.key) as items,
    ):
        assert items.position == 7
        async with asyncio.timeout(SOON):
            assert await anext(early) == Trimmed(8)
            stored = await service.append_event(subject.key, say("8"))
            assert stored.seq == 8
            assert await anext(early) == await anext(items) == stored


async def test_nothing_is_left_behind(subject: Subject) -> None:
    """Neither listeners nor tasks, nor anything on the server, however a follower ends."""
    service = subject.service(session_ttl=100)
    await service.create_session(subject.key)
    await service.append_event(subject.key, say("1"))
    async with service.subscribe(subject.key):  # Which connects, where there is a server.
        pass
    tasks = len(asyncio.all_tasks())
    left = await subject.keys() if isinstance(subject, RedisSubject) else []
    for number in range(50):
        items, news = service.subscribe(subject.key), service.subscribe_user(subject.user)
        entering = asyncio.ensure_future(items.__aenter__())
        for _ in range(number % 5):
            await asyncio.sleep(0)
        entering.cancel()
        await asyncio.wait([entering])
        async with news:
            waiting = asyncio.ensure_future(anext(news))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        await items.aclose()
    await asyncio.sleep(0)
    assert not service._following.open
    assert len(asyncio.all_tasks()) == tasks
    if isinstance(subject, RedisSubject):
        assert await subject.keys() == left
        assert "listeners=0" in repr(service.backend._calls.news)  # type: ignore[attr-defined]
    else:
        assert not service.backend._followers  # type: ignore[attr-defined]


async def test_a_reader_that_is_cancelled_anywhere_loses_nothing(subject: Subject) -> None:
    """Whoever gives up, after any number of steps, and asks again goes on where it was."""
    service, other = subject.service(max_event_size=1000, max_read_size=3000), subject.service()
    await service.create_session(subject.key)
    choice = random.Random(1)
    async with service.subscribe(subject.key) as items:

        async def write() -> None:
            for n in range(300):
                await other.append_event(subject.key, say(f"{n}"))
                if n % 10 == 0:
                    await asyncio.sleep(0.001)

        writing = asyncio.ensure_future(write())
        taken: list[int] = []
        async with asyncio.timeout(SOON):
            while len(taken) < 300:
                reading = asyncio.ensure_future(anext(items))
                # Now and then as many as a read of the log takes.
                for _ in range(choice.randrange(6) if choice.random() < 0.9 else 500):
                    await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait([reading])
                if not reading.cancelled():
                    item = reading.result()
                    assert isinstance(item, Event)
                    taken.append(item.seq)
                elif choice.random() < 0.2:
                    await asyncio.sleep(0.002)
        assert taken == [*range(1, 301)]
        await writing
