"""What is measured; each function returns the rows of a table."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import redis.asyncio

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.codec import decode_event, encode_event
from benchmarks.contestants.floor import Wire, packed
from benchmarks.following.processes import Process, listening, writing
from benchmarks.following.writer import APP, text
from benchmarks.server import Server

__all__ = [
    "Pace",
    "Row",
    "appends_beside_another_version",
    "appends_while_followed",
    "idle_subscriptions",
    "many_subscriptions",
    "ways",
]

Row: TypeAlias = tuple[str, ...]
_Names: TypeAlias = list[list[str]]

# Between two messages, in seconds: long enough for the one before to have arrived.
_REST = 0.002
# Between two appends of a caller that rests: long enough for a hundred to have read the one before.
_PAUSE = 0.01
_CROWD = 64
_IDLE = 1_000


class Pace:
    """How long it may take.

    Args:
        quick: A tenth of the time.
    """

    def __init__(self, *, quick: bool) -> None:
        self.rounds = 5 if quick else 21
        self.seconds = 0.05 if quick else 0.25
        self.messages = 200 if quick else 3_000
        self.many = 500 if quick else 5_000


def _of_one_user(user: str, number: int) -> _Names:
    return [[user, f"{user} {each}"] for each in range(number)]


def _of_many_users(user: str, number: int) -> _Names:
    return [[f"{user} {each}", "session"] for each in range(number)]


async def _make(service: RedisSessionService, names: _Names) -> None:
    for user, session in names:
        await service.create_session(SessionKey(APP, user, session))


def _service(server: Server) -> RedisSessionService:
    return RedisSessionService.from_url(server.url(0), session_event_limit=None)


def _ratios(figures: Sequence[float], by: Sequence[float]) -> str:
    """Tell the median of the rounds' ratios, and between which half of them are."""
    each = [one / other for one, other in zip(figures, by, strict=True)]
    low, middle, high = statistics.quantiles(each, n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def _microseconds(seconds: Iterable[float]) -> str:
    return f"{statistics.median(seconds) * 1e6:,.0f}"


# -- appends


class _Rounds:
    """Figures of appends, by what was so while they were made.

    Args:
        server: Where.
        seconds: How long a round takes.
    """

    def __init__(self, server: Server, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self._times: dict[str, list[float]] = defaultdict(list)
        # What the server's processor took in all for each append, and the scripts.
        self._costs: dict[str, list[float]] = defaultdict(list)
        self._scripts: dict[str, list[float]] = defaultdict(list)

    async def measure(
        self, writer: Process, what: str, sessions: _Names, *, rest: float = 0.0
    ) -> None:
        """Let the writer append, and note what an append took."""
        await asyncio.to_thread(self._server.begin)
        figures = await writer.ask(do="append", sessions=sessions, seconds=self._seconds, rest=rest)
        elapsed, number = figures["elapsed"], figures["number"]
        usage = await asyncio.to_thread(self._server.end, elapsed)
        self._times[what].append(figures["p50"] if len(sessions) == 1 else elapsed / number)
        self._costs[what].append(usage.cpu * elapsed / number)
        self._scripts[what].append(usage.script_time)

    def rows(self, against: Callable[[str], str], *, scripts: bool = False) -> Iterable[Row]:
        """Yield a row for each, compared with what it is *against*.

        Where nobody reads meanwhile, the *scripts* are those of the appends.
        """
        for what, times in self._times.items():
            other = against(what)
            row = (
                what,
                _microseconds(times),
                _ratios(times, self._times[other]),
                _microseconds(self._costs[what]),
            )
            yield (*row, _ratios(self._scripts[what], self._scripts[other])) if scripts else row


async def appends_while_followed(server: Server, pace: Pace) -> list[Row]:
    """Measure appends with nobody, one and a hundred following, in another process."""
    rounds = _Rounds(server, pace.seconds)
    one, others = _of_one_user("written", 1), _of_one_user("written", 101)[1:]
    strangers, crowd = _of_many_users("stranger", 100), _of_many_users("crowd", _CROWD)
    followed: dict[str, _Names] = {
        "nobody follows": [],
        "1 follows": one,
        "100 follow it": one * 100,
        "100 follow others of the user": others,
        "100 follow other users'": strangers,
    }
    # By what is in each name: who is written to, and how long each caller rests.
    ways = {
        "1 caller, resting: ": (one, _PAUSE, followed),
        "1 caller: ": (one, 0.0, followed),
        f"{_CROWD} callers: ": (crowd, 0.0, {"nobody follows": [], "1 follows each": crowd}),
    }
    async with (
        _service(server) as service,
        writing(server.url(0)) as writer,
        listening(server.url(0)) as listener,
    ):
        await _make(service, [*one, *others, *strangers, *crowd])
        for _ in range(pace.rounds):
            for way, (sessions, rest, following) in ways.items():
                for what, names in following.items():
                    await listener.ask(do="follow", sessions=names)
                    await rounds.measure(writer, way + what, sessions, rest=rest)
                    await listener.ask(do="unfollow")
    return [*rounds.rows(lambda what: f"{what.partition(': ')[0]}: nobody follows")]


async def appends_beside_another_version(server: Server, pace: Pace, base: Path) -> list[Row]:
    """Measure appends of this version and of another one, by turns; nobody follows."""
    rounds = _Rounds(server, pace.seconds)
    async with (
        _service(server) as service,
        writing(server.url(0), base) as before,
        writing(server.url(0)) as now,
    ):
        crowd = _of_many_users("base", _CROWD)
        await _make(service, crowd)
        for number in range(3 * pace.rounds):
            for callers in (1, _CROWD):
                turns = [
                    (f"{callers:2} callers, before", before),
                    (f"{callers:2} callers, now", now),
                ]
                for what, writer in turns if number % 2 else reversed(turns):
                    await rounds.measure(writer, what, crowd[:callers])
    return sorted(rounds.rows(lambda what: what.replace("now", "before"), scripts=True))


# -- the way of a message


async def ways(server: Server, pace: Pace) -> list[Row]:
    """Measure how long it takes from one process to another: what is appended, and bare messages.

    ``the append's message`` is the one that has its event, heard by a bare connection.
    """
    sent: dict[str, list[int]] = defaultdict(list)
    answered: dict[str, list[int]] = defaultdict(list)
    payload = encode_event(Event(author="agent", content=text()))
    place = server.url(0).removeprefix("redis://").partition("/")[0].partition(":")
    loop = asyncio.get_running_loop()
    async with (
        _service(server) as service,
        redis.asyncio.Redis.from_url(server.url(0)) as client,
        listening(server.url(0)) as listener,
    ):
        followed, heard = SessionKey(APP, "followed", "s"), SessionKey(APP, "heard", "s")
        for key in (followed, heard):
            await service.create_session(key)
        _, wire = await loop.create_connection(Wire, place[0], int(place[2]))
        publish = packed("PUBLISH", "bare", payload)
        await listener.ask(do="follow", sessions=[["followed", "s"]])
        await listener.ask(do="listen", how="bare", channel="bare")
        await listener.ask(do="listen", how="redis-py", channel="redis-py")
        await listener.ask(do="listen", how="told", channel=f"sessions:{{{APP}:heard}}")

        def append(key: SessionKey) -> Awaitable[object]:
            return service.append_event(key, Event(author="agent", content=text()))

        senders: dict[str, Callable[[], Awaitable[Any]]] = {
            "follow": lambda: append(followed),
            "told": lambda: append(heard),
            "bare": lambda: wire.call(publish),
            "redis-py": lambda: client.publish("redis-py", payload),
        }
        for number in range(-50, pace.messages):
            if number == 0:
                await listener.ask(do="arrivals")
                sent.clear()
                answered.clear()
            for how in random.sample([*senders], k=len(senders)):
                sent[how].append(time.perf_counter_ns())
                await senders[how]()
                answered[how].append(time.perf_counter_ns())
                await asyncio.sleep(_REST)
        arrived = await listener.ask(do="arrivals")
        wire.close()
    times = {
        how: [(end - begin) / 1e9 for begin, end in zip(sent[how], arrived[how], strict=True)]
        for how in senders
    }
    replies = {
        how: [(end - begin) / 1e9 for begin, end in zip(sent[how], answered[how], strict=True)]
        for how in senders
    }
    names = {
        "bare": "PUBLISH, bare hiredis",
        "redis-py": "PUBLISH, redis-py's pubsub",
        "told": "the append's message, bare hiredis",
        "follow": "append to a subscription",
    }
    rows = [
        (name, *_way(times[how], times["bare"]), _microseconds(replies[how]))
        for how, name in names.items()
    ]
    return [*rows, ("decoding such an event", _decoding(payload), "", "", "", "")]


def _way(times: list[float], bare: list[float]) -> Iterable[str]:
    for quantile in (49, 98):
        own, other = (statistics.quantiles(each, n=100)[quantile] for each in (times, bare))
        yield f"{own * 1e6:,.0f}"
        yield f"{own / other:.2f}"


def _decoding(payload: bytes) -> str:
    times: list[float] = []
    for _ in range(1_000):
        before = time.perf_counter()
        decode_event(payload)
        times.append(time.perf_counter() - before)
    return f"{statistics.median(times) * 1e6:,.1f}"


# -- many subscriptions


async def idle_subscriptions(server: Server, pace: Pace) -> list[Row]:
    """Measure what subscriptions take that nothing happens to."""
    rows: list[Row] = []
    kinds = {
        "one user's": _of_one_user("idle", _IDLE),
        "each of another user": _of_many_users("idle", _IDLE),
        "each of another user ": _of_many_users("more", pace.many),
    }
    for what, names in kinds.items():
        number = len(names)
        async with _service(server) as service:
            await _make(service, names)
        async with listening(server.url(0)) as listener:
            await listener.ask(do="follow", sessions=names[:10])
            connections, of_server = await asyncio.to_thread(_seen_by, server)
            of_client = (await listener.ask(do="memory"))["bytes"]
            opened = await listener.ask(do="follow", sessions=names)
            more, now = await asyncio.to_thread(_seen_by, server)
            grown = (await listener.ask(do="memory"))["bytes"] - of_client
        rows.append(
            (
                f"{number:,}, {what}",
                f"{more} (of 10: {connections})",
                f"{grown / number:,.0f}",
                f"{(now - of_server) / number:,.0f}",
                f"{opened['seconds'] / number * 1e6:,.0f}",
            )
        )
    return rows


def _seen_by(server: Server) -> tuple[int, int]:
    """Return how many connections a server has beside this one, and how much memory it uses."""
    with redis.Redis.from_url(server.url(0)) as client:
        connections = [each for each in client.client_list() if each["addr"] != _own(client)]
    return len(connections), server.memory()


def _own(client: redis.Redis) -> str:
    return str(client.client_info()["addr"])


async def many_subscriptions(server: Server, pace: Pace) -> list[Row]:
    """Measure appends with very many subscriptions open, by their process and by another one."""
    rounds = _Rounds(server, pace.seconds)
    names = _of_many_users("many", pace.many)
    one = _of_one_user("alone", 1)
    async with (
        _service(server) as service,
        writing(server.url(0)) as writer,
        listening(server.url(0)) as listener,
    ):
        await _make(service, [*names, *one])
        for number in range(pace.rounds // 2):
            for count in (0, pace.many) if number % 2 else (pace.many, 0):
                await listener.ask(do="follow", sessions=names[:count])
                for who, process in {"another process": writer, "their process": listener}.items():
                    what = f"{count:,} open, append by {who}"
                    await rounds.measure(process, what, one)
                await listener.ask(do="unfollow")
    return sorted(rounds.rows(lambda what: what.replace(f"{pace.many:,}", "0")))
