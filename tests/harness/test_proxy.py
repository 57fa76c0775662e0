"""The proxy does what it is told, and passes every byte on once and in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from harness.proxy import Hold, Proxy, proxied

WORDS = b"0123456789"


class Echo:
    """A server that sends back what it gets, and remembers it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.got = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A connection that closes before it has read the answer is reset.
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.got += data
                writer.write(data)
        writer.close()


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Echo]:
    echo = Echo(f"unix://{tmp_path}/echo")
    async with await asyncio.start_unix_server(echo.serve, tmp_path / "echo"):
        yield echo


@asynccontextmanager
async def connected(
    proxy: Proxy,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(proxy.url.removeprefix("unix://"))
    yield reader, writer
    writer.close()


async def answer(proxy: Proxy, words: bytes = WORDS) -> bytes:
    """Send some words on a connection of their own, and return what comes back."""
    async with connected(proxy) as (reader, writer):
        writer.write(words)
        with suppress(asyncio.IncompleteReadError):
            return await reader.readexactly(len(words))
    return b""


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not fact():
            await asyncio.sleep(0.001)


async def test_bytes_pass(echo: Echo) -> None:
    """Both ways, in one piece or many, however slow."""
    async with proxied(echo.url) as proxy:
        proxy.delay = 0.002
        large = WORDS * 100_000
        assert await answer(proxy, large) == large == echo.got


async def test_it_may_listen_on_a_port(echo: Echo) -> None:
    """The URL names the port that was free."""
    async with proxied(echo.url, tcp=True) as proxy:
        host, _, port = proxy.url.removeprefix("redis://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(WORDS)
        assert await reader.readexactly(len(WORDS)) == WORDS
        writer.close()


async def test_a_cut_lets_so_many_bytes_pass(echo: Echo) -> None:
    """One connection is cut at the byte, in either direction; the next one is whole."""
    async with proxied(echo.url) as proxy:
        proxy.cut_after(up=4)
        assert await answer(proxy) == b""
        await until(lambda: echo.got == WORDS[:4])
        proxy.cut_after(down=4)
        async with connected(proxy) as (reader, writer):
            writer.write(WORDS)
            assert await reader.read() == WORDS[:4]
        assert await answer(proxy) == WORDS


async def test_a_reply_is_lost_by_count_and_by_chance(echo: Echo) -> None:
    """The server got the words, the client gets nothing."""
    async with proxied(echo.url) as proxy:
        proxy.lose_replies = 1
        assert [await answer(proxy) for _ in range(2)] == [b"", WORDS]
        proxy.losing = 1.0
        assert await answer(proxy) == b""
        assert (echo.got, proxy.lost_replies) == (WORDS * 3, 2)


async def test_nothing_passes_while_it_is_frozen(echo: Echo) -> None:
    """Frozen bytes are held, not dropped."""
    async with proxied(echo.url) as proxy:
        proxy.freeze()
        asking = asyncio.create_task(answer(proxy))
        await until(lambda: proxy.connections == 1)
        assert not echo.got
        proxy.thaw()
        assert await asking == WORDS


async def test_what_comes_late_comes_once(echo: Echo) -> None:
    """The client is cut off, comes again, and then the server gets what was sent first."""
    async with proxied(echo.url) as proxy:
        proxy.lateness = 1.0
        assert await answer(proxy, b"+early\r\n") == b""
        proxy.lateness = 0.0
        assert echo.got == b""
        assert await answer(proxy, b"+next\r\n") == b"+next\r\n"
        proxy.calm()
        await until(lambda: echo.got == b"+next\r\n+early\r\n")
        assert proxy.late_arrivals == 1


async def test_a_piece_is_kept_until_it_is_to_be_delivered(echo: Echo) -> None:
    """One piece, or all that come; nothing is kept any more once they were delivered."""
    async with proxied(echo.url) as proxy:
        proxy.holding = Hold(after=1)
        asked = [await answer(proxy, b"+%d\r\n" % n) for n in range(3)]
        assert asked == [b"+0\r\n", b"", b"+2\r\n"]
        await proxy.holding.deliver()
        assert (proxy.holding.kept, echo.got) == (1, b"+0\r\n+2\r\n+1\r\n")
        proxy.holding = Hold()
        assert [await answer(proxy, b"+%d\r\n" % n) for n in range(3)] == [b""] * 3
        await proxy.holding.deliver()
        assert (proxy.holding.kept, sorted(echo.got[-12:].split())) == (3, [b"+0", b"+1", b"+2"])
        assert await answer(proxy) == WORDS


async def test_a_rate_holds_in_each_direction(echo: Echo) -> None:
    """What comes back at the same rate comes while the rest is still on its way."""
    async with proxied(echo.url) as proxy:
        proxy.rate = 2_000_000
        large = WORDS * 40_000
        start = time.monotonic()
        assert await answer(proxy, large) == large
        assert 0.2 <= time.monotonic() - start < 0.4


async def test_a_seed_decides_what_chance_does(echo: Echo) -> None:
    """The same calls through proxies of the same seed meet the same fate."""

    async def fates(seed: int) -> list[bytes]:
        async with proxied(echo.url, seed=seed) as proxy:
            proxy.losing = 0.5
            return [await answer(proxy) for _ in range(20)]

    assert await fates(1) == await fates(1) != await fates(2)
