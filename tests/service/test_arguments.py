"""The mistakes of newcomers at the service: each an error of the right type, in words that help."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

import pytest

from agentsession import (
    Event,
    InMemorySessionService,
    SessionKey,
    SessionPage,
    ToolResult,
    UserKey,
)
from agentsession.errors import ClosedError, EventLoopError, LeaseLostError, StateValueError
from agentsession.retention import MEBIBYTE
from agentsession.state import DELETE

KEY = SessionKey("app", "user", "session")
USER = UserKey("app", "user")
UNNAMED = SessionKey("app", "user")
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - the mistake
EVENT = Event(author="user", content="hi")
RESULT = ToolResult("call", "done")

Call: TypeAlias = Callable[..., Awaitable[object]]

# Every call whose first argument is a session, and what else it takes.
ON_A_SESSION: dict[str, Call] = {
    "create_session": lambda service, key: service.create_session(key),
    "get_session": lambda service, key: service.get_session(key),
    "get_or_create_session": lambda service, key: service.get_or_create_session(key),
    "delete_session": lambda service, key: service.delete_session(key),
    "append_event": lambda service, key: service.append_event(key, EVENT),
    "append_events": lambda service, key: service.append_events(key, [EVENT]),
    "get_events": lambda service, key: service.get_events(key),
    "get_history": lambda service, key: service.get_history(key),
    "update_session_state": lambda service, key: service.update_session_state(key, {"a": 1}),
    "delete_session_state": lambda service, key: service.delete_session_state(key, "a"),
    "rewind": lambda service, key: service.rewind(key, to_seq=0),
    "fork": lambda service, key: service.fork(key, SessionKey("app", "user")),
    "lease": lambda service, key: service.lease(key),
    "stop_run": lambda service, key: service.stop_run(key),
    "close_turn": lambda service, key: service.close_turn(key),
    "subscribe": lambda service, key: service.subscribe(key),
}
ON_A_LEASE: dict[str, Call] = {
    "begin_turn": lambda service, lease: service.begin_turn(lease, EVENT),
    "resume_turn": lambda service, lease: service.resume_turn(lease, [RESULT]),
}
ON_A_USER: dict[str, Call] = {
    "list_sessions": lambda service, user: service.list_sessions(user),
    "delete_user": lambda service, user: service.delete_user(user),
    "update_user_state": lambda service, user: service.update_user_state(user, {"a": 1}),
    "get_user_state": lambda service, user: service.get_user_state(user),
    "delete_user_state": lambda service, user: service.delete_user_state(user, "a"),
    "subscribe_user": lambda service, user: service.subscribe_user(user),
}
ON_AN_APP: dict[str, Call] = {
    "update_app_state": lambda service, app: service.update_app_state(app, {"a": 1}),
    "get_app_state": lambda service, app: service.get_app_state(app),
    "delete_app_state": lambda service, app: service.delete_app_state(app, "a"),
    "list_users": lambda service, app: service.list_users(app),
}
ON_NOTHING: dict[str, Call] = {"check": lambda service: service.check()}
# Where a session may come without an id.
CREATING = ("create_session", "get_or_create_session")


def by_name(calls: dict[str, Call]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("call", calls.values(), ids=calls)


@pytest.fixture
async def service() -> AsyncIterator[InMemorySessionService]:
    """A service with one session."""
    async with InMemorySessionService() as fresh:
        await fresh.create_session(KEY)
        yield fresh


def test_every_method_is_tried_here() -> None:
    """A new method has to pass these tests too."""
    methods = {
        name
        for name in dir(InMemorySessionService)
        if not name.startswith("_")
        and name != "aclose"
        and not isinstance(getattr(InMemorySessionService, name), property)
    }
    assert methods == {*ON_A_SESSION, *ON_A_LEASE, *ON_A_USER, *ON_AN_APP, *ON_NOTHING}


@by_name(ON_A_SESSION)
@pytest.mark.parametrize("wrong", ["session", None, USER, ("app", "user", "session"), 5], ids=ascii)
async def test_a_session_is_named_by_its_key(
    service: InMemorySessionService, call: Call, wrong: object
) -> None:
    """A bare id is not enough, since it would not say whose session it is."""
    with pytest.raises(TypeError) as raised:
        await call(service, wrong)
    words = "expected a SessionKey(app_name, user_id, session_id), not "
    assert str(raised.value).startswith(words + type(wrong).__name__)


@by_name({name: call for name, call in ON_A_SESSION.items() if name not in CREATING})
async def test_only_creating_can_do_without_an_id(
    service: InMemorySessionService, call: Call
) -> None:
    """An empty id is a ValueError that says where it may be empty."""
    with pytest.raises(ValueError, match="session_id is empty; only creating a session can do"):
        await call(service, UNNAMED)


@by_name(ON_A_USER)
@pytest.mark.parametrize("wrong", [KEY, "user", None, ("app", "user")], ids=ascii)
async def test_a_user_is_named_by_a_user_key(
    service: InMemorySessionService, call: Call, wrong: object
) -> None:
    """A session's key is none: one that erased its user would erase too much."""
    if wrong == "user" and call is ON_A_USER["list_sessions"]:
        assert await call(service, wrong) == SessionPage(sessions=[])  # An application there.
        return
    with pytest.raises(TypeError) as raised:
        await call(service, wrong)
    words = "expected a UserKey(app_name, user_id), not "
    assert str(raised.value).startswith(words + type(wrong).__name__)


