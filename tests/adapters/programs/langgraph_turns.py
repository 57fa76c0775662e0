"""Runs turns of a graph of LangGraph, one for each line read; ``url prefix thread`` it gets.

A turn asks a tool for the weather. The tool says ``{"at": "tool"}`` and goes on at the next line. A
line that says ``go on`` goes on with a turn that was begun elsewhere. In the end
``{"said": ..., "saw": ..., "calls": ..., "made": ...}`` is printed: the answer, how many messages
there are, how often this process has asked the model, and the ids of its checkpoints.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from agentsession import open_service
from agentsession.adapters.langgraph import Checkpointer


def tell(**words: Any) -> None:
    print(json.dumps(words), flush=True)  # noqa: T201 - the test reads it


class ScriptedModel(BaseChatModel):
    """Asks for the weather, and says how many messages it saw when it knows it."""

    calls: int = 0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.calls += 1
        if isinstance(messages[-1], ToolMessage):
            asked = [each.content for each in messages if isinstance(each, HumanMessage)][-1]
            answer = AIMessage(f"{asked}: {messages[-1].content}")
        else:
            call = {"name": "weather", "args": {"city": "Oslo"}, "id": f"call {len(messages)}"}
            answer = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


@tool
async def weather(city: str) -> str:
    """Tell the weather of a city."""
    tell(at="tool")
    await asyncio.to_thread(sys.stdin.readline)
    return f"It rains in {city}."


async def main(url: str, prefix: str, thread_id: str) -> None:
    model = ScriptedModel()

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_node("tools", ToolNode([weather]))
    builder.add_edge(START, "ask")
    builder.add_conditional_edges("ask", tools_condition)
    builder.add_edge("tools", "ask")
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    async with open_service(url, key_prefix=prefix, session_event_limit=None) as service:
        graph = builder.compile(checkpointer=Checkpointer(service))
        tell(ready=True)
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            begun: Any = None if line == "go on" else {"messages": [HumanMessage(line)]}
            made = [
                each["config"]["configurable"]["checkpoint_id"]
                # Without this a step may be killed before the one that led to it is stored.
                async for each in graph.astream(
                    begun, config, stream_mode="checkpoints", durability="sync"
                )
            ]
            messages = (await graph.aget_state(config)).values["messages"]
            tell(said=messages[-1].content, saw=len(messages), calls=model.calls, made=made)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
