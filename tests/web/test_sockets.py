"""The same over a WebSocket, where a client wants to send too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import HTTPException
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agentsession import AgentContext, Event, InMemorySessionService, Runner, SessionKey, UserKey
from agentsession.testing import Subject
from web.site import APP, Steps, app_of, serving

KEY = SessionKey(APP, "ada", "chat")


def user_of_socket(user: str = "ada") -> UserKey:
    """Return who connects, as a page tells it in the address."""
    if not user:
        raise HTTPException(401, "who are you?")
    return UserKey(APP, user)


class Talk:
    """What a client says and hears."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(30):
            heard: dict[str, Any] = json.loads(await self.socket.recv())
            return heard

    async def until(self, name: str) -> list[dict[str, Any]]:
        heard = [await self.hear()]
        while heard[-1]["type"] != name:
            heard.append(await self.hear())
        return heard


@asynccontextmanager
async def talking(
    client: httpx2.AsyncClient, query: str = "", **options: Any
) -> AsyncIterator[Talk]:
    url = f"ws://{client.base_url.netloc.decode()}/sessions/chat/socket{query}"
    async with connect(url, **options) as socket:
        yield Talk(socket)


async def test_a_session_is_followed_run_and_stopped(subject: Subject) -> None:
    """All events come once, whoever has stored them; answers carry the client's ``ref``."""
    service, steps = subject.service(), Steps()
    await service.create_session(KEY)
    await service.append_event(KEY, Event(author="user", content="before"))
    async with (
        Runner(APP, steps, service) as runner,
        serving(app_of(service, runner, websocket_user=user_of_socket)) as client,
        talking(client, "?after=0") as talk,
        talking(client, "?after=1&partial=false") as beside,
    ):
        assert [each["type"] for each in [await talk.hear(), await talk.hear()]] == [
            "following",
            "event",
        ]
        await talk.say(type="run", message="hi", message_id="m", ref="r1")
        heard = await talk.until("event")
        for _ in range(4):
            steps.let(1)
            heard += await talk.until("event")
        heard += [await talk.hear() for _ in range(7 - len(heard))]  # The run, and its end.
        assert {"type": "run", "run_id": "m", "ref": "r1"} in heard
        done = {"type": "done", "run_id": "m", "outcome": "completed", "ref": "r1"}
        assert done in heard
        events = [Event.from_dict(each["event"]) for each in heard if each["type"] == "event"]
        assert [event.text for event in events if event.partial] == ["one ", "two ", "three"]
        log = await service.get_events(KEY)
        assert [event for event in events if not event.partial] == log[1:]
        assert (await beside.hear())["type"] == "following"
        whole = [Event.from_dict((await beside.hear())["event"]) for _ in log[1:]]
        assert whole == log[1:]
        await beside.say(type="stop", run_id="x", ref="s")
        failed = await beside.hear()
        assert (failed["type"], failed["ref"]) == ("failed", "s")
        assert failed["problem"]["type"] == "urn:agentsession:run-not-found"
        steps.began.clear()
        await talk.say(type="run", message="again")
        await steps.began.wait()
        await beside.say(type="stop")
        assert {"type": "stopped", "stopped": True, "ref": ""} in await beside.until("stopped")
        assert (await talk.until("done"))[-1]["outcome"] == "cancelled"


async def test_a_run_goes_with_its_socket_by_its_rule(subject: Subject) -> None:
    """It is cancelled when its client goes, unless it is to go on."""
    for rule in ("cancel", "detach"):
        service, steps = subject.service(), Steps()
        await service.get_or_create_session(KEY)
        async with (
            Runner(APP, steps, service, on_disconnect=rule) as runner,
            serving(app_of(service, runner, websocket_user=user_of_socket)) as client,
        ):
            async with talking(client) as talk:
                await talk.say(type="run", message=rule, message_id=rule)
                await talk.until("run")
                steps.let(1)
                await talk.until("event")
            if rule == "cancel":
                await steps.stopped.wait()
            steps.let(3)
        last = (await service.get_events(KEY))[-1]
        assert last.outcome == ("cancelled" if rule == "cancel" else "completed")


async def test_what_is_said_wrongly_is_told(subject: Subject) -> None:
    """And the conversation goes on."""
    service = subject.service()
    await service.create_session(KEY)
    app = app_of(service, websocket_user=user_of_socket)
    async with serving(app) as client, talking(client) as talk:
        assert (await talk.hear())["type"] == "following"
        for wrong in ("{", "[]", '{"type": "x"}', '{"type": "run"}', '{"type": "stop", "x": 1}'):
            await talk.socket.send(wrong)
            failed = await talk.hear()
            assert failed["problem"]["type"] == "urn:agentsession:invalid-message", failed
        await talk.say(type="run", message="hi", ref="r")
        failed = await talk.hear()
        assert (failed["problem"]["type"], failed["ref"]) == ("urn:agentsession:no-agent", "r")
        await talk.socket.send("x" * ((1 << 20) + 1))
        with pytest.raises(ConnectionClosed) as caught:
            await talk.socket.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