@by_name(ON_AN_APP)
@pytest.mark.parametrize("wrong", [USER, KEY, None, b"app"], ids=ascii)
async def test_an_app_is_named_by_a_str(
    service: InMemorySessionService, call: Call, wrong: object
) -> None:
    """A key is none; an empty name names nothing."""
    with pytest.raises(TypeError, match=f"app_name must be a str, not {type(wrong).__name__}"):
        await call(service, wrong)
    with pytest.raises(ValueError, match="app_name must not be empty"):
        await call(service, "")


class Index(int):
    """As an enum's or a library's own integer is."""


READS: dict[str, Call] = {
    "get_session": lambda service, **options: service.get_session(KEY, **options),
    "get_or_create": lambda service, **options: service.get_or_create_session(KEY, **options),
}


@by_name(READS)
@pytest.mark.parametrize("name", ["num_recent_events", "after_seq"])
async def test_bounds_are_natural_numbers(
    service: InMemorySessionService, call: Call, name: str
) -> None:
    """Neither negative nor a bool, a float or a string."""
    with pytest.raises(ValueError, match=f"{name} must not be negative: -1"):
        await call(service, **{name: -1})
    for wrong in (True, 1.0, "1", Decimal(1)):
        with pytest.raises(TypeError, match=f"{name} must be an int, not {type(wrong).__name__}"):
            await call(service, **{name: wrong})


@by_name(READS)
async def test_since_is_an_aware_datetime(service: InMemorySessionService, call: Call) -> None:
    """A naive one would mean another moment on another machine."""
    with pytest.raises(ValueError, match="since must be aware, with a time zone such as datetime"):
        await call(service, since=NAIVE)
    for wrong in (0, 1.5, "2026-01-01", date(2026, 1, 1), timedelta(1)):
        with pytest.raises(TypeError, match="since must be a datetime, not "):
            await call(service, since=wrong)
    assert await call(service, since=NAIVE.replace(tzinfo=UTC))


LIMITED: dict[str, Call] = {
    "list_sessions": lambda service, limit: service.list_sessions(USER, limit=limit),
    "get_events": lambda service, limit: service.get_events(KEY, limit=limit),
    "around": lambda service, limit: service.get_events(KEY, around=1, limit=limit),
}


@by_name(LIMITED)
async def test_a_page_has_from_1_to_1000(service: InMemorySessionService, call: Call) -> None:
    """A page of nothing, of everything or of a fraction is refused."""
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"limit must be 1 or more, not {wrong}"):
            await call(service, wrong)
    with pytest.raises(ValueError, match="limit must be from 1 to 1,000, not 1001"):
        await call(service, 1001)
    for odd in (True, 1.0, "10", None, Index(5)):
        with pytest.raises(TypeError, match=f"limit must be an int, not {type(odd).__name__}"):
            await call(service, odd)
    await service.append_event(KEY, EVENT)
    await call(service, 1)
    await call(service, 1000)


