"""MCP's store of events: with real servers and clients, streams that are cut off and resumed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("mcp", reason="mcp is not installed")

import anyio
from hypothesis import given
from hypothesis import strategies as st
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.server.streamable_http import EventMessage
from mcp.types import JSONRPCMessage
from pydantic import TypeAdapter

from adapters.frameworks.mcp import VERSION, Caller, client, server_app, serving, words
from adapters.operations import Operations
from adapters.processes import program
from agentsession import Data, SessionKey, SessionService, UserKey
from agentsession import open_service as open_store
from agentsession.adapters.mcp import EventStore, SessionScope
from agentsession.backend import EventSlice, Receipt
from agentsession.blocking import open_service
from agentsession.errors import EventTooLargeError
from agentsession.memory import MemoryBackend
from agentsession.retention import Retention

ADAPTER: TypeAdapter[Any] = TypeAdapter(JSONRPCMessage)


@pytest.fixture
def store(service: SessionService) -> EventStore:
    return EventStore(service, app_name="tools", session_id="mine")


def message(number: int, **more: Any) -> Any:
    result = {"n": number, **more}
    return ADAPTER.validate_python({"jsonrpc": "2.0", "id": number, "result": result})


async def replayed(store: EventStore, event_id: str) -> tuple[Any, list[Any]]:
    """Return the stream, and what was sent of it: ids and messages."""
    sent: list[EventMessage] = []

    async def send(event: EventMessage) -> None:
        sent.append(event)

    stream = await store.replay_events_after(event_id, send)
    return stream, [(event.event_id, event.message) for event in sent]


async def test_what_came_after_an_event_is_replayed_in_order(store: EventStore) -> None:
    """With the ids that it was sent with, and the name of the stream."""
    ids = [await store.store_event("1", message(n)) for n in range(5)]
    assert len(set(ids)) == 5
    for last in range(5):
        stream, sent = await replayed(store, ids[last])
        assert stream == "1"
        assert sent == [(ids[n], message(n)) for n in range(last + 1, 5)]


@pytest.mark.parametrize(
    "body",
    [
        {"method": "ping", "id": 1},
        {"method": "ping", "id": "a", "params": {"_meta": {"progressToken": 0}, "x": None}},
        {"method": "notifications/progress", "params": {"progress": 0.5}},
        {
            "id": 3,
            "result": {"content": [{"type": "text", "text": "é\u2028"}], "x": {"$set": None}},
        },
        {"id": 3, "error": {"code": -1, "message": "no", "data": {"a": [1, None]}}},
        *([{"id": None, "error": {"code": -32700, "message": "no"}}] if VERSION > 1 else []),
    ],
    ids=json.dumps,
)
async def test_a_message_is_replayed_as_it_was(store: EventStore, body: dict[str, Any]) -> None:
    """To the byte of what goes to the client."""
    given = ADAPTER.validate_python({"jsonrpc": "2.0", **body})
    first = await store.store_event("1", None)
    await store.store_event("1", given)
    _, [(_, found)] = await replayed(store, first)
    assert found == given
    wire = {"by_alias": True, ("exclude_none" if VERSION == 1 else "exclude_unset"): True}
    assert found.model_dump_json(**wire) == given.model_dump_json(**wire)


async def test_a_place_to_resume_from_is_not_replayed(store: EventStore) -> None:
    """Clients get it before anything is said, and would not understand it twice."""
    first = await store.store_event("1", None)
    second = await store.store_event("1", message(1))
    await store.store_event("1", None)
    assert await replayed(store, first) == ("1", [(second, message(1))])
    assert await replayed(store, second) == ("1", [])


async def test_streams_are_apart(service: SessionService, store: EventStore) -> None:
    """Those of a session by their ids, and those of sessions, which have the same ids."""
    other = EventStore(service, app_name="tools", session_id="other")
    first = await store.store_event("1", None)
    for each, stream in ((store, "2"), (other, "1"), (store, "_GET_stream"), (store, "")):
        await each.store_event(stream, message(0))
    await store.store_event("1", message(1))
    stream, sent = await replayed(store, first)
    assert (stream, [each for _, each in sent]) == ("1", [message(1)])


async def test_an_id_of_another_session_resumes_nothing(
    service: SessionService, store: EventStore
) -> None:
    """A client never gets what was meant for another one, also if it knows an id."""
    first = await store.store_event("1", None)
    await store.store_event("1", message(1))
    other = EventStore(service, app_name="tools", session_id="other")
    assert await replayed(other, first) == (None, [])
    elsewhere = EventStore(service, app_name="others", session_id="mine")
    assert await replayed(elsewhere, first) == (None, [])


@pytest.mark.parametrize(
    "event_id",
    [
        "",
        "x",
        "::",
        "mine:1:",
        ":1:x",
        "mine:1:x:y",
        "mine:1:nothing",
        "mine:2:x",
        "mine:%ff:x",
        "1:",
        "1:1",
        "1:1:",
        "1:1:x",
        "1:0:x",
        "1:-1:x",
        "1:2:x",
        "1:²:x",
        "1:9007199254740993:x",
        f"1:{'9' * 5000}:x",
        "é",
    ],
)
async def test_an_unknown_id_resumes_nothing(store: EventStore, event_id: str) -> None:
    """Whatever a client sends."""
    await store.store_event("1", message(1))
    assert await replayed(store, event_id) == (None, [])


TEXT = st.text(st.characters(codec="utf-8"), max_size=5) | st.text(":%/ .\n_0", max_size=4)


@given(owner=TEXT.filter(bool), stream=TEXT)
def test_an_id_names_its_stream_and_fits_in_a_header(owner: str, stream: str) -> None:
    """Ids of requests are the clients' own, of any characters."""

    async def check() -> None:
        async with open_store("memory://") as service:
            store = EventStore(service, app_name="tools", session_id=owner)
            first = await store.store_event(stream, None)
            assert first.isascii()
            assert first.isprintable()
            second = await store.store_event(stream, message(1))
            assert await replayed(store, first) == (stream, [(second, message(1))])

    anyio.run(check)


