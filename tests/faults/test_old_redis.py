"""What Redis 6.2 says in other words, and a server that is demoted where it is."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.redis._core.errors import ServerError
from harness import servers
from harness.proxy import proxied

KEY = SessionKey("app", "user", "session")

# What Redis 6.2.14 answered, word for word; a script's hash is of no matter.
BEGINNING = "ERR Error running script (call to f_db8d8f6383e1a67ce23db65efd679a334c123806): "
ANSWERS = {
    "READONLY": "@user_script:1: @user_script: 1: -READONLY You can't write against a read only "
    "replica.",
    "NOREPLICAS": "@user_script:12: @user_script: 12: -NOREPLICAS Not enough good replicas to "
    "write.",
    "OOM": "@user_script:1: @user_script: 1: -OOM command not allowed when used memory > "
    "'maxmemory'.",
    "WRONGTYPE": "@user_script:3: WRONGTYPE Operation against a key holding the wrong kind of "
    "value",
    "NOPERM": "@user_script:1: @user_script: 1: The user executing the script can't run this "
    "command or subcommand",
    "ERR": "@user_script:1: user_script:1: Script attempted to access nonexistent global variable "
    "'foo'",
}


@pytest.mark.parametrize("code", ANSWERS)
def test_a_refusal_inside_a_script_has_its_code(code: str) -> None:
    """Redis 6 words it as an error of the script, with the code further on."""
    assert ServerError(BEGINNING + ANSWERS[code]).code == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("NOSCRIPT No matching script. Please use EVAL.", "NOSCRIPT"),
        ("READONLY You can't write. script: f_1, on @user_script:1.", "READONLY"),
        ("ERR unknown command 'ERR Error running script'", "ERR"),
        ("OOM", "OOM"),
    ],
)
def test_any_other_answer_begins_with_its_code(text: str, code: str) -> None:
    """As all do since Redis 7."""
    assert ServerError(text).code == code


@pytest.fixture(params=sorted(servers.binaries()))
def pair(request: pytest.FixtureRequest) -> Iterator[list[servers.Node]]:
    """A server, and another one that replicates it."""
    program = servers.binaries()[request.param]
    with tempfile.TemporaryDirectory(prefix="agentsession-") as parent, ExitStack() as stack:
        nodes = []
        for port in servers.free_ports(2):
            folder = Path(parent) / str(port)
            folder.mkdir()
            node = servers.Node(program, folder, port, "--repl-diskless-sync-delay", "0")
            stack.callback(node.stop)
            node.start()
            nodes.append(node)
        primary, replica = nodes
        replica.ask("REPLICAOF", servers.LOOPBACK, primary.port)
        servers.eventually(lambda: replica.ask("ROLE")[3] == "connected")
        yield nodes


async def test_who_stays_at_one_address_finds_the_new_primary(pair: list[servers.Node]) -> None:
    """A demoted server keeps its connections open; what it refuses goes over a new one."""
    primary, replica = pair
    async with (
        proxied(primary.url) as address,
        RedisSessionService.from_url(address.url, timeout=5) as service,
    ):
        await service.create_session(KEY)
        primary.settle(1)
        replica.ask("REPLICAOF", "NO", "ONE")
        address._target = replica.url
        primary.ask("REPLICAOF", servers.LOOPBACK, replica.port)
        async with asyncio.timeout(4):
            stored = await service.append_event(KEY, Event(author="user", content="x"))
        assert stored.seq == 1
    async with RedisSessionService.from_url(replica.url) as service:
        assert [event.content for event in await service.get_events(KEY)] == ["x"]