@pytest.mark.parametrize("name", ["after_seq", "before_seq", "around"])
async def test_positions_are_natural_numbers(service: InMemorySessionService, name: str) -> None:
    """Neither negative nor a bool or a float; python's negative indices mean nothing here."""
    options: dict[str, Any] = {name: -1}
    with pytest.raises(ValueError, match=f"{name} must not be negative: -1"):
        await service.get_events(KEY, **options)
    for wrong in (True, 1.0):
        options = {name: wrong}
        with pytest.raises(TypeError, match=f"{name} must be an int, not {type(wrong).__name__}"):
            await service.get_events(KEY, **options)


async def test_around_goes_with_no_other_position(service: InMemorySessionService) -> None:
    """The window has positions of its own."""
    positions: list[dict[str, Any]] = [{"after_seq": 1}, {"before_seq": 5}, {"before_seq": 0}]
    for options in positions:
        with pytest.raises(ValueError, match="goes with neither after_seq nor before_seq"):
            await service.get_events(KEY, around=1, **options)


@pytest.mark.parametrize("wrong", [-1, True, 1.0, "1"], ids=ascii)
async def test_a_revision_is_a_natural_number(service: InMemorySessionService, wrong: Any) -> None:
    """For one event and for several."""
    calls: list[Awaitable[object]] = [
        service.append_event(KEY, EVENT, expected_revision=wrong),
        service.append_events(KEY, [EVENT], expected_revision=wrong),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match="expected_revision must "):
            await call
    assert await service.get_events(KEY) == []


@pytest.mark.parametrize(
    "wrong", ["", "next", "AAAA", "WzFd", "W10=", "é", "a b", "\ud800", "=", "e30=", "bnVsbA==",
            "WzEs*InMiXQ=="],
    ids=ascii,
)  # fmt: skip
async def test_a_cursor_comes_from_a_page(service: InMemorySessionService, wrong: str) -> None:
    """Anything else is refused before the store is asked."""
    with pytest.raises(ValueError, match="cursor is no next_cursor of a SessionPage"):
        await service.list_sessions(USER, cursor=wrong)
    page = await service.list_sessions(USER, cursor="WzEsInMiXQ==")  # [1,"s"], one that is ours
    assert page.sessions == []


@pytest.mark.parametrize("wrong", ["image", "Text", "", ["text"], 5], ids=ascii)
async def test_a_content_type_is_that_of_a_part(
    service: InMemorySessionService, wrong: Any
) -> None:
    """The error lists them."""
    words = "content_type must be one of text, reasoning, media, tool_call, tool_result, data, not "
    with pytest.raises(ValueError, match=words):
        await service.get_events(KEY, content_type=wrong)


@pytest.mark.parametrize(
    ("name", "wrong"), [("author", 5), ("author", [5]), ("branch", 5), ("branch", ["a"])], ids=ascii
)
async def test_filters_are_strings(service: InMemorySessionService, name: str, wrong: Any) -> None:
    """An author or a branch of another type can match nothing; the error names the argument."""
    options: dict[str, Any] = {name: wrong}
    with pytest.raises(TypeError, match=name):
        await service.get_events(KEY, **options)


GIVING_STATE: dict[str, Call] = {
    "create_session": lambda service, state: service.create_session(UNNAMED, state),
    "get_or_create": lambda service, state: service.get_or_create_session(UNNAMED, state),
    "update_session_state": lambda service, state: service.update_session_state(KEY, state),
    "update_app_state": lambda service, state: service.update_app_state("app", state),
    "update_user_state": lambda service, state: service.update_user_state(USER, state),
    "append_event": lambda service, state: service.append_event(
        KEY, Event(author="user", state_delta=state)
    ),
}


@by_name(GIVING_STATE)
@pytest.mark.parametrize("wrong", [[("a", 1)], "state", 5, {"a"}], ids=ascii)
async def test_state_is_a_mapping(
    service: InMemorySessionService, call: Call, wrong: object
) -> None:
    """Pairs, text and sets are none."""
    kind = type(wrong).__name__
    with pytest.raises(TypeError, match=f"state must be a mapping of names to values, not {kind}"):
        await call(service, wrong)