async def test_an_id_resumes_where_its_event_is_alone(store: EventStore) -> None:
    """Not at another place, where there is another event."""
    first = await store.store_event("1", None)
    second = await store.store_event("1", message(1))
    places = [event_id.split(":") for event_id in (first, second)]
    assert [seq for _, seq, _ in places] == ["1", "2"]
    assert await replayed(store, f"1:1:{places[1][2]}") == (None, [])
    assert await replayed(store, f"1:2:{places[0][2]}") == (None, [])


async def test_what_is_trimmed_or_gone_resumes_nothing() -> None:
    """It is not known what came after it."""
    async with open_store("memory://", session_event_limit=3) as service:
        store = EventStore(service, app_name="tools", session_id="mine")
        ids = [await store.store_event("1", message(n)) for n in range(5)]
        assert (await replayed(store, ids[0]))[0] is None
        assert len((await replayed(store, ids[2]))[1]) == 2
        await service.delete_user(UserKey("tools", "mine"))
        assert (await replayed(store, ids[4]))[0] is None
        again = await store.store_event("1", message(0))
        assert await replayed(store, ids[4]) == (None, [])
        assert await replayed(store, again) == ("1", [])


async def test_long_streams_are_replayed_in_pages(store: EventStore) -> None:
    """Also what is added while a client is sent the beginning."""
    first = await store.store_event("1", None)
    for number in range(250):
        await store.store_event("1", message(number))
    sent: list[Any] = []

    async def send(event: EventMessage) -> None:
        sent.append(event.message)
        if len(sent) == 10:
            await store.store_event("1", message(250))

    await store.replay_events_after(first, send)
    assert sent == [message(n) for n in range(251)]


@pytest.mark.parametrize(("number", "reads"), [(0, 1), (62, 1), (63, 2), (250, 4)])
async def test_a_stream_is_replayed_in_as_many_reads_as_pages(
    store_url: str, store_prefix: str, number: int, reads: int
) -> None:
    """A short one takes a single round trip."""
    done = Operations()
    async with open_store(store_url, key_prefix=store_prefix, observers=[done]) as service:
        store = EventStore(service, app_name="tools", session_id="mine")
        first = await store.store_event("1", None)
        for each in range(number):
            await store.store_event("1", message(each))
        done.names.clear()
        assert len((await replayed(store, first))[1]) == number
        assert done.names == ["get_events"] * reads


