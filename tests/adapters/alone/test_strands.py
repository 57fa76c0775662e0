"""Strands' storage, by its session manager, its offloader and its own storages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("strands", reason="strands-agents is not installed")

import anyio
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strands import Agent, tool
from strands.session import SnapshotSessionManager
from strands.storage import InMemoryStorage
from strands.storage import Storage as AnyStorage
from strands.types.exceptions import StorageError
from strands.vended_plugins.context_offloader import ContextOffloader

from adapters.frameworks.strands import ScriptedModel, calls, says
from adapters.processes import program
from agentsession import SessionKey, SessionService, UserKey
from agentsession import open_service as open_store
from agentsession.adapters.strands import Storage
from agentsession.blocking import BlockingSessionService, open_service
from agentsession.errors import BackendUnavailableError


@pytest.fixture
def storage(service: SessionService) -> Storage:
    return Storage(service, app_name="app", user_id="user")


@pytest.fixture
def blocking(store_url: str, store_prefix: str) -> Iterator[BlockingSessionService]:
    with open_service(store_url, key_prefix=store_prefix) as opened:
        yield opened


def on(service: Any) -> Storage:
    return Storage(service, app_name="app", user_id="user")


async def test_bytes_come_back_as_they_were(storage: Storage) -> None:
    """Whatever they are, and the last ones win."""
    assert isinstance(storage, AnyStorage)
    for data in (b"", b"\x00\xff", bytes(range(256)), b"{}", b"a"):
        await storage.write("a/b.json", data)
        assert await storage.read("a/b.json") == data
    assert await storage.read("a/c") is None
    assert await storage.read("a") is None


async def test_a_deleted_key_is_gone(storage: Storage) -> None:
    """To delete one that is not there is no error."""
    await storage.write("a", b"1")
    await storage.write("ab", b"2")
    await storage.delete("a")
    await storage.delete("a")
    assert (await storage.read("a"), await storage.read("ab")) == (None, b"2")
    assert await storage.list() == ["ab"]


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "delete"]),
        st.sampled_from(["a", "a/b", "ab", "b/é", "b/ c", "B"]),
        st.binary(max_size=70),
    ),
    max_size=15,
)


@given(operations=OPERATIONS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_it_does_what_the_storage_of_strands_does(operations: list[Any]) -> None:
    """Any writes and deletes, in values that take several parts; read and listed by prefix."""

    async def check() -> None:
        theirs = InMemoryStorage()
        async with open_store("memory://", max_value_size=32) as service:
            mine = on(service)
            for verb, key, data in operations:
                for each in (mine, theirs):
                    await (each.write(key, data) if verb == "write" else each.delete(key))
                assert await mine.read(key) == await theirs.read(key)
            for prefix in ("", "a", "a/", "b", "x"):
                assert await mine.list(prefix) == await theirs.list(prefix)

    anyio.run(check)


async def test_large_values_are_stored_and_shrink(
    storage: Storage, service: SessionService
) -> None:
    """Snapshots of long conversations; and nothing is left of a longer value."""
    for size in (5_000_000, 10_000_000, 1_000_000, 10, 5_000_000):
        data = os.urandom(size)
        await storage.write("snapshot", data)
        assert await storage.read("snapshot") == data
        (kept,) = (await service.list_sessions(UserKey("app", "strands:data:user"))).sessions
        assert sum(len(str(part)) for part in kept.state.values()) < size * 1.4 + 10


async def test_values_over_the_limit_are_refused(storage: Storage) -> None:
    """The old one stays, and the error says how much can be stored."""
    await storage.write("a", b"old")
    with pytest.raises(StorageError, match="up to 50,328,576 can be stored") as caught:
        await storage.write("a", b"x" * 60_000_000)
    assert isinstance(caught.value.__cause__, ValueError)
    assert await storage.read("a") == b"old"


async def test_the_largest_value_is_stored() -> None:
    """Just under the limit of one call."""
    async with open_store("memory://") as service:
        data = b"x" * 50_328_576
        await on(service).write("a", data)
        assert await on(service).read("a") == data


async def test_nothing_is_left_of_what_is_overwritten(valkey_url: str, store_prefix: str) -> None:
    """Strands overwrites what a guardrail has redacted, so that it is nowhere any more."""
    async with open_store(valkey_url, key_prefix=store_prefix) as service:
        storage = on(service)
        await storage.write("a", b"secret" * 10)
        await storage.write("a", b"secret" * 10)
        await storage.write("a", b"redacted")
        # What the server has, in whatever form: base64 of the secret is found in none of it.
        client = redis.Redis.from_url(valkey_url)
        keys = list(client.scan_iter(f"*{store_prefix}*", count=1000))
        dumps = [client.hgetall(key) for key in keys if client.type(key) == b"hash"]
        client.close()
    assert "cmVkYWN0ZWQ=" in str(dumps)
    assert "c2VjcmV0" not in str(dumps)


async def test_a_list_is_sorted_over_pages(storage: Storage) -> None:
    """In the order of keys, not in that of activity."""
    names = [f"k/{number:04}" for number in range(1100)]
    async with anyio.create_task_group() as tasks:
        for name in reversed(names):
            tasks.start_soon(storage.write, name, b"x")
    assert await storage.list("k/") == names
    assert await storage.list("k/001") == names[10:20]


async def test_a_key_that_cannot_be_read_is_listed(valkey_url: str, store_prefix: str) -> None:
    """One of a newer format: it can be deleted, and to read it is an error."""
    async with open_store(valkey_url, key_prefix=store_prefix) as service:
        storage = on(service)
        for key in ("a", "b"):
            await storage.write(key, b"x")
        client = redis.Redis.from_url(valkey_url)
        for name in client.scan_iter(f"{store_prefix}session:*:a", count=1000):
            client.hset(name, "v", "2")
        client.close()
        assert await storage.list() == ["a", "b"]
        with pytest.raises(StorageError, match="failed to read 'a'"):
            await storage.read("a")
        await storage.delete("a")
        assert await storage.list() == ["b"]


async def test_namespaces_are_apart(storage: Storage) -> None:
    """Each sees its own keys, without the prefix; Strands puts none of its own before them."""
    team = storage.namespace("/team/")
    inner = team.namespace("a")
    await storage.write("x", b"0")
    await team.write("x", b"1")
    await inner.write("x", b"2")
    assert [await each.read("x") for each in (storage, team, inner)] == [b"0", b"1", b"2"]
    assert await storage.list() == ["team/a/x", "team/x", "x"]
    assert await team.list() == ["a/x", "x"]
    assert await inner.list("x") == ["x"]
    assert await storage.namespace("/").list("x") == ["x"]
    manager = SnapshotSessionManager("s", storage=team)
    assert manager._storage is team
    assert SnapshotSessionManager("s", storage=storage)._storage is not storage


async def test_users_and_applications_are_apart(service: SessionService, storage: Storage) -> None:
    """Also a user of a name as the store's own users have, and conversations of the same user."""
    await service.create_session(SessionKey("app", "user", "chat"))
    for app_name, user_id in (("app", "data:user"), ("app", "keys:user"), ("other", "user")):
        other = Storage(service, app_name=app_name, user_id=user_id)
        await other.write("x", b"1")
    assert await storage.list() == []
    assert await storage.read("x") is None


