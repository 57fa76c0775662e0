"""ADK's own commands with a store of ours, chosen by a URI: as its users run them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.adk")

import httpx

from adapters.processes import ROOT
from agentsession import SessionKey
from agentsession.adapters.google_adk import SessionService, open_session_service, register
from agentsession.blocking import open_service
from harness.servers import free_ports

SERVICES_PY = """
from agentsession.adapters import google_adk

google_adk.register(key_prefix={prefix!r})
"""
SERVICES_YAML = """
services:
  - scheme: agentsession+{scheme}
    type: session
    class: agentsession.adapters.google_adk.open_session_service
"""
AGENT_PY = """
from adapters.programs.adk_agent import agent_of

root_agent = agent_of()
"""
SESSIONS = "/apps/bot/users/ada/sessions"
DEADLINE = 60


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    """A folder of agents with one in it."""
    bot = tmp_path / "bot"
    bot.mkdir()
    (bot / "__init__.py").write_text("from . import agent\n")
    (bot / "agent.py").write_text(AGENT_PY)
    return tmp_path


@contextmanager
def adk(command: str, agents: Path, uri: str) -> Iterator[httpx.Client]:
    """Run one of ADK's servers; in the end it is killed."""
    (port,) = free_ports(1)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    arguments = [command, "--port", str(port), "--session_service_uri", uri, str(agents)]
    log = agents / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "google.adk.cli", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": path},
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as client:
            wait_for(client, process, log)
            yield client
    finally:
        process.kill()
        process.wait()


def wait_for(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            client.get("/list-apps").raise_for_status()
        except httpx.TransportError:
            if process.poll() is not None:
                pytest.fail(f"the server has ended: {log.read_text()}")
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def run(client: httpx.Client, text: str) -> list[dict[str, Any]]:
    """Run a turn; return its events."""
    answer = client.post(
        "/run",
        json={
            "app_name": "bot",
            "user_id": "ada",
            "session_id": "chat",
            "new_message": {"role": "user", "parts": [{"text": text}]},
        },
    )
    answer.raise_for_status()
    events: list[dict[str, Any]] = answer.json()
    return events


def said(events: list[dict[str, Any]]) -> list[str]:
    return [part["text"] for each in events for part in each["content"]["parts"] if "text" in part]


@pytest.mark.parametrize("command", ["api_server", "web"])
def test_a_server_that_was_killed_goes_on(
    agents: Path, valkey_url: str, store_prefix: str, command: str
) -> None:
    """Sessions, state and turns are there for the next one, through its HTTP interface."""
    (agents / "services.py").write_text(SERVICES_PY.format(prefix=store_prefix))
    uri = f"agentsession+{valkey_url}"
    with adk(command, agents, uri) as client:
        made = client.post(SESSIONS, json={"session_id": "chat", "state": {"user:name": "Ada"}})
        assert made.json()["state"] == {"user:name": "Ada"}
        again = client.post(SESSIONS, json={"session_id": "chat"})
        assert again.status_code == 409
        assert said(run(client, "one")) == ["one: 3"]
    with adk(command, agents, uri) as client:
        assert said(run(client, "two")) == ["two: 7"]
        client.patch(f"{SESSIONS}/chat", json={"state_delta": {"n": 1}}).raise_for_status()
        found = client.get(f"{SESSIONS}/chat").json()
        assert found["state"] == {"user:name": "Ada", "n": 1}
        assert len(found["events"]) == 9
        assert [each["id"] for each in client.get(SESSIONS).json()] == ["chat"]
        client.post(SESSIONS, json={"session_id": "gone"}).raise_for_status()
        client.delete(f"{SESSIONS}/gone").raise_for_status()
        assert client.get(f"{SESSIONS}/gone").status_code == 404
    with open_service(valkey_url, key_prefix=store_prefix) as service:
        events = service.get_events(SessionKey("bot", "ada", "chat"))
    assert [each.result for event in events for each in event.tool_results] == [
        "It rains in Oslo."
    ] * 2
    assert not list(agents.glob("**/*.db"))


def test_a_yaml_file_does_as_well(agents: Path) -> None:
    """Without a line of code; here with this process's memory."""
    (agents / "services.yaml").write_text(SERVICES_YAML.format(scheme="memory"))
    with adk("api_server", agents, "agentsession+memory://") as client:
        client.post(SESSIONS, json={"session_id": "chat"}).raise_for_status()
        assert said(run(client, "one")) == ["one: 3"]
        assert said(run(client, "two")) == ["two: 7"]


def test_all_stores_have_a_scheme() -> None:
    """And what is not ours stays the framework's."""
    from google.adk.cli.service_registry import ServiceRegistry

    registry = ServiceRegistry()
    register(registry)
    for url in (
        "memory://",
        "redis://localhost:1/0",
        "rediss://localhost:1",
        "unix:///no/socket",
        "redis+cluster://localhost:1",
        "redis+sentinel://localhost:1/main",
    ):
        made = registry.create_session_service(f"agentsession+{url}", agents_dir="agents")
        assert isinstance(made, SessionService)
        # Nothing was connected: there is nothing at these places.
        assert registry.create_session_service(url) is None


def test_a_wrong_uri_or_option_says_so() -> None:
    """When the command starts, and not with the first request."""
    with pytest.raises(ValueError, match="no store has a URL like this"):
        open_session_service("agentsession+mysql://localhost")
    with pytest.raises(TypeError, match="no store has an option 'prefix'"):
        open_session_service("memory://", prefix="x")  # type: ignore[call-arg]
