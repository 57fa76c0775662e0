"""How much memory sessions take on a server: ``python -m benchmarks.sizes``.

It stores sessions of one kind after the other on an empty server of its own, and divides what the
server's ``used_memory`` grew by. So the figures include what the allocator and the server's own
tables add. A last table is what ``MEMORY USAGE`` says of each key of one session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import redis

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.codec import encode_event
from benchmarks.messages import words
from benchmarks.server import Server, running_server

__all__ = ["Kind", "measure"]

_SESSIONS = 20_000
_OF_A_USER = 10
# What the server keeps besides sessions, its script cache above all, is there before we measure.
_WARM = SessionKey("app", "warm", "warm")
_EVENT_TEXTS = (50, 200, 1_000, 4_000, 16_000)
_EVENTS = (10, 100, 1_000)
_VALUE = "x" * 100


@dataclass(frozen=True)
class Kind:
    """What every session of one measurement is like.

    Attributes:
        name: For the table.
        sessions: How many are stored.
        text: Letters in each event.
        events: Events in each session.
        names: Names of state in each session, with 100 letters each.
        ttl: Seconds that each lives.
    """

    name: str
    sessions: int = _SESSIONS
    text: int = 0
    events: int = 0
    names: int = 0
    ttl: int = 0


def _keys(kind: Kind) -> Iterator[SessionKey]:
    """Name the sessions as a service would: ids of 32 digits, ten sessions a user."""
    for number in range(kind.sessions):
        yield SessionKey("app", f"user-{number // _OF_A_USER:06}", f"{number:032x}")


async def _store(url: str, kind: Kind) -> None:
    async with RedisSessionService.from_url(
        url, session_ttl=kind.ttl, session_event_limit=None
    ) as service:
        state = {f"name-{number}": _VALUE for number in range(kind.names)}
        for key in _keys(kind):
            await service.create_session(key, state)
            events = [_event(kind.text) for _ in range(kind.events)]
            if events:
                await service.append_events(key, events)


def _event(letters: int) -> Event:
    return Event(author="agent", invocation_id="0" * 32, content=words(letters).text)


async def _warm(url: str) -> None:
    """Let the server compile the scripts, and grow its tables, before anything is measured."""
    async with RedisSessionService.from_url(url) as service:
        session = await service.create_session(_WARM, {"a": 1})
        await service.append_event(session, _event(10))
        await service.delete_user(_WARM.user)


def measure(server: Server, kind: Kind) -> float:
    """Return the bytes that a session of this kind takes."""
    server.clear(0)
    # Late copies of creations are known by their ids for a minute; that is not what stays.
    asyncio.run(_warm(server.url(0)))
    before = server.memory()
    asyncio.run(_store(server.url(0), kind))
    _forget_calls(server)
    return (server.memory() - before) / kind.sessions


def _forget_calls(server: Server) -> None:
    """Delete what goes by itself a minute after each creation."""
    with redis.Redis.from_url(server.url(0)) as client:
        calls = list(client.scan_iter("usercalls:*", count=1_000))
        if calls:
            client.delete(*calls)


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    first, *rest = rows
    print("|", " | ".join(first), "|")
    print("|---|" + "---:|" * (len(first) - 1))
    for row in rest:
        print("|", " | ".join(row), "|")
    print()


def _session_table(server: Server) -> float:
    kinds = (
        Kind("no events, no state"),
        Kind("the same, and `session_ttl`", ttl=86_400),
        Kind("10 names of state, 100 bytes each", names=10),
        Kind("100 names of state, 100 bytes each", names=100, sessions=2_000),
    )
    figures = [measure(server, kind) for kind in kinds]
    rows = [("a session with", "bytes")]
    rows += [(kind.name, f"{size:,.0f}") for kind, size in zip(kinds, figures, strict=True)]
    _table(rows)
    return figures[0]


def _event_table(server: Server, empty: float) -> None:
    heads = (f"{events:,} events in the log" for events in _EVENTS)
    rows = [("letters in the event", "encoded", *heads)]
    for letters in _EVENT_TEXTS:
        row = [f"{letters:,}", f"{len(encode_event(_event(letters))):,}"]
        for events in _EVENTS:
            sessions = max(10, 30_000_000 // (letters + 300) // events)
            kind = Kind("", sessions=min(sessions, 2_000), text=letters, events=events)
            row.append(f"{(measure(server, kind) - empty) / events:,.0f}")
        rows.append(tuple(row))
    _table(rows)


def _key_table(server: Server) -> None:
    """Look at the keys of one session of the user of which there is one."""
    server.clear(0)
    kind = Kind("", sessions=1, text=200, events=100, names=10)
    asyncio.run(_store(server.url(0), kind))
    rows = [("key", "`MEMORY USAGE`")]
    with redis.Redis.from_url(server.url(0)) as client:
        for key in sorted(client.scan_iter()):
            size = client.memory_usage(key, samples=0)
            rows.append((f"`{key.decode().partition(':')[0]}`", f"{size:,}"))
    _table(rows)


def main() -> None:
    """Measure, and print the tables of the documentation."""
    with running_server() as server:
        print(f"{server.version}\n")
        _event_table(server, _session_table(server))
        _key_table(server)


if __name__ == "__main__":
    main()