@by_name(GIVING_STATE)
@pytest.mark.parametrize("wrong", [[], "", 0, ()], ids=ascii)
async def test_state_that_is_false_is_a_mapping_too(
    service: InMemorySessionService, call: Call, wrong: object
) -> None:
    """An empty list is as wrong as a full one, and found as early."""
    with pytest.raises(TypeError, match="state must be a mapping of names to values, not "):
        await call(service, wrong)


@by_name(GIVING_STATE)
async def test_names_and_values_of_state_are_checked(
    service: InMemorySessionService, call: Call
) -> None:
    """The error names the path, and nothing is stored."""
    with pytest.raises(StateValueError, match=r"a\['b'\]\[0\]: a set would not come back as one"):
        await call(service, {"fine": 1, "a": {"b": [{1}]}})
    with pytest.raises(StateValueError, match="1: a name must be a str, not int"):
        await call(service, {"fine": 1, 1: 1})
    with pytest.raises(StateValueError, match="the name is empty"):
        await call(service, {"fine": 1, "": 1})
    session = await service.get_session(KEY)
    assert session is not None
    assert (session.state, session.events, session.revision) == ({}, [], 1)
    assert len((await service.list_sessions(USER)).sessions) == 1


@pytest.mark.parametrize("wrong", [None, "hi", {"author": "user"}, Event, KEY], ids=ascii)
async def test_an_event_is_an_event(service: InMemorySessionService, wrong: Any) -> None:
    """One that is none, alone or among others, is refused, and nothing is stored."""
    calls: list[Awaitable[object]] = [
        service.append_event(KEY, wrong),
        service.append_events(KEY, [EVENT, wrong]),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"expected an agentsession\.Event, not "):
            await call
    assert await service.get_events(KEY) == []


@pytest.mark.parametrize("wrong", [EVENT, None, 5], ids=["event", "None", "5"])
async def test_a_batch_is_several_events(service: InMemorySessionService, wrong: Any) -> None:
    """A single event is none."""
    with pytest.raises(TypeError, match=type(wrong).__name__):
        await service.append_events(KEY, wrong)


async def test_a_batch_holds_up_to_1000_events(service: InMemorySessionService) -> None:
    """More are refused whole, with advice; from an iterator too."""
    with pytest.raises(ValueError, match="up to 1,000 events, not 1,001; append in pieces"):
        await service.append_events(KEY, (Event(author="user") for _ in range(1001)))
    assert await service.get_events(KEY) == []
    stored = await service.append_events(KEY, [Event(author="user") for _ in range(1000)])
    assert stored[-1].seq == 1000
    assert await service.append_events(KEY, []) == []


ONE_MIB = b"x" * (MEBIBYTE - 1)


ALONE = {name: call for name, call in GIVING_STATE.items() if name != "append_event"}


@by_name(ALONE)
async def test_one_call_changes_up_to_100_000_names(
    service: InMemorySessionService, call: Call
) -> None:
    """More are refused before anything is sent."""
    names = {f"n{n}": 0 for n in range(100_000)}
    with pytest.raises(ValueError, match="up to 100,000 names of state, not 100,001; use several"):
        await call(service, names | {"more": 0})
    await call(service, names)


@by_name(ALONE)
async def test_one_call_writes_up_to_64_mib_of_state(
    service: InMemorySessionService, call: Call
) -> None:
    """Of values that are each within their limit."""
    fits: dict[str, Any] = {f"n{n}": ONE_MIB for n in range(64)}
    with pytest.raises(ValueError, match="up to 67,108,864 bytes, not 67,108,865; use several"):
        await call(service, fits | {"one": 1})
    await call(service, fits | {"deleted": DELETE})


@by_name(ALONE)
async def test_one_call_names_up_to_64_mib(service: InMemorySessionService, call: Call) -> None:
    """Of names that are each within their limit, which is 64 KiB in UTF-8."""
    names: dict[str, Any] = {f"{n:04}" + "x" * 65_531: 0 for n in range(1025)}
    with pytest.raises(
        ValueError, match="names of state in one call take up to 67,108,864 characters"
    ):
        await call(service, names)
    await call(service, {"x" * 65_536: 0, "ü" * 32_768: 0})
    for name in ("x" * 65_537, "ü" * 32_769, "x" + "ü" * 32_768):
        with pytest.raises(StateValueError, match="a name takes up to 65,536 bytes"):
            await call(service, {name: 0})


