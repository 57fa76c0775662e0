"""The OpenAPI document: what it says, and that whatever it allows, and more, is answered by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx2
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import checks
from schemathesis.core.result import Ok

from agentsession import AgentContext, Event, InMemorySessionService, Runner, SessionService
from agentsession.fastapi import session_router
from web.site import APP, USER, serving

SESSION = "/sessions/{session_id}"
# It never ends, and takes nothing that could be wrong.
ENDLESS = "/user/stream"
STREAMS = {
    ("get", f"{SESSION}/events/stream"): "Event",
    ("post", f"{SESSION}/run"): "Event",
    ("get", ENDLESS): "News",
}
ANSWERS = {
    ("post", "/sessions"): "Session",
    ("get", "/sessions"): "SessionPage",
    ("get", SESSION): "Session",
    ("post", f"{SESSION}/fork"): "Session",
    ("post", f"{SESSION}/rewind"): "Session",
    ("get", f"{SESSION}/events"): "EventPage",
    ("post", f"{SESSION}/stop"): "Stopped",
}


async def agent(context: AgentContext) -> AsyncIterator[Event]:
    yield Event(author="agent", content=context.message.content, outcome="completed")


def app_of(service: SessionService, runner: Runner) -> FastAPI:
    """Make an application without a log-in, whose answers would be the application's own."""
    app = FastAPI()
    app.include_router(session_router(service, user=lambda: USER, runner=runner))
    return app


def document() -> dict[str, Any]:
    """Return it as clients get it."""
    service = InMemorySessionService()
    document: dict[str, Any] = json.loads(
        json.dumps(app_of(service, Runner(APP, agent, service)).openapi())
    )
    return document


def test_the_document_has_the_schemas_of_the_models() -> None:
    """Those of the library, not of any object."""
    schemas = document()["components"]["schemas"]
    event = schemas["Event"]["properties"]
    assert event["timestamp"] == {"type": "string", "format": "date-time", "title": "Timestamp"}
    assert event["seq"]["type"] == "integer"
    parts = {"Text", "Reasoning", "Media", "ToolCall", "ToolResult", "Data"}
    assert {f"#/components/schemas/{part}" for part in parts} == {
        each["$ref"] for each in event["content"]["anyOf"][1]["items"]["anyOf"]
    }
    assert schemas["Session"]["properties"]["events"]["items"]["$ref"].endswith("/Event")
    assert schemas["SessionPage"]["properties"]["sessions"]["items"]["$ref"].endswith("/Session")
    assert set(schemas["RunRequest"]["properties"]) == {"message", "message_id", "results"}


def test_each_route_tells_what_it_answers_and_its_problems() -> None:
    """Streams are streams, and all errors are problem details."""
    paths = document()["paths"]
    for path, methods in paths.items():
        for method, route in methods.items():
            told = {
                status: answer.get("content", {}) for status, answer in route["responses"].items()
            }
            good = [content for status, content in told.items() if status < "300"]
            assert len(good) == 1, (method, path)
            if model := STREAMS.get((method, path)):
                assert good[0].keys() == {"text/event-stream"}
                assert good[0]["text/event-stream"]["schema"]["$ref"].endswith(f"/{model}")
            elif model := ANSWERS.get((method, path)):
                assert good[0]["application/json"]["schema"]["$ref"].endswith(f"/{model}")
            problems = {status: content for status, content in told.items() if status >= "300"}
            assert {"413", "422", "503"} <= problems.keys()
            assert ("404" in problems) == ("session_id" in path and method != "delete")
            for content in problems.values():
                assert content.keys() == {"application/problem+json"}
                schema = content["application/problem+json"]["schema"]
                assert {"type", "title", "status", "detail"} <= schema["properties"].keys()


async def test_whatever_is_sent_is_answered_as_the_document_says() -> None:
    """No request, valid or not, is an error of the server."""
    async with InMemorySessionService() as service, Runner(APP, agent, service) as runner:
        app = app_of(service, runner)
        async with serving(app) as client:
            await asyncio.to_thread(_send_all, app, str(client.base_url))


CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
]


def _send_all(app: FastAPI, url: str) -> None:
    schema = schemathesis.openapi.from_dict(app.openapi()).exclude(path=ENDLESS)
    for each in schema.get_all_operations():
        assert isinstance(each, Ok)
        operation = each.ok()
        for mode in schemathesis.GenerationMode:
            with suppress(Unsatisfiable):  # A route without arguments cannot be asked wrongly.
                _send(operation, mode, url)


def _send(operation: Any, mode: schemathesis.GenerationMode, url: str) -> None:
    """Send requests of one kind to one route."""
    # Of a stream the schema is that of the frames without a name, which no check knows.
    is_stream = (operation.method, operation.path) in STREAMS

    @given(
        operation.as_strategy(generation_mode=mode),
        st.booleans(),
    )
    @settings(
        max_examples=4,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: schemathesis.Case[Any], is_there: bool) -> None:
        if is_there and "session_id" in case.path_parameters:
            httpx2.post(f"{url}/sessions", json={"session_id": "chat"})
            case.path_parameters["session_id"] = "chat"
        if case.path.endswith("/events/stream"):
            case.query.setdefault("run_id", "none")  # Otherwise it never ends.
        case.call_and_validate(
            base_url=url,
            timeout=10,
            checks=CHECKS if is_stream else [*CHECKS, checks.response_schema_conformance],
        )

    send()
