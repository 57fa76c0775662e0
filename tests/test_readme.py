"""Every Python block of the README runs, in order, as a reader would paste them."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx2
import pytest
import redis.asyncio

from agentsession import errors
from agentsession.redis._keys import Keyspace

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
async def pasted(valkey_url: str) -> dict[str, Any]:
    """The names that are there after all blocks were run, on an empty server."""
    async with redis.asyncio.Redis.from_url(valkey_url) as client:
        await client.flushall()
    names: dict[str, Any] = {"__name__": "readme"}
    for block in BLOCKS:
        source = block.replace("redis://localhost:6379/0", valkey_url)
        code = compile(
            source, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, names)
        else:
            await anyio.to_thread.run_sync(exec, code, names)
    return names


async def test_every_block_runs(pasted: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The blocks run, and do what the words around them say."""
    assert len(BLOCKS) >= 7
    assert pasted["answers"][0].content == "There is TP 571."
    assert [event.seq for event in pasted["last_two"].events] == [3, 4]
    assert pasted["stored"].content == "exactly once"


async def test_the_first_block_prints_what_the_text_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its output is the one that is quoted."""
    await anyio.to_thread.run_sync(exec, BLOCKS[0], {"__name__": "readme"})
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["Turn 1: hello", "Turn 2: again"]
    assert all(f"`{line}`" in README for line in printed)


async def test_the_fastapi_service_keeps_the_conversation(pasted: dict[str, Any]) -> None:
    """Over HTTP, a second message goes on where the first left off; a wrong call is a 422."""
    app = pasted["app"]
    url = "/users/bob/sessions/s1/messages"
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client,
    ):
        for number, word in enumerate(("a lamp", "a chair"), 1):
            response = await client.post(url, json={"message": word})
            assert response.status_code == 200
            assert response.json() == {"answers": [f"{number} in your cart"]}
        assert (await client.post(url, json={})).status_code == 422


async def test_a_careful_service_looks_first(
    pasted: dict[str, Any], valkey_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning is logged, a danger keeps the application from starting."""
    app, lifespan = pasted["app"], pasted["careful_lifespan"]
    async with lifespan(app):
        assert "sessions: warning: the server keeps no append-only file" in caplog.text
    async with redis.asyncio.Redis.from_url(valkey_url) as admin:
        await admin.config_set("maxmemory-policy", "allkeys-lru")
        await admin.config_set("maxmemory", "1gb")
        try:
            with pytest.raises(SystemExit, match="eviction: the server deletes sessions"):
                await anext(lifespan(app).gen)
        finally:
            await admin.config_set("maxmemory", "0")
            await admin.config_set("maxmemory-policy", "noeviction")


def test_the_tree_of_errors_is_the_real_one() -> None:
    """The tree in the README is the one in the docstring of the module."""
    tree = re.search(r"```\n(AgentSessionError\n.*?)```", README, re.DOTALL)
    assert tree is not None
    assert errors.__doc__ is not None
    assert [line.strip() for line in tree[1].splitlines()] == [
        line.strip() for line in errors.__doc__.splitlines() if "Error" in line and "  " in line
    ][: len(tree[1].splitlines())]


def test_the_table_of_keys_names_all_that_is_stored() -> None:
    """Nothing is kept on a server that the README does not list, and the other way round."""
    listed = re.findall(r"^\| `(\w+):\{", README, re.MULTILINE)
    kept = [key.partition(":")[0] for key in Keyspace().scratch("")]
    assert sorted(listed) == sorted(kept)


def test_the_commands_are_in_the_noxfile() -> None:
    """The two commands that do everything name sessions that exist."""
    noxfile = (Path(__file__).parent.parent / "noxfile.py").read_text(encoding="utf-8")
    sessions = re.findall(r"python -m pip install nox && nox -s (\w+)", README)
    assert sessions == ["demo", "tests"]
    assert all(f"def {session}(" in noxfile for session in sessions)