async def test_words_are_found(storage: Storage) -> None:
    """By Strands' own search, within a namespace by what is there."""
    await storage.write("a", b"The parcel arrives on Monday.")
    await storage.write("n/b", b"Dark mode is on.")
    assert [found.key for found in await storage.search("parcel Monday")] == ["a"]
    assert [found.key for found in await storage.namespace("n").search("dark mode")] == ["b"]


class Index:
    """A search that remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def index(self, storage: Any, key: str, data: bytes, **kwargs: Any) -> None:
        if data == b"bad":
            msg = "the index is full"
            raise OSError(msg)
        self.seen.append((key, data))

    async def search(self, storage: Any, query: str, **kwargs: Any) -> list[Any]:
        return [query]


async def test_a_search_of_the_users_own_is_given_what_is_written(service: SessionService) -> None:
    """As the storages of Strands do it; what cannot be indexed is stored, and told."""
    index = Index()
    storage = Storage(service, app_name="app", user_id="user", search_strategy=index)
    await storage.namespace("n").write("x", b"1")
    assert index.seen == [("x", b"1")]
    assert await storage.search("q") == ["q"]  # type: ignore[comparison-overlap]
    with pytest.raises(StorageError, match="failed to index 'x': the index is full"):
        await storage.write("x", b"bad")
    assert await storage.read("x") == b"bad"


async def test_failures_are_those_of_strands(storage: Storage) -> None:
    """Its users catch one error, whatever keeps the bytes."""
    for call in (storage.write("", b"x"), storage.read(""), storage.delete("")):
        with pytest.raises(StorageError, match="must not be empty"):
            await call
    with pytest.raises(StorageError) as caught:
        await Storage(
            open_store("redis://127.0.0.1:1", timeout=0.2), app_name="app", user_id="user"
        ).read("x")
    assert isinstance(caught.value.__cause__, BackendUnavailableError)


def test_only_a_service_and_proper_ids_are_taken() -> None:
    """A mistake is told where it is made."""
    with pytest.raises(TypeError, match="takes a SessionService"):
        Storage(object(), app_name="app", user_id="user")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="user_id must not be empty"):
        Storage(open_store("memory://"), app_name="app", user_id="")


async def test_readers_see_whole_values(store_url: str, store_prefix: str) -> None:
    """While two processes write values of different lengths, and another reads them."""
    options: Any = {"key_prefix": store_prefix, "max_value_size": 4096}
    async with open_store(store_url, **options) as one, open_store(store_url, **options) as two:
        storages = [on(one), on(one if store_url == "memory://" else two)]
        values = [bytes([number]) * (number * 7000 + 1) for number in range(8)]
        seen: set[bytes] = set()

        async def write(number: int) -> None:
            for turn in range(10):
                await storages[number % 2].write("x", values[(number + turn) % 8])

        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(write, number)
            for _ in range(60):
                seen.add(await storages[1].read("x") or values[0])
        assert seen <= set(values)
        assert await storages[0].read("x") in values


# -- agents


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"It rains in {city}."


def agent(service: BlockingSessionService, model: ScriptedModel, **options: Any) -> Any:
    manager = SnapshotSessionManager("chat", storage=on(service), **options)
    return Agent(
        model, tools=[weather], agent_id="a", session_manager=manager, callback_handler=None
    )


def test_an_agent_goes_on_with_its_snapshot(blocking: BlockingSessionService) -> None:
    """Each turn by a new agent, called without an event loop."""
    agent(blocking, ScriptedModel(calls("c1", "weather", city="Oslo"), says("Rain.")))("Oslo?")
    agent(blocking, ScriptedModel(says("Welcome.")))("Thanks")
    model = ScriptedModel(says("Bye."))
    agent(blocking, model)("Bye")
    roles = [message["role"] for message in model.saw[0]]
    assert roles == ["user", "assistant", "user", "assistant", "user", "assistant", "user"]
    result = model.saw[0][2]["content"][0]["toolResult"]
    assert result["content"] == [{"text": "It rains in Oslo."}]


def test_an_agent_on_a_loop_goes_on_too(blocking: BlockingSessionService) -> None:
    """Strands restores on a loop of its own while another one runs."""

    async def turns() -> None:
        await agent(blocking, ScriptedModel(says("Hello."))).invoke_async("Hi")
        model = ScriptedModel(says("Bye."))
        await agent(blocking, model).invoke_async("Bye")
        assert len(model.saw[0]) == 3

    anyio.run(turns)


def test_snapshots_of_the_past_are_listed_and_deleted(blocking: BlockingSessionService) -> None:
    """Checkpoints by their time, and the whole session at once."""
    chatty = agent(
        blocking,
        ScriptedModel(*[says(f"{n}") for n in range(3)]),
        snapshot_trigger=lambda **_: True,
    )
    for asked in ("a", "b", "c"):
        chatty(asked)
    manager = SnapshotSessionManager("chat", storage=on(blocking))
    ids = anyio.run(manager.list_snapshot_ids, chatty)
    assert len(ids) == 3
    assert ids == sorted(ids)
    anyio.run(manager.delete_session)
    assert anyio.run(on(blocking).list) == []


def test_what_is_offloaded_is_fetched_by_the_next_process(
    blocking: BlockingSessionService,
) -> None:
    """A large result leaves the context, and comes back when the model asks for it."""

    @tool
    def dump() -> str:
        """Give a long text."""
        return "needle " + "hay " * 20_000

    def make(model: ScriptedModel) -> Any:
        storage = on(blocking)
        return Agent(
            model,
            tools=[dump],
            agent_id="a",
            session_manager=SnapshotSessionManager("chat", storage=storage),
            plugins=[ContextOffloader(storage=storage)],
            callback_handler=None,
        )

    make(ScriptedModel(calls("c1", "dump"), says("Long.")))("Dump it")
    (key,) = anyio.run(on(blocking).namespace("offloader").list)
    fetch = calls("c2", "retrieve_offloaded_content", reference=key)
    model = ScriptedModel(fetch, says("Found."))
    make(model)("Fetch it")
    assert len(str(model.saw[0])) < 20_000
    assert "needle" in str(model.saw[1][-1])


def test_a_killed_agent_goes_on_where_it_was(valkey_url: str, store_prefix: str) -> None:
    """A turn that died at its tool is not there; all turns before it are."""
    arguments = ("strands_turns", valkey_url, store_prefix, "chat")
    with program(*arguments) as first:
        for asked in ("one", "two"):
            first.say(asked)
            assert first.answer() == {"at": "tool"}
            if asked == "one":
                first.say()
                assert first.answer() == {"said": "one: 3"}
    with program(*arguments) as second:
        second.say("three")
        assert second.answer() == {"at": "tool"}
        second.say()
        assert second.answer() == {"said": "three: 7"}


def test_threads_use_one_storage(blocking: BlockingSessionService) -> None:
    """Each with a loop of its own, as agents that are called without one."""
    storage = on(blocking)

    def turn(number: int) -> bytes | None:
        anyio.run(storage.write, f"{number}", b"%d" % number)
        return anyio.run(storage.read, f"{number}")

    with ThreadPoolExecutor() as threads:
        assert list(threads.map(turn, range(8))) == [b"%d" % number for number in range(8)]
