"""Following: promise 13. Each stored event once and in order, or a word about what is missing."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import msgspec

from agentsession.backend import Expected, News
from agentsession.codec import decode_event, encode_event
from agentsession.errors import ClosedError, RewindError, SessionNotFoundError
from agentsession.events import Event
from agentsession.sessions import SessionKey
from agentsession.subscriptions import Ended, Missed, Rewound, SessionNews, Trimmed
from agentsession.testing._checks.asserting import raises, said, say, swapped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from agentsession.backend import EventSlice
    from agentsession.service import SessionService
    from agentsession.subscriptions import Followed, Subscription, UserSubscription
    from agentsession.testing._subject import Subject

_T = TypeVar("_T")

# In seconds: what does not come by then never will.
_PATIENCE = 30.0
_SOON = 20.0


async def _take(items: AsyncIterator[_T], number: int) -> list[_T]:
    """Take so many items, which must come."""
    async with asyncio.timeout(_PATIENCE):
        return [await anext(items) for _ in range(number)]


async def _until_quiet(service: SessionService, items: Subscription) -> list[Followed]:
    """Take what comes up to the newest event of the log."""
    newest = (await service.get_events(items.key, limit=1, newest_first=True, raw=True))[0].seq
    taken: list[Followed] = []
    while items.position < newest:
        taken += await _take(items, 1)
    return taken


def _words(items: list[Followed]) -> list[object]:
    """Return the words of whole events, those of chunks with a mark, and signals as they are."""
    return [
        (f"~{item.text}" if item.partial else item.text) if isinstance(item, Event) else item
        for item in items
    ]


def _chunk_of(stream_id: str, words: str) -> Event:
    return Event(author="agent", content=words, partial=True, stream_id=stream_id)


def _is_chunk(item: Followed) -> bool:
    return isinstance(item, Event) and item.partial


async def check_what_is_stored_comes_before_what_is_new(subject: Subject) -> None:
    """Without a gap between the two, from another process too, and with the events as stored."""
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    stored = await service.append_events(subject.key, [say(str(n)) for n in range(250)])
    async with other.subscribe(subject.key) as items:
        stored += [await service.append_event(subject.key, say(str(n))) for n in range(250, 260)]
        stored += await service.append_events(subject.key, [say("260"), say("261")])
        assert await _take(items, len(stored)) == stored
        assert items.position == stored[-1].seq
        waiting = asyncio.ensure_future(_take(items, 1))
        await asyncio.sleep(0)
        stored.append(await service.append_event(subject.key, say("last")))
        assert await waiting == stored[-1:]


async def check_a_position_says_where_to_begin(subject: Subject) -> None:
    """Only what comes after it is given; a follower's own position is one to go on from."""
    service = subject.service()
    await service.create_session(subject.key)
    for n in range(1, 6):
        await service.append_event(subject.key, say(str(n)))
    async with service.subscribe(subject.key, after_seq=3) as items:
        assert items.position == 3
        assert _words(await _take(items, 1)) == ["4"]
        assert items.position == 4
    async with service.subscribe(subject.key, after_seq=items.position) as items:
        assert _words(await _take(items, 1)) == ["5"]
    session = await service.get_session(subject.key)
    assert session is not None
    async with service.subscribe(session, after_seq=session.last_seq) as items:
        assert items.incarnation == session.incarnation
        await service.append_event(subject.key, say("6"))
        assert _words(await _take(items, 1)) == ["6"]


async def check_a_rewind_is_told_in_its_turn(subject: Subject) -> None:
    """Every follower has the same: what was taken back, then that it was, then what came after."""
    service = subject.service()
    await service.create_session(subject.key)
    async with service.subscribe(subject.key) as early:
        for n in range(1, 4):
            await service.append_event(subject.key, say(str(n)))
        await service.rewind(subject.key, to_seq=1)
        await service.append_events(subject.key, [say("5")], rewind_to=0, restore_state=False)
        expected = ["1", "2", "3", Rewound(4, 1, True), Rewound(5, 0, False), "5"]  # noqa: FBT003 - as its fields are
        assert _words(await _take(early, 6)) == expected
        assert early.position == 6
    async with service.subscribe(subject.key) as late:
        assert _words(await _take(late, 6)) == expected
    async with service.subscribe(subject.key, after_seq=2) as later:
        assert _words(await _take(later, 4)) == expected[2:]


