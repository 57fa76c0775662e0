"""How the package presents itself: errors, clones, words."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="LangGraph is not installed")

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from adapters.alone.langgraph.checkpoints import KEY, THREAD, newest, places, put
from agentsession import InMemorySessionService, SessionService
from agentsession.adapters._langgraph.records import deletion_id
from agentsession.adapters.langgraph import Checkpointer, CheckpointIncompleteError
from agentsession.blocking import BlockingSessionService
from agentsession.blocking import open_service as open_blocking
from agentsession.errors import EventLoopError


async def test_calls_that_block_say_what_to_await(service: SessionService) -> None:
    """On a service that is awaited, and where a loop would be blocked."""
    with pytest.raises(RuntimeError, match=r"await aget_tuple\(\).*agentsession.blocking"):
        Checkpointer(service).get_tuple(THREAD)
    with open_blocking_in_thread() as blocking:
        with pytest.raises(EventLoopError) as caught:
            [*Checkpointer(blocking).list(THREAD)]
        assert caught.value.__notes__ == [
            "Of a Checkpointer: await alist(), or run the graph with ainvoke() or astream()."
        ]


@contextmanager
def open_blocking_in_thread() -> Iterator[BlockingSessionService]:
    """A service that is closed where no loop runs."""
    opened = open_blocking("memory://", session_event_limit=None)
    try:
        yield opened
    finally:
        opened._thread.close()


def test_versions_of_forks_differ() -> None:
    """Two branches that both count on from one version do not share values."""
    saver = Checkpointer(InMemorySessionService())
    first = saver.get_next_version(None, None)
    left, right = saver.get_next_version(first, None), saver.get_next_version(first, None)
    assert first < min(left, right)
    assert left != right
    assert int(saver.get_next_version(41, None).partition(".")[0]) == 42  # type: ignore[arg-type]


def test_a_clone_with_another_serializer_shares_what_is_known() -> None:
    """LangGraph makes one when a graph names types."""
    serde = JsonPlusSerializer(allowed_msgpack_modules=[("module", "Name")])
    saver = Checkpointer(InMemorySessionService(), serde=serde)
    clone = saver.with_allowlist([("module", "Other")])
    assert isinstance(clone, Checkpointer)
    assert clone.serde is not saver.serde
    assert clone._access is saver._access


def test_without_langgraph_it_says_what_to_install() -> None:
    """The package is an extra."""
    blocked = "import sys; sys.modules['langgraph'] = None; import agentsession.adapters.langgraph"
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True)
    assert "ImportError: this adapter needs its extra, which cannot be imported" in done.stderr
    assert ": pip install 'agentsession[langgraph]'" in done.stderr


def test_it_shows_what_it_is_on() -> None:
    """In a debugger."""
    shown = repr(Checkpointer(InMemorySessionService()))
    assert shown.startswith("<Checkpointer on <InMemorySessionService")


def test_only_a_service_will_do() -> None:
    """A URL is no service."""
    with pytest.raises(TypeError, match="not str"):
        Checkpointer("memory://")  # type: ignore[arg-type]


def test_errors_survive_pickling() -> None:
    """As all errors of the library."""
    error = CheckpointIncompleteError(KEY, "ns", "id", "itself")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.key, copy.lacks) == (str(error), KEY, "itself")
    assert "delete_thread()" in str(error)


async def test_ids_may_hold_anything(service: SessionService) -> None:
    """Quotes, slashes, numbers: none of them leads to another's data."""
    saver = Checkpointer(service)
    namespaces = ['a"', "a", 'a","b', "a/b", "ä|ö:1", "a\\"]
    for number, namespace in enumerate(namespaces):
        config: RunnableConfig = {
            "configurable": {"thread_id": 'th"/read', "checkpoint_ns": namespace}
        }
        stored = await put(saver, number, config, value=f"{namespace} " * 200)
        await saver.aput_writes(stored, [("a", namespace)], 'ta"sk')
    for namespace in namespaces:
        config = {"configurable": {"thread_id": 'th"/read', "checkpoint_ns": namespace}}
        found = await newest(Checkpointer(service), config)
        assert found.checkpoint["channel_values"] == {"value": f"{namespace} " * 200}
        assert places(found) == [('ta"sk', "a", namespace)]
    assert deletion_id("a", "b") != deletion_id('a","b', "")
