"""Whose threads they are."""

from __future__ import annotations

import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="LangGraph is not installed")

from langchain_core.runnables import RunnableConfig

from adapters.alone.langgraph.checkpoints import THREAD, checkpoint, listed, newest, put
from agentsession import SessionKey, SessionService
from agentsession.adapters.langgraph import Checkpointer
from agentsession.sessions import UserKey


def by_user(thread_id: str) -> SessionKey:
    user_id, _, session_id = thread_id.partition("/")
    return SessionKey("shop", user_id, session_id)


async def test_threads_belong_to_whom_a_function_says(service: SessionService) -> None:
    """So that a user is erased with the threads, and threads are found without their ids."""
    saver = Checkpointer(service, key=by_user, app_name="shop")
    for thread_id in ("ann/1", "ann/2", "bob/1"):
        made = checkpoint(1)
        config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
        await saver.aput(config, made, {"run_id": thread_id}, {})
    await service.delete_user(UserKey("shop", "ann"))
    [left] = await listed(saver, None)
    assert left.config["configurable"]["thread_id"] == "bob/1"
    await saver.adelete_for_runs(["bob/1"])
    assert await listed(saver, None) == []


async def test_a_function_that_mixes_threads_is_refused(service: SessionService) -> None:
    """Two threads in one session would be one thread."""
    saver = Checkpointer(service, key=lambda _: SessionKey("shop", "ann", "chat"))
    await put(saver, 1, {"configurable": {"thread_id": "a"}})
    with pytest.raises(ValueError, match="holds thread 'a', and not 'b'"):
        await put(
            Checkpointer(service, key=saver._access._key), 1, {"configurable": {"thread_id": "b"}}
        )
    wrong = Checkpointer(service, key=lambda each: each)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="must return a SessionKey, not str"):
        await put(wrong, 1)


async def test_a_thread_id_may_be_a_number(service: SessionService) -> None:
    """And one that is missing is asked for."""
    saver = Checkpointer(service)
    await put(saver, 1, {"configurable": {"thread_id": 7}})
    found = await newest(saver, {"configurable": {"thread_id": "7"}})
    assert found.config["configurable"]["thread_id"] == "7"
    with pytest.raises(ValueError, match="names no thread"):
        await saver.aget_tuple({"configurable": {}})
    with pytest.raises(ValueError, match="names no checkpoint of thread 't'"):
        await saver.aput_writes(THREAD, [("a", 1)], "task")