async def check_what_was_trimmed_is_told(subject: Subject) -> None:
    """With the oldest position that is left; who asks for all that there is misses nothing."""
    service = subject.service(event_limit=3)
    await service.create_session(subject.key)
    for n in range(1, 9):
        await service.append_event(subject.key, say(str(n)))
    async with service.subscribe(subject.key, after_seq=2) as items:
        assert _words(await _take(items, 4)) == [Trimmed(6), "6", "7", "8"]
        for n in range(9, 14):
            await service.append_event(subject.key, say(str(n)))
        taken = _words(await _until_quiet(service, items))
        assert taken[-3:] == ["11", "12", "13"]
        # It may have been told of the others themselves, or of one, before they were trimmed.
        assert taken[:-3] in ([Trimmed(11)], ["9", Trimmed(11)], ["9", "10"])
    async with service.subscribe(subject.key) as items:
        assert _words(await _take(items, 3)) == ["11", "12", "13"]
    async with service.subscribe(subject.key, after_seq=0) as items:
        assert _words(await _take(items, 1)) == [Trimmed(11)]
        assert items.position == 10


async def check_the_end_of_a_session_is_told(subject: Subject) -> None:
    """It is deleted, by itself or with its user; iterating ends, and the next one is another."""
    service, other = subject.service(), subject.service()
    for erase in ("session", "user"):
        await service.create_session(subject.key)
        await service.append_event(subject.key, say("1"))
        async with other.subscribe(subject.key) as items:
            assert _words(await _take(items, 1)) == ["1"]
            if erase == "session":
                await service.delete_session(subject.key)
            else:
                await service.delete_user(subject.user)
            assert await _take(items, 1) == [Ended("deleted")]
            assert [item async for item in items] == []


async def check_an_expiry_is_told(subject: Subject) -> None:
    """Following does not keep a session alive, not even where reading does."""
    for refresh in (False, True):
        service = subject.service(session_ttl=1, refresh_ttl_on_read=refresh)
        key = subject.another_key()
        await service.create_session(key)
        await service.append_event(key, say("1"))
        async with service.subscribe(key) as items:
            assert _words(await _take(items, 1)) == ["1"]
            await subject.advance(2)
            assert await _take(items, 1) == [Ended("expired")]
    service = subject.service(session_ttl=100, refresh_ttl_on_read=True)
    key = subject.another_key()
    await service.create_session(key)
    await subject.advance(60)
    async with service.subscribe(key):
        pass
    await subject.advance(60)
    assert await service.get_session(key) is None


async def check_another_life_is_told(subject: Subject) -> None:
    """Who followed a session does not read on in the one that has its id now."""
    service = subject.service()
    old = await service.create_session(subject.key)
    await service.append_events(subject.key, [say("1"), say("2")])
    async with service.subscribe(subject.key, after_seq=2) as items:
        # In one step of the loop, as far as the follower can see.
        await service.delete_session(subject.key)
        await service.create_session(subject.key)
        await service.append_events(subject.key, [say("a"), say("b"), say("c")])
        assert (await _take(items, 1))[0] in (Ended("replaced"), Ended("deleted"))
    with raises(SessionNotFoundError) as raised:
        async with service.subscribe(old, after_seq=2):
            pass
    assert raised.error.replaced
    async with service.subscribe(subject.key, after_seq=4) as items:
        assert await _take(items, 1) == [Ended("replaced")]


async def check_another_log_is_told(subject: Subject) -> None:
    """A read may say which event it goes on from, and is refused where the log has another one."""
    service = subject.service(event_limit=3)
    await service.create_session(subject.key)
    first, second, third = await service.append_events(subject.key, [say("1"), say("2"), say("3")])

    async def seqs(after_seq: int, after_id: str) -> list[int]:
        found = await service.backend.read(
            subject.key,
            after_seq=after_seq,
            after_id=after_id,
            before_seq=None,
            limit=10,
            newest_first=False,
            raw=True,
        )
        return [*found.seqs]

    assert await seqs(1, first.id) == [2, 3]
    assert await seqs(3, third.id) == []
    for after_seq, after_id in ((1, second.id), (3, first.id), (2, "unknown")):
        with raises(SessionNotFoundError) as raised:
            await seqs(after_seq, after_id)
        assert raised.error.replaced
    await service.append_events(subject.key, [say("4"), say("5")])
    assert await seqs(2, second.id) == [3, 4, 5]


