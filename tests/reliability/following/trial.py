"""One run: followers and writers in processes of their own, what befalls them, and the verdict."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from agentsession import RedisSessionService
from harness import servers
from harness.proxy import Proxy, proxied, proxied_nodes
from harness.servers import Node, Server
from reliability.following import followers, writers
from reliability.following.checker import Record, complaints, logged
from reliability.following.place import key_of
from reliability.site import admin

__all__ = ["Place", "Trial", "Verdict", "run"]

Place: TypeAlias = Literal["server", "sentinel", "cluster"]

_TESTS = Path(__file__).parent.parent.parent
# Seconds that a call may take: longer than a failover does.
_TIMEOUT = 15.0
# In seconds, until all have come to the end. Sooner than a follower looks that is told of nothing.
_PATIENCE = 20.0
_PAGE = 1_000
_REOPENING = 0.005
# Which share of its connections a server closes.
_SOME = 0.3
# How long the network stands still, at most, in seconds.
_LONGEST_FREEZE = 0.3


class Trial(Struct, frozen=True, kw_only=True):
    """What a run is like.

    Attributes:
        place: Where: one server, three behind sentinels, or a cluster whose nodes have replicas.
        seed: Decides what befalls it.
        sessions: How many there are.
        followers: How many follow, each one session.
        processes: In how many processes these are, and in how many more the writers.
        writers: How many write, in each of theirs.
        pause: Seconds that each of them rests after a call.
        seconds: How long they write.
        cuts: How often connections are cut, in a second.
        failover: Whether a primary is killed when half of the time is over.
        lag: Seconds in which its replicas get nothing, before.
        timeout: Seconds that a call of a follower may take.
        ack_replicas: How many replicas must have what is acknowledged.
    """

    place: Place
    seed: int = 1
    sessions: int = 50
    followers: int = 200
    processes: tuple[int, int] = (4, 2)
    writers: int = 4
    pause: float = 0.02
    seconds: float = 60.0
    cuts: float = 4.0
    failover: bool = False
    lag: float = 0.0
    timeout: float = _TIMEOUT
    ack_replicas: int = 0

    @property
    def name(self) -> str:
        words = {
            self.place: True,
            "failover": self.failover and not self.lag,
            f"failover after {self.lag} s": self.failover and self.lag,
            "acknowledged": self.ack_replicas,
            "hasty followers": self.timeout < _TIMEOUT,
        }
        return ", ".join(word for word, is_so in words.items() if is_so)


class Verdict(Struct, kw_only=True):
    """What came of a run.

    Attributes:
        trial: The run.
        complaints: Everything that was wrong.
        counts: What was done and what befell it, by name.
    """

    trial: Trial
    complaints: list[str]
    counts: dict[str, int | float]


class _Site:
    """Where it takes place.

    Args:
        servers: All that keep sessions.
        proxies: Before them, if there are any.
        url: Where followers and writers come.
        aside: Where nothing befalls who comes.
        lose_a_primary: Kills one, after its replicas were cut off for so many seconds, and waits
            until another has taken its place.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        proxies: Sequence[Proxy],
        url: str,
        aside: str,
        lose_a_primary: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self.servers = [*servers]
        self.proxies = [*proxies]
        self.url = url
        self.aside = aside
        self.lose_a_primary = lose_a_primary
        self.cuts = 0

    async def cut(self, random: Random) -> None:
        """Cut connections, on the way or at their end."""
        self.cuts += 1
        kind = random.randrange(5 if self.proxies else 1)
        if kind == 0:
            await self._kill_some(random)
            return
        proxy = random.choice(self.proxies)
        match kind:
            case 1:
                proxy.lose_replies = random.randint(1, 3)
            case 2:
                proxy.cut_after(down=random.randint(0, 3000))
            case 3:
                proxy.cut_after(up=random.randint(0, 3000))
            case _:
                proxy.freeze()
                await asyncio.sleep(random.uniform(0, _LONGEST_FREEZE))
                proxy.thaw()

    async def _kill_some(self, random: Random) -> None:
        """Have a server close some connections: of each process some listen, and others call."""
        server = random.choice([each for each in self.servers if each.process is not None])
        async with admin(server) as client:
            own = await client.client_id()
            for each in await client.client_list():
                # Neither a replica, nor a primary, nor who watches all commands.
                is_a_client = int(each["id"]) != own and not set(each["flags"]) & set("SMO")
                if is_a_client and random.random() < _SOME:
                    await client.client_kill_filter(_id=each["id"])


