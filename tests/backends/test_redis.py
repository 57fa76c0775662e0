"""What is particular to Redis: its keys, who owns a connection, names of instances, prefixes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
import redis.asyncio

from agentsession import DELETE, Event, RedisSessionService, SessionKey, UserKey
from agentsession.clock import to_microseconds
from agentsession.errors import BackendUnavailableError, EventLoopError, ReadTooLargeError
from agentsession.redis import register_redis_instance, unregister_redis_instance
from agentsession.redis._keys import Keyspace
from harness.raw import as_bytes, as_members, names_in

KEY = SessionKey("app", "user", "session")


@pytest.fixture
def prefix() -> str:
    return f"{secrets.token_hex(8)}:"


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as opened:
        yield opened


def say(words: str, **fields: Any) -> Event:
    return Event(author="user", content=words, **fields)


async def test_the_keys_are_as_documented(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """Each kind of data has the key, the type and the fields that the documentation names."""
    async with RedisSessionService.from_url(redis_url, key_prefix=prefix) as service:
        session = await service.create_session(KEY, {"a": 1, "user:b": b"2", "app:c": "3"})
        event = await service.append_event(session, say("hi", id="e1"))
        await service.append_event(session, say("ho", id="e2"))
        await service.update_app_state("app", {"c": "3"})
        assert len(await names_in(client, f"{prefix}*")) == 9
        await service.append_event(session, say("back", id="e3", state_delta={"a": 2, "d": 1}))
        await service.append_events(session, [say("on", state_delta={"a": 3})], rewind_to=2)
        found = {
            key.decode().removeprefix(prefix): as_bytes(await client.type(key)).decode()
            for key in await names_in(client, f"{prefix}*")
        }
        assert found == {
            "appdata:{app}": "hash",
            "userdata:{app:user}": "hash",
            "session:{app:user}:session": "hash",
            "events:{app:user}:session": "zset",
            "eventids:{app:user}:session": "zset",
            "taken:{app:user}:session": "zset",
            "changes:{app:user}:session": "zset",
            "before:{app:user}:session": "hash",
            "sessions:{app:user}": "zset",
            "usercalls:{app:user}": "zset",
            "appcalls:{app}": "zset",
            "users:{app}": "zset",
        }
        assert await client.hgetall(f"{prefix}appdata:{{app}}") == {b"c": b'"3"'}
        assert await client.hgetall(f"{prefix}userdata:{{app:user}}") == {b"b": b"\x002"}
        fields = await client.hgetall(f"{prefix}session:{{app:user}}:session")
        assert set(fields) == {
            *(b"v", b"incarnation", b"created", b"updated", b"revision", b"count", b"last"),
            *(b"horizon", b"past"),
            b"state:a",
        }
        assert (fields[b"v"], fields[b"count"], fields[b"revision"]) == (b"1", b"5", b"5")
        assert fields[b"past"] == b"0 4"
        taken = await client.zrange(f"{prefix}taken:{{app:user}}:session", 0, -1, withscores=True)
        assert as_members(taken) == [(b"2", 4)]
        changes = f"{prefix}changes:{{app:user}}:session"
        noted = as_members(await client.zrange(changes, 0, -1, withscores=True))
        assert noted == [(b"5.0 state:a", 5)]
        before = await client.hgetall(f"{prefix}before:{{app:user}}:session")
        assert before == {b"5.0 state:a": b"1"}
        events = f"{prefix}events:{{app:user}}:session"
        (stored, score), *_ = as_members(await client.zrange(events, 0, -1, withscores=True))
        assert stored.startswith(b'{"v":1,"id":"e1",')
        assert score == int(event.timestamp.timestamp() * 1_000_000)
        event_ids = f"{prefix}eventids:{{app:user}}:session"
        ids = as_members(await client.zrange(event_ids, 0, -1, withscores=True))
        assert [name for name, _ in ids][:3] == [b"e1", b"e2", b"e3"]
        assert ids[-1][1] == float(fields[b"updated"])
        await service.delete_user(KEY.user)
        await service.delete_app_state("app", "c")
    # These go by themselves, and hold nothing of anybody's but ids of calls.
    left = sorted(key.decode().removeprefix(prefix) for key in await names_in(client, f"{prefix}*"))
    assert left == ["appcalls:{app}", "usercalls:{app:user}"]
    for name in left:
        assert 60_000 < await client.pttl(prefix + name) <= 70_000


def test_keys_escape_what_means_something() -> None:
    """The four characters with a meaning in keys are escaped, others stay readable."""
    keys = Keyspace("p:").session(SessionKey("a:b", "{c}", "100% d"))
    assert keys.session == "p:session:{a%3Ab:%7Bc%7D}:100%25 d"
    assert keys.index == "p:sessions:{a%3Ab:%7Bc%7D}"
    with pytest.raises(ValueError, match="braces"):
        Keyspace("{p}")


async def test_prefixes_separate_deployments(redis_url: str, prefix: str) -> None:
    """Two prefixes share a database without meeting, also when one begins with the other."""
    async with (
        RedisSessionService.from_url(redis_url, key_prefix=prefix) as one,
        RedisSessionService.from_url(redis_url, key_prefix=prefix + "x") as two,
    ):
        await one.create_session(KEY, {"n": 1, "app:n": 1, "user:n": 1})
        assert await two.get_session(KEY) is None
        await two.create_session(KEY, {"n": 2, "app:n": 2, "user:n": 2})
        await two.delete_user(KEY.user)
        session = await one.get_session(KEY)
        assert session is not None
        assert session.state == {"n": 1, "app:n": 1, "user:n": 1}


@pytest.mark.parametrize(
    "options", [{}, {"decode_responses": True}, {"protocol": 3}, {"protocol": 2}]
)
async def test_a_client_of_the_users_is_borrowed(
    redis_url: str, prefix: str, options: dict[str, Any]
) -> None:
    """A client that was handed in works with any of its options, and stays open and whole."""
    client = redis.asyncio.Redis.from_url(redis_url, max_connections=2, **options)
    for _ in range(3):
        async with RedisSessionService(client, key_prefix=prefix) as service:
            session = await service.get_or_create_session(KEY, {"b": b"\xff"})
            await service.append_event(session, say("hi"))
            assert session.state == {"b": b"\xff"}
        assert await client.ping()
    pool = client.connection_pool
    assert len(pool._in_use_connections) == 0
    await client.aclose()


def test_a_blocking_client_is_refused() -> None:
    """The client of the wrong kind is named, and the right one too."""
    with pytest.raises(TypeError, match=r"redis\.asyncio\.Redis"):
        RedisSessionService(redis.Redis())  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match="from_url"):
        RedisSessionService("redis://localhost")  # type: ignore[arg-type]  # another


async def test_all_calls_share_one_connection(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """Hundreds of concurrent calls take one connection, gone when the service is closed."""
    await client.ping()
    before = len(await client.client_list())
    async with RedisSessionService.from_url(redis_url, key_prefix=prefix) as service:
        async with asyncio.TaskGroup() as group:
            for n in range(300):
                group.create_task(service.create_session(SessionKey("app", "user", str(n))))
        assert len(await client.client_list()) == before + 1
        await service.delete_user(KEY.user)
    async with asyncio.timeout(5):
        while len(await client.client_list()) > before:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("borrowed", [False, True])
async def test_calls_can_be_spread_over_connections(
    redis_url: str, client: redis.asyncio.Redis, prefix: str, borrowed: bool
) -> None:
    """With ``connections`` users are spread over that many, each user's calls in their order."""
    await client.ping()
    before = len(await client.client_list())
    mine = redis.asyncio.Redis.from_url(redis_url)
    service = (
        RedisSessionService(mine, key_prefix=prefix, connections=3)
        if borrowed
        else RedisSessionService.from_url(redis_url, key_prefix=prefix, connections=3)
    )
    keys = [SessionKey("app", f"user {n}", "s") for n in range(20)]
    async with service:
        for key in keys:
            await service.create_session(key)
        assert len(await client.client_list()) == before + 3
        assert repr(service).count("open") == 3
        async with asyncio.TaskGroup() as group:
            for key in keys:
                for n in range(10):
                    group.create_task(service.append_event(key, say(str(n))))
        for key in keys:
            events = await service.get_events(key)
            assert [event.content for event in events] == [str(n) for n in range(10)]
            await service.delete_user(key.user)
    await mine.aclose()
    with pytest.raises(ValueError, match="connections"):
        RedisSessionService.from_url(redis_url, connections=0)