async def test_what_is_stored_while_the_end_is_sent_is_sent_too(store: EventStore) -> None:
    """The server sends it nowhere, as long as the stream is being replayed."""
    first = await store.store_event("1", None)
    await store.store_event("1", message(0))
    sent: list[Any] = []

    async def send(event: EventMessage) -> None:
        sent.append(event.message)
        if len(sent) < 4:
            await store.store_event("1", message(len(sent)))

    await store.replay_events_after(first, send)
    assert sent == [message(n) for n in range(4)]


class Late(MemoryBackend):
    """Can be read while it writes, as a file can."""

    def __init__(self) -> None:
        super().__init__(Retention())
        self.may_write = anyio.Event()
        self.may_write.set()
        self.has_read = anyio.Event()

    async def append(self, *args: Any, **options: Any) -> Receipt:
        await self.may_write.wait()
        return await super().append(*args, **options)

    async def read(self, *args: Any, **options: Any) -> EventSlice:
        found = await super().read(*args, **options)
        self.has_read.set()
        return found


async def test_what_is_being_stored_while_the_end_is_read_is_sent_too() -> None:
    """Though no read has it yet: the server sends it nowhere else."""
    backend = Late()
    store = EventStore(SessionService(backend), app_name="tools", session_id="mine")
    first = await store.store_event("1", None)
    backend.may_write = anyio.Event()
    sent: list[Any] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.store_event, "1", message(0))
        await anyio.wait_all_tasks_blocked()

        async def replay() -> None:
            sent.extend((await replayed(store, first))[1])

        tasks.start_soon(replay)
        await backend.has_read.wait()
        await anyio.wait_all_tasks_blocked()
        assert sent == []
        backend.may_write.set()
    assert [each for _, each in sent] == [message(0)]


async def test_what_is_stored_says_what_it_is(service: SessionService, store: EventStore) -> None:
    """Readers of the log see data of a type of its own, and no conversation."""
    await store.store_event("7", message(1))
    (event,) = await service.get_events(SessionKey("tools", "mine", "stream:7"))
    kept = {"jsonrpc": "2.0", "id": 1, "result": {"n": 1}}
    assert event.content == [Data(kept, "application/vnd.mcp.message+json")]
    assert event.author == "mcp"


async def test_a_message_that_is_too_large_is_refused(store: EventStore) -> None:
    """Whose tools give back files learns what to change."""
    with pytest.raises(EventTooLargeError, match="max_event_size"):
        await store.store_event("1", message(1, file="x" * 2_000_000))


async def test_a_stream_of_no_known_session_is_refused(service: SessionService) -> None:
    """Rather than that streams of several clients are mixed up."""
    store = EventStore(service, app_name="tools")
    with pytest.raises(RuntimeError, match="add_middleware"):
        await store.store_event("1", message(1))
    with pytest.raises(RuntimeError, match="add_middleware"):
        await replayed(store, "1:x")


def test_only_a_service_and_proper_ids_are_taken() -> None:
    """A mistake is told where it is made."""
    with pytest.raises(TypeError, match="takes a SessionService"):
        EventStore(object(), app_name="tools")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="user_id must not be empty"):
        EventStore(open_store("memory://"), app_name="tools", session_id="")


def test_servers_on_other_loops_are_served(store_url: str, store_prefix: str) -> None:
    """A blocking service takes any loop."""
    with open_service(store_url, key_prefix=store_prefix) as service:
        store = EventStore(service, app_name="tools", session_id="mine")
        first = anyio.run(store.store_event, "1", None)
        second = anyio.run(store.store_event, "1", message(1))
        assert anyio.run(replayed, store, first) == ("1", [(second, message(1))])


# -- real servers


