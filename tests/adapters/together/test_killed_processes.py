"""A process that is killed in the middle of a turn, and another one that goes on."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from adapters.processes import program
from agentsession import SessionKey
from agentsession.blocking import open_service


# Of each framework its package, the program that runs turns of its agent, and how many calls are
# stored: one stores a call together with its result.
@pytest.mark.parametrize(
    ("package", "turns", "called"),
    [
        ("agents", "openai_agents_turns", 2),
        ("google.adk", "google_adk_turns", 3),
        ("trpc_agent_sdk", "trpc_agent_turns", 3),
    ],
)
def test_a_process_that_was_killed_goes_on(
    package: str, turns: str, called: int, valkey_url: str, store_prefix: str
) -> None:
    """In the middle of a call of a tool: what was stored before is there, once."""
    if not all(map(find_spec, (package.partition(".")[0], package))):
        pytest.skip(f"{package} is not there")
    where = (valkey_url, store_prefix, "chat")
    with program(turns, *where) as first:
        first.say("one")
        assert first.answer() == {"at": "tool"}
        first.say()
        assert first.answer() == {"said": "one: 3"}
        first.say("two")
        assert first.answer() == {"at": "tool"}
        first.kill()
    with program(turns, *where) as second:
        second.say("three")
        assert second.answer() == {"at": "tool"}
        second.say()
        said = second.answer()
    with open_service(valkey_url, key_prefix=store_prefix) as service:
        events = service.get_events(SessionKey("app", "user", "chat"))
    asked = [event.text for event in events if event.author == "user"]
    assert asked == ["one", "two", "three"]
    calls = [call.call_id for event in events for call in event.tool_calls]
    assert len(calls) == len(set(calls)) == called
    assert said["said"].startswith("three: ")
    assert events[-1].text == said["said"]
