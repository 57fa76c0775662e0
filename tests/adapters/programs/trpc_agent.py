"""An agent of tRPC-Agent with a scripted model and a tool."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any
from uuid import uuid4

from google.genai.types import Content, FunctionCall, Part
from trpc_agent_sdk.agents import LlmAgent
from trpc_agent_sdk.models import LLMModel, LlmRequest, LlmResponse
from trpc_agent_sdk.tools import FunctionTool


class ScriptedModel(LLMModel):  # type: ignore[misc]  # the framework ships no types
    """Asks for the weather, and then says what was asked and how many contents it was shown."""

    def __init__(self) -> None:
        super().__init__("scripted")

    @classmethod
    def supported_models(cls) -> list[str]:
        return ["scripted"]

    async def _generate_async_impl(
        self, request: LlmRequest, stream: bool = False, ctx: Any = None
    ) -> AsyncGenerator[LlmResponse, None]:
        contents = request.contents
        parts = [part for content in contents for part in content.parts or ()]
        if parts[-1].function_response:
            asked = [part.text for part in parts if part.text][-1]
            yield answer(Part(text=f"{asked}: {len(contents)}"))
        else:
            call = FunctionCall(id=f"call {uuid4()}", name="weather", args={"city": "Oslo"})
            yield answer(Part(function_call=call))


def answer(part: Part) -> LlmResponse:
    return LlmResponse(content=Content(role="model", parts=[part]))


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"It rains in {city}."


def agent_of(tool: Callable[..., Any] = weather) -> LlmAgent:
    return LlmAgent(name="helper", model=ScriptedModel(), tools=[FunctionTool(tool)])
