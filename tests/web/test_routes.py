"""The routes, on every backend: what they do and refuse, and that they are the user's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI

from agentsession import (
    AgentContext,
    Event,
    InMemorySessionService,
    Runner,
    SessionKey,
    ToolCall,
)
from agentsession.fastapi import SessionDependencies, SessionRoute, session_router
from agentsession.testing import Subject
from web.site import APP, USER, Steps, app_of, frames, serving, stored, take, until, user_of

KEY = SessionKey(APP, "ada", "chat")
CHAT = "/sessions/chat"
PROBLEM = "application/problem+json"


async def echo(context: AgentContext) -> AsyncIterator[Event]:
    yield Event(author="agent", content=f"You said {context.message.text}", outcome="completed")


@pytest.fixture
async def service(subject: Subject) -> Any:
    return subject.service()


@pytest.fixture
async def client(service: Any) -> AsyncIterator[httpx2.AsyncClient]:
    async with Runner(APP, echo, service) as runner, serving(app_of(service, runner)) as client:
        yield client


def problem(response: httpx2.Response, status: int, name: str) -> dict[str, Any]:
    """Check that it is a problem of this kind."""
    assert response.headers["content-type"] == PROBLEM
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["status"]) == (status, status), body
    assert body["type"] == f"urn:agentsession:{name}"
    assert body["title"]
    assert body["detail"]
    return body


async def test_sessions_are_made_listed_read_and_deleted(
    client: httpx2.AsyncClient, service: Any
) -> None:
    """Each as the service has it."""
    made = await client.post(
        "/sessions", json={"session_id": "chat", "state": {"a": 1, "user:b": 2}}
    )
    assert made.status_code == 201
    assert made.json() == (await service.get_session(KEY)).to_dict()
    generated = (await client.post("/sessions", json={})).json()["key"]
    assert len(generated["session_id"]) == 32
    problem(await client.post("/sessions", json={"session_id": "chat"}), 409, "session-exists")
    await service.append_event(KEY, Event(author="user", content="hi"))
    page = (await client.get("/sessions", params={"limit": 1})).json()
    assert [each["key"]["session_id"] for each in page["sessions"]] == ["chat"]
    rest = (await client.get("/sessions", params={"cursor": page["next_cursor"]})).json()
    assert [each["key"] for each in rest["sessions"]] == [generated]
    read = (await client.get("/sessions/chat")).json()
    assert read == (await service.get_session(KEY)).to_dict()
    assert len((await client.get("/sessions/chat?num_recent_events=0")).json()["events"]) == 0
    for _ in range(2):
        assert (await client.delete("/sessions/chat")).status_code == 204
    problem(await client.get("/sessions/chat"), 404, "session-not-found")


async def test_a_log_is_read_in_pages(client: httpx2.AsyncClient, service: Any) -> None:
    """In both directions, and filtered."""
    await service.create_session(KEY)
    given = [Event(author="user" if n % 2 else "agent", content=str(n)) for n in range(1, 8)]
    events = await service.append_events(KEY, given)
    read: list[Event] = []
    after: int | None = 0
    while after is not None:
        page = (await client.get(f"{CHAT}/events?limit=3&after_seq={after}")).json()
        read += map(Event.from_dict, page["events"])
        after = page["next_seq"]
    assert read == events
    page = (await client.get(f"{CHAT}/events?newest_first=true&limit=2&before_seq=7")).json()
    assert [each["seq"] for each in page["events"]] == [6, 5]
    assert page["next_seq"] == 5
    page = (await client.get(f"{CHAT}/events?author=agent&author=x")).json()
    assert [each["seq"] for each in page["events"]] == [2, 4, 6]
    problem(await client.get("/sessions/none/events"), 404, "session-not-found")


async def test_history_state_fork_and_rewind(client: httpx2.AsyncClient, service: Any) -> None:
    """What is taken back is not shown, and a fork is a session of its own."""
    await service.create_session(KEY, {"mood": "good"})
    for words in ("1", "2"):
        await service.append_event(
            KEY, Event(author="user", content=words, state_delta={"n": words})
        )
    history = (await client.get(f"{CHAT}/history?max_turns=1")).json()
    assert [each["content"] for each in history] == ["2"]
    forked = await client.post(f"{CHAT}/fork", json={"at_seq": 1, "session_id": "fork"})
    assert forked.status_code == 201
    assert (forked.json()["state"], forked.json()["last_seq"]) == ({"mood": "good", "n": "1"}, 1)
    back = (await client.post(f"{CHAT}/rewind", json={"to_seq": 1})).json()
    assert [each["content"] for each in back["events"]] == ["1"]
    assert (await client.get(f"{CHAT}/state")).json() == {"mood": "good", "n": "1"}
    raw = (await client.get(f"{CHAT}/events?raw=true")).json()["events"]
    assert [each["seq"] for each in raw] == [1, 2, 3]
    ahead = await client.post(f"{CHAT}/rewind", json={"to_seq": 9})
    assert problem(ahead, 409, "rewind-refused")["problem"] == "ahead"
    stale = await client.post(f"{CHAT}/rewind", json={"to_seq": 0, "expected_revision": 1})
    problem(stale, 409, "revision-conflict")


async def test_state_is_changed_but_the_applications(
    client: httpx2.AsyncClient, service: Any
) -> None:
    """Values that JSON cannot hold come and go as ``to_dict`` writes them."""
    await service.create_session(KEY, {"app:price": 1, "gone": 1})
    changes = {"n": None, "user:name": "Ada", "raw": {"$bytes": "AAE="}, "gone": {"$delete": True}}
    assert (await client.patch(f"{CHAT}/state", json=changes)).status_code == 204
    expected = {"n": None, "user:name": "Ada", "raw": b"\x00\x01", "app:price": 1}
    assert (await service.get_session(KEY)).state == expected
    assert (await client.get(f"{CHAT}/state")).json() == expected | {"raw": {"$bytes": "AAE="}}
    assert (
        await client.patch("/user/state", json={"name": {"$delete": True}, "user:x": 2})
    ).status_code == 204
    assert (await client.get("/user/state")).json() == {"x": 2}
    for path in (f"{CHAT}/state", "/user/state"):
        refused = await client.patch(path, json={"app:price": 0})
        assert problem(refused, 403, "application-state")["name"] == "app:price"
    refused = await client.post("/sessions", json={"state": {"app:price": 0}})
    problem(refused, 403, "application-state")
    assert await service.get_app_state(APP) == {"price": 1}
    problem(
        await client.patch(f"{CHAT}/state", json={"x": {"$bytes": "?"}}),
        422,
        "invalid-value",
    )
    problem(await client.patch("/sessions/none/state", json={"x": 1}), 404, "session-not-found")


async def test_a_run_is_streamed_and_its_message_taken_once(
    client: httpx2.AsyncClient, service: Any
) -> None:
    """A session that does not exist is made; the author is the user, whatever is sent."""
    body = {"message": [{"type": "text", "text": "hi"}], "message_id": "m1"}
    for _ in range(2):
        async with client.stream("POST", f"{CHAT}/run", json=body) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            taken = await until(frames(response), "done")
        assert taken[0].data == {"run_id": "m1", "session_id": "chat"}
        assert [event.text for event in stored(taken)] == ["You said hi"]
        assert taken[-1].data == {"outcome": "completed"}
    log = await service.get_events(KEY)
    assert [(event.author, event.id) for event in log] == [("user", "m1"), ("agent", log[1].id)]
    forged = {"message": [{"type": "tool_result", "call_id": "c", "result": 1}]}
    problem(await client.post(f"{CHAT}/run", json=forged), 422, "invalid-request")
    problem(await client.post(f"{CHAT}/run", json={}), 422, "invalid-request")
    both = {"message": "a", "results": [{"type": "tool_result", "call_id": "c"}]}
    problem(await client.post(f"{CHAT}/run", json=both), 422, "invalid-request")


async def test_a_run_that_waits_goes_on_with_results(subject: Subject) -> None:
    """Once."""
    service = subject.service()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        if context.message.tool_results:
            yield Event(author="agent", content="thanks", outcome="completed")
        else:
            yield Event(author="agent", content=[ToolCall("c", "ask")], outcome="waiting")

    async with Runner(APP, agent, service) as runner, serving(app_of(service, runner)) as client:
        async with client.stream("POST", f"{CHAT}/run", json={"message": "hi"}) as response:
            assert (await until(frames(response), "done"))[-1].data == {"outcome": "waiting"}
        run_id = (await service.get_events(KEY))[-1].invocation_id
        path = f"{CHAT}/events/stream?run_id={run_id}&after=2"
        async with client.stream("GET", path) as response:
            assert (await until(frames(response), "done"))[-1].data == {"outcome": ""}
        body = {"results": [{"type": "tool_result", "call_id": "c", "result": "yes"}]}
        async with client.stream("POST", f"{CHAT}/run", json=body) as response:
            taken = await until(frames(response), "done")
        assert stored(taken)[-1].text == "thanks"
        again = await client.post(f"{CHAT}/run", json=body)
        problem(again, 409, "call-not-open")


async def test_a_busy_session_is_told_and_a_run_is_stopped(subject: Subject) -> None:
    """From any service on the same store, by whoever it is that runs."""
    service, other, steps = subject.service(), subject.service(), Steps()
    async with (
        Runner(APP, steps, service, when_busy="reject") as runner,
        Runner(APP, steps, other, when_busy="reject") as another,
        serving(app_of(service, runner)) as client,
        serving(app_of(other, another)) as elsewhere,
    ):
        problem(await client.post(f"{CHAT}/stop", json={}), 404, "session-not-found")
        body = {"message": "hi", "message_id": "m"}
        async with client.stream("POST", f"{CHAT}/run", json=body) as response:
            stream = frames(response)
            assert (await take(stream, 1))[0].name == "run"
            busy = await elsewhere.post(f"{CHAT}/run", json={"message": "me too"})
            told = problem(busy, 409, "session-busy")
            assert (told["run_id"], told["waits"]) == ("m", False)
            wrong = await elsewhere.post(f"{CHAT}/stop", json={"run_id": "x"})
            problem(wrong, 404, "run-not-found")
            steps.let(1)
            assert (await take(stream, 1))[0].event.partial
            assert (await elsewhere.post(f"{CHAT}/stop", json={})).json() == {"stopped": True}
            taken = await until(stream, "done")
        assert taken[-1].data == {"outcome": "cancelled"}
        assert (await client.post(f"{CHAT}/stop", json={})).json() == {"stopped": False}


# -- what is refused


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", "/sessions?limit=0", {}),
        ("GET", "/sessions?limit=1001", {}),
        ("GET", f"{CHAT}/events?limit=1001", {}),
        ("GET", f"{CHAT}/events?after_seq=-1", {}),
        ("GET", f"{CHAT}/events?after_seq=99999999999999999999", {}),
        ("GET", f"{CHAT}/events?content_type=x", {}),
        ("GET", "/sessions/chat?since=2026-01-01T00:00:00", {}),
        ("GET", f"/sessions/{'x' * 1001}", {}),
        ("GET", f"{CHAT}/events/stream?after=x", {}),
        ("GET", f"{CHAT}/events/stream", {"headers": {"Last-Event-ID": "x"}}),
        ("POST", "/sessions", {"json": {"session_id": 1}}),
        ("POST", "/sessions", {"content": b'{"session_id": "\\ud800"}'}),
        ("POST", "/sessions", {"content": b"{"}),
        ("POST", "/sessions", {"content": b"[" * 100_000}),
        ("POST", "/sessions", {"json": {"user_id": "bob"}}),
        ("POST", "/sessions", {"content": b'{"state": {"x": 1e999}}'}),
        ("POST", "/sessions", {"content": b'{"state": {"x": "\\ud800"}}'}),
        ("POST", f"{CHAT}/rewind", {"json": {"to_seq": "one"}}),
    ],
)
async def test_what_is_not_valid_is_refused(
    method: str, path: str, options: dict[str, Any]
) -> None:
    """With a status that says that it is the client's mistake, and nothing of what was sent."""
    headers = {"Content-Type": "application/json"} | options.get("headers", {})
    async with serving(app_of(InMemorySessionService())) as client:
        response = await client.request(method, path, **options | {"headers": headers})
    assert response.status_code in {400, 422}
    assert "bob" not in response.text