@asynccontextmanager
async def _server(seed: int) -> AsyncIterator[_Site]:
    with servers.running(servers.binaries()["valkey"]) as server:
        async with proxied(server.url, seed=seed) as proxy:
            yield _Site([server], [proxy], proxy.url, server.url)


@asynccontextmanager
async def _sentinel(_: int) -> AsyncIterator[_Site]:
    """Without proxies, since sentinels and replicas would come through them as well."""
    with servers.sentinels() as found:

        async def lose_a_primary(lag: float) -> None:
            old = found.primary()
            await _let_replicas_fall_behind(old, lag)
            old.stop()
            await asyncio.to_thread(servers.eventually, lambda: found.primary() is not old, 30)

        yield _Site(found.servers, [], found.url, found.url, lose_a_primary)


@asynccontextmanager
async def _cluster(seed: int) -> AsyncIterator[_Site]:
    with servers.cluster(replicas=True) as found:
        # Only clients are to come through the proxies: nodes and replicas know each other already.
        for node, port in zip(found.nodes, servers.free_ports(len(found.nodes)), strict=True):
            node.public_port = port
            node.ask("CONFIG", "SET", "cluster-announce-client-port", port)
        public = {node.public_port for node in found.nodes}
        for node in found.nodes:
            servers.eventually(partial(_names, node, public))
        url = servers.Cluster(found.nodes, 3, 0).url
        async with proxied_nodes(found.nodes, seed=seed) as proxies:

            async def lose_a_primary(lag: float) -> None:
                old, heir = found.nodes[0], found.nodes[3]
                await _let_replicas_fall_behind(old, lag)
                old.stop()
                await asyncio.to_thread(servers.eventually, heir.is_primary, 30)
                # As the replica of its heir, without which nothing there could be acknowledged.
                await asyncio.to_thread(old.start)

            yield _Site(found.nodes, proxies, url, url, lose_a_primary)


def _names(node: Node, ports: set[int]) -> bool:
    """Tell whether a node sends clients to these ports only."""
    return all(host[1] in ports for _, _, *hosts in node.ask("CLUSTER", "SLOTS") for host in hosts)


async def _let_replicas_fall_behind(primary: Node, seconds: float) -> None:
    """Let nothing more get to the replicas, which a primary that is lost takes with it."""
    if seconds:
        primary.ask("ACL", "SETUSER", "default", "-psync", "-sync")
        primary.ask("CLIENT", "KILL", "TYPE", "replica")
        await asyncio.sleep(seconds)


_PLACES = {"server": _server, "sentinel": _sentinel, "cluster": _cluster}


async def run(trial: Trial) -> Verdict:
    """Run a trial, on servers of its own."""
    random = Random(trial.seed)
    async with _PLACES[trial.place](trial.seed) as site, AsyncExitStack() as stack:
        async with RedisSessionService.from_url(site.aside, timeout=_TIMEOUT) as service:
            for session in range(trial.sessions):
                await service.create_session(key_of(session))
        following = [
            await stack.enter_async_context(_employed(followers, orders))
            for orders in _followers(trial, site)
        ]
        writing = [
            await stack.enter_async_context(_employed(writers, orders))
            for orders in _writers(trial, site)
        ]
        for process in (*following, *writing):
            assert await process.line() == b"ready\n"
        await _befall(trial, site, random)
        accounts = [await process.rest(writers.Account) for process in writing]
        for proxy in site.proxies:
            proxy.calm()
        logs = await _logs(trial, site)
        begun = time.monotonic()
        ends = {session: log[-1] if log else "" for session, log in logs.items()}
        told = msgspec.json.encode(ends) + b"\n"
        async with asyncio.timeout(_PATIENCE):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each.rest(Record, told)) for each in following]
        caught_up = time.monotonic() - begun
    records = [record for task in tasks for record in task.result()]
    return _verdict(trial, site, logs, records, [each for (each,) in accounts], caught_up)


