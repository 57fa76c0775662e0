"""Half of a surrogate pair, of a text that was cut: every adapter says where it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any, TypeAlias

import pytest

from agentsession import SessionKey, SessionService
from agentsession.errors import StateValueError

CUT = "x\ud800"
KEY = SessionKey("app", "user", "chat")
MADE: dict[str, Any] = {"app_name": "app", "user_id": "user", "session_id": "chat"}

Store: TypeAlias = Callable[[SessionService], Awaitable[Any]]


async def agent_framework(service: SessionService) -> None:
    from agent_framework import Message

    from agentsession.adapters.agent_framework import HistoryProvider

    history = HistoryProvider(service, app_name="app", user_id="user")
    await history.save_messages("chat", [Message("user", [CUT])])


async def agents(service: SessionService) -> None:
    from agentsession.adapters.openai_agents import AgentSession

    await AgentSession(service, KEY).add_items([{"role": "user", "content": CUT}])


async def google(service: SessionService) -> None:
    pytest.importorskip("google.adk")  # Others have packages of that name too.
    from google.adk.events import Event
    from google.genai.types import Content, Part

    from agentsession.adapters import google_adk

    adk = google_adk.SessionService(service)
    session = await adk.create_session(**MADE)
    said = Content(role="user", parts=[Part(text=CUT)])
    await adk.append_event(session, Event(author="user", content=said))


async def langgraph(service: SessionService) -> None:
    from langgraph.checkpoint.base import empty_checkpoint

    from agentsession.adapters.langgraph import Checkpointer

    saver = Checkpointer(service)
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    config = await saver.aput(config, empty_checkpoint(), {}, {})
    # Values are bytes of the framework's own, and hold anything.
    await saver.aput_writes(config, [("channel", CUT)], "task")
    with pytest.raises(StateValueError, match="half of a surrogate pair"):
        await saver.aget_tuple({"configurable": {**config["configurable"], "checkpoint_id": CUT}})
    await saver.aput_writes(config, [("channel", 1)], CUT)


async def mcp(service: SessionService) -> None:
    from mcp.types import JSONRPCMessage
    from pydantic import TypeAdapter

    from agentsession.adapters.mcp import EventStore

    adapter: TypeAdapter[Any] = TypeAdapter(JSONRPCMessage)
    message = adapter.validate_python({"jsonrpc": "2.0", "id": 1, "result": {"a": CUT}})
    await EventStore(service, app_name="app", session_id="mine").store_event("1", message)


async def pydantic_ai(service: SessionService) -> None:
    from pydantic_ai import RunUsage
    from pydantic_ai.conversation import Conversation
    from pydantic_ai.messages import ModelMessage, ModelRequest, UserPromptPart

    from agentsession.adapters.pydantic_ai import ConversationStore

    store = ConversationStore(service, app_name="app", user_id="user")
    messages: list[ModelMessage] = [ModelRequest([UserPromptPart(CUT)])]
    await store.save(Conversation(conversation_id="c", messages=messages, usage=RunUsage()))


async def trpc_agent_sdk(service: SessionService) -> None:
    from google.genai.types import Content, Part
    from trpc_agent_sdk.events import Event

    from agentsession.adapters import trpc_agent

    trpc = trpc_agent.SessionService(service)
    session = await trpc.create_session(**MADE)
    said = Content(role="user", parts=[Part(text=CUT)])
    await trpc.append_event(session, Event(author="user", content=said))


STORES: list[Store] = [
    *(agent_framework, agents, google, langgraph, mcp, pydantic_ai, trpc_agent_sdk),
]


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)
async def test_half_of_a_surrogate_pair_is_refused_with_words(
    service: SessionService, store: Store
) -> None:
    """As the service itself refuses it: where it is, and what to store instead."""
    if not find_spec(store.__name__):
        pytest.skip(f"{store.__name__} is not there")
    with pytest.raises(StateValueError, match="half of a surrogate pair") as raised:
        await store(service)
    assert "'replace'" in str(raised.value)
    assert "nothing was stored" in str(raised.value)