async def test_cursors_of_others_are_refused(client: httpx2.AsyncClient) -> None:
    problem(await client.get("/sessions?cursor=abc"), 422, "invalid-cursor")


@pytest.mark.parametrize("is_told", [True, False])
async def test_large_bodies_are_refused(client: httpx2.AsyncClient, is_told: bool) -> None:
    """Before all of it was read, whether its length is told or not."""
    body = b"x" * (1 << 21)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    response = await client.post(
        "/sessions",
        content=body if is_told else pieces(),
        headers={"Content-Type": "application/json"},
    )
    assert problem(response, 413, "body-too-large")["limit"] == 1 << 20


async def test_large_messages_and_values_are_refused(subject: Subject) -> None:
    """By the limits of the service."""
    service = subject.service(max_event_size=1000, max_value_size=1000)
    async with Runner(APP, echo, service) as runner, serving(app_of(service, runner)) as client:
        large = await client.post(f"{CHAT}/run", json={"message": "x" * 1000})
        problem(large, 413, "event-too-large")
        large = await client.post("/sessions", json={"state": {"x": "x" * 1000}})
        problem(large, 413, "value-too-large")


async def test_reads_that_are_too_large_are_told(subject: Subject) -> None:
    service = subject.service(max_event_size=1000, max_read_size=2000)
    await service.create_session(KEY)
    for _ in range(10):
        await service.append_event(KEY, Event(author="user", content="x" * 500))
    async with serving(app_of(service)) as client:
        problem(await client.get(f"{CHAT}/events"), 422, "read-too-large")