def _verdict(
    trial: Trial,
    site: _Site,
    logs: dict[int, list[str]],
    records: list[Record],
    accounts: list[writers.Account],
    caught_up: float,
) -> Verdict:
    stored = {session: {each.partition(" ")[2] for each in log} for session, log in logs.items()}
    acknowledged = [
        (session, each)
        for account in accounts
        for session, ids in account.acknowledged.items()
        for each in ids
    ]
    counts: dict[str, int | float] = {
        "events": sum(map(len, logs.values())),
        "rewinds": sum(account.rewinds for account in accounts),
        "repeats": sum(account.repeats for account in accounts),
        "followers": len(records),
        "given": sum(len(record.given) for record in records),
        "cuts": site.cuts,
        "reopened": sum(record.reopened for record in records),
        "unavailable": sum(record.unavailable for record in records),
        "lost by failover": sum(each not in stored[session] for session, each in acknowledged),
        "replaced": sum(record.replaced for record in records),
        "caught up, s": round(caught_up, 1),
    }
    wrong = complaints(records, logs, trial.followers)
    wrong += [f"trimmed: by {each.follower}" for each in records if each.trimmed]
    return Verdict(trial=trial, complaints=wrong, counts=counts)


def _followers(trial: Trial, site: _Site) -> list[followers.Orders]:
    number = trial.processes[0]
    return [
        followers.Orders(
            url=site.url,
            name=f"p{process}",
            sessions=[each % trial.sessions for each in range(process, trial.followers, number)],
            timeout=trial.timeout,
            # By its position alone nobody can tell that a log has lost events and got others.
            reopening=0.0 if trial.failover else _REOPENING,
        )
        for process in range(number)
    ]


def _writers(trial: Trial, site: _Site) -> list[writers.Orders]:
    return [
        writers.Orders(
            url=site.url,
            name=f"{trial.seed}p{process}",
            sessions=trial.sessions,
            writers=trial.writers,
            pause=trial.pause,
            timeout=_TIMEOUT,
            ack_replicas=trial.ack_replicas,
        )
        for process in range(trial.processes[1])
    ]


async def _befall(trial: Trial, site: _Site, random: Random) -> None:
    """Cut connections, and lose a primary, while the others write."""
    begun = time.monotonic()
    is_to_fail = trial.failover
    while (passed := time.monotonic() - begun) < trial.seconds:
        if is_to_fail and passed > trial.seconds / 2:
            assert site.lose_a_primary is not None
            is_to_fail = False
            await site.lose_a_primary(trial.lag)
        await asyncio.sleep(random.expovariate(trial.cuts) if trial.cuts else 0.1)
        if trial.cuts:
            await site.cut(random)


async def _logs(trial: Trial, site: _Site) -> dict[int, list[str]]:
    """Read the raw logs, as followers have to be given them."""
    logs: dict[int, list[str]] = {}
    async with RedisSessionService.from_url(site.aside, timeout=_TIMEOUT) as service:
        for session in range(trial.sessions):
            log = logs[session] = []
            while True:
                found = await service.get_events(
                    key_of(session), after_seq=len(log), limit=_PAGE, raw=True
                )
                log.extend(map(logged, found))
                if len(found) < _PAGE:
                    break
    return logs


class _Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.readline()

    async def rest(self, kind: type[Any], told: bytes = b"") -> list[Any]:
        """Tell it the last that it is told, and read what it prints until it ends."""
        printed, _ = await self._process.communicate(told)
        assert self._process.returncode == 0
        return [msgspec.json.decode(line, type=kind) for line in printed.splitlines()]


@asynccontextmanager
async def _employed(module: Any, orders: Struct) -> AsyncIterator[_Process]:
    paths = (str(_TESTS), os.environ.get("PYTHONPATH", ""))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module.__name__, msgspec.json.encode(orders).decode(),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )  # fmt: skip
    try:
        yield _Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