async def test_one_call_writes_up_to_64_mib_of_events(service: InMemorySessionService) -> None:
    """Of events that are each within their limit; nothing is stored."""
    large = [Event(author="user", content="x" * 1_000_000) for _ in range(68)]
    with pytest.raises(ValueError, match="up to 67,108,864 bytes, not 68,00"):
        await service.append_events(KEY, large)
    assert await service.get_events(KEY) == []
    many = [
        Event(author="user", state_delta={f"{n}.{m}": 0 for m in range(50_001)}) for n in range(2)
    ]
    with pytest.raises(ValueError, match="up to 100,000 names of state, not 100,002"):
        await service.append_events(KEY, many)
    await service.append_events(KEY, large[:67])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"author": ""}, "author"),
        ({"author": "user", "id": ""}, "id"),
        ({"author": "user", "timestamp": NAIVE}, "timestamp"),
        ({"author": "user", "content": None}, "content"),
        ({"author": "user", "metadata": {"a": {1}}}, r"metadata\['a'\]"),
    ],
    ids=["author", "id", "timestamp", "content", "metadata"],
)
async def test_the_fields_of_an_event_are_checked(
    service: InMemorySessionService, fields: dict[str, Any], words: str
) -> None:
    """One bad event keeps the whole batch out, and the error names the field."""
    with pytest.raises(ValueError, match=words):
        await service.append_events(KEY, [EVENT, Event(**fields)])
    assert await service.get_events(KEY) == []


def about(subject: object, call: Call) -> Call:
    return lambda service: call(service, subject)


EVERY_CALL: dict[str, Callable[[InMemorySessionService], Awaitable[object]]] = {
    **{name: about(KEY, call) for name, call in ON_A_SESSION.items()},
    **{name: about(USER, call) for name, call in ON_A_USER.items()},
    **{name: about("app", call) for name, call in ON_AN_APP.items()},
    **ON_NOTHING,
    "async with": lambda service: service.__aenter__(),
}


@by_name(EVERY_CALL)
async def test_a_closed_service_says_so(service: InMemorySessionService, call: Call) -> None:
    """Nothing works after closing but closing again."""
    await service.aclose()
    await service.aclose()
    with pytest.raises(ClosedError, match="make a new one, and close it last"):
        await call(service)
    assert repr(service).startswith("<InMemorySessionService closed ")


@by_name(EVERY_CALL)
def test_a_service_stays_on_its_loop(call: Call) -> None:
    """Use from a second event loop is refused, with advice."""
    service = InMemorySessionService()

    async def use(used: Call) -> None:
        await used(service)

    asyncio.run(use(lambda service: service.create_session(KEY)), debug=True)
    with pytest.raises(EventLoopError, match="make one service for each loop"):
        asyncio.run(use(call), debug=True)


@pytest.mark.parametrize("options", [{}, {"session_ttl": 60}], ids=["bare", "with a sweeper"])
def test_a_service_is_closed_on_its_loop(options: dict[str, Any]) -> None:
    """Elsewhere it is refused, and stays open, be its loop running or ended."""
    service = InMemorySessionService(**options)

    async def close_elsewhere() -> None:
        await service.create_session(KEY)
        with pytest.raises(EventLoopError, match="For several loops") as raised:
            await asyncio.to_thread(asyncio.run, service.aclose())
        assert raised.value.problem == "another"
        assert await service.get_session(KEY) is not None

    asyncio.run(close_elsewhere())
    for _ in range(2):
        with pytest.raises(EventLoopError, match="which has ended") as raised:
            asyncio.run(service.aclose())
        assert raised.value.problem == "ended"