async def test_a_client_that_is_cut_off_resumes_by_itself(service: SessionService) -> None:
    """The client of the package reconnects with the last id that it has seen."""
    heard: list[str] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")

    async with (
        serving(server_app(EventStore(service, app_name="tools"))) as url,
        connected(url) as session,
    ):
        await session.initialize()
        for name in ("a", "b"):
            result: Any = await session.call_tool(
                "count", {"name": name, "to": 5}, progress_callback=progress
            )
            assert result.content[0].text == f"{name} has counted"
    assert heard == [f"{name} {number}" for name in ("a", "b") for number in range(5)]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[ClientSession]:
    async with (
        streamable_http_client(url) as (reading, writing, *_),
        ClientSession(reading, writing) as session,
    ):
        yield session


async def test_sessions_with_the_same_requests_get_their_own_answers(
    service: SessionService,
) -> None:
    """Two clients call by the same id, are cut off, and resume: nobody hears the other."""
    hold = anyio.Event()
    async with (
        serving(server_app(EventStore(service, app_name="tools"), hold)) as url,
        client() as http,
    ):
        callers = {name: Caller(http, url) for name in ("ada", "bob")}
        begun: dict[str, list[Any]] = {}
        for name, caller in callers.items():
            await caller.initialize()
            begun[name] = await caller.count(name, 4)
        hold.set()
        # One from where nothing was said yet, and one from what it has heard last.
        last = {"ada": begun["ada"][0]["event_id"], "bob": begun["bob"][-1]["event_id"]}
        found = {name: await caller.resume(last[name]) for name, caller in callers.items()}
        all_of = {name: [f"{name} {n}" for n in range(4)] for name in callers}
        assert words(found["ada"]) == [*all_of["ada"], "ada has counted"]
        heard = words(begun["bob"]) + words(found["bob"])
        assert heard == [*all_of["bob"], "bob has counted"]
        assert await callers["ada"].resume(last["bob"]) == []
        # From the middle, again and again.
        for number, event in enumerate(found["ada"]):
            again = await callers["ada"].resume(event["event_id"]) if "method" in event else []
            assert words(again) == words(found["ada"])[number + 1 :] * bool(again)


async def test_streams_of_a_session_are_found_by_its_id(service: SessionService) -> None:
    """They are erased with it, by delete_user."""
    async with (
        serving(server_app(EventStore(service, app_name="tools"))) as url,
        client() as http,
    ):
        caller = Caller(http, url)
        await caller.initialize()
        await caller.count("ada", 3)
        with anyio.fail_after(20):
            while True:
                found = await service.list_sessions(UserKey("tools", caller.session_id))
                if any(session.last_seq == 5 for session in found.sessions):
                    break
                await anyio.sleep(0.01)
    assert {session.id for session in found.sessions} == {"stream:0", "stream:7"}


def test_a_stream_is_resumed_at_another_process(valkey_url: str, store_prefix: str) -> None:
    """A server dies after a client was cut off; another one has what the client has missed."""

    async def begin(url: str) -> tuple[str, str]:
        async with client() as http:
            caller = Caller(http, url)
            await caller.initialize()
            begun = await caller.count("ada", 3)
            await answered(caller.session_id)
            return caller.session_id, begun[0]["event_id"]

    async def answered(session_id: str) -> None:
        async with open_store(valkey_url, key_prefix=store_prefix) as service:
            key = SessionKey("tools", session_id, "stream:7")
            with anyio.fail_after(20):
                while len(await service.get_events(key)) < 5:
                    await anyio.sleep(0.01)

    async def resume(url: str, session_id: str, last: str) -> list[str]:
        async with client() as http:
            return words(await Caller(http, url, session_id).resume(last))

    with program("mcp_server", valkey_url, store_prefix) as first:
        session_id, last = anyio.run(begin, first.answer()["url"])
    with program("mcp_server", valkey_url, store_prefix, session_id) as second:
        missed = anyio.run(resume, second.answer()["url"], session_id, last)
    assert missed == ["ada 0", "ada 1", "ada 2", "ada has counted"]


async def test_what_is_no_http_passes_the_middleware() -> None:
    """As the beginning and the end of an application do."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    await SessionScope(app)({"type": "lifespan"}, 1, 2)  # type: ignore[arg-type]
    assert seen == [({"type": "lifespan"}, 1, 2)]
