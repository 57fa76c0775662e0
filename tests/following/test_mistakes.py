"""Followers that are used in a wrong way, or end in the middle of what they do."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from agentsession import Event, RedisSessionService, SessionKey, SessionService
from agentsession.errors import ClosedError, EventLoopError
from agentsession.subscriptions import Subscription, UserSubscription
from agentsession.testing import Subject
from harness.proxy import proxied

SOON = 10.0


def say(words: str) -> Event:
    return Event(author="user", content=words)


async def filled(service: SessionService, key: SessionKey, number: int = 3) -> None:
    await service.create_session(key)
    await service.append_events(key, [say(f"{n}") for n in range(1, number + 1)])


async def seqs(items: Subscription, number: int) -> list[int]:
    async with asyncio.timeout(SOON):
        return [getattr(await anext(items), "seq", 0) for _ in range(number)]


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not fact():
            await asyncio.sleep(0.001)


async def test_two_tasks_cannot_share_one(subject: Subject) -> None:
    """The second one is refused while the first one waits, which gets what comes."""
    service, other = subject.service(), subject.service()
    await filled(service, subject.key)
    async with other.subscribe(subject.key, after_seq=3) as items:
        waiting = asyncio.ensure_future(seqs(items, 1))
        await until(lambda: items._bell is not None)  # type: ignore[attr-defined]  # to look on
        with pytest.raises(RuntimeError, match="another task"):
            await anext(items)
        await service.append_event(subject.key, say("4"))
        assert await waiting == [4]
    async with other.subscribe_user(subject.user) as news:
        await anext(news)
        waiting_for_news = asyncio.ensure_future(anext(news))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(news)
        await service.append_event(subject.key, say("5"))
        async with asyncio.timeout(SOON):
            await waiting_for_news


async def test_two_tasks_do_not_read_at_once(valkey_url: str) -> None:
    """The second one is refused while the first one reads, and nothing comes twice."""
    key = SessionKey("app", "reading", "session")
    async with (
        proxied(valkey_url) as proxy,
        RedisSessionService.from_url(proxy.url, max_read_size=None) as service,
    ):
        await filled(service, key, 150)  # More than it reads at once.
        async with service.subscribe(key) as items:
            taken = await seqs(items, 100)
            proxy.freeze()
            reading = asyncio.ensure_future(seqs(items, 50))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task"):
                await anext(items)
            proxy.thaw()
            assert taken + await reading == [*range(1, 151)]
        await service.delete_session(key)


Make = Callable[[SessionService, Subject], "Subscription | UserSubscription"]
KINDS: dict[str, Make] = {
    "session": lambda service, subject: service.subscribe(subject.key),
    "user": lambda service, subject: service.subscribe_user(subject.user),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
async def test_it_is_entered_once_before_it_is_iterated_over(subject: Subject, kind: str) -> None:
    """Each mistake says what to do."""
    service = subject.service()
    await filled(service, subject.key)
    items = KINDS[kind](service, subject)
    with pytest.raises(RuntimeError, match="async with"):
        await anext(items)
    async with items:
        with pytest.raises(RuntimeError, match="used once"):
            await items.__aenter__()
        await anext(items)
    with pytest.raises(StopAsyncIteration):
        await anext(items)
    with pytest.raises(RuntimeError, match="used once"):
        await items.__aenter__()


@each_kind
async def test_it_is_not_entered_once_the_service_is_closed(subject: Subject, kind: str) -> None:
    """Though it was made before."""
    service, other = subject.service(), subject.service()
    await filled(service, subject.key)
    items = KINDS[kind](other, subject)
    await other.aclose()
    with pytest.raises(ClosedError):
        await items.__aenter__()


def in_a_thread(work: Callable[[], Coroutine[Any, Any, None]]) -> BaseException | None:
    """Run it on a loop of its own, and return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as exc:  # noqa: BLE001 - it is returned
            raised.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


@each_kind
async def test_it_is_of_one_loop(subject: Subject, kind: str) -> None:
    """It is entered and iterated over on the loop of its service."""
    service = subject.service()
    await filled(service, subject.key)
    items = KINDS[kind](service, subject)

    async def enter() -> None:
        await items.__aenter__()

    async def take() -> None:
        async with asyncio.timeout(1):
            await anext(items)

    assert isinstance(in_a_thread(enter), EventLoopError)
    items = KINDS[kind](service, subject)
    async with items:
        assert isinstance(in_a_thread(take), EventLoopError)
        await anext(items)


@each_kind
async def test_it_is_of_one_process(subject: Subject, kind: str) -> None:
    """A child that was forked neither enters it nor iterates over it."""
    service = subject.service()
    await filled(service, subject.key)
    entered, fresh = KINDS[kind](service, subject), KINDS[kind](service, subject)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    async def look() -> None:
        for call in (fresh.__aenter__(), entered.__anext__()):
            try:
                async with asyncio.timeout(1):
                    await call
            except EventLoopError as exc:
                answers.put(str(exc))
            except BaseException as exc:  # noqa: BLE001 - it is reported
                answers.put(f"wrong: {exc!r}")
            else:
                answers.put("wrong: it went through")

    def child() -> None:
        asyncio._set_running_loop(None)  # As a child of a program without a loop has none.
        asyncio.run(look())

    async with entered:
        process = context.Process(target=child)
        process.start()
        process.join(SOON)
        told = [answers.get(), answers.get()]
        assert all("fork" in each for each in told), told
        await anext(entered)


async def test_what_is_read_when_it_is_closed_is_dropped(valkey_url: str) -> None:
    """Iterating ends at once, though the server does not answer."""
    key = SessionKey("app", "closing", "session")
    async with proxied(valkey_url) as proxy, RedisSessionService.from_url(proxy.url) as service:
        for end in ("subscription", "service"):
            await filled(service, key, 150)
            follower = RedisSessionService.from_url(proxy.url, timeout=3, max_read_size=None)
            async with follower.subscribe(key) as items:
                await seqs(items, 100)
                proxy.freeze()
                reading = asyncio.ensure_future(anext(items))
                await asyncio.sleep(0.05)
                closing = asyncio.ensure_future(
                    (items if end == "subscription" else follower).aclose()
                )
                with pytest.raises(StopAsyncIteration if end == "subscription" else ClosedError):
                    async with asyncio.timeout(1):
                        await reading
                proxy.thaw()
                await closing
                assert items.position == 100
            await follower.aclose()
            await service.delete_session(key)


async def test_closing_it_while_it_is_entered(subject: Subject) -> None:
    """Nobody listens afterwards, and there is nothing to iterate over."""
    service, other = subject.service(), subject.service()
    await filled(service, subject.key)
    items = other.subscribe(subject.key)
    entering = asyncio.ensure_future(items.__aenter__())
    await asyncio.sleep(0)
    await items.aclose()
    with suppress(RuntimeError):
        await entering
    with pytest.raises(StopAsyncIteration):
        await anext(items)
    assert not other._following.open
