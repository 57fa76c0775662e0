"""Where a run takes place: servers of its own, a proxy before each, and what is kept there."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import redis.asyncio
from msgspec import Struct

from agentsession import Event, RedisSessionService, SessionService, open_service
from harness.proxy import Proxy, proxied, proxied_nodes
from harness.raw import as_bytes, names_in
from harness.servers import Server, cluster, running
from reliability.workers.plan import shared_sessions

PREFIX = "trial:"
TTL = 3600.0
# Every write is on disk before it is acknowledged.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
_PATIENCE = 10.0


class Terms(Struct, frozen=True, kw_only=True):
    """How a service is opened, by every process alike.

    Attributes:
        limit: The most events of a session.
        timeout: Seconds that an operation may take.
    """

    limit: int | None = None
    timeout: float = 20.0

    @property
    def grace(self) -> float:
        """Seconds after its cancellation in which a call may take effect, and a second one step."""
        return 2 * self.timeout + 1

    def open(self, url: str) -> SessionService:
        # A file ignores the prefix.
        return open_service(
            url,
            key_prefix=PREFIX,
            timeout=self.timeout,
            session_event_limit=self.limit,
            session_ttl=TTL,
            user_state_ttl=TTL,
            app_state_ttl=TTL,
        )


class Kept(Struct, kw_only=True):
    """What a server holds.

    Attributes:
        expiries: Every key under the prefix, with the moment at which it expires, in milliseconds
            since the epoch; -1 for never.
        logs: The ids of the events in every key that holds a log, in its order.
        strangers: All other keys with their contents.
    """

    expiries: dict[str, int] = {}
    logs: dict[str, list[str]] = {}
    strangers: dict[str, bytes] = {}


class Site:
    """A server, or the nodes of a cluster, and the proxies through which workers reach it.

    Args:
        servers: One, or the nodes.
        proxies: The proxy of each.
        url: Where workers come.
        aside: Where visitors come, on whom nothing is to befall: around the proxy if there is a
            way.
    """

    def __init__(
        self, servers: Sequence[Server], proxies: Sequence[Proxy], url: str, aside: str
    ) -> None:
        self.servers = list(servers)
        self.proxies = list(proxies)
        self.url = url
        self.aside = aside
        #: What is not the run's, as it was in the beginning.
        self.strangers: dict[str, bytes] = {}

    @property
    def lost_replies(self) -> int:
        return sum(proxy.lost_replies for proxy in self.proxies)

    @property
    def late_arrivals(self) -> int:
        return sum(proxy.late_arrivals for proxy in self.proxies)

    def calm(self) -> None:
        """Let nothing more befall it."""
        for proxy in self.proxies:
            proxy.calm()

    async def begin(self) -> None:
        """Store what is not the run's: the same sessions without the prefix."""
        async with RedisSessionService.from_url(self.aside) as service:
            for key in shared_sessions():
                session = await service.create_session(key, {"a": 1, "user:b": 1, "app:c": 1})
                await service.append_event(session, Event(author="stranger"))
        self.strangers = (await self.look()).strangers

    async def look(self) -> Kept:
        """Read everything that the servers hold, without the library."""
        kept = Kept()
        for server in self.servers:
            async with admin(server) as client:
                names = [name.decode() for name in await names_in(client)]
                own = [name for name in names if name.startswith(PREFIX)]
                for together in _of_one_slot(own):
                    kept.expiries.update(await _expiries(client, together))
                for name in own:
                    if name.startswith(f"{PREFIX}events:"):
                        payloads = map(as_bytes, await client.zrange(name, 0, -1))
                        kept.logs[name] = [json.loads(payload)["id"] for payload in payloads]
                for name in set(names).difference(own):
                    if await client.pttl(name) < 0:  # What is remembered of calls goes by itself.
                        kept.strangers[name] = as_bytes(await client.dump(name))
        return kept

    async def left(self) -> list[str]:
        """Wait until nobody is connected any more, and return those who will not go."""
        deadline = time.monotonic() + _PATIENCE
        return [left for server in self.servers for left in await _connections(server, deadline)]


@asynccontextmanager
async def admin(server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    """A connection that goes around the proxy."""
    async with redis.asyncio.Redis.from_url(server.url) as client:
        yield client


async def _connections(server: Server, deadline: float) -> list[str]:
    async with admin(server) as client:
        own = await client.client_id()
        while True:
            others = [each for each in await client.client_list() if int(each["id"]) != own]
            if not others or time.monotonic() > deadline:
                return [f"left over: connection {each}" for each in others]
            await asyncio.sleep(0.005)


def _of_one_slot(names: list[str]) -> Iterable[list[str]]:
    """Put together the keys that a cluster keeps together."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.partition("{")[2].partition("}")[0]].append(name)
    return groups.values()


async def _expiries(client: redis.asyncio.Redis, names: list[str]) -> dict[str, int]:
    """Read when keys expire, all in one moment: old servers tell only how long they live."""
    async with client.pipeline(transaction=True) as pipe:
        pipe.time()
        for name in names:
            pipe.pttl(name)
        (seconds, microseconds), *lives = await pipe.execute()
    now = seconds * 1000 + microseconds // 1000
    return {
        name: now + left if left >= 0 else left for name, left in zip(names, lives, strict=True)
    }


@asynccontextmanager
async def opened(binary: str, *options: str, seed: int = 0) -> AsyncIterator[Site]:
    """One server."""
    with running(binary, *options) as server:
        async with proxied(server.url, seed=seed) as proxy:
            yield Site([server], [proxy], proxy.url, server.url)


@asynccontextmanager
async def opened_cluster(binary: str, *options: str, seed: int = 0) -> AsyncIterator[Site]:
    """Three nodes, which send clients to the proxies, and are not soon taken for lost."""
    patient = ("--cluster-node-timeout", "2000")
    with cluster(public=False, binary=binary, options=(*options, *patient)) as found:
        async with proxied_nodes(found.nodes, seed=seed) as proxies:
            yield Site(found.nodes, proxies, found.url, found.url)


async def tasks_left(before: set[asyncio.Task[object]]) -> list[str]:
    """Wait until no tasks but those of before are left, and return those that will not end."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        others = asyncio.all_tasks() - before
        if not others or time.monotonic() > deadline:
            return [f"left over: task {each.get_name()}" for each in others]
        await asyncio.sleep(0.005)