async def test_a_closed_service_is_not_there_now() -> None:
    """A client may come back."""
    service = InMemorySessionService()
    async with serving(app_of(service)) as client:
        await service.aclose()
        response = await client.get("/sessions")
        problem(response, 503, "stopping")
        assert response.headers["retry-after"] == "1"


# -- whose sessions they are


def routes(app: FastAPI) -> set[tuple[str, str]]:
    """Return all methods and paths, as the OpenAPI document has them."""
    return {
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }


# What each route is asked with; a route that is not here fails the test.
BODIES: dict[tuple[str, str], dict[str, Any] | None] = {
    ("GET", "/sessions/{session_id}"): None,
    ("DELETE", "/sessions/{session_id}"): None,
    ("GET", "/sessions/{session_id}/events"): None,
    ("GET", "/sessions/{session_id}/events/stream"): None,
    ("GET", "/sessions/{session_id}/history"): None,
    ("GET", "/sessions/{session_id}/state"): None,
    ("PATCH", "/sessions/{session_id}/state"): {"x": 1},
    ("POST", "/sessions/{session_id}/fork"): {},
    ("POST", "/sessions/{session_id}/rewind"): {"to_seq": 0},
    ("POST", "/sessions/{session_id}/run"): {"message": "mine"},
    ("POST", "/sessions/{session_id}/stop"): {},
}
# These have no session in the path: they are the user's own.
OWN = {
    ("POST", "/sessions"),
    ("GET", "/sessions"),
    ("GET", "/user/state"),
    ("PATCH", "/user/state"),
    ("GET", "/user/stream"),
}


