"""The list of an application's users on Redis: kept with their data, found anew, and tidied up."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.cluster import RedisCluster

from agentsession import Event, RedisSessionService, SessionKey, UserKey
from agentsession.errors import BackendError, BackendUnavailableError, CodecError
from agentsession.redis._backend import RedisBackend
from agentsession.redis._operations.nodes import nodes_of
from agentsession.redis._operations.users import _DROP, Users
from harness import servers

HOUR = 3_600_000


@pytest.fixture
def prefix() -> str:
    return f"p[*]{secrets.token_hex(4)}:"


@pytest.fixture(scope="module")
def cluster() -> Iterator[servers.Cluster]:
    with servers.cluster() as running:
        yield running


@pytest.fixture(params=["server", "cluster"])
async def client(
    request: pytest.FixtureRequest, redis_url: str, cluster: servers.Cluster
) -> AsyncIterator[redis.asyncio.Redis | RedisCluster]:
    """A client of every server, and of a cluster once."""
    opened: redis.asyncio.Redis | RedisCluster
    if request.param == "server":
        opened = redis.asyncio.Redis.from_url(redis_url)
    else:
        opened = RedisCluster(servers.LOOPBACK, cluster.nodes[0].port)
    async with opened:
        yield opened


@pytest.fixture
async def service(
    client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> AsyncIterator[RedisSessionService]:
    async with RedisSessionService(client, key_prefix=prefix) as made:
        yield made


async def ids(service: RedisSessionService, app_name: str = "app") -> list[str]:
    return [user.user_id for user in (await service.list_users(app_name, limit=1000)).users]


def users_of(service: RedisSessionService) -> Users:
    backend = service.backend
    assert isinstance(backend, RedisBackend)
    return backend._users


async def listed(client: redis.asyncio.Redis | RedisCluster, prefix: str) -> list[bytes]:
    """Read what is on the list of ``app``, seen or not."""
    found: list[Any] = await client.zrange(f"{prefix}users:{{app}}", 0, -1)
    return [each for each in found if each]


async def test_who_was_there_before_the_list_is_found(
    service: RedisSessionService, client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """Sessions and state of an older version, or of a list that was evicted; nobody else's."""
    names = [f"u{n}" for n in range(300)] + ["a:b", "{c}", "100%", "é*"]
    for name in names:
        await service.create_session(SessionKey("app", name, "s"))
        await service.create_session(SessionKey("app2", name, "s"))
    await service.update_user_state(UserKey("app", "state"), {"n": 1})
    await client.set(f"{prefix}sessions:{{app:\udcff}}".encode(errors="surrogateescape"), "x")
    for evicted in range(2):
        await client.unlink(f"{prefix}users:{{app}}")
        if evicted:
            await service.create_session(SessionKey("app", "new", "s"))
        wanted = sorted([*names, "state", *["new"] * evicted])
        assert await ids(service) == wanted
        assert await ids(service) == wanted


