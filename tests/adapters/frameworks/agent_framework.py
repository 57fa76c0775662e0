"""Microsoft Agent Framework, for the conversations that move between frameworks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from agent_framework import (
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    Message,
    ResponseStream,
)

from adapters.canonical import Said, medium
from agentsession import SessionKey
from agentsession.adapters._sessions.logs import Service
from agentsession.adapters.agent_framework import HistoryProvider


async def write(service: Service, key: SessionKey, messages: list[dict[str, Any]]) -> None:
    """Store messages as an agent does, each when it is said."""
    history = HistoryProvider(service, app_name=key.app_name, user_id=key.user_id)
    for number, message in enumerate(messages):
        await history.save_messages(key.session_id, [message_of(message, f"{number}")])


def message_of(message: dict[str, Any], message_id: str | None = None) -> Message:
    role, content = message["role"], message.get("content")
    if role == "tool":
        call_id = message["tool_call_id"]
        result = Content.from_function_result(call_id, result=content)
        return Message(role, [result], message_id=message_id)
    contents = [Content.from_text(content)] if content else []
    for call in message.get("tool_calls") or ():
        function = call["function"]
        contents.append(
            Content.from_function_call(
                call["id"], function["name"], arguments=function["arguments"]
            )
        )
    return Message(role, contents, message_id=message_id)


async def store(service: Service, key: SessionKey, message: Message) -> None:
    """Store a message as it is."""
    history = HistoryProvider(service, app_name=key.app_name, user_id=key.user_id)
    await history.save_messages(key.session_id, [message])


async def objects(service: Service, key: SessionKey) -> list[Any]:
    """Read what an agent would show its model."""
    history = HistoryProvider(service, app_name=key.app_name, user_id=key.user_id)
    return await history.get_messages(key.session_id)


async def read(service: Service, key: SessionKey) -> list[Said]:
    """Read what an agent would show its model."""
    return [said for message in await objects(service, key) for said in said_by(message)]


def said_by(message: Message) -> list[Said]:
    return [_said(message.role, content) for content in message.contents]


def _said(role: str, content: Content) -> Said:
    match content.type:
        case "text":
            return ("text", role, content.text)
        case "function_call":
            return ("call", content.call_id, content.name, content.parse_arguments())
        case "function_result":
            kind = "failure" if content.exception else "result"
            return (kind, content.call_id, content.result)
        case "text_reasoning":
            return ("reasoning", content.text, content.protected_data)
        case "data" | "uri":
            name = content.to_dict().get("name")
            return medium(role, content.media_type or "", content.uri or "", name)
        case _:
            return ("other", content.to_dict())


def marks(messages: list[Message]) -> Iterator[Said]:
    """Yield what stands beside what is said."""
    for message in messages:
        yield "role", message.role
        if message.author_name:
            yield "author", message.author_name
        for content in message.contents:
            if content.type == "function_call":
                yield "arguments", content.arguments


def told(messages: Any) -> list[Any]:
    """Return what is said to be left out."""
    return list(messages.lost)


_signed = Content.from_text_reasoning(text="thoughts", protected_data="SIGNATURE")

OBJECTS = {
    "words": Message("user", [Content.from_text("WORDS")]),
    "author": Message("assistant", [Content.from_text("Hi")], author_name="AUTHOR"),
    "reasoning": Message("assistant", [Content.from_text_reasoning(text="THOUGHTS")]),
    # The framework does not tell whose it is.
    "signature": Message("assistant", [_signed]),
    "other signature": Message("assistant", [_signed]),
    "image": Message(
        "user", [Content.from_uri("data:image/png;base64,SU1BR0VE", media_type="image/png")]
    ),
    "call": Message("assistant", [Content.from_function_call("c1", "find", arguments={"id": 7})]),
    "result": Message("tool", [Content.from_function_result("c1", result="RESULT")]),
    "failure": Message(
        "tool", [Content.from_function_result("c1", result="RESULT", exception="boom")]
    ),
    "hosted": Message(
        "assistant",
        [Content.from_code_interpreter_tool_call(inputs=[Content.from_text("HOSTED")])],
    ),
    "usage": Message(
        "assistant",
        [Content.from_text("Hi"), Content.from_usage({"input_token_count": 86420})],
    ),
}


Answer = Callable[[Sequence[Message]], list[Content]]


class ScriptedClient(FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], BaseChatClient[Any]):
    """A chat client that answers by a script, each call of the model by the next function.

    Attributes:
        saw: What the model was shown, for each call.
    """

    def __init__(self, *answers: Answer) -> None:
        super().__init__()
        self.answers = list(answers)
        self.saw: list[list[Message]] = []

    def _inner_get_response(
        self,
        *,
        messages: Sequence[Message],
        stream: bool,
        options: Mapping[str, Any],
        **kwargs: Any,
    ) -> Awaitable[ChatResponse[Any]] | ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        self.saw.append(list(messages))
        contents = self.answers.pop(0)(messages)
        if stream:
            return self._streamed(contents)
        return self._answered(contents)

    async def _answered(self, contents: list[Content]) -> ChatResponse[Any]:
        return ChatResponse(messages=[Message("assistant", contents)])

    def _streamed(
        self, contents: list[Content]
    ) -> ResponseStream[ChatResponseUpdate, ChatResponse[Any]]:
        async def updates() -> AsyncIterator[ChatResponseUpdate]:
            for content in contents:
                yield ChatResponseUpdate(role="assistant", contents=[content])

        return ResponseStream(updates(), finalizer=ChatResponse.from_updates)


def says(text: str) -> Answer:
    return lambda _: [Content.from_text(text)]


def calls(call_id: str, name: str, **arguments: Any) -> Answer:
    return lambda _: [Content.from_function_call(call_id, name, arguments=json.dumps(arguments))]