async def test_sessions_of_another_user_cannot_be_reached(subject: Subject) -> None:
    """By no route: a new one has to be added here."""
    service = subject.service()
    runner = Runner(APP, echo, service)
    app = app_of(service, runner)
    assert routes(app) == BODIES.keys() | OWN
    await service.create_session(KEY, {"secret": 1, "user:secret": 1})
    await service.append_event(KEY, Event(author="user", content="secret"))
    before = await service.get_session(KEY)
    async with runner, serving(app) as client:
        client.headers["X-User"] = "eve"
        for (method, path), body in BODIES.items():
            response = await client.request(method, path.format(session_id="chat"), json=body)
            if path.endswith("/run"):
                # It is a new session of her own.
                assert "You said mine" in response.text
                await service.delete_session(SessionKey(APP, "eve", "chat"))
            elif method == "DELETE":
                assert response.status_code == 204
            else:
                problem(response, 404, "session-not-found")
            assert "secret" not in response.text
        assert (await client.get("/sessions")).json()["sessions"] == []
        assert (await client.get("/user/state")).json() == {}
        made = await client.post("/sessions", json={"session_id": "chat"})
        assert made.json()["state"] == {}
    assert await service.get_session(KEY) == before


async def test_who_is_not_logged_in_reaches_nothing(client: httpx2.AsyncClient) -> None:
    """The application's own answer comes back, by every route."""
    client.headers["X-User"] = ""
    for method, path in BODIES.keys() | OWN:
        body = BODIES.get((method, path)) or {}
        content = None if method in {"GET", "DELETE"} else body
        response = await client.request(method, path.format(session_id="chat"), json=content)
        assert response.status_code == 401, (method, path)
        assert response.json() == {"detail": "who are you?"}


