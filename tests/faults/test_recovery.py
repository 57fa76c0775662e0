"""What else servers, networks and redis-py itself do: waited for, or told at once; never raw."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.errors import BackendUnavailableError, OutcomeUnknownError, SessionNotFoundError
from harness import servers
from harness.insides import link_of
from harness.proxy import Proxy
from harness.refusals import known_refusal

pytestmark = pytest.mark.on_both_loops

KEY = SessionKey("app", "user", "session")


def say(words: str) -> Event:
    return Event(author="user", content=words)


@pytest.fixture
async def service(server: servers.Server) -> AsyncIterator[RedisSessionService]:
    async with RedisSessionService.from_url(server.url) as opened:
        await opened.create_session(KEY)
        yield opened


@pytest.fixture
async def hasty(server: servers.Server) -> AsyncIterator[RedisSessionService]:
    async with RedisSessionService.from_url(server.url, timeout=0.3) as opened:
        yield opened


async def contents(service: RedisSessionService) -> list[Any]:
    return [event.content for event in await service.get_events(KEY, limit=1000)]


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_cut_at_any_byte_is_made_good(
    proxy: Proxy, service: RedisSessionService, direction: str
) -> None:
    """Wherever a command or its reply is torn, the event is stored once and the caller is told."""
    step = 7 if direction == "down" else 41
    async with RedisSessionService.from_url(proxy.url) as torn:
        await torn.get_session(KEY)
        for number in range(50):
            proxy.cut_after(**{direction: number * step})
            stored = await torn.append_event(KEY, say(f"{number}"))
            assert stored.seq == number + 1
    assert proxy.connections > 10
    assert await contents(service) == [f"{number}" for number in range(50)]


@pytest.mark.parametrize("size", [10, 60_000])
async def test_a_connection_that_hangs_is_left_in_time(proxy: Proxy, size: int) -> None:
    """Calls go on by a new one well before their deadline, also when nothing more can be sent."""
    async with RedisSessionService.from_url(proxy.url, timeout=8) as service:
        await service.create_session(KEY)
        proxy.hung = proxy.connections
        started = time.monotonic()
        words = [f"{n}" + "x" * size for n in range(100)]
        async with asyncio.TaskGroup() as group:
            for each in words:
                group.create_task(service.append_event(KEY, say(each)))
        assert time.monotonic() - started < 7
        assert proxy.connections == 2
        assert await contents(service) == words


async def test_a_blocked_event_loop_costs_no_connection(
    server: servers.Server, service: RedisSessionService
) -> None:
    """A reply that has come is read first, however late it is."""

    def connections() -> int:
        return int(server.ask("INFO", "stats")["total_connections_received"])

    async with RedisSessionService.from_url(server.url, timeout=2) as quick:
        await quick.get_session(KEY)
        before = connections()
        for number in range(3):
            async with asyncio.timeout(5):
                while link_of(quick)._watch is not None:
                    await asyncio.sleep(0.001)
            call = asyncio.create_task(quick.append_event(KEY, say("x")))
            for _ in range(5):
                await asyncio.sleep(0)
            time.sleep(0.6)  # noqa: ASYNC251 - somebody's long step
            assert (await call).seq == number + 1
        assert connections() == before + 1


async def test_a_reply_may_take_its_time(proxy: Proxy) -> None:
    """One that takes longer than the first connection was given comes by a later one."""
    async with RedisSessionService.from_url(proxy.url, timeout=4) as service:
        await service.create_session(KEY)
        proxy.freeze()
        call = asyncio.create_task(service.append_event(KEY, say("x")))
        async with asyncio.timeout(10):
            while proxy.connections < 2:
                await asyncio.sleep(0.001)
        proxy.thaw()
        assert (await call).seq == 1
        assert await contents(service) == ["x"]


async def test_a_session_gone_after_a_lost_reply_leaves_an_unknown_outcome(
    proxy: Proxy, service: RedisSessionService
) -> None:
    """The write was carried out before somebody deleted the session, and the user's state shows."""
    async with RedisSessionService.from_url(proxy.url) as losing:
        await losing.append_event(KEY, say("x"))
        proxy.lose_replies = 1
        event = Event(author="user", state_delta={"user:n": 1})
        call = asyncio.create_task(losing.append_event(KEY, event))
        while not proxy.lost_replies:
            await asyncio.sleep(0)
        proxy.freeze()
        await service.delete_session(KEY)
        proxy.thaw()
        with pytest.raises(OutcomeUnknownError, match="repeat it"):
            await call
        assert await service.get_user_state(KEY.user) == {"n": 1}
        with pytest.raises(SessionNotFoundError):
            await losing.append_event(KEY, event)


