"""Events that a follower is told: when it takes them, and when only the log tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from agentsession import Event, SessionKey, SessionService
from agentsession._service import chunks, following
from agentsession.backend import News
from agentsession.codec import encode_event
from agentsession.redis._operations.following import _read
from agentsession.subscriptions import Ended, Rewound, Subscription
from agentsession.testing import Subject
from agentsession.testing._checks.asserting import swapped
from harness.subjects import RedisSubject

SOON = 20.0
# What is in the log next, and what is told in its place.
REAL, FORGED = "real", "forged"
WRITTEN = News("session", "written")
MADE = News("session", "made")


def say(words: str, **fields: Any) -> Event:
    return Event(author="user", content=words, **fields)


class Ear:
    """A follower of a session with one event, which is told what a test wants.

    Attributes:
        items: The subscription.
        service: Its, by which the test writes too; the follower is told nothing of it.
        tell: Tells it.
        reads: Of each read of its log since it began, after which event.
        may_read: Whether such reads return.
    """

    def __init__(self, service: SessionService, key: SessionKey, items: Subscription) -> None:
        self.service = service
        self.key = key
        self.items = items
        self.tell: Callable[[News | None], None]
        self.reads: list[str] = []
        self.may_read = asyncio.Event()
        self.may_read.set()

    def forged(
        self, *words: str, at: int = 2, incarnation: str = "", events: tuple[bytes, ...] = ()
    ) -> News:
        """Return news of events that no log holds."""
        return News(
            "session",
            "events",
            incarnation=incarnation or self.items.incarnation,
            first_seq=at,
            events=events or tuple(encode_event(say(each)) for each in words or [FORGED]),
        )

    async def write(self, words: str = REAL) -> Event:
        return await self.service.append_event(self.key, say(words))

    async def take(self) -> str | object:
        """Return the words of the next item, or what else it is."""
        async with asyncio.timeout(SOON):
            item = await anext(self.items)
        return item.text if isinstance(item, Event) else item


@asynccontextmanager
async def listening(service: SessionService, key: SessionKey) -> AsyncIterator[Ear]:
    await service.create_session(key)
    ear = Ear(service, key, service.subscribe(key))
    read = service.backend.read

    @contextmanager
    def follow(_: SessionKey, on_news: Callable[[News | None], None]) -> Iterator[None]:
        ear.tell = on_news
        yield

    async def noted(*args: Any, **options: Any) -> object:
        if "after_id" in options:
            ear.reads.append(options["after_id"])
        found = await read(*args, **options)
        await ear.may_read.wait()
        return found

    await service.append_event(key, say("first"))
    with swapped(service.backend, "follow", follow):
        async with ear.items:
            assert await ear.take() == "first"
            with swapped(service.backend, "read", noted):
                yield ear


@pytest.fixture
async def ear(subject: Subject) -> AsyncIterator[Ear]:
    async with listening(subject.service(), subject.key) as made:
        yield made


async def test_they_are_handed_out_in_their_order(ear: Ear) -> None:
    """With their positions, and without a read; also where the word about the write is lost."""
    ear.tell(WRITTEN)
    ear.tell(ear.forged("a", "b"))
    ear.tell(WRITTEN)
    ear.tell(ear.forged("c", at=4))
    ear.tell(ear.forged("d", at=5))
    assert [await ear.take() for _ in "abcd"] == ["a", "b", "c", "d"]
    assert ear.items.position == 5
    assert ear.reads == []


async def test_whoever_waits_is_given_them(ear: Ear) -> None:
    """At once, and when a turn has ended by them too."""
    for at, what in enumerate((WRITTEN, News("session", "ended", "run")), 2):
        waiting = asyncio.ensure_future(ear.take())
        await asyncio.sleep(0)
        ear.tell(what)
        ear.tell(ear.forged(at=at))
        assert await waiting == FORGED
    assert ear.reads == []


@pytest.mark.parametrize(
    "told",
    [
        [None],
        [None, WRITTEN],
        [WRITTEN, None],
        [WRITTEN, WRITTEN],
        [MADE],
        [News("session", "deleted"), MADE],
    ],
    ids=lambda told: " ".join(each.what if each else "lost" for each in told),
)
async def test_what_else_was_told_is_looked_at(ear: Ear, told: list[News | None]) -> None:
    """To be told of events is not as good as that look."""
    await ear.write()
    for each in told:
        ear.tell(each)
    ear.tell(ear.forged())
    assert await ear.take() == REAL
    assert len(ear.reads) == 1


@pytest.mark.parametrize("fields", [{"at": 1}, {"at": 3}, {"incarnation": "another"}], ids=repr)
async def test_those_that_do_not_come_next_are_not_taken(ear: Ear, fields: dict[str, Any]) -> None:
    """Neither late ones, nor any after a gap, nor those of another session."""
    await ear.write()
    ear.tell(WRITTEN)
    ear.tell(ear.forged(**fields))
    assert await ear.take() == REAL
    assert len(ear.reads) == 1


@pytest.mark.parametrize("told", [[], [WRITTEN]], ids=len)
async def test_a_look_that_is_due_is_taken(ear: Ear, told: list[News]) -> None:
    """The timer's demands a read, whatever is told in the same step."""
    waiting = asyncio.ensure_future(ear.take())
    await asyncio.sleep(0)
    await ear.write()
    for each in told:
        ear.tell(each)
    ear.items._look()  # type: ignore[attr-defined]  # as its timer does
    ear.tell(ear.forged())
    assert await waiting == REAL