# -- how it is put together


async def test_service_and_runner_may_be_dependencies(subject: Subject) -> None:
    """As those which an application opens in its lifespan."""
    opened: dict[str, Any] = {}
    app = FastAPI()
    app.include_router(
        session_router(lambda: opened["service"], user=user_of, runner=lambda: opened["runner"]),
        prefix="/api",
    )
    opened["service"] = service = subject.service()
    async with Runner(APP, echo, service) as opened["runner"], serving(app) as client:
        response = await client.post("/api/sessions/chat/run", json={"message": "hi"})
        assert "You said hi" in response.text


async def test_parts_are_for_handlers_of_ones_own(subject: Subject) -> None:
    """With the same errors, and the same user."""
    service = subject.service()
    sessions = SessionDependencies(service, user=user_of)
    router = APIRouter(route_class=SessionRoute)

    @router.get("/chats/{session_id}/size")
    async def size(key: SessionKey = Depends(sessions.key)) -> int:  # noqa: B008 - as FastAPI has it
        return len(await service.get_events(key))

    app = FastAPI()
    app.include_router(router)
    await service.create_session(KEY)
    async with serving(app) as client:
        assert (await client.get("/chats/chat/size")).json() == 0
        problem(await client.get("/chats/none/size"), 404, "session-not-found")


def test_mistakes_are_told() -> None:
    """When the router is made."""
    service = InMemorySessionService()
    with pytest.raises(TypeError, match="service must be a dependency or SessionService, not 'x'"):
        session_router("x", user=user_of)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(TypeError, match="a dependency or SessionService, not <class"):
        session_router(InMemorySessionService, user=user_of)
    with pytest.raises(TypeError, match="user must be a dependency, not UserKey"):
        session_router(service, user=USER)  # type: ignore[arg-type]  # as above
    with pytest.raises(TypeError, match="runner must be a dependency or Runner, not 1"):
        session_router(service, user=user_of, runner=1)  # type: ignore[arg-type]  # as above
    with pytest.raises(ValueError, match="heartbeat must be more than 0 seconds, not 0"):
        session_router(service, user=user_of, heartbeat=0)


async def test_a_runner_with_a_memory_of_its_own_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As one that was made without the service: what it stores would be found nowhere."""
    service, alone = InMemorySessionService(), Runner("shop", echo)
    with pytest.raises(TypeError, match=r"Runner\(app_name, agent, service\)"):
        session_router(service, user=user_of, runner=alone)
    app = FastAPI()
    app.include_router(session_router(service, user=user_of, runner=lambda: alone))
    async with serving(app) as client:
        assert (await client.post(f"{CHAT}/run", json={"message": "hi"})).status_code == 500
    assert "TypeError: the runner keeps its sessions in <InMemorySessionService" in caplog.text
    await alone.aclose()


async def test_a_dependency_that_returns_something_else_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As the name of a user in the place of the key."""
    service = InMemorySessionService()
    app = FastAPI()
    app.include_router(session_router(service, user=lambda: "ada"))  # type: ignore[arg-type, return-value]  # that is the mistake
    async with serving(app) as client:
        assert (await client.get("/sessions")).status_code == 500
    assert "TypeError: user must return a UserKey, and has returned 'ada'" in caplog.text


async def test_a_runner_of_another_application_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """To the developer, since no client can help it."""
    service = InMemorySessionService()
    async with Runner("other", echo, service) as runner, serving(app_of(service, runner)) as client:
        response = await client.post(f"{CHAT}/run", json={"message": "hi"})
        assert response.status_code == 500
    assert "the runner is of application 'other', and the user of 'shop'" in caplog.text