@pytest.mark.parametrize("since", ["deleted", "replaced"])
async def test_an_update_knows_that_it_was_carried_out(
    proxy: Proxy, service: RedisSessionService, since: str
) -> None:
    """The server remembers it, though the session is gone, or another one has its id."""
    async with RedisSessionService.from_url(proxy.url) as losing:
        session = await losing.get_session(KEY)
        assert session is not None
        await losing.update_session_state(session, {"n": 0})
        call = await with_a_lost_reply(proxy, losing.update_session_state(session, {"n": 1}))
        await service.delete_session(KEY)
        if since == "replaced":
            made = await service.create_session(KEY)
        proxy.thaw()
        with pytest.raises(OutcomeUnknownError, match="deleted since"):
            await call
        if since == "replaced":
            assert await service.get_session(KEY) == made


async def test_an_update_knows_that_it_was_refused(
    proxy: Proxy, service: RedisSessionService
) -> None:
    """The server remembers that it found no session, and one that is made since stays as it is."""
    async with RedisSessionService.from_url(proxy.url) as losing:
        await losing.update_session_state(KEY, {"n": 0})
        await service.delete_session(KEY)
        call = await with_a_lost_reply(proxy, losing.update_session_state(KEY, {"n": 1}))
        made = await service.create_session(KEY)
        proxy.thaw()
        with pytest.raises(SessionNotFoundError):
            await call
        assert await service.get_session(KEY) == made


