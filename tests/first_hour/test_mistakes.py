"""The mistakes of a newcomer, and what each says: calls with something wrong in them.

Each row makes one mistake. What it says has to tell the reader what to do, so a row quotes the
words that do. Where Python says it well enough by itself, the row holds Python's own words.
"""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
import redis

from agentsession import (
    Event,
    InMemorySessionService,
    RedisSessionService,
    Runner,
    SessionKey,
    SessionService,
    SQLiteSessionService,
    Text,
    ToolCall,
    UserKey,
    open_service,
)
from agentsession.errors import (
    ClosedError,
    RevisionConflictError,
    SessionExistsError,
    SessionNotFoundError,
    StateValueError,
)

KEY = SessionKey("shop", "ann", "s1")
USER = KEY.user
HELLO = Event(author="user", content="Hello")


class Mistake(NamedTuple):
    """A mistake, made with a service that holds the session ``KEY``."""

    what: str
    make: Callable[[Any], Any]
    error: type[Exception]
    says: str


# -- mistakes that take more than one expression


async def class_instead_of_service(_: SessionService) -> None:
    async with InMemorySessionService:  # type: ignore[attr-defined]
        pass


async def with_instead_of_async_with(_: SessionService) -> None:
    with InMemorySessionService():  # type: ignore[attr-defined]
        pass


async def with_around_a_runner(_: SessionService) -> None:
    with Runner("shop", answer):  # type: ignore[attr-defined]
        pass


async def used_after_closing(service: SessionService) -> None:
    await service.aclose()
    await service.get_session(KEY)


async def entered_again(service: SessionService) -> None:
    async with service:
        pass
    async with service:
        pass


async def two_writers_of_one_revision(service: SessionService) -> None:
    session = await service.get_session(KEY)
    assert session is not None
    seen = session.revision
    await service.append_event(KEY, HELLO)
    await service.append_event(KEY, Event(author="bot"), expected_revision=seen)


async def session_that_is_not_there(service: SessionService) -> None:
    session = await service.get_session(SessionKey("shop", "ann", "another"))
    await service.append_event(session, HELLO)  # type: ignore[arg-type]


async def session_for_its_key(service: SessionService) -> None:
    session = await service.get_or_create_session(KEY)
    await service.get_session(session)  # type: ignore[arg-type]


async def awaited_service(_: SessionService) -> None:
    await open_service("memory://")  # type: ignore[misc]


async def without_await(service: SessionService) -> None:
    session = service.get_or_create_session(KEY)
    try:
        await service.append_event(session, HELLO)  # type: ignore[arg-type]
    finally:
        session.close()


async def awaited_run(service: SessionService) -> None:
    await Runner("shop", answer, service).run("ann", "s1", "Hi")  # type: ignore[misc]


async def plain_for_over_a_run(service: SessionService) -> None:
    for _ in Runner("shop", answer, service).run("ann", "s1", "Hi"):  # type: ignore[attr-defined]
        pass


async def awaited_lease(service: SessionService) -> None:
    await service.lease(KEY)  # type: ignore[misc]


async def awaited_subscription(service: SessionService) -> None:
    await service.subscribe(KEY)  # type: ignore[misc]


async def plain_for_over_a_subscription(service: SessionService) -> None:
    for _ in service.subscribe(KEY):  # type: ignore[attr-defined]
        pass


async def awaited_news(service: SessionService) -> None:
    async for _ in await service.subscribe_user(USER):  # type: ignore[misc]
        pass


async def plain_for_over_news(service: SessionService) -> None:
    for _ in service.subscribe_user(USER):  # type: ignore[attr-defined]
        pass


# -- agents, right and wrong


async def answer(_context: Any) -> AsyncIterator[Event]:
    yield Event(author="bot", content="Hello!")


async def returns_a_list(_context: Any) -> list[Event]:
    return [HELLO]


def is_not_async(_context: Any) -> list[Event]:
    return [HELLO]


async def yields_strings(_context: Any) -> AsyncIterator[str]:
    yield "Hello!"


async def takes_no_context() -> AsyncIterator[Event]:
    yield HELLO