async def test_the_log_is_looked_at_where_news_never_stop(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as where there are none, since it may be another log by now."""
    monkeypatch.setattr(following, "_LONGEST_WAIT", 0.01)
    async with listening(subject.service(), subject.key) as ear:
        await ear.write()
        await asyncio.sleep(0.02)
        ear.tell(WRITTEN)
        ear.tell(ear.forged())
        assert await ear.take() == REAL


@pytest.mark.parametrize("told", [[], [WRITTEN], [WRITTEN, WRITTEN]], ids=len)
async def test_none_are_taken_amid_a_read(ear: Ear, told: list[News]) -> None:
    """The read may find the same ones."""
    await ear.write()
    ear.may_read.clear()
    ear.tell(WRITTEN)
    waiting = asyncio.ensure_future(ear.take())
    await asyncio.sleep(0.05)
    for each in told:
        ear.tell(each)
    ear.tell(ear.forged())
    ear.may_read.set()
    assert await waiting == REAL
    # Of what was written meanwhile nobody knows whether that read has found it.
    if told:
        await ear.write("last")
    ear.tell(ear.forged(at=3))
    assert await ear.take() == ("last" if told else FORGED)


@pytest.mark.parametrize("end", ["deleted", "replaced", "expired"])
async def test_nothing_is_handed_out_after_the_end(subject: Subject, end: str) -> None:
    """Not even what was told before, and nobody has taken."""
    service = subject.service(session_ttl=50)
    async with listening(service, subject.key) as ear:
        ear.tell(WRITTEN)
        ear.tell(ear.forged())
        if end == "expired":
            await subject.advance(100)
            ear.tell(None)
        else:
            await service.delete_session(subject.key)
            ear.tell(News("session", "deleted"))
        if end == "replaced":
            await service.create_session(subject.key)
            ear.tell(MADE)
        ear.tell(ear.forged(at=3))
        assert await ear.take() == Ended(end)  # type: ignore[arg-type]  # one of these
        assert [each async for each in ear.items] == []


@pytest.mark.parametrize("others", [1, 2])
async def test_the_next_read_goes_on_from_them(ear: Ear, others: int) -> None:
    """By the id of the last one, so that another log is noticed."""
    ear.tell(WRITTEN)
    event = say(FORGED)
    ear.tell(ear.forged(events=(encode_event(event),)))
    assert await ear.take() == FORGED
    for _ in range(others):
        await ear.write()
    ear.tell(None)
    assert await ear.take() == Ended("replaced")
    assert ear.reads == [event.id]


@pytest.mark.parametrize("bound", ["number", "bytes"])
async def test_what_waits_for_a_slow_reader_is_bounded(
    ear: Ear, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads from the log then, and is told on once it has."""
    limits = {"number": ("_MOST_WAITING", 10), "bytes": ("_MOST_BYTES", 10 * 1000)}
    monkeypatch.setattr(chunks, *limits[bound])
    for n in range(2, 27):
        event = await ear.write(f"{n}" + "x" * 900)
        ear.tell(WRITTEN)
        ear.tell(ear.forged(at=n, events=(encode_event(event),)))
        assert len(ear.items._told) < 12  # type: ignore[attr-defined]  # to look on
        assert ear.items._told.size < 12_000  # type: ignore[attr-defined]
    assert ear.items._told.size == 0  # type: ignore[attr-defined]
    for n in range(2, 27):
        assert str(await ear.take()).rstrip("x") == f"{n}"
    assert len(ear.reads) == 1
    ear.tell(WRITTEN)
    ear.tell(ear.forged(at=27))
    assert await ear.take() == FORGED


async def test_more_at_once_than_may_wait_are_read(
    ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them is taken from the news."""
    monkeypatch.setattr(chunks, "_MOST_WAITING", 2)
    stored = [await ear.write(f"{n}") for n in range(3)]
    ear.tell(WRITTEN)
    ear.tell(ear.forged(events=tuple(map(encode_event, stored))))
    assert [await ear.take() for _ in range(3)] == ["0", "1", "2"]
    assert len(ear.reads) == 1


async def test_one_that_cannot_be_read_is_looked_up(ear: Ear) -> None:
    """The log tells what is there, and those before it are handed out."""
    two, _ = await ear.write("2"), await ear.write("3")
    ear.tell(WRITTEN)
    ear.tell(ear.forged(events=(encode_event(two), b"{", encode_event(say(FORGED)))))
    assert [await ear.take() for _ in range(2)] == ["2", "3"]


async def test_the_mark_of_a_rewind_is_looked_up(ear: Ear) -> None:
    """So it is told as every other follower is told of it."""
    await ear.service.rewind(ear.key, to_seq=0)
    log = await ear.service.get_events(ear.key, raw=True)
    ear.tell(WRITTEN)
    ear.tell(ear.forged(events=(encode_event(log[1]),)))
    assert await ear.take() == Rewound(2, 0, restores_state=True)
    assert len(ear.reads) == 1


async def test_no_chunk_comes_after_the_event_that_was_told(ear: Ear) -> None:
    """Of its stream, that is."""

    def chunk(stream_id: str) -> News:
        event = say(stream_id, partial=True, stream_id=stream_id)
        return News(
            "session", "chunk", chunk=b"%b 1 %b" % (stream_id.encode(), encode_event(event))
        )

    ear.tell(WRITTEN)
    ear.tell(ear.forged(events=(encode_event(say("whole", stream_id="one")),)))
    for each in ("one", "two"):
        ear.tell(chunk(each))
    assert [await ear.take() for _ in range(2)] == ["whole", "two"]


# -- on a server


@pytest.fixture
async def redis_subject(redis_url: str) -> AsyncIterator[RedisSubject]:
    async with RedisSubject(redis_url) as fresh:
        yield fresh


async def test_who_has_all_before_reads_nothing(redis_subject: RedisSubject) -> None:
    """Of one event, of several, of those of a turn; but of a large one."""
    service, other = redis_subject.service(), redis_subject.service()
    key = redis_subject.key
    await service.create_session(key)
    reads = 0
    read = other.backend.read

    async def counted(*args: Any, **options: Any) -> object:
        nonlocal reads
        reads += 1
        return await read(*args, **options)

    async def given(wanted: Awaitable[list[Event]]) -> None:
        stored = await wanted
        async with asyncio.timeout(SOON):
            assert [await anext(items) for _ in stored] == stored

    async with other.subscribe(key) as items:
        await given(service.append_events(key, [say("x")]))
        settling = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0.1)  # It has looked at all that there was before it was told.
        settling.cancel()
        with swapped(other.backend, "read", counted):
            for n in range(20):
                await given(service.append_events(key, [say(f"{n}", state_delta={"n": n})]))
            await given(service.append_events(key, [say(f"{n}") for n in range(20)]))
            async with service.lease(key) as lease:
                last = say("end", outcome="completed")
                await given(service.append_events(key, [say("a"), last], lease=lease))
            # A message may come in two pieces, between which it begins to read.
            assert reads < 3
            reads = 0
            await given(service.append_events(key, [say("x" * 20_000)]))
            assert reads > 0


async def test_what_is_told_of_an_append(redis_subject: RedisSubject) -> None:
    """Events only after the short message, if all are new, no mark, and at most 16 KiB together."""
    service, key = redis_subject.service(), redis_subject.key
    session = await service.create_session(key)
    async with redis_subject.client.pubsub() as pubsub:
        await pubsub.subscribe(f"{redis_subject.prefix}sessions:{{app:user}}")
        await pubsub.get_message(timeout=SOON)

        async def told(written: Awaitable[object]) -> list[News | None]:
            await written
            await redis_subject.client.publish(f"{redis_subject.prefix}sessions:{{app:user}}", "")
            news: list[News | None] = []
            while True:
                message = await pubsub.get_message(timeout=SOON)
                assert message is not None
                if not message["data"]:
                    return news
                assert message["data"].startswith(b"7 session")
                news.append(_read("session", message["data"].removeprefix(b"7 session")))

        def events(first_seq: int, *stored: Event) -> News:
            payloads = tuple(map(encode_event, stored))
            return News(
                "session",
                "events",
                incarnation=session.incarnation,
                first_seq=first_seq,
                events=payloads,
            )

        one, two, three = (say(f"é\n {n}", state_delta={"n": n}) for n in range(3))
        assert await told(service.append_event(key, one)) == [WRITTEN, events(1, one)]
        assert await told(service.append_events(key, [two, three])) == [
            WRITTEN,
            events(2, two, three),
        ]
        assert await told(service.append_event(key, two)) == []
        assert await told(service.append_events(key, [two, say("new")])) == [WRITTEN]
        assert await told(service.update_session_state(key, {"a": 1})) == [WRITTEN]
        assert await told(service.append_events(key, [say("x")], rewind_to=2)) == [WRITTEN]
        rest = len(encode_event(say("x"))) - 1
        most = [say("x" * (8192 - rest)) for _ in range(2)]
        assert await told(service.append_events(key, most)) == [WRITTEN, events(7, *most)]
        over = [say("x" * (8193 - rest)), say("x" * (8192 - rest))]
        assert await told(service.append_events(key, over)) == [WRITTEN]
        async with service.lease(key, run_id="run") as lease:
            last = say("end", outcome="completed", invocation_id="run")
            assert await told(service.append_event(key, last, lease=lease)) == [
                News("session", "began", "run"),
                News("session", "ended", "run"),
                events(11, last),
            ]


async def test_an_append_that_nobody_follows_tells_once(redis_subject: RedisSubject) -> None:
    """The server is not given the events a second time."""
    service, key = redis_subject.service(), redis_subject.key
    await service.create_session(key)

    async def number() -> int:
        return int((await redis_subject.client.info("commandstats"))["cmdstat_publish"]["calls"])

    before = await number()
    await service.append_event(key, say("x"))
    assert await number() == before + 1


@pytest.mark.parametrize(
    "words",
    [
        b"events",
        b"events a",
        b"events a 1",
        b"events a b 1 x",
        b"events a 1 2 x",
        b"events a 1 x",
        b"events a 1 0 0 23",
        b"events a 1 -3 x",
        b"events a 1 " + b"9" * 5000 + b" x",
        b"events a " + b"9" * 5000 + b" 1 x",
    ],
)
def test_events_that_are_told_otherwise_are_not_read(words: bytes) -> None:
    """A later version may; whoever is told so looks at the log."""
    assert _read("session", words) is None


def test_payloads_may_hold_any_bytes() -> None:
    """Each is as long as is told before it."""
    words = b"events a 7 3 1 x0 4 \n\0 \xff"
    news = News(
        "session", "events", incarnation="a", first_seq=7, events=(b"1 x", b"", b"\n\0 \xff")
    )
    assert _read("session", words) == news