async def check_waiting_that_is_cancelled_costs_nothing(subject: Subject) -> None:
    """Whoever asks for the next item and is cancelled, also amid a read, misses none."""
    service = subject.service()
    await service.create_session(subject.key)
    stored = await service.append_events(subject.key, [say(str(n)) for n in range(450)])
    taken: list[Followed] = []
    # Sooner than a follower looks for itself.
    async with asyncio.timeout(_SOON), service.subscribe(subject.key) as items:
        while len(taken) < len(stored) - 1:
            waiting = asyncio.ensure_future(_take(items, 1))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                taken += await waiting
            taken += await _take(items, 1)
        taken += await _take(items, len(stored) - len(taken))
    assert taken == stored


async def check_a_missing_session_is_not_followed(subject: Subject) -> None:
    """Nobody waits for a session that may never be."""
    service = subject.service()
    with raises(SessionNotFoundError):
        async with service.subscribe(subject.key):
            pass


async def check_chunks_are_handed_on_and_not_stored(subject: Subject) -> None:
    """From any process; those of a stream end with its whole event. Who wants none has none."""
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)

    async with (
        other.subscribe(subject.key) as items,
        other.subscribe(subject.key, partial=False) as whole,
    ):
        # It is told from now on; of what was written by now it may be told late.
        await service.append_event(subject.key, say("1"))
        assert _words(await _take(items, 1)) == ["1"]
        for stream in ("s1", "s2"):
            for words in ("Hel", "lo"):
                given = _chunk_of(stream, words)
                assert await service.append_event(subject.key, given) is given
                assert await _take(items, 1) == [given]
            await service.append_event(
                subject.key, Event(author="agent", content=f"Hello {stream}", stream_id=stream)
            )
            assert _words(await _take(items, 1)) == [f"Hello {stream}"]
        await service.append_event(subject.key, _chunk_of("s1", "late"))
        last = _chunk_of("s3", "new")
        await service.append_event(subject.key, last)
        assert await _take(items, 1) == [last]
        assert _words(await _take(whole, 3)) == ["1", "Hello s1", "Hello s2"]
        assert items.position == whole.position == 3
    assert said(await service.get_events(subject.key)) == ["1", "Hello s1", "Hello s2"]


async def check_no_chunk_comes_twice_or_too_late(subject: Subject) -> None:
    """Not if a store tells of it twice, nor after the event that took its place, tied or not."""
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    async with other.subscribe(subject.key) as prompt, other.subscribe(subject.key) as slow:
        await service.append_event(subject.key, say("1"))
        assert _words(await _take(prompt, 1)) == _words(await _take(slow, 1)) == ["1"]
        # Two may have one id: that of the event which they become, for example.
        chunks = [Event(author="agent", content=words, partial=True, id="same") for words in "ab"]
        told = [b"x %d %b" % (n, encode_event(chunk)) for n, chunk in enumerate(chunks, 1)]
        for each in (told[0], told[0], told[1]):
            assert await service.backend.tell(subject.key, each)
        assert await _take(prompt, 2) == chunks
        await service.append_event(subject.key, Event(author="agent", content="ab"))
        assert _words(await _take(prompt, 1)) == ["ab"]
        last = Event(author="agent", content="c", partial=True)
        await service.append_event(subject.key, last)
        assert await _take(prompt, 1) == [last]
        assert _words(await _take(slow, 2)) == ["ab", "~c"]


async def check_who_comes_late_to_a_stream_catches_up(subject: Subject) -> None:
    """By a chunk that has all which was said before, from another process too."""
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    said_so_far = ""

    async def until_it_is_all_there(items: Subscription) -> None:
        nonlocal said_so_far
        held = ""
        waiting = asyncio.ensure_future(anext(items))
        async with asyncio.timeout(_PATIENCE):
            while held != said_so_far or not held:
                said_so_far += f"{len(said_so_far)} "
                words = said_so_far.split(" ")[-2] + " "
                await service.append_event(subject.key, _chunk_of("stream", words))
                while (await asyncio.wait({waiting}, timeout=0.02))[0]:
                    chunk = waiting.result()
                    assert isinstance(chunk, Event)
                    held = chunk.text if chunk.snapshot else held + chunk.text
                    assert said_so_far.startswith(held)
                    waiting = asyncio.ensure_future(anext(items))
        waiting.cancel()
        await asyncio.wait({waiting})

    for words in ("0 ", "2 "):
        said_so_far += words
        await service.append_event(subject.key, _chunk_of("stream", words))
    async with other.subscribe(subject.key) as first:
        await until_it_is_all_there(first)
        async with subject.service().subscribe(subject.key) as second:
            await until_it_is_all_there(second)
        whole = Event(author="agent", content=said_so_far, stream_id="stream")
        await service.append_event(subject.key, whole)
        assert [item for item in await _until_quiet(service, first) if not _is_chunk(item)] == [
            msgspec.structs.replace(whole, seq=1)
        ]


