"""What ``check()`` finds on real servers: every concern, and none where there is nothing wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from importlib.resources import files
from typing import Any

import pytest
import redis
import redis.asyncio

from agentsession import RedisSessionService, SessionKey
from agentsession.clock import system_clock
from agentsession.concerns import Concern
from agentsession.errors import BackendUnavailableError
from agentsession.redis import _keys as keys
from agentsession.redis._operations import diagnosis
from agentsession.redis._operations.diagnosis import diagnosed
from agentsession.retention import Retention
from harness import servers

SCRIPTS = files("agentsession.redis") / "_scripts"


@pytest.fixture(scope="module", params=sorted(servers.binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    """A server with nothing to report."""
    with servers.running(servers.binaries()[request.param], "--appendonly", "yes") as running:
        yield running


@pytest.fixture
async def admin(server: servers.Server) -> AsyncIterator[redis.asyncio.Redis]:
    """Its administrator, who leaves it as it was."""
    settings = {
        "appendonly": "yes",
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "min-replicas-to-write": "0",
        "replica-read-only": "yes",
        "save": "",
    }
    async with redis.asyncio.Redis.from_url(server.url) as client:
        yield client
        await client.replicaof("NO", "ONE")
        for name, value in settings.items():
            await client.config_set(name, value)
        await client.acl_deluser("weak")
        assert await client.keys() == []


async def checked(server: servers.Server, **options: Any) -> list[Concern]:
    async with RedisSessionService.from_url(server.url, **options) as service:
        return await service.check()


def codes(concerns: list[Concern]) -> list[tuple[str, str]]:
    return [(concern.code, concern.severity) for concern in concerns]


async def test_a_good_server_is_no_concern(
    server: servers.Server, admin: redis.asyncio.Redis
) -> None:
    """With an append-only file, no eviction and all rights there is nothing to report."""
    assert await checked(server, session_ttl=60, key_prefix="prod:") == []
    assert await checked(server, connections=3) == []


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-ttl"])
async def test_eviction(server: servers.Server, admin: redis.asyncio.Redis, policy: str) -> None:
    """Of all keys always, of volatile ones if there are any; a danger once memory is limited."""
    await admin.config_set("maxmemory-policy", policy)
    latent = await checked(server, session_ttl=60)
    assert codes(latent) == [("eviction", "warning")]
    assert f"as soon as it has a maxmemory (maxmemory-policy {policy})" in latent[0].message
    await admin.config_set("maxmemory", "1gb")
    found = await checked(server, user_state_ttl=60)
    assert codes(found) == [("eviction", "danger")]
    assert "set it to noeviction" in found[0].message
    for_ever = await checked(server)
    assert bool(for_ever) == policy.startswith("allkeys-")


async def test_no_append_only_file(server: servers.Server, admin: redis.asyncio.Redis) -> None:
    """A warning that says what a crash loses."""
    await admin.config_set("appendonly", "no")
    found = await checked(server)
    assert codes(found) == [("no_append_only_file", "warning")]
    assert "loses all writes since its last snapshot, and everything if it makes none" in str(
        found[0]
    )


async def test_a_full_server(server: servers.Server, admin: redis.asyncio.Redis) -> None:
    """The same concern however many commands say so."""
    await admin.config_set("maxmemory", 1)
    assert codes(await checked(server)) == [("memory_full", "danger")]


async def test_missing_replicas(server: servers.Server, admin: redis.asyncio.Redis) -> None:
    """A server that insists on replicas, and has none, takes no writes."""
    await admin.config_set("min-replicas-to-write", 1)
    found = await checked(server)
    assert codes(found) == [("writes_refused", "danger")]
    assert "min-replicas-to-write" in found[0].message


async def test_a_disk_that_fails(server: servers.Server, admin: redis.asyncio.Redis) -> None:
    """A snapshot that fails is a danger, and so is that the server stops taking writes for it."""
    await admin.config_set("save", "3600 1")
    in_the_way = server.socket.parent / "dump.rdb"
    in_the_way.mkdir()
    await saved(admin, "err")
    assert codes(await checked(server)) == [
        ("writes_refused", "danger"),
        ("persistence_failing", "danger"),
    ]
    in_the_way.rmdir()
    await saved(admin, "ok")
    assert await checked(server) == []


async def saved(admin: redis.asyncio.Redis, status: str) -> None:
    """Save in the background, until it ends like this."""
    async with asyncio.timeout(10):
        while (await admin.info("persistence"))["rdb_last_bgsave_status"] != status:
            with suppress(redis.ResponseError):  # One is under way.
                await admin.bgsave()
            await asyncio.sleep(0.005)


async def test_replicas(server: servers.Server, admin: redis.asyncio.Redis) -> None:
    """One that refuses writes, and one that takes them and will forget them."""
    await admin.replicaof("127.0.0.1", 1)
    found = await checked(server)
    assert codes(found) == [("read_only", "danger")]
    assert "connect to its primary" in found[0].message
    await admin.config_set("replica-read-only", "no")
    assert codes(await checked(server)) == [("writable_replica", "danger")]


async def weakened(
    server: servers.Server, admin: redis.asyncio.Redis, *rules: str
) -> list[Concern]:
    """Check as a user with all rights but these."""
    server.ask("ACL", "SETUSER", "weak", "reset", "on", ">pw", "allchannels", *rules)
    return await checked(server, client_options={"username": "weak", "password": "pw"})


async def test_scripts_that_are_denied(server: servers.Server, admin: redis.asyncio.Redis) -> None:
    """The right to run them, and the right to our keys."""
    for rules in (
        ("allkeys", "+@all", "-evalsha"),
        ("allkeys", "+@connection"),
        ("+@all", "~session:*", "~events:*"),
    ):
        found = await weakened(server, admin, *rules)
        assert codes(found) == [("rights_missing", "danger")]
        assert "permission" in found[0].message
        assert "grant its user EVAL, EVALSHA" in found[0].message
    patterns = [f"~{kind}:*" for kind in kinds()]
    assert await weakened(server, admin, "+@all", *patterns) == []
    for pattern in patterns:
        others = [each for each in patterns if each != pattern]
        assert codes(await weakened(server, admin, "+@all", *others)) == [
            ("rights_missing", "danger")
        ]


@pytest.mark.parametrize("kind", sorted(servers.binaries()))
async def test_a_server_without_scripts(kind: str) -> None:
    """Some who run servers take the commands away by renaming them."""
    options = ("--rename-command", "EVALSHA", "", "--appendonly", "yes")
    with servers.running(servers.binaries()[kind], *options) as server:
        found = await checked(server)
    assert codes(found) == [("rights_missing", "danger")]
    assert "unknown command" in found[0].message


async def test_commands_that_are_denied(server: servers.Server, admin: redis.asyncio.Redis) -> None:
    """Each is found, all are named at once, and nothing is left behind."""
    for command in sorted(used_by_scripts()):
        found = await weakened(server, admin, "allkeys", "+@all", f"-{command}")
        assert codes(found) == [("rights_missing", "danger")], command
        assert f"commands that the scripts use: {command} (" in found[0].message
    found = await weakened(server, admin, "allkeys", "+@all", "-zadd", "-time")
    assert "TIME, ZADD (" in found[0].message


async def test_a_server_that_tells_nothing(
    server: servers.Server, admin: redis.asyncio.Redis
) -> None:
    """Without INFO the rest is looked at all the same."""
    await admin.config_set("maxmemory-policy", "allkeys-lru")
    found = await weakened(server, admin, "allkeys", "+@all", "-info")
    assert codes(found) == [("unobservable", "warning")]
    found = await weakened(server, admin, "allkeys", "+@all", "-info", "-hset")
    assert codes(found) == [("rights_missing", "danger"), ("unobservable", "warning")]


@pytest.mark.parametrize(
    ("seconds", "words"), [(-90, "seconds ahead of this process's"), (30, "seconds behind this")]
)
async def test_clocks_that_differ(
    server: servers.Server,
    admin: redis.asyncio.Redis,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    words: str,
) -> None:
    """By more than a second, in either direction."""
    monkeypatch.setattr(diagnosis, "system_clock", lambda: system_clock() + int(seconds * 1e6))
    found = await checked(server)
    assert codes(found) == [("clock_skew", "warning")]
    told = re.search(r"the server's clock is ([0-9.]+) ", found[0].message)
    assert told
    assert abs(seconds) - 10 < float(told[1]) <= abs(seconds)
    assert words in found[0].message


def test_a_slow_reply_is_no_skew() -> None:
    """The server's present may be any moment between sending and receiving."""
    reply: list[Any] = [b"1", b"found", 9_000_000, [b"a:b"] * 4, []]
    assert diagnosed(reply, Retention(), 2_000_000, 20_000_000) == []
    assert codes(diagnosed(reply, Retention(), 10_000_001, 20_000_000)) == [
        ("clock_skew", "warning")
    ]
    assert diagnosed(reply, Retention(), 10_000_000, 20_000_000) == []
    assert diagnosed(reply, Retention(), 0, 8_000_000) == []
    assert len(diagnosed(reply, Retention(), 0, 7_999_999)) == 1