async def test_what_is_no_text_closes_the_socket(caplog: pytest.LogCaptureFixture) -> None:
    """With the code for it, and no error of the server."""
    service = InMemorySessionService()
    await service.create_session(KEY)
    app = app_of(service, websocket_user=user_of_socket)
    async with serving(app) as client, talking(client) as talk:
        assert (await talk.hear())["type"] == "following"
        await talk.socket.send(b'{"type": "stop"}')
        with pytest.raises(ConnectionClosed) as caught:
            await talk.socket.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1003
    assert caplog.records == []


async def test_a_run_that_ends_after_its_socket_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was closed, since the session is gone, while the run had something to say still."""
    service, steps = InMemorySessionService(), Steps()
    async with (
        Runner(APP, steps, service) as runner,
        serving(app_of(service, runner, websocket_user=user_of_socket)) as client,
    ):
        for n in range(10):
            await service.create_session(KEY)
            async with talking(client) as talk:
                assert (await talk.hear())["type"] == "following"
                await talk.say(type="run", message="hi", message_id=str(n))
                await talk.until("run")
                await service.delete_session(KEY)
                steps.let()
                with pytest.raises(ConnectionClosed):
                    while True:
                        await talk.hear()
    assert [each for each in caplog.records if each.name != "agentsession.runner"] == []


async def test_not_more_than_some_runs_at_once() -> None:
    service, steps = InMemorySessionService(), Steps()
    await service.create_session(KEY)
    async with (
        Runner(APP, steps, service) as runner,
        serving(app_of(service, runner, websocket_user=user_of_socket)) as client,
        talking(client) as talk,
    ):
        for n in range(17):
            await talk.say(type="run", message=str(n))
        failed = (await talk.until("failed"))[-1]
        assert failed["problem"]["type"] == "urn:agentsession:too-many-runs"


async def test_the_session_that_ends_ends_the_socket(subject: Subject) -> None:
    service = subject.service()
    await service.create_session(KEY)
    app = app_of(service, websocket_user=user_of_socket)
    async with serving(app) as client, talking(client) as talk:
        assert (await talk.hear())["type"] == "following"
        await service.delete_session(KEY)
        assert await talk.hear() == {"type": "ended", "reason": "deleted"}
        with pytest.raises(ConnectionClosed) as caught:
            await talk.socket.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1000


async def test_a_store_that_goes_away_is_told_and_ends_the_socket(subject: Subject) -> None:
    """With a code that says that it was no fault of the client's."""
    service = subject.service()
    await service.create_session(KEY)
    app = app_of(service, websocket_user=user_of_socket)
    async with serving(app) as client, talking(client) as talk:
        assert (await talk.hear())["type"] == "following"
        await service.aclose()
        assert (await talk.hear())["problem"]["type"] == "urn:agentsession:stopping"
        with pytest.raises(ConnectionClosed) as caught:
            await talk.socket.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1011


async def test_a_run_that_fails_ends_as_failed(subject: Subject) -> None:
    """Its error is the event's; the socket goes on."""
    service = subject.service()
    await service.create_session(KEY)

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield Event(author="agent", content="so far")
        msg = "no more"
        raise LookupError(msg)

    async with (
        Runner(APP, agent, service) as runner,
        serving(app_of(service, runner, websocket_user=user_of_socket)) as client,
        talking(client) as talk,
    ):
        for _ in range(2):
            await talk.say(type="run", message="hi")
            assert (await talk.until("done"))[-1]["outcome"] == "failed"


async def test_who_may_not_connect(subject: Subject) -> None:
    """Other users, nobody in particular, and pages of other sites, that carry a user's cookies."""
    service = subject.service()
    app = app_of(service, websocket_user=user_of_socket, origins=["https://shop.example"])
    await service.create_session(KEY)
    async with serving(app) as client:
        host = client.base_url.netloc.decode()
        for query, origin, status in (
            ("?user=eve", None, 404),
            ("?user=", None, 401),
            ("?incarnation=x", None, 404),
            ("", "https://evil.example", 403),
            ("", "null", 403),
            ("", "http://[", 403),
            ("", f"http://user@{host}", 403),
        ):
            with pytest.raises(InvalidStatus) as caught:
                async with talking(client, query, origin=origin):
                    pass
            assert caught.value.response.status_code == status, (query, origin)
        for origin in ("https://shop.example", f"http://{host}", None):
            async with talking(client, origin=origin) as talk:
                assert (await talk.hear())["type"] == "following"


async def test_without_a_user_for_it_there_is_no_socket() -> None:
    service = InMemorySessionService()
    await service.create_session(KEY)
    async with serving(app_of(service)) as client:
        with pytest.raises(InvalidStatus):
            async with talking(client):
                pass