async def check_no_chunk_comes_after_one_that_is_missing(subject: Subject) -> None:
    """Until one comes that has it all; streams beside it are not held up."""
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    async with other.subscribe(subject.key) as items:
        await service.append_event(subject.key, say("1"))
        assert _words(await _take(items, 1)) == ["1"]
        chunks = {n: _chunk_of("s", words) for n, words in enumerate("abcdef", 1)}
        chunks[5] = msgspec.structs.replace(_chunk_of("s", "abcde"), snapshot=True)
        beside = _chunk_of("beside", "x")
        # The second one is lost, and that which makes up for it comes twice.
        for told in (b"s 1", b"s 3", b"s 4", b"beside 1", b"s 5", b"s 5", b"s 4", b"s 6"):
            name, _, number = told.partition(b" ")
            chunk = chunks[int(number)] if name == b"s" else beside
            assert await service.backend.tell(subject.key, told + b" " + encode_event(chunk))
        assert await _take(items, 4) == [chunks[1], beside, chunks[5], chunks[6]]


async def check_a_follower_that_stands_still_holds_up_nobody(subject: Subject) -> None:
    """Writers go on, little waits for it in memory, and it reads on from the log later."""
    service, other = subject.service(event_limit=None), subject.service(event_limit=None)
    await service.create_session(subject.key)
    async with other.subscribe(subject.key) as items:
        for start in range(0, 3000, 100):
            batch = [say(str(n)) for n in range(start, start + 100)]
            await service.append_events(subject.key, batch)
            for _ in range(40):
                await service.append_event(
                    subject.key, Event(author="agent", content="x", partial=True)
                )
        taken = [each for each in await _until_quiet(service, items) if isinstance(each, Event)]
        assert said(each for each in taken if not each.partial) == [str(n) for n in range(3000)]


async def check_all_followers_have_the_same(subject: Subject) -> None:
    """With many writers, and rewinds among them: the log as it is stored, whenever they came."""
    services = [subject.service(event_limit=None) for _ in range(3)]
    await services[0].create_session(subject.key)
    choice = random.Random(7)  # noqa: S311 - no secret

    async def write(service: SessionService, name: str) -> None:
        for n in range(40):
            last = await service.append_event(subject.key, say(f"{name}{n}"))
            if choice.random() < 0.2:
                with suppress(RewindError):  # Another one has taken it back before.
                    await service.append_events(
                        subject.key,
                        [say(f"{name}{n}'")],
                        rewind_to=choice.randrange(max(0, last.seq - 5), last.seq),
                    )

    followers: list[Subscription] = []
    async with AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as writers:
            for number, service in enumerate(services):
                writers.create_task(write(service, f"{number}a-"))
                writers.create_task(write(service, f"{number}b-"))
            for service in [*services, *services]:
                await asyncio.sleep(0)
                followers.append(await stack.enter_async_context(service.subscribe(subject.key)))
        log = await services[0].get_events(subject.key, raw=True, limit=1000)
        assert any(each.rewind is not None for each in log)
        for follower in followers:
            taken = await _until_quiet(services[0], follower)
            assert [getattr(each, "seq", None) for each in taken] == [each.seq for each in log]
            whole = [each for each in taken if isinstance(each, Event)]
            assert whole == [each for each in log if each.rewind is None]


