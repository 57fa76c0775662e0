"""What servers and networks do: a typed error, or handled; nothing is half-written."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
import redis.asyncio
from redis.asyncio.connection import Connection

from agentsession import Event, RedisSessionService, Session, SessionKey, UserKey
from agentsession.errors import (
    BackendError,
    BackendUnavailableError,
    CodecError,
    EventNotFoundError,
    OutcomeUnknownError,
    SessionNotFoundError,
)
from agentsession.redis._backend import RedisBackend
from agentsession.redis._core.clock import ServerClock
from agentsession.redis._core.errors import NotSentError
from agentsession.redis._links.backlog import Backlog
from agentsession.redis._links.endpoint import Endpoint, PrimaryAbsentError
from agentsession.redis._links.server import ServerLink
from agentsession.redis._scripts import load
from agentsession.redis._targets import making
from harness import servers
from harness.proxy import Proxy
from harness.raw import contents_of
from harness.refusals import known_refusal

Operation = Callable[[], Awaitable[object]]

KEY = SessionKey("app", "user", "session")


def say(words: str, **fields: Any) -> Event:
    return Event(author="user", content=words, **fields)


@pytest.fixture(params=sorted(servers.binaries()))
def binary(request: pytest.FixtureRequest) -> str:
    """Every server that there is."""
    return servers.binaries()[request.param]


@pytest.fixture
async def service(server: servers.Server) -> AsyncIterator[RedisSessionService]:
    async with RedisSessionService.from_url(server.url, timeout=5) as opened:
        yield opened


@pytest.mark.on_both_loops
async def test_an_operation_is_one_round_trip(proxy: Proxy) -> None:
    """Every operation takes one, a page of sessions two, with all scopes set."""
    async with RedisSessionService.from_url(
        proxy.url, session_ttl=60, user_state_ttl=60, app_state_ttl=60, refresh_ttl_on_read=True
    ) as service:
        every = {"a": 1, "user:b": 2, "app:c": 3}
        operations: dict[str, tuple[int, Operation]] = {
            "create": (1, lambda: service.create_session(KEY, every)),
            "append": (1, lambda: service.append_event(KEY, say("x", state_delta=every))),
            "batch": (1, lambda: service.append_events(KEY, [say("y"), say("z")])),
            "get": (1, lambda: service.get_session(KEY)),
            "get or create": (1, lambda: service.get_or_create_session(KEY, every)),
            "last": (1, lambda: service.get_session(KEY, num_recent_events=2)),
            "events": (1, lambda: service.get_events(KEY)),
            "update session": (1, lambda: service.update_session_state(KEY, every)),
            "update app": (1, lambda: service.update_app_state("app", {"a": 1})),
            "update user": (1, lambda: service.update_user_state(KEY.user, {"a": 1})),
            "get app": (1, lambda: service.get_app_state("app")),
            "get user": (1, lambda: service.get_user_state(KEY.user)),
            "list": (2, lambda: service.list_sessions(KEY.user)),
            # With the last session the user leaves the application's list, which takes two more.
            "delete": (3, lambda: service.delete_session(KEY)),
        }
        for _ in range(2):  # The first round also teaches the server the scripts.
            taken = {}
            for name, (_, operation) in operations.items():
                before = proxy.round_trips
                await operation()
                taken[name] = proxy.round_trips - before
        assert taken == {name: trips for name, (trips, _) in operations.items()}
        assert proxy.connections == 1


@pytest.mark.on_both_loops
@pytest.mark.parametrize("lost", [1, 3])
async def test_a_lost_reply_is_made_good(proxy: Proxy, lost: int) -> None:
    """A write whose replies are lost takes effect once and returns as if nothing was."""
    async with RedisSessionService.from_url(proxy.url) as service:
        await service.get_session(KEY)
        proxy.lose_replies = lost
        session = await service.create_session(KEY, {"n": 0})
        proxy.lose_replies = lost
        stored = await service.append_event(session, say("once", state_delta={"n": 1}))
        proxy.lose_replies = lost
        batch = await service.append_events(session, [say("a"), say("b")])
        proxy.lose_replies = lost
        assert await service.get_session(KEY) == session
        assert [stored.seq, *(event.seq for event in batch)] == [1, 2, 3]
        assert (session.revision, session.state) == (3, {"n": 1})
        assert [event.content for event in session.events] == ["once", "a", "b"]


@pytest.mark.on_both_loops
async def test_a_hung_server_ends_in_what_is_known(proxy: Proxy) -> None:
    """A write that was sent is unknown, a read unavailable, both in time; then all goes on."""
    async with RedisSessionService.from_url(proxy.url, timeout=1) as service:
        await service.create_session(KEY)
        proxy.freeze()
        start = time.monotonic()
        event = say("maybe")
        results = await asyncio.gather(  # noqa: TID251 - collects errors
            service.append_event(KEY, event),
            service.get_session(KEY),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [
            OutcomeUnknownError,
            BackendUnavailableError,
        ]
        assert time.monotonic() - start < 5
        assert "session 'session'" in str(results[0])
        proxy.thaw()
        assert (await service.append_event(KEY, event)).seq == 1
        assert [event.content for event in await service.get_events(KEY)] == ["maybe"]


async def test_an_absent_server_is_unavailable_at_once(tmp_path: Path) -> None:
    """Nothing at the address: the error comes well before the deadline and names the address."""
    start = time.monotonic()
    async with RedisSessionService.from_url(f"unix://{tmp_path}/nothing", timeout=30) as service:
        with pytest.raises(BackendUnavailableError, match=r"nothing was written") as raised:
            await service.create_session(KEY)
    assert "/nothing" in str(raised.value)
    assert raised.value.__cause__ is not None
    assert time.monotonic() - start < 5


async def test_a_restart_is_waited_for(
    server: servers.Server, service: RedisSessionService
) -> None:
    """A server that was there and is gone is waited for; its scripts are sent again."""
    await service.create_session(KEY)
    server.stop()
    call = asyncio.create_task(service.get_or_create_session(KEY, {"fresh": 1}))
    await asyncio.to_thread(server.start)
    assert (await call).state == {"fresh": 1}
    server.stop()
    async with RedisSessionService.from_url(server.url, timeout=0.2) as hasty:
        with pytest.raises(BackendUnavailableError):
            await hasty.get_session(KEY)


async def test_forgotten_scripts_are_sent_again(
    admin: redis.asyncio.Redis, service: RedisSessionService
) -> None:
    """After SCRIPT FLUSH everything works, also for many calls at once, each taking effect once."""
    await service.create_session(KEY)
    for _ in range(2):
        await admin.script_flush()
        async with asyncio.TaskGroup() as group:
            for n in range(20):
                group.create_task(service.append_event(KEY, say(str(n))))
    assert [event.seq for event in await service.get_events(KEY)] == list(range(1, 41))


@pytest.mark.on_both_loops
async def test_a_killed_connection_is_replaced(
    admin: redis.asyncio.Redis, service: RedisSessionService
) -> None:
    """A connection that was closed while idle or busy costs no error and no event."""
    await service.create_session(KEY)
    for n in range(5):
        await admin.client_kill_filter(_type="normal", skipme=True)
        await service.append_event(KEY, say(str(n)))

    async def write(writer: int) -> None:
        for n in range(20):
            await service.append_event(KEY, say(f"{writer}:{n}"))

    async with asyncio.TaskGroup() as group:
        for writer in range(5):
            group.create_task(write(writer))
        for _ in range(5):
            await asyncio.sleep(0)
            await admin.client_kill_filter(_type="normal", skipme=True)
    events = await service.get_events(KEY, limit=1000)
    assert [event.seq for event in events] == list(range(1, 106))
    assert len({event.content for event in events}) == 105


async def test_a_demoted_server_is_waited_for(
    admin: redis.asyncio.Redis, service: RedisSessionService, server: servers.Server
) -> None:
    """READONLY means trying again, in order, until the deadline; then an honest error."""
    session = await service.create_session(KEY)
    await admin.replicaof("127.0.0.1", 1)
    async with RedisSessionService.from_url(server.url, timeout=0.3) as hasty:
        refusal = await known_refusal(lambda: hasty.append_event(KEY, say("never")))
        assert "nothing was written" in str(refusal)
    calls = [asyncio.create_task(service.append_event(session, say(str(n)))) for n in range(10)]
    done, _ = await asyncio.wait(calls, timeout=0.05)
    assert not done
    await admin.replicaof("NO", "ONE")
    assert [(await call).seq for call in calls] == list(range(1, 11))
    events = await service.get_events(KEY)
    assert [event.content for event in events] == [str(n) for n in range(10)]


@pytest.mark.on_both_loops
async def test_a_refusal_shifts_no_reply(
    admin: redis.asyncio.Redis, service: RedisSessionService
) -> None:
    """Reads between writes that a demoted server refuses get their own answers."""
    keys = [SessionKey("app", f"user {n}", "s") for n in range(10)]
    for key in keys:
        await service.create_session(key, {"mine": key.user_id})
    await admin.replicaof("127.0.0.1", 1)
    reads = []
    writes = []
    for key in keys * 3:
        writes.append(asyncio.create_task(service.append_event(key, say(key.user_id))))
        reads.append(asyncio.create_task(service.get_session(key)))
    await asyncio.wait([*reads, *writes], timeout=0.05)
    await admin.replicaof("NO", "ONE")
    for key, read, write in zip(keys * 3, reads, writes, strict=True):
        session = await read
        assert session is not None
        assert session.state == {"mine": key.user_id}
        assert (await write).content == key.user_id


async def test_a_loading_server_is_waited_for(server: servers.Server) -> None:
    """LOADING is answered by trying again; what was stored before is there afterwards."""
    async with RedisSessionService.from_url(server.url) as service:
        await service.create_session(KEY, {"n": 1})
        async with redis.asyncio.Redis.from_url(server.url) as admin:
            # It answers after every 2 MB that it has loaded.
            await admin.mset({f"ballast{n}": os.urandom(20_000) for n in range(300)})
            await admin.save()
        server.stop()
        server.start_loading()
        session = await service.get_session(KEY)
        assert session is not None
        assert session.state == {"n": 1}


async def test_a_full_server_refuses_and_writes_nothing(
    admin: redis.asyncio.Redis, service: RedisSessionService
) -> None:
    """OOM is an unavailable server that says what to do; later the same event is stored."""
    session = await service.create_session(KEY, {"n": 0})
    await admin.config_set("maxmemory", 1)
    event = say("x", state_delta={"n": 1, "user:n": 1, "app:n": 1})
    for call in (
        service.append_event(KEY, event),
        service.update_session_state(KEY, {"n": 1}),
        service.create_session(SessionKey("app", "user", "new")),
    ):
        with pytest.raises(BackendUnavailableError, match="maxmemory"):
            await call
    await admin.config_set("maxmemory", 0)
    assert await service.get_session(KEY) == session
    assert await service.get_session(SessionKey("app", "user", "new")) is None
    assert (await service.append_event(KEY, event)).seq == 1


async def test_missing_rights_are_an_error(
    admin: redis.asyncio.Redis, server: servers.Server
) -> None:
    """A user without rights, and wrong credentials, are told apart from an absent server."""
    await admin.acl_setuser("weak", enabled=True, passwords=["+secret"], commands=["+@connection"])
    options = {"username": "weak", "password": "secret"}
    async with RedisSessionService.from_url(server.url, client_options=options) as service:
        with pytest.raises(BackendError, match="denies") as raised:
            await service.create_session(KEY)
        assert type(raised.value) is BackendError
    options["password"] = "guessed"
    start = time.monotonic()
    async with RedisSessionService.from_url(server.url, client_options=options) as service:
        with pytest.raises(BackendError) as raised:
            await service.create_session(KEY)
    assert time.monotonic() - start < 5
    assert "guessed" not in str(raised.value) + repr(service)


async def test_foreign_keys_break_nothing(
    admin: redis.asyncio.Redis, service: RedisSessionService
) -> None:
    """A key of ours that holds another type is named as such, and no other key is half-written."""
    every = {"a": 2, "user:b": 2, "app:c": 2}
    new = SessionKey("app", "user", "new")
    calls: dict[str, Operation] = {
        "append": lambda: service.append_event(KEY, say("second", state_delta=every)),
        "batch": lambda: service.append_events(
            KEY, [say(n, id=n, state_delta=every) for n in "eabac"]
        ),
        "update": lambda: service.update_session_state(KEY, every),
        "create": lambda: service.create_session(new, every),
        "get": lambda: service.get_session(KEY),
        "list": lambda: service.list_sessions(KEY.user),
        "events": lambda: service.get_events(KEY),
        "find": lambda: service.get_events(KEY, around="e"),
    }
    touching = {
        "session:{app:user}:session": "append batch update get events find",
        "events:{app:user}:session": "append batch get events find",
        "eventids:{app:user}:session": "append batch find",
        "sessions:{app:user}": "append batch update create list",
        "userdata:{app:user}": "append batch update create get list",
        "appdata:{app}": "append batch update create get list",
    }
    for foreign, names in touching.items():
        await admin.flushall()
        await service.create_session(KEY, {"a": 1, "user:b": 1, "app:c": 1})
        await service.append_event(KEY, say("first", id="e"))
        await admin.delete(foreign)
        await admin.set(foreign, "not ours")
        before = await contents_of(admin)
        for name in names.split():
            with pytest.raises(CodecError, match="app 'app'"):
                await calls[name]()
            assert await contents_of(admin) == before, (foreign, name)


async def test_foreign_contents_are_named(
    admin: redis.asyncio.Redis, service: RedisSessionService
) -> None:
    """Damaged values and hashes, and newer formats, are errors that say what and whose."""
    name = "session:{app:user}:session"

    async def damaged(match: str) -> None:
        with pytest.raises(CodecError, match=match) as raised:
            await service.get_session(KEY)
        assert "user" in str(raised.value)
        await service.delete_session(KEY)

    await service.create_session(KEY, {"n": 1})
    await admin.hset(name, "state:n", "{")
    await damaged("'n'")
    await service.create_session(KEY)
    await admin.hset(name, b"state:\xff", "1")
    await damaged("UTF-8")
    await service.create_session(KEY)
    await admin.hset(name, "revision", "many")
    await damaged("damaged")
    await service.create_session(KEY)
    await admin.hset(name, "v", "2")
    for call in (service.append_event(KEY, say("x")), service.get_events(KEY)):
        with pytest.raises(CodecError, match="newer"):
            await call
    await damaged("newer")
    await admin.hset(name, "mine", "1")
    for write in (service.append_event(KEY, say("x")), service.create_session(KEY)):
        with pytest.raises(CodecError, match="not a session of ours"):
            await write
    await damaged("not a session of ours")
    await admin.hset("userdata:{app:user}", "u", "nonsense")
    with pytest.raises(CodecError, match="'u'"):
        await service.get_user_state(UserKey("app", "user"))


async def test_an_unreadable_record_is_named_in_its_page(
    admin: redis.asyncio.Redis, service: RedisSessionService
) -> None:
    """A newer format, a damaged count, a name or a type that is not ours: the others are there."""
    damages: dict[str, tuple[str, Callable[[str], Awaitable[object]]]] = {
        "newer": ("newer agentsession", lambda name: admin.hset(name, "v", "2")),
        "count": ("count", lambda name: admin.hset(name, "count", "many")),
        "name": ("UTF-8", lambda name: admin.hset(name, b"state:\xff", "1")),
        "foreign": ("not a session of ours", lambda name: admin.hdel(name, "v")),
        "type": ("not a session of ours", lambda name: admin.rename("a string", name)),
    }
    for session_id in ("first", *damages, "last"):
        await service.create_session(SessionKey("app", "user", session_id), {"app:a": 1})
    for session_id, (_, damage) in damages.items():
        await admin.set("a string", "x")
        await damage(f"session:{{app:user}}:{session_id}")
    page = await service.list_sessions(KEY.user)
    assert [session.id for session in page.sessions] == ["last", "first"]
    assert all(session.state == {"app:a": 1} for session in page.sessions)
    assert [each.key.session_id for each in page.unreadable] == list(damages)[::-1]
    for each in page.unreadable:
        assert damages[each.key.session_id][0] in each.reason
        with pytest.raises(CodecError):
            await service.get_session(each.key)
    page = await service.list_sessions(KEY.user, limit=3)
    assert ([each.id for each in page.sessions], len(page.unreadable)) == (["last"], 2)
    page = await service.list_sessions(KEY.user, limit=3, cursor=page.next_cursor)
    assert (page.sessions, len(page.unreadable)) == ([], 3)
    page = await service.list_sessions(KEY.user, limit=3, cursor=page.next_cursor)
    assert ([each.id for each in page.sessions], page.next_cursor) == (["first"], None)
    await admin.hset("userdata:{app:user}", b"\xff", "1")
    with pytest.raises(CodecError, match="UTF-8") as raised:
        await service.list_sessions(KEY.user)
    assert raised.value.subject == KEY.user


async def contents(admin: redis.asyncio.Redis) -> dict[bytes, bytes]:
    """Read all that is stored but ids of calls, which are remembered whatever they did."""
    found = await contents_of(admin)
    return {name: data for name, data in found.items() if not name.startswith(b"usercalls:")}


@pytest.mark.parametrize("field", ["revision", "count", "last", "updated", "horizon"])
async def test_nothing_is_appended_to_a_damaged_session(
    admin: redis.asyncio.Redis, service: RedisSessionService, field: str
) -> None:
    """A number that is missing, or none of ours, is an error, and nothing is half-written."""
    name = "session:{app:user}:session"
    await service.create_session(KEY, {"n": 0})
    await service.append_event(KEY, say("x"))
    values = ["", "many", *(["nan", "-1", "1.5", "inf"] if field == "count" else [])]
    for value in (None, *values):
        await (admin.hdel(name, field) if value is None else admin.hset(name, field, value))
        before = await contents(admin)
        for call in (
            service.append_event(KEY, say("y", state_delta={"n": 1, "user:n": 1})),
            service.update_session_state(KEY, {"n": 1}),
        ):
            with pytest.raises(CodecError, match="damaged"):
                await call
        assert await contents(admin) == before


async def test_a_foreign_index_fails_a_deletion_before_it_deletes(
    admin: redis.asyncio.Redis, service: RedisSessionService
) -> None:
    """What cannot be taken out of the list of sessions is not deleted either."""
    await service.create_session(KEY)
    await admin.delete("sessions:{app:user}")
    await admin.set("sessions:{app:user}", "not ours")
    with pytest.raises(CodecError, match="not ours"):
        await service.delete_session(KEY)
    assert await service.get_session(KEY) is not None


async def test_an_evicted_part_leaves_no_ghosts(
    admin: redis.asyncio.Redis, service: RedisSessionService
) -> None:
    """If the server evicts a session's hash alone, a new session of that id has an empty log."""
    await service.create_session(KEY)
    await service.append_event(KEY, say("old", id="e"))
    await admin.delete("session:{app:user}:session")
    with pytest.raises(SessionNotFoundError):
        await service.append_event(KEY, say("x"))
    fresh = await service.create_session(KEY)
    assert (await service.append_event(fresh, say("new", id="e"))).seq == 1
    assert [event.content for event in await service.get_events(KEY)] == ["new"]