def test_a_service_that_is_closed_or_unused_is_closed_anywhere() -> None:
    """There is nothing to do, which can be done on any loop."""
    service = InMemorySessionService(session_ttl=60)
    asyncio.run(service.aclose())
    service = InMemorySessionService(session_ttl=60)

    async def use() -> None:
        async with service:
            await service.create_session(KEY)

    asyncio.run(use())
    asyncio.run(service.aclose())
    with pytest.raises(ClosedError):
        asyncio.run(service.get_session(KEY))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"session_ttl": -1}, ValueError, "session_ttl must be from 0"),
        ({"app_state_ttl": timedelta(seconds=-1)}, ValueError, "app_state_ttl must be from 0"),
        ({"user_state_ttl": float("nan")}, ValueError, "user_state_ttl must be from 0"),
        ({"session_ttl": "1h"}, TypeError, "session_ttl must be seconds or a timedelta, not str"),
        ({"session_event_limit": 0}, ValueError, "session_event_limit must be 1 or more, not 0"),
        ({"session_event_limit": -5}, ValueError, "session_event_limit must be 1 or more, not -5"),
        ({"session_event_limit": 1e3}, TypeError, "session_event_limit must be an int, not float"),
        ({"session_event_limit": True}, TypeError, "session_event_limit must be an int, not bool"),
        ({"cleanup_interval": "5m"}, TypeError, "cleanup_interval must be seconds or a timedelta"),
        ({"cleanup_interval": [5]}, TypeError, "cleanup_interval must be seconds or a timedelta"),
        ({"cleanup_interval": -1}, ValueError, "cleanup_interval must be from 0"),
        ({"cleanup_interval": float("inf")}, ValueError, "cleanup_interval must be from 0"),
        ({"max_event_size": 0}, ValueError, "max_event_size must be 1 or more, not 0"),
        ({"max_event_size": 1e6}, TypeError, "max_event_size must be an int, not float"),
        ({"max_value_size": -1}, ValueError, "max_value_size must be 1 or more, not -1"),
        ({"max_value_size": "1 MB"}, TypeError, "max_value_size must be an int, not str"),
        ({"max_read_size": 0}, ValueError, "max_read_size must be 1 or more, not 0"),
        ({"max_read_size": 1e9}, TypeError, "max_read_size must be an int, not float"),
        (
            {"max_read_size": 1_000_000},
            ValueError,
            r"max_read_size must not be under max_event_size \(1,048,576\), as 1,000,000 is",
        ),
        ({"max_event_size": 1 << 27}, ValueError, "max_read_size must not be under max_event_size"),
    ],
    ids=ascii,
)
def test_options_are_checked_at_once(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """When the service is made, and not at its first use."""
    with pytest.raises(error, match=words):
        InMemorySessionService(**options)


def test_options_are_named() -> None:
    """A bare number would not say which of them it is."""
    make: Any = InMemorySessionService
    with pytest.raises(TypeError, match="positional"):
        make(1000)
    with pytest.raises(TypeError, match="ttl"):
        make(ttl=5)


async def test_what_nearly_is_a_key_gets_advice(service: InMemorySessionService) -> None:
    """A forgotten await, a session and a session's key in the wrong place are common."""
    forgotten = service.get_session(KEY)
    with pytest.raises(TypeError, match="an await is missing"):
        await service.append_event(forgotten, EVENT)  # type: ignore[arg-type]  # the mistake
    forgotten.close()
    session = await service.get_or_create_session(KEY)
    with pytest.raises(TypeError, match="pass its key"):
        await service.get_session(session)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match="property user"):
        await service.list_sessions(KEY)  # type: ignore[arg-type]  # the mistake


async def test_a_refused_event_is_named(service: InMemorySessionService) -> None:
    """Of a batch, one wrong event is told by its id, and its session is named."""
    wrong = Event(author="agent", id="e2", metadata={"tags": {1}})
    with pytest.raises(StateValueError, match=r"metadata\['tags'\]: a set") as raised:
        await service.append_events(KEY, [EVENT, wrong])
    (note,) = raised.value.__notes__
    assert note.startswith("This was event 'e2' for session ")