async def check_events_are_told_as_they_are_stored(subject: Subject) -> None:
    """If they are told at all: whole appends, with their positions, right after each was told."""
    service, other = subject.service(), subject.service()
    key = subject.key
    session = await service.create_session(key)
    told: list[News | None] = []
    async with other.subscribe(key) as items:
        # It is told from now on; of what was written by now it may be told late.
        first = await service.append_event(key, say("1"))
        assert await _take(items, 1) == [first]
        with other.backend.follow(key, told.append):
            await service.append_event(key, say("é\u2028", {"a": 1, "user:b": 2}))
            batch = [say(f"{n}", {"n": n}) for n in range(20)]
            await service.append_events(key, batch)
            await service.append_events(key, [*batch, say("one that is new")])
            await service.append_event(key, first)
            await service.rewind(key, to_seq=5)
            await service.append_events(key, [say("other")], rewind_to=2)
            await service.append_events(key, [say("x" * 5_000) for _ in range(5)])
            await service.append_event(key, say("x" * 200_000))
            async with service.lease(key) as lease:
                await service.append_event(key, say("in a turn"), lease=lease)
                last = Event(author="agent", content="its end", outcome="completed")
                await service.append_event(key, last, lease=lease)
            found = await _log(service, key)
            await service.delete_session(key)
            async with asyncio.timeout(_PATIENCE):
                assert [item async for item in items][-1] == Ended("deleted")
    newest = 0
    for before, news in pairwise([News(key.session_id, "written"), *told]):
        if news is not None and news.what == "events":
            assert before is not None
            assert before.what in {"written", "ended"}
            assert news.incarnation == session.incarnation
            assert news.first_seq > newest
            newest = news.first_seq + len(news.events) - 1
            assert [*news.events] == found.events[news.first_seq - 1 : newest]


async def _log(service: SessionService, key: SessionKey, after_seq: int = 0) -> EventSlice:
    """Read what a log holds."""
    return await service.backend.read(
        key, after_seq=after_seq, before_seq=None, limit=1000, newest_first=False, raw=True
    )


async def check_news_that_go_astray_open_no_gap(subject: Subject) -> None:
    """Whichever are lost, come twice, late or in another order, and if they tell of events."""
    for seed in range(2):
        told = _Told(subject.service(event_limit=20), subject.another_key(), seed)
        async with asyncio.timeout(_PATIENCE):
            taken = await told.follow()
        at = 0
        for item in taken:
            if isinstance(item, Trimmed):
                assert item.oldest_seq > at + 1
                at = item.oldest_seq - 1
            else:
                assert item == told.log[at]
                at += 1
        assert at == len(told.log)


class _Told:
    """A follower that is told other news than its backend tells.

    Args:
        service: Its.
        key: A session that is not there yet.
        seed: Of all choices.

    Attributes:
        log: Everything that was appended, as it is to be handed out.
    """

    def __init__(self, service: SessionService, key: SessionKey, seed: int) -> None:
        self.log: list[Followed] = []
        self._service = service
        self._key = key
        self._choice = random.Random(seed)  # noqa: S311 - no secret
        # What may still be told, and all that there was.
        self._news: list[News] = []
        self._all_news: list[News] = []
        self._reads = asyncio.Event()

    async def follow(self) -> list[Followed]:
        """Write, and tell of it as badly as may be; return what the follower was given."""
        ears: list[Callable[[News | None], None]] = []

        @contextmanager
        def follow(_: SessionKey, on_news: Callable[[News | None], None]) -> Generator[None]:
            ears.append(on_news)
            yield

        await self._service.create_session(self._key)
        with swapped(self._service.backend, "follow", follow):
            async with (
                self._service.subscribe(self._key, after_seq=0) as items,
                asyncio.TaskGroup() as group,
            ):
                reader = group.create_task(self._read(items))
                for _ in range(100):
                    await self._write()
                    await self._tell(ears[0])
                self._reads.set()
                await self._append(say("end"))
                ears[0](None)  # As is told where news may have been lost.
        return reader.result()

    async def _read(self, items: Subscription) -> list[Followed]:
        taken: list[Followed] = []
        async for item in items:
            taken.append(item)
            if isinstance(item, Event) and item.text == "end":
                break
            await self._reads.wait()
        return taken

    async def _write(self) -> None:
        kind = self._choice.random()
        if kind < 0.1:
            await self._service.update_session_state(self._key, {"a": kind})
            self._news.append(News(self._key.session_id, "written"))
        elif kind < 0.2 and self.log:
            with suppress(RewindError):  # It may be taken back already.
                back = len(self.log) - self._choice.randrange(1, 5)
                await self._append(say("after a rewind"), rewind_to=max(back, 0))
        else:
            await self._append(*(say(f"{n}") for n in range(self._choice.randrange(1, 4))))

    async def _append(self, *events: Event, rewind_to: int | None = None) -> None:
        await self._service.append_events(self._key, events, rewind_to=rewind_to)
        found = await _log(self._service, self._key, len(self.log))
        first_seq = len(self.log) + 1
        for event in map(decode_event, found.events, found.seqs):
            rewind = event.rewind
            self.log.append(
                event
                if rewind is None
                else Rewound(event.seq, rewind.to_seq, rewind.restores_state)
            )
        self._news.append(News(self._key.session_id, "written"))
        if self._choice.random() < 0.8:
            told = News(
                self._key.session_id,
                "events",
                incarnation=found.incarnation,
                first_seq=first_seq,
                events=tuple(found.events),
            )
            self._news.append(told)

    async def _tell(self, on_news: Callable[[News | None], None]) -> None:
        """Tell of what was written; in order and all of it, half of the times."""
        choice = self._choice
        self._all_news += self._news[-2:]
        news, self._news = self._news, []
        if choice.random() < 0.5:
            choice.shuffle(news)
            kept = choice.randrange(len(news) + 1)
            news, self._news = news[:kept], news[kept:]
            news = [each for each in news if choice.random() < 0.8]
            news += choice.choices(self._all_news[-10:], k=choice.randrange(2))
        for each in news:
            on_news(each)
            if choice.random() < 0.2:
                await asyncio.sleep(0)
        if choice.random() < 0.05:
            on_news(None)
        if choice.random() < 0.2:
            self._reads.clear()
        else:
            self._reads.set()
        for _ in range(choice.randrange(6)):
            await asyncio.sleep(0)