async def keeps_an_object(context: Any) -> AsyncIterator[Event]:
    context.state["cart"] = Cart()
    yield HELLO


class AgentClass:
    async def run(self, _context: Any) -> AsyncIterator[Event]:
        yield HELLO


@dataclass
class Cart:
    items: tuple[str, ...] = ()


class numpy:  # noqa: N801 - which is not installed here
    """What errors tell types of numpy by: their module."""

    bool = type("bool", (), {"__module__": "numpy"})
    float64 = type("float64", (float,), {"__module__": "numpy"})


def running(agent: Any) -> Callable[[SessionService], Any]:
    """Run a turn of an agent to its end."""

    async def run(service: SessionService) -> None:
        async for _ in Runner("shop", agent, service).run("ann", "s1", "Hi"):
            pass

    return run


def saving(value: object) -> Callable[[SessionService], Any]:
    """Save a value in the session's state."""
    return lambda service: service.update_session_state(KEY, {"cart": value})


def appending(**fields: Any) -> Callable[[SessionService], Any]:
    """Append an event with these fields."""
    return lambda service: service.append_event(KEY, Event(**{"author": "bot", **fields}))


MISTAKES = [
    # Ids and keys
    Mistake(
        "a user's id that is a number",
        lambda _: UserKey("shop", 42),  # type: ignore[arg-type]
        TypeError,
        "user_id must be a str, not int: 42; convert it with str(user_id)",
    ),
    Mistake(
        "a session's id that is a UUID",
        lambda _: SessionKey("shop", "ann", uuid.UUID(int=7)),  # type: ignore[arg-type]
        TypeError,
        "; convert it with str(session_id)",
    ),
    Mistake(
        "None for a session's id",
        lambda _: SessionKey("shop", "ann", None),  # type: ignore[arg-type]
        TypeError,
        "session_id must be a str, not NoneType: None; leave it out to get a new session",
    ),
    Mistake(
        "an empty user's id", lambda _: UserKey("shop", ""), ValueError, "user_id must not be empty"
    ),
    Mistake(
        "a session to read without its id",
        lambda service: service.get_session(SessionKey("shop", "ann")),
        ValueError,
        "the session_id is empty; only creating a session can do without",
    ),
    Mistake(
        "three strings for a key",
        lambda service: service.get_session("shop", "ann", "s1"),
        TypeError,
        "takes 2 positional arguments but 4 were given",
    ),
    Mistake(
        "a session's id alone for its key",
        lambda service: service.append_event("s1", HELLO),
        TypeError,
        "expected a SessionKey(app_name, user_id, session_id), not str: 's1'",
    ),
    Mistake(
        "a user's key for a session's",
        lambda service: service.get_session(USER),
        TypeError,
        "expected a SessionKey(app_name, user_id, session_id), not UserKey",
    ),
    Mistake(
        "a session's key for a user's",
        lambda service: service.list_sessions(KEY),
        TypeError,
        "expected a UserKey(app_name, user_id), not SessionKey",
    ),
    Mistake(
        "a session for its key",
        session_for_its_key,
        TypeError,
        "; pass its key",
    ),
    Mistake(
        "a key for an application's name",
        lambda service: service.update_app_state(USER, {"open": True}),
        TypeError,
        "app_name must be a str, not UserKey",
    ),
    # What is asynchronous
    Mistake(
        "async with on the class",
        class_instead_of_service,
        TypeError,
        "'type' object does not support the asynchronous context manager protocol",
    ),
    Mistake(
        "with instead of async with",
        with_instead_of_async_with,
        TypeError,
        "a InMemorySessionService is entered with 'async with', not with 'with'",
    ),
    *(
        Mistake(
            f"{copies.__name__} of a service, as on its way to another process",
            copies,
            TypeError,
            "a InMemorySessionService is not copied or pickled; make one in each process",
        )
        for copies in (copy.copy, copy.deepcopy, pickle.dumps)
    ),
    Mistake(
        "with around a runner",
        with_around_a_runner,
        TypeError,
        "a Runner is entered with 'async with', not with 'with'",
    ),
    Mistake(
        "an await before open_service()",
        awaited_service,
        TypeError,
        "object InMemorySessionService can't be used in 'await' expression",
    ),
    Mistake(
        "a session that was not awaited",
        without_await,
        TypeError,
        "not coroutine: <coroutine object SessionService.get_or_create_session",
    ),
    Mistake(
        "a run that is awaited",
        awaited_run,
        TypeError,
        "write 'async for event in runner.run(...)'",
    ),
    Mistake(
        "for instead of async for",
        plain_for_over_a_run,
        TypeError,
        "a run is neither awaited nor looped over with a plain 'for'",
    ),
    Mistake(
        "a lease that is awaited",
        awaited_lease,
        TypeError,
        "a lease is not awaited; write 'async with service.lease(...) as lease'",
    ),
    *(
        Mistake(
            mistake.__name__.replace("_", " "),
            mistake,
            TypeError,
            "a subscription is neither awaited nor looped over with a plain 'for'; write 'async "
            f"with service.{maker}(...) as items', and within it 'async for item in items'",
        )
        for mistake, maker in [
            (awaited_subscription, "subscribe"),
            (plain_for_over_a_subscription, "subscribe"),
            (awaited_news, "subscribe_user"),
            (plain_for_over_news, "subscribe_user"),
        ]
    ),
    # Events
    Mistake(
        "a dict for an event",
        lambda service: service.append_event(KEY, {"author": "user"}),
        TypeError,
        "Event.from_dict() makes one of a dict that to_dict() has made",
    ),
    Mistake(
        "a string for an event",
        lambda service: service.append_event(KEY, "Hello"),
        TypeError,
        "not str: 'Hello'; write Event(author='user', content=...)",
    ),
    Mistake(
        "the class Event for an event",
        lambda service: service.append_event(KEY, Event),
        TypeError,
        "not the class Event: <class 'agentsession.events.Event'>; make one",
    ),
    Mistake(
        "several events for one",
        lambda service: service.append_event(KEY, [HELLO]),
        TypeError,
        "; append_events() takes several",
    ),
    Mistake(
        "one event for several",
        lambda service: service.append_events(KEY, HELLO),
        TypeError,
        "append_event() takes one",
    ),
    Mistake(
        "an event without an author",
        lambda _: Event(content="Hello"),  # type: ignore[call-arg]
        TypeError,
        "Missing required argument 'author'",
    ),
    Mistake(
        "a role instead of an author",
        lambda _: Event(role="user", content="Hello"),  # type: ignore[call-arg]
        TypeError,
        "Unexpected keyword argument 'role'",
    ),
    Mistake(
        "an outcome of one's own",
        appending(outcome="done"),
        ValueError,
        "outcome must be one of '', 'completed', 'failed', 'cancelled', 'interrupted', "
        "'abandoned', 'waiting', not 'done'",
    ),
    Mistake("an empty author", appending(author=""), ValueError, "author must not be empty"),
    Mistake(
        "a dict for the content",
        appending(content={"text": "Hello"}),
        ValueError,
        "content must be a str or a list of parts such as [Text('Hello')], not dict",
    ),
    Mistake(
        "a part that is not in a list",
        appending(content=Text("Hello")),
        ValueError,
        "content must be a str or a list of parts such as [Text('Hello')], not Text",
    ),
    Mistake(
        "strings for parts",
        appending(content=["Hello"]),
        TypeError,
        "content[0] must be one of Text, Reasoning, Media, ToolCall, ToolResult, Data, not str; "
        "write Text(...)",
    ),
    Mistake(
        "a tool call without an id",
        appending(content=[ToolCall(None, "search")]),  # type: ignore[arg-type]
        ValueError,
        "content[0].call_id must be of type str, not null",
    ),
    Mistake(
        "a naive timestamp",
        appending(timestamp=datetime(2026, 1, 1)),  # noqa: DTZ001
        ValueError,
        "timestamp must be an aware datetime, as datetime.now(UTC) is",
    ),
    Mistake(
        "an event that is changed",
        lambda _: setattr(HELLO, "content", "Good bye"),
        AttributeError,
        "immutable type: 'Event'",
    ),
    # State
    Mistake(
        "state that is no mapping",
        lambda service: service.update_session_state(KEY, ["cart"]),
        TypeError,
        "state must be a mapping of names to values, not list",
    ),
    Mistake(
        "a datetime in state",
        saving(datetime.now(UTC)),
        StateValueError,
        "cart: a datetime.datetime cannot be stored, only what JSON can hold, and bytes as a whole "
        "state value; convert it first, for example with value.isoformat(); nothing was stored",
    ),
    Mistake(
        "a set in state",
        saving({"tea"}),
        StateValueError,
        "convert it to a plain JSON type first, for example with list(value)",
    ),
    Mistake(
        "an object deep in state",
        saving({"items": [Cart()]}),
        StateValueError,
        f"cart['items'][0]: a {__name__}.Cart cannot be stored",
    ),
    Mistake(
        "a dataclass in state",
        saving(Cart()),
        StateValueError,
        "convert it first, for example with dataclasses.asdict(value)",
    ),
    Mistake(
        "a bytearray in state",
        saving(bytearray(b"tea")),
        StateValueError,
        "cart: a bytearray cannot be stored, only bytes as a whole state value; convert it with "
        "bytes(value)",
    ),
    Mistake(
        "a number of numpy's in state",
        saving({"paid": numpy.bool()}),
        StateValueError,
        "cart['paid']: a numpy.bool cannot be stored, only what JSON can hold, and bytes as a "
        "whole state value; convert it first, for example with value.item()",
    ),
    Mistake(
        "a float of numpy's in state",
        saving(numpy.float64(1.5)),
        StateValueError,
        "cart: a numpy.float64 would not come back as one; convert it to a plain JSON type first, "
        "for example with value.item()",
    ),
    Mistake(
        "an event in state", saving(HELLO), StateValueError, "for example with value.to_dict()"
    ),
    Mistake(
        "NaN in state",
        saving(math.nan),
        StateValueError,
        "cart: nan has no form in JSON; store a string or None",
    ),
    Mistake(
        "numbers for keys in state", saving({1: "tea"}), StateValueError, "keys must be strings"
    ),
    Mistake(
        "an object in an event's metadata",
        appending(metadata={"cart": Cart()}),
        StateValueError,
        f"metadata['cart']: a {__name__}.Cart cannot be stored",
    ),
    Mistake(
        "a user's state written as the application's",
        lambda service: service.update_app_state("shop", {"user:name": "Ann"}),
        StateValueError,
        "user:name: the name belongs to another scope than 'app:'",
    ),
    # Reading and writing
    Mistake(
        "a negative limit",
        lambda service: service.list_sessions(USER, limit=-1),
        ValueError,
        "limit must be 1 or more, not -1",
    ),
    Mistake(
        "a page that is too large",
        lambda service: service.get_events(KEY, limit=100_000),
        ValueError,
        "limit must be from 1 to 1,000, not 100000",
    ),
    Mistake(
        "a negative number of events",
        lambda service: service.get_session(KEY, num_recent_events=-1),
        ValueError,
        "num_recent_events must not be negative: -1",
    ),
    Mistake(
        "a naive datetime to read from",
        lambda service: service.get_session(KEY, since=datetime(2026, 1, 1)),  # noqa: DTZ001
        ValueError,
        "since must be aware, with a time zone such as datetime.UTC",
    ),
    Mistake(
        "the number of a page for a cursor",
        lambda service: service.list_sessions(USER, cursor="2"),
        ValueError,
        "cursor is no next_cursor of a SessionPage: '2'; the first page needs none",
    ),
    Mistake(
        "appending to a session that was never made",
        lambda service: service.append_event(SessionKey("shop", "ann", "another"), HELLO),
        SessionNotFoundError,
        "it was never created, was deleted or has expired. get_or_create_session() makes it",
    ),
    Mistake(
        "a session that is not there, unlooked at",
        session_that_is_not_there,
        TypeError,
        "get_session() returns None if there is no session, get_or_create_session() never",
    ),
    Mistake(
        "making a session twice",
        lambda service: service.create_session(KEY),
        SessionExistsError,
        "Use get_or_create_session(), or leave the id empty to get a new one",
    ),
    Mistake(
        "an expected revision that is stale",
        two_writers_of_one_revision,
        RevisionConflictError,
        "nothing was stored. Load the session again, decide anew, and repeat",
    ),
    Mistake(
        "use after closing",
        used_after_closing,
        ClosedError,
        "the session service is closed; make a new one",
    ),
    Mistake(
        "entering a service twice",
        entered_again,
        ClosedError,
        "'async with' closes it at the end of the block",
    ),
    # Making a service
    Mistake(
        "a URL without a scheme",
        lambda _: open_service("localhost:6379"),
        ValueError,
        "it must begin with one of memory://, sqlite://, redis://",
    ),
    Mistake(
        "a variable of the environment that is not set",
        lambda _: open_service(None),  # type: ignore[arg-type]
        TypeError,
        "not NoneType: None; is the environment variable set that it comes from?",
    ),
    Mistake(
        "a password with a slash in it",
        lambda _: open_service("redis://:pa/ss@localhost:6379/0"),
        ValueError,
        "'/' in a password is %2F",
    ),
    Mistake(
        "a name for a database",
        lambda _: open_service("redis://localhost/shop"),
        ValueError,
        "the database after the host must be a number",
    ),
    Mistake(
        "sentinels without the name of the service",
        lambda _: open_service("redis+sentinel://localhost"),
        ValueError,
        "it names no service. Write redis+sentinel://user:password@host:26379,host2:26379/mymaster",
    ),
    Mistake(
        "a host for the memory",
        lambda _: open_service("memory://localhost"),
        ValueError,
        "memory:// and nothing more",
    ),
    Mistake(
        "an option with a slip of the pen",
        lambda _: open_service("memory://", sesion_ttl=60),  # type: ignore[call-arg]
        TypeError,
        "did you mean 'session_ttl'?",
    ),
    Mistake(
        "a time to live in words",
        lambda _: InMemorySessionService(session_ttl="1h"),  # type: ignore[arg-type]
        TypeError,
        "session_ttl must be seconds or a timedelta, not str: '1h'",
    ),
    Mistake(
        "client_options that are no dict",
        lambda _: open_service("redis://localhost", client_options="x"),  # type: ignore[arg-type]
        TypeError,
        "client_options must be a dict of what redis-py takes for a connection, such as "
        "{'ssl_ca_certs': 'ca.pem'}, not str",
    ),
    Mistake(
        "no timeout",
        lambda _: open_service("redis://localhost", timeout=None),
        ValueError,
        "timeout must be more than 0; without one a hung server would hang its callers",
    ),
    Mistake(
        "a client that is not asynchronous",
        lambda _: RedisSessionService(redis.Redis()),  # type: ignore[arg-type]
        TypeError,
        "must be a redis.asyncio.Redis or redis.asyncio.RedisCluster, not redis.client.Redis",
    ),
    Mistake(
        "a URL for a client",
        lambda _: RedisSessionService("redis://localhost"),  # type: ignore[arg-type]
        TypeError,
        "a URL goes to RedisSessionService.from_url(url)",
    ),
    # A file
    Mistake(
        "no file at all",
        lambda _: SQLiteSessionService(None),  # type: ignore[arg-type]
        TypeError,
        "path must be a str or a Path, not NoneType",
    ),
    Mistake(
        "a URL for a path",
        lambda _: SQLiteSessionService("sqlite:///sessions.db"),
        ValueError,
        "path must be a path; a URL goes to open_service(url)",
    ),
    Mistake(
        "a path for a URL",
        lambda _: open_service("sessions.db"),
        ValueError,
        "as in redis://localhost:6379/0 or sqlite:///sessions.db",
    ),
    Mistake(
        "two slashes before a path",
        lambda _: open_service("sqlite://sessions.db"),
        ValueError,
        "as in sqlite:///sessions.db, or sqlite:////var/lib/bot/sessions.db for a whole path; a "
        "file has no host: three slashes stand before its path",
    ),
    Mistake(
        "a file in memory",
        lambda _: SQLiteSessionService(":memory:"),
        ValueError,
        "path must name a file; InMemorySessionService keeps sessions in memory",
    ),
    Mistake(
        "a folder for a file",
        lambda _: SQLiteSessionService("/"),
        ValueError,
        "path must name a file, as in 'sessions.db', and '/' is a folder",
    ),
    Mistake(
        "no waiting for other processes",
        lambda _: SQLiteSessionService("sessions.db", timeout=None),
        ValueError,
        "timeout must be more than 0; without one a hung process would hang all others",
    ),
    Mistake(
        "speed for safety",
        lambda _: open_service("sqlite:///sessions.db", synchronous="off"),  # type: ignore[arg-type]
        ValueError,
        "synchronous must be 'full' or 'normal', not 'off'",
    ),
    Mistake(
        "no server at all",
        lambda _: RedisSessionService(),
        ValueError,
        'try RedisSessionService.from_url("redis://localhost:6379/0")',
    ),
    Mistake(
        "a named instance that nobody registered",
        lambda _: RedisSessionService(instance="main"),
        ValueError,
        "Call register_redis_instance() first",
    ),
    # Agents and runners
    Mistake(
        "an agent that returns a list",
        running(returns_a_list),
        TypeError,
        "the agent returned a coroutine, not an async iterator; it needs 'async def' and 'yield'",
    ),
    Mistake(
        "an agent that is a plain function",
        running(is_not_async),
        TypeError,
        "the agent returned a list, not an async iterator; it needs 'async def' and 'yield'",
    ),
    Mistake(
        "an agent that is a class",
        lambda service: Runner("shop", AgentClass, service),  # type: ignore[arg-type]
        TypeError,
        "the agent is the class AgentClass; pass an instance of it",
    ),
    Mistake(
        "an agent that was called",
        lambda service: Runner("shop", answer(None), service),  # type: ignore[arg-type]
        TypeError,
        "; pass the function itself, which the runner calls in each turn",
    ),
    Mistake(
        "an agent that takes no context",
        running(takes_no_context),
        TypeError,
        "takes_no_context() takes 0 positional arguments but 1 was given",
    ),
    Mistake(
        "an agent that yields strings",
        running(yields_strings),
        TypeError,
        "an agent yields agentsession.Event objects, not str: 'Hello!'",
    ),
    Mistake(
        "an agent that keeps an object in state",
        running(keeps_an_object),
        StateValueError,
        f"cart: a {__name__}.Cart cannot be stored",
    ),
    Mistake(
        "the agent before the application",
        lambda _: Runner(answer, "shop"),  # type: ignore[arg-type]
        TypeError,
        "app_name must be a str, not function",
    ),
    Mistake(
        "a URL for the runner's service",
        lambda _: Runner("shop", answer, "memory://"),  # type: ignore[arg-type]
        TypeError,
        "session_service must be a SessionService, not 'memory://'; open_service(url) makes one",
    ),
    Mistake(
        "a class for the runner's service",
        lambda _: Runner("shop", answer, InMemorySessionService),  # type: ignore[arg-type]
        TypeError,
        "session_service must be a SessionService, not <class",
    ),
    Mistake(
        "no session's id for a turn",
        lambda service: Runner("shop", answer, service).run("ann", "Hi"),  # type: ignore[call-arg]
        TypeError,
        "missing 1 required positional argument: 'message'",
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
async def test_a_mistake_says_what_to_do(mistake: Mistake) -> None:
    """The type of the error is the very one of the row, and its words are in the message."""
    service = InMemorySessionService()
    await service.create_session(KEY)
    with pytest.raises(mistake.error) as raised:
        made = mistake.make(service)
        if inspect.iscoroutine(made):
            await made
    assert type(raised.value) is mistake.error
    assert mistake.says in str(raised.value)


def test_no_mistake_is_listed_twice() -> None:
    """Each row has a name of its own, and there are the forty that were asked for."""
    names = [mistake.what for mistake in MISTAKES]
    assert len(set(names)) == len(names) > 40