async def with_a_lost_reply(proxy: Proxy, write: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Let a write run whose reply is lost; no copy of it gets through until the proxy is thawed."""
    proxy.lose_replies = 1
    call = asyncio.create_task(write)
    async with asyncio.timeout(10):
        while not proxy.lost_replies:
            await asyncio.sleep(0)
    proxy.freeze()
    return call


async def test_a_refusal_after_a_lost_reply_says_nothing_of_the_first_attempt(
    proxy: Proxy, admin: redis.asyncio.Redis
) -> None:
    """A full server refuses the repeat of a write that it may have carried out."""
    async with RedisSessionService.from_url(proxy.url, timeout=1) as service:
        await service.create_session(KEY)
        proxy.freeze()
        call = asyncio.create_task(service.append_event(KEY, say("x")))
        await asyncio.sleep(0)
        await admin.config_set("maxmemory", 1)
        proxy.lose_replies = 1
        proxy.thaw()
        with pytest.raises(OutcomeUnknownError, match="maxmemory"):
            await call
        with pytest.raises(BackendUnavailableError, match="maxmemory"):
            await service.append_event(KEY, say("y"))
        await admin.config_set("maxmemory", 0)


async def test_a_busy_server_is_waited_for(
    admin: redis.asyncio.Redis, service: RedisSessionService, hasty: RedisSessionService
) -> None:
    """While somebody's script does not end, calls wait; when it is killed they go through."""
    await admin.config_set("lua-time-limit", 1)

    async def hang() -> None:
        async with redis.asyncio.Redis(connection_pool=admin.connection_pool) as client:
            with pytest.raises(redis.ResponseError):
                await client.eval("while true do end", 0)

    hanging = asyncio.create_task(hang())
    await refused(admin.ping, "BUSY")
    # Unknown, if the server took too long to say that it is busy; and not written even then.
    with pytest.raises((BackendUnavailableError, OutcomeUnknownError), match="BUSY"):
        await hasty.append_event(KEY, say("never"))
    call = asyncio.create_task(service.append_event(KEY, say("later")))
    await asyncio.wait([call], timeout=0.05)
    await admin.script_kill()
    await hanging
    assert (await call).seq == 1
    assert await contents(service) == ["later"]


async def refused(call: Callable[[], Any], code: str) -> None:
    """Wait until the server refuses a call with this code."""
    async with asyncio.timeout(10):
        while True:
            try:
                await call()
            except redis.RedisError as exc:
                if code in str(exc):
                    return
            await asyncio.sleep(0.001)


async def test_lost_replicas_are_waited_for(
    admin: redis.asyncio.Redis, service: RedisSessionService, hasty: RedisSessionService
) -> None:
    """A server that insists on replicas writes nothing without them, and goes on with them."""
    await admin.config_set("min-replicas-to-write", 1)
    refusal = str(await known_refusal(lambda: hasty.append_event(KEY, say("never"))))
    assert "NOREPLICAS" in refusal
    assert "nothing was written" in refusal
    call = asyncio.create_task(service.append_event(KEY, say("later")))
    await asyncio.wait([call], timeout=0.05)
    assert not await admin.exists("events:{app:user}:session")
    await admin.config_set("min-replicas-to-write", 0)
    assert (await call).seq == 1


async def test_a_stopped_server_leaves_an_unknown_outcome(
    server: servers.Server, service: RedisSessionService, hasty: RedisSessionService
) -> None:
    """A process that is stopped answers nothing; continued, it has the event once."""
    await hasty.get_session(KEY)
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    event = say("maybe")
    try:
        with pytest.raises(OutcomeUnknownError):
            await hasty.append_event(KEY, event)
        patient = asyncio.create_task(service.append_event(KEY, event))
        await asyncio.wait([patient], timeout=0.05)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert (await patient).seq == 1
    assert await contents(service) == ["maybe"]


async def test_a_paused_server_is_waited_for(
    admin: redis.asyncio.Redis, service: RedisSessionService
) -> None:
    """CLIENT PAUSE, as a failover begins with, costs time and nothing else."""
    await admin.client_pause(200)
    assert (await service.append_event(KEY, say("later"))).seq == 1


async def test_a_pool_without_a_free_connection_is_no_matter(server: servers.Server) -> None:
    """Where the application's own calls hold all of a pool, ours have a connection of their own."""
    pool = redis.asyncio.ConnectionPool.from_url(server.url, max_connections=1)
    async with (
        redis.asyncio.Redis.from_pool(pool) as client,
        redis.asyncio.Redis(connection_pool=pool, single_connection_client=True) as holder,
    ):
        await holder.ping()  # and keeps the connection
        with pytest.raises(redis.exceptions.MaxConnectionsError):
            await client.ping()
        async with RedisSessionService(client) as service:
            assert (await service.create_session(KEY)).revision == 1


async def test_a_server_that_takes_nobody_more_is_unavailable(
    admin: redis.asyncio.Redis, hasty: RedisSessionService
) -> None:
    """The limit of clients ends a first call at once, and later on all is well."""
    await admin.ping()
    await admin.config_set("maxclients", 1)
    with pytest.raises(BackendUnavailableError, match="nothing was written"):
        await hasty.create_session(KEY)
    await admin.config_set("maxclients", 100)
    assert (await hasty.create_session(KEY)).revision == 1


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*1\r\n$-7\r\n"])
async def test_something_else_at_the_address_is_unavailable(
    tmp_path: Path, greeting: bytes
) -> None:
    """A port that hangs up, or speaks another protocol, is told at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(greeting)
        writer.close()

    start = time.monotonic()
    async with (
        await asyncio.start_unix_server(serve, tmp_path / "s"),
        RedisSessionService.from_url(f"unix://{tmp_path}/s", timeout=30) as service,
    ):
        with pytest.raises(BackendUnavailableError):
            await service.create_session(KEY)
    assert time.monotonic() - start < 5


async def test_a_server_that_hangs_up_after_the_greeting_is_not_besieged(tmp_path: Path) -> None:
    """Each attempt comes later than the one before, though it got as far as an introduction."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        # A client whose time is over may hang up before it has introduced itself.
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"agentsession\r\n")
            writer.write(b"*2\r\n$10\r\n1732500000\r\n$1\r\n0\r\n+OK\r\n")
        writer.close()

    async with (
        await asyncio.start_unix_server(serve, tmp_path / "s"),
        RedisSessionService.from_url(f"unix://{tmp_path}/s", timeout=1) as service,
    ):
        with pytest.raises((BackendUnavailableError, OutcomeUnknownError)):
            await service.create_session(KEY)
    assert 2 < connections < 12
