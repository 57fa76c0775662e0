"""An agent of Google ADK with a scripted model and a tool, for tests and for ADK's commands."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.genai.types import Content, FunctionCall, Part


class ScriptedModel(BaseLlm):
    """Asks for the weather, and then says what was asked and how many contents it was shown."""

    model: str = "scripted"

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        contents = llm_request.contents
        parts = [part for content in contents for part in content.parts or ()]
        if parts[-1].function_response:
            asked = [part.text for part in parts if part.text][-1]
            yield answer(Part(text=f"{asked}: {len(contents)}"))
        else:
            call = FunctionCall(name="weather", args={"city": "Oslo", "day": None})
            yield answer(Part(function_call=call))


def answer(part: Part) -> LlmResponse:
    return LlmResponse(content=Content(role="model", parts=[part]))


def weather(city: str, day: str | None = None) -> str:
    """Tell the weather of a city."""
    return f"It rains in {city}."


def agent_of(tool: Callable[..., Any] = weather) -> LlmAgent:
    return LlmAgent(name="helper", model=ScriptedModel(), tools=[tool])
