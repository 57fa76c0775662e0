"""The floor: the same calls as ours, sent by as little Python as can send them.

An ``asyncio.Protocol`` on hiredis' parser, which writes what has gathered and knows nothing of
deadlines, lost connections, cancellation or what is in an event. What it sends is learnt from
:class:`~agentsession.redis._backend.RedisBackend`, whose call is recorded and then repeated with
another id.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import hiredis

from agentsession.backend import Entry, Window
from agentsession.codec import encode_event
from agentsession.events import Event
from agentsession.redis._backend import RedisBackend
from agentsession.redis._links.inbox import Inbox
from agentsession.redis._links.link import Link, Rest, Room
from agentsession.redis._scripts import Argument, Script
from agentsession.sessions import SessionKey
from benchmarks.cases import Case, Setup
from benchmarks.contestants.ours import OnServer
from benchmarks.driver import APP, LAST, USER, Contestant, NotMeasuredError, main
from benchmarks.messages import Message, words

_BASELINE = b"""
local revision = redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('HSET', KEYS[1], 'updated', ARGV[1])
redis.call('ZADD', KEYS[2], revision, ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -ARGV[3] - 1)
return revision
"""


# In microseconds, some time in the year 2255: the floor's calls are never early, and never late.
_NEVER = "9000000000000000"

# Makes a member as long as our event of 200 letters.
_FILLING = b"x" * 286


def packed(*said: str | int | bytes) -> bytes:
    """Return a command as it is sent."""
    return bytes(hiredis.pack_command(said))  # type: ignore[arg-type]  # typed for one word


class Wire(asyncio.Protocol):
    """A pipelined connection."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._gathered: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            waiting = self._waiting.popleft()
            if isinstance(reply, hiredis.ReplyError):
                waiting.set_exception(reply)
            else:
                waiting.set_result(reply)

    def call(self, packed: bytes) -> asyncio.Future[Any]:
        """Send a command with those of other callers in this turn of the loop."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._waiting:
            # Nobody to wait for: a lone caller's command goes at once.
            self._transport.write(packed)
        else:
            if not self._gathered:
                self._loop.call_soon(self._flush)
            self._gathered.append(packed)
        self._waiting.append(future)
        return future

    def _flush(self) -> None:
        self._transport.write(b"".join(self._gathered))
        self._gathered.clear()

    def close(self) -> None:
        """Close the socket."""
        self._transport.close()


class Recorder(Link):
    """Keeps what it is asked to run."""

    spans_slots = True

    def __init__(self) -> None:
        self.script: Script
        self.words: list[Any] = []

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        *,
        room: Room | None = None,  # noqa: ARG002 - nothing is sent
        rest: Rest | None = None,  # noqa: ARG002
    ) -> list[Any]:
        self.script = script
        times = (_NEVER, _NEVER) if script.writes else ()
        self.words = [len(keys), *keys, "0", *times, *args]
        raise _RecordedError

    @property
    def crowded(self) -> bool:
        return False

    @property
    def inbox(self) -> Inbox:
        raise NotImplementedError

    @property
    def layout(self) -> object:
        return None

    async def room(self, *, in_steps: bool = False) -> Room:
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing to let go of."""


class _RecordedError(Exception):
    pass


class Floor(Contestant):
    """Sends recorded calls."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._ours = OnServer(setup, url)
        self._wire: Wire | None = None
        self._recorder = Recorder()
        self._backend = RedisBackend(self._ours.service.backend.retention, self._recorder)
        self._serial = itertools.count()
        self._appends: dict[str, Callable[[bytes], bytes]] = {}
        self._gets: dict[str, bytes] = {}

    @classmethod
    def check(cls, case: Case) -> None:
        if case.operation not in {"append", "get", "baseline"} or case.batch > 1:
            msg = "sends single appends and reads only"
            raise NotMeasuredError(msg)

    async def seed(self, sessions: Sequence[str]) -> None:
        if self._wire is None:
            self._wire = await self._connected()
        await self._ours.seed(sessions)
        self._baseline = await self._load(_BASELINE)
        await self._seed_baseline(sessions)
        event = Event(author="user", content=words(self.setup.size).text, id="0" * 32)
        entry = Entry(event.id, 1, encode_event(event))
        for session in sessions:
            key = SessionKey(APP, USER, session)
            await self._record(self._backend.append(key, [entry]))
            self._appends[session] = await self._template(entry)
            await self._record(self._backend.get(key, Window(last=LAST)))
            sha = await self._load(self._recorder.script.text.encode())
            self._gets[session] = packed("EVALSHA", sha, *self._recorder.words)

    async def _seed_baseline(self, sessions: Sequence[str]) -> None:
        """Fill the sorted sets of the baseline, where they are to be trimmed."""
        assert self._wire is not None
        if self.setup.limit:
            scored: list[Any] = []
            for number in range(self.setup.history):
                scored += (number, b"%032d" % number + _FILLING)
            for session in sessions:
                key = f"least:{session}"
                await self._wire.call(packed("HSET", key, "revision", self.setup.history))
                await self._wire.call(packed("ZADD", f"{key}:events", *scored))

    async def _connected(self) -> Wire:
        address = urlsplit(self.url)
        assert address.hostname is not None
        assert address.port is not None
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(Wire, address.hostname, address.port)
        await wire.call(packed("SELECT", address.path.lstrip("/")))
        return wire

    async def _load(self, text: bytes) -> bytes:
        assert self._wire is not None
        sha: bytes = await self._wire.call(packed(b"SCRIPT", b"LOAD", text))
        return sha

    async def _record(self, call: Any) -> None:
        try:
            await call
        except _RecordedError:
            return

    async def _template(self, entry: Entry) -> Callable[[bytes], bytes]:
        """Make what packs the recorded call with another id."""
        sha = await self._load(self._recorder.script.text.encode())
        call = packed("EVALSHA", sha, *self._recorder.words)
        placeholder = entry.event_id.encode()
        return lambda event_id: call.replace(placeholder, event_id)

    async def append(self, session: str, messages: Sequence[Message]) -> None:  # noqa: ARG002
        assert self._wire is not None
        event_id = b"%032x" % (next(self._serial) + 1)
        reply = await self._wire.call(self._appends[session](event_id))
        assert reply[1] == b"ok"

    async def get_last(self, session: str) -> int:
        assert self._wire is not None
        reply = await self._wire.call(self._gets[session])
        return 0 if reply[1] == b"missing" else LAST

    async def baseline(self, session: str) -> None:
        assert self._wire is not None
        serial = b"%032x" % next(self._serial)
        await self._wire.call(
            packed(
                b"EVALSHA",
                self._baseline,
                2,
                f"least:{session}",
                f"least:{session}:events",
                1_700_000_000_000_000,
                serial + _FILLING,
                self.setup.limit,
            )
        )

    async def aclose(self) -> None:
        await self._ours.aclose()
        if self._wire is not None:
            self._wire.close()


if __name__ == "__main__":
    main({"server": Floor})