async def check_a_follower_ends_when_it_is_told_to(subject: Subject) -> None:
    """By its own end, also from another task; the end of the service is an error."""
    service, other = subject.service(), subject.service()
    await service.create_session(subject.key)
    async with service.subscribe(subject.key) as items:
        waiting = asyncio.ensure_future(_take(items, 1))
        await asyncio.sleep(0)
        await items.aclose()
        with raises(StopAsyncIteration):
            await waiting
    async with other.subscribe(subject.key) as items, other.subscribe_user(subject.user) as news:
        waiting = asyncio.ensure_future(_take(items, 1))
        assert await _take(news, 1) == [Missed()]
        await asyncio.sleep(0)
        await other.aclose()
        for ended in (waiting, _take(items, 1), _take(news, 1)):
            with raises(ClosedError):
                await ended


async def check_a_users_sessions_are_followed(subject: Subject) -> None:
    """What happens to them in any process is told; what happens to others' is not."""
    service, other = subject.service(), subject.service()
    stranger = SessionKey(subject.user.app_name, "stranger", "session")
    key, copy = subject.key, subject.another_key()
    async with other.subscribe_user(subject.user) as news:
        assert await _take(news, 1) == [Missed()]
        await _until_told(subject, service, news)
        await service.create_session(stranger)
        await service.create_session(key)
        await service.update_session_state(key, {"a": 1})
        await service.delete_session(copy)  # Which is not there, so that nothing happens.
        async with service.lease(key, run_id="run 1") as lease:
            await service.append_event(key, say("1"), lease=lease)
            # Nor where nothing was left to close: as when a call that closes is repeated.
            expected = Expected(lease=lease.owner)
            await service.backend.append(key, (), expected=expected, then="close")
            last = Event(author="agent", content="2", outcome="completed")
            await service.append_event(key, last, lease=lease)
        async with service.lease(key, run_id="run 2"):
            pass
        await service.fork(key, copy)
        await service.delete_session(key)
        await service.delete_user(subject.user)
        assert await _take(news, 10) == [
            SessionNews(key, "created"),
            SessionNews(key, "written"),
            SessionNews(key, "run_began", "run 1"),
            SessionNews(key, "written"),
            SessionNews(key, "run_ended", "run 1"),
            SessionNews(key, "run_began", "run 2"),
            SessionNews(key, "run_ended", "run 2"),
            SessionNews(copy, "created"),
            SessionNews(key, "deleted"),
            SessionNews(copy, "deleted"),
        ]


async def _until_told(subject: Subject, service: SessionService, news: UserSubscription) -> None:
    """Wait until a follower of a user is told of all: a server may begin with it a moment later."""

    async def make() -> SessionNews:
        marker = subject.another_key()
        await service.create_session(marker)
        await service.delete_session(marker)
        return SessionNews(marker, "deleted")

    waiting = asyncio.ensure_future(_take(news, 1))
    while not waiting.done():
        await make()
    last = await make()
    while await _take(news, 1) != [last]:
        pass
