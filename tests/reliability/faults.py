"""What befalls a site while workers work on it: each fault ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeAlias

from harness.proxy import Proxy
from harness.servers import Server
from reliability.site import Site, admin

Fault: TypeAlias = Callable[[Site, Random], Awaitable[None]]

# How long something hangs: from a hiccup to longer than a hasty service waits.
_SHORTEST, _LONGEST = 0.01, 0.4


def _server(site: Site, random: Random) -> Server:
    return random.choice(site.servers)


def _proxy(site: Site, random: Random) -> Proxy:
    return random.choice(site.proxies)


async def _a_while(random: Random) -> None:
    await asyncio.sleep(random.uniform(_SHORTEST, _LONGEST))


async def client_kill(site: Site, random: Random) -> None:
    """The server closes all connections."""
    async with admin(_server(site, random)) as client:
        await client.client_kill_filter(_type="normal", skipme=True)


async def client_pause(site: Site, random: Random) -> None:
    """The server lets everybody wait."""
    async with admin(_server(site, random)) as client:
        await client.client_pause(random.randint(10, 200))


async def script_flush(site: Site, random: Random) -> None:
    """The server forgets all scripts."""
    async with admin(_server(site, random)) as client:
        await client.script_flush()


async def stop_and_continue(site: Site, random: Random) -> None:
    """The server's process is stopped for a while, with its connections open."""
    server = _server(site, random)
    server.freeze()
    await _a_while(random)
    server.thaw()


async def kill_and_restart(site: Site, random: Random) -> None:
    """The server is killed and comes back with what is on disk."""
    server = _server(site, random)
    server.stop()
    await asyncio.to_thread(server.start)


async def freeze(site: Site, random: Random) -> None:
    """The network passes nothing on for a while."""
    proxy = _proxy(site, random)
    proxy.freeze()
    await _a_while(random)
    proxy.thaw()


async def delay(site: Site, random: Random) -> None:
    """The network is slow for a while."""
    proxy = _proxy(site, random)
    proxy.delay = 0.02
    await _a_while(random)
    proxy.delay = 0.0


async def lose_replies(site: Site, random: Random) -> None:
    """Some replies in a row are lost, each with its connection."""
    _proxy(site, random).lose_replies = random.randint(1, 4)


async def cut_up(site: Site, random: Random) -> None:
    """A connection breaks in the midst of a command."""
    _proxy(site, random).cut_after(up=random.randint(0, 3000))


async def cut_down(site: Site, random: Random) -> None:
    """A connection breaks in the midst of a reply."""
    _proxy(site, random).cut_after(down=random.randint(0, 3000))


async def arrive_late(site: Site, random: Random) -> None:
    """What clients send costs them the connection, and reaches the server later on.

    Some of it soon, while they try again, and some when all has been answered long ago.
    """
    proxy = _proxy(site, random)
    proxy.lateness = 0.5
    await _a_while(random)
    proxy.lateness = 0.0


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        client_kill,
        client_pause,
        script_flush,
        stop_and_continue,
        kill_and_restart,
        freeze,
        delay,
        lose_replies,
        cut_up,
        cut_down,
        arrive_late,
    )
}