async def test_a_named_instance_is_one_connection(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """Components that use a name share one connection; the last of them to close lets it go."""
    register_redis_instance("shared", url=redis_url)
    register_redis_instance("shared", url=redis_url)
    try:
        await client.ping()
        before = len(await client.client_list())
        services = [RedisSessionService(instance="shared", key_prefix=prefix) for _ in range(3)]
        for service in services:
            await service.get_or_create_session(KEY)
        assert len(await client.client_list()) == before + 1
        await services[0].aclose()
        await services[1].aclose()
        await services[1].aclose()
        assert await services[2].get_session(KEY) is not None
        await services[2].aclose()
        async with asyncio.timeout(5):
            while len(await client.client_list()) > before:
                await asyncio.sleep(0.001)
        async with RedisSessionService(instance="shared", key_prefix=prefix) as again:
            assert await again.get_session(KEY) is not None
    finally:
        unregister_redis_instance("shared")


async def test_closing_a_named_instance_in_the_middle_of_a_call_opens_nothing_anew(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """A call of several steps ends with the service, and leaves no connection behind."""
    register_redis_instance("shared", url=redis_url)
    try:
        await client.ping()
        before = len(await client.client_list())
        service = RedisSessionService(instance="shared", key_prefix=prefix)
        await service.create_session(KEY)
        erasing = asyncio.create_task(service.delete_user(KEY.user))
        await asyncio.sleep(0)
        await service.aclose()
        with pytest.raises(BackendUnavailableError, match="closed"):
            await erasing
        async with asyncio.timeout(5):
            while len(await client.client_list()) > before:
                await asyncio.sleep(0.001)
    finally:
        unregister_redis_instance("shared")


async def test_a_name_can_stand_for_a_client(redis_url: str, prefix: str) -> None:
    """A client of the user's can have a name too, and stays open."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        register_redis_instance("mine", client=client)
        try:
            async with RedisSessionService(instance="mine", key_prefix=prefix) as service:
                await service.create_session(KEY)
            assert await client.ping()
        finally:
            unregister_redis_instance("mine")


async def test_a_url_wins_over_an_instance(redis_url: str, prefix: str) -> None:
    """With both given, the URL is used."""
    register_redis_instance("elsewhere", url="redis://127.0.0.1:1/0")
    try:
        both = RedisSessionService(url=redis_url, instance="elsewhere", key_prefix=prefix)
        async with both as service:
            assert await service.get_session(KEY) is None
    finally:
        unregister_redis_instance("elsewhere")


def test_names_are_checked() -> None:
    """Unknown, empty and ambiguous names, and no server at all, are errors that help."""
    with pytest.raises(ValueError, match=r"registered: none\. Call register_redis_instance"):
        RedisSessionService(instance="nobody")
    with pytest.raises(ValueError, match="needs a name"):
        register_redis_instance("", url="redis://x")
    wrong: list[dict[str, Any]] = [{}, {"url": "redis://x", "client": object()}]
    for both in wrong:
        with pytest.raises(ValueError, match="either a url or a client"):
            register_redis_instance("x", **both)
    register_redis_instance("x", url="redis://x")
    try:
        with pytest.raises(ValueError, match="other settings"):
            register_redis_instance("x", url="redis://y")
        with pytest.raises(ValueError, match="registered: 'x'"):
            RedisSessionService(instance="y")
    finally:
        unregister_redis_instance("x")
        unregister_redis_instance("x")
    with pytest.raises(ValueError, match="no server"):
        RedisSessionService()
    with pytest.raises(ValueError, match="not a client and another"):
        RedisSessionService(redis.asyncio.Redis(), url="redis://x")
    with pytest.raises(ValueError, match="timeout"):
        RedisSessionService(url="redis://x", timeout=0)
    with pytest.raises(ValueError, match="scheme"):
        RedisSessionService.from_url("localhost:6379")


def test_a_service_can_be_made_before_the_loop_but_not_used_on_two(
    redis_url: str, prefix: str
) -> None:
    """Nothing is bound to a loop by making a service; using it on a second one is a clear error."""
    service = RedisSessionService.from_url(redis_url, key_prefix=prefix)

    async def use() -> None:
        await service.get_session(KEY)

    async def close() -> None:
        await service.aclose()

    with asyncio.Runner() as runner, asyncio.Runner() as other:
        runner.run(use())
        with pytest.raises(EventLoopError, match="another event loop"):
            other.run(use())
        runner.run(close())


async def test_equal_scores_are_paged_in_the_order_of_ids(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """However many sessions share a score, pages return each once, in the order of ids."""
    names = [f"s{n:02}" for n in range(30)] + ["ä", "\U0001f600", "Z"]
    async with RedisSessionService.from_url(redis_url, key_prefix=prefix) as service:
        for name in names:
            await service.create_session(SessionKey("app", "user", name))
        index = f"{prefix}sessions:{{app:user}}"
        await client.zadd(index, dict.fromkeys(names, 1_700_000_000_000_000))
        seen: list[str] = []
        cursor = None
        while cursor is not None or not seen:
            page = await service.list_sessions(KEY.user, limit=4, cursor=cursor)
            seen += [session.id for session in page.sessions]
            cursor = page.next_cursor
        assert seen == sorted(names, key=str.encode, reverse=True)
        await service.delete_user(KEY.user)


async def test_expired_sessions_leave_the_index(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """The index stays small without any listing, and a listing takes out what has expired."""
    user = UserKey("app", "user")
    index = f"{prefix}sessions:{{app:user}}"
    async with RedisSessionService.from_url(
        redis_url, key_prefix=prefix, session_ttl=60
    ) as service:
        for n in range(200):
            key = SessionKey("app", "user", f"s{n:03}")
            await service.create_session(key)
            await client.delete(f"{prefix}session:{{app:user}}:s{n:03}")  # as expiry would
            assert await client.zcard(index) <= 64
        assert (await service.list_sessions(user)).sessions == []
        assert await client.zcard(index) == 0


async def test_a_new_time_to_live_applies_with_the_next_write(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """When the configuration changes, a session's keys follow at the next write, all of them."""
    kinds = ("session", "events", "eventids", "taken", "changes", "before")
    names = [f"{prefix}{word}:{{app:user}}:session" for word in kinds]
    index, other = f"{prefix}sessions:{{app:user}}", SessionKey("app", "user", "other")

    async def lives() -> list[int]:
        return [round(await client.pttl(name), -4) for name in [*names, index]]

    async with (
        RedisSessionService.from_url(redis_url, key_prefix=prefix) as for_ever,
        RedisSessionService.from_url(redis_url, key_prefix=prefix, session_ttl=100) as long,
        RedisSessionService.from_url(redis_url, key_prefix=prefix, session_ttl=50) as short,
    ):
        await long.create_session(KEY)
        await long.append_event(KEY, say("1", state_delta={"n": 1}))
        await long.append_events(KEY, [say("2", state_delta={"n": 2})], rewind_to=1)
        assert await lives() == [100_000] * 7
        await long.create_session(other)
        await short.append_event(KEY, say("2"))
        assert await lives() == [50_000] * 6 + [100_000]
        await long.delete_session(other)
        await short.append_event(KEY, say("now alone"))
        assert await lives() == [50_000] * 7
        await for_ever.append_event(KEY, say("3"))
        assert [await client.pttl(name) for name in [*names, index]] == [-1] * 7
        await for_ever.create_session(other)
        await short.update_session_state(KEY, {"m": 1})
        assert await lives() == [50_000] * 6 + [0]
        fork = SessionKey("app", "user", "fork")
        await short.fork(KEY, fork)
        forked = [name.removesuffix("session") + "fork" for name in names]
        assert [round(await client.pttl(name), -4) for name in forked] == [50_000] * 6
        assert await client.pttl(index) == -1
        await for_ever.delete_user(KEY.user)


async def test_reading_moves_expiry_ahead_only(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """A copy of a read may come late, and meet a session that was made anew, by another rule."""
    words = ("session", "events", "eventids", "taken", "changes", "before")
    kinds = [*(f"{word}:{{}}:session" for word in words), "sessions:{}"]
    names = [f"{prefix}{kind.format('{app:user}')}" for kind in kinds]
    names += [f"{prefix}userdata:{{app:user}}", f"{prefix}appdata:{{app}}"]

    def with_ttl(seconds: float | None) -> RedisSessionService:
        return RedisSessionService.from_url(
            redis_url, key_prefix=prefix, session_ttl=seconds, user_state_ttl=seconds,
            app_state_ttl=seconds, refresh_ttl_on_read=True,
        )  # fmt: skip

    async def read_all(service: RedisSessionService) -> set[int]:
        await service.get_session(KEY)
        await service.get_or_create_session(KEY)
        await service.get_events(KEY)
        await service.get_user_state(KEY.user)
        await service.get_app_state("app")
        return {round(await client.pttl(name), -4) for name in names}

    async with with_ttl(None) as for_ever, with_ttl(100) as long, with_ttl(50) as short:
        for maker, lives in ((for_ever, [0, 0, 0]), (short, [50_000, 50_000, 100_000])):
            await maker.create_session(KEY, {"user:n": 1, "app:n": 1})
            await maker.append_event(KEY, say("1", state_delta={"n": 1}))
            await maker.append_events(KEY, [say("2", state_delta={"n": 2})], rewind_to=1)
            for reader, left in zip((for_ever, short, long), lives, strict=True):
                assert await read_all(reader) == {left}
            await maker.delete_user(KEY.user)
            await client.delete(names[-1])


async def test_costs_do_not_grow_with_the_log_or_the_database(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """The server runs the same commands for a short log and a long one, among many keys."""

    async def commands() -> dict[str, int]:
        await client.config_resetstat()
        await service.append_event(KEY, say("x"))
        await service.get_session(KEY, num_recent_events=10)
        await service.list_sessions(KEY.user)
        stats = await client.info("commandstats")
        return {name: each["calls"] for name, each in stats.items() if "config" not in name}

    async with RedisSessionService.from_url(
        redis_url, key_prefix=prefix, session_event_limit=None
    ) as service:
        await service.create_session(KEY)
        await service.append_events(KEY, [say(str(n)) for n in range(20)])
        await commands()
        before = await commands()
        for _ in range(2):
            await service.append_events(KEY, [say(str(n)) for n in range(1000)])
        pipeline = client.pipeline(transaction=False)
        for n in range(1000):
            pipeline.set(f"{prefix}ballast{n}", "x")
        await pipeline.execute()
        assert await commands() == before
        assert "cmdstat_keys" not in before
        assert "cmdstat_scan" not in before
        await service.delete_user(KEY.user)
    async for key in client.scan_iter(f"{prefix}*", count=1000):
        await client.unlink(key)


async def test_no_call_is_older_than_its_session(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """A fork knows ids from before it was made; a copy of a call from then is refused still."""
    fork = SessionKey("app", "user", "fork")
    async with RedisSessionService.from_url(
        redis_url, key_prefix=prefix, session_event_limit=1
    ) as service:
        await service.create_session(KEY)
        for _ in range(2):
            await service.append_events(KEY, [say("x") for _ in range(1000)])
        made = await service.fork(KEY, fork)
        await service.append_events(fork, [say("x"), say("y")])
        horizon = await client.hget(f"{prefix}session:{{app:user}}:fork", "horizon")
        assert int(horizon or 0) >= to_microseconds(made.created_at)
        await service.delete_user(KEY.user)


async def test_what_is_kept_of_rewinds_is_merged(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """However often a session goes back to an event, and whether its state does or not."""
    async with RedisSessionService.from_url(redis_url, key_prefix=prefix) as service:
        await service.create_session(KEY)
        await service.append_event(KEY, say("x", state_delta={"n": 0}))
        for number in range(30):
            await service.append_event(KEY, say("y", state_delta={"n": number, "m": number}))
            await service.rewind(KEY, to_seq=1, restore_state=number % 3 == 0)
        counts = [
            await client.zcard(f"{prefix}taken:{{app:user}}:session"),
            await client.zcard(f"{prefix}changes:{{app:user}}:session"),
            await client.hlen(f"{prefix}before:{{app:user}}:session"),
        ]
        assert counts == [1, 3, 3]
        await service.delete_user(KEY.user)


async def test_what_was_before_is_kept_as_long_as_it_may_be_asked_for(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """Nothing is kept of a name that has its old value again, nor of events that are trimmed."""
    changes = f"{prefix}changes:{{app:user}}:session"
    before = f"{prefix}before:{{app:user}}:session"

    async def kept() -> tuple[int, int]:
        return await client.zcard(changes), await client.hlen(before)

    async with RedisSessionService.from_url(
        redis_url, key_prefix=prefix, session_event_limit=5
    ) as service:
        await service.create_session(KEY, {"a": 1})
        for number in range(100):
            await service.update_session_state(KEY, {"a": number, f"b{number}": 1})
            await service.update_session_state(KEY, {"a": 1, f"b{number}": DELETE})
        assert await kept() == (0, 0)
        for number in range(200):
            await service.append_event(KEY, say("x", state_delta={"n": number}))
        held, _ = await kept()
        assert 5 <= held <= 5 + 64
        assert await kept() == (held, held)
        await service.append_events(KEY, [say("x"), say("y")])
        assert await kept() == (2, 2)
        await service.delete_user(KEY.user)


async def calls_of(client: redis.asyncio.Redis, command: str) -> int:
    stats = await client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def test_a_log_that_is_too_long_is_not_read(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """Its number of events is enough to refuse it, and to read its end takes one command."""
    async with RedisSessionService.from_url(
        redis_url, key_prefix=prefix, session_event_limit=None, max_read_size=1 << 20
    ) as service:
        await service.create_session(KEY)
        last = await service.append_event(KEY, say("last"))
        name = f"{prefix}events:{{app:user}}:session"
        await client.zadd(name, {f"{n}": n for n in range(20_000)})
        await client.hset(f"{prefix}session:{{app:user}}:session", "count", "20001")
        before = await calls_of(client, "zrange")
        with pytest.raises(ReadTooLargeError) as raised:
            await service.get_session(KEY)
        assert (raised.value.events, raised.value.size) == (20_001, 2_000_100)
        assert await calls_of(client, "zrange") == before
        session = await service.get_session(KEY, num_recent_events=1)
        assert session is not None
        assert [event.id for event in session.events] == [last.id]
        assert await calls_of(client, "zrange") == before + 1
        await service.delete_user(KEY.user)


async def test_large_events_are_not_all_read_to_be_refused(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """The script stops where the limit is passed: the server never holds much more than that."""
    async with RedisSessionService.from_url(
        redis_url, key_prefix=prefix, max_event_size=1 << 18, max_read_size=1 << 20
    ) as service:
        await service.create_session(KEY)
        await service.append_events(KEY, [say("x" * 200_000) for _ in range(50)])
        before = await calls_of(client, "zrange")
        with pytest.raises(ReadTooLargeError) as raised:
            await service.get_session(KEY)
        assert raised.value.events == 50
        assert 1 << 20 < raised.value.size < 2 << 20
        assert await calls_of(client, "zrange") == before + 2
        assert len(await service.get_events(KEY, limit=4)) == 4
        await service.delete_user(KEY.user)


async def test_a_token_grows_though_the_clock_went_back(
    redis_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """Of leases of a server whose clock was a day ahead, as that of a primary that was lost."""
    async with RedisSessionService.from_url(redis_url, key_prefix=prefix) as service:
        await service.create_session(KEY)
        async with service.lease(KEY) as lease:
            ahead = lease.token + 86_400_000_000
        name = f"{prefix}session:{{app:user}}:session"
        await client.hset(name, "lease", str(ahead))
        async with service.lease(KEY) as lease:
            assert lease.token == ahead + 1
        await service.delete_user(KEY.user)