@by_name(ON_A_LEASE)
@pytest.mark.parametrize("wrong", [KEY, None, "lease"], ids=ascii)
async def test_a_lease_comes_from_a_service(
    service: InMemorySessionService, call: Call, wrong: object
) -> None:
    """A key is none."""
    with pytest.raises(TypeError, match=r"a lease comes from service\.lease\(\), and is no "):
        await call(service, wrong)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"when_busy": "wait"}, ValueError, "when_busy must be one of 'queue', 'reject', 'interr"),
        ({"wait": -1}, ValueError, "wait must be from 0"),
        ({"wait": 3601}, ValueError, "wait must be at most 3,600 seconds, not 3601"),
        ({"wait": "5"}, TypeError, "wait must be seconds or a timedelta, not str"),
        ({"ttl": 0.9}, ValueError, "ttl must be from 1 to 3,600 seconds, not 0.9: a shorter one"),
        ({"ttl": 0}, ValueError, "ttl must be from 1 to 3,600 seconds, not 0"),
        ({"ttl": timedelta(hours=2)}, ValueError, "ttl must be at most 3,600 seconds, not 7200"),
        ({"grace": 4000}, ValueError, "grace must be at most 3,600 seconds, not 4000"),
        ({"exclusive": 1}, TypeError, "exclusive must be True or False, not 1"),
        ({"run_id": 5}, TypeError, "run_id must be a str, not int: 5"),
        ({"run_id": ""}, ValueError, "run_id must have from 1 to 1,000 characters, not 0"),
        ({"run_id": "x" * 1001}, ValueError, "run_id must have from 1 to 1,000 characters, not"),
        ({"run_id": "\ud800"}, ValueError, "run_id holds half of a surrogate pair at position 0"),
    ],
    ids=ascii,
)
def test_what_a_lease_takes(options: dict[str, Any], error: type[Exception], words: str) -> None:
    """Each option says what it may be; nothing is asked of the store."""

    async def ask() -> None:
        async with InMemorySessionService() as service:
            service.lease(KEY, **options)

    with pytest.raises(error, match=re.escape(words)):
        asyncio.run(ask())


async def test_a_lease_is_used_in_order(service: InMemorySessionService) -> None:
    """Taken once, before anything is written with it, and for its own session."""
    lease = service.lease(KEY)
    with pytest.raises(RuntimeError, match="the lease was not taken yet; write 'async with"):
        await service.append_event(KEY, EVENT, lease=lease)
    async with lease:
        with pytest.raises(RuntimeError, match="a lease is used once; make another with"):
            await lease.acquire()
        with pytest.raises(RuntimeError, match="a lease is used once"):
            await service.begin_turn(lease, EVENT)
        other = SessionKey("app", "user", "other")
        for call in (
            service.append_event(other, EVENT, lease=lease),
            service.update_session_state(other, {"a": 1}, lease=lease),
        ):
            with pytest.raises(
                ValueError, match=r"'other'.*: the lease is of another session: sess"
            ):
                await call
        ending = Event(author="agent", outcome="completed")
        with pytest.raises(ValueError, match="ends the turn, but is not the last of the batch"):
            await service.append_events(KEY, [ending, EVENT], lease=lease)
    with pytest.raises(LeaseLostError):
        await service.append_event(KEY, EVENT, lease=lease)
    with pytest.raises(ValueError, match="a chunk of a stream begins no turn"):
        await service.begin_turn(service.lease(KEY), Event(author="user", partial=True))
    assert await service.get_events(KEY) == []


@pytest.mark.parametrize("wrong", [None, "r", [KEY], ["r"], RESULT], ids=ascii)
async def test_results_are_results(service: InMemorySessionService, wrong: Any) -> None:
    """Several in a list, and at least one."""
    with pytest.raises(TypeError):
        await service.resume_turn(service.lease(KEY), wrong)
    with pytest.raises(ValueError, match="goes on with at least one result"):
        await service.resume_turn(service.lease(KEY), [])


@pytest.mark.parametrize("wrong", [5, ""], ids=ascii)
async def test_a_run_to_stop_is_named_by_its_id(
    service: InMemorySessionService, wrong: Any
) -> None:
    """Which is not empty; to stop whichever it is, it is left out."""
    with pytest.raises((TypeError, ValueError), match="run_id must "):
        await service.stop_run(KEY, wrong)