async def test_a_repeat_whose_id_was_evicted_takes_nothing_out(
    service: RedisSessionService, admin: redis.asyncio.Redis
) -> None:
    """Without the ids a repeat cannot be told from a new event: an error, and the log stays."""
    first, second, new = say("1"), say("2"), say("3")
    await service.create_session(KEY)
    await service.append_events(KEY, [first, second])
    await admin.delete("eventids:{app:user}:session")
    before = await service.get_session(KEY)
    for events in ([first], [second], [new, first]):
        with pytest.raises(CodecError, match="damaged"):
            await service.append_events(KEY, events)
    assert await service.get_session(KEY) == before
    assert not await admin.exists("eventids:{app:user}:session")


async def test_an_erasure_that_fails_midway_says_so(
    service: RedisSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was erased before is not told as "nothing was written"."""
    for number in range(3):
        await service.create_session(SessionKey("app", "user", f"{number}"), {"user:n": 1})
    assert isinstance(service.backend, RedisBackend)
    erasing = service.backend._erasing
    delete = erasing._delete
    done: list[str] = []

    async def fail_later(*args: Any) -> None:
        if done:
            raise BackendUnavailableError(KEY.user, "nothing was written")
        await delete(*args)
        done.append("once")

    monkeypatch.setattr(erasing, "_delete", fail_later)
    with pytest.raises(OutcomeUnknownError, match=r"erased in part.*repeat it"):
        await service.delete_user(KEY.user)
    assert (await service.list_sessions(KEY.user)).sessions == []
    monkeypatch.undo()
    await service.delete_user(KEY.user)
    assert await service.get_user_state(KEY.user) == {}


async def test_an_erasure_that_wrote_nothing_has_erased_nothing(
    service: RedisSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where somebody makes a session after it was looked what there is to erase."""
    assert isinstance(service.backend, RedisBackend)
    erasing = service.backend._erasing
    positions, delete = erasing._listing.positions, erasing._delete
    made: list[Session] = []

    async def too_early(*args: Any) -> Any:
        found = await positions(*args)
        made.append(await service.get_or_create_session(KEY))
        return found

    async def fail(user: UserKey, names: Any, ids: Sequence[str]) -> None:
        if not ids:
            raise BackendUnavailableError(user, "nothing was written")
        await delete(user, names, ids)

    monkeypatch.setattr(erasing._listing, "positions", too_early)
    monkeypatch.setattr(erasing, "_delete", fail)
    with pytest.raises(BackendUnavailableError):
        await service.delete_user(KEY.user)
    assert await service.get_session(KEY) == made[0]


async def test_a_session_made_and_deleted_is_made_anew_without_undoing(
    service: RedisSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first creation wrote for the user is not written again, and not denied either."""
    backend = service.backend
    assert isinstance(backend, RedisBackend)
    make = backend._make
    made: list[str] = []

    async def lose(*args: Any, **options: Any) -> Any:
        if made == ["deleted"]:
            raise BackendUnavailableError(KEY, "nothing was written")
        await make(*args, **options)
        await service.update_user_state(KEY.user, {"n": 2})
        await service.delete_session(KEY)
        made.append("deleted")
        return True, None

    with monkeypatch.context() as patch:
        patch.setattr(backend, "_make", lose)
        with pytest.raises(OutcomeUnknownError, match="repeat it"):
            await service.get_or_create_session(KEY, {"user:n": 1, "x": 1})
    made.clear()

    async def lose_once(*args: Any, **options: Any) -> Any:
        return await (make if made else lose)(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(backend, "_make", lose_once)
        session = await service.get_or_create_session(KEY, {"user:n": 1, "x": 1})
    assert session.state == {"user:n": 2, "x": 1}


async def test_an_append_that_is_stored_says_so_whatever_else_cannot_be_read(
    service: RedisSessionService, admin: redis.asyncio.Redis
) -> None:
    """A Session at hand stays as it is if what it lacks is damaged."""
    session = await service.create_session(KEY, {"user:n": 1})
    await service.append_event(KEY, say("another's"))
    await admin.hset("userdata:{app:user}", "n", "not JSON")
    event = say("mine")
    assert (await service.append_event(session, event)).seq == 2
    assert (await service.append_event(session, event)).seq == 2


async def test_an_id_that_cannot_be_is_the_matter_of_who_asks(
    service: RedisSessionService,
) -> None:
    """Half of a surrogate pair in a request takes down nobody else's calls."""
    await service.create_session(KEY)
    calls = [asyncio.create_task(service.append_event(KEY, say(f"{n}"))) for n in range(50)]
    with pytest.raises(EventNotFoundError):
        await service.get_events(KEY, around="\ud800")
    assert sorted([(await call).seq for call in calls]) == list(range(1, 51))


@pytest.mark.on_both_loops
async def test_cancelled_calls_leave_nothing_behind(
    admin: redis.asyncio.Redis, service: RedisSessionService
) -> None:
    """A storm of cancellations costs no connection, no task, and nobody else's answer."""
    keys = [SessionKey("app", "user", str(n)) for n in range(10)]
    for key in keys:
        await service.create_session(key, {"mine": key.session_id})
    connections = len(await admin.client_list())
    tasks = len(asyncio.all_tasks())

    async def check(n: int) -> None:
        key = keys[n % 10]
        session = await service.get_session(key)
        assert session is not None
        assert session.state["mine"] == key.session_id
        await service.append_event(key, say(str(n)))

    for round_ in range(10):
        calls = [asyncio.create_task(check(n)) for n in range(100)]
        for n, call in enumerate(calls):
            if n % 7 == round_ % 7:
                await asyncio.sleep(0)
            if n % 3:
                call.cancel()
        for call in calls:
            await asyncio.wait([call])
            assert call.cancelled() or call.exception() is None
    await service.get_session(KEY)
    assert repr(service).count("waiting=0 in_flight=0") == 1
    assert len(asyncio.all_tasks()) == tasks
    assert len(await admin.client_list()) == connections
    for key in keys:
        events = await service.get_events(key, limit=1000)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize("name", ["n", "temp:n"])
async def test_who_opens_sessions_that_are_there_shares_round_trips(
    proxy: Proxy, name: str
) -> None:
    """State that they would be made with holds up nobody else's reading."""
    async with RedisSessionService.from_url(proxy.url) as service:
        await service.create_session(KEY, {"n": 1})
        before = proxy.round_trips
        proxy.delay = 0.005
        async with asyncio.TaskGroup() as group:
            for n in range(50):
                group.create_task(service.get_or_create_session(KEY, {name: n}))
        assert proxy.round_trips - before < 10


@pytest.mark.on_both_loops
@pytest.mark.parametrize("method", ["get_session", "get_or_create_session"])
async def test_who_stood_in_line_to_read_shares_round_trips(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """After a burst, readers are let in side by side again, as many as there is room for.

    The way to the server takes a while here; on a faster one an answer is there before others ask.
    """
    monkeypatch.setattr(Backlog.__init__, "__defaults__", (10, 64 << 20))
    async with RedisSessionService.from_url(proxy.url) as service:
        await service.create_session(KEY)
        before = proxy.round_trips
        proxy.delay = 0.005
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(getattr(service, method)(KEY))
        assert proxy.round_trips - before < 50


async def test_closing_waits_for_answers(server: servers.Server) -> None:
    """Calls that are under way when the service is closed get their answers."""
    service = RedisSessionService.from_url(server.url)
    await service.create_session(KEY)
    calls = [asyncio.create_task(service.append_event(KEY, say(str(n)))) for n in range(50)]
    await asyncio.sleep(0)
    await service.aclose()
    assert sorted([(await call).seq for call in calls]) == list(range(1, 51))
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("agentsession")]


@pytest.mark.on_both_loops
async def test_closing_comes_back_for_a_lost_answer(proxy: Proxy) -> None:
    """While it waits for replies, it connects again for one that was lost."""
    service = RedisSessionService.from_url(proxy.url, timeout=30)
    await service.create_session(KEY)
    await service.append_event(KEY, say("first"))
    before = proxy.connections
    proxy.freeze()
    call = asyncio.create_task(service.append_event(KEY, say("x")))
    await asyncio.sleep(0)
    closing = asyncio.create_task(service.aclose())
    await asyncio.sleep(0)
    proxy.lose_replies = 1
    proxy.thaw()
    await closing
    assert (await call).seq == 2
    assert (proxy.lost_replies, proxy.connections) == (1, before + 1)


async def test_closing_one_of_several_connections_leaves_the_others(proxy: Proxy) -> None:
    """A reply that is under way on one comes, though the others have nothing to wait for."""
    service = RedisSessionService.from_url(proxy.url, connections=4)
    for n in range(20):
        await service.create_session(SessionKey("app", f"user {n}", "s"))
    before = proxy.connections
    proxy.freeze()
    call = asyncio.create_task(service.append_event(SessionKey("app", "user 0", "s"), say("x")))
    await asyncio.sleep(0)
    closing = asyncio.create_task(service.aclose())
    for _ in range(20):
        await asyncio.sleep(0)
    proxy.thaw()
    await closing
    assert (await call).seq == 1
    assert proxy.connections == before


async def test_closing_does_not_wait_for_ever(proxy: Proxy) -> None:
    """With a hung server, closing ends in bounded time, and so do the callers."""
    service = RedisSessionService.from_url(proxy.url, timeout=1)
    await service.create_session(KEY)
    proxy.freeze()
    call = asyncio.create_task(service.append_event(KEY, say("x")))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await service.aclose()
        with pytest.raises(OutcomeUnknownError):
            await call


@pytest.mark.on_both_loops
async def test_a_cancelled_close_leaves_nothing_open(proxy: Proxy) -> None:
    """If closing is cancelled while it waits for replies, everything is let go."""
    service = RedisSessionService.from_url(proxy.url, timeout=30)
    await service.create_session(KEY)
    proxy.freeze()
    call = asyncio.create_task(service.append_event(KEY, say("x")))
    await asyncio.sleep(0)
    closing = asyncio.create_task(service.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises((OutcomeUnknownError, BackendUnavailableError)):
        await call
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("agentsession")]


@pytest.mark.on_both_loops
async def test_a_hung_connection_is_replaced_though_nobody_waits(proxy: Proxy) -> None:
    """A connection that owes a reply too long is given up, whoever waits for it."""
    async with RedisSessionService.from_url(proxy.url, timeout=1) as service:
        await service.create_session(KEY)
        proxy.freeze()
        call = asyncio.create_task(service.append_event(KEY, say("x")))
        for _ in range(5):
            await asyncio.sleep(0)
        call.cancel()
        connections = proxy.connections
        async with asyncio.timeout(5):
            while "in_flight=1" in repr(service):
                await asyncio.sleep(0.001)
        proxy.thaw()
        assert await service.get_session(KEY) is not None
        assert proxy.connections == connections + 1


async def test_callers_wait_when_too_much_is_under_way(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound calls wait for room, and fail in time if there is none."""
    monkeypatch.setattr(making, "Backlog", lambda: Backlog(5))
    async with RedisSessionService.from_url(proxy.url, timeout=1.5) as service:
        await service.create_session(KEY)
        async with asyncio.TaskGroup() as group:
            for n in range(100):
                group.create_task(service.append_event(KEY, say(str(n))))
        assert len(await service.get_events(KEY)) == 100
        proxy.freeze()
        calls = [asyncio.create_task(service.append_event(KEY, say(str(n)))) for n in range(20)]
        await asyncio.wait(calls)
        kinds = [type(call.exception()) for call in calls]
        assert kinds == [OutcomeUnknownError] * 5 + [BackendUnavailableError] * 15
        proxy.thaw()


class Nowhere(Endpoint):
    """Where no server is just now, and will be."""

    async def open(self, patience: float, clock: ServerClock) -> NoReturn:
        raise PrimaryAbsentError


def to_nowhere(backlog: Backlog) -> ServerLink:
    return ServerLink(Nowhere(Connection()), timeout=1, backlog=backlog)


async def unserved(link: ServerLink) -> float:
    """Make a call that ends at its deadline, and return how long it took."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(NotSentError):
        await link.run(load("get"), ["key"], [])
    return loop.time() - start


async def test_who_waited_for_room_ends_in_time() -> None:
    """Also if others, whose time is up later, came first when there was room again."""
    link = to_nowhere(Backlog(2))

    async def twice() -> None:
        await unserved(link)
        await unserved(link)

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(twice())
        await asyncio.sleep(0.5)
        waiting = group.create_task(unserved(link))
    assert waiting.result() < 1.3
    await link.aclose()


async def test_what_was_prepared_too_long_is_not_sent() -> None:
    """Nothing was written, where a reply in no time would leave that unknown."""
    link = ServerLink(Nowhere(Connection()), timeout=0.01, backlog=Backlog())
    room = await link.room(in_steps=True)
    while asyncio.get_running_loop().time() < room.deadline:
        await asyncio.sleep(0)
    with pytest.raises(NotSentError, match="no time was left"):
        await link.run(load("get"), ["key"], [], room=room)
    await link.aclose()


async def test_closing_waits_no_longer_than_for_the_last_call() -> None:
    """When the last call has ended at its deadline, nothing is left to wait for."""
    link = to_nowhere(Backlog())
    call = asyncio.create_task(unserved(link))
    await asyncio.sleep(0.5)
    async with asyncio.timeout(0.8):
        await link.aclose()
    assert await call >= 1