@pytest.mark.parametrize(
    ("version", "old"),
    [(b"6.0.16", True), (b"5.0", True), (b"6.2.0", False), (b"7.2.4", False), (b"10.0", False),
     (b"unknown", False)],
)  # fmt: skip
def test_old_servers(version: bytes, old: bool) -> None:
    """Older than 6.2, where a version is told; no such server is at hand to be asked."""
    reply: list[Any] = [b"1", b"found", None, [b"redis_version:" + version, b"a:b", b"a:b"], []]
    found = diagnosed(reply, Retention(), 0, 0)
    assert codes(found) == ([("server_too_old", "danger")] if old else [])


async def test_an_absent_server_is_an_error(tmp_path: Any) -> None:
    """Of which nothing can be reported."""
    async with RedisSessionService.from_url(f"unix://{tmp_path}/nothing") as service:
        with pytest.raises(BackendUnavailableError):
            await service.check()


def kinds() -> list[str]:
    """Name the kinds of keys that there are, as documented."""
    return re.findall(r"^(\w+):\{", keys.__doc__ or "", re.MULTILINE)


def used_by_scripts() -> set[str]:
    """Name the commands that scripts run, but for this one, and its libraries."""
    texts = [
        each.read_text()
        for folder in (SCRIPTS, SCRIPTS / "lib")
        for each in folder.iterdir()
        if each.name.endswith(".lua") and each.name != "check.lua"
    ]
    used = {name for text in texts for name in re.findall(r"call\(\s*'([A-Z]+)'", text)}
    return used - {"CLUSTER"}  # On a cluster alone, and only to list users.


def test_every_command_of_every_script_is_tried() -> None:
    """A script that begins to use another command must have it tried here."""
    tried = set(re.findall(r"(?:try\(|\{ )'([A-Z]+)'", (SCRIPTS / "check.lua").read_text()))
    assert tried == used_by_scripts()


async def test_a_data_set_of_the_same_name_is_safe(
    server: servers.Server, admin: redis.asyncio.Redis
) -> None:
    """An application or a user called ``check`` is none of the check's business."""
    async with RedisSessionService.from_url(server.url) as service:
        key = SessionKey("check", "check", "check")
        session = await service.create_session(key, {"a": 1, "user:b": 1, "app:c": 1})
        assert await service.check() == []
        assert await service.get_session(key) == session
        await service.delete_user(key.user)
        await service.delete_app_state("check", "c")
        # These would go by themselves in a minute.
        await admin.delete("appcalls:{check}", "usercalls:{check:check}")
