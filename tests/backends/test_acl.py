"""Rights: what a user on the server needs, no more and no less, and what is documented of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentsession
from agentsession import Event, RedisSessionService, SessionKey
from agentsession.backend import Backend
from agentsession.errors import BackendError, OutcomeUnknownError
from agentsession.redis._addresses import read_url
from agentsession.redis._backend import RedisBackend
from agentsession.redis._targets.making import LinkOptions, link_to
from agentsession.retention import Retention
from agentsession.testing import CHECKS, Check
from harness import servers
from harness.subjects import RedisSubject

COMMANDS = (
    "+eval +evalsha +exists +hdel +hget +hgetall +hlen +hmget +hset +persist +pexpire +ping +pttl "
    "+publish +scan +subscribe +time +unlink +unsubscribe +zadd +zcard +zcount +zrange "
    "+zrangebylex +zrangestore +zrank +zrem +zremrangebyrank +zremrangebyscore +zrevrange "
    "+zrevrangebyscore +zscore"
)
# Without these, turns that wait are not told when it is their turn, and ask for it.
FOR_NEWS = ("+ping", "+publish", "+subscribe", "+unsubscribe")
CLUSTER_COMMANDS = "+asking +cluster|slots +cluster|nodes"
# Without these, followers are not told in a cluster, and look.
FOR_NEWS_OF_SLOTS = "+spublish +ssubscribe +sunsubscribe"
PACKAGE = Path(agentsession.__file__).parent
DOCUMENTED = (Path(__file__).parents[2] / "docs" / "redis.md").read_text(encoding="utf-8")
KEY = SessionKey("app", "user", "session")


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Node]:
    with servers.alone() as running:
        yield running


def allow(node: servers.Server, prefix: str, commands: str) -> None:
    """Make a user, or the one that is there another one, with these rights alone."""
    names = f"~{prefix}*", f"&{prefix}*"
    node.ask("ACL", "SETUSER", "agents", "reset", "on", ">s3cret", *names, *commands.split())


class RestrictedSubject(RedisSubject):
    """A key prefix of its own, and a user who may do nothing else."""

    def __init__(self, node: servers.Node) -> None:
        super().__init__(node.url)
        allow(node, self.prefix, COMMANDS)

    def open(self, retention: Retention) -> Backend:
        login = {"username": "agents", "password": "s3cret", "protocol": 3}
        link = link_to(read_url(self.url), login, LinkOptions(timeout=10))
        return RedisBackend(retention, link, key_prefix=self.prefix)


def test_the_documentation_says_what_is_tested() -> None:
    """The line that users copy has the very rights that these tests use."""
    line = re.search(r"^ACL SETUSER agents (.*)$", DOCUMENTED, re.MULTILINE)
    assert line is not None
    assert line[1] == f"on >password ~prod:* &prod:* {COMMANDS}"
    for command in (
        *CLUSTER_COMMANDS.split(),
        *FOR_NEWS_OF_SLOTS.split(),
        "+select",
        "+sentinel|masters",
        "+wait",
        "+waitaof",
        "+info",
    ):
        assert f"`{command}`" in DOCUMENTED


def test_the_rights_are_those_of_the_scripts() -> None:
    """Whoever makes a script use another command is told to document it."""
    scripts = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.lua")]
    used = {
        name.lower() for text in scripts for name in re.findall(r"\bp?call\(\s*'([A-Z]+)'", text)
    }
    used.remove("info")  # check() alone asks for it, and says so where it is denied
    used.remove("cluster")  # on a cluster alone
    of_links = {"+eval", "+evalsha", "+ping", "+subscribe", "+unsubscribe"}
    assert {f"+{name}" for name in used} | of_links == set(COMMANDS.split())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance_with_these_rights(check: Check, server: servers.Node) -> None:
    """Nothing else is needed for any promise."""
    async with RestrictedSubject(server) as subject:
        await check(subject)


async def everything(url: str) -> None:
    """Do all that needs a right."""
    options = {"username": "agents", "password": "s3cret"}
    fresh = SessionKey("app", "user", "fresh")
    state = {"a": 1, "user:b": 1, "app:c": 1}
    async with (
        RedisSessionService.from_url(
            url, client_options=options, key_prefix="p:", session_ttl=60, session_event_limit=2
        ) as service,
        RedisSessionService.from_url(url, client_options=options, key_prefix="p:") as for_ever,
    ):
        session = await service.get_or_create_session(KEY, state)
        for n in range(3):
            await service.append_event(session, Event(author="a", content="x", id=str(n)))
        await service.append_event(KEY, Event(author="a", content="y", state_delta=state))
        await service.append_event(KEY, Event(author="a", content="x", id="2"))
        await service.get_session(KEY, since=session.created_at, after_seq=1)
        await service.get_events(KEY, around="2")
        await service.fork(KEY, fresh)
        await service.delete_session(fresh)
        await service.delete_session_state(KEY, "a")
        await service.list_sessions(KEY.user)
        await service.list_users("app")
        await for_ever.append_event(KEY, Event(author="a", content="z"))
        await service.create_session(fresh)
        await service.delete_session(fresh)
        await service.get_app_state("app")
        await service.delete_user(KEY.user)


@pytest.mark.parametrize("right", [each for each in COMMANDS.split() if each not in FOR_NEWS])
async def test_each_right_is_needed(server: servers.Node, right: str) -> None:
    """Without it, an error says which one is missing; with all of them, there is none."""
    server.ask("FLUSHALL")
    server.ask("SCRIPT", "FLUSH")
    allow(server, "p:", COMMANDS.replace(f"{right} ", "").removesuffix(f" {right}"))
    with pytest.raises(BackendError, match=f"(?i){right[1:]}"):
        await everything(server.url)
    server.ask("FLUSHALL")
    allow(server, "p:", COMMANDS)
    await everything(server.url)


@pytest.mark.parametrize("left_out", [*FOR_NEWS, "&p:*"])
async def test_without_news_turns_ask(server: servers.Node, left_out: str) -> None:
    """Whoever waits has its turn all the same, a little later, and nothing is an error."""
    server.ask("FLUSHALL")
    allow(server, "p:", COMMANDS.replace(f"{left_out} ", ""))
    if left_out == "&p:*":
        server.ask("ACL", "SETUSER", "agents", "resetchannels")
    login = {"username": "agents", "password": "s3cret"}
    async with RedisSessionService.from_url(
        server.url, client_options=login, key_prefix="p:"
    ) as service:
        await service.create_session(KEY)
        lease = service.lease(KEY)
        await lease.acquire()
        async with asyncio.TaskGroup() as group:
            waiting = service.lease(KEY)
            taken = group.create_task(waiting.acquire())
            while server.ask("HGET", "p:session:{app:user}:session", "line") is None:
                await asyncio.sleep(0)
            await lease.release()
        assert taken.done()
        assert waiting.held
    server.ask("FLUSHALL")


@pytest.mark.parametrize(
    ("options", "right"), [({"ack_replicas": 1}, "wait"), ({"ack_fsync": True}, "waitaof")]
)
async def test_acknowledgement_needs_one_more(
    server: servers.Node, options: dict[str, Any], right: str
) -> None:
    """Without it the write is there, and the error says which right is missing."""
    allow(server, "p:", COMMANDS)
    login = {"username": "agents", "password": "s3cret"}
    async with RedisSessionService.from_url(
        server.url, client_options=login, key_prefix="p:", **options
    ) as service:
        with pytest.raises(OutcomeUnknownError, match=f"(?i)written.*'{right}'"):
            await service.update_user_state(KEY.user, {"a": 1})
        assert await service.get_user_state(KEY.user) == {"a": 1}
    server.ask("FLUSHALL")


async def test_a_cluster_needs_three_more() -> None:
    """To learn where the slots are, to follow one that moves, and to miss no node of all."""
    with servers.cluster(2) as cluster:
        url = cluster.url.replace("://", "://agents:s3cret@")
        tag = "{app:user}"
        for left_out in ("", *CLUSTER_COMMANDS.split()):
            for node in cluster.nodes:
                allow(node, "p:", f"{COMMANDS} {CLUSTER_COMMANDS}".replace(left_out, "", 1))
            async with RedisSessionService.from_url(url, key_prefix="p:", timeout=3) as service:
                with expected(left_out):
                    await service.get_or_create_session(KEY)
                    await service.append_event(KEY, Event(author="a", content="x"))
                    move = servers.Move(cluster, tag)
                    move.begin()
                    move.move_all_keys()
                    try:
                        await service.append_event(KEY, Event(author="a", content="y"))
                    finally:
                        move.end()
                    assert not (await service.list_users(f"not one{left_out}")).users


async def test_followers_in_a_cluster_need_three_more() -> None:
    """To be told of what is stored at once, and of chunks at all."""
    with servers.cluster(1) as cluster:
        url = cluster.url.replace("://", "://agents:s3cret@")
        for left_out in ("", "+spublish", "+ssubscribe"):
            rights = f"{COMMANDS} {CLUSTER_COMMANDS} {FOR_NEWS_OF_SLOTS}"
            allow(cluster.nodes[0], "p:", rights.replace(left_out, "", 1))
            async with (
                RedisSessionService.from_url(url, key_prefix="p:", session_ttl=2) as service,
                service.subscribe(await service.create_session(KEY)) as items,
            ):
                said = asyncio.create_task(_say(service))
                async with asyncio.timeout(10):
                    item = await anext(items)
                    while isinstance(item, Event) and not (item.partial or item.seq == 5):
                        item = await anext(items)
                said.cancel()
                assert isinstance(item, Event)
                assert item.partial == (not left_out)
                await service.delete_session(KEY)


async def _say(service: RedisSessionService) -> None:
    for n in range(1, 100):
        await service.append_event(KEY, Event(author="a", content="x", partial=True))
        if n % 5 == 0:
            await service.append_event(KEY, Event(author="a", content=f"{n}"))
        await asyncio.sleep(0.1)


def expected(left_out: str) -> contextlib.AbstractContextManager[object]:
    """Expect an error that names the right, if one was left out."""
    if not left_out:
        return contextlib.nullcontext()
    return pytest.raises(BackendError, match=left_out[1:].replace("|", "."))