async def test_keys_are_looked_through_once(
    service: RedisSessionService, client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """Within an hour: a list that is complete is kept with what is written."""
    assert await ids(service) == []
    assert 0 < await client.pttl(f"{prefix}appcalls:{{app}}") <= HOUR
    await client.zadd(f"{prefix}sessions:{{app:b}}", {"s": 1})  # behind the library's back
    assert await ids(service) == []
    await service.create_session(SessionKey("app", "a", "s"))
    assert await ids(service) == ["a", "b"]
    await client.zadd(f"{prefix}sessions:{{app:c}}", {"s": 1})
    assert await ids(service) == ["a", "b"]
    for word in ("=complete", "=empty"):
        await client.zadd(f"{prefix}appcalls:{{app}}", {word: 1}, xx=True)  # as in an hour
    assert await ids(service) == ["a", "b", "c"]


async def test_a_list_that_was_made_by_looking_lives_for_an_hour(
    service: RedisSessionService, client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """Whoever only looks makes nothing that never expires."""
    await client.zadd(f"{prefix}sessions:{{app:a}}", {"s": 1})
    assert await ids(service) == ["a"]
    assert 0 < await client.pttl(f"{prefix}users:{{app}}") <= HOUR
    await service.create_session(SessionKey("app", "a", "s"))
    assert await client.pttl(f"{prefix}users:{{app}}") == -1


@pytest.mark.parametrize("lost", ["list", "index"])
async def test_what_is_evicted_is_found_again(
    service: RedisSessionService,
    client: redis.asyncio.Redis | RedisCluster,
    prefix: str,
    lost: str,
) -> None:
    """A list that is gone at once; a user whose index was gone when somebody looked in an hour."""
    key = SessionKey("app", "a", "s")
    await service.create_session(key)
    await service.create_session(SessionKey("app", "b", "s"))
    await client.unlink(f"{prefix}appcalls:{{app}}")
    assert await ids(service) == ["a", "b"]
    if lost == "list":
        await client.unlink(f"{prefix}users:{{app}}")
    else:
        await client.unlink(f"{prefix}sessions:{{app:a}}")
        assert await ids(service) == ["b"]
        await service.append_event(key, Event(author="a"))
        await client.zadd(f"{prefix}appcalls:{{app}}", {"=complete": 1}, xx=True)
    assert await ids(service) == ["a", "b"]


async def test_who_looks_at_the_same_time_looks_once(
    service: RedisSessionService, client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """The others wait for the one who does."""
    await client.zadd(f"{prefix}sessions:{{app:a}}", {"s": 1})
    looks: list[str] = []
    users = users_of(service)
    look = users._look_everywhere

    async def counted(app_name: str) -> None:
        looks.append(app_name)
        await look(app_name)

    users._look_everywhere = counted  # type: ignore[method-assign]  # to count
    async with asyncio.TaskGroup() as group:
        lists = [group.create_task(ids(service)) for _ in range(10)]
    assert [each.result() for each in lists] == [["a"]] * 10
    assert looks == ["app"]
    assert users._looking == {}


async def test_what_nobody_has_any_more_leaves_the_list(
    service: RedisSessionService, client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """With the last session, or the last name of state; on a cluster after a minute."""
    await service.create_session(SessionKey("app", "a", "s"))
    await service.update_user_state(UserKey("app", "b"), {"n": 1})
    await client.unlink(f"{prefix}appcalls:{{app}}")
    await service.delete_session(SessionKey("app", "a", "s"))
    assert await listed(client, prefix) == [b"b"]
    await service.delete_user_state(UserKey("app", "b"), "n")
    assert await listed(client, prefix) == []


async def test_nobodys_record_hides_another(
    service: RedisSessionService, client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """One whose keys are somebody else's is listed, and named among what cannot be read."""
    for name in ("a", "b", "c", "d"):
        await service.create_session(SessionKey("app", name, "s"), {"user:n": 1})
    await client.unlink(f"{prefix}sessions:{{app:b}}")
    await client.set(f"{prefix}sessions:{{app:b}}", "theirs")
    await client.hset(f"{prefix}userdata:{{app:c}}", "n", b"\xff")
    assert await ids(service) == ["a", "b", "c", "d"]
    page = await service.list_sessions("app")
    assert [session.user_id for session in page.sessions] == ["a", "d"]
    assert [(each.key.user_id, each.key.session_id) for each in page.unreadable] == [
        *(("b", ""), ("c", "s"))
    ]
    with pytest.raises(CodecError):
        await service.list_sessions(UserKey("app", "c"))


async def test_an_append_leaves_the_list_alone(
    service: RedisSessionService, client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """So that it costs an append nothing; what expires early is made anew when it is asked for."""
    key = SessionKey("app", "a", "s")
    await service.create_session(key)
    await client.unlink(f"{prefix}users:{{app}}")
    await service.append_event(key, Event(author="a", state_delta={"user:n": 1}))
    await service.update_session_state(key, {"n": 1})
    assert not await client.exists(f"{prefix}users:{{app}}")
    assert await ids(service) == ["a"]


async def test_the_list_lives_as_long_as_what_is_written(
    client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """At least: what lives shorter and comes later does not shorten it; for ever is for ever."""
    name = f"{prefix}users:{{app}}"
    async with RedisSessionService(
        client, key_prefix=prefix, session_ttl=100, user_state_ttl=500
    ) as mortal:
        await mortal.create_session(SessionKey("app", "a", "s"))
        assert 90_000 < await client.pttl(name) <= 100_000
        await mortal.create_session(SessionKey("app", "a", "t"), {"user:n": 1})
        assert 490_000 < await client.pttl(name) <= 500_000
        await mortal.create_session(SessionKey("app", "b", "s"))
        assert 480_000 < await client.pttl(name) <= 500_000
    async with RedisSessionService(client, key_prefix=prefix, session_ttl=100) as service:
        await service.create_session(SessionKey("app", "c", "s"))
        assert await client.pttl(name) > 0
        await service.update_user_state(UserKey("app", "c"), {"n": 1})
        assert await client.pttl(name) == -1


async def test_those_who_have_expired_leave_the_list(
    client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """Also if nobody asks for it: a new user now and then looks at some of the others."""
    async with RedisSessionService(client, key_prefix=prefix, session_ttl=1000) as service:
        for n in range(63):
            await service.create_session(SessionKey("app", f"old{n}", "s"))
            for key in (f"session:{{app:old{n}}}:s", f"sessions:{{app:old{n}}}"):
                await client.unlink(prefix + key)
        # They are protected for a minute after their creation, where it takes two steps.
        await client.unlink(f"{prefix}appcalls:{{app}}")
        assert len(await listed(client, prefix)) == 63
        await service.create_session(SessionKey("app", "new", "s"))
        async with asyncio.timeout(10):
            while await listed(client, prefix) != [b"new"]:
                await asyncio.sleep(0.01)
        assert await ids(service) == ["new"]


async def test_a_user_who_was_erased_leaves_the_list(
    service: RedisSessionService, client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """At once, if nothing of theirs can be on its way any more."""
    await service.create_session(SessionKey("app", "a", "s"))
    await service.create_session(SessionKey("app", "b", "s"))
    await client.unlink(f"{prefix}appcalls:{{app}}")
    await service.delete_user(UserKey("app", "a"))
    assert await listed(client, prefix) == [b"b"]


async def test_who_is_about_to_come_is_not_taken_off(cluster: servers.Cluster, prefix: str) -> None:
    """On a cluster, between the step that lists a user and the one that makes something."""
    async with (
        RedisCluster(servers.LOOPBACK, cluster.nodes[0].port) as client,
        RedisSessionService(client, key_prefix=prefix) as service,
        RedisSessionService(client, key_prefix=prefix, timeout=1) as hasty,
    ):
        user = UserKey("app", "a")
        users = users_of(service)
        await users.enlist(user, session=True, state=False, rest=None)
        until = await client.zscore(f"{prefix}appcalls:{{app}}", "+a") or 0
        await users_of(hasty).enlist(user, session=True, state=False, rest=None)
        assert (await client.zscore(f"{prefix}appcalls:{{app}}", "+a") or 0) >= until > 0
        await users.drop(user)
        assert await ids(service) == []
        assert await listed(client, prefix) == [b"a"]
        await service.delete_user(user)
        assert await listed(client, prefix) == []


async def test_whoever_looked_long_ago_takes_nobody_off(
    service: RedisSessionService, client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """Somebody may have come since, and not be protected any more."""
    await client.zadd(f"{prefix}users:{{app}}", {"a": 0, "": 0})
    seconds, microseconds = await (
        client.time()
        if isinstance(client, redis.asyncio.Redis)
        else client.time(target_nodes=client.get_node_from_key("{app}"))
    )
    now = seconds * 1_000_000 + microseconds
    users = users_of(service)
    assert await users._with_anything("app", ["a"], now - 61_000_000) == []
    assert await listed(client, prefix) == [b"a"]
    assert await users._with_anything("app", ["a"], now - 50_000_000) == []
    assert await listed(client, prefix) == []


async def test_a_late_copy_takes_nobody_off(
    service: RedisSessionService, client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """An erasure's last step comes twice, and the user has come again in between."""
    users = users_of(service)
    keys = [f"{prefix}users:{{app}}", f"{prefix}appcalls:{{app}}"]
    words = [*_DROP.words(id="once", since=""), "a"]
    for there in ([], [b"a"]):
        await client.zadd(keys[0], {"a": 0})
        await users._calls.run("app", _DROP, keys, words)
        assert await listed(client, prefix) == there


async def test_a_list_that_is_not_ours_is_told(
    service: RedisSessionService, client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """Nothing is made beside data of somebody else's."""
    await client.set(f"{prefix}users:{{app}}", "theirs")
    with pytest.raises(CodecError, match="not ours"):
        await service.list_users("app")
    with pytest.raises(CodecError, match="not ours"):
        await service.create_session(SessionKey("app", "a", "s"))
    with pytest.raises(CodecError, match="not ours"):
        await service.update_user_state(UserKey("app", "a"), {"n": 1})
    assert await service.get_session(SessionKey("app", "a", "s")) is None
    assert await service.get_user_state(UserKey("app", "a")) == {}


async def test_without_the_list_nothing_is_made(cluster: servers.Cluster, prefix: str) -> None:
    """On a cluster, where it comes first: so whoever has anything is on the list."""
    url = cluster.url
    app = next(f"app{n}" for n in range(99) if cluster.owner(f"{{app{n}}}") is cluster.nodes[0])
    user = next(
        f"u{n}" for n in range(99) if cluster.owner(f"{{{app}:u{n}}}") is not cluster.nodes[0]
    )
    key = SessionKey(app, user, "s")
    async with RedisSessionService.from_url(url, key_prefix=prefix, timeout=1) as service:
        assert await service.get_session(key) is None
        cluster.nodes[0].freeze()
        try:
            with pytest.raises(BackendError):
                await service.create_session(key)
        finally:
            cluster.nodes[0].thaw()
        assert await service.get_session(key) is None
        await service.create_session(key)
        assert await ids(service, app) == [user]


async def test_a_list_that_is_lost_is_not_empty(
    service: RedisSessionService, client: redis.asyncio.Redis | RedisCluster, prefix: str
) -> None:
    """Though somebody goes just then, who is taken for the last one on it otherwise."""
    for name in ("a", "b"):
        await service.create_session(SessionKey("app", name, "s"))
    assert await ids(service) == ["a", "b"]
    await client.unlink(f"{prefix}users:{{app}}")
    await service.delete_session(SessionKey("app", "b", "s"))
    assert await ids(service) == ["a"]
    await service.delete_session(SessionKey("app", "a", "s"))
    assert await ids(service) == []


async def test_whoever_a_slot_takes_along_is_not_missed(
    cluster: servers.Cluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that is on its way nobody is listed as if that were all; later all are there."""
    async with (
        RedisCluster(servers.LOOPBACK, cluster.nodes[0].port) as client,
        RedisSessionService(client, key_prefix=prefix) as service,
    ):
        names = [f"u{n:02}" for n in range(30)]
        for name in names:
            await service.create_session(SessionKey("app", name, "s"))
        backend = service.backend
        assert isinstance(backend, RedisBackend)
        users = users_of(service)
        tags = (await nodes_of(backend._calls, backend._keyspace, "app")).tags
        assert len(tags) == len(cluster.nodes)
        first, last = (cluster.owner(f"{{{tag}}}") for tag in (tags[0], tags[-1]))
        find = users._find

        async def find_and_move(app_name: str, tag: str) -> set[str]:
            found = await find(app_name, tag)
            if tag == tags[0]:
                move.move_all_keys()
            return found

        late = next(name for name in names if cluster.owner(f"{{app:{name}}}") is last)
        # The slot that leads to a node, and one whose keys go by between two looks.
        for tag, target in ((tags[0], None), (f"app:{late}", first)):
            await client.unlink(f"{prefix}users:{{app}}", f"{prefix}appcalls:{{app}}")
            move = servers.Move(cluster, f"{{{tag}}}", target)
            move.begin()
            monkeypatch.setattr(users, "_find", find_and_move)
            try:
                with pytest.raises(BackendUnavailableError, match="does not become complete"):
                    await service.list_users("app")
            finally:
                move.move_all_keys()
                move.end()
                monkeypatch.undo()
            assert await ids(service) == names


async def test_a_node_with_a_single_slot_is_found(prefix: str) -> None:
    """Also if nobody has told that it has one: the nodes themselves are asked."""
    with servers.cluster(2, spare=1) as cluster:
        async with RedisSessionService.from_url(cluster.url, key_prefix=prefix) as service:
            names = ["a", "b", "c", "d"]
            for name in names:
                await service.create_session(SessionKey("app", name, "s"))
            move = servers.Move(cluster, "{app:a}", cluster.nodes[-1])
            move.begin()
            move.move_all_keys()
            move.end()
            cluster.owner("{app}").ask("DEL", f"{prefix}users:{{app}}")
            assert await ids(service) == names
            backend = service.backend
            assert isinstance(backend, RedisBackend)
            nodes = await nodes_of(backend._calls, backend._keyspace, "app")
            assert (len(nodes.tags), nodes.settled) == (3, True)


async def test_a_list_is_not_complete_while_slots_move(
    cluster: servers.Cluster, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody is looked for again, since a key may have gone by; after some times it is told."""
    async with (
        RedisCluster(servers.LOOPBACK, cluster.nodes[0].port) as client,
        RedisSessionService(client, key_prefix=prefix) as service,
    ):
        await service.create_session(SessionKey("app", "a", "s"))
        users = users_of(service)
        looks: list[str] = []
        moves = [1]
        find = users._find

        async def find_while_a_slot_moves(app_name: str, tag: str) -> set[str]:
            looks.append(tag)
            if moves[0]:
                moves[0] -= 1
                move = servers.Move(cluster, "{elsewhere}")
                move.begin()
                move.move_all_keys()
                move.end()
                await service.get_app_state("elsewhere")
            return await find(app_name, tag)

        monkeypatch.setattr(users, "_find", find_while_a_slot_moves)
        assert await ids(service) == ["a"]
        assert len(looks) == 2 * len(cluster.nodes)
        await client.unlink(f"{prefix}appcalls:{{app}}")
        moves[0] = 100
        with pytest.raises(BackendError, match="does not become complete"):
            await service.list_users("app")
